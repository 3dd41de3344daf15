"""Records from a home into Kafka, partition by partition, as often as it takes."""

from __future__ import annotations

import time
from collections.abc import Callable

from penstock.errors import Conflict, OutsideLog
from penstock.moving.home import pieces
from penstock.moving.move import Move
from penstock.moving.plan import RATE
from penstock.moving.verify import same
from penstock.moving.way import Moving

TOLD_SECONDS = 2.0  # how often a long copy says where it is
Say = Callable[[str], None]


class Copying:
    """Passes over all topics. What lies in a partition is the record of how far it came: the next
    record has the next offset. ``count`` is how many were copied so far."""

    def __init__(self, moving: Moving, move: Move, say: Say) -> None:
        self._moving, self._move, self._say = moving, move, say
        self._ends: dict[str, list[int]] = {}  # where this one left off
        self._began = self._told_at = time.monotonic()
        self._left = 0
        self.count = 0

    def pass_over(self) -> int:
        """Copy what is missing now; returns how many records. Raises ``Conflict`` where something
        else was written there, or the home dropped what was not copied yet."""
        moving, before = self._moving, self.count
        ends = {topic: moving.there(topic) for topic in moving.topics}
        self._left = sum(e.next - e.first for t in moving.topics for e in moving.home.extents(t))
        self._left -= sum(map(sum, ends.values()))
        for topic, have in ends.items():
            known = self.count
            self._ends[topic] = self._copy(topic, have)
            if self.count > known:
                self._say(f"{topic}: {self.count - known} records")
        return self.count - before

    def _copy(self, topic: str, have: list[int]) -> list[int]:
        """One topic; returns its ends."""
        moving, ends, known = self._moving, list(have), self._ends.get(topic)
        if known is not None and known != have:
            raise _foreign(topic)
        for partition, at in enumerate(have):
            start = self._move.firsts[topic][partition] + at
            if known is None and at:
                self._see_that_it_is_ours(topic, partition, at, start)
            for piece in pieces(moving.home.records(topic, partition, start)):
                if piece[0].record.offset != start:
                    raise _foreign(topic)  # retention was faster
                # The home counts transactions by file, the cluster all of them together: a number
                # of the one would say a wrong thing there. It stays with the record's row.
                messages = [c.record.message for c in piece]
                moving.log.append(topic, messages, 0, (), [c.record.appended_at for c in piece])
                ends[partition] += len(piece)
                start += len(piece)
                self._passed(len(piece))
        if ends != have and moving.there(topic) != ends:
            raise _foreign(topic)
        return ends

    def _see_that_it_is_ours(self, topic: str, partition: int, have: int, start: int) -> None:
        """The last record that is there is the home's last one before the start. So a piece that
        an earlier try wrote twice, or a record of anybody else's, is seen before more is written.
        Where retention took just that record, here or there, ``verify`` sees what is left."""
        try:
            (there,) = self._moving.log.read(topic, partition, have - 1, 1)[:1]
        except OutsideLog:
            return
        here = next(self._moving.home.records(topic, partition, start - 1), [])
        if here and here[0].record.offset == start:
            return
        if not here or not same(here[0].record.message, there.message):
            raise _foreign(topic)

    def _passed(self, records: int) -> None:
        self.count += records
        self._left -= records
        now = time.monotonic()
        if now - self._told_at > TOLD_SECONDS:
            rate = self.count / (now - self._began) or RATE
            seconds = max(0, self._left) / rate
            self._say(f"{self.count} records copied, about {seconds:.0f} s to go")
            self._told_at = now


def _foreign(topic: str) -> Conflict:
    return Conflict(
        "not_ours", f"Kafka's topic {topic} does not hold what was copied.",
        "Something else writes there, or the home dropped what was not copied yet: begin anew "
        "under another prefix (penstock migrate return, if the home was fenced).",
    )
