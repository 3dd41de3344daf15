"""The shipping service: owns the parcel, and decides between a cancellation and a scan.

A label is no dispatch: the carrier's handover scan is. One parcel per order for now. Events and
answers are named as in the table ``MOVES``; what the table does not name changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from penstock.decision import (
    IGNORE,
    Answer,
    Ask,
    Context,
    Decision,
    Done,
    Emit,
    Park,
    Ref,
    Service,
    States,
)
from penstock.event import Event
from penstock.flows.orders.events import (
    Address,
    FulfillmentCancelled,
    FulfillmentCancelRefused,
    FulfillmentRequested,
    Piece,
    ShipmentDelivered,
    ShipmentDispatched,
    ShipmentException,
    ShipmentLabelled,
)
from penstock.flows.orders.lifecycle import CANCELLED, NEW, UNDELIVERABLE

KIND = "parcel"
GATEWAY = "carrier"
AHEAD_MAX = 16


class Fact(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """What was said about a parcel, whoever said it."""

    name: str
    label: str = ""
    carrier: str = ""
    tracking: str = ""
    reason: str = ""
    at: int = 0


class Parcel(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """One order's parcel. ``cancels`` are the requests not answered yet."""

    state: str = NEW
    shipment: str = ""
    pieces: tuple[Piece, ...] = ()
    label: str = ""
    carrier: str = ""
    tracking: str = ""
    cancels: int = 0
    reason: str = ""
    ahead: tuple[Fact, ...] = ()


class Turn(Struct, frozen=True, gc=False):
    """The outcome of one fact: the parcel after it, and what goes out."""

    parcel: Parcel
    events: tuple[Emit, ...] = ()
    asks: tuple[Ask, ...] = ()


Move = Callable[[Parcel, Fact, str], Turn | Park]


class _Body(Struct, frozen=True, gc=False):
    label: str = ""
    tracking: str = ""
    carrier: str = ""
    reason: str = ""


_BODY = msgspec.json.Decoder(_Body | None)
_ANSWERS = {
    ("label", "ok"): "labelled",
    ("label", "refused"): "no_label",
    ("void_label", "ok"): "voided",
    ("void_label", "refused"): "not_voided",
}


def shipment_of(order: str) -> str:
    """The id of an order's (only) parcel."""
    return f"{order}-1"

# ---- what comes in, said as a fact


def _answered(event: Event) -> Fact | Park | None:
    answer: Answer = event.data
    if answer.outcome == "expired":
        return Park("gateway_expired", f"no definite answer to {answer.name}: {answer.reason}")
    name = _ANSWERS.get((answer.name, answer.outcome))
    if name is None:
        return None
    try:
        body = _BODY.decode(answer.body) or _Body()
    except msgspec.MsgspecError as error:
        return Park("malformed_answer", f"{answer.name}: {error}")
    return Fact(
        name=name, label=body.label, carrier=body.carrier, tracking=body.tracking,
        reason=body.reason or answer.reason,
    )


_FACTS: dict[str, Callable[[Event], Fact | Park | None]] = {
    "fulfillment.cancel_requested": lambda event: Fact(name="cancel", reason=event.data.reason),
    "carrier.scanned": lambda event: Fact(name=event.data.type, at=event.data.at),
    "answer": _answered,
}

# ---- what a fact does


def _keep(parcel: Parcel, fact: Fact, key: str) -> Turn | Park:
    """Ahead of the request: kept, applied when there is a parcel."""
    if len(parcel.ahead) >= AHEAD_MAX:
        return Park("unknown_order", f"more than {AHEAD_MAX} facts on a parcel never requested")
    return Turn(replace(parcel, ahead=(*parcel.ahead, fact)))


def _say(*events: Struct) -> tuple[Emit, ...]:
    return tuple(Emit("shipments", event) for event in events)


def _with_label(parcel: Parcel, fact: Fact) -> Parcel:
    return replace(
        parcel, label=fact.label, carrier=fact.carrier, tracking=fact.tracking
    )


def _labelled(parcel: Parcel, fact: Fact, key: str) -> Turn:
    known = replace(_with_label(parcel, fact), state="labelled")
    said = ShipmentLabelled(
        shipment=known.shipment, label=known.label, carrier=known.carrier,
        tracking=known.tracking,
    )
    return Turn(known, _say(said))


def _labelled_late(parcel: Parcel, fact: Fact, key: str) -> Turn:
    """The scan was faster than the label's own answer: noted, nothing else."""
    return Turn(parcel if parcel.label else _with_label(parcel, fact))


def _void_late(parcel: Parcel, fact: Fact, key: str) -> Turn:
    known = _with_label(parcel, fact)
    return Turn(known, (), (_void(known, key),))


def _void(parcel: Parcel, key: str) -> Ask:
    request = {"order": key, "shipment": parcel.shipment, "label": parcel.label}
    return Ask(GATEWAY, "void_label", request, f"void-label:{parcel.shipment}")


def _wish(parcel: Parcel, fact: Fact, key: str) -> Turn:
    """Void the label; one still under way answers first."""
    known = replace(
        parcel, state="cancelling", cancels=parcel.cancels + 1, reason=fact.reason or CANCELLED
    )
    return Turn(known, (), (_void(known, key),) if known.label else ())


def _wish_again(parcel: Parcel, fact: Fact, key: str) -> Turn:
    return Turn(replace(parcel, cancels=parcel.cancels + 1))


def _refuse_wish(parcel: Parcel, fact: Fact, key: str) -> Turn:
    said = FulfillmentCancelRefused(shipment=parcel.shipment, reason=parcel.state)
    return Turn(parcel, _say(said))


def _cancelled(parcel: Parcel, fact: Fact, key: str) -> Turn:
    known = replace(parcel, state="cancelled", cancels=0)
    return Turn(known, _say(FulfillmentCancelled(shipment=known.shipment, reason=known.reason)))


def _no_label(parcel: Parcel, fact: Fact, key: str) -> Turn:
    return _cancelled(replace(parcel, reason=parcel.reason or UNDELIVERABLE), fact, key)


def _not_voided(parcel: Parcel, fact: Fact, key: str) -> Turn:
    known, events = _back(parcel, "label_in_use")
    return Turn(replace(known, state="labelled"), events)


def _back(parcel: Parcel, reason: str) -> tuple[Parcel, tuple[Emit, ...]]:
    """Answers every cancellation that still waits for one: too late."""
    if not parcel.cancels:
        return parcel, ()
    said = FulfillmentCancelRefused(
        shipment=parcel.shipment, reason=reason, requests=parcel.cancels
    )
    return replace(parcel, cancels=0, reason=""), _say(said)


def _dispatched(parcel: Parcel, fact: Fact, key: str) -> Turn:
    """The scan wins over a cancellation under way."""
    known, refused = _back(parcel, "dispatched")
    said = ShipmentDispatched(
        shipment=known.shipment, pieces=known.pieces, carrier=known.carrier,
        tracking=known.tracking, dispatched_at=fact.at,
    )
    return Turn(replace(known, state="dispatched"), (*refused, *_say(said)))


def _delivered(parcel: Parcel, fact: Fact, key: str) -> Turn:
    said = ShipmentDelivered(shipment=parcel.shipment, delivered_at=fact.at)
    return Turn(replace(parcel, state="delivered"), _say(said))


def _delivered_first(parcel: Parcel, fact: Fact, key: str) -> Turn:
    """A delivery proves the handover whose scan is still on its way, or lost."""
    handed = _dispatched(parcel, fact, key)
    done = _delivered(handed.parcel, fact, key)
    return Turn(done.parcel, handed.events + done.events)


def _moves_though_cancelled(parcel: Parcel, fact: Fact, key: str) -> Turn:
    said = ShipmentException(shipment=parcel.shipment, reason=f"{fact.name}_after_cancel")
    return Turn(parcel, _say(said))


MOVES: dict[tuple[str, str], Move] = {
    ("planned", "labelled"): _labelled,
    ("planned", "no_label"): _no_label,
    ("planned", "cancel"): _wish,
    ("planned", "handover"): _dispatched,
    ("planned", "delivered"): _delivered_first,
    ("labelled", "cancel"): _wish,
    ("labelled", "handover"): _dispatched,
    ("labelled", "delivered"): _delivered_first,
    ("cancelling", "labelled"): _void_late,
    ("cancelling", "no_label"): _no_label,
    ("cancelling", "cancel"): _wish_again,
    ("cancelling", "voided"): _cancelled,
    ("cancelling", "not_voided"): _not_voided,
    ("cancelling", "handover"): _dispatched,
    ("cancelling", "delivered"): _delivered_first,
    ("dispatched", "labelled"): _labelled_late,
    ("dispatched", "cancel"): _refuse_wish,
    ("dispatched", "delivered"): _delivered,
    ("delivered", "labelled"): _labelled_late,
    ("delivered", "cancel"): _refuse_wish,
    ("cancelled", "handover"): _moves_though_cancelled,
    ("cancelled", "delivered"): _moves_though_cancelled,
}


def _apply(parcel: Parcel, fact: Fact, key: str) -> Turn | Park:
    move = MOVES.get((parcel.state, fact.name), _keep if parcel.state == NEW else None)
    return Turn(parcel) if move is None else move(parcel, fact, key)


def _is_strange(parcel: Parcel, event: Event) -> bool:
    if event.type != "carrier.scanned" or parcel.state == NEW:
        return False
    return bool(event.data.shipment != parcel.shipment)


def _strange(parcel: Parcel, fact: Fact, key: str) -> Turn:
    """A scan of a parcel that we never made: told, and nothing else."""
    said = ShipmentException(shipment=parcel.shipment, reason="unknown_parcel_scanned")
    return Turn(parcel, _say(said))


# ---- the request itself


def _plan(parcel: Parcel, event: Event) -> Turn | Park:
    wanted: FulfillmentRequested = event.data
    known = replace(
        parcel, state="planned", shipment=shipment_of(event.key), pieces=wanted.pieces, ahead=()
    )
    turn = Turn(known, (), (_label(known, wanted.address, event.key),))
    for fact in parcel.ahead:
        after = _apply(turn.parcel, fact, event.key)
        if isinstance(after, Park):
            return after
        turn = Turn(after.parcel, turn.events + after.events, turn.asks + after.asks)
    return turn


def _label(parcel: Parcel, address: Address, key: str) -> Ask:
    request = {
        "order": key,
        "shipment": parcel.shipment,
        "address": address,
        "lines": [{"sku": piece.sku, "quantity": piece.quantity} for piece in parcel.pieces],
    }
    return Ask(GATEWAY, "label", request, f"label:{parcel.shipment}")


def decide(states: States, event: Event, context: Context) -> Decision:
    """What this event does to the order's parcel."""
    ref = Ref(KIND, event.key)
    parcel: Parcel = states.get(ref) or Parcel()
    turn: Turn | Park
    if event.type == "fulfillment.requested":
        turn = Turn(parcel) if parcel.state != NEW else _plan(parcel, event)
    else:
        fact = _FACTS[event.type](event)
        if fact is None or isinstance(fact, Park):
            return fact or IGNORE
        move = _strange if _is_strange(parcel, event) else _apply
        turn = move(parcel, fact, event.key)
    if isinstance(turn, Park):
        return turn
    if turn.parcel is parcel and not turn.events and not turn.asks:
        return IGNORE
    return Done({ref: turn.parcel}, turn.events, turn.asks)


SERVICE = Service(
    name="shipping",
    kind=KIND,
    states={KIND: Parcel},
    reads={
        "fulfillment": ("fulfillment.requested", "fulfillment.cancel_requested"),
        "arrivals": ("carrier.scanned",),
        "shipping.answers": ("answer",),
    },
    decide=decide,
)
