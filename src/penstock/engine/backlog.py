"""The waiting rows of the owned lanes, as the worker sees them between commits.

Only a lane's owner writes its waiting rows, so this picture is exact for as long as the epoch
holds; a worker that loses the lane forgets it and the next owner reads the rows again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import attrgetter

from penstock.event import Position, Record
from penstock.ports import Waiting

Held = tuple[str, str]  # topic and key
_OFFSET = attrgetter("record.offset")


class Backlog:
    """Held keys with their records in offset order, and records parked aside."""

    def __init__(self) -> None:
        self._keys: dict[Held, list[Waiting]] = {}
        self._aside: dict[Position, Waiting] = {}
        self._places: dict[Position, Waiting] = {}
        self._count: dict[int, int] = {}
        self._deadly: dict[Position, Waiting] = {}

    def __len__(self) -> int:
        return sum(self._count.values())

    @property
    def held(self) -> dict[Held, list[Waiting]]:
        """Every held (topic, key) with its records; not to be changed by the caller."""
        return self._keys

    @property
    def parked(self) -> int:
        """Parked records, aside ones included."""
        heads = sum(1 for queue in self._keys.values() if queue[0].state == "parked")
        return heads + sum(1 for w in self._aside.values() if not w.due)

    @property
    def deadly(self) -> list[Waiting]:
        """Records charged with the death of a process."""
        return list(self._deadly.values())

    def of_lane(self, lane: int) -> int:
        """Rows of one lane, for the cap."""
        return self._count.get(lane, 0)

    def find(self, place: Position) -> Waiting | None:
        """The row of a record, if it waits or is parked."""
        return self._places.get(place)

    def put(self, rows: Iterable[Waiting]) -> None:
        """Add or replace rows by their record's place."""
        for w in rows:
            self.drop([w.record])
            lane = w.record.partition
            self._count[lane] = self._count.get(lane, 0) + 1
            self._places[w.record.position] = w
            if w.deaths:
                self._deadly[w.record.position] = w
            if w.state == "aside":
                self._aside[w.record.position] = w
            else:
                queue = self._keys.setdefault((w.record.topic, w.record.message.key), [])
                queue.append(w)
                queue.sort(key=_OFFSET)

    def drop(self, records: Iterable[Record]) -> None:
        """Remove the rows of records; absent ones are no matter."""
        for record in records:
            if self._places.pop(record.position, None) is None:
                continue
            self._count[record.partition] -= 1
            self._deadly.pop(record.position, None)
            if self._aside.pop(record.position, None) is None:
                self._drop_held(record)

    def _drop_held(self, record: Record) -> None:
        held = record.topic, record.message.key
        left = [w for w in self._keys[held] if w.record.offset != record.offset]
        if left:
            self._keys[held] = left
        else:
            del self._keys[held]

    def forget(self, lane: int) -> None:
        """Drop the picture of a lane that is no longer owned."""
        self._keys = {
            held: queue for held, queue in self._keys.items() if queue[0].record.partition != lane
        }
        self._aside = {p: w for p, w in self._aside.items() if p.partition != lane}
        self._places = {p: w for p, w in self._places.items() if p.partition != lane}
        self._deadly = {p: w for p, w in self._deadly.items() if p.partition != lane}
        self._count.pop(lane, None)

    def due(self, now: int, limit: int) -> Iterator[list[Waiting]]:
        """Queues whose head may be tried now, each with all its successors, bounded."""
        for queue in list(self._keys.values()):
            if limit <= 0:
                return
            if queue[0].state == "waiting" and queue[0].due <= now:
                yield queue[:limit]
                limit -= len(queue)
        for w in list(self._aside.values()):
            if 0 < w.due <= now and limit > 0:
                yield [w]
                limit -= 1

    def next_due(self) -> int | None:
        """When the earliest waiting head may be tried (ms)."""
        heads = [q[0].due for q in self._keys.values() if q[0].state == "waiting"]
        heads += [w.due for w in self._aside.values() if w.due]
        return min(heads, default=None)
