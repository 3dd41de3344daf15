"""The write-ahead log after a death: nothing may rely on frames that the disk may not have.

A process that died between writing a commit and syncing it, or because the sync failed, leaves
whole frames in the page cache. Whoever opens the file next takes them for committed. After a
failed sync the cache calls them clean, so that no later sync would write them: a power cut then
takes them, and with them every later commit behind them. So they are written and synced again,
before anything is built on them.
"""

from __future__ import annotations

from pathlib import Path

import apsw

HEADER_BYTES, FRAME_HEADER_BYTES = 32, 24
_FLAGS = [apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_READWRITE, 0]


def frames_in(db: apsw.Connection) -> int:
    """How many frames of the log are taken for committed. Not from inside a transaction."""
    return db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)[0]


def write_again(path: Path, frames: int, vfs: str = "") -> None:
    """Write the transaction that ends with frame ``frames`` of the log of ``path`` once more,
    and sync the log.

    To be called inside a write transaction that has written nothing, so that nobody else writes.
    All before that transaction was synced, or nobody could have written behind it. Raises
    ``apsw.IOError`` when the sync fails again.
    """
    if frames <= 0:
        return
    log = apsw.VFSFile(vfs, f"{path}-wal", _FLAGS)
    try:
        size = FRAME_HEADER_BYTES + int.from_bytes(log.xRead(4, 8), "big")
        first = _last_transaction(log, frames, size)
        if first == 0:
            log.xWrite(log.xRead(HEADER_BYTES, 0), 0)
        for frame in range(first, frames):
            at = HEADER_BYTES + frame * size
            log.xWrite(log.xRead(size, at), at)
        log.xSync(apsw.SQLITE_SYNC_NORMAL)
    finally:
        log.xClose()


def _last_transaction(log: apsw.VFSFile, frames: int, size: int) -> int:
    """Its first frame: behind the last but one that says that a commit ends with it."""
    for frame in range(frames - 2, -1, -1):
        header = log.xRead(8, HEADER_BYTES + frame * size)
        if header[4:] != bytes(4):  # the file's size in pages after a commit
            return frame + 1
    return 0
