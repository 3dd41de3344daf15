"""What a seed draws: the same plan again, every member and point in a few dozen cycles."""

from __future__ import annotations

from collections import Counter

import pytest

from penstock.catalog.load import load_catalog
from penstock.engine.cuts import IN_TRANSACTION, POINTS
from penstock.sim.crash.plan import (
    CARRYING,
    DRAIN,
    HOME_CYCLES,
    RANDOM,
    SHARES,
    Cast,
    Cycle,
    HomePlan,
    cast_of,
    plan,
)
from tests.flows.library import CATALOG

CAST = cast_of(load_catalog(), "door")


def drawn(seed: int, cycles: int, cast: Cast = CAST) -> tuple[list[HomePlan], list[Cycle]]:
    """The homes of a plan, and all their cycles."""
    homes = list(plan(seed, cycles, cast, tuple(SHARES)))
    return homes, [cycle for home in homes for cycle in home.cycles]


def test_a_seed_is_a_plan_and_another_seed_another_one() -> None:
    assert drawn(1, 200) == drawn(1, 200)
    assert drawn(1, 200) != drawn(2, 200)


def test_a_longer_run_begins_like_a_shorter_one() -> None:
    assert drawn(3, 500)[1][:100] == drawn(3, 100)[1]


@pytest.mark.parametrize("seed", range(5))
def test_fifty_cycles_meet_every_fault_and_every_point(seed: int) -> None:
    homes, cycles = drawn(seed, 50)
    assert {cycle.fault for cycle in cycles} == SHARES.keys()
    killed = Counter(c.point for c in cycles if c.fault in ("kill", "term"))
    assert killed.keys() == POINTS.keys() | {RANDOM}
    assert [cycle.number for cycle in cycles] == list(range(50))
    assert [len(home.cycles) for home in homes] == [HOME_CYCLES] * 2


def test_a_long_run_kills_everybody_everywhere() -> None:
    _, cycles = drawn(9, 2000)
    pairs = {(c.member, c.point) for c in cycles if c.fault == "kill"}
    points = [p for p in POINTS if p != DRAIN]
    wanted = {(s, p) for s in CAST.services for p in points if p.startswith("worker.")}
    wanted |= {(s, p) for s in CAST.asking for p in ("courier.called", "courier.settled")}
    wanted |= {(s, p) for s in CAST.services for p in CARRYING}
    wanted |= {("door", p) for p in points if p.startswith("intake.")}
    assert pairs == wanted | {(member, RANDOM) for member in CAST.members}
    assert {c.member for c in cycles if c.point == DRAIN and c.fault == "term"} == {*CAST.services}


def test_who_sleeps_outside_a_transaction_has_a_second_worker_beside() -> None:
    homes, _ = drawn(4, 500)
    asleep = [
        (home, cycle) for home in homes for cycle in home.cycles
        if cycle.fault == "stop" and cycle.point.startswith("worker.")
        and cycle.point not in IN_TRANSACTION
    ]  # fmt: skip
    assert len(asleep) > 20
    assert all(cycle.member == home.doubled for home, cycle in asleep)


def test_couriers_that_are_cut_while_they_carry_have_something_to_carry() -> None:
    homes, _ = drawn(5, 500)
    for home in homes:
        carrying = {s for s in CAST.services if set(CAST.writes[s]) & set(home.carried)}
        assert carrying
        cut = {c.member for c in home.cycles if c.point in CARRYING}
        assert cut <= carrying


def test_another_flow_has_another_cast() -> None:
    cast = cast_of(load_catalog(CATALOG), "counter")
    assert cast.members == ("lending", "notices", "counter")
    assert cast.asking == ("lending", "notices")
    assert {c.member for c in drawn(1, 200, cast)[1]} <= {*cast.members, ""}
