"""The memory log: a real log in one process, rebalances, retention and reading by time included.

It keeps what the embedded log keeps, one row per append and partition, and answers like it. One
lock guards all of it, so an append is seen whole or not at all, and any number of threads may
share one instance.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from heapq import merge
from itertools import count, islice
from threading import RLock
from typing import NamedTuple

from msgspec import structs

from penstock.embedded.rows import by_partition, split
from penstock.errors import Conflict, NotFound, OutsideLog
from penstock.event import Message, Origin, Record, partition_of
from penstock.limits import BATCH_BYTES_MAX, OFFSET_MAX
from penstock.log.assignment import assign
from penstock.ports import Extent, Features, Lane, Positions, Taken, TopicSpec

RETAIN_ROWS_MAX = 2000  # rows of a topic dropped in one call
_ENVELOPE_BYTES = 60  # what a record weighs beside its key and value


class _Row(NamedTuple):
    """The records of one append to one partition."""

    appended_at: int
    partition: int
    last: int
    size: int
    records: tuple[Record, ...]


class _Partition:
    """Rows in offset order; ``next`` and ``latest`` outlive the rows that retention drops."""

    def __init__(self, topic: str, number: int) -> None:
        self.topic, self.number = topic, number
        self.rows: list[_Row] = []
        self.next = self.latest = 0

    def append(self, messages: Sequence[Message], now: int) -> None:
        self.latest = max(now, self.latest)
        records = tuple(
            Record(self.topic, self.number, offset, self.latest, _detached(message))
            for offset, message in enumerate(messages, self.next)
        )
        self.next += len(records)
        size = sum(_weight(message) for message in messages)
        self.rows.append(_Row(self.latest, self.number, self.next - 1, size, records))

    def extent(self, since: int | None = None) -> Extent:
        at = 0 if since is None else bisect_left(self.rows, since, key=lambda r: r.appended_at)
        first = self.rows[at].records[0].offset if at < len(self.rows) else self.next
        return Extent(first, self.next)

    def read(self, start: int, limit: int) -> list[Record]:
        """Whole rows from ``start`` on, until there are ``limit`` records or enough bytes."""
        found: list[Record] = []
        size = 0
        for row in islice(self.rows, bisect_left(self.rows, start, key=lambda r: r.last), None):
            found += (_lent(record) for record in row.records if record.offset >= start)
            size += row.size
            if len(found) >= limit or size >= BATCH_BYTES_MAX:
                break
        return found

    def droppable(self, floor: int) -> Sequence[_Row]:
        """Rows wholly before ``floor``, the newest of the partition never among them."""
        end = bisect_left(self.rows, floor, key=lambda row: row.last)
        return self.rows[: min(end, len(self.rows) - 1)] if self.rows else ()


def _weight(message: Message) -> int:
    return len(message.value) + len(message.key) + _ENVELOPE_BYTES


def _detached(message: Message) -> Message:
    """Notes are the one part that could be edited: whoever gets them gets their own."""
    if message.notes is None:
        return message
    return structs.replace(message, notes=dict(message.notes))


def _lent(record: Record) -> Record:
    if record.message.notes is None:
        return record
    return structs.replace(record, message=_detached(record.message))


class _Group:
    """The members of a group and who reads what, from one rebalance to the next."""

    def __init__(self, lanes: int) -> None:
        self.lanes, self.generation = lanes, 0
        self.members: set[str] = set()
        self.assigned: dict[str, frozenset[int]] = {}

    def change(self, *, joined: str = "", gone: str = "") -> None:
        self.members = (self.members | {joined} if joined else self.members) - {gone}
        self.assigned = assign(sorted(self.members), self.lanes)
        self.generation += 1


class MemoryLog:
    """The ``Log`` port in memory; threads may share an instance."""

    features = Features(survives_restart=False, several_processes=False, torn_tail=False)

    def __init__(self, specs: Sequence[TopicSpec] = ()) -> None:
        self.lock = RLock()
        self._specs: dict[str, TopicSpec] = {}
        self._partitions: dict[str, list[_Partition]] = {}
        self._groups: dict[str, _Group] = {}
        self._names = count()
        self.ensure(specs)

    def ensure(self, topics: Sequence[TopicSpec]) -> None:
        """Make what is missing; another count is refused before anything is made."""
        with self.lock:
            for spec in topics:
                self._check_count(spec)
            for spec in topics:
                fresh = [_Partition(spec.name, number) for number in range(spec.partitions)]
                self._partitions.setdefault(spec.name, fresh)
                self._specs[spec.name] = spec

    def _check_count(self, spec: TopicSpec) -> None:
        present = self._partitions.get(spec.name)
        if present is not None and len(present) != spec.partitions:
            raise Conflict(
                "partition_count",
                f"topic {spec.name} has {len(present)} partitions, not {spec.partitions}.",
                "Put the count back: keys would move to other partitions.",
            )

    def partitions(self, topic: str) -> list[_Partition]:
        """The partitions of a topic. Raises ``NotFound``."""
        if topic not in self._partitions:
            known = ", ".join(sorted(self._partitions))
            raise NotFound("topic_unknown", f"no topic {topic}.", f"Topics: {known}.")
        return self._partitions[topic]

    def append(
        self, topic: str, messages: Sequence[Message], now: int, origins: Sequence[Origin] = ()
    ) -> None:
        """Append under the lock: readers see all of it or nothing."""
        with self.lock:
            held = self.partitions(topic)
            groups = by_partition((partition_of(m.key, len(held)), m) for m in messages)
            for partition, group in groups.items():
                for chunk in split(group):
                    held[partition].append(chunk, now)

    def read(self, topic: str, partition: int, start: int, limit: int) -> list[Record]:
        """Records from ``start``, whole rows."""
        with self.lock:
            held = self.partitions(topic)[partition]
            first, next_ = held.extent()
            if not first <= start <= next_:
                raise OutsideLog(topic, partition, start, first, next_)
            return held.read(start, limit)

    def extent(self, topic: str, since: int | None = None) -> list[Extent]:
        """First and next offset of every partition."""
        with self.lock:
            return [partition.extent(since) for partition in self.partitions(topic)]

    def join(self, group: str, topics: Sequence[str]) -> MemoryLane:
        """A new member of ``group``; every member sees the rebalance at its next ``take``."""
        with self.lock:
            lanes = max(len(self.partitions(topic)) for topic in topics)
            joined = self._groups.setdefault(group, _Group(lanes))
            name = f"member-{next(self._names):06d}"
            joined.change(joined=name)
            return MemoryLane(self, joined, name, tuple(topics))

    def retain(self, topic: str, floors: Mapping[int, int], now: int) -> int:
        """Drop the oldest rows of all partitions that a bound asks for, before the floors."""
        with self.lock:
            held, spec = self.partitions(topic), self._specs[topic]
            oldest = merge(
                *(p.droppable(floors.get(p.number, OFFSET_MAX)) for p in held),
                key=lambda row: row.appended_at,
            )
            gone = _excess(islice(oldest, RETAIN_ROWS_MAX), spec, _size(held), now)
            for partition in held:
                rows = sum(row.partition == partition.number for row in gone)
                del partition.rows[:rows]
            return sum(len(row.records) for row in gone)


def _size(partitions: Sequence[_Partition]) -> int:
    return sum(row.size for partition in partitions for row in partition.rows)


def _excess(oldest: Iterable[_Row], spec: TopicSpec, size: int, now: int) -> list[_Row]:
    """The rows, oldest first, that are past the age bound or over the size bound."""
    gone: list[_Row] = []
    age, bound = spec.retention_seconds, spec.retention_bytes
    for row in oldest:
        too_old = age is not None and row.appended_at < now - age * 1000
        too_many = bound is not None and size > bound
        if not (too_old or too_many):
            break
        gone.append(row)
        size -= row.size
    return gone


class MemoryLane(Lane):
    """One member of a group (the ``Lane`` port)."""

    def __init__(
        self, log: MemoryLog, group: _Group, name: str, topics: tuple[str, ...]
    ) -> None:
        self._log, self._group, self.name, self._topics = log, group, name, topics
        self._held: frozenset[int] = frozenset()
        self._turn = 0

    def take(self, limit: int, positions: Positions, topics: Iterable[str] | None = None) -> Taken:
        """Records of the assigned lanes; another partition comes first in every turn."""
        with self._log.lock:
            assigned = self._group.assigned.get(self.name, frozenset())
            found: list[Record] = []
            outside: dict[tuple[str, int], Extent] = {}
            for place in self._places(assigned, positions, topics):
                partition, position = self._log.partitions(place[0])[place[1]], positions[place]
                if position == partition.next:
                    continue  # at its end: within the log, and nothing new
                extent = partition.extent()
                if not extent.first <= position <= extent.next:
                    outside[place] = extent
                elif len(found) < limit:
                    found += partition.read(position, limit - len(found))
            return Taken(
                generation=self._group.generation, assigned=assigned, records=found,
                outside=outside,
            )

    def _places(
        self, assigned: frozenset[int], positions: Positions, topics: Iterable[str] | None
    ) -> list[tuple[str, int]]:
        wanted = self._topics if topics is None else [t for t in self._topics if t in set(topics)]
        lanes = sorted(assigned - self._held)
        places = [(t, n) for t in wanted for n in lanes if (t, n) in positions]
        self._turn += 1
        shift = self._turn % len(places) if places else 0
        return places[shift:] + places[:shift]

    def hold(self, lanes: frozenset[int]) -> None:
        """Read nothing of these lanes for now."""
        self._held = lanes

    def leave(self) -> None:
        """Give the lanes back at once; a ``take`` after it finds no lane assigned."""
        with self._log.lock:
            if self.name in self._group.members:
                self._group.change(gone=self.name)

    def crash(self) -> None:
        """Die without a word. In one process a death is seen at once, so others gain the lanes
        at their next ``take``, and what this member still has in its hands is stale."""
        self.leave()

    def note(self, positions: Positions) -> None:
        """No other tool reads a memory log: the store holds the positions."""
