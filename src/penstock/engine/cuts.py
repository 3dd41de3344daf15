"""Named cut points, where a crash test kills the process.

``PENSTOCK_CUT=worker.before_commit:3`` ends the process with SIGKILL the third time that point is
passed. Several cuts are parted by spaces. ``payment/worker.begin:3:FILE`` is for the member of the
crew of that name only and for one time: it makes FILE when it fires and rests while FILE exists,
so a restarted process, which has the same environment, goes on. ``STOP`` behind a fourth colon
stops the process (SIGSTOP) instead. Unset, a point costs one dictionary look-up per batch.

``PENSTOCK_CUT=@FOLDER`` lets somebody outside cut running processes: ``arm`` writes an order into
the folder, the member it names falls at the point it names, and the order is gone. Each is obeyed
once, by whichever process has the member's name then.

A simulation has no processes: it puts its own deaths in place of the environment's (``install``).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

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
# A process that stands still at one of these stands inside a write transaction.
IN_TRANSACTION = frozenset(
    ("worker.begin", "worker.mark", "worker.states", "worker.rows", "worker.before_commit",
     "intake.position")
)  # fmt: skip
CUT_VARIABLE = "PENSTOCK_CUT"
MEMBER_VARIABLE = "PENSTOCK_MEMBER"  # the crew tells every process its name
KILL, STOP = "KILL", "STOP"
_SIGNALS = {KILL: signal.SIGKILL, STOP: signal.SIGSTOP}


class Falls(Protocol):
    """What waits at a cut point."""

    def fall(self) -> None:
        """One pass of the point: go on, die or raise here."""


class Cut:
    """One cut of the environment: which point, after how many passes, once or always."""

    def __init__(self, text: str) -> None:
        place, count, file, action = ([*text.split(":"), "", "", ""])[:4]
        self.member, _, self.point = place.rpartition("/")
        assert self.point in POINTS, f"{CUT_VARIABLE} names no cut point: {self.point}"
        self._left, self._file = int(count or 1), Path(file) if file else None
        self._signal = _SIGNALS[action or KILL]

    def fall(self) -> None:
        """One pass; the last of them ends or stops the process here."""
        self._left -= 1
        if self._left > 0 or (self._file is not None and self._file.exists()):
            return
        if self._file is not None:
            self._file.touch()
        os.kill(os.getpid(), self._signal)


class Armed:
    """A point of a member that an order in a folder can cut."""

    def __init__(self, folder: Path, member: str, point: str) -> None:
        self._order = _order_of(folder, member, point)
        self._passed = 0

    def fall(self) -> None:
        """One pass; looks for an order and obeys it once."""
        try:
            count, action = self._order.read_text().split()
        except FileNotFoundError:
            self._passed = 0
            return
        self._passed += 1
        if self._passed >= int(count) and _took(self._order):
            os.kill(os.getpid(), _SIGNALS[action])


def _took(order: Path) -> bool:
    """Was it ours to take away? One alone can: who is to fall, or who takes the order back."""
    try:
        order.unlink()
    except FileNotFoundError:
        return False
    return True


def _order_of(folder: Path, member: str, point: str) -> Path:
    return folder / f"{member}@{point}"


def arm(folder: Path, member: str, point: str, passes: int = 1, action: str = KILL) -> None:
    """Order a running member, started with ``PENSTOCK_CUT=@folder``, to fall at a point."""
    assert point in POINTS, f"there is no cut point {point}"
    whole = folder / f".{member}@{point}"
    whole.write_text(f"{passes} {action}")
    whole.replace(_order_of(folder, member, point))


def is_armed(folder: Path, member: str, point: str) -> bool:
    """Has nobody obeyed the order yet?"""
    return _order_of(folder, member, point).exists()


def disarm(folder: Path, member: str, point: str) -> bool:
    """Take an order back; False where the member has obeyed it already."""
    return _took(_order_of(folder, member, point))


def cuts_of(text: str, member: str) -> dict[str, Sequence[Falls]]:
    """The cuts that ``text`` names for a member, by point."""
    if text.startswith("@"):
        return {point: [Armed(Path(text[1:]), member, point)] for point in POINTS}
    found: dict[str, list[Falls]] = {}
    for cut_ in map(Cut, text.split()):
        if cut_.member in ("", member):
            found.setdefault(cut_.point, []).append(cut_)
    return dict(found)


def _of_the_environment() -> dict[str, Sequence[Falls]]:
    return cuts_of(os.environ.get(CUT_VARIABLE, ""), os.environ.get(MEMBER_VARIABLE, ""))


_CUTS: dict[str, Sequence[Falls]] = _of_the_environment()


def install(points: Mapping[str, Sequence[Falls]]) -> None:
    """Put these in place of the environment's cuts, for this process, until ``uninstall``."""
    assert points.keys() <= POINTS.keys(), f"no cut points: {points.keys() - POINTS.keys()}"
    _CUTS.clear()
    _CUTS.update(points)


def uninstall() -> None:
    """Only the environment's cuts are left."""
    install(_of_the_environment())


def cut(point: str) -> None:
    """Die here, if somebody wants so."""
    if point in _CUTS:
        for one in _CUTS[point]:
            one.fall()
