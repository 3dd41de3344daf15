"""The tables of one service, read from any SQLite connection into a ``StoreBook``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import apsw
import msgspec

from penstock.sim.audit.books import (
    LIVE,
    Ask,
    Document,
    Flaw,
    Held,
    Mark,
    Owner,
    StoreBook,
)
from penstock.sim.audit.decode import errors_of, message_of

_POSITIONS = msgspec.json.Decoder(dict[str, int])
_INT, _TEXT, _BLOB, _NONE = (int,), (str,), (bytes,), (type(None),)
Kinds = tuple[tuple[type, ...], ...]

_OWNERS = "SELECT lane, epoch, txn, positions FROM owners WHERE scope = ? ORDER BY lane"
_MARKS = "SELECT id, txn, ordinal, epoch FROM marks WHERE scope = ? ORDER BY txn, ordinal"
_DOCUMENTS = "SELECT kind, key, label, body, txn, epoch FROM documents WHERE scope = ?"
_WAITING = (
    "SELECT topic, partition, offset, key, state, due, attempts, deaths, kind, appended_at,"
    " message, errors, txn, epoch FROM waiting WHERE scope = ? ORDER BY topic, partition, offset"
)
_OUTBOX = (
    "SELECT id, destination, is_topic, key, name, idempotency_key, due, made_at, message,"
    " attempts, retry_at, error, settled_at, outcome, txn, epoch, settled_txn FROM outbox"
    " WHERE scope = ? ORDER BY id"
)
_CHECKPOINTS = "SELECT txn, at, positions FROM checkpoints WHERE scope = ? ORDER BY txn"

_OWNER_KINDS: Kinds = (_INT, _INT, _INT, _TEXT)
_MARK_KINDS: Kinds = (_BLOB, _INT, _INT, _INT)
_DOCUMENT_KINDS: Kinds = (_TEXT, _TEXT, _TEXT + _NONE, _BLOB + _NONE, _INT, _INT)
_WAITING_KINDS: Kinds = (
    _TEXT, _INT, _INT, _TEXT, _TEXT, _INT, _INT, _INT, _TEXT, _INT, _BLOB, _BLOB, _INT, _INT,
)  # fmt: skip
_OUTBOX_KINDS: Kinds = (
    _INT, _TEXT, _INT, _TEXT, _TEXT, _TEXT, _INT, _INT, _BLOB, _INT, _INT, _TEXT, _INT + _NONE,
    _TEXT, _INT, _INT, _INT + _NONE,
)  # fmt: skip
_CHECKPOINT_KINDS: Kinds = (_INT, _INT, _TEXT)


def read_store(
    connection: apsw.Connection, service: str, flaws: list[Flaw] | None = None
) -> StoreBook:
    """What one service wrote, in the namespace of real work; nothing where it never ran.

    What does not decode is left out and told in ``flaws``.
    """
    reader = _Reader(connection, service, [] if flaws is None else flaws)
    if not reader.find_scope():
        return StoreBook(service)
    return StoreBook(
        service,
        reader.owners(),
        list(map(Mark._make, reader.rows("marks", _MARKS, _MARK_KINDS, "I22"))),
        list(map(Document._make, reader.rows("documents", _DOCUMENTS, _DOCUMENT_KINDS, "I23"))),
        reader.held(),
        reader.asks(),
        list(reader.rows("checkpoints", _CHECKPOINTS, _CHECKPOINT_KINDS, "I27")),
    )


class _Reader:
    """One service's tables behind one connection."""

    def __init__(self, connection: apsw.Connection, service: str, flaws: list[Flaw]) -> None:
        self._connection, self._service, self._flaws = connection, service, flaws
        self._scope = 0

    def find_scope(self) -> bool:
        found = self._run(
            "scopes", "I23", "SELECT id FROM scopes WHERE service = ? AND namespace = ?",
            (self._service, LIVE),
        )
        self._scope = found[0][0] if found else 0
        return bool(found)

    def _run(self, table: str, rule: str, sql: str, values: Sequence[Any]) -> list[Any]:
        try:
            return self._connection.execute(sql, values).fetchall()
        except (apsw.Error, ValueError) as error:
            self._flaw(rule, f"the table {table} cannot be read: {error}", table)
            return []

    def _flaw(self, rule: str, detail: str, *records: str) -> None:
        self._flaws.append(Flaw(rule, self._service, detail, records))

    def rows(self, table: str, sql: str, kinds: Kinds, rule: str) -> Iterator[tuple[Any, ...]]:
        """The rows of a table whose cells are what the page says."""
        known: dict[tuple[type, ...], bool] = {}
        for n, row in enumerate(self._run(table, rule, sql, (self._scope,))):
            shape = tuple(map(type, row))
            fits = known.get(shape)
            if fits is None:
                fits = all(t in kind for t, kind in zip(shape, kinds, strict=True))
                known[shape] = fits
            if fits:
                yield row
            else:
                names = ", ".join(t.__name__ for t in shape)
                self._flaw(rule, f"a row of {table} holds ({names})", f"{table} row {n}")

    def owners(self) -> list[Owner]:
        found = []
        for lane, epoch, txn, text in self.rows("owners", _OWNERS, _OWNER_KINDS, "I28"):
            positions = self._decoded(_POSITIONS.decode, text, f"owners lane {lane}")
            found.append(Owner(lane, epoch, txn, positions or {}))
        return found

    def _decoded(self, decode: Callable[[str], dict[str, int]], text: str, where: str) -> Any:
        try:
            return decode(text)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            self._flaw("I22", f"positions do not decode: {error}", where)
            return None

    def held(self) -> list[Held]:
        found = []
        for row in self.rows("waiting", _WAITING, _WAITING_KINDS, "I22"):
            place = f"{row[0]}[{row[1]}]@{row[2]}"
            message, wrong = message_of(row[10])
            errors, wrong_too = errors_of(row[11])
            if message is None or wrong_too:
                self._flaw("I22", f"a held record is unreadable: {wrong or wrong_too}", place)
                continue
            found.append(
                Held._make(
                    (*row[:10], message.id, message.type, message.value, errors, *row[12:])
                )
            )
            if message.key != row[3]:
                self._flaw("I21", f"held under the key {row[3]}, written for {message.key}", place)
        return found

    def asks(self) -> list[Ask]:
        found = []
        for row in self.rows("outbox", _OUTBOX, _OUTBOX_KINDS, "I24"):
            m, wrong = message_of(row[8])
            where = f"outbox {row[0]}"
            if m is None:
                self._flaw("I24", f"an outbox row is unreadable: {wrong}", where)
                continue
            head = *row[:2], bool(row[2]), *row[3:8]
            found.append(
                Ask._make((*head, m.id, m.cause, m.type, m.value, *row[9:], m.trace))
            )
            if m.key != row[3]:
                self._flaw("I21", f"asked under the key {row[3]}, written for {m.key}", where)
        return found
