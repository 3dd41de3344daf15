"""Anomalies of ownership: claims, epochs, positions, and what a commit passes over."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from penstock.conformance.history import Op
from penstock.conformance.history_findings import Findings, at
from penstock.conformance.history_index import Index

Lane = tuple[str, int]  # scope and lane number


class Held(NamedTuple):
    """One claim or commit as one lane sees it."""

    op: Op
    epoch: int


def check_owners(index: Index) -> None:
    """All checks of claims and commits."""
    claims: dict[Lane, list[Held]] = defaultdict(list)
    commits: dict[Lane, list[Held]] = defaultdict(list)
    for op in index.ops:
        asked = op.asked
        if asked.do == "claim" and op.told is not None and op.result == "ok":
            for lane, epoch in op.told.owners:
                claims[asked.scope, lane].append(Held(op, epoch))
        elif asked.do == "commit" and op.result != "fail":
            for lane, epoch in asked.owners:
                commits[asked.scope, lane].append(Held(op, epoch))
    for place, held in claims.items():
        held.sort(key=lambda h: (h.epoch, h.op.began))
        _epochs(index.found, place, held)
    for place, done in commits.items():
        _Chain(index.found, place, claims.get(place, []), done).check()
    _Handled(index).check()


def _epochs(found: Findings, lane: Lane, claims: Sequence[Held]) -> None:
    """Epochs rise with the time of their claims, and none is given twice."""
    latest: Held | None = None
    for before, claim in zip([None, *claims], claims, strict=False):
        if before is not None and before.epoch == claim.epoch:
            found.add(
                "epoch-regress", f"epoch {claim.epoch} of {_of(lane)} was given twice",
                [before.op, claim.op],
            )
        if latest is not None and claim.op.ended < latest.op.began:
            found.add(
                "epoch-regress",
                f"{_of(lane)} had epoch {claim.epoch} before {latest.epoch} was claimed",
                [claim.op, latest.op],
            )
        if latest is None or claim.op.began > latest.op.began:
            latest = claim


def _of(lane: Lane) -> str:
    return f"lane {lane[1]} of {lane[0]}"


class _Chain:
    """The positions of one lane, claim by claim and commit by commit."""

    def __init__(
        self, found: Findings, lane: Lane, claims: Sequence[Held], commits: Sequence[Held]
    ) -> None:
        self._found, self._lane, self._claims = found, lane, claims
        self._commits = sorted(commits, key=lambda h: (h.epoch, h.op.began))
        self._reached: dict[str, tuple[int, Op]] = {}  # by an acknowledged commit
        self._maybe: dict[str, set[int]] = defaultdict(set)  # by one with unknown result

    def check(self) -> None:
        """Every claim goes on where the commits before it came to; no commit is stale."""
        for commit in self._commits:
            if commit.op.result == "ok":
                self._stale(commit)
        waiting = list(reversed(self._commits))
        for claim in self._claims:
            while waiting and waiting[-1].epoch < claim.epoch:
                self._commit(waiting.pop())
            self._claim(claim)
        while waiting:
            self._commit(waiting.pop())

    def _stale(self, commit: Held) -> None:
        newer = bisect_right(self._claims, commit.epoch, key=lambda claim: claim.epoch)
        for claim in self._claims[newer : newer + 1]:
            if claim.op.ended < commit.op.began or self._came_first(claim, commit):
                self._found.add(
                    "stale-commit",
                    f"{_of(self._lane)} was committed under epoch {commit.epoch} after"
                    f" {claim.epoch} was claimed",
                    [commit.op, claim.op],
                )

    def _came_first(self, claim: Held, commit: Held) -> bool:
        """Whether the claim saw less than a commit that was under way with it has moved to."""
        if commit.op.ended < claim.op.began:
            return False
        moved = {t: to for t, lane, _, to in commit.op.asked.moves if lane == self._lane[1]}
        return any(offset < moved.get(topic, -1) for topic, offset in self._starts(claim))

    def _starts(self, claim: Held) -> Iterator[tuple[str, int]]:
        assert claim.op.told is not None
        return ((t, offset) for t, lane, offset in claim.op.told.starts if lane == self._lane[1])

    def _claim(self, claim: Held) -> None:
        shown = dict(self._starts(claim))
        for topic, (offset, op) in self._reached.items():
            start = shown.get(topic, -1)
            if start < offset and op.ended < claim.op.began:
                self._found.add(
                    "position-regress",
                    f"{_of(self._lane)} was claimed at {start} of {topic}, and {offset} was"
                    " acknowledged before",
                    [claim.op, op],
                )
        for topic, start in shown.items():
            self._ahead(claim.op, topic, start)
            if start != self._reached.get(topic, (-1, claim.op))[0]:
                self._reached[topic] = start, claim.op
            self._maybe[topic].clear()

    def _ahead(self, op: Op, topic: str, start: int) -> None:
        if topic not in self._reached or start <= self._reached[topic][0]:
            return
        if start not in self._maybe[topic]:
            reached, before = self._reached[topic]
            self._found.add(
                "position-ahead",
                f"{_of(self._lane)} goes on at {start} of {topic}, and {reached} was reached",
                [op, before],
            )

    def _commit(self, commit: Held) -> None:
        op = commit.op
        for topic, lane, start, stop in op.asked.moves:
            if lane != self._lane[1]:
                continue
            if op.result == "unknown":
                self._maybe[topic].add(stop)
                continue
            reached, before = self._reached.get(topic, (start, op))
            if stop < start or (start < reached and before.ended < op.began):
                self._found.add(
                    "position-regress",
                    f"{_of(self._lane)} went from {start} to {stop} of {topic}, and {reached}"
                    " was reached",
                    [op, before],
                )
            else:
                self._ahead(op, topic, start)
            if topic not in self._reached or stop != reached:
                self._reached[topic] = stop, op


class _Handled:
    """What commits say of the records their positions pass: handled once, and none left out."""

    def __init__(self, index: Index) -> None:
        self._index, self._found = index, index.found
        self._marks: dict[str, dict[str, Op]] = defaultdict(dict)  # scope -> value -> who
        self._maybe: dict[str, set[str]] = defaultdict(set)

    def check(self) -> None:
        """Marks first, all of them; then the positions."""
        commits = [op for op in self._index.ops if op.asked.do == "commit"]
        for op in commits:
            if op.result == "ok":
                self._mark(op)
            elif op.result == "unknown":
                self._maybe[op.asked.scope].update((*op.asked.marks, *op.asked.waits))
        for op in commits:
            if op.result == "ok":
                self._passes(op)

    def _mark(self, op: Op) -> None:
        marked = self._marks[op.asked.scope]
        for value in op.asked.marks:
            if value in marked:
                self._found.add(
                    "handled-twice", f"{op.asked.scope} handled {value} twice",
                    [marked[value], op],
                )
            marked[value] = op
        for value in op.asked.waits:
            self._maybe[op.asked.scope].add(value)

    def _passes(self, op: Op) -> None:
        asked = op.asked
        mine = {(t, p, o) for t, p, o, _ in asked.records}
        for topic, partition, start, stop in asked.moves:
            self._left_out(op, self._known_between(topic, partition, start, stop), mine)
        if len(asked.records) == len(asked.marks):
            return
        marked, maybe = self._marks[asked.scope], self._maybe[asked.scope]
        for topic, partition, offset, value in asked.records:
            if value not in marked and value not in maybe:
                self._found.add(
                    "position-ahead",
                    f"{at((topic, partition), offset)} was passed as handled before, and"
                    f" {asked.scope} never marked {value}",
                    [op], [at((topic, partition), offset)],
                )

    def _known_between(
        self, topic: str, partition: int, start: int, stop: int
    ) -> Iterator[tuple[str, int, int]]:
        known = self._index.offsets((topic, partition))
        between = known[bisect_left(known, start) : bisect_left(known, stop)]
        return ((topic, partition, offset) for offset in between)

    def _left_out(
        self, op: Op, known: Iterable[tuple[str, int, int]], mine: set[tuple[str, int, int]]
    ) -> None:
        for topic, partition, offset in known:
            if (topic, partition, offset) not in mine:
                self._found.add(
                    "position-ahead",
                    f"{at((topic, partition), offset)} lies before the position and was not"
                    " handled",
                    [op], [at((topic, partition), offset)],
                )


