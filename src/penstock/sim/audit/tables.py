"""The tables of a PostgreSQL database, all of one moment, as ``StoreBook`` values
(docs/reference/postgres.md)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg

from penstock.sim.audit.books import (
    LIVE,
    Ask,
    Document,
    Flaw,
    Held,
    Mark,
    Moved,
    Owner,
    StoreBook,
)
from penstock.sim.audit.decode import Message, message_of
from penstock.sim.audit.opening import Unfit

ANSWER_SECONDS_MAX = 10
RUNNING_SECONDS = 5.0  # a process that reported so lately runs
_OUTBOX = (
    "id, destination, is_topic, key, name, idempotency_key, due, made_at, message, attempts,"
    " retry_at, error, settled_at, outcome, txn, epoch, settled_txn"
)
_WAITING = (
    'topic, partition, "offset", key, state, due, attempts, deaths, kind, appended_at, message,'
    " errors, txn, epoch"
)
_MOVED = (
    "SELECT topic, partition, first, copied FROM moved_offsets JOIN moves ON id = move"
    " WHERE state = 'switched'"
)
Connection = psycopg.Connection[Any]


def connected(dsn: str, schema: str) -> Connection:
    """A connection that sees one moment and writes nothing. Raises ``Unfit``."""
    try:
        connection = psycopg.connect(
            dsn, connect_timeout=ANSWER_SECONDS_MAX, application_name="penstock audit"
        )
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        connection.execute("SELECT set_config('search_path', %s, false)", (f'"{schema}"',))
    except psycopg.Error as error:
        raise Unfit(
            f"The database does not answer: {error}".strip() + ".",
            "Check the address in PENSTOCK_POSTGRES or [postgres], and what its user may read.",
        ) from None
    return connection


def is_running(dsn: str, schema: str) -> bool:
    """Has any process reported in the last seconds? Raises ``Unfit``."""
    with connected(dsn, schema) as connection:
        return bool(
            _rows(
                connection,
                "SELECT 1 FROM reports WHERE seen_at > now() - %s * interval '1 s' LIMIT 1",
                RUNNING_SECONDS,
            )
        )


def _rows(connection: Connection, sql: str, *values: Any) -> list[Any]:
    try:
        return connection.execute(sql.encode(), values).fetchall()
    except psycopg.Error as error:
        raise Unfit(
            f"The tables cannot be read: {error}".strip() + ".",
            "`penstock db status` says of which version they are.",
        ) from None


def read_stores(dsn: str, schema: str, flaws: list[Flaw]) -> dict[str, StoreBook]:
    """What every service wrote, in the namespace of real work. Raises ``Unfit``.

    What does not decode is left out and told in ``flaws``.
    """
    with connected(dsn, schema) as connection:
        scopes = _rows(
            connection, "SELECT id, service FROM scopes WHERE namespace = %s ORDER BY id", LIVE
        )
        return {
            service: _Reader(connection, scope, service, flaws).book() for scope, service in scopes
        }


def read_moved(dsn: str, schema: str) -> dict[tuple[str, int], Moved]:
    """Of a house that moved here, where each partition of its home begins here. Raises
    ``Unfit``."""
    with connected(dsn, schema) as connection:
        rows = _rows(connection, _MOVED)
    return {(topic, n): Moved(first, copied) for topic, n, first, copied in rows}


class _Reader:
    """One service's rows."""

    def __init__(
        self, connection: Connection, scope: int, service: str, flaws: list[Flaw]
    ) -> None:
        self._connection, self._scope = connection, scope
        self._service, self._flaws = service, flaws

    def book(self) -> StoreBook:
        marks = self._rows("id, txn, ordinal, epoch", "marks", "txn, ordinal")
        documents = self._rows("kind, key, label, body, txn, epoch", "documents", "kind, key")
        return StoreBook(
            self._service, list(self._owners()), list(map(Mark._make, marks)),
            list(map(Document._make, documents)), list(self._held()), list(self._asks()),
            self._rows("txn, at, positions::text", "checkpoints", "txn"),
        )  # fmt: skip

    def _rows(self, columns: str, table: str, order: str) -> list[Any]:
        sql = f"SELECT {columns} FROM {table} WHERE scope = %s ORDER BY {order}"
        return _rows(self._connection, sql, self._scope)

    def _flaw(self, rule: str, detail: str, *records: str) -> None:
        self._flaws.append(Flaw(rule, self._service, detail, records))

    def _owners(self) -> Iterator[Owner]:
        for lane, epoch, txn, positions in self._rows("lane, epoch, txn, positions", "owners",
                                                      "lane"):  # fmt: skip
            if not isinstance(positions, dict) or not all(
                type(at) is int for at in positions.values()
            ):
                self._flaw("I22", f"positions are no numbers: {positions}", f"owners lane {lane}")
                positions = {}
            yield Owner(lane, epoch, txn, positions)

    def _message(self, raw: bytes, key: str, rule: str, where: str) -> Message | None:
        message, wrong = message_of(raw)
        if message is None:
            self._flaw(rule, f"a row is unreadable: {wrong}", where)
        elif _shown(message.key) != key:
            self._flaw("I21", f"kept under the key {key}, written for {message.key}", where)
        return message

    def _held(self) -> Iterator[Held]:
        for row in self._rows(_WAITING, "waiting", 'topic, partition, "offset"'):
            place = f"{row[0]}[{row[1]}]@{row[2]}"
            m = self._message(row[10], row[3], "I22", place)
            errors = _errors(row[11])
            if errors is None:
                self._flaw("I22", f"the errors of a held record are none: {row[11]}", place)
            if m is not None:
                head = *row[:3], m.key, *row[4:10]
                yield Held._make((*head, m.id, m.type, m.value, errors or [], *row[12:]))

    def _asks(self) -> Iterator[Ask]:
        for row in self._rows(_OUTBOX, "outbox", "id"):
            m = self._message(row[8], row[3], "I24", f"outbox {row[0]}")
            if m is not None:
                head = *row[:3], m.key, *row[4:8]
                yield Ask._make((*head, m.id, m.cause, m.type, m.value, *row[9:], m.trace))


def _shown(key: str) -> str:
    """A key as its column has it: PostgreSQL knows no NUL."""
    return key.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def _errors(said: Any) -> list[tuple[int, str]] | None:
    if not isinstance(said, list):
        return None
    fits = all(
        isinstance(e, list) and len(e) == 2 and type(e[0]) is int and isinstance(e[1], str)
        for e in said
    )
    return [(at, text) for at, text in said] if fits else None
