"""The durable ledger of a sandbox: every call, every effect once, every webhook still to send.

One SQLite file (WAL, synchronous=FULL): what a sandbox answered is on the disk before the answer
leaves. Written by one process and one thread; anybody may read it while it is in use.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import apsw
from msgspec import Struct

from penstock.errors import Conflict, NotFound, StorageFull

FORMAT_VERSION = 1
PAGE_ROWS_MAX = 1000

TABLES = """
CREATE TABLE IF NOT EXISTS calls(
  seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, key TEXT NOT NULL, operation TEXT NOT NULL,
  order_id TEXT NOT NULL, part TEXT NOT NULL, amount INTEGER, currency TEXT NOT NULL,
  outcome TEXT NOT NULL, status INTEGER NOT NULL, fault TEXT NOT NULL,
  request TEXT NOT NULL, response TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS calls_by_order ON calls(order_id, part);
CREATE TABLE IF NOT EXISTS effects(
  seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, key TEXT NOT NULL UNIQUE,
  operation TEXT NOT NULL, order_id TEXT NOT NULL, part TEXT NOT NULL, id TEXT NOT NULL,
  reference TEXT NOT NULL, amount INTEGER, currency TEXT NOT NULL, method TEXT NOT NULL,
  due INTEGER);
CREATE INDEX IF NOT EXISTS effects_by_order ON effects(order_id);
CREATE TABLE IF NOT EXISTS outcomes(
  key TEXT PRIMARY KEY, operation TEXT NOT NULL, digest TEXT NOT NULL, status INTEGER NOT NULL,
  response TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS deliveries(
  seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, order_id TEXT NOT NULL, part TEXT NOT NULL,
  path TEXT NOT NULL, body TEXT NOT NULL, due INTEGER NOT NULL, copies INTEGER NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0, next_at INTEGER, sent_at INTEGER, cancelled_at INTEGER);
CREATE INDEX IF NOT EXISTS deliveries_pending ON deliveries(next_at) WHERE next_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS deliveries_by_order ON deliveries(order_id);
CREATE TABLE IF NOT EXISTS mails(
  seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, key TEXT NOT NULL, order_id TEXT NOT NULL,
  kind TEXT NOT NULL, recipient TEXT NOT NULL, subject TEXT NOT NULL, text TEXT NOT NULL,
  duplicate INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS mails_by_key ON mails(key);
CREATE TABLE IF NOT EXISTS faults(
  id INTEGER PRIMARY KEY, operation TEXT NOT NULL, order_id TEXT NOT NULL, method TEXT NOT NULL,
  fault TEXT NOT NULL, times INTEGER, seconds REAL);
CREATE TABLE IF NOT EXISTS notes(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


class Call(Struct, frozen=True, kw_only=True):
    """One call as it arrived and what it was answered; ``status`` 0 is no answer at all.

    ``outcome``: done, refused, repeated (the first outcome again), mismatched (same key, other
    body), malformed, unavailable (nothing done), silent (nothing done, never answered).
    """

    at: int
    key: str
    operation: str
    order: str
    part: str
    outcome: str
    status: int
    amount: int | None = None
    currency: str = ""
    fault: str = ""
    request: str = ""
    response: str = ""
    seq: int = 0


class Effect(Struct, frozen=True, kw_only=True):
    """Something that happened in the outside world, once per key.

    ``part`` is the group, refund or shipment; ``reference`` the payment or label it is about;
    ``due`` (ms) is when a parcel is handed over, None where that is left to somebody else.
    """

    at: int
    key: str
    operation: str
    order: str
    part: str
    id: str
    reference: str = ""
    amount: int | None = None
    currency: str = ""
    method: str = ""
    due: int | None = None
    seq: int = 0


class Stored(Struct, frozen=True, kw_only=True):
    """The first outcome of a key, answered again to every repeat."""

    key: str
    operation: str
    digest: str
    status: int
    response: str


class Delivery(Struct, frozen=True, kw_only=True):
    """A webhook to POST to the door at ``due`` (ms), ``copies`` times, until it answers 2xx."""

    id: str
    order: str
    part: str
    path: str
    body: str
    due: int
    copies: int = 1
    attempts: int = 0
    next_at: int | None = None
    sent_at: int | None = None
    cancelled_at: int | None = None
    seq: int = 0


class Mail(Struct, frozen=True, kw_only=True):
    """One message as caught; ``duplicate`` when its key had been caught before."""

    at: int
    key: str
    order: str
    kind: str
    to: str
    subject: str
    text: str
    duplicate: bool
    seq: int = 0


class Fault(Struct, frozen=True, kw_only=True):
    """A scripted fault for an order and a method ("*" is any), ``times`` more (None: always)."""

    operation: str
    fault: str
    order: str = "*"
    method: str = "*"
    times: int | None = 1
    seconds: float | None = None
    id: int = 0


T = TypeVar("T", bound=Struct)
_COLUMN = {"order": "order_id", "to": "recipient"}  # SQL reserves the words we use
_TABLE: dict[type[Struct], str] = {
    Call: "calls",
    Effect: "effects",
    Stored: "outcomes",
    Delivery: "deliveries",
    Mail: "mails",
    Fault: "faults",
}


def _columns(kind: type[Struct]) -> list[str]:
    return [_COLUMN.get(name, name) for name in kind.__struct_fields__]


class Ledger:
    """An open ledger. Reads see committed rows; writes go through :meth:`write`.

    Raises ``Conflict`` when another process writes it or wrote it in a newer format, ``NotFound``
    when there is nothing to read.
    """

    def __init__(self, path: Path, *, readonly: bool = False) -> None:
        if readonly and not path.exists():
            raise NotFound("ledger_missing", f"{path} does not exist.")
        self.path = path
        self._lock = -1 if readonly else _claim(path)
        self._db = apsw.Connection(str(path))
        try:
            self._open(readonly)
        except BaseException:
            self.close()
            raise

    def _open(self, readonly: bool) -> None:
        for pragma in ("busy_timeout=10000", "journal_mode=WAL", "synchronous=FULL"):
            # To the end of the answer: SQLite does its work behind the only row of one.
            self._db.execute(f"PRAGMA {pragma}").fetchall()
        if not readonly:
            os.chmod(self.path, 0o600)
            self._make_schema()
            return
        self._db.execute("PRAGMA query_only=1")
        if not self._db.pragma("user_version"):  # its sandbox is only just making it
            raise NotFound("ledger_missing", f"{self.path} holds no ledger yet.")

    def _make_schema(self) -> None:
        version = self._db.pragma("user_version")
        if version > FORMAT_VERSION:
            raise Conflict(
                "newer_format",
                f"{self.path} has format {version}; this sandbox knows {FORMAT_VERSION}.",
                "Run the newer penstock that wrote it, or choose another --home.",
            )
        with self.write():
            self._db.execute(TABLES)
            self._db.execute(f"PRAGMA user_version={FORMAT_VERSION}")

    def close(self) -> None:
        """Close the file and give up the claim on it."""
        self._db.close()
        if self._lock >= 0:
            os.close(self._lock)

    @contextmanager
    def write(self) -> Iterator[None]:
        """One transaction, durable on leaving; rolled back when an exception passes.

        Raises ``StorageFull``: then nothing was written. Any other failure of the disk leaves as
        apsw's own error and ends the call without a promise.
        """
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except BaseException as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if isinstance(error, apsw.Error) and _is_full(error):
                raise StorageFull(f"{self.path}: {error}") from error
            raise

    def add(self, row: Struct) -> int:
        """Write a row inside :meth:`write` and return its rowid; ``seq`` and ``id`` 0 are assigned.

        Raises ``apsw.ConstraintError`` on a second effect or outcome of one key.
        """
        kind = type(row)
        assigned = {n for n in ("seq", "id") if not getattr(row, n, True)}
        names = [name for name in kind.__struct_fields__ if name not in assigned]
        columns = ", ".join(_COLUMN.get(name, name) for name in names)
        marks = ", ".join("?" * len(names))
        self._db.execute(
            f"INSERT INTO {_TABLE[kind]}({columns}) VALUES({marks})",
            [getattr(row, name) for name in names],
        )
        return self._db.last_insert_rowid()

    def rows(self, kind: type[T], where: str = "1", values: Sequence[Any] = ()) -> list[T]:
        """Rows of a table in the order they were written; ``where`` is trusted SQL."""
        names = kind.__struct_fields__
        order = "key" if kind is Stored else "rowid"
        sql = f"SELECT {', '.join(_columns(kind))} FROM {_TABLE[kind]} WHERE {where}"
        found = self._db.execute(f"{sql} ORDER BY {order} LIMIT {PAGE_ROWS_MAX}", values)
        return [kind(**dict(zip(names, row, strict=True))) for row in found]

    def history(self, order: str) -> list[Effect]:
        """Everything that happened for an order."""
        return self.rows(Effect, "order_id = ?", (order,))

    def stored(self, key: str) -> Stored | None:
        """The first outcome of a key."""
        return next(iter(self.rows(Stored, "key = ?", (key,))), None)

    def count_calls(self, order: str, part: str, operation: str = "") -> int:
        """Calls so far about a part of an order, of one operation or of all."""
        sql = "SELECT count(*) FROM calls WHERE order_id = ? AND part = ?"
        values = [order, part]
        if operation:
            sql, values = f"{sql} AND operation = ?", [*values, operation]
        return int(self._db.execute(sql, values).get or 0)

    def due(self, now: int, limit: int, order: str = "") -> list[Delivery]:
        """Deliveries to try by ``now``, the earliest first, of one order or of all.

        A parcel's scans go in the order they were made: one that the door does not take holds
        back the later ones of its part of the order, and no others.
        """
        seqs = self._db.execute(
            "SELECT seq FROM deliveries d WHERE next_at <= ? AND (? = '' OR order_id = ?)"
            " AND NOT EXISTS (SELECT 1 FROM deliveries e WHERE e.order_id = d.order_id"
            " AND e.part = d.part AND e.next_at IS NOT NULL AND (e.due, e.seq) < (d.due, d.seq))"
            " ORDER BY next_at, seq LIMIT ?",
            (now, order, order, limit),
        ).fetchall()
        found = self.rows(Delivery, f"seq IN ({','.join(str(s) for (s,) in seqs)})")
        return sorted(found, key=lambda d: (d.next_at or 0, d.seq))

    def next_due(self) -> int | None:
        """When (ms) the earliest pending delivery is to be tried."""
        at: int | None = self._db.execute(
            "SELECT min(next_at) FROM deliveries WHERE next_at IS NOT NULL"
        ).get
        return at

    def tried(self, delivery: Delivery, now: int, retry_at: int | None) -> None:
        """Note an attempt: sent when ``retry_at`` is None, else to be tried again."""
        left = delivery.copies - 1 if retry_at is None else delivery.copies
        self._db.execute(
            "UPDATE deliveries SET attempts = attempts + 1, copies = ?, sent_at = ?, next_at = ?"
            " WHERE seq = ?",
            (
                left,
                now if retry_at is None else delivery.sent_at,
                retry_at if retry_at is not None else (now if left else None),
                delivery.seq,
            ),
        )

    def try_again(self) -> None:
        """Forget how long pending deliveries were to wait after a failure, durable at once."""
        with self.write():
            self._db.execute("UPDATE deliveries SET next_at = due WHERE next_at > due")

    def cancel(self, order: str, part: str, now: int) -> None:
        """Send nothing more about a part of an order."""
        self._db.execute(
            "UPDATE deliveries SET cancelled_at = ?, next_at = NULL"
            " WHERE order_id = ? AND part = ? AND next_at IS NOT NULL",
            (now, order, part),
        )

    def use_up(self, fault: Fault) -> None:
        """Count one use of a scripted fault, durable at once."""
        with self.write():
            self._db.execute("UPDATE faults SET times = times - 1 WHERE id = ?", (fault.id,))
            self._db.execute("DELETE FROM faults WHERE times <= 0")

    def clear_faults(self) -> int:
        """Drop the whole script inside :meth:`write`; returns how many were left."""
        self._db.execute("DELETE FROM faults")
        return self._db.changes()

    def note(self, name: str, value: str | None = None) -> str:
        """A small remembered value; with ``value`` it is set, inside :meth:`write`."""
        if value is not None:
            self._db.execute("INSERT OR REPLACE INTO notes VALUES(?, ?)", (name, value))
            return value
        return str(self._db.execute("SELECT value FROM notes WHERE name = ?", (name,)).get or "")


def _is_full(error: apsw.Error) -> bool:
    if isinstance(error, apsw.IOError):  # a quota or a size limit shows as a failed write
        return bool(getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_WRITE)
    return isinstance(error, apsw.FullError)


def _claim(path: Path) -> int:
    """Hold the ledger for this process alone; the claim dies with the process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Conflict(
            "ledger_in_use",
            f"{path} is in use by another sandbox.",
            "Stop that one first, or choose another --home.",
        ) from None
    return descriptor
