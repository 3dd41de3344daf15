"""What every store must do to documents, marks, positions and owners. (Rows: ``outboxes``,
several writers at once: ``contention``.)

A backend's test file makes a :class:`StoreFixture` and runs ``store_scenarios(features)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from penstock.conformance.scenario import NOW, Suite, message, refused
from penstock.decision import Ref
from penstock.errors import StaleOwner
from penstock.event import Message, Record, root_id
from penstock.flow import Row, Scan
from penstock.ports import (
    COURIER_LANE,
    INTAKE_LANE,
    Advance,
    Features,
    Outgoing,
    Saved,
    Store,
    Tx,
    Waiting,
)

SERVICE = "folding"
ANSWERS = "folding.answers"  # topics the service produces; a backend may append them in commit
FOLDED = "folded"


class StoreFixture(Protocol):
    """One database of the backend under test, empty at first.

    ``opener`` opens the service's live store in another process (picklable), None where there
    is none. ``SERVICE`` produces ``ANSWERS`` and ``FOLDED``, four partitions each.
    """

    features: Features
    opener: Callable[[], Store] | None

    def open(self, service: str = SERVICE, namespace: str = "live") -> Store:
        """Another handle on a service's store, used by one thread."""

    def restart(self) -> None:
        """Let go of all handles, as the end of the process would."""

    def promised(self, topic: str) -> list[Message]:
        """What committed for a topic, delivered already or still to be carried out."""


stores = Suite[StoreFixture]()


class Owner:
    """A worker in small: it claims lanes and commits at one position of ``letters``."""

    def __init__(self, store: Store, *lanes: int) -> None:
        self.store = store
        self.claims = {c.lane: c for c in store.claim(lanes or (0,), NOW)}

    @contextmanager
    def turn(self, offset: int = 1, *lanes: int) -> Iterator[Tx]:
        """A transaction that has advanced the lanes, all of the owner's or those given."""
        with self.store.begin() as tx:
            self.advance(tx, offset, *lanes)
            yield tx

    def advance(self, tx: Tx, offset: int, *lanes: int) -> None:
        """Move to ``offset``."""
        moves = [
            Advance(n, self.claims[n].epoch, {"letters": offset}) for n in lanes or self.claims
        ]
        tx.advance(moves, NOW)

    def save(self, *documents: Saved, offset: int = 1) -> None:
        """One transaction that writes documents only."""
        with self.turn(offset) as tx:
            tx.save(documents)


def sheet(key: str, body: bytes | None = b"{}", label: str | None = None) -> Saved:
    """A document of the suite's usual kind."""
    return Saved(Ref("sheet", key), body, label)


def ids(*names: str) -> list[bytes]:
    """Event ids by name, their roots appended at ``NOW``."""
    return [root_id(NOW, name) for name in names]


def record(offset: int, key: str = "k0", topic: str = "letters") -> Record:
    """A record of lane 0 as a log would hand it out."""
    return Record(topic, 0, offset, NOW, message(key, f"{offset}", type="a.sent", notes={"a": "b"}))


def ask(key: str, name: str, gateway: str = "press", due: int = 0) -> Outgoing:
    """A row for a gateway, its id and idempotency key derived from its name."""
    (id_,) = ids(f"ask/{gateway}/{key}/{name}")
    sent = Message(key, b'{"n": 1}', id=id_, type="ask", cause=bytes(16), trace="t")
    return Outgoing(gateway, False, sent, name, f"{gateway}:{key}:{name}", due)


def scan(store: Store, table: str, **wanted: Any) -> list[Row]:
    """A scan of the suite's service and kind."""
    what: Any = {"service": SERVICE, "table": table, "kind": "sheet", **wanted}
    return store.scan(Scan(**what))


def bodies(store: Store, *keys: str) -> dict[str, bytes]:
    """Documents by key, loaded in a transaction that keeps nothing."""
    with store.begin() as tx:
        found = tx.load([Ref("sheet", key) for key in keys]).bodies
    return {ref.key: body for ref, body in found.items()}


def seen(store: Store, *names: str) -> set[str]:
    """Which of the named events are marked."""
    by_id = dict(zip(ids(*names), names, strict=True))
    with store.begin() as tx:
        return {by_id[id_] for id_ in tx.load([], list(by_id)).seen}


def position(store: Store, lane: int = 0) -> int:
    """Where a lane's next owner would go on; 0 where nobody has committed. It claims the lane."""
    (claim,) = store.claim([lane], NOW)
    return claim.positions.get("letters", 0)


def do_everything(tx: Tx, name: str) -> None:
    """One of each thing a commit can hold, told apart by ``name``."""
    tx.save([sheet(name, b"[1]", "open")])
    tx.mark(ids(name))
    tx.send([Outgoing(FOLDED, True, message(name)), ask(name, "fold")], NOW)
    tx.defer([Waiting(record=record(7, name), state="waiting", due=NOW, attempts=1)], [])


def traces(fixture: StoreFixture, name: str) -> list[bool]:
    """Whether each thing of ``do_everything`` is there."""
    store = fixture.open()
    return [
        bool(bodies(store, name)),
        bool(scan(store, "documents", label="open", key=name)),
        bool(seen(store, name)),
        any(m.key == name for m in fixture.promised(FOLDED)),
        any(d.message.key == name for d in store.due("press", NOW, (), 100)),
        bool(scan(store, "asks", key=name)),
        bool(scan(store, "waiting", key=name)),
    ]


class Crash(Exception):
    """Thrown by a scenario in the middle of a transaction."""


@stores.scenario()
def a_claim_mints_a_higher_epoch(fixture: StoreFixture) -> None:
    """Each claim of a lane gives a higher epoch than the last, and a fresh lane no position."""
    store, last = fixture.open(), dict.fromkeys((0, 1, 3, COURIER_LANE, INTAKE_LANE), 0)
    for _ in range(4):
        claims = store.claim(list(last), NOW)
        assert {c.lane for c in claims} == set(last)
        assert all(c.epoch > last[c.lane] and c.positions == {} for c in claims)
        last = {c.lane: c.epoch for c in claims}


@stores.scenario()
def a_commit_is_all_there(fixture: StoreFixture) -> None:
    """States, mark, position, rows and waiting records of one transaction are all kept."""
    owner = Owner(fixture.open())
    with owner.turn(5) as tx:
        do_everything(tx, "first")
    assert all(traces(fixture, "first"))
    assert position(fixture.open()) == 5


@stores.scenario()
def an_exception_keeps_nothing(fixture: StoreFixture) -> None:
    """Whatever passes through a transaction undoes all of it, and the next one works."""
    owner = Owner(fixture.open())

    def fail() -> None:
        with owner.turn(5) as tx:
            do_everything(tx, "first")
            raise Crash

    refused(Crash, fail)
    assert not any(traces(fixture, "first"))
    with owner.turn(6) as tx:
        do_everything(tx, "first")
    assert all(traces(fixture, "first"))
    assert position(fixture.open()) == 6


@stores.scenario()
def a_stale_owner_keeps_nothing(fixture: StoreFixture) -> None:
    """Once a lane is claimed anew its last owner's commit raises, and leaves no trace."""
    old = Owner(fixture.open())
    old.save(sheet("before"), offset=3)
    new = Owner(fixture.open())
    assert new.claims[0].positions == {"letters": 3}

    def commit_late() -> None:
        with old.store.begin() as tx:
            do_everything(tx, "late")
            old.advance(tx, 9)

    refused(StaleOwner, commit_late)
    assert not any(traces(fixture, "late"))
    new.save(sheet("after"), offset=4)
    assert bodies(new.store, "before", "after", "late").keys() == {"before", "after"}
    assert position(fixture.open()) == 4


@stores.scenario()
def one_stale_lane_refuses_the_whole_commit(fixture: StoreFixture) -> None:
    """A commit over several lanes moves none of them when one has a newer owner."""
    old = Owner(fixture.open(), 0, 1, 2)
    old.save(offset=2)
    Owner(fixture.open(), 1)
    refused(StaleOwner, lambda: old.save(sheet("late"), offset=8))
    with old.turn(3, 0, 2):
        pass
    assert [position(fixture.open(), lane) for lane in (0, 1, 2)] == [3, 2, 3]
    assert not bodies(fixture.open(), "late")


@stores.scenario()
def a_lane_nobody_claimed_is_refused(fixture: StoreFixture) -> None:
    """There is no commit without a claim, and none with an epoch not minted yet."""
    store = fixture.open()

    def commit(lane: int, epoch: int) -> None:
        with store.begin() as tx:
            tx.advance([Advance(lane, epoch, {"letters": 1})], NOW)

    refused(StaleOwner, commit, 0, 1)
    (claim,) = store.claim([0], NOW)
    refused(StaleOwner, commit, 0, claim.epoch + 1)
    commit(0, claim.epoch)


@stores.scenario()
def a_lane_goes_to_and_fro(fixture: StoreFixture) -> None:
    """Two owners take a lane from each other: each goes on where the other committed last."""
    left, right = fixture.open(), fixture.open()
    previous = Owner(left)
    for offset in range(1, 7):
        owner = Owner(right if offset % 2 else left)
        refused(StaleOwner, previous.save)
        assert owner.claims[0].positions.get("letters", 0) == offset - 1
        owner.save(sheet(f"k{offset}"), offset=offset)
        previous = owner
    assert len(scan(left, "documents")) == 6


@stores.scenario()
def transaction_numbers_rise(fixture: StoreFixture) -> None:
    """Each commit's number is above all earlier ones, whoever the owner, whichever the lane."""
    latest = 0
    for lane in (0, 1, 0, INTAKE_LANE, 1):
        owner = Owner(fixture.open(), lane)
        for _ in range(3):
            with owner.store.begin() as tx:
                owner.advance(tx, 1)
            assert tx.number > latest
            latest = tx.number


@stores.scenario()
def documents_are_written_and_deleted(fixture: StoreFixture) -> None:
    """A document is what was saved last; a deleted or unknown one is missing from the load."""
    owner = Owner(fixture.open())
    owner.save(sheet("a", b"1"), sheet("b", b"2"), sheet("c", b"3"))
    owner.save(sheet("a", b"10"), sheet("b", None))
    assert bodies(owner.store, "a", "b", "c", "d") == {"a": b"10", "c": b"3"}
    owner.save(sheet("b", b"again"))
    assert bodies(fixture.open(), "b") == {"b": b"again"}


@stores.scenario()
def kinds_are_apart(fixture: StoreFixture) -> None:
    """One key may name a document of each kind, loaded together."""
    owner = Owner(fixture.open())
    refs = [Ref("sheet", "a"), Ref("shelf", "a"), Ref("shelf", "b")]
    owner.save(*(Saved(ref, f"{ref.kind}/{ref.key}".encode(), None) for ref in refs))
    with owner.store.begin() as tx:
        found = tx.load([*refs, Ref("sheet", "b"), Ref("none", "a")]).bodies
    assert found == {ref: f"{ref.kind}/{ref.key}".encode() for ref in refs}


@stores.scenario()
def bodies_are_kept_to_the_byte(fixture: StoreFixture) -> None:
    """Large and empty bodies, bytes that are no text, keys of any script."""
    owner = Owner(fixture.open())
    sent = {"large": bytes(range(256)) * 8192, "empty": b"", "ключ/%_'\"": b"\x00\xff", "Ä": b"1"}
    owner.save(*(sheet(key, body) for key, body in sent.items()))
    assert bodies(fixture.open(), *sent) == sent


@stores.scenario()
def one_load_finds_thousands(fixture: StoreFixture) -> None:
    """A batch's documents and marks come in one load, however many there are."""
    owner, names = Owner(fixture.open()), [f"n{n}" for n in range(5000)]
    with owner.turn() as tx:
        tx.save([sheet(name, name.encode()) for name in names])
        tx.mark(ids(*names))
    with owner.store.begin() as tx:
        found = tx.load([Ref("sheet", name) for name in names], ids(*names, "other"))
    assert {ref.key: body.decode() for ref, body in found.bodies.items()} == {n: n for n in names}
    assert found.seen == frozenset(ids(*names))


@stores.scenario()
def a_transaction_sees_its_own_writes(fixture: StoreFixture) -> None:
    """A second load in one transaction finds what the first half of it wrote."""
    owner = Owner(fixture.open())
    owner.save(sheet("a", b"old"), sheet("b", b"old"))
    with owner.turn(2) as tx:
        tx.save([sheet("a", b"new"), sheet("b", None)])
        tx.mark(ids("one"))
        found = tx.load([Ref("sheet", "a"), Ref("sheet", "b")], ids("one", "two"))
    assert found.bodies == {Ref("sheet", "a"): b"new"}
    assert found.seen == frozenset(ids("one"))


@stores.scenario()
def empty_calls_do_nothing(fixture: StoreFixture) -> None:
    """Every part of a transaction may be empty."""
    with Owner(fixture.open()).turn() as tx:
        found = tx.load([])
        tx.save([])
        tx.mark([])
        assert tx.send([], NOW) == set()
        tx.defer([], [])
    assert (found.bodies, found.seen) == ({}, frozenset())


@stores.scenario()
def a_repeated_mark_is_refused(fixture: StoreFixture) -> None:
    """An event marked already, or twice in one call, raises and undoes the transaction."""
    owner = Owner(fixture.open())
    with owner.turn(1) as tx:
        tx.mark(ids("one", "two"))

    def mark(*names: str) -> None:
        with owner.turn(2) as tx:
            tx.save([sheet("late")])
            tx.mark(ids(*names))

    refused(Exception, mark, "three", "one")
    refused(Exception, mark, "four", "four")
    assert seen(owner.store, "one", "two", "three", "four") == {"one", "two"}
    assert not bodies(owner.store, "late")
    assert position(fixture.open()) == 1


@stores.scenario()
def labels_are_counted(fixture: StoreFixture) -> None:
    """Documents are counted per label as they are now; those without one, or gone, are not."""
    owner = Owner(fixture.open())
    owner.save(*(sheet(f"k{n}", b"{}", "open" if n < 5 else "shut") for n in range(8)))
    owner.save(sheet("k0", b"{}", "shut"), sheet("k1", None), sheet("k2", b"{}", None))
    assert {r.label: r.count for r in scan(owner.store, "labels")} == {"open": 2, "shut": 4}
    found = scan(owner.store, "documents", label="shut")
    assert [(r.key, r.label) for r in found] == [(f"k{n}", "shut") for n in (0, 5, 6, 7)]


@stores.scenario()
def documents_are_paged(fixture: StoreFixture) -> None:
    """Pages follow each other by key, either way round; one key finds one document."""
    owner = Owner(fixture.open())
    owner.save(*(sheet(f"k{n:02}", f"{n}".encode()) for n in range(25)))
    owner.save(Saved(Ref("shelf", "k03"), b"other", None), sheet("k24", None))
    keys = [f"k{n:02}" for n in range(24)]
    for newest_first in (False, True):
        found, after = [], ""
        while page := scan(
            owner.store, "documents", after=after, limit=7, newest_first=newest_first
        ):
            assert len(page) <= 7
            found += page
            after = page[-1].key
        assert [r.key for r in found] == sorted(keys, reverse=newest_first)
    (row,) = scan(owner.store, "documents", key="k03")
    assert (row.key, row.kind, bytes(row.body)) == ("k03", "sheet", b"3")
    assert scan(owner.store, "documents", key="k24") == []


@stores.scenario()
def namespaces_are_apart(fixture: StoreFixture) -> None:
    """Documents, marks, positions, epochs and rows of one namespace are not in another's."""
    _check_apart(fixture.open(), fixture.open(namespace="rebuild"))


@stores.scenario()
def services_are_apart(fixture: StoreFixture) -> None:
    """Two services may share a database, and know nothing of each other's rows."""
    _check_apart(fixture.open(), fixture.open(service="pressing"))


def _check_apart(live: Store, other: Store) -> None:
    owner = Owner(live)
    with owner.turn(5) as tx:
        do_everything(tx, "first")
    assert (position(other), bodies(other, "first"), seen(other, "first")) == (0, {}, set())
    assert other.due("press", NOW, (), 100) == []
    tables = ("documents", "labels", "waiting")
    assert [scan(other, table) for table in tables] == [[], [], []]
    assert scan(other, "asks", key="first") == []
    with Owner(other).turn(1) as tx:
        tx.mark(ids("first"))
        tx.save([sheet("first", b"shadow")])
    owner.save(offset=6)
    assert (bodies(live, "first"), bodies(other, "first")) == (
        {"first": b"[1]"},
        {"first": b"shadow"},
    )


@stores.scenario("survives_restart")
def a_restart_keeps_the_store(fixture: StoreFixture) -> None:
    """All of a commit, and the epochs minted, outlive the process."""
    owner = Owner(fixture.open())
    with owner.turn(5) as tx:
        do_everything(tx, "first")
    fixture.restart()
    assert all(traces(fixture, "first"))
    (claim,) = fixture.open().claim([0], NOW)
    assert claim.epoch > owner.claims[0].epoch
    assert claim.positions == {"letters": 5}
