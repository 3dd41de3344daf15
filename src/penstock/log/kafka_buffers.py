"""What a lane has fetched and its worker has not yet moved past, partition by partition.

Records that were given stay until the position passes them: a worker that takes the same place
again (its commit was refused, a record runs alone) costs the broker nothing. One thread puts,
another takes; a lock of the lane's guards both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from penstock.event import Record
from penstock.limits import BATCH_BYTES_MAX, BATCH_RECORDS_MAX
from penstock.ports import Extent

Place = tuple[str, int]
RECORDS_MAX = 4 * BATCH_RECORDS_MAX  # of all partitions of a lane
BYTES_MAX = 4 * BATCH_BYTES_MAX
UNASKED_SECONDS = 0.5  # a partition nobody asks for makes room for the others


class Buffer:
    """The records of one partition from ``start`` to before ``next``, where fetching goes on."""

    __slots__ = ("asked_at", "first", "next", "outside", "records", "size", "start")

    def __init__(self, start: int) -> None:
        self.start = self.next = start
        self.records: list[Record] = []
        self.first = 0  # the first of ``records`` that is still needed
        self.size = 0
        self.outside: Extent | None = None
        self.asked_at = 0.0

    def put(self, records: Sequence[Record], size: int) -> None:
        """Records that follow those held."""
        self.records += records
        self.size += size
        self.next = records[-1].offset + 1

    def pass_to(self, position: int) -> bool:
        """Let go of what lies before ``position``. False where it is not held, nor comes next."""
        if not self.start <= position <= self.next:
            return False
        records, first = self.records, self.first
        if first < len(records) and records[first].offset < position:
            # Offsets are mostly without gaps, so the place is mostly guessed at once.
            first = min(len(records), first + position - records[first].offset)
            while records[first - 1].offset >= position:
                first -= 1
            self.size -= sum(len(r.message.value) for r in records[self.first : first])
            self.first = first
            if first > RECORDS_MAX // 4 or first == len(records):
                del records[:first]
                self.first = 0
        self.start = position
        return True

    def give(self, limit: int) -> list[Record]:
        """Up to ``limit`` records from ``start`` on; they stay held."""
        return self.records[self.first : self.first + limit]

    @property
    def count(self) -> int:
        """Records held."""
        return len(self.records) - self.first


class Buffers:
    """Those of one lane, by place."""

    def __init__(self) -> None:
        self.of: dict[Place, Buffer] = {}
        self.moves: dict[Place, int] = {}  # where fetching must begin (anew); the thread does it

    def ask(self, place: Place, position: int, now: float) -> Buffer | None:
        """The buffer that begins at ``position``; None while it is still to be fetched."""
        buffer = self.of.get(place)
        if buffer is None or not buffer.pass_to(position):
            if self.moves.get(place) != position:
                self.of.pop(place, None)
                self.moves[place] = position
            return None
        buffer.asked_at = now
        return buffer

    def begin(self, now: float) -> dict[Place, int]:
        """The moves to make; from now on what is fetched of these places is kept."""
        moves, self.moves = self.moves, {}
        for place, position in moves.items():
            held = self.of.get(place)
            if held is None or held.next != position:  # else what is held goes on from there
                self.of[place] = held = Buffer(position)
            held.asked_at = now
        return moves

    def fetch_again(self) -> None:
        """A new client fetches: it begins where the last one was."""
        self.moves = {place: buffer.next for place, buffer in self.of.items()} | self.moves

    def drop(self, places: Iterable[Place]) -> None:
        """Forget places that are another member's now."""
        for place in places:
            self.of.pop(place, None)
            self.moves.pop(place, None)

    def unasked(self) -> list[Place]:
        """Places that hold something and that nobody asks for while others are asked for: held
        lanes, lanes at their cap. A worker that is busy with a batch asks for none."""
        latest = max((buffer.asked_at for buffer in self.of.values()), default=0.0)
        return [
            place for place, buffer in self.of.items()
            if buffer.count and buffer.asked_at + UNASKED_SECONDS < latest
        ]

    @property
    def full(self) -> bool:
        """Whether fetching must wait for the worker."""
        held = self.of.values()
        return (
            sum(b.count for b in held) >= RECORDS_MAX or sum(b.size for b in held) >= BYTES_MAX
        )
