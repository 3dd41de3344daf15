"""The flow's parts of the page for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.flow import Call, Panel, Row, Scan, Table
from penstock.flows.orders import views
from penstock.flows.orders.lifecycle import FINAL_STATES, NEW, ORDER_STATES
from penstock.flows.orders.pricing import money
from penstock.flows.orders.requests import rfc3339

LATEST_ROWS = 20
STOCK_ROWS = 20
NO_ORDERS = "No orders yet. Try: ./penstock orders place FILE, or ./penstock demo."
NO_STOCK = "No stock yet. Load some: ./penstock stock load FILE."

Rows = Mapping[str, list[Row]]


def _link(id_: str) -> tuple[str, str]:
    return id_, f"/ui/order/{id_}"


def _wants_states(call: Call) -> dict[str, Scan]:
    return {"states": Scan(service="order", table="labels", kind="order")}


def _states(call: Call, found: Rows) -> Table:
    counts = {row.key: row.count for row in found["states"]}
    rows = tuple(
        (state, counts[state], "yes" if state in FINAL_STATES else "")
        for state in ORDER_STATES
        if counts.get(state)
    )
    return Table(
        columns=("state", "orders", "final"), rows=rows, note=f"{sum(counts.values())} orders"
    )


def _wants_latest(call: Call) -> dict[str, Scan]:
    latest = Scan(service="order", kind="order", newest_first=True, limit=LATEST_ROWS)
    return {"orders": latest}


def _latest(call: Call, found: Rows) -> Table:
    known = [row for row in found["orders"] if row.body.state != NEW]
    rows = tuple(
        (
            _link(row.key), row.body.state, row.body.reason, len(row.body.lines),
            money(row.body.total_minor, row.body.currency), rfc3339(row.body.as_of),
        )
        for row in known
    )
    columns = ("order", "state", "reason", "lines", "total", "as of")
    return Table(columns=columns, rows=rows, note="" if rows else NO_ORDERS)


def _wants_stock(call: Call) -> dict[str, Scan]:
    return {"stock": Scan(service="inventory", kind="stock", limit=STOCK_ROWS)}


def _stock(call: Call, found: Rows) -> Table:
    lines = [views.stock_line(row.key, row.body) for row in found["stock"]]
    return Table(
        columns=("SKU", "on hand", "reserved", "available"),
        rows=tuple((one.sku, one.on_hand, one.reserved, one.available) for one in lines),
        note=f"the first {STOCK_ROWS} SKUs; all of them: GET /stock" if lines else NO_STOCK,
    )


def _wants_mails(call: Call) -> dict[str, Scan]:
    boxes = Scan(service="notify", kind="mailbox", newest_first=True, limit=LATEST_ROWS)
    return {"mails": boxes}


def _mails(call: Call, found: Rows) -> Table:
    rows = tuple(
        (_link(row.key), mail.text, mail.kind, mail.state)
        for row in found["mails"]
        for mail in row.body.mails
    )
    return Table(columns=("order", "mail", "kind", "state"), rows=rows)

# ---- one order


def _order_table(columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> Table:
    return Table(columns=columns, rows=tuple(rows))


def _summary(call: Call, found: Rows) -> Table:
    order = views.order_of(found)
    if order is None:
        return Table(columns=("order",), rows=(), note="There is no such order.")
    shown = {
        "order": call.params["id"],
        "state": f"{order.state} ({order.reason})" if order.reason else order.state,
        "reference": order.order_ref,
        "customer": order.customer or "guest",
        "country": order.country,
        "total": money(order.total_minor, order.currency),
        "authorised": money(order.authorised_minor, order.currency),
        "captured": money(order.captured_minor, order.currency),
        "refunded": money(order.refunded_minor, order.currency),
        "parcels": ", ".join(
            f"{p.shipment} {p.state} {p.carrier} {p.tracking}".strip() for p in order.shipments
        ),
        "as of": rfc3339(order.as_of),
    }
    return _order_table(("what", "value"), [pair for pair in shown.items() if pair[1]])


def _lines(call: Call, found: Rows) -> Table:
    order = views.order_of(found)
    rows = [
        (
            line.line, line.sku, line.description, line.ordered, line.reserved, line.shipped,
            line.cancelled, money(line.gross_minor, order.currency),
        )
        for line in (order.lines if order else ())
        if order
    ]
    columns = (
        "line", "SKU", "description", "ordered", "reserved", "shipped", "cancelled", "gross",
    )
    return _order_table(columns, rows)


def _timeline(call: Call, found: Rows) -> Table:
    order = views.order_of(found)
    moments = views.timeline(order, found) if order else ()
    rows: list[tuple[Any, ...]] = [
        (m.at, m.type, m.note, m.state, m.id[-8:], m.cause[-8:])
        for m in moments
        if m.kind == "fact"
    ]
    return _order_table(("at", "event", "note", "order is", "id", "cause"), rows)


def _calls(call: Call, found: Rows) -> Table:
    order = views.order_of(found)
    moments = views.timeline(order, found) if order else ()
    rows: list[tuple[Any, ...]] = [
        (m.at, m.type, m.note, m.state, m.cause[-8:]) for m in moments if m.kind == "call"
    ]
    return _order_table(("at", "call", "key", "outcome", "cause"), rows)


def _wants_mailbox(call: Call) -> dict[str, Scan]:
    return {"mails": Scan(service="notify", kind="mailbox", key=call.params["id"], limit=1)}


def _mailbox(call: Call, found: Rows) -> Table:
    rows: list[tuple[Any, ...]] = [
        (mail.text, mail.kind, mail.about, mail.state)
        for row in found["mails"]
        for mail in row.body.mails
    ]
    return _order_table(("mail", "kind", "about", "state"), rows)


PANELS: tuple[Panel, ...] = (
    Panel(name="states", title="Orders by state", wants=_wants_states, table=_states),
    Panel(name="latest", title="Latest orders", wants=_wants_latest, table=_latest),
    Panel(name="stock", title="Stock", wants=_wants_stock, table=_stock),
    Panel(name="mails", title="Latest mails", wants=_wants_mails, table=_mails),
    Panel(
        name="summary", title="Order", wants=views.wants_order, table=_summary, of="order"
    ),
    Panel(name="lines", title="Lines", wants=views.wants_order, table=_lines, of="order"),
    Panel(
        name="timeline", title="Timeline", wants=views.wants_order, table=_timeline, of="order"
    ),
    Panel(
        name="calls", title="Gateway calls", wants=views.wants_order, table=_calls, of="order"
    ),
    Panel(name="mailbox", title="Mails", wants=_wants_mailbox, table=_mailbox, of="order"),
)
