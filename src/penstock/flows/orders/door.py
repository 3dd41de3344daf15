"""The door: everything from outside comes in here, as pure decisions over the door's documents.

``request`` remembers an Idempotency-Key and its reply, ``order`` answers a GET until the order
service has a document of its own, ``load`` and ``delivery`` make each stock entry and each
webhook count once, ``price`` holds the price lists. Each commits with the event it lets in.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from penstock.decision import Done, Emit, Ref, State, States
from penstock.flow import Accepted, Call, Fault, Reply, Scan
from penstock.flows.orders.events import (
    CarrierScanned,
    Line,
    OrderCancelRequested,
    OrderPlaced,
    ProviderNotified,
    StockCounted,
    StockReceived,
)
from penstock.flows.orders.order import Order, describe, lines_of
from penstock.flows.orders.pricing import (
    Break,
    Overflow,
    PriceList,
    Wanted,
    freeze,
    money,
    total,
    unknown_prices,
)
from penstock.flows.orders.requests import (
    CancelIn,
    OrderIn,
    PricesIn,
    ProviderIn,
    ScanIn,
    StockEntry,
    StockIn,
    address_of,
    beyond,
    card_field,
    customer_of,
    millis,
    order_id,
)

DOOR = "door"
PRICE_BREAKS_MAX = 100
SUPPLIED_PRICES = "supplied_prices"
LOAD_STOCK = "load_stock"
LOAD_PRICES = "load_prices"


class Placed(Struct, frozen=True, kw_only=True):
    """The reply to an accepted order."""

    order_id: str
    state: str
    total_minor: int
    currency: str
    href: str


class Cancelling(Struct, frozen=True, kw_only=True):
    """The reply to a cancellation: it is wished for, not decided."""

    order_id: str
    state: str = "cancelling"


class Loaded(Struct, frozen=True, kw_only=True):
    """The reply to a bulk load: entries taken now, and those known before."""

    accepted: int
    repeated: int = 0


class Noted(Struct, frozen=True, kw_only=True):
    """The reply to a webhook. ``repeated``: it was known; ``ignored``: nobody cares."""

    repeated: bool = False
    ignored: bool = False


class Request(Struct, frozen=True, kw_only=True):
    """What was answered under an Idempotency-Key, and to which body."""

    digest: str
    reply: Placed


class Once(Struct, frozen=True, kw_only=True):
    """Something from outside that came in already, and what it said."""

    content: str


DOOR_STATES: dict[str, type] = {
    "request": Request, "order": Order, "load": Once, "delivery": Once, "price": PriceList,
}


def refuse(status: int, code: str, title: str, detail: str, field: str = "", fix: str = "",
           extra: dict[str, object] | None = None) -> Accepted:
    """A problem instead of an acceptance; nothing is written."""
    fault = Fault(code=code, title=title, detail=detail, field=field, fix=fix, extra=extra or {})
    return Accepted(reply=Reply(status=status, body=fault))


def _forbidden(permission: str, field: str) -> Accepted:
    return refuse(
        403, "permission_missing", "Not permitted", f"this needs the permission {permission}",
        field, "Ask for it to be given to your client in the catalog.",
    )


def _card(body: Struct) -> Accepted | None:
    field = card_field(body)
    if not field:
        return None
    return refuse(
        422, "card_number", "A card number was sent", "card numbers are never accepted here",
        field, "Send the provider's token as payment_method instead.",
    )

def _beyond(field: str) -> Accepted:
    return refuse(
        422, "time_out_of_range", "Time out of range",
        "in UTC this time is none of the years 1 to 9999", field,
    )

# ---- POST /orders


def _request_ref(call: Call) -> Ref:
    return Ref("request", f"{call.client}/{call.idempotency_key}")


def _price_ref(sku: str, currency: str) -> Ref:
    return Ref("price", f"{sku}/{currency}")


def needs_of_order(call: Call) -> tuple[Ref, ...]:
    """The key's own row, the order it may make, and the price lists of the lines that bring
    no price."""
    body: OrderIn = call.body
    skus = {line.sku: None for line in body.lines if line.unit_minor is None}
    order = Ref("order", order_id(call.now, call.client, call.idempotency_key))
    return (_request_ref(call), order, *(_price_ref(sku, body.currency) for sku in skus))


def place(states: States, call: Call) -> Accepted:
    """Accept an order, replay the reply of the same one, or say what is wrong with it."""
    known: Request | None = states.get(_request_ref(call))
    if known:
        return _replay(known, call)
    body: OrderIn = call.body
    refused = _card(body) or _not_permitted(body, call) or _unpriced(states, call)
    if beyond(body.placed_at):
        refused = refused or _beyond("placed_at")
    if refused:
        return refused
    try:
        lines = freeze(_wanted(states, call), body.discount_minor)
    except Overflow as error:
        return refuse(422, "amount_too_large", "Amount too large", str(error), "lines")
    amount = total(lines)
    if amount == 0:
        return refuse(422, "nothing_to_pay", "Nothing to pay", "the total is zero", "lines")
    if body.expected_total is not None and body.expected_total != amount:
        return _other_price(body, lines, amount)
    return _accept(call, lines, amount)


def _replay(known: Request, call: Call) -> Accepted:
    if known.digest != call.digest:
        return refuse(
            422, "idempotency_key_reused", "Idempotency-Key reused",
            "this key was used before with another body", "Idempotency-Key",
            "Use a new key for a new order.", {"order_id": known.reply.order_id},
        )
    headers = {"Idempotent-Replayed": "true", "Location": known.reply.href}
    return Accepted(reply=Reply(status=202, body=known.reply, headers=headers))


def _not_permitted(body: OrderIn, call: Call) -> Accepted | None:
    if SUPPLIED_PRICES in call.may:
        return None
    for number, line in enumerate(body.lines):
        if line.unit_minor is not None:
            return _forbidden(SUPPLIED_PRICES, f"lines[{number}].unit_minor")
    if body.discount_minor:
        return _forbidden(SUPPLIED_PRICES, "discount_minor")
    return _forbidden(SUPPLIED_PRICES, "placed_at") if body.placed_at else None


def _lists(states: States, body: OrderIn) -> dict[str, PriceList | None]:
    return {line.sku: states.get(_price_ref(line.sku, body.currency)) for line in body.lines}


def _unpriced(states: States, call: Call) -> Accepted | None:
    body: OrderIn = call.body
    open_ = [(i, line) for i, line in enumerate(body.lines) if line.unit_minor is None]
    lines = [(line.sku, line.quantity) for _, line in open_]
    missing = unknown_prices(lines, _lists(states, body), call.now)
    if not missing:
        return None
    fields = [f"lines[{open_[place][0]}].sku" for place in missing]
    skus = list(dict.fromkeys(lines[place][0] for place in missing))
    return refuse(
        422, "unknown_price", "Unknown price",
        f"no price in {body.currency} for {', '.join(skus[:5])}", fields[0],
        "Load a price for it, or check the SKU.", {"fields": fields, "skus": skus},
    )


def _wanted(states: States, call: Call) -> list[Wanted]:
    body: OrderIn = call.body
    lists, wanted = _lists(states, body), []
    for line in body.lines:
        unit, prices = line.unit_minor, lists[line.sku]
        if unit is None and prices is not None:
            unit = prices.unit_minor(line.quantity, call.now)
        assert unit is not None, "a line without a price was let through"
        wanted.append(
            Wanted(
                sku=line.sku, quantity=line.quantity, unit_minor=unit, kind=line.kind,
                description=line.description, tax_rate_bp=line.tax_rate_bp,
            )
        )
    return wanted


def _other_price(body: OrderIn, lines: tuple[Line, ...], amount: int) -> Accepted:
    quote = [
        {"sku": x.sku, "quantity": x.quantity, "unit_minor": x.unit_minor,
         "tax_minor": x.tax_minor, "gross_minor": x.gross_minor}
        for x in lines
    ]
    return refuse(
        409, "total_differs", "The price is another",
        f"the total is {money(amount, body.currency)}, not "
        f"{money(body.expected_total or 0, body.currency)}", "expected_total",
        "Show the customer the quote, then send its total as expected_total.",
        {"quote": {"total_minor": amount, "currency": body.currency, "lines": quote}},
    )


def _accept(call: Call, lines: tuple[Line, ...], amount: int) -> Accepted:
    id_ = order_id(call.now, call.client, call.idempotency_key)
    placed = _placed(call, lines, amount)
    reply = Placed(
        order_id=id_, state="received", total_minor=amount, currency=placed.currency,
        href=f"/orders/{id_}",
    )
    first = Order(
        state="received", reached="received", as_of=call.now, lines=lines_of(placed),
        **describe(placed),
    )
    done = Done(
        states={
            _request_ref(call): Request(digest=call.digest, reply=reply), Ref("order", id_): first,
        },
        events=(Emit("orders", placed, id_),),
    )
    return Accepted(
        reply=Reply(status=202, body=reply, headers={"Location": reply.href}), done=done,
        root=(call.client, call.idempotency_key), key=id_,
    )


def _placed(call: Call, lines: tuple[Line, ...], amount: int) -> OrderPlaced:
    body: OrderIn = call.body
    return OrderPlaced(
        order_ref=body.order_ref, client=call.client, customer=customer_of(body.customer),
        address=address_of(body.address), currency=body.currency, lines=lines,
        total_minor=amount, payment_method=body.payment_method,
        deadline_seconds=body.deadline_seconds, placed_at=millis(body.placed_at, call.now),
    )

# ---- POST /orders/{id}/cancel


def _order_ref(call: Call) -> Ref:
    return Ref("order", call.params["id"])


def needs_of_cancel(call: Call) -> tuple[Ref, ...]:
    """The door's own document of the order."""
    return (_order_ref(call),)


def wants_of_cancel(call: Call) -> dict[str, Scan]:
    """The order service's document: whether the order is final."""
    return {"order": Scan(service="order", kind="order", key=call.params["id"], limit=1)}


def cancel(states: States, call: Call) -> Accepted:
    """Pass the wish on. Who decides it is payment or, later, shipping."""
    own: Order | None = states.get(_order_ref(call))
    if own is None:
        detail = f"there is no order {call.params['id']}"
        return refuse(404, "order_unknown", "Unknown order", detail, "id")
    body: CancelIn = call.body or CancelIn()
    rows = call.found.get("order", [])
    judged: Order | None = rows[0].body if rows else None
    if judged and judged.final:
        return refuse(
            409, "order_final", "The order has ended", f"the order is {judged.state}", "id",
            extra={"state": judged.state},
        )
    refused = _card(body)
    return refused or _pass_on(own, judged, body, call)


def _pass_on(own: Order, judged: Order | None, body: CancelIn, call: Call) -> Accepted:
    reply = Reply(status=202, body=Cancelling(order_id=call.params["id"]))
    seen = judged.asked if judged else 0
    undecided = judged is None or judged.asked > judged.refused
    if own.asked > seen or (own.asked and undecided):
        return Accepted(reply=reply)  # the same wish is still under way
    wish = OrderCancelRequested(reason=body.reason, client=call.client)
    after = replace(own, asked=own.asked + 1)
    done = Done({_order_ref(call): after}, (Emit("orders", wish, call.params["id"]),))
    root = ("cancel", call.params["id"], str(after.asked))
    return Accepted(reply=reply, done=done, root=root, key=call.params["id"])

# ---- POST /stock, PUT /prices


def _load_ref(file: str, entry: StockEntry) -> Ref:
    return Ref("load", f"{file}/{entry.sku}/{entry.location}")


def needs_of_stock(call: Call) -> tuple[Ref, ...]:
    """The rows of the file's entries."""
    body: StockIn = call.body
    return tuple(dict.fromkeys(_load_ref(body.file, entry) for entry in body.entries))


def load_stock(states: States, call: Call) -> Accepted:
    """Every entry counts once by file, SKU and location; another content for one is refused."""
    if LOAD_STOCK not in call.may:
        return _forbidden(LOAD_STOCK, "")
    body: StockIn = call.body
    refused = _card(body)
    if refused:
        return refused
    written: dict[Ref, State | None] = {}
    events: list[Emit] = []
    for number, entry in enumerate(body.entries):
        if beyond(entry.as_of):
            return _beyond(f"entries[{number}].as_of")
        ref, content = _load_ref(body.file, entry), _content(entry)
        known: Once | None = written.get(ref) or states.get(ref)
        if known is None:
            written[ref] = Once(content=content)
            events.append(_arrival(body.file, entry, call.now))
        elif known.content != content:
            return _other_content(body.file, entry, number)
    accepted = Loaded(accepted=len(events), repeated=len(body.entries) - len(events))
    done = Done(written, tuple(events))
    root = ("stock", body.file, call.digest)
    return Accepted(reply=Reply(status=202, body=accepted), done=done, root=root)


def _content(entry: StockEntry) -> str:
    return f"{entry.kind} {entry.quantity} {millis(entry.as_of, 0)}"


def _other_content(file: str, entry: StockEntry, number: int) -> Accepted:
    return refuse(
        409, "stock_entry_differs", "Known with another content",
        f"file {file} named {entry.sku} at {entry.location} before, and otherwise",
        f"entries[{number}]", "Send a correction under a new file id; nothing was loaded.",
    )


def _arrival(file: str, entry: StockEntry, now: int) -> Emit:
    if entry.kind == "receive":
        got = StockReceived(file=file, location=entry.location, quantity=entry.quantity)
        return Emit("arrivals", got, entry.sku)
    counted = StockCounted(
        file=file, location=entry.location, quantity=entry.quantity,
        as_of=millis(entry.as_of, now),
    )
    return Emit("arrivals", counted, entry.sku)


def needs_of_prices(call: Call) -> tuple[Ref, ...]:
    """The price lists that are touched."""
    body: PricesIn = call.body
    return tuple(dict.fromkeys(_price_ref(p.sku, p.currency) for p in body.prices))


def load_prices(states: States, call: Call) -> Accepted:
    """Add or replace prices; the same ones again change nothing."""
    if LOAD_PRICES not in call.may:
        return _forbidden(LOAD_PRICES, "")
    body: PricesIn = call.body
    lists: dict[Ref, PriceList] = {}
    for number, price in enumerate(body.prices):
        if beyond(price.valid_from):
            return _beyond(f"prices[{number}].valid_from")
        ref = _price_ref(price.sku, price.currency)
        known: PriceList = lists.get(ref) or states.get(ref) or PriceList()
        lists[ref] = known.with_break(
            Break(
                minimum_quantity=price.minimum_quantity, valid_from=millis(price.valid_from, 0),
                unit_minor=price.unit_minor,
            )
        )
        if len(lists[ref].breaks) > PRICE_BREAKS_MAX:
            detail = f"more than {PRICE_BREAKS_MAX} prices of {price.sku} in {price.currency}"
            return refuse(422, "too_many_prices", "Too many prices", detail, f"prices[{number}]")
    changed: dict[Ref, State | None] = {ref: new for ref, new in lists.items()
                                         if new != states.get(ref)}
    reply = Loaded(accepted=len(body.prices))
    return Accepted(reply=Reply(status=200, body=reply), done=Done(changed), root=("prices",))

# ---- webhooks


def _delivery_ref(source: str, id_: str) -> Ref:
    return Ref("delivery", f"{source}/{id_}")


def needs_of_scan(call: Call) -> tuple[Ref, ...]:
    """The row of this scan."""
    return (_delivery_ref("carrier", call.body.scan),)


def take_scan(states: States, call: Call) -> Accepted:
    """A carrier's scan, keyed by the order in our reference; each scan id counts once."""
    scan: ScanIn = call.body
    if beyond(scan.at):
        return _beyond("at")
    order, _, shipment = scan.reference.partition("/")
    fact = CarrierScanned(
        scan=scan.scan, shipment=shipment, type=scan.type, at=millis(scan.at, call.now)
    )
    return _take(states, "carrier", scan.scan, Emit("arrivals", fact, order))


def needs_of_notice(call: Call) -> tuple[Ref, ...]:
    """The row of this notification."""
    return (_delivery_ref("payments", call.body.id),)


_NOTICES = frozenset({"authorised", "declined", "captured", "voided", "refunded"})


def take_notice(states: States, call: Call) -> Accepted:
    """A payment provider's word, keyed by the order; each id counts once."""
    said: ProviderIn = call.body
    type_ = said.type.removeprefix("payment.")
    if type_ not in _NOTICES:
        return Accepted(reply=Reply(status=202, body=Noted(ignored=True)))
    fact = ProviderNotified(
        id=said.id, type=type_, group=str(said.group), payment=said.payment,
        amount_minor=said.amount, currency=said.currency, reason=said.reason,
    )
    return _take(states, "payments", said.id, Emit("arrivals", fact, said.order))


def _take(states: States, source: str, id_: str, emit: Emit) -> Accepted:
    ref = _delivery_ref(source, id_)
    if states.get(ref):
        return Accepted(reply=Reply(status=202, body=Noted(repeated=True)))
    content = msgspec.json.encode(emit.data).decode()
    done = Done({ref: Once(content=content)}, (emit,))
    reply = Reply(status=202, body=Noted())
    return Accepted(reply=reply, done=done, root=(source, id_), key=emit.key or "")
