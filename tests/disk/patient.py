"""Rot: one byte of a file is another, or its end is gone, and what reading makes of it.

Rows of a log carry a checksum, so that whatever is read of them is what was written, or refused.
The rest of a file has what SQLite's own structure gives: much is refused, some is found by
``penstock doctor`` only, and a letter changed inside a document is found by nobody.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import apsw
from msgspec import Struct

from penstock import assemble
from penstock.embedded.file import File
from penstock.errors import Problem, World
from penstock.sim.disk.scenario import SERVICE, Content, contents, house_at, path_of

HARMLESS = "harmless"  # everything reads as it was written
REFUSED = "refused"  # named, as ``Corrupt`` or a problem of the start
BROKEN = "broken"  # refused by SQLite or Python in words of their own
DOCTOR = "doctor"  # something reads otherwise, and the doctor sees it
SILENT = "silent"  # something reads otherwise, and nobody sees it
Read = dict[tuple[str, int], tuple[object, ...]]


class Verdict(Struct, frozen=True):
    """What became of one change: of reading the log, and of reading all the rest."""

    log: str
    rest: str
    said: str = ""


class Patient:
    """A file of the scenario that is changed byte by byte, and always put back."""

    def __init__(self, home: Path) -> None:
        self._house = house_at(home)
        self.path = path_of(home, SERVICE)
        self._topics = assemble.own_topics(self._house.catalog, SERVICE)
        self.sound = self.path.read_bytes()
        self._log, self._rest = self._read_log(), self._read_rest()

    def pages(self) -> Mapping[str, list[range]]:
        """The bytes of each table and index, page by page."""
        found: dict[str, list[range]] = {}
        db = apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READONLY)
        for name, offset, size in db.execute("SELECT name, pgoffset, pgsize FROM dbstat"):
            found.setdefault(name, []).append(range(offset, offset + size))
        db.close()
        return found

    def flip(self, at: int, mask: int, *, log_only: bool = False) -> Verdict:
        """Change one byte and read all, or the log alone; put it back."""
        wrong = bytes([self.sound[at] ^ mask])
        return self._with(lambda file: os.pwrite(file, wrong, at), log_only)

    def truncate(self, size: int) -> Verdict:
        """Cut the file to a size and read; put it back."""
        return self._with(lambda file: os.ftruncate(file, size), False)

    def _with(self, change: Callable[[int], object], log_only: bool) -> Verdict:
        file = os.open(self.path, os.O_RDWR)
        try:
            change(file)
            changed = self.path.read_bytes()
            verdict = self._verdict(log_only)
            assert self.path.read_bytes() == changed, "reading rewrote a damaged file"
            return verdict
        finally:
            os.pwrite(file, self.sound, 0)
            os.ftruncate(file, len(self.sound))
            os.close(file)

    def _verdict(self, log_only: bool) -> Verdict:
        log, said = self._tried(lambda: self._read_log() == self._log)
        rest = HARMLESS
        if not log_only:
            rest, _ = self._tried(lambda: self._read_rest() == self._rest)
        if SILENT in (log, rest) and self._doctor():
            log, rest = (DOCTOR if kind == SILENT else kind for kind in (log, rest))
        return Verdict(log, rest, said)

    def _tried(self, same: Callable[[], bool]) -> tuple[str, str]:
        try:
            return (HARMLESS if same() else SILENT), ""
        except (World, Problem) as error:
            return REFUSED, str(error)
        except Exception as error:  # what a stranger says of it is no answer, but it is no silence
            return BROKEN, f"{type(error).__name__}: {error}"

    def _read_log(self) -> Read:
        """Every record of every topic, as a worker reads them."""
        log = assemble.make_log(self._house)
        try:
            return {
                (topic, lane): tuple(log.read(topic, lane, extent.first, 1 << 30))
                for topic in self._topics
                for lane, extent in enumerate(log.extent(topic))
            }
        finally:
            log.close()

    def _read_rest(self) -> Content:
        """Every table, the rows of the log left out."""
        file = File(self.path, readonly=True)
        try:
            return tuple(t for t in contents(file.db) if not str(t[0]).startswith("log_"))
        finally:
            file.close()

    def _doctor(self) -> bool:
        """Would ``penstock doctor`` call the file unsound?"""
        try:
            file = File(self.path, readonly=True)
            said = file.run("PRAGMA quick_check")[0][0]
            file.close()
        except (apsw.Error, World, Problem):
            return True
        return bool(said != "ok")
