"""Named cut points, where a crash test kills the process.

``PENSTOCK_CUT=worker.before_commit:3`` ends the process with SIGKILL the third time that point is
passed. Unset, a point costs one dictionary look-up per batch.
"""

from __future__ import annotations

import os
import signal

POINTS = {
    "worker.receive": "a batch was read, nothing is open yet",
    "worker.open": "records are opened, no transaction yet",
    "worker.begin": "the transaction is open and the epoch checked",
    "worker.mark": "marks are written",
    "worker.states": "states are written",
    "worker.rows": "rows are written",
    "worker.before_commit": "everything is written, nothing is durable",
    "worker.after_commit": "durable, nobody is told yet",
    "courier.send": "rows are read, nothing is carried yet",
    "courier.sent": "a topic's rows are appended, not yet closed",
    "courier.called": "a gateway answered, the row is not yet closed",
    "courier.settled": "rows are closed and answers appended",
    "intake.position": "requests are decided, not yet durable",
    "intake.reply": "requests are durable, nobody has a reply yet",
    "crew.drain": "the process was told to drain",
}
_NAME, _, _COUNT = os.environ.get("PENSTOCK_CUT", "").partition(":")
_LEFT = {_NAME: int(_COUNT or 1)} if _NAME else {}
assert not _NAME or _NAME in POINTS, f"PENSTOCK_CUT names no cut point: {_NAME}"


def cut(point: str) -> None:
    """Die here, if the environment says so."""
    if point in _LEFT:
        _LEFT[point] -= 1
        if _LEFT[point] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
