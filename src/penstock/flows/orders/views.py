"""What the door shows: orders, one order with its timeline, stock, prices.

Looks are pure: ``wants`` names the scans, ``show`` turns their rows into a reply. Numbers of
pieces and minor units stay numbers; times become RFC 3339.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from penstock.flow import Call, Fault, Reply, Row, Scan
from penstock.flows.orders.inventory import Stock
from penstock.flows.orders.lifecycle import NEW, ORDER_STATES
from penstock.flows.orders.order import Entry, LineState, Order, Refund, Shipment
from penstock.flows.orders.pricing import PriceList
from penstock.flows.orders.requests import rfc3339
from penstock.limits import PAGE_ROWS_MAX

PAGE_ROWS_DEFAULT = 100
CANCELLABLE = frozenset({"received", "processing", "on_hold", "confirmed"})
ASKING = ("payment", "shipping", "notify")  # services whose calls belong on a timeline

Rows = Mapping[str, list[Row]]


class Amounts(Struct, frozen=True, kw_only=True):
    """What was asked for, set aside, taken and given back, in minor units."""

    total_minor: int
    authorised_minor: int
    captured_minor: int
    refunded_minor: int
    currency: str


class Parcel(Struct, frozen=True, kw_only=True):
    """One shipment as it is shown."""

    shipment: str
    state: str
    carrier: str = ""
    tracking: str = ""
    dispatched_at: str | None = None
    delivered_at: str | None = None


class Moment(Struct, frozen=True, kw_only=True):
    """One entry of a timeline: a fact the order heard of, or a call to a gateway.

    ``kind`` is ``fact`` or ``call``; ``id`` and ``cause`` are event ids (of a call: its own id
    and the event that made it); ``state`` is the order's after a fact, the call's own for a call.
    """

    at: str
    kind: str
    type: str
    note: str
    state: str
    id: str = ""
    cause: str = ""


class OrderSummary(Struct, frozen=True, kw_only=True):
    """One order in a list."""

    order_id: str
    state: str
    final: bool
    reason: str
    order_ref: str
    customer: str
    total_minor: int
    currency: str
    placed_at: str
    as_of: str


class OrderPage(Struct, frozen=True, kw_only=True):
    """A page of orders, newest first; ``next`` continues it as ``after``."""

    orders: tuple[OrderSummary, ...]
    next: str | None = None


class OrderView(Struct, frozen=True, kw_only=True):
    """One order, whole."""

    order_id: str
    state: str
    final: bool
    reason: str
    order_ref: str
    customer: str
    country: str
    placed_at: str
    lines: tuple[dict[str, str | int], ...]
    amounts: Amounts
    shipments: tuple[Parcel, ...]
    refunds: tuple[Refund, ...]
    returns: tuple[str, ...]
    can: dict[str, bool]
    as_of: str
    timeline: tuple[Moment, ...]


class StockLine(Struct, frozen=True, kw_only=True):
    """One SKU's stock."""

    sku: str
    on_hand: int
    reserved: int
    available: int


class StockPage(Struct, frozen=True, kw_only=True):
    """A page of stock by SKU."""

    stock: tuple[StockLine, ...]
    next: str | None = None


class Price(Struct, frozen=True, kw_only=True):
    """One price of a SKU."""

    sku: str
    currency: str
    minimum_quantity: int
    valid_from: str
    unit_minor: int


class PricePage(Struct, frozen=True, kw_only=True):
    """A page of prices by SKU."""

    prices: tuple[Price, ...]
    next: str | None = None


PAGING = {
    "limit": f"rows on a page, 1 to {PAGE_ROWS_MAX} (default {PAGE_ROWS_DEFAULT})",
    "after": "where to go on: `next` of the page before",
}
PAGE_TYPES: dict[str, Any] = {"limit": Annotated[int, Meta(ge=1, le=PAGE_ROWS_MAX)]}
STATE_FILTER = {"state": f"only orders in this state: {', '.join(ORDER_STATES)}"}
STATE_TYPES: dict[str, Any] = {"state": Literal[ORDER_STATES]}


def _limit(call: Call) -> int:
    return int(call.query.get("limit", PAGE_ROWS_DEFAULT))


def _next(call: Call, rows: list[Row]) -> str | None:
    limit = _limit(call)
    return rows[limit - 1].key if len(rows) > limit else None

# ---- GET /orders


def wants_orders(call: Call) -> dict[str, Scan]:
    """A page of the order service's documents, newest first."""
    state = call.query.get("state") or None
    page = Scan(
        service="order", kind="order", label=state, after=call.query.get("after", ""),
        newest_first=True, limit=_limit(call) + 1,
    )
    return {"orders": page}


def show_orders(call: Call, found: Rows) -> Reply:
    """A page of orders; an order of which only stray facts are known is none."""
    rows = found["orders"]
    orders = tuple(
        summary(row.key, row.body) for row in rows[: _limit(call)] if row.body.state != NEW
    )
    return Reply(body=OrderPage(orders=orders, next=_next(call, rows)))


def summary(id_: str, order: Order) -> OrderSummary:
    """An order as lists show it."""
    return OrderSummary(
        order_id=id_, state=order.state, final=order.final, reason=order.reason,
        order_ref=order.order_ref, customer=order.customer, total_minor=order.total_minor,
        currency=order.currency, placed_at=rfc3339(order.placed_at), as_of=rfc3339(order.as_of),
    )

# ---- GET /orders/{id}


def wants_order(call: Call) -> dict[str, Scan]:
    """The order's document, the door's own until there is one, and the calls made for it."""
    id_ = call.params["id"]
    wanted = {
        "order": Scan(service="order", kind="order", key=id_, limit=1),
        "door": Scan(service="door", kind="order", key=id_, limit=1),
    }
    calls = {name: Scan(service=name, table="asks", key=id_, limit=100) for name in ASKING}
    return wanted | calls


def order_of(found: Rows) -> Order | None:
    """The order service's document, or the door's where that one knows nothing yet."""
    for name in ("order", "door"):
        for row in found.get(name, []):
            if row.body.state != NEW:
                order: Order = row.body
                return order
    return None


def show_order(call: Call, found: Rows) -> Reply:
    """One order with its timeline; 404 where nobody knows it."""
    order, id_ = order_of(found), call.params["id"]
    if order is None:
        fault = Fault(
            code="order_unknown", title="Unknown order", detail=f"there is no order {id_}",
            field="id",
        )
        return Reply(status=404, body=fault)
    return Reply(body=_view(id_, order, found))


def _view(id_: str, order: Order, found: Rows) -> OrderView:
    amounts = Amounts(
        total_minor=order.total_minor, authorised_minor=order.authorised_minor,
        captured_minor=order.captured_minor, refunded_minor=order.refunded_minor,
        currency=order.currency,
    )
    return OrderView(
        order_id=id_, state=order.state, final=order.final, reason=order.reason,
        order_ref=order.order_ref, customer=order.customer, country=order.country,
        placed_at=rfc3339(order.placed_at), lines=tuple(map(_line, order.lines)),
        amounts=amounts, shipments=tuple(map(_parcel, order.shipments)), refunds=order.refunds,
        returns=order.returns, can=_can(order), as_of=rfc3339(order.as_of),
        timeline=timeline(order, found),
    )


def _line(line: LineState) -> dict[str, str | int]:
    return {
        "line": line.line, "sku": line.sku, "kind": line.kind, "description": line.description,
        "gross_minor": line.gross_minor, "ordered": line.ordered, "reserved": line.reserved,
        "backordered": line.backordered, "shipped": line.shipped, "cancelled": line.cancelled,
        "returned": line.returned,
    }


def _can(order: Order) -> dict[str, bool]:
    return {"pay": False, "cancel": order.state in CANCELLABLE, "return": False}


def _parcel(parcel: Shipment) -> Parcel:
    return Parcel(
        shipment=parcel.shipment, state=parcel.state, carrier=parcel.carrier,
        tracking=parcel.tracking,
        dispatched_at=rfc3339(parcel.dispatched_at) if parcel.dispatched_at else None,
        delivered_at=rfc3339(parcel.delivered_at) if parcel.delivered_at else None,
    )


def timeline(order: Order, found: Rows) -> tuple[Moment, ...]:
    """What the order heard of and what was asked of gateways for it, in time order."""
    moments = [(entry.at, 0, _fact(entry)) for entry in order.timeline]
    for name in ASKING:
        moments += [(row.body["made_at"], 1, _call(row)) for row in found.get(name, [])]
    return tuple(moment for _, _, moment in sorted(moments, key=_when))


def _when(placed: tuple[int, int, Moment]) -> tuple[int, int]:
    return placed[:2]


def _fact(entry: Entry) -> Moment:
    return Moment(
        at=rfc3339(entry.at), kind="fact", type=entry.type, note=entry.note, state=entry.state,
        id=entry.id, cause=entry.cause,
    )


def _call(row: Row) -> Moment:
    ask = row.body
    tries = f"{ask['attempts']} calls" if ask["attempts"] > 1 else ""
    note = ", ".join(part for part in (ask["idempotency_key"], tries, ask["error"]) if part)
    return Moment(
        at=rfc3339(ask["made_at"]), kind="call", type=f"{ask['gateway']}.{ask['name']}",
        note=note, state=ask["outcome"] or "open", id=ask["ask"], cause=ask["cause"],
    )

# ---- GET /stock, GET /prices


def wants_stock(call: Call) -> dict[str, Scan]:
    """A page of stock documents by SKU."""
    page = Scan(
        service="inventory", kind="stock", key=call.query.get("sku") or None,
        after=call.query.get("after", ""), limit=_limit(call) + 1,
    )
    return {"stock": page}


def show_stock(call: Call, found: Rows) -> Reply:
    """A page of stock."""
    rows = found["stock"]
    lines = tuple(stock_line(row.key, row.body) for row in rows[: _limit(call)])
    return Reply(body=StockPage(stock=lines, next=_next(call, rows)))


def stock_line(sku: str, stock: Stock) -> StockLine:
    """One SKU as lists show it."""
    return StockLine(
        sku=sku, on_hand=stock.on_hand, reserved=stock.reserved, available=stock.available
    )


def wants_prices(call: Call) -> dict[str, Scan]:
    """A page of price lists by SKU and currency."""
    page = Scan(
        service="door", kind="price", after=call.query.get("after", ""), limit=_limit(call) + 1
    )
    return {"prices": page}


def show_prices(call: Call, found: Rows) -> Reply:
    """A page of price lists, each with all its prices."""
    rows = found["prices"]
    prices = tuple(price for row in rows[: _limit(call)] for price in _prices(row.key, row.body))
    return Reply(body=PricePage(prices=prices, next=_next(call, rows)))


def _prices(key: str, prices: PriceList) -> list[Price]:
    sku, _, currency = key.rpartition("/")
    return [
        Price(
            sku=sku, currency=currency, minimum_quantity=one.minimum_quantity,
            valid_from=rfc3339(one.valid_from), unit_minor=one.unit_minor,
        )
        for one in prices.breaks
    ]
