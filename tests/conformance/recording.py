"""A longer load than the tests run: ``python -m tests.conformance.recording FOLDER SEED``.

Records processes over the embedded log in FOLDER, killed as they go, and checks their history,
which stays there. Further arguments: steps of each member, kills, members.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

from penstock.conformance.checker import check, told
from penstock.conformance.history_load import record
from tests.conformance.backends import embedded


def main(folder: str, seed: str, steps: str = "2000", kills: str = "20", members: str = "3") -> int:
    """Record, check, tell; 0 where nothing was found."""
    home, histories = (Path(folder) / name for name in ("home", "histories"))
    for path in (home, histories):
        path.mkdir(parents=True)
    ops = record(
        partial(embedded, home), histories, int(seed), members=int(members), steps=int(steps),
        kills=int(kills),
    )
    for (do, result), count in sorted(Counter((o.asked.do, o.result) for o in ops).items()):
        print(f"{do} {result}: {count}")
    began = time.process_time()
    report = check(ops)
    print(told(report))
    print(f"{len(ops) / (time.process_time() - began):,.0f} operations a second")
    return 0 if report.clean else 6


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
