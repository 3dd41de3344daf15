"""The power goes, and goes again while a restart is at work on what the first cut left."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from penstock.sim.disk.platter import Left, Platter
from penstock.sim.disk.restart import Desk, parts
from penstock.sim.disk.scenario import FILES, Ack, Scenario, append, checkpoint, handle, note
from penstock.sim.disk.sweep import Judge, Recording, left_at, record, recording_of
from penstock.sim.disk.tape import Recorder, Tape

CUTS = 5
WORK = (handle, append, note, checkpoint, append, handle)


def left_after(recording: Recording, index: int, draw: int) -> Left:
    platter = Platter()
    for op in recording.ops[:index]:
        platter.take(op)
    return left_at(platter, recording.seed, draw)


def laid_out(left: Left, home: Path, tape: Tape) -> None:
    """What a cut left lies in another folder, and on its tape, all of it synced."""
    home.mkdir()
    for name, content in left.files.items():
        path = home / Path(name).name
        path.write_bytes(content)
        tape.opened(str(path), create=True)
        tape.wrote(str(path), 0, bytes(content))
        tape.synced(str(path), folder=True)


def held_by(left: Left, recording: Recording, desk: Desk) -> list[Ack]:
    """What the first cut left is what nobody may take any more, were it only looked at."""
    found = []
    for owner in FILES:
        names = parts(left.files, recording.home, owner)
        content = desk.restart(owner, {s: left.files[n] for s, n in names.items()}).content
        assert content is not None
        found.append(Ack("left", owner, 0, 0, content))
    return found


@pytest.mark.parametrize("seed", [1, 2])
def test_a_cut_during_the_restart_takes_nothing_either(seed: int, desk: Path) -> None:
    first, restarts = record(seed, desk / "home"), Desk(desk / "desk")
    dice = Random(seed)
    for n in range(CUTS):
        left = left_after(first, dice.randrange(1, len(first.ops)), dice.choice((0, 2, 4, 5)))
        tape = Tape()
        home = desk / f"second{n}"
        acks = held_by(left, first, restarts)
        laid_out(left, home, tape)
        began = len(tape)
        recorder = Recorder(tape)
        scenario = Scenario(home, tape, recorder.name, Random(n))
        scenario.acks += acks
        scenario.run([Scenario.create, Scenario.open, *WORK])
        recorder.die()
        scenario.close()
        judge, platter = Judge(recording_of(seed, scenario), restarts), Platter()
        for op in tape.ops:
            platter.take(op)
            if platter.index >= began:
                second = left_at(platter, n, dice.choice((1, 2, 3)))
                wrong = list(judge.judge(second, platter.index, 0))
                assert not wrong, "\n".join(map(str, wrong))
