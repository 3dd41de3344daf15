"""A log and a store that write down what is done with them.

They wrap any backend of ``ports``, so that whatever runs on the ports leaves a history: a test's
workload, or a real worker.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

from penstock.conformance.history import Move, Recorder, Seen, Sent, Spot
from penstock.decision import Ref
from penstock.errors import Unreachable, World
from penstock.event import Message, Origin, Position, Record, partition_of
from penstock.flow import Row, Scan
from penstock.limits import BATCH_BYTES_MAX
from penstock.ports import (
    Advance,
    Claim,
    Due,
    Extent,
    Features,
    Lane,
    Loaded,
    Log,
    Outgoing,
    Positions,
    Saved,
    Settled,
    Span,
    Store,
    Taken,
    TopicSpec,
    Tx,
    Waiting,
)

Name = Callable[[Message], str]
_SURE_BYTES = BATCH_BYTES_MAX // 2  # a look with less than this was not cut short by its size


def id_or_value(message: Message) -> str:
    """What a history calls a message: its id, or what it says where it has none."""
    return message.id.hex() or message.value.decode("utf-8", "backslashreplace")


class Recording:
    """What the wrappers of one process share: its recorder, the names of messages, what was taken
    of the lanes it owns, and where they are."""

    def __init__(
        self, recorder: Recorder, topics: Sequence[TopicSpec], name: Name = id_or_value
    ) -> None:
        self.recorder, self.name = recorder, name
        self.partitions = {spec.name: spec.partitions for spec in topics}
        self.positions: dict[tuple[str, int], int] = {}
        self._names: dict[bytes, str] = {}
        self._taken: dict[tuple[str, int], dict[int, Record]] = {}

    def sent(self, topic: str, messages: Iterable[Message]) -> tuple[Sent, ...]:
        """Messages as a history tells an append."""
        count = self.partitions[topic]
        return tuple((topic, partition_of(m.key, count), self.name(m)) for m in messages)

    def seen(self, records: Iterable[Record]) -> tuple[Seen, ...]:
        """Records as a history tells a read."""
        return tuple((r.topic, r.partition, r.offset, self.name(r.message)) for r in records)

    def named(self, id_: bytes) -> str:
        """What an event is called that was taken here, or by whoever put it aside."""
        return self._names.get(id_) or id_.hex()

    def take(self, records: Iterable[Record]) -> None:
        """Records that a commit may account for."""
        for record in records:
            self._names[record.message.id] = self.name(record.message)
            place = record.topic, record.partition
            self._taken.setdefault(place, {})[record.offset] = record

    def claim(self, claim: Claim) -> None:
        """A lane is owned from here on, at these positions."""
        for place in [place for place in self.positions if place[1] == claim.lane]:
            del self.positions[place]
        for topic, position in claim.positions.items():
            self.positions[topic, claim.lane] = position

    def moved(self, moves: Iterable[Move]) -> None:
        """A commit is done: the lanes are there, and what they passed can be forgotten."""
        for topic, lane, start, stop in moves:
            self.positions[topic, lane] = stop
            taken = self._taken.get((topic, lane), {})
            for offset in range(start, stop):
                taken.pop(offset, None)

    def passed(self, moves: Iterable[Move]) -> Iterator[Record]:
        """The records taken that lie between the old positions and the new ones."""
        for topic, lane, start, stop in moves:
            taken = self._taken.get((topic, lane), {})
            yield from (taken[offset] for offset in range(start, stop) if offset in taken)


def _spots(positions: Positions) -> tuple[Spot, ...]:
    return tuple((topic, partition, at) for (topic, partition), at in positions.items())


def _surely_all(records: Sequence[Record], limit: int) -> bool:
    """Did a look end because there was no more?"""
    return len(records) < limit and sum(len(r.message.value) for r in records) < _SURE_BYTES


class RecordedLog(Log):
    """A log that writes down its appends, reads and takes."""

    def __init__(self, log: Log, recording: Recording) -> None:
        self._log, self._recording = log, recording
        self._recorder = recording.recorder
        self.features: Features = log.features

    def ensure(self, topics: Sequence[TopicSpec]) -> None:
        self._log.ensure(topics)
        self._recording.partitions |= {spec.name: spec.partitions for spec in topics}

    def append(
        self, topic: str, messages: Sequence[Message], now: int, origins: Sequence[Origin] = ()
    ) -> None:
        op = self._recorder.invoke("append", appends=self._recording.sent(topic, messages))
        try:
            self._log.append(topic, messages, now, origins)
        except Unreachable as error:
            self._recorder.unknown(op, error)
            raise
        except World as refused:
            self._recorder.fail(op, refused)
            raise
        except Exception as error:
            self._recorder.unknown(op, error)
            raise
        self._recorder.ok(op)

    def read(self, topic: str, partition: int, start: int, limit: int) -> list[Record]:
        op = self._recorder.invoke("read", starts=((topic, partition, start),))
        try:
            found = self._log.read(topic, partition, start, limit)
        except Exception as error:
            self._recorder.fail(op, error)
            raise
        end = found[-1].offset + 1 if found else start
        ends = ((topic, partition, end),) if _surely_all(found, limit) else ()
        self._recorder.ok(op, records=self._recording.seen(found), ends=ends)
        return found

    def extent(self, topic: str, since: int | None = None) -> list[Extent]:
        return self._log.extent(topic, since)

    def join(self, group: str, topics: Sequence[str]) -> RecordedLane:
        return RecordedLane(self._log.join(group, topics), self._recording, tuple(topics))

    def retain(self, topic: str, floors: Mapping[int, int], now: int) -> int:
        return self._log.retain(topic, floors, now)


class RecordedLane(Lane):
    """A member of a group that writes down its takes."""

    def __init__(self, lane: Lane, recording: Recording, topics: tuple[str, ...]) -> None:
        self._lane, self._recording, self._topics = lane, recording, topics
        self._held: frozenset[int] = frozenset()

    def take(self, limit: int, positions: Positions, topics: Iterable[str] | None = None) -> Taken:
        wanted = self._topics if topics is None else tuple(topics)
        recorder = self._recording.recorder
        asked = {place: at for place, at in positions.items() if place[0] in wanted}
        op = recorder.invoke("take", starts=_spots(asked))
        try:
            taken = self._lane.take(limit, positions, wanted)
        except Exception as error:
            recorder.fail(op, error)
            raise
        self._recording.take(taken.records)
        recorder.ok(
            op, generation=taken.generation, records=self._recording.seen(taken.records),
            ends=_spots(self._ends(limit, asked, taken)),
        )
        return taken

    def _ends(self, limit: int, asked: Positions, taken: Taken) -> Positions:
        """Where the look saw that there is no more, if the backend shows all it has."""
        if not self._recording.recorder.fresh or not _surely_all(taken.records, limit):
            return {}
        open_ = taken.assigned - self._held
        ends = {p: at for p, at in asked.items() if p[1] in open_ and p not in taken.outside}
        return ends | {(r.topic, r.partition): r.offset + 1 for r in taken.records}

    def hold(self, lanes: frozenset[int]) -> None:
        self._held = lanes
        self._lane.hold(lanes)

    def leave(self) -> None:
        self._lane.leave()

    def note(self, positions: Positions) -> None:
        self._lane.note(positions)


class _Commit:
    """What one transaction wants to do, as a history tells it."""

    def __init__(self, scope: str, recording: Recording, direct: frozenset[str]) -> None:
        self._scope, self._recording, self._direct = scope, recording, direct
        self._moves: list[Move] = []
        self._owners: list[tuple[int, int]] = []
        self._appends: list[Sent] = []
        self._marks: list[bytes] = []
        self._known: set[bytes] = set()  # handled before
        self._waits: dict[Position, Record] = {}
        self.txn = 0

    @property
    def empty(self) -> bool:
        """Whether it only looked."""
        return not (self._owners or self._appends or self._marks)

    def advance(self, moves: Sequence[Advance]) -> None:
        """Positions as they move; unmoved ones are no matter."""
        for move in moves:
            self._owners.append((move.lane, move.epoch))
            for topic, stop in move.positions.items():
                start = self._recording.positions.get((topic, move.lane), 0)
                if start != stop:
                    self._moves.append((topic, move.lane, start, stop))

    def found(self, seen: Iterable[bytes]) -> None:
        """Events that had been handled before."""
        self._known.update(seen)

    def marked(self, ids: Iterable[bytes]) -> None:
        """Events handled now."""
        self._marks += ids

    def sent(self, rows: Sequence[Outgoing]) -> None:
        """Rows; those of topics that the store appends to are appends of this commit."""
        for row in rows:
            if row.is_topic and row.destination in self._direct:
                self._appends += self._recording.sent(row.destination, [row.message])

    def waited(self, rows: Iterable[Waiting]) -> None:
        """Records put aside."""
        self._waits |= {w.record.position: w.record for w in rows}

    def invoke(self, began: int) -> int:
        """Write it down as begun."""
        done = {*self._marks, *self._known}
        passed = [
            r for r in self._recording.passed(self._moves)
            if r.message.id in done or r.position in self._waits
        ]
        name = self._recording.name
        return self._recording.recorder.invoke(
            "commit", began=began, scope=self._scope, owners=tuple(self._owners),
            moves=tuple(self._moves), appends=tuple(self._appends),
            records=self._recording.seen(passed),
            marks=tuple(self._recording.named(id_) for id_ in self._marks),
            waits=tuple(name(record.message) for record in self._waits.values()),
        )

    def committed(self, op: int) -> None:
        """Write down that it is done."""
        self._recording.recorder.ok(op, txn=self.txn)
        self._recording.moved(self._moves)


class RecordedTx(Tx):
    """A transaction that notes what it is told."""

    def __init__(self, tx: Tx, commit: _Commit) -> None:
        self._tx, self._commit = tx, commit

    @property
    def number(self) -> int:  # type: ignore[override]
        """The number of the transaction behind it."""
        return self._tx.number

    def advance(self, moves: Sequence[Advance], now: int) -> None:
        self._commit.advance(moves)
        self._tx.advance(moves, now)

    def load(self, refs: Sequence[Ref], ids: Sequence[bytes] = ()) -> Loaded:
        loaded = self._tx.load(refs, ids)
        self._commit.found(loaded.seen)
        return loaded

    def save(self, documents: Sequence[Saved]) -> None:
        self._tx.save(documents)

    def mark(self, ids: Sequence[bytes], lanes: Sequence[int] = ()) -> None:
        self._commit.marked(ids)
        self._tx.mark(ids, lanes)

    def send(self, rows: Sequence[Outgoing], now: int) -> set[str]:
        self._commit.sent(rows)
        return self._tx.send(rows, now)

    def defer(self, put: Sequence[Waiting], drop: Sequence[Record]) -> None:
        self._commit.waited(put)
        self._tx.defer(put, drop)


class RecordedStore(Store):
    """A store that writes down claims, commits and answers. ``direct`` names the topics it
    appends to in the commit; all others leave by the outbox, and are appended by a courier."""

    def __init__(
        self, store: Store, recording: Recording, scope: str, direct: frozenset[str]
    ) -> None:
        self._store, self._recording, self._scope = store, recording, scope
        self._direct, self._recorder = direct, recording.recorder
        self.features: Features = store.features

    def claim(self, lanes: Sequence[int], now: int) -> list[Claim]:
        op = self._recorder.invoke("claim", scope=self._scope)
        try:
            claims = self._store.claim(lanes, now)
        except World as refused:
            self._recorder.fail(op, refused)
            raise
        except BaseException as error:
            self._recorder.unknown(op, error)
            raise
        for claim in claims:
            self._recording.claim(claim)
        starts = tuple((t, c.lane, at) for c in claims for t, at in c.positions.items())
        self._recorder.ok(op, owners=tuple((c.lane, c.epoch) for c in claims), starts=starts)
        return claims

    def begin(self, spans: Mapping[int, Sequence[Span]] = {}) -> AbstractContextManager[Tx]:
        return self._begin(spans)

    @contextmanager
    def _begin(self, spans: Mapping[int, Sequence[Span]]) -> Iterator[Tx]:
        began, op = self._recorder.clock(), 0
        commit = _Commit(self._scope, self._recording, self._direct)
        try:
            with self._store.begin(spans) as tx:
                yield RecordedTx(tx, commit)
                op = 0 if commit.empty else commit.invoke(began)
            commit.txn = tx.number
        except BaseException as error:
            self._undone(commit, op, began, error)
            raise
        if op:
            commit.committed(op)

    def _undone(self, commit: _Commit, op: int, began: int, error: BaseException) -> None:
        """It was rolled back; unknown is only what failed in the commit itself."""
        if op and (isinstance(error, Unreachable) or not isinstance(error, World)):
            self._recorder.unknown(op, error)
        elif not commit.empty:
            self._recorder.fail(op or commit.invoke(began), error)

    def due(
        self, destination: str, now: int, known: Collection[int], limit: int, *,
        is_topic: bool = False, shards: Collection[int] | None = None,
    ) -> list[Due]:  # fmt: skip
        return self._store.due(destination, now, known, limit, is_topic=is_topic, shards=shards)

    def settle(
        self, epochs: Mapping[int, int], rows: Sequence[Settled], answers_to: str, now: int
    ) -> None:
        answers = [row.answer for row in rows if row.answer is not None]
        if not answers or answers_to not in self._direct:
            self._store.settle(epochs, rows, answers_to, now)
            return
        op = self._recorder.invoke("append", appends=self._recording.sent(answers_to, answers))
        try:
            self._store.settle(epochs, rows, answers_to, now)
        except World as refused:
            self._recorder.fail(op, refused)
            raise
        except BaseException as error:
            self._recorder.unknown(op, error)
            raise
        self._recorder.unknown(op, CLOSED_BEFORE)

    def scan(self, what: Scan) -> list[Row]:
        return self._store.scan(what)

    def prune(
        self, floors: Mapping[tuple[str, int], int], now: int, keep: frozenset[bytes] = frozenset()
    ) -> int:
        return self._store.prune(floors, now, keep)


CLOSED_BEFORE = RuntimeError("a row that was closed before is not answered again")
