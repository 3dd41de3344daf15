"""The sweep: a recorded scenario, cut after every operation, restarted and judged.

A file must hold, after a restart, exactly what it held after one of the commits: the last that had
returned when the power went, or the one that was under way, whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random

import msgspec
from msgspec import Struct

from penstock.sim.disk.platter import Kept, Left, Platter
from penstock.sim.disk.restart import Desk, Found, parts
from penstock.sim.disk.scenario import FILES, Ack, Content, Scenario
from penstock.sim.disk.tape import SYNC, WRITE, Op, Recorder, Tape

CHUNK_STATES = 2500  # of one seed: each of its operations a few times over
FIRST_DRAWS = (2, 0, 3, 1)  # by chance, all of it, by chance, nothing of it, then by chance
VIOLATIONS_KEPT_MAX = 20
LOST, CORRUPT, HALF, FAULT = "lost", "corrupt", "half", "fault"


class Recording(Struct, frozen=True):
    """A scenario that ran: every operation, and every commit that returned, by file."""

    seed: int
    home: Path
    ops: tuple[Op, ...]
    acks: Mapping[str, tuple[Ack, ...]]


class Violation(Struct, frozen=True, kw_only=True):
    """A broken promise, and what it takes to see it again: ``seed``, ``index``, ``draw``. Of a
    ``fault``, ``file`` is what failed, and ``index`` counts operations of its sort."""

    seed: int
    index: int
    draw: int
    file: str
    kind: str
    said: str
    kept: tuple[str, ...]

    @property
    def again(self) -> str:
        """The command that examines this state alone."""
        if self.kind == FAULT:
            return f"penstock powercut --faults --seed {self.seed} --only {self.file}:{self.index}"
        return f"penstock powercut --seed {self.seed} --only {self.index}:{self.draw}"

    def __str__(self) -> str:
        if self.kind == FAULT:
            return f"{self.file} {self.index} of seed {self.seed}: {self.said}. Again: {self.again}"
        kept = "; ".join(self.kept) or "nothing"
        return (
            f"{self.kind}: {self.file}.db: {self.said}. Cut after operation {self.index} of seed "
            f"{self.seed}, of the unsynced kept: {kept}. Again: {self.again}"
        )


class Report(Struct, kw_only=True):
    """What was examined and what was wrong. ``violations`` holds the first of them."""

    states: int = 0
    writes: int = 0
    syncs: int = 0
    acknowledged: int = 0
    lost: int = 0
    corrupt: int = 0
    violations: list[Violation] = msgspec.field(default_factory=list)

    def add(self, other: Report) -> None:
        """Take in another part of the same sweep."""
        for name in ("states", "writes", "syncs", "acknowledged", "lost", "corrupt"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for violation in other.violations[: VIOLATIONS_KEPT_MAX - len(self.violations)]:
            self.violations.append(violation)

    def blame(self, violation: Violation) -> None:
        """One more broken promise."""
        if violation.kind == LOST:
            self.lost += 1
        else:
            self.corrupt += 1
        if len(self.violations) < VIOLATIONS_KEPT_MAX:
            self.violations.append(violation)


def record(seed: int, folder: Path, *, ignores_syncs: bool = False) -> Recording:
    """Run the scenario of a seed in ``folder``, which is made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tape = Tape(ignores_syncs=ignores_syncs)
    recorder = Recorder(tape)
    scenario = Scenario(folder, tape, recorder.name, Random(seed))
    scenario.run(scenario.steps())
    return recording_of(seed, scenario)


def recording_of(seed: int, scenario: Scenario) -> Recording:
    """What a scenario left behind."""
    by_file = {owner: tuple(a for a in scenario.acks if a.file == owner) for owner in FILES}
    return Recording(seed, scenario.house.home, tuple(scenario.tape.ops), by_file)


class Judge:
    """Judges cuts of one recording."""

    def __init__(self, recording: Recording, desk: Desk) -> None:
        self._recording, self._desk = recording, desk
        self._steps: dict[str, dict[Content, list[int]]] = {}
        for owner, acks in recording.acks.items():
            steps = self._steps[owner] = {}
            for n, ack in enumerate(acks):
                steps.setdefault(ack.content, []).append(n)
        self._known: dict[tuple[str, tuple[tuple[str, int], ...]], Found] = {}

    def judge(self, left: Left, index: int, draw: int) -> Iterator[Violation]:
        """What is wrong with what a cut left."""
        for owner in FILES:
            said = self._verdict(owner, self._found(owner, left), index)
            if said:
                kept = tuple(_spelled(k) for k in left.kept)
                yield Violation(
                    seed=self._recording.seed, index=index, draw=draw, file=owner,
                    kind=said[0], said=said[1], kept=kept,
                )  # fmt: skip

    def _found(self, owner: str, left: Left) -> Found:
        """A restart over a file; one that lies there as it did before is not started again."""
        names = parts(left.files, self._recording.home, owner)
        files = {suffix: left.files[name] for suffix, name in names.items()}
        if not all(name in left.settled for name in names.values()):
            return self._desk.restart(owner, files)
        key = owner, tuple((name, left.settled[name]) for name in names.values())
        if key not in self._known:
            self._known[key] = self._desk.restart(owner, files)
        return self._known[key]

    def _verdict(self, owner: str, found: Found, index: int) -> tuple[str, str] | None:
        acks = self._recording.acks[owner]
        sure = max((n for n, ack in enumerate(acks) if ack.ended <= index), default=-1)
        begun = max((n for n, ack in enumerate(acks) if ack.began < index), default=0)
        begun = max(begun, sure)  # a commit that had nothing to write is sure where it began
        if found.content is None:
            return CORRUPT, found.trouble
        steps = self._steps[owner].get(found.content)
        if steps is None:
            return HALF, f"it holds what it held after no commit ({_differs(acks, sure, found)})"
        if any(sure <= n <= begun for n in steps):
            return (CORRUPT, found.trouble) if found.trouble else None
        if steps[-1] < sure:
            lost = ", ".join(f"{n} ({acks[n].step})" for n in range(steps[-1] + 1, sure + 1))
            return LOST, f"commits that had returned are gone: {lost}"
        return HALF, f"it holds commit {steps[0]}, which had not begun"


def _differs(acks: tuple[Ack, ...], sure: int, found: Found) -> str:
    """In which tables a content differs from the last that was sure."""
    wanted = {table[0]: table for table in acks[max(sure, 0)].content}
    seen = {table[0]: table for table in found.content or ()}
    return ", ".join(sorted(t for t in wanted | seen if wanted.get(t) != seen.get(t)))


def _spelled(kept: Kept) -> str:
    name = Path(kept.name).name
    if not kept.sectors:
        return f"{kept.op} {kept.kind} {name}"
    return f"{kept.op} {name} {_ranges(kept.sectors)}"


def _ranges(numbers: tuple[int, ...]) -> str:
    """``(3, 4, 5, 9)`` as ``3-5,9``."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)


def draws(ops: int, states: int) -> Iterator[tuple[int, int]]:
    """Which cuts make so many states of so many operations: (index, how many draws there)."""
    each, rest = divmod(states, ops)
    for index in range(1, ops + 1):
        yield index, each + (index * rest // ops > (index - 1) * rest // ops)


def draw_number(n: int) -> int:
    """The n-th draw of an index: the manners in turn, then by chance for ever."""
    return FIRST_DRAWS[n] if n < len(FIRST_DRAWS) else n


def left_at(platter: Platter, seed: int, draw: int) -> Left:
    """The state of a draw, of a seed and the platter's index alone."""
    return platter.left(Random(f"{seed}/{platter.index}/{draw}"), draw)


def sweep(recording: Recording, desk: Desk, states: int) -> Report:
    """Cut a recording so many times, everywhere alike."""
    report = _counted(recording)
    judge, platter = Judge(recording, desk), Platter()
    for op, (index, count) in zip(
        recording.ops, draws(len(recording.ops), states), strict=True
    ):
        platter.take(op)
        for n in range(count):
            draw = draw_number(n)
            for violation in judge.judge(left_at(platter, recording.seed, draw), index, draw):
                report.blame(violation)
        report.states += count
    return report


def once(recording: Recording, desk: Desk, index: int, draw: int) -> Report:
    """One state alone, of what a violation said."""
    report = _counted(recording)
    judge, platter = Judge(recording, desk), Platter()
    for op in recording.ops[:index]:
        platter.take(op)
    for violation in judge.judge(left_at(platter, recording.seed, draw), index, draw):
        report.blame(violation)
    report.states = 1
    return report


def _counted(recording: Recording) -> Report:
    kinds = [op.kind for op in recording.ops]
    return Report(
        writes=kinds.count(WRITE), syncs=kinds.count(SYNC),
        acknowledged=sum(map(len, recording.acks.values())),
    )  # fmt: skip


def chunks(seed: int, states: int) -> list[tuple[int, int]]:
    """A sweep as shares of some thousand states, each of a seed of its own: (seed, states). The
    same ones however many processes do them."""
    count = max(1, -(-states // CHUNK_STATES))
    return [(seed + n, (n + 1) * states // count - n * states // count) for n in range(count)]


def share(seed: int, states: int, folder: Path) -> Report:
    """One share of a sweep, in folders of its own that are gone afterwards."""
    home, desk = folder / f"home-{seed}", folder / f"desk-{seed}"
    try:
        return sweep(record(seed, home), Desk(desk), states)
    finally:
        shutil.rmtree(home, ignore_errors=True)
        shutil.rmtree(desk, ignore_errors=True)
