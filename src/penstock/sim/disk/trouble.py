"""Failing disks: the scenario with one fault at one operation, and what must follow from it.

No room, or a device that does not write: the step is refused as ``StorageFull``, leaves nothing,
and the same objects go on. A read that fails: the step fails and leaves nothing. A sync that
fails: the process ends at once, and whoever starts again over what is there relies on nothing
that the sync was for, so that a power cut afterwards takes no promise back.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random

import apsw
from msgspec import Struct

from penstock.embedded.file import is_full
from penstock.errors import StorageFull
from penstock.sim.disk.platter import Platter
from penstock.sim.disk.restart import Desk
from penstock.sim.disk.scenario import (
    FILES,
    NEVER,
    Ack,
    Scenario,
    Step,
    append,
    checkpoint,
    handle,
    let_go,
    note,
    retain,
    settle,
)
from penstock.sim.disk.sweep import FAULT, Judge, Report, Violation, left_at, recording_of
from penstock.sim.disk.tape import Fault, Recorder, Tape

AFTERWARDS: tuple[Step, ...] = (
    handle, append, note, settle, append, let_go, retain, handle, checkpoint, note, append,
)  # fmt: skip
TRIES_MAX = 3  # a step is done again so often; a fault is shorter
CUTS = 12  # power cuts after a process that ended
SHARE_FAULTS = 150
NO_ROOM = ("full", "short", "write")
ENDS = ("sync", "kill")
# Steps that close files or ask SQLite for a checkpoint themselves: errors come as they are.
OUTSIDE = ("create", "close", "restart", "checkpoint", "checkpoint_and_truncate")


class Twin(Struct, frozen=True):
    """The same scenario on a sound disk: its commits, and its operations by sort."""

    acks: tuple[Ack, ...]
    met: dict[str, int]


class Outcome(Struct, frozen=True):
    """How a run with a fault went: did it strike, who saw it, what was wrong."""

    struck: bool
    seen: str
    wrong: tuple[str, ...]


class Ordeal:
    """Runs a seed's scenario again and again, with another fault each time."""

    def __init__(self, seed: int, folder: Path, often: int = 1) -> None:
        self.seed, self._often = seed, often
        self._home, self._desk = folder / f"home-{seed}", Desk(folder / f"desk-{seed}")
        scenario, recorder, steps = self._begin(None)
        scenario.run(steps)
        self.twin = Twin(tuple(scenario.acks), dict(recorder.met))

    def _begin(self, fault: Fault | None) -> tuple[Scenario, Recorder, list[Step]]:
        shutil.rmtree(self._home, ignore_errors=True)
        self._home.mkdir(parents=True)
        tape = Tape()
        recorder = Recorder(tape, fault)
        scenario = Scenario(self._home, tape, recorder.name, Random(self.seed))
        return scenario, recorder, scenario.steps(self._often)

    def suffer(self, fault: Fault) -> Outcome:
        """One run with a fault."""
        scenario, recorder, steps = self._begin(fault)
        if fault.what in ENDS:
            return self._die(scenario, recorder, steps)
        return self._endure(scenario, recorder, steps)

    # Faults that pass ----------------------------------------------------------------------------

    def _endure(self, scenario: Scenario, recorder: Recorder, steps: list[Step]) -> Outcome:
        seen: list[str] = []
        wrong: list[str] = []
        assert recorder.fault is not None
        for step in steps:
            for _ in range(TRIES_MAX):
                before = recorder.struck
                error = _does(scenario, step)
                if recorder.struck > before:
                    seen.append(type(error).__name__ if error else "")
                    wrong += _wrong(recorder.fault, step, error)
                    wrong += self._changed(scenario, step)
                if error is None:
                    break
                if recorder.struck == before:
                    wrong.append(f"{step.__name__}: {type(error).__name__}: {error}")
                _start_again(scenario, step)
            else:
                return Outcome(recorder.struck > 0, "; ".join(seen), (*wrong, "it goes on failing"))
        wrong += self._as_the_twin(scenario)
        return Outcome(recorder.struck > 0, "; ".join(filter(None, seen)), tuple(wrong))

    def _changed(self, scenario: Scenario, step: Step) -> Iterator[str]:
        """What a step that failed left behind."""
        for owner, ack in _latest(scenario).items():
            if scenario.held(owner) != ack.content:
                yield f"{step.__name__} failed and changed {owner}.db"

    def _as_the_twin(self, scenario: Scenario) -> Iterator[str]:
        """After the last step the files are started over once more."""
        judge = Judge(recording_of(self.seed, scenario), self._desk)
        platter = Platter()
        for op in scenario.tape.ops:
            platter.take(op)
        for draw in (0, 1):
            left = left_at(platter, self.seed, draw)
            yield from (v.said for v in judge.judge(left, platter.index, draw))

    # A sync that fails ---------------------------------------------------------------------------

    def _die(self, scenario: Scenario, recorder: Recorder, steps: list[Step]) -> Outcome:
        for step in steps:
            error = _does(scenario, step)
            if recorder.struck:
                break
        else:
            return Outcome(False, "", ())
        recorder.die()
        wrong = _wrong(recorder.fault, step, error) if recorder.fault else []
        self._left_open(scenario)
        _give_up(scenario)
        wrong += self._again(scenario)
        return Outcome(True, type(error).__name__ if error else "", tuple(wrong))

    def _left_open(self, scenario: Scenario) -> None:
        """The commit that the process died in: whole or not at all, nobody was promised it."""
        if scenario.under_way is not None:
            owner, began = scenario.under_way
            content = self.twin.acks[len(scenario.acks)].content
            scenario.acks.append(Ack("under way", owner, began, NEVER, content))

    def _again(self, scenario: Scenario) -> list[str]:
        """Another process starts over what the page cache holds, works, and the power goes."""
        second = Recorder(scenario.tape)
        died = len(scenario.tape)
        scenario.reborn(second.name)
        for step in (Scenario.create, Scenario.open, *AFTERWARDS):
            error = _does(scenario, step)
            if error is not None:
                return [f"after the restart {step.__name__}: {type(error).__name__}: {error}"]
        second.die()
        _give_up(scenario)
        return list(self._cut(scenario, died))

    def _cut(self, scenario: Scenario, died: int) -> Iterator[str]:
        recording = recording_of(self.seed, scenario)
        judge, platter = Judge(recording, self._desk), Platter()
        ops = scenario.tape.ops
        cuts = {died, *range(len(ops), died, -max(1, (len(ops) - died) // CUTS))}
        for op in ops:
            platter.take(op)
            if platter.index in cuts:
                for draw in (2, 1):
                    left = left_at(platter, self.seed, draw)
                    yield from map(str, judge.judge(left, platter.index, draw))


SORTS = {
    "sync": "sync", "full": "write", "short": "write", "write": "write", "read": "read",
    "open": "open", "kill": "write",
}  # fmt: skip


def faults(ordeal: Ordeal, kinds: Iterable[str] = tuple(SORTS), every: int = 1) -> list[Fault]:
    """Every fault at every ``every``-th operation of its sort, each kind beginning elsewhere, so
    that together they meet more operations."""
    return [
        Fault(what=what, at=at)
        for n, what in enumerate(kinds)
        for at in range(n % every, ordeal.twin.met[SORTS[what]], every)
    ]


def endured(ordeal: Ordeal, chosen: Iterable[Fault]) -> Report:
    """Suffer faults, one run each. A fault that strikes nothing was chosen for another run."""
    report = Report(acknowledged=len(ordeal.twin.acks))
    for fault in chosen:
        outcome = ordeal.suffer(fault)
        report.states += outcome.struck
        for said in outcome.wrong:
            report.blame(
                Violation(
                    seed=ordeal.seed, index=fault.at, draw=0, file=fault.what, kind=FAULT,
                    said=said, kept=(),
                )
            )  # fmt: skip
    return report


def fault_shares(seed: int, folder: Path) -> list[tuple[int, tuple[Fault, ...]]]:
    """Every fault of a seed, in shares."""
    found = faults(Ordeal(seed, folder))
    starts = range(0, len(found), SHARE_FAULTS)
    return [(seed, tuple(found[n : n + SHARE_FAULTS])) for n in starts]


def fault_share(seed: int, chosen: Sequence[Fault], folder: Path) -> Report:
    """One share, in a folder of its own that is gone afterwards."""
    own = folder / f"faults-{os.getpid()}"
    try:
        return endured(Ordeal(seed, own), chosen)
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _does(scenario: Scenario, step: Step) -> Exception | None:
    try:
        scenario.do(step)
    except (StorageFull, apsw.Error) as error:
        return _bare(error)
    return None


def _bare(error: Exception) -> Exception:
    """Without the frames it came through: they would keep open what their process had open."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__, link = None, link.__cause__ or link.__context__
    return error


def _wrong(fault: Fault, step: Step, error: Exception | None) -> list[str]:
    """Is this what the fault must lead to?"""
    said = f"{step.__name__} met {fault} and "
    if error is None:
        # Closing, and checkpoints that are only due: what is not done now is done later.
        return [f"{said}went on as if nothing were"] if fault.what == "sync" else []
    if fault.what == "kill":
        return []
    full = isinstance(error, StorageFull)
    if step.__name__ in OUTSIDE:
        full |= isinstance(error, apsw.Error) and is_full(error)
    if full != (fault.what in NO_ROOM):
        return [f"{said}ended with {type(error).__name__}: {error}"]
    return []


def _start_again(scenario: Scenario, step: Step) -> None:
    """A start that failed is made again from its beginning; everything else goes on."""
    if step.__name__ in ("create", "open", "restart", "close"):
        _give_up(scenario)


def _give_up(scenario: Scenario) -> None:
    with suppress(apsw.Error, StorageFull, AttributeError):
        scenario.close()


def _latest(scenario: Scenario) -> dict[str, Ack]:
    found = {a.file: a for a in scenario.acks}
    return {owner: found[owner] for owner in FILES if owner in found}
