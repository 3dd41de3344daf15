"""What the simulator plays for the library: members, deposits and the post."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from penstock.flow import Visit
from penstock.ports import Ok, Outcome, Refused, Request
from tests.flows.library.door import Delivery, LoanWish, Scanned

ID_FIELD = "loan"
FAULTS = {"no_deposit": "the bank does not give a deposit"}
Dice = Callable[[], float]


def visits(dice: Dice, orders: int) -> list[Visit]:
    """Two titles with too few copies, and loans that are asked for, fetched and brought back."""
    found = [
        Visit(after=0, route="buy", key=f"b-{title}", body=Delivery(title=title, count=3))
        for title in ("emma", "persuasion")
    ]
    for n in range(orders):
        loan, at = f"l-{n}", int(dice() * 2000)
        member = f"nowhere-{n}" if dice() < 0.1 else f"m-{n % 5}"
        wish = LoanWish(loan=loan, member=member, title="emma" if dice() < 0.5 else "persuasion")
        found.append(Visit(after=at, route="lend", key=loan, body=wish))
        for back, late in ((False, 0), (True, 1500)):
            scanned = Scanned(loan=loan, barcode=f"copy-{n}", back=back)
            after = at + late + int(dice() * 1500)
            found.append(Visit(after=after, route="scan", key=f"s-{loan}-{back}", body=scanned))
    return found


class Outside:
    """The bank and the post, with nothing to remember but what was asked."""

    def __init__(self, fires: Callable[[str], bool], dice: Dice) -> None:
        self._fires = fires
        self._outcomes: dict[str, Outcome] = {}

    def call(self, gateway: str, request: Request, now: int) -> tuple[Outcome, list[Visit]]:
        """The first outcome of each key."""
        key = request.idempotency_key
        if key not in self._outcomes:
            refused = gateway == "deposits" and self._fires("no_deposit")
            self._outcomes[key] = Refused("no money") if refused else Ok(b'{"taken":true}')
        return self._outcomes[key], []

    def calm(self) -> list[Visit]:
        """Nothing is kept back."""
        return []

    def cancelled(self, visit: Visit) -> bool:
        """Every visit is made."""
        return False

    def ledgers(self) -> dict[str, dict[str, list[tuple[Any, ...]]]]:
        """Neither keeps a ledger of the documented kind."""
        return {}
