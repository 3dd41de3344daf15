"""The tape: a layer between SQLite and the disk that writes down every change of every file.

Everything still happens, through the system's own layer: the tape only listens, and lets an
operation fail where it is told to. The shared-memory index (``-shm``) is memory and is not on it.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import apsw
from msgspec import Struct

CREATE, WRITE, TRUNCATE, SYNC, FAILED_SYNC, DELETE = (
    "create", "write", "truncate", "sync", "failed sync", "delete"
)  # fmt: skip
# The system's layer syncs the folder together with the first sync of a journal or write-ahead
# log that it may have made, and never for a database file.
_WITH_FOLDER = (
    apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL | apsw.SQLITE_OPEN_WAL
)
_NAMES = itertools.count()
_SYSTEM = apsw.vfs_names()[0]  # the layer that SQLite uses of itself


class Op(Struct, frozen=True, gc=False):
    """One change: ``file`` numbers a file's content from its creation to its end, ``offset`` is
    where it was written or how long it was left, ``folder`` says that the names were synced."""

    kind: str
    name: str
    file: int
    offset: int = 0
    content: bytes = b""
    folder: bool = False


class Fault(Struct, frozen=True, kw_only=True):
    """Operations that fail: ``count`` of them, from the ``at``-th of their sort on (from 0).

    ``what``: ``sync`` (fsync fails), ``full`` (no room, nothing is written), ``short`` (no room
    after half of it), ``write`` and ``read`` (the device cannot), ``open`` (nor open a file),
    ``kill`` (the process ends instead of a write).
    """

    what: str
    at: int
    count: int = 1

    def __str__(self) -> str:
        return f"{self.what} {self.at}+{self.count}"


_SORTS = {
    "full": ("write", apsw.SQLITE_FULL),
    "short": ("write", apsw.SQLITE_FULL),
    "write": ("write", apsw.SQLITE_IOERR_WRITE),
    "sync": ("sync", apsw.SQLITE_IOERR_FSYNC),
    "read": ("read", apsw.SQLITE_IOERR_READ),
    "open": ("open", apsw.SQLITE_CANTOPEN),
    "kill": ("write", apsw.SQLITE_IOERR),
}
FAULTS = tuple(_SORTS)


class Tape:
    """What happened to the files of one home, from an empty folder on, over all its restarts."""

    def __init__(self, *, ignores_syncs: bool = False) -> None:
        self.ops: list[Op] = []
        self.files: dict[str, int] = {}  # name -> the content it names now
        self._ignores_syncs = ignores_syncs  # a disk that says yes and does not
        self._count = 0

    def __len__(self) -> int:
        return len(self.ops)

    def opened(self, name: str, create: bool) -> None:
        """A file was opened; one that was not there is new."""
        if name not in self.files and create:
            self._count += 1
            self.files[name] = self._count
            self.ops.append(Op(CREATE, name, self._count))

    def wrote(self, name: str, offset: int, content: bytes) -> None:
        """Bytes were written."""
        self.ops.append(Op(WRITE, name, self.files[name], offset, content))

    def cut(self, name: str, size: int) -> None:
        """A file was made so long."""
        self.ops.append(Op(TRUNCATE, name, self.files[name], size))

    def synced(self, name: str, folder: bool) -> None:
        """What was written to a file is on the disk; with ``folder`` the names are, too."""
        if not self._ignores_syncs:
            self.ops.append(Op(SYNC, name, self.files[name], folder=folder))

    def not_synced(self, name: str) -> None:
        """A sync failed: what it was for may never reach the disk, whatever is synced later."""
        self.ops.append(Op(FAILED_SYNC, name, self.files[name]))

    def deleted(self, name: str, folder: bool) -> None:
        """A name is gone."""
        if name in self.files:
            self.ops.append(Op(DELETE, name, self.files.pop(name), folder=folder))


class Recorder(apsw.VFS):
    """One life of a process over the tape: from its start to its end, or its death."""

    def __init__(self, tape: Tape, fault: Fault | None = None) -> None:
        self.tape, self.fault, self.dead = tape, fault, False
        self.met: Counter[str] = Counter()  # operations by sort
        self.struck = 0  # those that failed
        self.name = f"penstock-tape-{next(_NAMES)}"
        super().__init__(self.name, _SYSTEM)

    def die(self) -> None:
        """From here on nothing reaches the files: the process was killed. Closing what it had
        open gives its locks back and changes nothing."""
        self.dead = True

    def meet(self, sort: str) -> str:
        """One operation is about to happen; returns the fault to play."""
        number, fault = self.met[sort], self.fault
        self.met[sort] += 1
        if fault is None or _SORTS[fault.what][0] != sort:
            return ""
        if not fault.at <= number < fault.at + fault.count:
            return ""
        self.struck += 1
        self.dead |= fault.what == "kill"
        return fault.what

    def excepthook(self, *_: Any) -> bool:
        """A fault that SQLite takes in silence, as when it closes, is no accident of ours."""
        return True

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        """Open through the system's layer and listen."""
        if name is None:
            return super().xOpen(name, flags)  # a temporary file: no restart looks for it
        path = name if isinstance(name, str) else name.filename()
        if self.meet("open"):
            raise failure("open")
        opened = _Recorded(self, path, name, flags)
        self.tape.opened(path, bool(flags[0] & apsw.SQLITE_OPEN_CREATE))
        return opened

    def xDelete(self, filename: str, syncdir: bool) -> None:
        """Delete a file."""
        if not self.dead:
            super().xDelete(filename, syncdir)
            self.tape.deleted(filename, syncdir)


class _Recorded(apsw.VFSFile):
    """One open file."""

    def __init__(self, recorder: Recorder, path: str, name: Any, flags: list[int]) -> None:
        super().__init__(_SYSTEM, name, flags)
        self._recorder, self._path = recorder, path
        self._folder = bool(flags[0] & _WITH_FOLDER) and bool(flags[0] & apsw.SQLITE_OPEN_CREATE)

    def excepthook(self, *_: Any) -> bool:
        return True

    def xRead(self, amount: int, offset: int) -> bytes:
        if self._recorder.meet("read"):
            raise failure("read")
        return super().xRead(amount, offset)

    def xWrite(self, content: Any, offset: int) -> None:
        if self._recorder.dead:
            return
        fault = self._recorder.meet("write")
        if fault == "short":
            content = bytes(content)[: len(content) // 2]
        if not fault or fault == "short":
            super().xWrite(content, offset)
            self._recorder.tape.wrote(self._path, offset, bytes(content))
        if fault:
            raise failure(fault)

    def xTruncate(self, newsize: int) -> None:
        if not self._recorder.dead:
            super().xTruncate(newsize)
            self._recorder.tape.cut(self._path, newsize)

    def xSync(self, flags: int) -> None:
        if self._recorder.dead:
            return
        if self._recorder.meet("sync"):
            self._recorder.tape.not_synced(self._path)
            raise failure("sync")
        super().xSync(flags)
        self._recorder.tape.synced(self._path, self._folder)
        self._folder = False


def failure(what: str) -> Exception:
    """What SQLite is told of a fault."""
    return apsw.exception_for(_SORTS[what][1])
