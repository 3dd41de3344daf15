"""A courier's shift: its shards by the roll, its keeper, and what it says of itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from penstock.engine.keeper import Keeper
from penstock.engine.shift import Shift
from penstock.engine.wakes import Wakes
from penstock.errors import Contended, StorageFull, Unreachable, World
from penstock.ports import Roll
from tests.engine.tally import Step, tally_rig
from tests.flows.rig import HandPool, Rig


class Listed(Roll):
    """A roll that says what the test says."""

    def __init__(self) -> None:
        self.shards: frozenset[int] | None = frozenset((0,))
        self.refusal: World = Unreachable("the database does not answer")
        self.left = 0

    def attend(self, now: int) -> frozenset[int]:
        """The shards, or the database is away."""
        if self.shards is None:
            raise self.refusal
        return self.shards

    def leave(self) -> None:
        """Counted."""
        self.left += 1


class Told:
    """A shift over a rig's service, and what it reported."""

    def __init__(self, folder: Path) -> None:
        self.rig: Rig = tally_rig()
        self.roll, self.reports = Listed(), list[Mapping[str, Any]]()
        courier = self.rig.new_courier("tally", HandPool())
        self.wakes = Wakes(folder, "courier-tally", {})
        keeper = Keeper(self.rig.log, self.rig.stores["tally"], [], [], {})
        self.shift = Shift(
            courier, self.roll, self.wakes, self.rig.clock, keeper, self.reports.append
        )

    def decide(self) -> None:
        """One record is decided, and its row waits for a courier."""
        self.rig.append("steps", ("k", Step(n=1, tell=True)))
        for _ in range(4):
            self.rig.workers["tally"].step(self.rig.clock.now())


@pytest.fixture
def told() -> Iterator[Told]:
    """In a folder of its own, for sockets want short paths."""
    with TemporaryDirectory() as folder:
        made = Told(Path(folder))
        yield made
        made.wakes.close()


def test_nothing_is_carried_before_the_roll_gave_shards(told: Told) -> None:
    told.roll.shards = frozenset()
    told.decide()
    told.shift.turn()
    assert told.rig.records("sums") == []
    told.roll.shards = frozenset((0,))
    told.shift._attend_at = 0.0  # a second later
    told.shift.turn()
    assert len(told.rig.records("sums")) == 1


def test_where_the_database_is_away_it_says_so_and_goes_on_afterwards(told: Told) -> None:
    told.decide()
    told.roll.shards = None
    told.shift.turn()
    assert told.reports[-1]["trouble"] == {"courier": "the database does not answer"}
    assert told.rig.records("sums") == []
    told.roll.shards = frozenset((0,))
    told.shift._report_at = 0.0
    told.shift.turn()
    assert told.reports[-1]["trouble"] == {}
    assert len(told.rig.records("sums")) == 1


@pytest.mark.parametrize(
    "refusal", [StorageFull("no room for a row"), Contended("another was first")]
)
def test_a_database_that_refuses_for_now_ends_no_courier(told: Told, refusal: World) -> None:
    """Neither its place in the roll nor its report is worth a death."""

    def report(said: Mapping[str, Any]) -> None:
        told.reports.append(said)
        raise refusal

    told.decide()
    told.shift._report = report
    told.roll.shards, told.roll.refusal = None, refusal
    told.shift.turn()
    assert told.reports[-1]["trouble"] == {"courier": str(refusal)}
    told.roll.shards = frozenset((0,))
    told.shift.turn()
    assert len(told.rig.records("sums")) == 1


def test_at_the_end_it_leaves_the_roll_and_says_its_last_word(told: Told) -> None:
    told.shift.stop()
    told.shift.run()
    assert told.roll.left == 1
    assert not told.shift.failed
    assert (told.reports[-1]["service"], told.reports[-1]["role"]) == ("tally", "courier")
