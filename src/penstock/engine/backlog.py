"""The waiting rows of the owned lanes, as the worker sees them between commits.

Only a lane's owner writes its waiting rows, so this picture is exact for as long as the epoch
holds; a worker that loses the lane forgets it and the next owner reads the rows again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, KeysView
from itertools import islice

from penstock.event import Position, Record
from penstock.ports import Waiting

Held = tuple[str, int, str]  # topic, partition and key


def order_of(record: Record) -> Held:
    """The order a record is part of. The partition belongs to it: others may write a key into more
    than one, and what lies in two lanes is in no order."""
    return record.topic, record.partition, record.message.key


class Backlog:
    """Held keys with their records in offset order, and records parked aside."""

    def __init__(self) -> None:
        # Of each key by offset, in order: a dict, for a hot key may have thousands.
        self._keys: dict[Held, dict[int, Waiting]] = {}
        self._aside: dict[Position, Waiting] = {}
        self._places: dict[Position, Waiting] = {}
        self._count: dict[int, int] = {}
        self._deadly: dict[Position, Waiting] = {}

    def __len__(self) -> int:
        return len(self._places)

    @property
    def held(self) -> KeysView[Held]:
        """Every order that is held."""
        return self._keys.keys()

    @property
    def parked(self) -> int:
        """Parked records, aside ones included."""
        heads = sum(1 for head in self._heads() if head.state == "parked")
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
            lane = w.record.partition
            known = self._places.get(w.record.position)
            if known is not None and (known.state == "aside") != (w.state == "aside"):
                self.drop([w.record])
                known = None
            if known is None:
                self._count[lane] = self._count.get(lane, 0) + 1
            self._places[w.record.position] = w
            self._deadly.pop(w.record.position, None)
            if w.deaths:
                self._deadly[w.record.position] = w
            if w.state == "aside":
                self._aside[w.record.position] = w
            else:
                self._put_held(w)

    def _put_held(self, w: Waiting) -> None:
        held, offset = order_of(w.record), w.record.offset
        queue = self._keys.setdefault(held, {})
        out_of_place = offset not in queue and queue and offset < next(reversed(queue))
        queue[offset] = w
        if out_of_place:
            self._keys[held] = dict(sorted(queue.items()))

    def _heads(self) -> Iterator[Waiting]:
        return (next(iter(queue.values())) for queue in self._keys.values())

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
        held = order_of(record)
        queue = self._keys[held]
        del queue[record.offset]
        if not queue:
            del self._keys[held]

    def forget(self, lane: int) -> None:
        """Drop the picture of a lane that is no longer owned."""
        self._keys = {
            held: queue for held, queue in self._keys.items()
            if next(iter(queue.values())).record.partition != lane
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
            head = next(iter(queue.values()))
            if head.state == "waiting" and head.due <= now:
                yield list(islice(queue.values(), limit))
                limit -= len(queue)
        for w in list(self._aside.values()):
            if 0 < w.due <= now and limit > 0:
                yield [w]
                limit -= 1

    def next_due(self) -> int | None:
        """When the earliest waiting head may be tried (ms)."""
        heads = [head.due for head in self._heads() if head.state == "waiting"]
        heads += [w.due for w in self._aside.values() if w.due]
        return min(heads, default=None)
