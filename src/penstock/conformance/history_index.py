"""A history turned into what the checks look up: who wrote a value, and what lies where."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence

from penstock.conformance.history import Op, Place, Seen, Sent
from penstock.conformance.history_findings import Findings, Promises, at

WRITES = ("append", "commit")
LOOKS = ("take", "read")


class Index:
    """One pass over the operations, in the order of their ends."""

    def __init__(self, ops: Sequence[Op], found: Findings, promises: Promises) -> None:
        self.ops, self.found, self.promises = ops, found, promises
        self.author: dict[str, int] = {}  # value -> its one writer, where it has one record
        self.writers: dict[str, int] = {}  # value -> the first operation that may have written it
        self.repeats: dict[str, list[int]] = {}  # value -> all of them, where there are several
        self.failed: dict[str, int] = {}  # value -> an operation that certainly did not
        self.topics: set[str] = set()  # those that something was appended to
        self.log: dict[Place, dict[int, str]] = defaultdict(dict)
        self.finder: dict[str, int] = {}  # value -> the operation that was the first to see it
        self.where: dict[str, tuple[Place, int]] = {}  # value -> its first place
        self.copies: dict[str, list[tuple[Place, int]]] = {}  # values with several places
        self.seen = 0  # records in all reads together
        self._torn: set[str] = set()  # values of places with two values
        self._sorted: dict[Place, list[int]] = {}
        for number, op in enumerate(ops):
            self._add(number, op)
        self._invert()

    def _add(self, number: int, op: Op) -> None:
        asked = op.asked
        if asked.do in WRITES:
            if asked.appends:
                self._written(number, op.result == "fail", asked.appends)
            if op.result == "ok" and asked.records:
                self._look(number, asked.records)
        elif op.told is not None and op.told.records and asked.do in LOOKS:
            self._look(number, op.told.records)

    def _written(self, number: int, failed: bool, appends: Sequence[Sent]) -> None:
        self.topics.update([topic for topic, _, _ in appends])
        for _, _, value in appends:
            if failed:
                self.failed[value] = number
            elif self.writers.setdefault(value, number) != number:
                self.repeats.setdefault(value, [self.writers[value]]).append(number)

    def _look(self, number: int, records: Sequence[Seen]) -> None:
        self.seen += len(records)
        topic_before, partition_before = "", -1
        held: dict[int, str] = {}
        finder = self.finder
        for topic, partition, offset, value in records:
            if partition != partition_before or topic != topic_before:
                topic_before, partition_before = topic, partition
                held = self.log[topic, partition]
            known = held.setdefault(offset, value)
            if known is value:
                finder.setdefault(value, number)
            elif known != value:
                self._differs(number, at((topic, partition), offset), known, value)

    def _differs(self, number: int, spot: str, known: str, value: str) -> None:
        self._torn |= {known, value}
        self.finder.setdefault(value, number)
        both = self.ops[self.finder[known]], self.ops[number]
        self.found.add(
            "inconsistent-offset", f"{spot} was read as {known} and as {value}", both, (spot,)
        )

    def _invert(self) -> None:
        where = self.where
        for place, held in self.log.items():
            for offset, value in held.items():
                if value in where:
                    first = where[value]
                    self.copies.setdefault(value, [first]).append((place, offset))
                else:
                    where[value] = place, offset
        self.author = {value: n for value, n in self.writers.items() if value in where}
        for unsure in (self.repeats, self.copies, self._torn):
            for value in unsure:
                self.author.pop(value, None)

    def writers_of(self, value: str) -> list[int]:
        """The operations that may have written it."""
        one = [self.writers[value]] if value in self.writers else []
        return self.repeats.get(value, one)

    def is_whole(self, op: Op) -> bool:
        """Whether all that the operation appends is there at once, in every partition."""
        return self.promises.whole_appends or op.asked.do == "commit"

    def contradicted(self, value: str) -> bool:
        """Whether some place of this value was also read as another one."""
        return value in self._torn

    def offsets(self, place: Place) -> list[int]:
        """The known offsets of a partition, in order."""
        if place not in self._sorted:
            self._sorted[place] = sorted(self.log[place]) if place in self.log else []
        return self._sorted[place]

    def next_known(self, place: Place, offset: int) -> int | None:
        """The first known offset at or after this one."""
        if offset in self.log.get(place, ()):
            return offset
        known = self.offsets(place)
        spot = bisect_left(known, offset)
        return known[spot] if spot < len(known) else None
