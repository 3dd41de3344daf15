"""The two-lock turnstile that lets several processes write one file fairly.

Lock GATE, lock FILE, unlock GATE, transaction, unlock FILE: the next owner already waits at FILE
while the present one works, so nobody who just left can barge in again. SQLite's own waiting
sleeps and starves (a writer got nothing for 1.6 s in the measurements).
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class Turnstile:
    """Fair mutual exclusion between processes (and connections) that write ``path``."""

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._gate = os.open(f"{path}.gate", flags, 0o600)
        self._file = os.open(f"{path}.turn", flags, 0o600)

    def enter(self) -> None:
        """Wait for the turn. A process that dies inside loses both locks by itself."""
        fcntl.flock(self._gate, fcntl.LOCK_EX)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        fcntl.flock(self._gate, fcntl.LOCK_UN)

    def leave(self) -> None:
        """Let the next one in."""
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Release what the process holds."""
        os.close(self._gate)
        os.close(self._file)
