"""One change to a clean history, and the anomaly that it makes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random

from msgspec.structs import replace

from penstock.conformance.history import Line, Op, Seen, paired
from tests.conformance.story import TOPIC

Mutation = Callable[["Mutant"], bool]
MUTATIONS: list[tuple[str, Mutation]] = []


def mutation(name: str) -> Callable[[Mutation], Mutation]:
    """Add one: it changes the history where it can, and says whether it could."""

    def add(function: Mutation) -> Mutation:
        MUTATIONS.append((name, function))
        return function

    return add


class Mutant:
    """A history, and what can be changed in it."""

    def __init__(self, lines: Sequence[Line], seed: int) -> None:
        self.lines, self._dice = list(lines), Random(seed)
        self.ops = paired(lines)

    def change(self, line: Line | None, **fields: object) -> None:
        """Another line in its place."""
        self.lines = [replace(x, **fields) if x is line else x for x in self.lines]

    def ok(self, *does: str) -> list[Op]:
        """Operations of a kind that ended well, in any order."""
        return self.mixed(op for op in self.ops if op.result == "ok" and op.asked.do in does)

    def mixed(self, things: Iterable[Op]) -> list[Op]:
        """Any one may be the first."""
        found = list(things)
        self._dice.shuffle(found)
        return found

    def looks(self, least: int = 1) -> list[Op]:
        """Reads and takes with at least so many records, but the last one's."""
        found = self.ok("take", "read")
        return [
            op for op in found
            if op.told and len(op.told.records) >= least and op.asked.process != "last"
        ]

    def spot(self, length: int, low: int = 0) -> int:
        """Anywhere in there."""
        return self._dice.randrange(low, length)

    def appended(self) -> dict[str, Op]:
        """Who appended each value."""
        return {v: op for op in self.ops for _, _, v in op.asked.appends}

    def last(self, partition: int) -> Line:
        """All there is in a partition."""
        return next(
            op.told for op in self.ops
            if op.told and op.asked.starts == ((TOPIC, partition, 0),)
            and op.asked.process == "last"
        )

    def everywhere(self, rename: Callable[[Seen], Seen | None]) -> None:
        """Change every record in every read, or leave it out."""
        for line in list(self.lines):
            if line.records:
                changed = [rename(record) for record in line.records]
                self.change(line, records=tuple(r for r in changed if r is not None))


@mutation("int-poll-skip")
def leave_one_out(m: Mutant) -> bool:
    for op in m.looks(3):
        records = op.told.records
        n = m.spot(len(records) - 1, 1)
        m.change(op.told, records=records[:n] + records[n + 1 :])
        return True
    return False


@mutation("poll-skip")
def leave_the_first_out(m: Mutant) -> bool:
    for op in m.looks(2):
        m.change(op.told, records=op.told.records[1:])
        return True
    return False


@mutation("lost-write")
def lose_one(m: Mutant) -> bool:
    seen = [r for partition in (0, 1) for r in m.last(partition).records]
    authors = m.appended()
    known = [r for r in seen if authors[r[3]].result == "ok"]
    if not known:
        return False
    lost = known[m.spot(len(known))][3]
    m.everywhere(lambda r: None if r[3] == lost else r)
    return True


@mutation("duplicate")
def append_one_twice(m: Mutant) -> bool:
    line = m.last(1)
    if not line.records:
        return False
    end = len(line.records)
    again = (TOPIC, 1, end, line.records[m.spot(end)][3])
    m.change(line, records=(*line.records, again), ends=((TOPIC, 1, end + 1),))
    return True


@mutation("inconsistent-offset")
def swap_two_for_one_reader(m: Mutant) -> bool:
    for op in m.looks(2):
        records = list(op.told.records)
        n = m.spot(len(records) - 1)
        one, two = records[n], records[n + 1]
        records[n : n + 2] = [(*one[:3], two[3]), (*two[:3], one[3])]
        m.change(op.told, records=tuple(records))
        return True
    return False


@mutation("inconsistent-offset")
def shift_an_offset(m: Mutant) -> bool:
    for op in m.looks():
        *before, (topic, partition, offset, value) = op.told.records
        if offset + 1 < len(m.last(partition).records):
            m.change(op.told, records=(*before, (topic, partition, offset + 1, value)))
            return True
    return False


@mutation("int-nonmonotonic-poll")
def turn_two_about(m: Mutant) -> bool:
    for op in m.looks(2):
        records = list(op.told.records)
        n = m.spot(len(records) - 1)
        records[n : n + 2] = records[n + 1], records[n]
        m.change(op.told, records=tuple(records))
        return True
    return False


@mutation("nonmonotonic-poll")
def serve_one_again(m: Mutant) -> bool:
    for op in m.ok("take", "read"):
        ((_, partition, start),) = op.asked.starts
        if start:
            again = m.last(partition).records[start - 1]
            m.change(op.told, records=(again, *op.told.records))
            return True
    return False


@mutation("stale-read")
def hide_what_was_acknowledged(m: Mutant) -> bool:
    authors = m.appended()
    for op in m.looks():
        *before, (topic, partition, offset, value) = op.told.records
        if op.told.ends and authors[value].ended < op.began:
            ends = ((topic, partition, offset),)
            m.change(op.told, records=tuple(before), ends=ends)
            return True
    return False


@mutation("nonmonotonic-append")
def swap_two_for_everybody(m: Mutant) -> bool:
    authors = m.appended()
    records = [*m.last(0).records, *m.last(1).records]
    for one in records:
        for two in records:
            apart = authors[one[3]].ended < authors[two[3]].began
            if apart and one[:2] == two[:2]:
                other = {one[3]: two[3], two[3]: one[3]}
                m.everywhere(lambda r, o=other: (*r[:3], o.get(r[3], r[3])))
                return True
    return False


def refuse(m: Mutant, do: str) -> bool:
    """Let an operation fail whose values were read."""
    seen = {r[3] for partition in (0, 1) for r in m.last(partition).records}
    for op in m.ok(do):
        if any(value in seen for _, _, value in op.asked.appends):
            m.change(op.told, kind="fail")
            return True
    return False


@mutation("aborted-read")
def refuse_an_append(m: Mutant) -> bool:
    return refuse(m, "append")


@mutation("G1a")
def roll_a_commit_back(m: Mutant) -> bool:
    return refuse(m, "commit")


@mutation("unwritten-value")
def make_one_up(m: Mutant) -> bool:
    line = m.last(0)
    if not m.ok("append"):
        return False
    n = len(line.records)
    m.change(line, records=(*line.records, (TOPIC, 0, n, "?")), ends=((TOPIC, 0, n + 1),))
    return True


@mutation("misplaced-record")
def address_one_elsewhere(m: Mutant) -> bool:
    for op in m.ok("append"):
        topic, partition, value = op.asked.appends[0]
        m.change(op.asked, appends=((topic, 1 - partition, value), *op.asked.appends[1:]))
        return True
    return False


@mutation("stale-commit")
def commit_under_the_epoch_before(m: Mutant) -> bool:
    for op in m.ok("commit"):
        ((lane, epoch),) = op.asked.owners
        claimed = [c for c in m.ok("claim") if c.told and c.told.owners == ((0, epoch),)]
        if claimed and claimed[0].ended < op.began:
            m.change(op.asked, owners=((lane, epoch - 1),))
            return True
    return False


@mutation("position-ahead")
def move_one_too_far(m: Mutant) -> bool:
    for op in m.ok("commit"):
        ((topic, lane, start, stop),) = op.asked.moves
        if stop < len(m.last(0).records):
            m.change(op.asked, moves=((topic, lane, start, stop + 1),))
            return True
    return False


@mutation("position-regress")
def claim_one_too_low(m: Mutant) -> bool:
    for claim in m.ok("claim"):
        ((topic, lane, start),) = claim.told.starts
        for commit in m.ok("commit"):
            ((_, _, from_, stop),) = commit.asked.moves
            if commit.ended < claim.began and from_ < stop == start:
                m.change(claim.told, starts=((topic, lane, start - 1),))
                return True
    return False


@mutation("handled-twice")
def mark_one_again(m: Mutant) -> bool:
    commits = m.ok("commit")
    for one in commits:
        for two in commits:
            if one is not two and one.asked.marks:
                m.change(two.asked, marks=(*two.asked.marks, one.asked.marks[0]))
                return True
    return False


@mutation("epoch-regress")
def give_an_epoch_twice(m: Mutant) -> bool:
    claims = m.ok("claim")
    if len(claims) < 2:
        return False
    m.change(claims[0].told, owners=claims[1].told.owners)
    return True


@mutation("G0")
def number_two_commits_the_other_way(m: Mutant) -> bool:
    seen = {r[3]: r[2] for r in m.last(1).records}
    done = [c for c in m.ok("commit") if c.asked.appends and c.asked.appends[0][2] in seen]
    if len(done) < 2:
        return False
    one, two = done[0].told, done[1].told
    m.change(one, txn=two.txn)
    m.change(two, txn=one.txn)
    return True
