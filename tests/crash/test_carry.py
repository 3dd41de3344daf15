"""A courier that carries to a topic elsewhere is killed before and after: nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.crash.carrying import carried_rig
from tests.engine.tally import Step

KEYS = ("a", "b", "c")


@pytest.mark.parametrize(("point", "copies"), [("courier.send", 1), ("courier.sent", 2)])
def test_a_courier_killed_while_it_carries_repeats_with_the_same_ids(
    home: Path, python: str, point: str, copies: int
) -> None:
    rig = carried_rig(home)
    rig.append("steps", *((key, Step(n=n, tell=True)) for n in range(1, 6) for key in KEYS))
    rig.close()
    env = {**os.environ, "PENSTOCK_CUT": f"{point}:1:{home / 'fired'}"}
    argv = [python, "-m", "tests.crash.carrying", str(home)]
    codes = [
        subprocess.run(argv, env=env, check=False, timeout=60).returncode for _ in range(2)
    ]
    assert codes == [-signal.SIGKILL, 0]
    for key in KEYS:
        found = [r.message for r in rig.records("sums") if r.message.key == key]
        once = list({message.id: message for message in found}.values())
        assert [rig.book.open(m.type, m.version, m.value).n for m in once] == [1, 2, 3, 4, 5]
        assert found == once * copies, "repeated in the same order, under the same ids"
