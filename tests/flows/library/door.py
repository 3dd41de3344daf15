"""The counter: requests, scans and deliveries from outside."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from penstock.decision import Done, Emit, Ref, States
from penstock.flow import Accepted, Call, Fault, Intake, Reply, Route
from tests.flows.library.events import CopiesBought, CopyFetched, CopyReturned, LoanRequested


class LoanWish(Struct, frozen=True, kw_only=True):
    """The body of a request for a loan."""

    loan: str
    member: str
    title: str


class Scanned(Struct, frozen=True, kw_only=True):
    """The body of a scan at the counter."""

    loan: str
    barcode: str
    back: bool = False


class Delivery(Struct, frozen=True, kw_only=True):
    """The body of a delivery of new copies."""

    title: str
    count: int


class Slip(Struct, frozen=True, kw_only=True):
    """What the counter remembers of a request: its loan and what was asked."""

    loan: str
    digest: str


STATES: dict[str, type] = {"slip": Slip}
NO_COUNT = Fault(
    code="no_count", title="No copies", detail="A delivery has at least one copy.", field="$.count"
)
OTHER = Fault(code="other_request", title="Another request", detail="The key was used before.")


def _slip(call: Call) -> Ref:
    return Ref("slip", f"{call.client}/{call.idempotency_key}")


def lend(states: States, call: Call) -> Accepted:
    """A request for a loan; the same key again gets the same answer and makes no second event."""
    known, wish = states[_slip(call)], call.body
    if known is not None:
        same = known.digest == call.digest
        reply = Reply(status=202, body=known) if same else Reply(status=422, body=OTHER)
        return Accepted(reply=reply)
    slip = Slip(loan=wish.loan, digest=call.digest)
    fact = LoanRequested(member=wish.member, title=wish.title)
    done = Done({_slip(call): slip}, (Emit("requests", fact),))
    root = (call.client, call.idempotency_key)
    return Accepted(reply=Reply(status=202, body=slip), done=done, root=root, key=wish.loan)


def scan(states: States, call: Call) -> Accepted:
    """A copy goes out or comes back."""
    made: Any = CopyReturned if call.body.back else CopyFetched
    fact = made(barcode=call.body.barcode)
    root = (call.client, call.idempotency_key)
    done = Done(events=(Emit("scans", fact),))
    return Accepted(reply=Reply(status=202), done=done, root=root, key=call.body.loan)


def buy(states: States, call: Call) -> Accepted:
    """New copies."""
    if call.body.count < 1:
        return Accepted(reply=Reply(status=400, body=NO_COUNT))
    done = Done(events=(Emit("shelves", CopiesBought(count=call.body.count)),))
    root = (call.client, call.idempotency_key)
    return Accepted(reply=Reply(status=202), done=done, root=root, key=call.body.title)


def _route(path: str, name: str, summary: str, does: Intake, body: type, example: Any) -> Route:
    return Route(
        method="POST", path=path, name=name, summary=summary, does=does, body=body,
        example=example, needs_idempotency_key=True, replies={202: "Accepted."},
    )


NOTHING = Intake(needs=lambda call: (), decide=scan)
ROUTES = (
    _route(
        "/loans", "lend", "Ask for a loan.", Intake(needs=lambda call: (_slip(call),), decide=lend),
        LoanWish, LoanWish(loan="l-1", member="mia", title="emma"),
    ),
    _route("/scans", "scan", "Scan a copy.", NOTHING, Scanned, Scanned(loan="l-1", barcode="7")),
    _route(
        "/deliveries", "buy", "Add copies.", Intake(needs=lambda call: (), decide=buy), Delivery,
        Delivery(title="emma", count=2),
    ),
)
