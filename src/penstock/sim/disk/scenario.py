"""The scenario: every operation of a store and of a log, in an order that a seed decides.

It goes through the real adapters (``assemble``) over a tape. Each step commits once in one file,
and what the file holds then is kept: after a cut it must hold exactly what it held after one of
the steps, and none earlier than the last whose commit had returned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import apsw
from msgspec import Struct

from penstock import assemble
from penstock.catalog.implied import with_implied
from penstock.catalog.model import CLOCK, JOURNAL, Catalog, ServiceEntry, Topic, answers_of
from penstock.contracts.wire import Book
from penstock.decision import Ref
from penstock.embedded.file import File
from penstock.embedded.schema import log_table
from penstock.errors import StaleOwner
from penstock.event import Message, Record, partition_of, root_id
from penstock.flow import Flow, Scan
from penstock.limits import OFFSET_MAX
from penstock.ports import (
    COURIER_LANE,
    Advance,
    Claim,
    Log,
    Outgoing,
    Saved,
    Settled,
    Store,
    TopicSpec,
    Tx,
    Waiting,
)
from penstock.sim.disk.tape import Recorder, Tape

SERVICE, FACTS, TELLER, LATER = "works", "facts", "teller", "later"
LANES = 2
NOW = 1_767_600_000_000
CHECKPOINT_PAGES = 24  # a write-ahead log of a few commits, so that it turns over often
OFTEN = 2  # how often the common steps come
SWOLLEN_BYTES = 300_000  # enough that retention gives pages back to the file system
Content = tuple[Any, ...]


NEVER = 1 << 60


class Ack(Struct, frozen=True):
    """A commit: operations ``began`` to ``ended`` of the tape were for it; ``ended`` is ``NEVER``
    for one that was under way when its process ended, so that nothing was promised."""

    step: str
    file: str
    began: int
    ended: int
    content: Content


def contents(db: apsw.Connection) -> Content:
    """All that a file holds, as a value."""
    tables = db.execute(
        "SELECT name, sql FROM sqlite_schema WHERE type = 'table' ORDER BY name"
    ).fetchall()
    return tuple((*t, *db.execute(f'SELECT * FROM "{t[0]}"').fetchall()) for t in tables)


def house_at(home: Path, vfs: str = "") -> assemble.House:
    """The scenario's house: one service with its topics, and the journal."""
    topics = {
        FACTS: Topic(
            name=FACTS, owner="us", producer=SERVICE, key="key", partitions=LANES,
            retention_bytes=24_000,
        )
    }  # fmt: skip
    service = ServiceEntry(
        name=SERVICE, owner="us", handler="none:NONE", reads=(FACTS,), writes=(FACTS,),
        asks=(TELLER, CLOCK),
    )  # fmt: skip
    catalog = with_implied(
        Catalog(name="disk", flow="", teams={}, topics=topics, services={SERVICE: service})
    )
    flow = Flow(name="disk", services=(), contracts=())
    return assemble.House(home=home, catalog=catalog, flow=flow, book=Book(()), vfs=vfs)


def path_of(home: Path, owner: str) -> Path:
    """Where a file of the scenario lies."""
    return home / f"{owner}.db"


FILES = (SERVICE, JOURNAL)


class Scenario:
    """One run. ``acks`` are its commits; it may be stopped by a fault at any step."""

    def __init__(self, home: Path, tape: Tape, vfs: str, dice: Random) -> None:
        self.house, self.tape, self.dice = house_at(home, vfs), tape, dice
        self._eye = Recorder(tape)  # no fault strikes who only looks
        self.acks: list[Ack] = []
        self.now, self._made = NOW, 0
        self._step = ""
        self.under_way: tuple[str, int] | None = None  # the file of an open commit, and since when
        self.log: Log
        self.store: Store
        self._open: list[Callable[[], None]] = []  # what closing has to close
        self.checkpoint: Callable[[str], object] = str  # in a mode of SQLite's
        self._claims: dict[int, Claim] = {}
        self._courier = 0
        self._waiting: list[Record] = []

    def steps(self, often: int = OFTEN) -> list[Step]:
        """Everything there is, in an order that the dice decide, from a start to a stop."""
        steps = [*STEPS, *STEPS_OFTEN * often]
        self.dice.shuffle(steps)
        return [Scenario.create, Scenario.open, *steps, Scenario.close]

    def run(self, steps: Sequence[Step]) -> None:
        """Step by step; no fault is expected."""
        for step in steps:
            self.do(step)

    def do(self, step: Step) -> None:
        """One step, its name kept for what may be said of it."""
        self._step, self.now = step.__name__, self.now + self.dice.randrange(1, 5000)
        self.under_way = None
        step(self)

    def reborn(self, vfs: str) -> None:
        """Another process over the same files: it has to start, and knows what it may know."""
        self.house = house_at(self.house.home, vfs)
        self._claims, self._waiting, self.under_way = {}, [], None

    # Opening and closing -----------------------------------------------------------------------

    def create(self) -> None:
        """Make the files as ``prepare`` does: schema, then topic by topic."""
        specs = assemble.specs(self.house.catalog)
        shared = assemble.shared_files(self.house.catalog)
        log = assemble.make_log(self.house)
        for owner in FILES:
            with self.commits(owner):
                path = path_of(self.house.home, owner)
                file = File(path, shared=owner in shared, vfs=self.house.vfs)
            for spec in specs:
                if spec.owner_file == owner:
                    with self.commits(owner):
                        log.ensure([spec])
            file.close()
        log.close()

    def open(self) -> None:
        """Start: a log and a store, and the lanes claimed."""
        log = self.log = assemble.make_log(self.house)
        self._open.append(log.close)
        with self.commits(SERVICE):
            store = self.store = assemble.make_store(self.house, SERVICE)
        self._open.append(store.file.close)
        store.file.checkpoint_pages = CHECKPOINT_PAGES
        self.checkpoint = lambda mode: store.file.run(f"PRAGMA wal_checkpoint({mode})")
        claim(self)
        rows = store.scan(Scan(service=SERVICE, table="waiting"))
        self._waiting = [row.body.record for row in rows]

    def close(self) -> None:
        """Stop as a process does that was told to: the last one out checkpoints."""
        while self._open:
            self._open.pop(0)()

    @contextmanager
    def commits(self, owner: str) -> Iterator[None]:
        """What runs inside commits once in a file; when it returns, that is a promise."""
        began = len(self.tape)
        self.under_way = owner, began
        yield
        self.under_way = None
        self.acks.append(Ack(self._step, owner, began, len(self.tape), self.held(owner)))

    def held(self, owner: str) -> Content:
        """What a file holds now. Read over the tape as well: looking may roll a journal back, or
        checkpoint when nobody else has the file open."""
        path = str(path_of(self.house.home, owner))
        flags = apsw.SQLITE_OPEN_READWRITE
        with closing(apsw.Connection(path, flags=flags, vfs=self._eye.name)) as db:
            return contents(db)

    @contextmanager
    def committed(self, *lanes: int) -> Iterator[Tx]:
        """One transaction of the service over some of its lanes."""
        with self.commits(SERVICE), self.store.begin() as tx:
            tx.advance([self._move(lane) for lane in lanes or range(LANES)], self.now)
            yield tx

    def _move(self, lane: int) -> Advance:
        held = self._claims[lane]
        held.positions[FACTS] = held.positions.get(FACTS, 0) + self.dice.randrange(1, 4)
        return Advance(lane, held.epoch, held.positions)

    # Values ------------------------------------------------------------------------------------

    def message(self, size: int = 0) -> Message:
        """A message that was never there before."""
        self._made += 1
        key = f"k{self.dice.randrange(12)}"
        id_ = root_id(self.now, SERVICE, str(self._made))
        value = self.dice.randbytes(size or self.dice.choice((20, 90, 700, 5000)))
        return Message(key, value, id_, "fact.made", 1, self.now, b"", "", SERVICE)

    def messages(self) -> list[Message]:
        """A few of them: some rows of the log are packed, some are not."""
        return [self.message() for _ in range(self.dice.choice((1, 2, 6)))]

    def facts(self, messages: Sequence[Message]) -> list[Outgoing]:
        """Rows for the service's own topic, appended in its commit."""
        return [Outgoing(FACTS, True, m) for m in messages]

    def asks(self, gateway: str, count: int) -> list[Outgoing]:
        """Rows for a gateway or the clock."""
        made = (self.message(60) for _ in range(count))
        due = self.now + 1 if gateway == CLOCK else 0
        return [Outgoing(gateway, False, m, "ask", m.id.hex(), due) for m in made]

    def documents(self, count: int) -> list[Saved]:
        """Documents, some of them again, some deleted."""
        refs = {Ref("thing", f"d{self.dice.randrange(15)}"): None for _ in range(count)}
        dice = self.dice
        bodies = [None if dice.random() < 0.15 else dice.randbytes(dice.choice((30, 400, 3000)))
                  for _ in refs]  # fmt: skip
        return [
            Saved(ref, body, dice.choice(("new", "old", None)) if body else None)
            for ref, body in zip(refs, bodies, strict=True)
        ]

    def record(self) -> Record:
        """A record that was taken and is held back."""
        message, offset = self.message(), self._made
        return Record(FACTS, partition_of(message.key, LANES), offset, self.now, message)


Step = Callable[[Scenario], None]


# The steps: each commits once in one file, or not at all ---------------------------------------


def claim(s: Scenario) -> None:
    """Own the lanes, as after a start or a rebalance."""
    with s.commits(SERVICE):
        found = s.store.claim([COURIER_LANE, *range(LANES)], s.now)
    s._claims = {c.lane: c for c in found if c.lane >= 0}
    s._courier = next(c.epoch for c in found if c.lane == COURIER_LANE)


def handle(s: Scenario) -> None:
    """A batch as the worker writes it: positions, marks, states, own topic, asks."""
    with s.committed() as tx:
        documents, ids = s.documents(3), [s.message(1).id for _ in range(3)]
        tx.load([d.ref for d in documents], ids)
        tx.mark(ids)
        tx.save(documents)
        tx.send([*s.facts(s.messages()), *s.asks(TELLER, 2), *s.asks(CLOCK, 1)], s.now)


def note(s: Scenario) -> None:
    """A batch of which nothing is left but its positions and marks."""
    with s.committed(s.dice.randrange(LANES)) as tx:
        tx.mark([s.message(1).id])


def hold_back(s: Scenario) -> None:
    """Records wait, or are parked."""
    records = [s.record() for _ in range(3)]
    with s.committed() as tx:
        put = [
            Waiting(record=r, state=s.dice.choice(("waiting", "parked", "aside")), due=s.now,
                    attempts=1, errors=((s.now, "not yet"),), kind="retry")
            for r in records
        ]  # fmt: skip
        tx.defer(put, [])
    s._waiting += records


def let_go(s: Scenario) -> None:
    """Records that waited are handled."""
    gone, s._waiting = s._waiting[:2], s._waiting[2:]
    with s.committed() as tx:
        tx.mark([r.message.id for r in gone])
        tx.defer([], gone)
        tx.send(s.facts(s.messages()), s.now)


def throw_away(s: Scenario) -> None:
    """A transaction that is given up leaves nothing."""
    with suppress(_GivenUp), s.store.begin() as tx:
        tx.advance([Advance(0, s._claims[0].epoch, {FACTS: 1 << 40})], s.now)
        tx.save([Saved(Ref("thing", "never"), b"never", "never")])
        tx.send(s.facts([s.message(3000)]), s.now)
        raise _GivenUp


class _GivenUp(Exception):
    """Ends a transaction that shall leave nothing."""


def come_late(s: Scenario) -> None:
    """A commit under an older epoch is refused, and leaves nothing."""
    with suppress(StaleOwner):
        with s.store.begin() as tx:
            tx.save([Saved(Ref("thing", "stale"), b"stale", None)])
            tx.advance([Advance(0, 0, {FACTS: 1 << 40})], s.now)
        raise AssertionError("a stale owner committed")


def settle(s: Scenario) -> None:
    """The courier closes rows: answers are appended in the same commit."""
    rows = [*s.store.due(TELLER, s.now, (), 3), *s.store.due(CLOCK, s.now, (), 2)]
    if not rows:
        return
    done = [
        Settled(r.id, "", None, s.now + 10, r.attempts + 1, "busy")
        if n % 3 == 2 else Settled(r.id, "ok", s.message(80), attempts=1)
        for n, r in enumerate(rows)
    ]  # fmt: skip
    with s.commits(SERVICE):
        s.store.settle({0: s._courier}, done, answers_of(SERVICE), s.now)


def append(s: Scenario) -> None:
    """A topic with several producers is appended by itself."""
    with s.commits(JOURNAL):
        s.log.append(JOURNAL, s.messages(), s.now)


def carry(s: Scenario) -> None:
    """Rows for another file's topic: out of the outbox, into it, closed. Two commits in two
    files, so that a cut between them carries the rows again."""
    with s.committed() as tx:
        tx.send([Outgoing(JOURNAL, True, m) for m in s.messages()], s.now)
    rows = s.store.due(JOURNAL, s.now, (), 10, is_topic=True)
    with s.commits(JOURNAL):
        s.log.append(JOURNAL, [r.message for r in rows], s.now)
    with s.commits(SERVICE):
        closed = [Settled(r.id, "sent", attempts=1) for r in rows]
        s.store.settle({0: s._courier}, closed, answers_of(SERVICE), s.now)


def read_on(s: Scenario) -> None:
    """Reading writes nothing, and is done beside the writing."""
    extents = s.log.extent(FACTS)
    seen = sum(len(s.log.read(FACTS, lane, e.first, 1000)) for lane, e in enumerate(extents))
    held = next(a.content for a in reversed(s.acks) if a.file == SERVICE)
    rows = next(table[2:] for table in held if table[0] == log_table(FACTS).strip('"'))
    assert seen == sum(row[1] for row in rows), f"{seen} records were read of {rows}"
    s.store.scan(Scan(service=SERVICE, table="documents", kind="thing"))


def retain(s: Scenario) -> None:
    """Old rows of the log go, and pages beyond what is spare."""
    with s.commits(SERVICE):
        s.log.retain(FACTS, dict.fromkeys(range(LANES), OFFSET_MAX), s.now)


def swell_and_shrink(s: Scenario) -> None:
    """A large value comes and goes: the file gives its pages back."""
    with s.committed() as tx:
        tx.send(s.facts([s.message(SWOLLEN_BYTES)]), s.now)
    with s.committed() as tx:
        tx.send(s.facts([Message(f"k{n}", b"small", b"") for n in range(12)]), s.now)
    retain(s)


def prune(s: Scenario) -> None:
    """Checkpoint the positions; marks and closed rows that no log needs any more go."""
    with s.commits(SERVICE):
        s.store.prune({(FACTS, lane): OFFSET_MAX for lane in range(LANES)}, s.now)


def ensure(s: Scenario) -> None:
    """A topic that is new at a restart."""
    spec = TopicSpec(name=f"{LATER}{s._made}", partitions=1, owner_file=SERVICE)
    with s.commits(SERVICE):
        s.log.ensure([spec])


def checkpoint(s: Scenario) -> None:
    """The write-ahead log goes into the file; who writes next begins it anew."""
    s.checkpoint("PASSIVE")


def checkpoint_and_truncate(s: Scenario) -> None:
    """The same, and the write-ahead log is made empty at once."""
    s.checkpoint("TRUNCATE")


def restart(s: Scenario) -> None:
    """Stop and start."""
    s.close()
    s.open()


STEPS: tuple[Step, ...] = (
    claim, throw_away, come_late, carry, swell_and_shrink, ensure, checkpoint,
    checkpoint_and_truncate, restart,
)  # fmt: skip
STEPS_OFTEN: tuple[Step, ...] = (
    handle, handle, note, hold_back, let_go, settle, append, read_on, retain, prune,
)  # fmt: skip
