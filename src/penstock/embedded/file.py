"""An open embedded file: connection, transactions, and the append to its topics.

Every write goes through :meth:`File.write`: turnstile where the file is shared, BEGIN IMMEDIATE,
COMMIT, in that order; durable on return (WAL, synchronous=FULL). Statements are counted, so that
a test can hold the engine to its budget.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from penstock.embedded import rows
from penstock.embedded.schema import (
    APPLICATION_ID,
    CHECKPOINT_PAGES,
    FORMAT_VERSION,
    LOG_COLUMNS,
    PRAGMAS,
    TABLES,
    log_ddl,
    log_table,
)
from penstock.embedded.turnstile import Turnstile
from penstock.embedded.wal import frames_in, write_again
from penstock.errors import Conflict, Corrupt, NotFound, StorageFull
from penstock.event import Message, partition_of
from penstock.limits import OFFSET_BITS, OFFSET_MAX

SQLITE_SAFE = (3, 51, 3)  # the WAL-reset race is fixed here and in two older lines
SQLITE_SAFE_BACKPORTS = ((3, 44, 6), (3, 50, 7))
_WRITE_FAILED = {
    apsw.SQLITE_IOERR_WRITE,
    apsw.SQLITE_IOERR_TRUNCATE,
    apsw.SQLITE_IOERR_SHMSIZE,
    apsw.SQLITE_IOERR_SHMOPEN,
}


_DAMAGED = (apsw.CorruptError, apsw.NotADBError, UnicodeDecodeError)


def wal_safe(version: str) -> bool:
    """Is this SQLite free of the WAL-reset race (sqlite.org/wal.html#walresetbug)?"""
    parts = tuple(int(p) for p in version.split(".")[:3])
    if parts >= SQLITE_SAFE:
        return True
    return any(parts[:2] == safe[:2] and parts >= safe for safe in SQLITE_SAFE_BACKPORTS)


def is_full(error: apsw.Error) -> bool:
    """Does the error mean that the disk, a quota or a size limit is exhausted?"""
    if isinstance(error, apsw.FullError):
        return True
    return isinstance(error, apsw.IOError) and getattr(error, "extendedresult", 0) in _WRITE_FAILED


def _is_fence(error: apsw.Error) -> bool:
    """Did a fence refuse it (``embedded.fence``)? No other trigger is in a file."""
    return getattr(error, "extendedresult", 0) == apsw.SQLITE_CONSTRAINT_TRIGGER


class LogPages:
    """How long the write-ahead log was after the latest commit. No part of ``File``, for SQLite
    keeps it: a file that is let go of shall close at once."""

    pages = 0

    def __call__(self, _db: apsw.Connection, _name: str, pages: int) -> int:
        """SQLite tells it."""
        self.pages = pages
        return apsw.SQLITE_OK


class File:
    """One embedded file, opened for writing or, with ``readonly``, for reading.

    ``shared`` files have several writing processes and use the turnstile. ``path`` None is an
    in-memory database. ``vfs`` names the layer between SQLite and the disk, empty for the
    system's own. One thread uses a File at a time. Raises ``Conflict`` for a file of a newer
    format, ``NotFound`` when a reader finds none, and ``Corrupt``, then and later, where SQLite
    meets bytes that cannot be.
    """

    def __init__(
        self, path: Path | None, *, readonly: bool = False, shared: bool = False, vfs: str = ""
    ) -> None:
        self.path, self.readonly, self._vfs = path, readonly, vfs
        self.checkpoint_pages = CHECKPOINT_PAGES
        self._log = LogPages()
        self.executions = self.commits = 0
        self.beat: memoryview | None = None  # word 1: since when a transaction is open (ns)
        self._turnstile = Turnstile(path) if shared and path and not readonly else None
        self._partitions: dict[str, int] = {}
        self._looked_at: set[str] = set()
        try:
            self.db = self._open()
        except BaseException as error:
            if self._turnstile:
                self._turnstile.close()
            if isinstance(error, apsw.NotADBError):
                raise Conflict(
                    "not_a_store", f"{path} is no file of penstock's.",
                    "Put back the one that belongs there, or choose another --home.",
                ) from None
            if isinstance(error, _DAMAGED):
                raise self._damaged(error) from error
            raise
        self._cursor = self.db.cursor()

    def _open(self) -> apsw.Connection:
        if self.path is None:
            db = apsw.Connection(":memory:")
        elif self.readonly:
            if not self.path.exists():
                raise NotFound("file_missing", f"{self.path} does not exist.")
            flags = apsw.SQLITE_OPEN_READWRITE
            db = apsw.Connection(str(self.path), flags=flags, vfs=self._vfs or None)
        else:
            db = self._create(self.path)
        for pragma in PRAGMAS:
            db.execute(f"PRAGMA {pragma}")
        if self.readonly:
            db.execute("PRAGMA query_only=1")
        else:
            db.set_wal_hook(self._log)
        self._check_version(db)
        return db

    def _create(self, path: Path) -> apsw.Connection:
        """Open for writing and make the schema, whole or not at all, once."""
        if self._turnstile:
            self._turnstile.enter()
        try:
            db = apsw.Connection(str(path), vfs=self._vfs or None)
            try:
                self._make_ready(db, path)
            except BaseException:
                db.close()
                raise
            return db
        except apsw.Error as error:
            if is_full(error):
                raise StorageFull(f"{path}: {error}") from error
            raise
        finally:
            if self._turnstile:
                self._turnstile.leave()

    def _make_ready(self, db: apsw.Connection, path: Path) -> None:
        """A file with our schema, and nothing in it that a power cut could still take."""
        db.execute("PRAGMA busy_timeout=30000")
        if not db.pragma("application_id"):
            db.execute("PRAGMA auto_vacuum=INCREMENTAL")
            # To the end of the answer: SQLite commits behind its only row, and a sync that
            # fails there would be passed over.
            (mode,) = db.execute("PRAGMA journal_mode=WAL").fetchall()
            if mode != ("wal",):
                raise Conflict(
                    "no_wal", f"{path} cannot have a write-ahead log (its mode stays {mode[0]}).",
                    "Choose a --home on a local disk.",
                )
            os.chmod(path, 0o600)
        frames = frames_in(db)
        db.execute("BEGIN IMMEDIATE")
        if db.pragma("application_id"):
            write_again(path, frames, self._vfs)
        else:
            self._make_schema(db)
        db.execute("COMMIT")

    def _checkpoint(self) -> None:
        """Bring the file up to its log. SQLite would do so by itself at the end of a commit, and
        say nothing of a sync that failed. Here, before a transaction, who fails has committed
        nothing. Where there is no room for it, the log grows until the next time."""
        self._log.pages = 0
        try:
            self.db.wal_checkpoint()
        except apsw.Error as error:
            if not (is_full(error) or isinstance(error, apsw.BusyError)):
                raise

    def _make_schema(self, db: apsw.Connection) -> None:
        db.execute(TABLES)
        db.execute(f"PRAGMA application_id={APPLICATION_ID}")
        db.execute(f"PRAGMA user_version={FORMAT_VERSION}")

    def _check_version(self, db: apsw.Connection) -> None:
        if self.path is None:
            self._make_schema(db)
            return
        version = db.pragma("user_version")
        if version > FORMAT_VERSION:
            raise Conflict(
                "newer_format",
                f"{self.path} has format {version}; this penstock knows {FORMAT_VERSION}.",
                "Run the newer penstock that wrote it, or choose another --home.",
            )

    def close(self) -> None:
        """Close the connection and the locks."""
        self.db.close()
        if self._turnstile:
            self._turnstile.close()

    def run(self, sql: str, values: Sequence[Any] | dict[str, Any] = ()) -> list[Any]:
        """One statement, its rows as a list."""
        self.executions += 1
        try:
            return self._cursor.execute(sql, values).fetchall()
        except _DAMAGED as error:
            raise self._damaged(error) from error

    def run_many(self, sql: str, rows_: Iterable[Sequence[Any]]) -> list[Any]:
        """One statement over many rows of values; what it returns, for all of them."""
        self.executions += 1
        try:
            return self._cursor.executemany(sql, rows_).fetchall()
        except _DAMAGED as error:
            raise self._damaged(error) from error

    def stream(self, sql: str, values: Sequence[Any]) -> Iterator[Any]:
        """One statement, row by row, on a cursor of its own."""
        self.executions += 1
        try:
            yield from self.db.cursor().execute(sql, values)
        except _DAMAGED as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> Corrupt:
        return Corrupt(
            f"{self.path} is damaged ({error}). Stop penstock and restore the file from a backup; "
            "nothing is skipped or repaired."
        )

    @contextmanager
    def write(self) -> Iterator[None]:
        """A write transaction: commits, or rolls back when an exception passes.

        Raises ``Conflict`` where the file's house has moved, and ``StorageFull``; nothing was
        committed then. A failed fsync leaves as apsw's own error: the process must stop, because
        what reached the disk is unknown.
        """
        if self._turnstile:
            self._turnstile.enter()
        if self.beat is not None:
            self.beat[1] = time.monotonic_ns()  # whoever stops from here on blocks others
        try:
            if self._log.pages >= self.checkpoint_pages:
                self._checkpoint()
            self._cursor.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._cursor.execute("COMMIT")
                self.commits += 1
            except BaseException:
                if self.db.in_transaction:
                    self._cursor.execute("ROLLBACK")
                raise
        except apsw.Error as error:
            if is_full(error):
                raise StorageFull(f"{self.path}: {error}") from error
            if isinstance(error, _DAMAGED):
                raise self._damaged(error) from error
            if _is_fence(error):
                raise Conflict(
                    "moved", f"{self.path} is not written any more: {error}.",
                    "Work goes on there; or, before any was done: penstock migrate return",
                ) from None
            raise
        finally:
            if self.beat is not None:
                self.beat[1] = 0
            if self._turnstile:
                self._turnstile.leave()

    def ensure_topic(self, topic: str, partitions: int) -> None:
        """Make a topic's log. Raises ``Conflict`` when it exists with another count."""
        found = self.run("SELECT partitions FROM topics WHERE name = ?", (topic,))
        self.look_at(topic)
        if not found:
            with self.write():
                self.db.execute(log_ddl(topic))
                self.run("INSERT OR IGNORE INTO topics VALUES(?, ?)", (topic, partitions))
            found = self.run("SELECT partitions FROM topics WHERE name = ?", (topic,))
        if found[0][0] != partitions:
            raise Conflict(
                "partition_count",
                f"topic {topic} has {found[0][0]} partitions, the catalog says {partitions}.",
                "Put the count back: keys would move to other partitions.",
            )
        self._partitions[topic] = partitions

    def look_at(self, topic: str) -> None:
        """Make sure, once, that nothing hides rows of a topic's log: one letter of its declaration
        changed, and every row reads as if it were not there; one bit of a row's place, and it
        lies in a partition that nobody asks for. Raises ``Corrupt``."""
        if topic in self._looked_at:
            return
        try:
            found = self.db.execute(
                "SELECT name, type, pk FROM pragma_table_info(?)", (f"log_{topic}",)
            ).fetchall()
            if not found:
                return
            if tuple(found) != LOG_COLUMNS:
                raise self._damaged(ValueError(f"the log of {topic} is declared otherwise"))
            table = log_table(topic)
            astray = self.db.execute(
                f"SELECT (SELECT min(at) FROM {table}) < 0 OR (SELECT max(at) FROM {table}) >="
                f" (SELECT partitions << {OFFSET_BITS} FROM topics WHERE name = ?)", (topic,)
            ).fetchall()
        except _DAMAGED as error:
            raise self._damaged(error) from error
        if astray[0][0]:
            raise self._damaged(ValueError(f"a row of {topic} lies in no partition of it"))
        self._looked_at.add(topic)

    def partitions(self, topic: str) -> int:
        """The partition count of a topic in this file. Raises ``NotFound``."""
        count = self._partitions.get(topic)
        if count is None:
            found = self.run("SELECT partitions FROM topics WHERE name = ?", (topic,))
            if not found:
                raise NotFound("topic_missing", f"{self.path} has no topic {topic}.")
            self.look_at(topic)
            count = self._partitions[topic] = found[0][0]
        return count

    def append(
        self, topic: str, messages: Sequence[Message], now: int, txn: int, epoch: int
    ) -> None:
        """Append inside the caller's transaction; offsets are assigned here, never cached."""
        count, table = self.partitions(topic), log_table(topic)
        groups = rows.by_partition((partition_of(m.key, count), m) for m in messages)
        ends = self._ends(table, list(groups))
        packed = []
        for partition, group in groups.items():
            offset, latest = ends.get(partition, (0, 0))
            for chunk in rows.split(group):
                packed.append(rows.pack(partition, offset, chunk, max(now, latest)))
                offset += len(chunk)
        self.run_many(
            f"INSERT INTO {table}(at, count, appended_at, schemas, codec, crc, body, txn, epoch)"
            f" VALUES(?, ?, ?, ?, ?, ?, ?, {int(txn)}, {int(epoch)})",
            packed,
        )

    def _ends(self, table: str, partitions: list[int]) -> dict[int, tuple[int, int]]:
        """Next offset and latest append time of each partition that has rows."""
        found = self.run(
            f"SELECT at, appended_at FROM {table} WHERE at IN (SELECT (SELECT max(at) FROM {table}"
            " WHERE at >= value << ?2 AND at <= (value << ?2) | ?3) FROM json_each(?1))",
            (json.dumps(partitions), OFFSET_BITS, OFFSET_MAX),
        )
        return {at >> OFFSET_BITS: ((at & OFFSET_MAX) + 1, latest) for at, latest in found}
