"""No power cut takes back what was acknowledged, and the instrument would see it if one did."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import apsw
import pytest

from penstock.cli.main import run
from penstock.embedded import file as embedded
from penstock.sim.disk.platter import Platter
from penstock.sim.disk.restart import Desk
from penstock.sim.disk.scenario import SERVICE, STEPS, STEPS_OFTEN
from penstock.sim.disk.sweep import (
    HALF,
    Recording,
    chunks,
    draw_number,
    draws,
    left_at,
    once,
    record,
    sweep,
)
from penstock.sim.disk.tape import SYNC, WRITE
from penstock.store import sqlite

SEEDS, STATES = range(1, 7), 900  # 5,400 states, every operation of the six scenarios nearly


def said(violations: list[Any]) -> str:
    return "\n".join(map(str, violations))


@pytest.mark.parametrize("seed", SEEDS)
def test_no_cut_takes_back_what_was_acknowledged(seed: int, desk: Path) -> None:
    report = sweep(record(seed, desk / "home"), Desk(desk / "desk"), STATES)
    assert not report.violations, said(report.violations)
    assert report.states == STATES
    assert report.acknowledged > 30
    assert report.syncs > report.acknowledged, "a commit was acknowledged without a sync"


def test_the_scenario_does_all_that_there_is(desk: Path) -> None:
    recording = record(1, desk)
    seen = {ack.step for acks in recording.acks.values() for ack in acks}
    silent = {"throw_away", "come_late", "read_on", "checkpoint", "checkpoint_and_truncate"}
    assert {step.__name__ for step in (*STEPS, *STEPS_OFTEN)} - seen <= silent
    names = {Path(op.name).name for op in recording.ops}
    assert names == {
        f"{owner}.db{suffix}" for owner in (SERVICE, "journal")
        for suffix in ("", "-wal", "-journal")
    }
    assert {op.kind for op in recording.ops} == {"create", "write", "truncate", "sync", "delete"}
    shrunk = [op for op in recording.ops if op.kind == "truncate" and op.name.endswith(".db")]
    assert shrunk, "retention gave no page back"


# The instrument sees -----------------------------------------------------------------------------


def with_synchronous(value: str) -> tuple[str, ...]:
    return tuple(
        f"synchronous={value}" if p.startswith("synchronous") else p for p in embedded.PRAGMAS
    )


@pytest.mark.parametrize("synchronous", ["NORMAL", "OFF"])
def test_weaker_syncs_are_seen_to_lose_commits(
    synchronous: str, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "PRAGMAS", with_synchronous(synchronous))
    recording = record(1, desk / "home")
    monkeypatch.undo()
    report = sweep(recording, Desk(desk / "desk"), 200)
    assert report.lost > 40
    assert (report.corrupt > 0) == (synchronous == "OFF")


def test_a_disk_that_ignores_syncs_is_seen_to_lose_commits(desk: Path) -> None:
    report = sweep(record(1, desk / "home", ignores_syncs=True), Desk(desk / "desk"), 200)
    assert report.syncs == 0
    assert report.lost > 40
    assert report.corrupt > 20


def test_a_transaction_in_two_halves_is_seen(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sqlite.SqliteTx.mark

    def mark(tx: Any, ids: Any) -> None:
        whole(tx, ids)
        tx._file.run("COMMIT")
        tx._file.run("BEGIN IMMEDIATE")

    monkeypatch.setattr(sqlite.SqliteTx, "mark", mark)
    recording = record(1, desk / "home")
    monkeypatch.undo()
    report = sweep(recording, Desk(desk / "desk"), 400)
    halves = [v for v in report.violations if v.kind == HALF]
    assert halves
    assert "(marks, owners)" in said(halves), "marks without their states and rows were not seen"


def test_what_was_found_is_found_again_by_its_numbers_alone(desk: Path) -> None:
    recording = record(3, desk / "home", ignores_syncs=True)
    found = sweep(recording, Desk(desk / "desk"), 60).violations[0]
    again = once(record(3, desk / "other", ignores_syncs=True), Desk(desk / "desk"), found.index,
                 found.draw)  # fmt: skip
    assert found in again.violations
    assert f"--seed 3 --only {found.index}:{found.draw}" in str(found)


# States ------------------------------------------------------------------------------------------


def state(recording: Recording, index: int, draw: int) -> dict[str, bytes]:
    platter = Platter()
    for op in recording.ops[:index]:
        platter.take(op)
    left = left_at(platter, recording.seed, draw)
    return {Path(name).name: bytes(content) for name, content in left.files.items()}


def test_a_state_is_its_seed_index_and_draw(desk: Path) -> None:
    recording = record(2, desk)
    for index in (40, 300, len(recording.ops) - 30):
        for draw in (0, 1, 2, 7):
            assert state(recording, index, draw) == state(recording, index, draw)
    drawn = [state(recording, 300, draw) for draw in range(9)]
    assert len({json.dumps({k: v.hex() for k, v in s.items()}) for s in drawn}) > 5


def test_all_that_was_synced_is_there_and_the_end_of_the_tape_is_what_lies_there(
    desk: Path,
) -> None:
    recording = record(2, desk)
    there = {p.name: p.read_bytes() for p in desk.iterdir() if ".db" in p.name}
    turnstile = {name for name in there if name.endswith((".gate", ".turn"))}
    assert state(recording, len(recording.ops), 0) == {
        name: content for name, content in there.items() if name not in turnstile
    }
    for ack in recording.acks[SERVICE]:
        nothing_more = state(recording, ack.ended, 1)
        written = [op for op in recording.ops[: ack.ended] if op.kind in (WRITE, SYNC)]
        assert written[-1].kind == SYNC or ack.began == ack.ended, ack.step
        assert f"{SERVICE}.db" in nothing_more


@pytest.mark.parametrize("states", [1, 77, 1000, 2500])
def test_cuts_are_spread_over_all_operations(states: int) -> None:
    spread = dict(draws(1000, states))
    assert list(spread) == list(range(1, 1001))
    assert sum(spread.values()) == states
    assert max(spread.values()) - min(spread.values()) <= 1
    assert len({draw_number(n) for n in range(50)}) == 50


def test_a_sweep_is_cut_into_the_same_shares_everywhere() -> None:
    shares = chunks(7, 100_000)
    assert [seed for seed, _ in shares] == list(range(7, 47))
    assert sum(states for _, states in shares) == 100_000
    assert chunks(7, 0) == [(7, 0)]


# The command -------------------------------------------------------------------------------------


def test_the_command_reports_and_says_how_it_goes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["powercut", "--states", "120", "--seed", "5", "-o", "json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert list(found) == [
        "states", "writes", "syncs", "acknowledged", "lost", "corrupt", "violations"
    ]
    assert (found["states"], found["lost"], found["corrupt"]) == (120, 0, 0)
    assert found["writes"] > 500
    assert "120 states" in err


def test_the_command_fails_by_its_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["powercut", "--states", "0"]) == 7
    assert run(["powercut", "--only", "here"]) == 2
    assert run(["powercut", "--only", "999999:1"]) == 2
    monkeypatch.setattr(embedded, "PRAGMAS", with_synchronous("OFF"))
    capsys.readouterr()
    assert run(["powercut", "--states", "60", "--cores", "1", "-o", "json"]) == 6
    out, err = capsys.readouterr()
    found = json.loads(out)
    first = found["violations"][0]
    assert found["lost"] > 0
    assert set(first) == {
        "seed", "index", "draw", "file", "kind", "said", "kept", "again"
    }
    assert first["again"] in err
    again = first["again"].split()[1:]
    assert run([*again, "-o", "json"]) == 6
    assert json.loads(capsys.readouterr().out)["violations"][0] == first


def test_one_fault_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["powercut", "--faults", "--only", "sync:20", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["states"] == 1
    assert run(["powercut", "--faults", "--only", "nonsense:1"]) == 2


def test_the_dice_of_a_run_leave_no_layer_behind(desk: Path) -> None:
    before = set(apsw.vfs_names())
    record(Random(1).randrange(9), desk)
    with suppress(RuntimeError):
        assert set(apsw.vfs_names()) == before
