"""A service's process: worker, courier and keeper take turns; it sleeps only when all rest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

import pytest

from penstock.engine.runner import Runner, Threads, write_whole
from penstock.engine.wakes import Wakes
from tests.engine.tally import Step, steps, tally, tally_rig
from tests.flows.rig import HandPool, Rig, Scripted
from tests.support import eventually

READERS = {"steps": ("tally",), "sums": ("audit",), "tally.answers": ("tally",)}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short folder for sockets."""
    with TemporaryDirectory(prefix="pr") as name:
        yield Path(name)


def asking(home: Path, gateway: Scripted) -> Rig:
    """A service on one shared file whose steps ask."""
    rig = tally_rig(home, gateways={"bank": ({}, gateway)}, shared=("tally",))
    rig.append("steps", *((f"k{n}", Step(n=n, ask=("bank",), tell=True)) for n in range(24)))
    return rig


def test_turns_carry_a_record_to_its_answer_and_tell_the_readers(
    tmp_path: Path, folder: Path
) -> None:
    gateway = Scripted()
    rig = asking(tmp_path, gateway)
    ear, status = Wakes(folder, "audit", READERS), tmp_path / "status.json"
    pool = Threads({"bank": 4})
    wakes = Wakes(folder, "tally", READERS)
    courier = rig.new_courier("tally", pool)  # type: ignore[arg-type]
    report = partial(write_whole, status)
    runner = Runner(rig.workers["tally"], courier, wakes, rig.clock, report=report)
    thread = Thread(target=runner.run)
    thread.start()
    eventually(lambda: runner.worker.counts.handled == 48, what="24 steps and 24 answers")
    runner.stop()
    thread.join(10)
    assert not thread.is_alive()
    pool.close()
    assert ear.wait(5) == {"sums"}
    said = json.loads(status.read_text())
    assert (said["service"], said["lanes"], said["handled"]) == ("tally", [0, 1, 2, 3], 48)
    assert said["gateways"]["bank"]["state"] == "closed"
    rig.workers.clear()
    assert tally(rig, "k3").answers == ("bank-3:ok",)
    assert set(gateway.deeds.values()) == {1}
    for one in (ear, wakes):
        one.close()


def test_of_two_processes_the_one_with_the_first_lane_is_the_courier(
    tmp_path: Path, folder: Path
) -> None:
    gateway = Scripted()
    rig = asking(tmp_path, gateway)
    rig.workers.pop("tally").leave()
    workers = [rig.new_worker("tally"), rig.new_worker("tally")]
    eventually(
        lambda: [w.step(rig.clock.now()).records for w in workers]
        and sorted(len(w.lanes) for w in workers) == [2, 2],
        what="two lanes each",
    )
    pools = [HandPool(), HandPool()]
    couriers = [rig.new_courier("tally", pool) for pool in pools]
    wakes = [Wakes(folder, f"tally{n}", {}) for n in (0, 1)]
    runners = [
        Runner(w, c, k, rig.clock) for w, c, k in zip(workers, couriers, wakes, strict=True)
    ]
    first = next(n for n, worker in enumerate(workers) if 0 in worker.lanes)

    def turned() -> bool:
        for runner, pool in zip(runners, pools, strict=True):
            runner.turn()
            pool.work()
        return sum(w.counts.handled for w in workers) == 48

    eventually(turned, what="24 steps and 24 answers")
    assert pools[1 - first].most == 0
    assert pools[first].most > 0
    assert all(steps(rig, f"k{n}") == (n,) for n in range(24))
    assert len(gateway.calls) == 24
    for one in wakes:
        one.close()
