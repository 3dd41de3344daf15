"""What a turn may cost, counted: commits and SQL executions, never by the record."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.catalog.model import RetryPolicy
from penstock.decision import Park, Retry
from penstock.entry import RETRY_REQUESTED
from penstock.ports import Gateway
from tests.engine.tally import Orders, Step, always, tally_rig
from tests.flows.rig import HandClock, Rig, Scripted

MANY = 400
Gateways = dict[str, tuple[dict[str, Any], Gateway]]


def cost(rig: Rig, step: Callable[[int], Any]) -> tuple[int, int, Any]:
    """Commits and executions of one turn, and what it said."""
    file = rig.stores["tally"].file
    commits, executions = file.commits, file.executions
    said = step(rig.clock.now())
    return file.commits - commits, file.executions - executions, said


def ready(rig: Rig) -> Rig:
    """Lanes claimed, a first batch through, so that nothing is done for the first time."""
    rig.append("steps", *((f"k{n}", Step(n=0, tell=True)) for n in range(16)))
    rig.run()
    return rig


def many(*, pots: bool = True) -> list[tuple[str, Step]]:
    """Steps of forty keys, with shared pots and a word for each."""
    shared = ("p", "q") if pots else ()
    return [(f"k{n % 40}", Step(n=1 + n, pots=shared, tell=True)) for n in range(MANY)]


@pytest.mark.parametrize("records", [1, 20, MANY])
def test_a_batch_without_a_failure(records: int, tmp_path: Path) -> None:
    rig = ready(tally_rig(tmp_path, batch=2000))
    rig.append("steps", *many()[:records])
    commits, executions, said = cost(rig, rig.workers["tally"].step)
    assert said.records == records
    assert commits == 1
    assert executions <= 8 + 2 * len(said.wrote)


def test_a_batch_with_asks_and_timers(tmp_path: Path) -> None:
    gateways: Gateways = {"bank": ({}, Scripted()), "post": ({}, Scripted())}
    rig = ready(tally_rig(tmp_path, gateways=gateways, batch=2000))
    rig.append(
        "steps", *((f"k{n}", Step(n=n, ask=("bank", "post"), wake_ms=5)) for n in range(MANY))
    )
    commits, executions, said = cost(rig, rig.workers["tally"].step)
    assert said.wrote == {"bank", "post", "clock"}
    assert commits == 1
    assert executions <= 8


def test_a_batch_with_everything_that_can_go_wrong(tmp_path: Path) -> None:
    """Waiting, parked, behind, a second pass, a duplicate, a request, a due queue: at once."""
    orders = Orders()
    orders.by_number[77] = always(Park("bad", "bad"))
    orders.by_number[78] = always(Retry("later"))
    rig = ready(tally_rig(tmp_path, orders, batch=2000, partitions=1))
    rig.append("steps", ("a", Step(n=77)), ("b", Step(n=78)), ("b", Step(n=2)))
    rig.run()
    rig.clock.pass_(1000)
    rows = [row.body.record for row in rig.rows("tally", "waiting")]
    rig.operate(RETRY_REQUESTED, next(r for r in rows if r.message.key == "a"), "tally")
    rig.append("steps", *many())
    again = rig.append("steps", ("c", Step(n=1, pots=("new",))), ("c", Step(n=2, follow=True)))
    rig.append("steps", ("d", Step(n=77)), ("e", Step(n=78)), ("e", Step(n=3)), ("a", Step(n=4)))
    rig.log.append("steps", again, rig.clock.now())
    commits, executions, said = cost(rig, rig.workers["tally"].step)
    counts = rig.workers["tally"].counts
    assert said.records > MANY
    assert min(counts.duplicates, counts.behind, counts.retried, counts.parked) >= 1
    assert counts.passes >= 3
    assert commits == 1
    assert executions <= 8 + 2 * len(said.wrote) + 8


def test_an_idle_turn_commits_nothing(tmp_path: Path) -> None:
    rig = ready(tally_rig(tmp_path))
    assert cost(rig, rig.workers["tally"].step)[:2] == (0, 0)


def courier_rig(home: Path, clock: HandClock, scripts: dict[str, list[str]]) -> Rig:
    """Two gateways, one of them inline, and the clock."""
    steady = RetryPolicy(attempts=99, first_delay_seconds=1.0)
    gateways: Gateways = {
        "bank": ({"max_in_flight": 1000, "retry": steady}, Scripted(scripts, clock)),
        "post": ({"inline": True}, Scripted(clock=clock)),
    }
    rig = tally_rig(home, gateways=gateways, clock=clock, batch=2000)
    rig.append("steps", ("warm", Step(n=0, ask=("bank", "post"), wake_ms=1)))
    rig.run().wait(1)
    return ready(rig)


@pytest.mark.parametrize("failing", [False, True])
def test_a_courier_s_batch(failing: bool, tmp_path: Path) -> None:
    clock = HandClock()
    scripts = {f"k{n}": ["lost"] for n in range(1, MANY, 100)} if failing else {}
    rig = courier_rig(tmp_path, clock, scripts)
    rig.append(
        "steps", *((f"k{n}", Step(n=n, ask=("bank", "post"), wake_ms=5)) for n in range(MANY))
    )
    rig.workers["tally"].step(clock.now())
    clock.pass_(10)
    courier, pool = rig.couriers["tally"], rig.pools["tally"]
    commits, executions, said = cost(rig, courier.step)
    assert (commits, said.called, said.settled) == (1, 2 * MANY, 2 * MANY)
    assert executions <= 4 + 4
    pool.work()
    commits, executions, said = cost(rig, courier.step)
    assert (commits, said.settled) == (1, MANY)
    assert executions <= 4 + 4


def test_no_thread_is_made_for_a_message(tmp_path: Path) -> None:
    rig = ready(tally_rig(tmp_path, batch=2000))
    threads = threading.active_count()
    rig.append("steps", *many())
    rig.run()
    assert threading.active_count() == threads
