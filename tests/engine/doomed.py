"""A process that dies while it decides: ``python -m tests.engine.doomed HOME SLOTS NUMBER``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from penstock.decision import Decision
from penstock.engine.slots import Slots
from penstock.event import Event
from tests.engine.tally import Orders, tally_rig


def die(event: Event) -> Decision | None:
    """What a segmentation fault does."""
    os.kill(os.getpid(), signal.SIGKILL)
    return None


def main(home: str, slots: str, number: str) -> None:
    """Work until nothing moves, or until the step of that number comes."""
    orders = Orders()
    orders.by_number[int(number)] = die
    rig = tally_rig(Path(home), orders, partitions=1)
    rig.workers.pop("tally").leave()
    worker = rig.new_worker("tally", Slots(Path(slots), 1))
    idle = 0
    while idle < 5:
        idle = 0 if worker.step(rig.clock.now()).records else idle + 1


if __name__ == "__main__":
    main(*sys.argv[1:])
