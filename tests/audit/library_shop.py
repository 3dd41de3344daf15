"""A library's home with everything an auditor may meet, and books of it that were tampered with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from penstock import assemble
from penstock.catalog.load import load_catalog
from penstock.catalog.model import Catalog
from penstock.contracts.snapshot import OWN_FOLDER
from penstock.event import Message, Record
from penstock.flow import Call
from penstock.sim.audit.books import Ask, Books, Fact, Held
from penstock.sim.audit.files import books_of, snapshots
from penstock.sim.audit.platform import RULES, with_journal
from penstock.sim.audit.report import Report, audit
from tests.flows.ground import Ground, HandClock
from tests.flows.library import CATALOG, FLOW, SNAPSHOTS
from tests.flows.library.door import Delivery, LoanWish, Scanned
from tests.flows.library.lending import LOAN_SECONDS
from tests.flows.rig import Rig, Scripted

READS = with_journal({
    s.name: {topic: frozenset(types) for topic, types in s.reads.items()} for s in FLOW.services
})  # fmt: skip
CONTRACTS = (SNAPSHOTS, OWN_FOLDER)
NOWHERE = "nowhere man"  # has no address: letters to him are parked
Operate = Callable[[Rig, Record], None]


def open_library(
    ground: Ground, catalog: Catalog | None = None, clock: HandClock | None = None
) -> Rig:
    """The library; the first call about a deposit of l1 finds nobody."""
    clock = clock or HandClock()
    gateways = {
        "deposits": Scripted({"l1": ["unavailable", "unknown"], "l4": ["refused"]}, clock),
        "post": Scripted(clock=clock),
    }
    known = catalog or load_catalog(CATALOG)
    return Rig(assemble.with_platform(FLOW, known), known, ground, gateways, clock)


def keeping(seconds: float) -> Catalog:
    """The catalog with every topic kept for so long only, but for the journal."""
    catalog = load_catalog(CATALOG)
    topics = {
        name: topic if name == "journal" else replace(topic, retention_seconds=seconds)
        for name, topic in catalog.topics.items()
    }
    return replace(catalog, topics=topics)


def leave(rig: Rig) -> None:
    """Leave the groups and close every file, as an orderly end does."""
    rig.close()
    if rig.servers is None:
        rig.log.close()  # type: ignore[attr-defined]
        for store in rig.stores.values():
            store.file.close()


def buy(rig: Rig, *titles: str) -> None:
    """Copies of these titles, in one commit."""
    rig.requests(
        "buy",
        [
            Call(client="c", now=rig.clock.now(), body=Delivery(title=title, count=9),
                 idempotency_key=f"{title} {rig.clock.now()}", trace=f"00-{n:032x}-1-01")
            for n, title in enumerate(titles)
        ],
    )  # fmt: skip
    rig.run()


def lend(rig: Rig, loan: str, title: str = "emma", member: str = "mia") -> None:
    """A request for a loan and the scan of its copy."""
    wish = LoanWish(loan=loan, member=member, title=title)
    trace = f"00-{hash(loan) & 0xFFFF:032x}-2-01"
    rig.request("lend", wish, idempotency_key=loan, digest=loan, trace=trace)
    rig.request("scan", Scanned(loan=loan, barcode=loan), idempotency_key=f"s {loan}", trace=trace)
    rig.run()


def bring_back(rig: Rig, loan: str) -> None:
    """The copy is back."""
    rig.request("scan", Scanned(loan=loan, barcode=loan, back=True), idempotency_key=f"b {loan}")
    rig.run()


def parked(rig: Rig, service: str, key: str) -> Record:
    """The parked record of a key."""
    rows = (row.body for row in rig.rows(service, "waiting"))
    return next(w.record for w in rows if w.record.message.key == key)


def spoil(rig: Rig, key: str, message: Message | None = None) -> None:
    """A record that nobody can open, as a foreign client would append it."""
    bad = message or Message(key, b"{", b"x" * 16, "loan.requested", 1, 7, b"", "", "foreign")
    rig.log.append("requests", [bad], rig.clock.now())
    rig.run()


def live(rig: Rig) -> None:
    """A life with everything in it: calls in vain, timers, refusals, dead letters of all ends."""
    buy(rig, "emma", *(f"title {n}" for n in range(24)))
    for n in range(5):
        lend(rig, f"l{n}")
    lend(rig, "none", title="out of print")
    rig.wait(1000, 5)
    bring_back(rig, "l0")
    for loan in ("open", "again", "gone"):
        lend(rig, loan, member=NOWHERE)
    rig.wait(1)  # a parking is told apart from the next by its millisecond
    rig.operate("deadletter.retry_requested", parked(rig, "notices", "again"), "notices")
    rig.operate("deadletter.discard_requested", parked(rig, "notices", "gone"), "notices")
    rig.run()
    spoil(rig, "bad")
    lend(rig, "bad")  # waits behind it
    spoil(rig, "alien", Message("alien", b"\xff", b"", "", 0, 0, b"", "", ""))
    rig.operate("deadletter.discard_requested", parked(rig, "lending", "alien"), "lending")
    rig.run().wait(LOAN_SECONDS * 1000 // 2, 3)
    lend(rig, "late")  # its timer is still to come


def tidy_up(rig: Rig) -> int:
    """One round of retention and pruning, of everybody; returns what was dropped."""
    dropped = 0
    for name, store in rig.stores.items():
        keeper = assemble.make_keeper(rig.house, rig.log, store, name)  # type: ignore[arg-type]
        dropped += keeper.step(rig.clock.now())
    return dropped


def books(home: Path, **how: Any) -> Books:
    """The books of a library's home."""
    how.setdefault("contracts", snapshots(CONTRACTS))
    return books_of(home, reads=READS, continues=["notices"], **how)


def judged(found: Books) -> Report:
    """What the platform's rules say."""
    return audit(found, RULES)


def broken(found: Books) -> set[str]:
    """The rules that are violated."""
    return {violation.rule for violation in judged(found).violations}


# Tampering ---------------------------------------------------------------------------------------


def facts(found: Books, topic: str, change: Callable[[list[Fact]], list[Fact]]) -> Books:
    """The books with other records in a topic."""
    return found._replace(topics={**found.topics, topic: change(list(found.topics[topic]))})


def record(found: Books, topic: str, type_: str, **changes: Any) -> Books:
    """The books with the last record of a type changed."""

    def change(known: list[Fact]) -> list[Fact]:
        n = max(i for i, fact in enumerate(known) if fact.type == type_)
        known[n] = known[n]._replace(**changes)
        return known

    return facts(found, topic, change)


def rows(found: Books, service: str, table: str, change: Callable[[list[Any]], Any]) -> Books:
    """The books with other rows in a table."""
    store = found.stores[service]
    changed = store._replace(**{table: change(list(getattr(store, table)))})
    return found._replace(stores={**found.stores, service: changed})


def each(
    found: Books, service: str, table: str, where: Callable[[Any], bool], **changes: Any
) -> Books:
    """The books with all rows of a kind changed; there is at least one."""
    assert any(map(where, getattr(found.stores[service], table))), f"no such row in {table}"

    def change(known: list[Any]) -> list[Any]:
        return [row._replace(**changes) if where(row) else row for row in known]

    return rows(found, service, table, change)


def is_call(ask: Ask) -> bool:
    """A closed call to the deposits."""
    return ask.destination == "deposits" and ask.settled_at is not None


def is_open_letter(held: Held) -> bool:
    """The letter that nobody did anything about."""
    return held.key == "open"
