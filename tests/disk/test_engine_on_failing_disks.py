"""A whole flow on a failing disk: gate, workers and couriers, with one fault at a time.

Where the disk has no room the door answers 503 and everything goes on by itself; where a sync or
a read fails the process ends, and the next one goes on from the files. Either way everything ends
as it would have, and outside nothing was done twice.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock.decision import Ref
from penstock.sim.disk.tape import Fault
from tests.disk.rig import Library


@pytest.fixture
def twin(desk: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The story on a sound disk: how it ends, and operations by sort."""
    library = Library(desk / "twin")
    end = library.live()
    loans = {ref.key: loan.state for ref, loan in end["states"]["lending"].items()
             if ref.kind == "loan"}  # fmt: skip
    assert loans == {"l1": "ended", "l2": "ended", "l3": "refused"}
    assert end["states"]["lending"][Ref("shelf", "emma")].free == 2
    assert end["deeds"]["deposits"] == {"deposit:l1": 1, "deposit:l2": 1}
    return end, library.met


def spread(count: int, runs: int) -> list[int]:
    return [n * count // runs for n in range(runs)]


@pytest.mark.parametrize("what", ["full", "short", "write"])
def test_without_room_the_door_says_so_and_everything_goes_on(
    what: str, desk: Path, twin: tuple[dict[str, Any], dict[str, int]]
) -> None:
    end, met = twin
    refused = started_again = 0
    for n, at in enumerate(spread(met["write"], 25)):
        library = Library(desk / f"home{n}", Fault(what=what, at=at, count=4))
        assert library.live() == end, f"{what} {at}"
        refused += library.refused
        started_again += library.lives > 1
    assert refused, "no request ever met the full disk"
    assert started_again < 12, "who has no room after the start goes on"


@pytest.mark.parametrize("what", ["sync", "read", "kill"])
def test_a_process_that_ends_is_followed_by_one_that_goes_on(
    what: str, desk: Path, twin: tuple[dict[str, Any], dict[str, int]]
) -> None:
    end, met = twin
    sort = {"kill": "write"}.get(what, what)
    for n, at in enumerate(spread(met[sort], 25)):
        library = Library(desk / f"home{n}", Fault(what=what, at=at))
        assert library.live() == end, f"{what} {at}"
        assert library.lives == 2, f"{what} {at} was passed over"
