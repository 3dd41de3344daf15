"""`penstock crash`: many cycles are clean, crimes are seen, nothing is left behind."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from penstock.catalog.load import load_catalog
from penstock.engine.cuts import IN_TRANSACTION, POINTS
from penstock.sim.crash.plan import cast_of, plan
from penstock.sim.crash.subject import command_line
from tests.crash import library
from tests.crash.crimes import MEMORY
from tests.crash.test_kill import SHIPPED
from tests.flows.library import CATALOG
from tests.support import eventually

CYCLES = 52  # in each of two tests, which two processes share


def crash(
    *words: str, catalog: Path | None = None, env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """The command, to its end."""
    return subprocess.run(
        command(*words, catalog=catalog), capture_output=True, text=True, check=False,
        env={**os.environ, **(env or {})}, timeout=900,
    )  # fmt: skip


def command(*words: str, catalog: Path | None = None) -> list[str]:
    """The command's words."""
    named = ["--catalog", str(catalog)] if catalog else []
    return [sys.executable, "-m", "penstock", *named, "crash", *words]


def folder_of(said: str) -> Path:
    """Where it worked, by its first line."""
    return Path(said.partition(" in ")[2].splitlines()[0])


def alive_in(folder: Path) -> list[int]:
    """Processes that speak of a folder."""
    pids = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()]
    return [pid for pid in pids if str(folder) in command_line(pid)]


@pytest.mark.parametrize("seed", [1, 2])
def test_cycle_after_cycle_no_promise_is_broken(seed: int) -> None:
    words = ("--cycles", str(CYCLES), "--seed", str(seed), "-o", "json")
    ended = crash(*words)
    assert ended.returncode == 0, ended.stderr[-4000:]
    said: dict[str, Any] = json.loads(ended.stdout)
    assert (said["seed"], said["cycles"], said["violations"]) == (seed, CYCLES, [])
    assert said["kills"].keys() == POINTS.keys()
    assert all(said["kills"].values()), said["kills"]
    for fault in ("random_kills", "stops", "stuck", "drains", "parents", "full_disks"):
        assert said[fault], fault
    assert said["orders"] >= 4 * CYCLES
    assert all(rule["examined"] for rule in said["rules"])
    assert {"I1", "I6", "I10", "I22", "I28", "I45"} <= {rule["id"] for rule in said["rules"]}
    folder = folder_of(ended.stderr)
    assert not folder.exists(), "a clean run leaves nothing"
    assert not alive_in(folder)


def test_a_gateway_that_asks_again_under_another_key_is_seen(tmp_path: Path) -> None:
    catalog, memory = tmp_path / "catalog.toml", tmp_path / "memory"
    memory.mkdir()
    honest = "penstock.flows.orders.gateways.payments:gateway"
    catalog.write_text(SHIPPED.read_text().replace(honest, "tests.crash.crimes:new_keys"))
    words = ("--cycles", "20", "--seed", "5", "--faults", "kill", "-o", "json")
    ended = crash(*words, catalog=catalog, env={MEMORY: str(memory)})
    assert ended.returncode == 6, ended.stderr
    said = json.loads(ended.stdout)
    kept = Path(said["kept"])
    try:
        assert {v["rule"] for v in said["violations"]} & {"I6", "I26", "I37"}
        assert all(v["cycle"] == said["violations"][0]["cycle"] for v in said["violations"])
        told = ended.stderr.strip().splitlines()[-1]
        assert f"seed 5; the home is kept in {kept}" in told
        assert not alive_in(kept)
        again = shlex.split(told.partition("Audit it again: ")[2])
        assert again[:2] == ["penstock", "--home"]
        audit = [sys.executable, "-m", *again]
        assert subprocess.run(audit, capture_output=True, check=False).returncode == 6
    finally:
        shutil.rmtree(kept.parent)


def test_a_cut_point_that_is_never_passed_is_no_success(tmp_path: Path) -> None:
    catalog, kept = tmp_path / "catalog.toml", tmp_path / "kept"
    quiet = SHIPPED.read_text().replace("penstock.flows.orders:FLOW", "tests.crash.quiet:FLOW")
    catalog.write_text(quiet)
    (tmp_path / "contracts").symlink_to(Path(__file__).parents[2] / "contracts")
    cast = cast_of(load_catalog(), "door")
    seed, point = next(
        (seed, cycle.point) for seed in range(1000)
        for cycle in next(plan(seed, 1, cast, ("kill",))).cycles
        if cycle.member == "shipping" and cycle.point in IN_TRANSACTION
    )  # fmt: skip
    words = ("--cycles", "1", "--seed", str(seed), "--faults", "kill", "--keep", str(kept))
    ended = crash(*words, catalog=catalog)
    assert ended.returncode == 7, ended.stderr
    assert f"the cut point {point} was armed and never passed" in ended.stderr
    assert "the rule I13 examined nothing" in ended.stderr
    assert f"killed at {point}" in ended.stdout
    assert (kept / "home-0000" / "journal.jsonl").read_text().count('"sent"') >= 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_no_process_and_no_folder(number: signal.Signals) -> None:
    with subprocess.Popen(
        command("--cycles", "500"), stderr=subprocess.PIPE, text=True
    ) as process:
        said = process.stderr
        assert said is not None
        folder = folder_of(said.readline())
        eventually(lambda: "cycle 0" in said.readline(), 60, what="a cycle is done")
        assert alive_in(folder)
        process.send_signal(number)
        said.read()
        assert process.wait(60) == 130
    assert not alive_in(folder)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--faults", "kill,flood"), 2, "no fault flood. Faults: kill, stop"),
        (("--faults", ""), 2, "Faults: kill"),
        (("--cycles", "0"), 2, "0"),
        (("--keep", "FULL"), 5, "is not empty"),
    ],
)
def test_wrong_words_are_refused(
    tmp_path: Path, words: tuple[str, ...], code: int, says: str
) -> None:
    (tmp_path / "there").touch()
    ended = crash(*[str(tmp_path) if word == "FULL" else word for word in words])
    assert ended.returncode == code
    assert says in ended.stderr


def test_a_flow_without_a_crash_workload_is_told_what_to_bring() -> None:
    ended = crash(catalog=CATALOG)
    assert ended.returncode == 2
    assert "The flow library does not say what to send." in ended.stderr


def test_a_flow_about_something_else_is_harmed_and_audited_alike(tmp_path: Path) -> None:
    words = ("--cycles", "12", "--seed", "1", "-o", "json")
    ended = crash(*words, catalog=library.catalog(tmp_path))
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout)
    assert said["loans"] >= 48
    assert sum(said["kills"].values()) > 5
    assert {"I22", "I28", "I45"} <= {rule["id"] for rule in said["rules"]}
