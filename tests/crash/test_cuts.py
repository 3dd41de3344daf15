"""Cut points: armed from outside and obeyed once, replaced by a simulation, free when unset."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.engine import cuts
from penstock.engine.cuts import POINTS, arm, cut, cuts_of, disarm, install, is_armed, uninstall
from penstock.sim.crash.subject import is_stopped
from tests.support import eventually

PASSING = "from penstock.engine.cuts import cut\nfor n in range({n}): cut('worker.begin')\n"


def passing(folder: Path, member: str, count: int = 5) -> subprocess.Popen[bytes]:
    """A process of a member that passes worker.begin so many times."""
    env = {**os.environ, "PENSTOCK_CUT": f"@{folder}", "PENSTOCK_MEMBER": member}
    return subprocess.Popen([sys.executable, "-c", PASSING.format(n=count)], env=env)


def test_who_is_ordered_to_fall_falls_once(tmp_path: Path) -> None:
    arm(tmp_path, "payment", "worker.begin", passes=3)
    assert passing(tmp_path, "order").wait() == 0, "it is not for others"
    assert passing(tmp_path, "payment", 2).wait() == 0, "it was to be passed three times"
    assert is_armed(tmp_path, "payment", "worker.begin")
    assert passing(tmp_path, "payment").wait() == -signal.SIGKILL
    assert not is_armed(tmp_path, "payment", "worker.begin")
    assert passing(tmp_path, "payment").wait() == 0, "its successor goes on"
    assert not disarm(tmp_path, "payment", "worker.begin"), "it was obeyed"


def test_who_is_ordered_to_stop_goes_on_when_it_is_woken(tmp_path: Path) -> None:
    arm(tmp_path, "payment", "worker.begin", action=cuts.STOP)
    process = passing(tmp_path, "payment")
    eventually(lambda: is_stopped(process.pid), what="it stands still")
    process.send_signal(signal.SIGCONT)
    assert process.wait() == 0


def test_an_order_that_was_taken_back_is_obeyed_by_nobody(tmp_path: Path) -> None:
    arm(tmp_path, "payment", "worker.begin")
    assert disarm(tmp_path, "payment", "worker.begin")
    assert passing(tmp_path, "payment").wait() == 0


def test_a_point_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"no cut point worker\.end"):
        arm(tmp_path, "payment", "worker.end")
    with pytest.raises(AssertionError, match=r"worker\.end"):
        cuts_of("payment/worker.end:1", "payment")
    with pytest.raises(AssertionError, match=r"worker\.end"):
        install({"worker.end": []})


class Passed:
    """Counts passes."""

    def __init__(self) -> None:
        self.count = 0

    def fall(self) -> None:
        """One pass."""
        self.count += 1


@pytest.fixture
def passed() -> Iterator[Passed]:
    """What is installed at every point, and gone afterwards."""
    one = Passed()
    install({point: [one] for point in POINTS})
    yield one
    uninstall()


def test_a_simulation_puts_its_own_in_place(passed: Passed) -> None:
    for point in POINTS:
        cut(point)
    assert passed.count == len(POINTS)
    uninstall()
    cut("worker.begin")
    assert passed.count == len(POINTS)
