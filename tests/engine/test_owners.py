"""Lanes change hands in mid-batch: every record is handled exactly once, in its key's order."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Event as Flag
from typing import Any

import pytest

from penstock.conformance.scenario import together
from penstock.engine.slots import NoSlots
from penstock.engine.worker import Worker
from penstock.errors import StaleOwner
from penstock.ports import Advance
from penstock.store.sqlite import SqliteStore
from tests.engine.tally import Orders, Step, always, steps, tally_rig
from tests.flows.rig import Rig

KEYS = [f"k{n}" for n in range(40)]
STEPS = 12


class Interleaved:
    """A store whose owner is overtaken: ``between`` runs once, after take and before BEGIN."""

    def __init__(self, store: SqliteStore, between: Callable[[], Any]) -> None:
        self._store, self._between = store, [between]

    def begin(self, spans: Any = None) -> AbstractContextManager[Any]:
        """What happens in between, then the transaction."""
        if self._between:
            self._between.pop()()
        return self._store.begin()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def filled(rig: Rig, orders: Orders | None = None) -> Rig:
    """Twelve steps of forty keys."""
    for n in range(STEPS):
        rig.append("steps", *((key, Step(n=n, pots=("all",), tell=True)) for key in KEYS))
    return rig


def exactly_once(rig: Rig, keys: list[str] | None = None) -> None:
    """Every step of every key once, in order, and told once."""
    for key in keys or KEYS:
        assert steps(rig, key) == tuple(range(STEPS)), key
    sums = rig.facts("sums")
    assert all([s.n for s in sums[key]] == list(range(STEPS)) for key in KEYS)
    pot = next(s for ref, s in rig.states("tally").items() if ref.kind == "pot")
    assert pot.steps == STEPS * len(KEYS)


def overtaken(rig: Rig, between: Callable[[], Any]) -> Worker:
    """A worker that owns all lanes, and is overtaken at its first batch."""
    rig.workers.pop("tally").leave()
    unit = rig.unit("tally")
    store: Any = Interleaved(rig.stores["tally"], between)
    worker = Worker(unit, rig.log, store, NoSlots(unit.lanes))
    worker.step(rig.clock.now())
    assert worker.lanes == frozenset(range(unit.lanes))
    return worker


def run_all(rig: Rig, *workers: Worker) -> None:
    """Step them until nothing moves, and carry their rows."""
    idle = 0
    while idle < 3:
        moved = sum(worker.step(rig.clock.now()).records for worker in workers)
        idle = 0 if moved + rig.turn() else idle + 1


@pytest.mark.parametrize("steps_between", [1, 2, 3])
def test_another_joins_between_take_and_commit(steps_between: int) -> None:
    rig = filled(tally_rig(batch=50))
    joined: list[Worker] = []

    def join() -> None:
        joined.append(rig.new_worker("tally"))
        for _ in range(steps_between):
            joined[0].step(rig.clock.now())

    first = overtaken(rig, join)
    first.step(rig.clock.now())
    run_all(rig, first, *joined)
    assert first.lanes | joined[0].lanes == frozenset(range(4))
    assert not first.lanes & joined[0].lanes
    exactly_once(rig)


def test_another_comes_and_goes_between_take_and_commit() -> None:
    """The lanes look the same to the first, but their epoch is another's: its batch fails whole,
    and it claims again."""
    rig = filled(tally_rig(batch=2000))

    def visit() -> None:
        visitor = rig.new_worker("tally")
        for _ in range(3):
            visitor.step(rig.clock.now())
        visitor.leave()

    first = overtaken(rig, visit)
    before = first.counts.handled
    assert first.step(rig.clock.now()).wrote == frozenset()
    assert first.counts.handled == before
    run_all(rig, first)
    exactly_once(rig)


def test_one_that_took_a_batch_and_died_loses_nothing() -> None:
    rig = filled(tally_rig(batch=50))

    def die() -> None:
        raise ConnectionAbortedError("the process is gone")

    doomed = overtaken(rig, die)
    with pytest.raises(ConnectionAbortedError):
        doomed.step(rig.clock.now())
    doomed.leave()
    heir = rig.new_worker("tally")
    run_all(rig, heir)
    exactly_once(rig)


def test_waiting_and_parked_keys_move_with_their_lane() -> None:
    orders = Orders()
    orders.by_key["k3"] = always(None)
    rig = filled(tally_rig(orders=orders, batch=50, attempts=99))
    orders.by_key["k3"] = lambda event: (_ for _ in ()).throw(ValueError("wait"))
    first = overtaken(rig, lambda: None)
    run_all(rig, first)
    second = rig.new_worker("tally")
    run_all(rig, first, second)
    del orders.by_key["k3"]
    rig.clock.pass_(60_000)
    first.leave()
    run_all(rig, second)
    exactly_once(rig)


def test_a_stale_epoch_is_refused_whatever_the_position(tmp_path: Path) -> None:
    rig = tally_rig(tmp_path)
    store, now = rig.stores["tally"], rig.clock.now()
    (old,) = store.claim([2], now)
    (new,) = store.claim([2], now)
    assert new.epoch > old.epoch
    with pytest.raises(StaleOwner), store.begin() as tx:
        tx.advance([Advance(2, old.epoch, {"steps": 5})], now)
    with store.begin() as tx:
        tx.advance([Advance(2, new.epoch, {"steps": 5})], now)


def test_workers_on_one_file_while_others_join_leave_and_crash(tmp_path: Path) -> None:
    """Threads with logs, files and locks of their own, as processes have them."""
    rig = tally_rig(tmp_path, batch=40, shared=("tally",))
    rig.workers.pop("tally").leave()
    filled(rig)
    done, now = Flag(), rig.clock.now()
    total = STEPS * len(KEYS)

    def work(turns: int, end: Callable[[Worker], None]) -> Callable[[], None]:
        worker = rig.new_worker("tally")

        def run() -> None:
            for turn in range(100_000):
                worker.step(now)
                if turn >= turns or done.wait(0.001):
                    break
            end(worker)

        return run

    def crash(worker: Worker) -> None:
        worker._lane.members.crash()  # type: ignore[attr-defined]

    def watch() -> None:
        store = rig.new_store("tally")
        while store.file.run("SELECT count(*) FROM marks")[0][0] < total:
            done.wait(0.005)
        done.set()

    together(
        work(3, crash), work(5, Worker.leave), work(100_000, Worker.leave),
        work(100_000, Worker.leave), watch,
    )
    exactly_once(rig)
    handled = rig.stores["tally"].file.run("SELECT count(*), count(DISTINCT id) FROM marks")
    assert handled == [(total, total)]


def test_processes_on_one_file_while_one_is_killed_at_work(tmp_path: Path, python: str) -> None:
    rig = tally_rig(tmp_path, shared=("tally",))
    rig.workers.pop("tally").leave()
    filled(rig)
    argv = [python, "-m", "tests.engine.member", str(tmp_path), str(STEPS * len(KEYS))]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    members = [start(), start()]
    assert members[0].stdout is not None
    members[0].stdout.readline()
    members[0].kill()
    members.append(start())
    ends = [member.communicate(timeout=60)[1] for member in members]
    assert [member.returncode for member in members[1:]] == [0, 0], ends
    exactly_once(rig)
    assert rig.waiting("tally") == []
