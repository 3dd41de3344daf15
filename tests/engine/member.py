"""One process of a service with several: ``python -m tests.engine.member HOME TOTAL``.

Says ``{}`` once it has handled something, and ends when all is handled by whomever.
"""

from __future__ import annotations

import sys
from pathlib import Path
from threading import Event

from penstock.engine.slots import Slots
from tests.engine.tally import tally_rig


def main(home: str, total: str) -> None:
    """Step until the marks of all members together are complete."""
    rig = tally_rig(Path(home), batch=10, shared=("tally",))
    rig.workers.pop("tally").leave()
    worker = rig.new_worker("tally", Slots(Path(home) / "tally.slots", 4))
    file, never, said = rig.stores["tally"].file, Event(), False
    while file.run("SELECT count(*) FROM marks")[0][0] < int(total):
        if not worker.step(rig.clock.now()).records:
            never.wait(0.002)
        if worker.counts.handled and not said:
            said = True
            print("{}", flush=True)
        rig.clock.pass_(50)
    worker.leave()


if __name__ == "__main__":
    main(*sys.argv[1:])
