"""Opening SQLite files to look and to touch nothing, whoever else has them.

Three ways, by what lies beside a file:

    -wal and -shm    somebody may be writing, or died while writing: it is opened where it lies,
                     read-only, under SQLite's own locks. What a kill left in the -wal is read.
    -wal alone       a copy of a home: nobody can have it open, and reading it here would make
                     a -shm. File and -wal are copied to a private folder and read there.
    neither          nobody has it open: it is read as it lies, immutable. That it stayed so is
                     checked at the end, for somebody may start meanwhile.

In every case nothing is made in the folder, so that it may be mounted read-only.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import apsw

BUSY_MS = 10_000  # a start beside us may hold a file for its recovery
_COPIES_MAX = 3


class Unfit(Exception):
    """What was given cannot be audited; ``fix`` says what to do."""

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.message, self.fix = message, fix


class Changed(Exception):
    """A file that nobody had open was written while it was read: begin again."""


class Looking:
    """The files of one audit, each with a transaction open; a context manager."""

    def __init__(self) -> None:
        self._still: dict[Path, tuple[int, ...]] = {}
        self._private: Path | None = None
        self._copies: dict[Path, Path] = {}
        self._open: list[apsw.Connection] = []

    def __enter__(self) -> Looking:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        for connection in self._open:
            connection.close()
        if self._private is not None:
            shutil.rmtree(self._private, ignore_errors=True)

    def begin(self, path: Path) -> apsw.Connection:
        """A connection whose picture of the file is that of now. Raises ``apsw.Error``."""
        if path in self._copies:
            return self._connect(self._copies[path], "mode=ro")
        wal, shm = _beside(path)
        if wal and shm:
            return self._connect(path, "mode=ro")
        if wal:
            self._copies[path] = self._copied(path)
            return self._connect(self._copies[path], "mode=ro")
        self._still.setdefault(path, _stamp(path))
        return self._connect(path, "mode=ro&immutable=1")

    def finish(self) -> None:
        """What was read as immutable stayed so. Raises ``Changed``."""
        for path, stamp in self._still.items():
            if any(_beside(path)) or _stamp(path) != stamp:
                raise Changed(f"{path} was written while it was read")

    def _connect(self, path: Path, how: str) -> apsw.Connection:
        flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        connection = apsw.Connection(f"file:{quote(str(path.absolute()))}?{how}", flags=flags)
        self._open.append(connection)
        connection.set_busy_timeout(BUSY_MS)
        connection.execute("PRAGMA query_only=1")
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()  # the picture is taken
        return connection

    def _copied(self, path: Path) -> Path:
        """A private copy of a file and its -wal, both of one moment."""
        if self._private is None:
            self._private = Path(tempfile.mkdtemp(prefix="penstock-audit-"))
        copy = self._private / f"{len(self._copies)}-{path.name}"
        for _ in range(_COPIES_MAX):
            before = _stamp(path), _stamp(_wal(path))
            try:
                shutil.copyfile(path, copy)
                shutil.copyfile(_wal(path), _wal(copy))
            except OSError as error:
                raise Unfit(
                    f"{path} has a -wal file and cannot be copied to {self._private}: {error}.",
                    "Make room there (TMPDIR names another folder), or audit where penstock runs.",
                ) from None
            if before == (_stamp(path), _stamp(_wal(path))) and not _beside(path)[1]:
                return copy
        raise Changed(f"{path} was written while it was copied")


def sqlite_files(folder: Path, pattern: str) -> list[Path]:
    """The files of a folder, in the order of their names."""
    return sorted(path for path in folder.glob(pattern) if path.is_file())


def is_running(home: Path) -> bool:
    """Does an ``up`` hold this home? Its lock is tried, and given back at once."""
    try:
        fd = os.open(home / "run" / "up.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _wal(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _beside(path: Path) -> tuple[bool, bool]:
    """Is there a -wal with something in it, and a -shm?"""
    shm = path.with_name(path.name + "-shm").exists()
    return bool(_stamp(_wal(path))[0]) or (shm and _wal(path).exists()), shm


def _stamp(path: Path) -> tuple[int, ...]:
    """Size and time of a file; zeros where there is none."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return found.st_size, found.st_mtime_ns

