"""After a death: what the dead owner was about to decide is decided record by record.

A store with ``attempts`` keeps, per lane, the spans of the batch that its owner decides. The next
owner finds them at its claim. Was it one record, the death is charged to that one. Were they
many, nobody knows which it was: they run one a turn, each on record before its decide, so that a
further death names its record.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from penstock.engine.batch import Entry
from penstock.event import Position, Record
from penstock.ports import Span

Spans = dict[int, list[Span]]


def spans_of(records: Iterable[Record]) -> Spans:
    """What is about to be decided, per lane, in order; neighbours make one span."""
    found: Spans = {}
    for r in records:
        spans = found.setdefault(r.partition, [])
        last = spans[-1] if spans else None
        if last is not None and last.topic == r.topic and last.last + 1 == r.offset:
            spans[-1] = Span(r.topic, last.first, r.offset)
        else:
            spans.append(Span(r.topic, r.offset, r.offset))
    return found


def only(spans: Sequence[Span]) -> Span | None:
    """The one record that was being decided; None where there were several, or none."""
    if len(spans) == 1 and spans[0].first == spans[0].last:
        return spans[0]
    return None


class Careful:
    """What is to run one record a turn for now: fresh records up to an offset, and some of those
    that waited."""

    def __init__(self) -> None:
        self._fresh: dict[tuple[str, int], int] = {}  # the last offset, per topic and lane
        self._waited: set[Position] = set()

    def __bool__(self) -> bool:
        return bool(self._fresh or self._waited)

    def begin(
        self, lane: int, spans: Sequence[Span], positions: Mapping[tuple[str, int], int]
    ) -> None:
        """These records of a lane are to run one by one."""
        for topic, first, last in ((s.topic, s.first, s.last) for s in spans):
            position = positions.get((topic, lane))
            if position is None:
                continue  # a topic that is read no more
            if last >= position:
                self._fresh[topic, lane] = max(last, self._fresh.get((topic, lane), 0))
            late = range(first, min(last + 1, position))
            self._waited |= {Position(topic, lane, n) for n in late}

    def forget(self, lane: int) -> None:
        """The lane is no longer owned."""
        self._fresh = {at: last for at, last in self._fresh.items() if at[1] != lane}
        self._waited = {place for place in self._waited if place.partition != lane}

    def one(
        self, waiting: Sequence[Entry], fresh: Sequence[Entry]
    ) -> tuple[list[Entry], list[Entry]]:
        """What to run this turn, of what is due and what is new."""
        tried = [e for e in waiting if e.record.position in self._waited][:1]
        if tried:
            self._waited.discard(tried[0].record.position)
            return tried, []
        self._waited.clear()  # handled since, or not due any more
        return (list(waiting), []) if waiting else ([], list(fresh[:1]))

    def passed(self, positions: Mapping[tuple[str, int], int]) -> None:
        """Drop what the positions have passed."""
        if self._fresh:
            self._fresh = {
                at: last for at, last in self._fresh.items() if last >= positions.get(at, last + 1)
            }
