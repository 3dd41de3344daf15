"""Anomalies of offsets and values: what reads say about a log, and about its appends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from penstock.conformance.history import FOREVER, Op, Place
from penstock.conformance.history_findings import Findings, at
from penstock.conformance.history_index import LOOKS, WRITES, Index


class Looks:
    """The takes and reads one by one: their own order, holes, and the ends they saw."""

    def __init__(self, index: Index) -> None:
        self._index, self._found = index, index.found
        self._next: dict[tuple[str, int, Place], int] = {}  # where a reader without a start is
        self.ended: dict[Place, int] = {}  # when the latest look that saw the end began
        self.low: dict[Place, tuple[int, int]] = {}  # the lowest start, and when it was looked at
        for op in index.ops:
            if op.told is not None and op.result == "ok" and op.asked.do in LOOKS:
                self._check(op)

    def _check(self, op: Op) -> None:
        due = {(topic, partition): start for topic, partition, start in op.asked.starts}
        for place, start in due.items():
            if place not in self.low or start < self.low[place][0]:
                self.low[place] = start, op.began
        self._in_order(op, due)
        assert op.told is not None
        for topic, partition, end in op.told.ends:
            self._at_end(op, (topic, partition), due.get((topic, partition), end), end)

    def _in_order(self, op: Op, due: dict[Place, int]) -> None:
        """Each record is the next of its partition; ``due`` is moved along."""
        assert op.told is not None
        place: Place = "", -1
        inside: set[Place] = set()
        want = -1
        for topic, partition, offset, _ in op.told.records:
            if partition != place[1] or topic != place[0]:
                if inside:
                    due[place] = want
                place = topic, partition
                want = due.get(place, -1)
                if want < 0:
                    want = self._next.get((op.asked.process, op.told.generation, place), offset)
            if offset != want:
                self._jumped(op, place, want, offset, place in inside)
            inside.add(place)
            want = offset + 1
        if inside:
            due[place] = want
        for place in inside:
            self._next[op.asked.process, op.told.generation, place] = due[place]

    def _jumped(self, op: Op, place: Place, want: int, offset: int, inside: bool) -> None:
        prefix = "int-" if inside else ""
        if offset < want:
            self._found.add(
                f"{prefix}nonmonotonic-poll",
                f"{at(place, offset)} was handed out where {want} was next", [op],
                [at(place, offset)],
            )
        else:
            self._hole(op, place, want, offset, prefix)

    def _hole(self, op: Op, place: Place, start: int, stop: int, prefix: str) -> None:
        """A look went over these offsets and handed out none of them."""
        known = self._index.next_known(place, start)
        if known is None or known >= stop:
            return
        assert op.told is not None
        out_of_order = {o for t, p, o, _ in op.told.records if (t, p) == place}
        while known is not None and known < stop and known in out_of_order:
            known = self._index.next_known(place, known + 1)
        if known is None or known >= stop:
            return
        value = self._index.log[place][known]
        self._found.add(
            f"{prefix}poll-skip",
            f"{at(place, known)} holds {value}, and the read went from {start} to {stop}",
            [op, self._index.ops[self._index.finder[value]]], [at(place, known)],
        )

    def _at_end(self, op: Op, place: Place, want: int, end: int) -> None:
        if op.began > self.ended.get(place, -1):
            self.ended[place] = op.began
        if end > want:
            self._hole(op, place, want, end, "")
        held = self._index.log.get(place)
        beyond = self._index.next_known(place, end) if held else None
        if held is None or beyond is None:
            return
        writer = self._index.author.get(held[beyond])
        if writer is None:
            return
        if self._index.ops[writer].ended < op.began:
            self._found.add(
                "stale-read",
                f"{at(place, beyond)} was acknowledged before, and the read saw the end at {end}",
                [op, self._index.ops[writer]], [at(place, beyond)],
            )
        before = held.get(end - 1)
        if before is None or not self._index.is_whole(self._index.ops[writer]):
            return
        if self._index.author.get(before) == writer:
            self._found.add(
                "G1b", f"the read saw the end at {end}, amid what one operation appended there",
                [op, self._index.ops[writer]], [at(place, end - 1), at(place, beyond)],
            )


def check_places(index: Index) -> None:
    """Values that nobody wrote, that failed, or that lie there too often."""
    for value in index.where.keys() - index.writers.keys():
        _unwritten(index, value, *index.where[value])
    for value, spots in index.copies.items():
        writers = index.writers_of(value)
        if len(spots) > len(writers) and not index.contradicted(value):
            places = [at(place, offset) for place, offset in spots]
            index.found.add(
                "duplicate", f"{value} lies at {', '.join(places)}",
                [index.ops[n] for n in writers], places,
            )


def _unwritten(index: Index, value: str, place: Place, offset: int) -> None:
    reader = index.ops[index.finder[value]]
    if value in index.failed:
        op = index.ops[index.failed[value]]
        name = "G1a" if op.asked.do == "commit" else "aborted-read"
        index.found.add(
            name, f"{value} was not appended, and lies at {at(place, offset)}", [op, reader],
            [at(place, offset)],
        )
    elif place[0] in index.topics:
        index.found.add(
            "unwritten-value", f"nobody appended {value}, which lies at {at(place, offset)}",
            [reader], [at(place, offset)],
        )


class Appends:
    """The appends and commits one by one: all their values are there, once, and in order."""

    def __init__(self, index: Index, looks: Looks) -> None:
        self._index, self._looks = index, looks
        self._found: Findings = index.found
        self._known_after = self._newest()
        self._whole: dict[Place, bool] = {}
        self.unseen = 0
        self._acknowledged: Counter[str] = Counter()
        for number, op in enumerate(index.ops):
            if op.asked.appends and op.asked.do in WRITES and op.result != "fail":
                self._check(number, op)

    def _newest(self) -> dict[Place, int]:
        """Per partition, the latest start of an append whose record was read. On the way: an
        append that began after another one ended lies behind it."""
        newest: dict[Place, int] = {}
        for place, held in self._index.log.items():
            latest, who = -1, None
            for offset in self._index.offsets(place):
                number = self._index.author.get(held[offset])
                if number is None:
                    continue
                op = self._index.ops[number]
                if who is not None and op.ended < latest:
                    self._backwards(place, offset, who, op)
                if op.began > latest:
                    latest, who = op.began, op
            newest[place] = latest
        return newest

    def _backwards(self, place: Place, offset: int, earlier: Op, later: Op) -> None:
        self._found.add(
            "nonmonotonic-append",
            f"{at(place, offset)} was acknowledged before the append of an earlier offset began",
            [later, earlier], [at(place, offset)],
        )

    def _check(self, number: int, op: Op) -> None:
        author, where = self._index.author, self._index.where
        missing = []
        last: dict[Place, int] = {}
        for topic, partition, value in op.asked.appends:
            if author.get(value) != number:
                missing.append(((topic, partition), value))
                continue
            place, offset = where[value]
            if place[1] != partition or place[0] != topic:
                self._misplaced(op, (topic, partition), value)
            elif last.get(place, -1) > offset:
                self._found.add(
                    "int-nonmonotonic-append",
                    f"{at(place, offset)} comes before what the same operation appended first",
                    [op], [at(place, offset)],
                )
            last[place] = offset
        if missing:
            self._missing(op, missing, bool(last))

    def _misplaced(self, op: Op, place: Place, value: str) -> None:
        spot = at(*self._index.where[value])
        self._found.add(
            "misplaced-record", f"{value} belongs to {place[0]}[{place[1]}], not {spot}", [op],
            [spot],
        )

    def _missing(self, op: Op, missing: Sequence[tuple[Place, str]], half: bool) -> None:
        """Values that are not there, or are there and perhaps of another operation."""
        for place, value in missing:
            if op.result == "ok":
                self._lost(op, place, value)
            elif half and self._index.is_whole(op) and self._torn(op, place, value):
                break

    def _lost(self, op: Op, place: Place, value: str) -> None:
        """Was it acknowledged more often than it is there?"""
        self._acknowledged[value] += 1
        there = len(self._index.copies.get(value, ())) or (value in self._index.where)
        if self._acknowledged[value] <= there or self._index.contradicted(value):
            return
        if self._would_be_known(op, place):
            self._found.add(
                "lost-write", f"{value} was acknowledged and is not in {place[0]}[{place[1]}]",
                [op],
            )
        else:
            self.unseen += 1

    def _would_be_known(self, op: Op, place: Place) -> bool:
        """Would the record of an acknowledged append have been read, were it there?"""
        later = max(self._known_after.get(place, -1), self._looks.ended.get(place, -1))
        if op.ended >= later:
            return False
        if place not in self._looks.low:
            return self._is_whole(place)
        start, looked = self._looks.low[place]
        return (start == 0 or looked < op.began) and self._is_whole(place)

    def _is_whole(self, place: Place) -> bool:
        """Is every offset of the partition known, or was it looked at and is nothing there?"""
        if place not in self._whole:
            known = self._index.offsets(place)
            start = self._looks.low.get(place, (0, 0))[0]
            whole = not known or known[-1] - start + 1 == len(known)
            self._whole[place] = whole or _all_looked_at(self._index, place, start)
        return self._whole[place]

    def _torn(self, op: Op, place: Place, value: str) -> bool:
        """Of an operation with unknown result all is there, or nothing."""
        finders = [
            self._index.ops[self._index.finder[v]].ended
            for _, _, v in op.asked.appends if v in self._index.finder
        ]
        seen_at = min(finders, default=FOREVER)
        torn = (
            value not in self._index.repeats
            and value not in self._index.where
            and seen_at < self._looks.ended.get(place, -1)
            and self._is_whole(place)
        )
        if torn:
            self._found.add(
                "torn-write", f"{value} is not there, and other records of its operation are",
                [op],
            )
        return torn


def _all_looked_at(index: Index, place: Place, start: int) -> bool:
    """Do the looks at a partition cover it without a gap, from ``start`` to its last record?"""
    reach = start
    for low, high in sorted(_spans(index, place)):
        if low > reach:
            break
        reach = max(reach, high)
    known = index.offsets(place)
    return not known or reach > known[-1]


def _spans(index: Index, place: Place) -> Iterator[tuple[int, int]]:
    for op in index.ops:
        if op.told is None or op.result != "ok" or op.asked.do not in LOOKS:
            continue
        low = [o for t, p, o in op.asked.starts if (t, p) == place]
        ends = [o for t, p, o in op.told.ends if (t, p) == place]
        ends += [o + 1 for t, p, o, _ in op.told.records if (t, p) == place]
        if low and ends:
            yield low[0], max(ends)
