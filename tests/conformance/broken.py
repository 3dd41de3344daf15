"""Logs and stores that each break one promise, to see that the checker sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from penstock.conformance.history_load import DIRECT, LOAD_TOPICS, Backend
from penstock.conformance.stores import SERVICE
from penstock.embedded.file import File
from penstock.errors import StorageFull
from penstock.event import Message, Origin, Record
from penstock.log.embedded import EmbeddedLog
from penstock.log.memory import MemoryLog
from penstock.ports import Advance, Lane, Loaded, Outgoing, Positions, Taken, Tx
from penstock.store.sqlite import SqliteStore
from tests.conformance.backends import InMemory, TurnStore

EVERY = 5  # the turn in which it breaks
Append = Callable[["BrokenLog", str, Sequence[Message]], None]
Take = Callable[[list[Record], list[Record]], list[Record]]  # of these, and of the last ones


class BrokenLog(MemoryLog):
    """A memory log that now and then does something else instead of its append."""

    def __init__(self, broken: Append | None) -> None:
        super().__init__(LOAD_TOPICS)
        self._broken, self._turns = broken, count(1)
        self.late: list[tuple[str, Sequence[Message]]] = []

    def own(self, topic: str, messages: Sequence[Message]) -> None:
        """The append as it should be."""
        super().append(topic, messages, 0)

    def append(
        self, topic: str, messages: Sequence[Message], now: int, origins: Sequence[Origin] = ()
    ) -> None:
        late, self.late = self.late, []
        if self._broken and not next(self._turns) % EVERY:
            self._broken(self, topic, messages)
        else:
            self.own(topic, messages)
        for one in late:
            self.own(*one)


def drop(log: BrokenLog, topic: str, messages: Sequence[Message]) -> None:
    """Acknowledged, and never written."""


def drop_the_last(log: BrokenLog, topic: str, messages: Sequence[Message]) -> None:
    """Acknowledged, and written in part."""
    log.own(topic, messages[:-1])


def double(log: BrokenLog, topic: str, messages: Sequence[Message]) -> None:
    """Written once more."""
    log.own(topic, [*messages, *messages[:1]])


def delay(log: BrokenLog, topic: str, messages: Sequence[Message]) -> None:
    """Acknowledged, and written behind the next one."""
    log.late.append((topic, messages))


def write_and_refuse(log: BrokenLog, topic: str, messages: Sequence[Message]) -> None:
    """Written, and answered as if there were no room."""
    log.own(topic, messages)
    raise StorageFull("no room")


def turn_round(log: BrokenLog, topic: str, messages: Sequence[Message]) -> None:
    """Written from the last to the first."""
    log.own(topic, [replace(m, key=messages[0].key) for m in reversed(messages)])


class BrokenLane(Lane):
    """A lane that now and then hands out something else."""

    def __init__(self, lane: Lane, broken: Take) -> None:
        self._lane, self._broken, self._turns = lane, broken, count(1)
        self._last: list[Record] = []

    def take(self, limit: int, positions: Positions, topics: Iterable[str] | None = None) -> Taken:
        taken = self._lane.take(limit, positions, topics)
        if len(taken.records) < 3 or next(self._turns) % EVERY:
            return taken
        records, last = list(taken.records), self._last
        self._last = records
        return replace(taken, records=self._broken(records, last))

    def hold(self, lanes: frozenset[int]) -> None:
        self._lane.hold(lanes)

    def leave(self) -> None:
        self._lane.leave()

    def note(self, positions: Positions) -> None:
        self._lane.note(positions)


class BrokenLanes(BrokenLog):
    """A log whose lanes are broken."""

    def __init__(self, broken: Take) -> None:
        super().__init__(None)
        self._take = broken

    def join(self, group: str, topics: Sequence[str]) -> Any:
        return BrokenLane(super().join(group, topics), self._take)


def skip_inside(records: list[Record], last: list[Record]) -> list[Record]:
    """Leave out a record between two others of its partition."""
    return [
        r for n, r in enumerate(records)
        if not (0 < n < len(records) - 1 and _between(records[n - 1], r, records[n + 1]))
    ]


def _between(before: Record, record: Record, after: Record) -> bool:
    place = record.topic, record.partition
    both = (before.topic, before.partition), (after.topic, after.partition)
    return record.offset % 2 == 1 and both == (place, place)


def skip_first(records: list[Record], last: list[Record]) -> list[Record]:
    """Begin one too late."""
    return records[1:]


def serve_again(records: list[Record], last: list[Record]) -> list[Record]:
    """The first record a second time."""
    return [records[0], *records]


def serve_the_last(records: list[Record], last: list[Record]) -> list[Record]:
    """What was handed out before comes once more."""
    return [*last, *records]


def hide(records: list[Record], last: list[Record]) -> list[Record]:
    """Show the end where it is not."""
    return []


def renumber(records: list[Record], last: list[Record]) -> list[Record]:
    """Call every record by the offset of the next."""
    return [replace(r, offset=r.offset + 1) for r in records]


class BrokenTx(Tx):
    """A transaction that does one thing otherwise."""

    def __init__(self, tx: Tx, store: Any) -> None:
        self._tx, self._store, self._how = tx, store, store.how

    @property
    def number(self) -> int:  # type: ignore[override]
        return self._tx.number

    def advance(self, moves: Sequence[Advance], now: int) -> None:
        if self._how == "any epoch":
            moves = [replace(m, epoch=self._store.epoch_of(m.lane)) for m in moves]
        if self._how == "one further":
            moves = [
                replace(m, positions={t: at + 1 for t, at in m.positions.items()}) for m in moves
            ]
        self._tx.advance(moves, now)

    def load(self, refs: Any, ids: Sequence[bytes] = ()) -> Loaded:
        loaded = self._tx.load(refs, ids)
        return loaded._replace(seen=frozenset()) if self._how == "no marks" else loaded

    def save(self, documents: Any) -> None:
        self._tx.save(documents)

    def mark(self, ids: Sequence[bytes], lanes: Sequence[int] = ()) -> None:
        known = self._tx.load([], ids).seen if self._how == "no marks" else ()
        self._tx.mark([id_ for id_ in ids if id_ not in known])

    def send(self, rows: Sequence[Outgoing], now: int) -> set[str]:
        if self._how != "send first":
            return self._tx.send(rows, now)
        for row in rows:
            self._store.log.own(row.destination, [row.message])
        return set()

    def defer(self, put: Any, drop: Any) -> None:
        self._tx.defer(put, drop)


class _Forgotten(Exception):
    """A commit that is acknowledged and was not made."""


class BrokenStore(TurnStore):
    """A store whose transactions are broken."""

    def __init__(self, how: str, log: BrokenLog) -> None:
        super().__init__()
        self.how, self.log, self._turns = how, log, count(1)

    def epoch_of(self, lane: int) -> int:
        """Whoever owns the lane now."""
        find = "SELECT epoch FROM owners WHERE scope = ? AND lane = ?"
        return int(self.file.run(find, (self.scope, lane))[0][0])

    @contextmanager
    def _begin(self) -> Iterator[Tx]:
        try:
            with super()._begin() as tx:
                yield BrokenTx(tx, self)
                if self.how == "forget" and not next(self._turns) % 2:
                    raise _Forgotten
        except _Forgotten:
            pass


class Broken(InMemory):
    """Opens a log or a store that is broken in one way."""

    def __init__(
        self, append: Append | None = None, take: Take | None = None, how: str = ""
    ) -> None:
        self.log = BrokenLanes(take) if take else BrokenLog(append)
        self.store = BrokenStore(how, self.log)
        self._direct = DIRECT if how == "send first" else frozenset()

    def __call__(self) -> Backend:
        return Backend(self.log, self.store, direct=self._direct)


class OffsetsCached(File):
    """Goes on where it was when it had the turn last, and writes over what is there."""

    def __init__(self, path: Path) -> None:
        self._known: dict[tuple[str, int], tuple[int, int]] = {}
        super().__init__(path, shared=True)

    def _ends(self, table: str, partitions: list[int]) -> dict[int, tuple[int, int]]:
        found = super()._ends(table, partitions)
        return {p: self._known.get((table, p), found.get(p, (0, 0))) for p in partitions}

    def run_many(self, sql: str, rows_: Iterable[Sequence[Any]]) -> list[Any]:
        rows = list(rows_)
        if not sql.startswith("INSERT INTO \"log"):
            return super().run_many(sql, rows)
        table = sql.split()[2].partition("(")[0]
        for at, _, appended_at, *_rest in rows:
            self._known[table, at >> 48] = (at & (1 << 48) - 1) + 1, appended_at
        return super().run_many(sql.replace("INSERT", "INSERT OR REPLACE", 1), rows)


class CachedLog(EmbeddedLog):
    """Appends through such a file."""

    def _writer(self, topic: str) -> File:
        owner = self._owner(topic)
        if owner not in self._writers:
            self._writers[owner] = OffsetsCached(self.home / f"{owner}.db")
        return self._writers[owner]

    def _miss(self, topic: str, partition: int, start: int, next_: int) -> None:
        """What was written over is not missed here: the history has to show it."""


def offsets_cached(home: Path) -> Backend:
    """The embedded pair with the next offset cached from one turn to the next."""
    log = CachedLog(home, LOAD_TOPICS)
    log.ensure(LOAD_TOPICS)
    file = OffsetsCached(home / f"{SERVICE}.db")
    return Backend(log, SqliteStore(file, SERVICE, direct=DIRECT))
