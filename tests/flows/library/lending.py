"""Who has which copy: joins requests and scans, shares shelves, takes deposits, minds the time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from penstock.decision import IGNORE, Ask, Context, Decision, Done, Emit, Ref, Service, States
from penstock.event import Event
from tests.flows.library.events import LoanBegan, LoanEnded, LoanOverdue, LoanRefused

LOAN_SECONDS = 14 * 86_400


class Loan(Struct, frozen=True, kw_only=True):
    """One loan; a stub while only one half of it is known."""

    state: str = "stub"  # stub, wanted, lent, overdue, ended, refused
    member: str = ""
    title: str = ""
    paid: bool = False
    barcode: str = ""


class Shelf(Struct, frozen=True, kw_only=True):
    """The copies of a title: shared by all its loans."""

    bought: int = 0
    free: int = 0


def needs(event: Event, own: Loan | None) -> tuple[Ref, ...]:
    """The shelf of the title, once the title is known."""
    if event.type == "copies.bought":
        return (Ref("shelf", event.key),)
    title = event.data.title if event.type == "loan.requested" else own.title if own else ""
    return (Ref("shelf", title),) if title else ()


def decide(states: States, event: Event, context: Context) -> Decision:
    """One rule per event type."""
    own = states[Ref("loan", event.key)] or Loan()
    return RULES[event.type](states, event, own, context.now)


def _bought(states: States, event: Event, own: Loan, now: int) -> Decision:
    ref = Ref("shelf", event.key)
    shelf, count = states[ref] or Shelf(), event.data.count
    return Done({ref: Shelf(bought=shelf.bought + count, free=shelf.free + count)})


def _requested(states: States, event: Event, own: Loan, now: int) -> Decision:
    wish, ref = event.data, Ref("shelf", event.data.title)
    shelf = states[ref] or Shelf()
    loan = replace(own, member=wish.member, title=wish.title)
    if not shelf.free:
        refused = replace(loan, state="refused")
        said = Emit("loans", LoanRefused(member=wish.member, reason="no copy"))
        return Done({Ref("loan", event.key): refused}, (said,))
    ask = Ask("deposits", "take", {"member": wish.member}, f"deposit:{event.key}")
    taken = replace(shelf, free=shelf.free - 1)
    return Done({Ref("loan", event.key): replace(loan, state="wanted"), ref: taken}, (), (ask,))


def _fetched(states: States, event: Event, own: Loan, now: int) -> Decision:
    return _lend(event, replace(own, barcode=event.data.barcode), now)


def _answered(states: States, event: Event, own: Loan, now: int) -> Decision:
    if event.data.outcome == "ok":
        return _lend(event, replace(own, paid=True), now)
    refused = replace(own, state="refused")
    said = Emit("loans", LoanRefused(member=own.member, reason="no deposit"))
    return Done({Ref("loan", event.key): refused, **_freed(states, own)}, (said,))


def _lend(event: Event, loan: Loan, now: int) -> Decision:
    """Lent when deposit and copy are both there, in whatever order they came."""
    ref = Ref("loan", event.key)
    if loan.state != "wanted" or not (loan.paid and loan.barcode):
        return Done({ref: loan})
    began = LoanBegan(member=loan.member, title=loan.title, barcode=loan.barcode)
    timer = Ask("clock", "overdue", due=now + 1000 * LOAN_SECONDS)
    return Done({ref: replace(loan, state="lent")}, (Emit("loans", began),), (timer,))


def _woken(states: States, event: Event, own: Loan, now: int) -> Decision:
    if own.state != "lent":
        return IGNORE
    said = Emit("loans", LoanOverdue(member=own.member, title=own.title))
    return Done({Ref("loan", event.key): replace(own, state="overdue")}, (said,))


def _returned(states: States, event: Event, own: Loan, now: int) -> Decision:
    if own.state not in ("lent", "overdue"):
        return IGNORE
    said = Emit("loans", LoanEnded(member=own.member, title=own.title))
    ended = {Ref("loan", event.key): replace(own, state="ended"), **_freed(states, own)}
    return Done(ended, (said,))


def _freed(states: States, loan: Loan) -> dict[Ref, Any]:
    ref = Ref("shelf", loan.title)
    shelf = states[ref] or Shelf()
    return {ref: Shelf(bought=shelf.bought, free=shelf.free + 1)}


Rule = Callable[[States, Event, Loan, int], Decision]
RULES: dict[str, Rule] = {
    "copies.bought": _bought,
    "loan.requested": _requested,
    "copy.fetched": _fetched,
    "copy.returned": _returned,
    "answer": _answered,
    "wake": _woken,
}
SERVICE = Service(
    name="lending",
    kind="loan",
    states={"loan": Loan, "shelf": Shelf},
    reads={
        "requests": ("loan.requested",),
        "scans": ("copy.fetched", "copy.returned"),
        "shelves": ("copies.bought",),
        "lending.answers": ("answer", "wake"),
    },
    decide=decide,
    needs=needs,
    labels={"loan": lambda loan: loan.state},
)
