"""The folders of servers: removed at a close, and after a kill by whoever comes next."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import BinaryIO

PREFIX = "penstock-server-"
HELD = "held"  # locked by the process that owns the folder, for as long as it lives
_held: dict[Path, BinaryIO] = {}


def make(kind: str) -> Path:
    """A new folder in the temporary one, with a short path, and rid of those that killed
    processes left."""
    sweep()
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{kind}-"))
    # Named when it is locked already: what is named and not locked has no owner.
    lock = open(folder / "new", "wb")  # noqa: SIM115 - open until the folder goes
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.rename(folder / "new", folder / HELD)
    _held[folder] = lock
    return folder


def remove(folder: Path) -> None:
    """Remove a folder of ours and all that is in it."""
    shutil.rmtree(folder, ignore_errors=True)
    lock = _held.pop(folder, None)
    if lock is not None:
        lock.close()


def sweep() -> None:
    """Remove the folders whose owners are gone."""
    for held in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{HELD}"):
        try:
            with open(held, "rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(held.parent, ignore_errors=True)
        except OSError:
            continue  # it has an owner, or is somebody else's
