"""The second flow from request to letter, on every pair of backends, with the same outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from penstock.catalog.load import load_catalog
from penstock.contracts.snapshot import verify
from penstock.decision import Ref
from penstock.dotted import resolve
from penstock.flow import Call
from tests.flows.ground import Ground, HandClock
from tests.flows.library import CATALOG, FLOW, SNAPSHOTS
from tests.flows.library.door import Delivery, LoanWish, Scanned
from tests.flows.library.lending import LOAN_SECONDS, Loan, Shelf
from tests.flows.library.notices import Member
from tests.flows.rig import Rig, Scripted

Open = Callable[..., Rig]


@pytest.fixture
def library(ground: Ground) -> Iterator[Open]:
    """Opens the library on one pair of backends, with scripts for deposits by loan."""
    opened: list[Rig] = []

    def open_(**deposits: list[str]) -> Rig:
        clock = HandClock()
        gateways = {"deposits": Scripted(deposits, clock), "post": Scripted(clock=clock)}
        opened.append(Rig(FLOW, load_catalog(CATALOG), ground, gateways, clock))
        return opened[-1]

    yield open_
    for rig in opened:
        rig.close()


def ask(rig: Rig, loan: str, title: str = "emma", member: str = "mia") -> Any:
    wish = LoanWish(loan=loan, member=member, title=title)
    return rig.request("lend", wish, idempotency_key=loan, digest=f"{loan}{title}{member}")


def buy(rig: Rig, title: str = "emma", count: int = 2) -> None:
    rig.request("buy", Delivery(title=title, count=count), idempotency_key=f"b-{title}")
    rig.run()


def fetch(rig: Rig, loan: str, *, back: bool = False) -> None:
    scanned = Scanned(loan=loan, barcode=f"copy-{loan}", back=back)
    rig.request("scan", scanned, idempotency_key=f"s-{loan}-{back}")


def loan(rig: Rig, name: str) -> Loan:
    found = rig.states("lending")[Ref("loan", name)]
    assert isinstance(found, Loan)
    return found


def test_the_catalog_and_the_contracts_are_approved() -> None:
    catalog = load_catalog(CATALOG)
    assert resolve(catalog.flow) is FLOW
    assert resolve(catalog.services["lending"].handler) is FLOW.services[0]
    verify(FLOW.contracts, SNAPSHOTS)


@pytest.mark.parametrize("request_first", [True, False])
def test_request_and_copy_are_joined_in_either_order(
    library: Open, request_first: bool
) -> None:
    rig = library()
    buy(rig)
    halves: list[Callable[[Rig, str], Any]] = [ask, fetch]
    for half in halves if request_first else reversed(halves):
        half(rig, "l1")
        rig.run()
    assert loan(rig, "l1").state == "lent"
    assert rig.types("loans", "l1") == ["loan.began"]
    assert rig.types("letters", "l1") == ["letter.sent"]


def test_loans_share_the_shelf_and_the_last_copy_goes_once(library: Open) -> None:
    rig = library()
    buy(rig, count=3)
    for n in range(8):
        ask(rig, f"l{n}")
        fetch(rig, f"l{n}")
    rig.run()
    states = [loan(rig, f"l{n}").state for n in range(8)]
    assert sorted(states) == ["lent"] * 3 + ["refused"] * 5
    assert rig.states("lending")[Ref("shelf", "emma")] == Shelf(bought=3, free=0)


def test_a_refused_deposit_frees_the_copy(library: Open) -> None:
    rig = library(l1=["refused"])
    buy(rig, count=1)
    ask(rig, "l1")
    fetch(rig, "l1")
    rig.run()
    assert loan(rig, "l1").state == "refused"
    ask(rig, "l2")
    fetch(rig, "l2")
    rig.run()
    assert loan(rig, "l2").state == "lent"


def test_an_unknown_deposit_is_asked_for_with_the_same_key(library: Open) -> None:
    rig = library(l1=["unknown", "lost", "unavailable:3"])
    buy(rig)
    ask(rig, "l1")
    fetch(rig, "l1")
    rig.run().wait(1000, 20)
    deposits = rig.gateways["deposits"]
    assert isinstance(deposits, Scripted)
    assert {c.idempotency_key for c in deposits.calls} == {"deposit:l1"}
    assert [c.attempt for c in deposits.calls] == [1, 2, 3, 4]
    assert deposits.deeds == {"deposit:l1": 1}
    assert loan(rig, "l1").state == "lent"


def test_a_loan_is_overdue_at_its_time_and_once(library: Open) -> None:
    rig = library()
    buy(rig)
    for name in ("l1", "l2"):
        ask(rig, name)
        fetch(rig, name)
    rig.run()
    fetch(rig, "l2", back=True)
    rig.wait(1000 * LOAN_SECONDS - 1000)
    assert loan(rig, "l1").state == "lent"
    rig.start("lending")
    rig.wait(1000).wait(10_000)
    assert rig.types("loans", "l1") == ["loan.began", "loan.overdue"]
    assert rig.types("loans", "l2") == ["loan.began", "loan.ended"]
    fetch(rig, "l1", back=True)
    rig.run()
    assert rig.types("loans", "l1") == ["loan.began", "loan.overdue", "loan.ended"]
    assert rig.states("lending")[Ref("shelf", "emma")].free == 2


def test_notices_go_on_after_a_park(library: Open) -> None:
    rig = library()
    buy(rig)
    ask(rig, "l1", member="nowhere man")
    fetch(rig, "l1")
    rig.run()
    fetch(rig, "l1", back=True)
    rig.run()
    (letter,) = rig.facts("notices.dead")["l1"]
    assert (letter.kind, letter.topic, letter.type) == ("no_address", "loans", "loan.began")
    assert [fact.about for fact in rig.facts("letters")["l1"]] == ["loan.ended"]
    assert rig.states("notices")[Ref("member", "nowhere man")] == Member(letters=1)


def test_a_group_at_the_counter_commits_once_and_a_key_asks_once(library: Open) -> None:
    rig = library()
    buy(rig)
    commits = rig.commits("counter")
    wish = LoanWish(loan="l1", member="mia", title="emma")
    calls = [
        Call(client="c", now=rig.clock.now(), body=wish, idempotency_key="k", digest=digest)
        for digest in ("same", "same", "other", "same")
    ]
    replies = rig.requests("lend", calls)
    assert [reply.status for reply in replies] == [202, 202, 422, 202]
    assert rig.commits("counter") == commits + 1
    rig.run()
    assert len(rig.records("requests")) == 1


def test_all_pairs_come_to_the_same_end(ground: Ground) -> None:
    scripts = {"l1": ["unknown"], "l3": ["refused"], "l5": ["unavailable"], "l7": ["crash"]}
    ends = []
    for each in (None, ground):
        clock = HandClock()
        gateways = {"deposits": Scripted(scripts, clock), "post": Scripted(clock=clock)}
        rig = Rig(FLOW, load_catalog(CATALOG), each, gateways, clock)
        buy(rig, count=6)
        for n in range(10):
            ask(rig, f"l{n}", member="nowhere" if n == 4 else f"m{n % 3}")
            fetch(rig, f"l{n}")
            rig.run()
        rig.wait(1000, 10).wait(1000 * LOAN_SECONDS)
        facts = {topic: rig.facts(topic) for topic in ("loans", "letters", "notices.dead")}
        places = ("offset", "partition", "appended_at")
        parked = [
            {n: getattr(p, n) for n in p.__struct_fields__ if n not in places}
            for p in facts.pop("notices.dead")["l4"]
        ]
        ends.append((rig.states("lending"), rig.states("notices"), facts, parked))
        rig.close()
    assert ends[0] == ends[1]
