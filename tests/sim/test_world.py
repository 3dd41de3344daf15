"""A case is a run, the same every time; the baseline is clean; every class of faults strikes."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from penstock.sim.case import Case
from penstock.sim.faults import CLASSES, SITES
from penstock.sim.run import Outcome, house_of, simulate
from tests.flows.library import CATALOG

CHUNK = 30
FAST, SLOW = 10, 3  # chunks: 300 seeds in memory, 90 on the embedded files


def runs(start: int, orders: int, *, slow: bool = False) -> list[Outcome]:
    """The outcomes of a chunk of seeds."""
    house = house_of()
    return [
        simulate(Case(seed=seed, orders=orders, slow=slow), house)
        for seed in range(start, start + CHUNK)
    ]


@pytest.mark.parametrize("chunk", range(FAST))
def test_the_baseline_is_clean(chunk: int) -> None:
    found = runs(chunk * CHUNK, 50)
    assert not [v for outcome in found for v in outcome.violations]
    seen = sum((Counter(outcome.examined) for outcome in found), Counter[str]())
    assert not [rule for outcome in found for rule in outcome.examined if not seen[rule]]
    assert sum(outcome.handled for outcome in found) > CHUNK * 300


@pytest.mark.parametrize("chunk", range(SLOW))
def test_the_baseline_on_the_embedded_files_is_clean(chunk: int) -> None:
    found = runs(chunk * CHUNK, 15, slow=True)
    assert not [v for outcome in found for v in outcome.violations]


def test_every_class_of_faults_strikes() -> None:
    found = runs(5000, 30)
    struck = Counter(SITES.get(site, "outside") for o in found for site, _ in o.firings)
    assert not [name for name in CLASSES if not struck[name]]


def sim(python: str, home: Path, hash_seed: str, *words: str) -> subprocess.CompletedProcess[str]:
    """The command, under a hash seed of its own."""
    return subprocess.run(
        [python, "-m", "penstock", "--home", str(home), "sim", *words, "-o", "json"],
        env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize("words", [("--orders", "30"), ("--orders", "12", "--slow")])
def test_the_same_seed_is_the_same_run_whatever_the_hash_seed(
    python: str, home: Path, words: tuple[str, ...]
) -> None:
    traces, four = [], ("--seed", "40", "--seeds", "4")
    for hash_seed, cores in (("1", "1"), ("2", "2"), ("random", "1")):
        done = sim(python, home, hash_seed, *four, "--cores", cores, *words)
        assert done.stdout, done.stderr
        traces.append(json.loads(done.stdout)["trace"])
    assert len(set(traces)) == 1
    other = sim(python, home, "1", "--seed", "41", "--seeds", "4", *words)
    assert json.loads(other.stdout)["trace"] != traces[0]


@pytest.mark.parametrize("slow", [False, True])
def test_another_flow_is_simulated_without_a_line_of_the_core(slow: bool) -> None:
    house = house_of(CATALOG)
    found = [simulate(Case(seed=seed, orders=12, slow=slow), house) for seed in range(15)]
    assert not [v for outcome in found for v in outcome.violations]
    assert sum(outcome.handled for outcome in found) > 500
    assert sum(len(outcome.firings) for outcome in found) > 100


def test_orders_left_out_and_firings_named_make_another_run() -> None:
    house = house_of()
    whole = simulate(Case(seed=7, orders=10), house)
    calm = simulate(Case(seed=7, orders=10, fires=()), house)
    assert whole.firings
    assert not calm.firings
    assert not calm.violations
    fewer = simulate(Case(seed=7, orders=10, keep=(0, 1, 2, 3)), house)
    assert fewer.visits == 4
    assert fewer.handled < whole.handled
