"""What the crash harness sends to the order flow: orders by number, of every kind and end.

Most take what is plenty; a few want the last pieces, are declined, are cancelled while the
provider is slow, or need a person. The cards are the sandbox provider's test cards.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from msgspec import Struct

from penstock.flow import Errand, Visit
from penstock.flows.orders.requests import (
    AddressIn,
    CancelIn,
    CustomerIn,
    LineIn,
    OrderIn,
    StockEntry,
    StockIn,
)

NOUN = "orders"
ID_FIELD = "order_id"
PLENTY, LAST = ("TEAPOT", "MUG", "SPOON"), "LAST"
PIECES = {**dict.fromkeys(PLENTY, 10_000), LAST: 2}
CURRENCY = "EUR"
ADDRESS = AddressIn(city="Lyon", country="France")
Look = Callable[[str], Any]
AfterPark = Literal["leave", "retry", "discard"]


class Kind(Struct, frozen=True, kw_only=True):
    """One kind of order: what is in it, how it is paid, how it may end."""

    ends: tuple[str, ...] = ("completed",)
    skus: tuple[str, ...] = PLENTY[:1]
    carriage: bool = False
    card: str = "tok_ok"
    cancel: bool = False
    guest: bool = False
    after_park: AfterPark = "leave"


# Dealt by number, one after the other; the rare ones are slow.
KINDS = (
    Kind(),
    Kind(skus=PLENTY, carriage=True),
    Kind(card="tok_slow", cancel=True, ends=("completed", "cancelled")),
    Kind(card="tok_503", guest=True),
    Kind(card="tok_decline", ends=("rejected",)),
    Kind(skus=PLENTY[1:]),
    Kind(skus=(LAST, PLENTY[0]), ends=("completed", "rejected")),
    Kind(card="tok_wrong_amount", after_park="discard", ends=("rejected",)),
    Kind(cancel=True, ends=("completed", "cancelled")),
    Kind(skus=(), carriage=True),
)
RARE = {
    17: Kind(card="tok_429"),
    23: Kind(card="tok_wrong_amount", after_park="retry", ends=("on_hold",)),
    31: Kind(card="tok_timeout"),
}


def supplies() -> tuple[Visit, ...]:
    """The stock."""
    entries = tuple(StockEntry(sku=sku, quantity=n) for sku, n in PIECES.items())
    body = StockIn(file="crash-stock", entries=entries)
    return (Visit(after=0, route="load_stock", key="crash-stock", body=body),)


def supplied(look: Look) -> bool:
    """Has the inventory all of it?"""
    return {line["sku"] for line in look("/stock")["stock"]} >= PIECES.keys()


def kind_of(number: int) -> Kind:
    """What the order of that number is like."""
    return RARE.get(number % 40, KINDS[number % len(KINDS)])


def errand(number: int) -> Errand:
    """The order of that number, and its cancellation where it has one."""
    kind, key = kind_of(number), f"crash-{number}"
    visits = [Visit(after=0, route="place_order", key=key, body=_body(number, kind))]
    if kind.cancel:
        why = CancelIn(reason="changed my mind")
        visits.append(
            Visit(after=0, route="cancel_order", key=f"{key}-cancel", body=why, of=key)
        )
    return Errand(visits=tuple(visits), ends=kind.ends, after_park=kind.after_park)


def _body(number: int, kind: Kind) -> OrderIn:
    lines = [
        LineIn(sku=sku, quantity=1, unit_minor=1000 + number % 100) for sku in kind.skus
    ]
    if kind.carriage:
        lines.append(LineIn(sku="POST", quantity=1, unit_minor=395, kind="carriage"))
    email = "" if kind.guest else f"c{number}@example.com"
    return OrderIn(
        order_ref=f"crash-{number}", customer=CustomerIn(id=f"c{number}", email=email),
        address=ADDRESS, currency=CURRENCY, lines=tuple(lines), payment_method=kind.card,
    )


def stand(look: Look, id: str) -> str:
    """The state of an order, as the door shows it."""
    shown = look(f"/orders/{id}")
    return "unknown" if shown is None else str(shown["state"])
