"""The embedded log: topics in their producers' files, groups by flocked member files.

Reading is by short autocommit SELECTs on connections of their own, so a reader never blocks the
writer. ``append`` is for couriers, and for tools; a service's own topics are appended by its
store, in the commit.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path

from penstock.embedded.file import File
from penstock.embedded.rows import unpack
from penstock.embedded.schema import log_table
from penstock.errors import Corrupt, NotFound, OutsideLog
from penstock.event import Message, Origin, Record
from penstock.limits import BATCH_BYTES_MAX, LIVENESS_SECONDS, OFFSET_BITS, OFFSET_MAX
from penstock.log.assignment import assign
from penstock.log.retention import retain
from penstock.ports import Extent, Features, Lane, Positions, Taken, TopicSpec

_ROW = "at, count, appended_at, codec, crc, body"
_MEMBERS = count()


class EmbeddedLog:
    """The ``Log`` port over a home folder; one thread uses an instance at a time."""

    features = Features(appends_in_commit=True)

    def __init__(
        self, home: Path, specs: Sequence[TopicSpec] = (), shared: frozenset[str] = frozenset(),
        monotonic: Callable[[], float] = time.monotonic, vfs: str = "",
    ) -> None:  # fmt: skip
        self.home, self._shared, self.monotonic, self._vfs = home, shared, monotonic, vfs
        self._specs = {spec.name: spec for spec in specs}
        self._readers: dict[str, File] = {}
        self._writers: dict[str, File] = {}

    def ensure(self, topics: Sequence[TopicSpec]) -> None:
        """Make what is missing in the owners' files."""
        for spec in topics:
            self._specs[spec.name] = spec
            self._writer(spec.name).ensure_topic(spec.name, spec.partitions)

    def close(self) -> None:
        """Close every connection."""
        for file in (*self._readers.values(), *self._writers.values()):
            file.close()
        self._readers, self._writers = {}, {}

    def _spec(self, topic: str) -> TopicSpec:
        if topic not in self._specs:
            known = ", ".join(sorted(self._specs))
            raise NotFound("topic_unknown", f"no topic {topic}.", f"Topics: {known}.")
        return self._specs[topic]

    def _owner(self, topic: str) -> str:
        spec = self._spec(topic)
        return spec.owner_file or spec.name

    def _writer(self, topic: str) -> File:
        owner = self._owner(topic)
        if owner not in self._writers:
            path = self.home / f"{owner}.db"
            self._writers[owner] = File(path, shared=owner in self._shared, vfs=self._vfs)
        return self._writers[owner]

    def reader(self, topic: str) -> File:
        """The read-only connection to the file that holds ``topic``."""
        owner = self._owner(topic)
        if owner not in self._readers:
            path = self.home / f"{owner}.db"
            self._readers[owner] = File(path, readonly=True, vfs=self._vfs)
        self._readers[owner].look_at(topic)
        return self._readers[owner]

    def append(
        self, topic: str, messages: Sequence[Message], now: int, origins: Sequence[Origin] = ()
    ) -> None:
        """Append in a transaction of its own, numbered like every other of the file."""
        file = self._writer(topic)
        file.ensure_topic(topic, self._spec(topic).partitions)
        with file.write():
            txn = file.run(
                "INSERT INTO owners(scope, lane, epoch, txn, positions) VALUES(0, 0, 0,"
                " (SELECT coalesce(max(txn), 0) + 1 FROM owners), '{}') ON CONFLICT DO UPDATE"
                " SET txn = (SELECT max(txn) + 1 FROM owners) RETURNING txn"
            )[0][0]
            file.append(topic, messages, now, txn, 0)

    def read(self, topic: str, partition: int, start: int, limit: int) -> list[Record]:
        """Records from ``start``, whole rows."""
        found = self.rows(topic, partition, start, limit)
        if not found or found[0].offset > start:
            first, next_ = self._extent(topic, partition)
            if not first <= start <= next_:
                raise OutsideLog(topic, partition, start, first, next_)
            if found:
                self._miss(topic, partition, start, found[0].offset)
        return found

    def rows(self, topic: str, partition: int, start: int, limit: int) -> list[Record]:
        """Like ``read`` without the check of the range: one SELECT."""
        found: list[Record] = []
        size = 0
        for row in self.reader(topic).stream(
            f"SELECT {_ROW} FROM {log_table(topic)} WHERE at >= ? AND at <= ? ORDER BY at",
            (partition << OFFSET_BITS | start, partition << OFFSET_BITS | OFFSET_MAX),
        ):
            records = unpack(topic, row, start)
            if found and records[0].offset > found[-1].offset + 1:
                self._miss(topic, partition, found[-1].offset + 1, records[0].offset)
            found += records
            size += len(row[5])
            if len(found) >= limit or size >= BATCH_BYTES_MAX:
                break
        return found

    def _miss(self, topic: str, partition: int, start: int, next_: int) -> None:
        """Rows in the middle of a log are missing: a damaged page can hide them whole, so that no
        checksum is looked at. Raises ``Corrupt``."""
        raise Corrupt(
            f"{topic}[{partition}] holds nothing at offset {start} and goes on at {next_}: rows "
            "are missing. Stop penstock and restore the file from a backup; nothing is skipped."
        )

    def _extent(self, topic: str, partition: int, since: int | None = None) -> Extent:
        low, high = partition << OFFSET_BITS, partition << OFFSET_BITS | OFFSET_MAX
        file, table = self.reader(topic), log_table(topic)
        tail = file.run(
            f"SELECT at FROM {table} WHERE at >= ? AND at <= ? ORDER BY at DESC LIMIT 1",
            (low, high),
        )
        next_ = (tail[0][0] & OFFSET_MAX) + 1 if tail else 0
        if since is None:
            where, values = "at >= ? AND at <= ? ORDER BY at", (low, high)
        else:
            where, values = "at >> 48 = ? AND appended_at >= ? ORDER BY appended_at, at", (
                partition,
                since,
            )
        head = file.run(f"SELECT at, count FROM {table} WHERE {where} LIMIT 1", values)
        if not head:
            return Extent(next_, next_)
        at, count = head[0]
        if not isinstance(count, int) or count < 1:  # no reader would come upon the row at all
            raise Corrupt(f"{topic}[{partition}] row ending at offset {at & OFFSET_MAX}: no count")
        return Extent((at & OFFSET_MAX) - count + 1, next_)

    def extent(self, topic: str, since: int | None = None) -> list[Extent]:
        """First and next offset of every partition."""
        return [self._extent(topic, p, since) for p in range(self._spec(topic).partitions)]

    def join(self, group: str, topics: Sequence[str]) -> EmbeddedLane:
        """A member of ``group`` in the home's run folder."""
        lanes = max(self._spec(t).partitions for t in topics)
        return EmbeddedLane(self, self.home / "run" / "groups" / group, tuple(topics), lanes)

    def retain(self, topic: str, floors: Mapping[int, int], now: int) -> int:
        """Drop old rows within the topic's bounds and free their pages."""
        spec = self._spec(topic)
        return retain(self._writer(topic), spec, floors, now)


class Members:
    """Who is alive in a group: one flocked file per member, swept under the group's lock."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.name = f"{os.getpid():08d}-{next(_MEMBERS):08d}-{time.monotonic_ns():x}"
        with self._locked():
            self._fd = os.open(folder / self.name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _locked(self) -> _Locked:
        return _Locked(self._folder / ".lock")

    def sweep(self) -> tuple[str, ...]:
        """The living members; files whose flock is free belonged to the dead and are removed."""
        with self._locked():
            alive = []
            for name in sorted(os.listdir(self._folder)):
                if name.startswith("."):
                    continue
                if name == self.name or self._is_alive(name):
                    alive.append(name)
                else:
                    (self._folder / name).unlink(missing_ok=True)
            return tuple(alive)

    def _is_alive(self, name: str) -> bool:
        try:
            fd = os.open(self._folder / name, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        finally:
            os.close(fd)

    def leave(self) -> None:
        """Give up membership at once. May repeat."""
        if self._fd >= 0:
            (self._folder / self.name).unlink(missing_ok=True)
            self.crash()

    def crash(self) -> None:
        """Drop the flock as a death would: the file stays until another member sweeps."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class _Locked:
    """A short exclusive flock on a path."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


class EmbeddedLane(Lane):
    """One member of a group (the ``Lane`` port)."""

    def __init__(
        self, log: EmbeddedLog, folder: Path, topics: tuple[str, ...], lanes: int
    ) -> None:
        self._log, self._topics, self._lanes = log, topics, lanes
        self.members = Members(folder)
        self._alive: tuple[str, ...] = ()
        self._generation = 0
        self._assigned: frozenset[int] = frozenset()
        self._held: frozenset[int] = frozenset()
        self._checked: set[tuple[str, int]] = set()
        self._next_sweep = 0.0
        self._turn = 0

    def _rebalance(self) -> None:
        now = self._log.monotonic()
        if now < self._next_sweep:
            return
        self._next_sweep = now + LIVENESS_SECONDS
        alive = self.members.sweep()
        if alive != self._alive:
            self._alive = alive
            self._generation += 1
            self._assigned = assign(alive, self._lanes).get(self.members.name, frozenset())
            self._checked.clear()

    def take(self, limit: int, positions: Positions, topics: Iterable[str] | None = None) -> Taken:
        """Records of the assigned lanes; the first look at a position checks its range."""
        self._rebalance()
        wanted = self._topics if topics is None else [t for t in self._topics if t in set(topics)]
        lanes = sorted(self._assigned - self._held)
        places = [(t, p) for t in wanted for p in lanes if (t, p) in positions]
        outside = {place: e for place in places if (e := self._outside(place, positions[place]))}
        found: list[Record] = []
        self._turn += 1
        shift = self._turn % len(places) if places else 0
        for place in places[shift:] + places[:shift]:
            if len(found) >= limit:
                break
            if place in outside:
                continue
            records = self._log.rows(*place, positions[place], limit - len(found))
            if records and records[0].offset > positions[place]:
                # Retention passed the position since it was checked: told, never skipped.
                self._checked.discard(place)
                outside[place] = extent = self._log._extent(*place)
                if extent.first <= positions[place]:
                    self._log._miss(*place, positions[place], records[0].offset)
            else:
                found += records
        return Taken(
            generation=self._generation, assigned=self._assigned, records=found, outside=outside
        )

    def _outside(self, place: tuple[str, int], position: int) -> Extent | None:
        if place in self._checked:
            return None
        extent = self._log._extent(*place)
        if extent.first <= position <= extent.next:
            self._checked.add(place)
            return None
        return extent

    def hold(self, lanes: frozenset[int]) -> None:
        """Read nothing of these lanes for now."""
        self._held = lanes

    def leave(self) -> None:
        """Give the lanes back at once; a ``take`` after it finds no lane assigned."""
        self.members.leave()
        self._next_sweep = 0.0

    def note(self, positions: Positions) -> None:
        """Nothing else reads an embedded group's positions but the store itself."""
