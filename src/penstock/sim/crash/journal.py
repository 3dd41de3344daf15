"""What a client was told, on the disk before it acts on it: the journal that an audit starts from.

One JSON object a line. ``sent`` before a request leaves, ``answered`` after its reply came,
``lost`` where none came; the number joins them and counts tries, not requests. Every line is
synced, so that what a promise was made about is known whatever dies.
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any


class Journal:
    """A client's journal; threads may share it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._lock, self._tries = threading.Lock(), _tries_in(path)

    def sent(self, client: str, method: str, path: str, key: str, body: Any) -> int:
        """A request is about to leave; the number of the try."""
        with self._lock:
            self._tries += 1
            self._write({
                "sent": self._tries, "at": _now(), "client": client, "method": method,
                "path": path, "key": key, "body": body,
            })  # fmt: skip
            return self._tries

    def answered(self, try_: int, status: int, reply: Any) -> None:
        """Its reply came."""
        with self._lock:
            self._write({"answered": try_, "at": _now(), "status": status, "reply": reply})

    def lost(self, try_: int, error: str) -> None:
        """No reply came, and none will."""
        with self._lock:
            self._write({"lost": try_, "at": _now(), "error": error})

    def close(self) -> None:
        """Nothing more is noted."""
        os.close(self._fd)

    def _write(self, row: dict[str, Any]) -> None:
        os.write(self._fd, json.dumps(row, ensure_ascii=False).encode() + b"\n")
        os.fdatasync(self._fd)


def _tries_in(path: Path) -> int:
    """Tries noted by an earlier run of the client, so that numbers never meet."""
    with open(path, encoding="utf-8") as lines:
        return max((json.loads(line).get("sent", 0) for line in lines), default=0)


def _now() -> int:
    return time.time_ns() // 1_000_000
