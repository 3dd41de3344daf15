"""The order service: folds stock, money and parcel facts into the order's public state.

It is the only judge. Facts come from topics that race, so each is folded into the document
first, whatever came before it; then the state is read off the document, and every step crossed
on the way is emitted, in order, once. While a cancellation is undecided or a person has to look,
progress is kept back and told when that is over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from penstock.decision import Context, Decision, Done, Emit, Ref, Service, States
from penstock.event import Event
from penstock.flows.orders import events as said
from penstock.flows.orders.lifecycle import CANCELLED, FINAL_STATES, NEW
from penstock.flows.orders.pricing import money

KIND = "order"
TIMELINE_MAX = 100  # the first entries and the latest are kept
TIMELINE_FIRST = 20


class LineState(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """One line and what became of its pieces."""

    line: int
    sku: str
    kind: str = "item"
    description: str = ""
    gross_minor: int = 0
    ordered: int = 0
    reserved: int = 0
    backordered: int = 0
    shipped: int = 0
    cancelled: int = 0
    returned: int = 0


class Shipment(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """One parcel as the customer sees it."""

    shipment: str
    state: str
    carrier: str = ""
    tracking: str = ""
    dispatched_at: int = 0
    delivered_at: int = 0


class Refund(Struct, frozen=True, kw_only=True, gc=False):
    """Money that went back."""

    refund: str
    amount_minor: int
    currency: str


class Entry(Struct, frozen=True, array_like=True, gc=False):
    """One fact on the timeline: its event's id and the id of what caused it, in hex."""

    at: int
    type: str
    id: str
    cause: str
    note: str
    state: str


class Order(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """The public document of an order, and the few facts its state is read off.

    ``reached`` is the furthest step told to the world; ``asked`` and ``refused`` count
    cancellations, ``held`` the parked records of its payment, ``closed`` is the reason its
    payment ended with, ``told`` counts the refunds told.
    """

    state: str = NEW
    reason: str = ""
    final: bool = False
    order_ref: str = ""
    client: str = ""
    customer: str = ""
    country: str = ""
    currency: str = ""
    total_minor: int = 0
    placed_at: int = 0
    lines: tuple[LineState, ...] = ()
    authorised_minor: int = 0
    captured_minor: int = 0
    refunded_minor: int = 0
    shipments: tuple[Shipment, ...] = ()
    returns: tuple[str, ...] = ()
    refunds: tuple[Refund, ...] = ()
    as_of: int = 0
    timeline: tuple[Entry, ...] = ()
    reached: str = NEW
    touched: bool = False
    kept: bool = False
    closed: str = ""
    asked: int = 0
    refused: int = 0
    held: int = 0
    told: int = 0


Changes = dict[str, Any]

# ---- folds: what each fact changes


def _count_pieces(
    lines: tuple[LineState, ...], pieces: tuple[said.Piece, ...],
    change: Callable[[LineState, int], LineState],
) -> tuple[LineState, ...]:
    """Lines changed by the pieces of a fact; a line not known yet is made as a stub."""
    wanted = {piece.line: piece for piece in pieces}
    known = [
        change(line, wanted.pop(line.line).quantity) if line.line in wanted else line
        for line in lines
    ]
    stubs = [change(LineState(line=p.line, sku=p.sku), p.quantity) for p in wanted.values()]
    return tuple(known + stubs)


def _reserved_line(line: LineState, quantity: int) -> LineState:
    return replace(line, reserved=max(0, quantity - line.shipped))


def _released_line(line: LineState, quantity: int) -> LineState:
    return replace(line, reserved=max(0, line.reserved - quantity))


def _shipped_line(line: LineState, quantity: int) -> LineState:
    return replace(
        line, shipped=line.shipped + quantity, reserved=max(0, line.reserved - quantity)
    )


def _fold_placed(order: Order, event: Event) -> Changes:
    placed: said.OrderPlaced = event.data
    if order.reached != NEW:
        return {}
    return {
        **describe(placed),
        "lines": _merge(lines_of(placed), order.lines),
        "reached": "placed",
    }


def describe(placed: said.OrderPlaced) -> Changes:
    """What an order says of itself, no personal data among it."""
    return {
        "order_ref": placed.order_ref, "client": placed.client, "customer": placed.customer.id,
        "country": placed.address.country, "currency": placed.currency,
        "total_minor": placed.total_minor, "placed_at": placed.placed_at,
    }


def lines_of(placed: said.OrderPlaced) -> tuple[LineState, ...]:
    """The lines of a new order: ordered, nothing else yet."""
    return tuple(
        LineState(
            line=one.line, sku=one.sku, kind=one.kind, description=one.description,
            gross_minor=one.gross_minor, ordered=one.quantity,
        )
        for one in placed.lines
    )


def _merge(lines: tuple[LineState, ...], stubs: tuple[LineState, ...]) -> tuple[LineState, ...]:
    ahead = {stub.line: stub for stub in stubs}
    return tuple(
        replace(line, reserved=ahead[line.line].reserved, shipped=ahead[line.line].shipped)
        if line.line in ahead else line
        for line in lines
    )


def _pieces(change: Callable[[LineState, int], LineState]) -> Callable[[Order, Event], Changes]:
    def fold(order: Order, event: Event) -> Changes:
        return {"lines": _count_pieces(order.lines, event.data.pieces, change)}

    return fold


def _shipment(order: Order, event: Event, **changes: Any) -> tuple[Shipment, ...]:
    id_ = event.data.shipment
    known = {parcel.shipment: parcel for parcel in order.shipments}
    known[id_] = replace(known.get(id_) or Shipment(shipment=id_, state=""), **changes)
    return tuple(known.values())


def _fold_labelled(order: Order, event: Event) -> Changes:
    label: said.ShipmentLabelled = event.data
    parcels = _shipment(
        order, event, state="labelled", carrier=label.carrier, tracking=label.tracking
    )
    return {"shipments": parcels}


def _fold_dispatched(order: Order, event: Event) -> Changes:
    sent: said.ShipmentDispatched = event.data
    parcels = _shipment(
        order, event, state="dispatched", carrier=sent.carrier, tracking=sent.tracking,
        dispatched_at=sent.dispatched_at,
    )
    lines = _count_pieces(order.lines, sent.pieces, _shipped_line)
    return {"shipments": parcels, "lines": lines}


def _fold_delivered(order: Order, event: Event) -> Changes:
    parcels = _shipment(
        order, event, state="delivered", delivered_at=event.data.delivered_at
    )
    return {"shipments": parcels}


def _fold_refunded(order: Order, event: Event) -> Changes:
    back: said.PaymentRefunded = event.data
    refund = Refund(
        refund=back.refund, amount_minor=back.amount_minor, currency=back.currency
    )
    return {
        "refunded_minor": order.refunded_minor + back.amount_minor,
        "refunds": (*order.refunds, refund),
    }


def _fold_captured(order: Order, event: Event) -> Changes:
    captured = order.captured_minor + event.data.amount_minor
    return {"captured_minor": captured, "kept": order.kept or event.data.kept}


def _nothing(order: Order, event: Event) -> Changes:
    return {}


_FOLDS: dict[str, Callable[[Order, Event], Changes]] = {
    "order.placed": _fold_placed,
    "order.cancel_requested": lambda order, event: {"asked": order.asked + 1},
    "inventory.reserved": _pieces(_reserved_line),
    "inventory.rejected": _nothing,
    "inventory.released": _pieces(_released_line),
    "payment.authorised": lambda order, event: {
        "authorised_minor": order.authorised_minor + event.data.amount_minor
    },
    "payment.declined": _nothing,
    "payment.captured": _fold_captured,
    "payment.refunded": _fold_refunded,
    "payment.closed": lambda order, event: {"closed": event.data.reason},
    "shipment.labelled": _fold_labelled,
    "shipment.dispatched": _fold_dispatched,
    "shipment.delivered": _fold_delivered,
    "shipment.exception": _nothing,
    "fulfillment.cancelled": lambda order, event: {
        "shipments": _shipment(order, event, state="cancelled")
    },
    "fulfillment.cancel_refused": lambda order, event: {
        "refused": order.refused + event.data.requests
    },
    "dead.parked": lambda order, event: {"held": order.held + 1},
    "dead.retried": lambda order, event: {"held": order.held - 1},
    "dead.discarded": lambda order, event: {"held": order.held - 1},
}

_NO_PROGRESS = frozenset({"order.placed", "order.cancel_requested"})

# ---- the judge: which state the document is in


def _stage(order: Order) -> str:
    """How far the order is, cancellations and parked records aside."""
    if not order.kept:
        return "processing" if order.touched else "received"
    goods = [line for line in order.lines if line.kind != "carriage"]
    if not goods:
        return "completed"
    if not any(line.shipped for line in goods):
        return "confirmed"
    if any(line.shipped < line.ordered for line in goods):
        return "part_shipped"
    parcels = [parcel for parcel in order.shipments if parcel.state != "cancelled"]
    return "completed" if all(p.state == "delivered" for p in parcels) else "shipped"


_PATH = ("placed", "received", "processing", "confirmed", "part_shipped", "shipped", "completed")


def _path(order: Order, stage: str) -> list[str]:
    """Every step from the furthest one told up to ``stage``."""
    steps = list(_PATH[_PATH.index(order.reached) + 1 : _PATH.index(stage) + 1])
    if stage != "part_shipped" and "part_shipped" in steps:
        steps.remove("part_shipped")  # all was sent at once
    if "shipped" in steps and not order.shipments:
        steps.remove("shipped")  # carriage alone
    return steps


def _ended(order: Order) -> str:
    sent = any(parcel.dispatched_at for parcel in order.shipments)
    if not order.closed or sent:
        return ""
    return "cancelled" if order.closed == CANCELLED else "rejected"


def _pause(order: Order) -> str:
    if order.held > 0:
        return "on_hold"
    return "cancelling" if order.asked > order.refused else ""


def crossed(order: Order) -> list[str]:
    """The steps between the state the document shows and the one its facts amount to."""
    if order.reached == NEW or order.final:
        return []
    stage, first = _stage(order), ["received"] if order.reached == "placed" else []
    paused = order.state in ("on_hold", "cancelling")
    ended = _ended(order)
    if ended:
        early = ["processing"] if order.reached in ("placed", "received") else []
        return first + ([] if paused else early) + [ended]
    pause = "" if stage == "completed" else _pause(order)
    if pause:
        return first + ([] if order.state == pause else [pause])
    steps = _path(order, stage)
    return steps if steps or not paused else [stage]


_STEPS: dict[str, type[said.OrderStep]] = {
    "processing": said.OrderProcessing,
    "on_hold": said.OrderOnHold,
    "confirmed": said.OrderConfirmed,
    "cancelling": said.OrderCancelling,
    "part_shipped": said.OrderPartShipped,
    "shipped": said.OrderShipped,
    "completed": said.OrderCompleted,
    "cancelled": said.OrderCancelled,
    "rejected": said.OrderRejected,
}


def _step(order: Order, state: str, previous: str) -> Emit:
    more: Changes = {}
    if state in ("part_shipped", "shipped"):
        last = max(order.shipments, key=lambda parcel: parcel.dispatched_at)
        more = {"shipment": last.shipment, "carrier": last.carrier, "tracking": last.tracking}
    resumed = state in _PATH and _PATH.index(state) <= _PATH.index(order.reached)
    step = _STEPS[state](
        previous=previous, reason=order.closed if state in FINAL_STATES else "", resumed=resumed,
        **more,
    )
    return Emit("order_states", step)


def _received(placed: said.OrderPlaced) -> Emit:
    step = said.OrderReceived(
        order_ref=placed.order_ref, customer=placed.customer, currency=placed.currency,
        total_minor=placed.total_minor,
    )
    return Emit("order_states", step)


def _tell(order: Order, event: Event, steps: list[str]) -> tuple[Emit, ...]:
    emits, previous = [], order.state
    for state in steps:
        received = state == "received" and event.type == "order.placed"
        emits.append(_received(event.data) if received else _step(order, state, previous))
        previous = state
    emits += [Emit("order_states", _refund_step(r)) for r in order.refunds[order.told :]]
    return tuple(emits)


def _refund_step(refund: Refund) -> said.OrderRefunded:
    return said.OrderRefunded(
        refund=refund.refund, amount_minor=refund.amount_minor, currency=refund.currency
    )


def _settled(order: Order, steps: list[str]) -> Order:
    """The document after its steps: the state shown, the furthest step, what a final end voids."""
    state = steps[-1]
    told = [step for step in steps if step in _PATH]
    reached = max([order.reached, *told], key=_PATH.index)
    ended = state in ("cancelled", "rejected")
    return replace(
        order, state=state, reached=reached, final=state in FINAL_STATES,
        reason=order.closed if ended else "",
        lines=tuple(map(_cancelled_line, order.lines)) if ended else order.lines,
    )


def _cancelled_line(line: LineState) -> LineState:
    return replace(line, cancelled=line.ordered - line.shipped)

# ---- the timeline


_NOTES: dict[str, Callable[[Any], str]] = {
    "order.placed": lambda fact: money(fact.total_minor, fact.currency),
    "order.cancel_requested": lambda fact: fact.reason,
    "inventory.reserved": lambda fact: _lines(len(fact.pieces)),
    "inventory.rejected": lambda fact: _short(fact),
    "inventory.released": lambda fact: fact.reason,
    "payment.authorised": lambda fact: money(fact.amount_minor, fact.currency),
    "payment.captured": lambda fact: money(fact.amount_minor, fact.currency),
    "payment.refunded": lambda fact: money(fact.amount_minor, fact.currency),
    "payment.declined": lambda fact: fact.reason or fact.code,
    "payment.closed": lambda fact: fact.reason,
    "shipment.labelled": lambda fact: f"{fact.carrier} {fact.tracking}".strip(),
    "shipment.dispatched": lambda fact: fact.shipment,
    "shipment.delivered": lambda fact: fact.shipment,
    "shipment.exception": lambda fact: fact.reason,
    "fulfillment.cancelled": lambda fact: fact.reason,
    "fulfillment.cancel_refused": lambda fact: fact.reason,
    "dead.parked": lambda fact: f"{fact.service}: {fact.kind}: {fact.reason}",
    "dead.retried": lambda fact: f"{fact.service}: retried by {fact.actor}: {fact.reason}",
    "dead.discarded": lambda fact: f"{fact.service}: discarded by {fact.actor}: {fact.reason}",
}


def _lines(count: int) -> str:
    return "1 line" if count == 1 else f"{count} lines"


def _short(fact: said.InventoryRejected) -> str:
    shown = [f"{s.sku} ({s.available} of {s.wanted})" for s in fact.short[:3]]
    more = f" and {len(fact.short) - 3} more" if len(fact.short) > 3 else ""
    return f"{fact.reason}: {', '.join(shown)}{more}"


def _noted(order: Order, event: Event, state: str) -> tuple[Entry, ...]:
    entry = Entry(
        event.appended_at or event.at, event.type, event.id.hex(), event.cause.hex(),
        _NOTES[event.type](event.data)[:200], state,
    )
    timeline = (*order.timeline, entry)
    if len(timeline) > TIMELINE_MAX:
        return timeline[:TIMELINE_FIRST] + timeline[TIMELINE_FIRST + 1 :]
    return timeline


def decide(states: States, event: Event, context: Context) -> Decision:
    """Fold the fact, judge, tell every step crossed."""
    ref = Ref(KIND, event.key)
    before: Order = states.get(ref) or Order()
    changes = _FOLDS[event.type](before, event)
    changes["touched"] = before.touched or event.type not in _NO_PROGRESS
    order = replace(before, as_of=context.now, **changes)
    steps = crossed(order)
    emits = () if order.reached == NEW else _tell(order, event, steps)
    after = _settled(order, steps) if steps else order
    told = len(after.refunds) if after.reached != NEW else 0
    timeline = _noted(order, event, after.state)
    return Done({ref: replace(after, timeline=timeline, told=told)}, emits)


def _state(order: Order) -> str | None:
    return None if order.state == NEW else order.state


SERVICE = Service(
    name="order",
    kind=KIND,
    states={KIND: Order},
    reads={
        "orders": ("order.placed", "order.cancel_requested"),
        "inventory": ("inventory.reserved", "inventory.rejected", "inventory.released"),
        "payments": (
            "payment.authorised", "payment.declined", "payment.captured", "payment.refunded",
            "payment.closed",
        ),
        "shipments": (
            "shipment.labelled", "shipment.dispatched", "shipment.delivered",
            "shipment.exception", "fulfillment.cancelled", "fulfillment.cancel_refused",
        ),
        "payment.dead": ("dead.parked", "dead.retried", "dead.discarded"),
    },
    decide=decide,
    labels={KIND: _state},
)
