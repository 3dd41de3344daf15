"""Named cut points, where a crash test kills the process.

``PENSTOCK_CUT=worker.before_commit:3`` ends the process with SIGKILL the third time that point is
passed. Several cuts are parted by spaces. ``payment/worker.begin:3:FILE`` is for the member of the
crew of that name only and for one time: it makes FILE when it fires and rests while FILE exists,
so a restarted process, which has the same environment, goes on. ``STOP`` behind a fourth colon
stops the process (SIGSTOP) instead. Unset, a point costs one dictionary look-up per batch.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

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
MEMBER_VARIABLE = "PENSTOCK_MEMBER"  # the crew tells every process its name


class Cut:
    """One cut of the environment: which point, after how many passes, once or always."""

    def __init__(self, text: str) -> None:
        place, count, file, action = ([*text.split(":"), "", "", ""])[:4]
        self.member, _, self.point = place.rpartition("/")
        assert self.point in POINTS, f"PENSTOCK_CUT names no cut point: {self.point}"
        self._left, self._file = int(count or 1), Path(file) if file else None
        self._signal = signal.SIGSTOP if action == "STOP" else signal.SIGKILL

    def fall(self) -> None:
        """One pass; the last of them ends or stops the process here."""
        self._left -= 1
        if self._left > 0 or (self._file is not None and self._file.exists()):
            return
        if self._file is not None:
            self._file.touch()
        os.kill(os.getpid(), self._signal)


def cuts_of(text: str, member: str) -> dict[str, list[Cut]]:
    """The cuts that ``text`` names for a member, by point."""
    found: dict[str, list[Cut]] = {}
    for cut_ in map(Cut, text.split()):
        if cut_.member in ("", member):
            found.setdefault(cut_.point, []).append(cut_)
    return found


_CUTS = cuts_of(os.environ.get("PENSTOCK_CUT", ""), os.environ.get(MEMBER_VARIABLE, ""))


def cut(point: str) -> None:
    """Die here, if the environment says so."""
    if point in _CUTS:
        for one in _CUTS[point]:
            one.fall()
