"""What may be said about a payment, by whomever, turned into one kind of fact.

An answer, a webhook, a wake and an event of another service may all say the same thing; the
payment service decides about what was said and not about who said it.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec import Struct

from penstock.decision import Answer, Park
from penstock.event import Event
from penstock.flows.orders.events import Piece
from penstock.flows.orders.lifecycle import ABANDONED, CANCELLED, DEADLINE, OUT_OF_STOCK


class Fact(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """What was said about a payment, whoever said it."""

    name: str
    payment: str = ""
    amount_minor: int = 0
    currency: str = ""
    code: str = ""
    reason: str = ""
    pieces: tuple[Piece, ...] = ()


class _Body(Struct, frozen=True, gc=False):
    id: str = ""
    state: str = ""
    amount: int = 0
    currency: str = ""
    code: str = ""
    reason: str = ""


_BODY = msgspec.json.Decoder(_Body | None)

_OK = {"authorise": "authorised", "capture": "captured", "void": "voided", "refund": "refunded"}
_REFUSED = {
    "authorise": "declined", "capture": "capture_failed", "void": "void_refused",
    "refund": "refund_refused",
}
_GONE = frozenset({"voided", "expired", "declined"})  # nothing is left that could be voided


def _answered(event: Event) -> Fact | Park | None:
    answer: Answer = event.data
    if answer.outcome == "expired":
        return Park("gateway_expired", f"no definite answer to {answer.name}: {answer.reason}")
    name = (_OK if answer.outcome == "ok" else _REFUSED).get(answer.name)
    if name is None:
        return None
    try:
        body = _BODY.decode(answer.body) or _Body()
    except msgspec.MsgspecError as error:
        return Park("malformed_answer", f"{answer.name}: {error}")
    if name == "void_refused" and body.state in _GONE:
        name = "voided"
    return Fact(
        name=name, payment=body.id, amount_minor=body.amount, currency=body.currency,
        code=body.code, reason=body.reason or answer.reason,
    )


def _notified(event: Event) -> Fact:
    said = event.data
    return Fact(
        name=said.type, payment=said.payment, amount_minor=said.amount_minor,
        currency=said.currency, reason=said.reason,
    )


def _discarded(event: Event) -> Fact:
    placed = event.data.type == "order.placed"
    return Fact(name="discarded", code="placed" if placed else "", reason=ABANDONED)


_FACTS: dict[str, Callable[[Event], Fact | Park | None]] = {
    "order.cancel_requested": lambda event: Fact(name="cancel", reason=CANCELLED),
    "inventory.reserved": lambda event: Fact(
        name="reserved", amount_minor=event.data.amount_minor, currency=event.data.currency,
        pieces=event.data.pieces,
    ),
    "inventory.rejected": lambda event: Fact(name="give_up", reason=OUT_OF_STOCK),
    "wake": lambda event: Fact(name="give_up", reason=DEADLINE),
    "fulfillment.cancelled": lambda event: Fact(
        name="parcel_cancelled", reason=event.data.reason
    ),
    "provider.notified": _notified,
    "answer": _answered,
    "dead.discarded": _discarded,
}


def fact_of(event: Event) -> Fact | Park | None:
    """What an event says about a payment; None where it is no word on it."""
    return _FACTS[event.type](event)
