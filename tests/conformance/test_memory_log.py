"""The memory log passes the suite, all that a log in one process can do."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from penstock.conformance import log_scenarios
from penstock.conformance.logs import LogFixture
from penstock.conformance.scenario import title
from penstock.log.assignment import assign
from penstock.log.memory import MemoryLane, MemoryLog
from penstock.ports import Lane, Log


class MemoryFixture:
    """All handles are the one instance."""

    features = MemoryLog.features
    opener = None

    def __init__(self) -> None:
        self._log = MemoryLog()

    def open(self) -> MemoryLog:
        return self._log

    def crash(self, lane: Lane) -> None:
        assert isinstance(lane, MemoryLane)
        lane.crash()

    def restart(self) -> None:
        raise AssertionError("a memory log ends with its process")

    def tear(self, unfinished: Callable[[Log], None], share: float) -> Log:
        raise AssertionError("a memory log has no file")

    def flip(self, topic: str, partition: int, offset: int) -> None:
        raise AssertionError("a memory log has no file")


@pytest.mark.parametrize("scenario", log_scenarios(MemoryLog.features), ids=title)
def test_memory_log(scenario: Callable[[LogFixture], None]) -> None:
    scenario(MemoryFixture())


@pytest.mark.parametrize("size", range(1, 10))
def test_an_assignment_gives_each_lane_to_one_member(size: int) -> None:
    members = [f"m{n}" for n in range(size)]
    shares = assign(members, 8)
    assert sorted(lane for share in shares.values() for lane in share) == list(range(8))
    assert list(shares) == members


def test_an_assignment_depends_on_the_membership_alone() -> None:
    assert assign(["b", "a", "c"], 4) == assign(["c", "b", "a", "a"], 4)
    assert assign(["b", "a"], 3) == {"a": frozenset({0, 2}), "b": frozenset({1})}
    assert assign([], 4) == {}
