"""A service whose courier carries its topics: ``python -m tests.crash.carrying HOME``.

On one machine a service appends in its own commit, and its courier carries asks alone. Here the
store is told to own no topic, as where the log is somewhere else.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.engine.tally import tally_rig
from tests.flows.rig import Rig


def carried_rig(home: Path) -> Rig:
    """The tally with every record of its own in the outbox first."""
    rig = tally_rig(home)
    rig.stores["tally"].direct = frozenset()
    rig.start("tally")
    return rig


if __name__ == "__main__":
    carried_rig(Path(sys.argv[1])).run()
