"""The platter: what a power cut leaves of a recorded prefix.

What was synced is there. Of everything since, each 512-byte sector of a write, each truncation and
each change of a name may have reached the disk or not, in any combination: the page cache writes
back as it likes. The rules, per file:

    a write          any of its sectors; one that is kept lies over all that was kept before it
    a longer file    what lies before a kept sector and was never written reads as zeros
    a truncation     kept or lost
    a failed sync    what it was for stays kept or lost for good: no later sync makes it sure
    a new name       may be missing until its folder is synced, and the file with it
    a deleted name   may be back until then, with what its file held
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from msgspec import Struct

from penstock.sim.disk.tape import CREATE, DELETE, FAILED_SYNC, SYNC, TRUNCATE, WRITE, Op

SECTOR_BYTES = 512


class Kept(Struct, frozen=True, gc=False):
    """What a cut kept of one unsynced change: the numbers of the sectors of its file."""

    op: int
    kind: str
    name: str
    sectors: tuple[int, ...] = ()


class Left(Struct, frozen=True):
    """What a power cut left: the files by name, and what of the unsynced was kept. ``settled``
    has a number for each file that holds what was synced and nothing else: same number, same
    bytes. To be used before the platter takes more."""

    files: Mapping[str, bytes | bytearray]
    kept: tuple[Kept, ...]
    settled: Mapping[str, int]


class Pending(Struct, frozen=True, gc=False):
    """A change that no sync covers yet; ``sure`` when one does, though not what lies below it."""

    index: int
    op: Op
    sure: bool = False


class Platter:
    """The disk after a growing prefix of a tape."""

    def __init__(self) -> None:
        self.index = 0
        self._durable: dict[int, bytearray] = {}
        self._pending: dict[int, list[Pending]] = {}
        self._names: dict[str, int] = {}
        self._renamed: list[tuple[int, Op]] = []  # changes of names since the folder's sync
        self._version: dict[int, int] = {}  # of a file's durable content

    def take(self, op: Op) -> None:
        """One more operation happened."""
        index, self.index = self.index, self.index + 1
        if op.kind in (WRITE, TRUNCATE, FAILED_SYNC):
            self._pending[op.file].append(Pending(index, op))
        elif op.kind == SYNC:
            self._sync(op.file, index)
        else:
            self._renamed.append((index, op))
            if op.kind == CREATE:
                self._durable[op.file], self._pending[op.file] = bytearray(), []
                self._version[op.file] = index
        if op.folder:
            self._sync_folder()

    def _sync(self, file: int, index: int) -> None:
        """All of a file is sure, but what an earlier sync failed for."""
        pending = self._pending[file]
        failed = max((n for n, p in enumerate(pending) if p.op.kind == FAILED_SYNC), default=-1)
        if failed >= 0:
            # Later writes lie over the doubtful ones: both stay, in order, the later ones sure.
            sure = [Pending(p.index, p.op, True) for p in pending[failed + 1 :]]
            self._pending[file] = [*pending[: failed + 1], *sure]
        elif pending:
            content = self._durable[file]
            for p in pending:
                _apply(content, p.op)
            self._pending[file], self._version[file] = [], index

    def _sync_folder(self) -> None:
        for _, op in self._renamed:
            _rename(self._names, op)
        self._renamed = []

    def left(self, dice: Random, draw: int) -> Left:
        """What a cut right now leaves. Draw 0 keeps everything, draw 1 nothing that is unsure."""
        keep = _Keep(dice, draw)
        names = dict(self._names)
        for index, op in self._renamed:
            if keep.whole(Pending(index, op)):
                _rename(names, op)
        files: dict[str, bytes | bytearray] = {}
        settled = {}
        for name, file in names.items():
            files[name] = self._content(file, keep)
            if not self._pending[file]:
                settled[name] = self._version[file]
        return Left(files, tuple(keep.kept), settled)

    def _content(self, file: int, keep: _Keep) -> bytearray:
        pending = self._pending[file]
        if not pending:
            return self._durable[file]
        content = bytearray(self._durable[file])
        for p in pending:
            if p.op.kind == WRITE:
                keep.write(content, p, newest=p is pending[-1])
            elif p.op.kind == TRUNCATE and keep.whole(p):
                _apply(content, p.op)
        return content


def _apply(content: bytearray, op: Op) -> None:
    if op.kind == WRITE:
        _put(content, op.offset, op.content)
    elif op.kind == TRUNCATE:
        if op.offset < len(content):
            del content[op.offset :]
        else:
            content.extend(bytes(op.offset - len(content)))


def _put(content: bytearray, offset: int, part: bytes) -> None:
    if offset > len(content):
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(part)] = part


def _rename(names: dict[str, int], op: Op) -> None:
    if op.kind == CREATE:
        names[op.name] = op.file
    elif op.kind == DELETE:
        names.pop(op.name, None)


class _Keep:
    """How one cut decides what is kept: a manner for all of it, then dice for each part."""

    def __init__(self, dice: Random, draw: int) -> None:
        self._dice, self.kept = dice, list[Kept]()
        self._torn = False  # only the newest write is torn, all before it is kept
        self._share = 1.0 if draw == 0 else 0.0
        self._by_sector = True
        if draw > 1:
            manner = dice.random()
            self._torn = manner < 0.2
            self._by_sector = manner < 0.7
            self._share = dice.choice((0.05, 0.3, 0.5, 0.7, 0.95))

    def whole(self, p: Pending) -> bool:
        """Is a change kept that happens whole or not at all?"""
        kept = p.sure or self._torn or self._dice.random() < self._share
        if kept:
            self.kept.append(Kept(p.index, p.op.kind, p.op.name))
        return kept

    def write(self, content: bytearray, p: Pending, *, newest: bool) -> None:
        """Put the kept sectors of a write in place."""
        op = p.op
        first = op.offset // SECTOR_BYTES
        sectors = range(first, (op.offset + len(op.content) - 1) // SECTOR_BYTES + 1)
        chosen = self._chosen(p, sectors, newest)
        if chosen:
            self.kept.append(Kept(p.index, op.kind, op.name, chosen))
        if len(chosen) == len(sectors):
            _put(content, op.offset, op.content)
            return
        for sector in chosen:
            start = max(sector * SECTOR_BYTES, op.offset)
            end = min((sector + 1) * SECTOR_BYTES, op.offset + len(op.content))
            _put(content, start, op.content[start - op.offset : end - op.offset])

    def _chosen(self, p: Pending, sectors: range, newest: bool) -> tuple[int, ...]:
        if p.sure or self._share == 1.0 or (self._torn and not newest):
            return tuple(sectors)
        if self._torn:
            return tuple(sectors[: self._dice.randrange(len(sectors) + 1)])
        if not self._by_sector:
            return tuple(sectors) if self._dice.random() < self._share else ()
        return tuple(s for s in sectors if self._dice.random() < self._share)
