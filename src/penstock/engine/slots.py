"""The attempt slot: which record a worker was deciding when its process died.

One 64-bit word per lane in a memory-mapped file, written whole through a memoryview of type
``q`` (a struct.pack_into zeroes first, and a kill in between reads garbage). The file begins with
the boot's identity: after a power cut it says nothing, so nobody is charged.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from penstock.limits import OFFSET_BITS, OFFSET_MAX

_HEADER_WORDS = 8


def boot_identity() -> bytes:
    """64 bytes that differ after every boot."""
    try:
        raw = Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    except OSError:
        raw = b"no-boot-identity"
    return raw.ljust(64, b"\0")[:64]


class Slots:
    """The slots of one service, shared by its workers; each lane is written by its owner."""

    def __init__(self, path: Path, lanes: int) -> None:
        size = (_HEADER_WORDS + lanes) * 8
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            boot = boot_identity()
            if os.pread(fd, 64, 0) != boot or os.fstat(fd).st_size != size:
                # Never cut to nothing: a sibling that has it mapped would die of SIGBUS.
                os.ftruncate(fd, size)
                os.pwrite(fd, boot.ljust(size, b"\0"), 0)
            self._map = mmap.mmap(fd, size)
        finally:
            os.close(fd)
        self.words = memoryview(self._map).cast("q")[_HEADER_WORDS:]

    def read(self, lane: int) -> tuple[int, int] | None:
        """Topic index and offset of the record being decided, None when there is none."""
        word = self.words[lane]
        return ((word - 1) >> OFFSET_BITS, (word - 1) & OFFSET_MAX) if word else None

    def clear(self, lanes: frozenset[int] | set[int]) -> None:
        """The decides of these lanes are over."""
        for lane in lanes:
            self.words[lane] = 0


class NoSlots(Slots):
    """Slots of a worker without a process of its own (tests, simulation)."""

    def __init__(self, lanes: int) -> None:
        self.words = memoryview(bytearray(lanes * 8)).cast("q")
