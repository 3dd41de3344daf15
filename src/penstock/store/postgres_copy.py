"""Rows of another store, put into PostgreSQL as they are: a service at a time, whole or not at
all, and as often as it takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql

from penstock.errors import Unreachable
from penstock.store.postgres_session import schema_of

COLUMNS: dict[str, tuple[str, ...]] = {
    "owners": ("lane", "epoch", "txn", "positions"),
    "checkpoints": ("txn", "at", "positions"),
    "marks": ("id", "txn", "ordinal", "epoch"),
    "documents": ("kind", "key", "label", "body", "txn", "epoch", "before"),
    "waiting": (
        "topic", "partition", "offset", "key", "state", "due", "attempts", "deaths", "kind",
        "appended_at", "message", "errors", "txn", "epoch",
    ),
    "outbox": (
        "destination", "is_topic", "shard", "key", "name", "idempotency_key", "due", "made_at",
        "message", "attempts", "retry_at", "error", "settled_at", "outcome", "txn", "epoch",
        "settled_txn",
    ),
}  # fmt: skip
_SCOPED = (*COLUMNS, "attempts", "couriers")


class PostgresCopy:
    """A connection for copying; one thread. Raises ``Unreachable``."""

    def __init__(self, where: str) -> None:
        try:
            self._connection = psycopg.connect(where, connect_timeout=10)
        except psycopg.Error as error:
            raise Unreachable(f"the database does not answer: {error}") from None
        schema = sql.Identifier(schema_of(where))
        self._connection.execute(sql.SQL("SET search_path TO {}").format(schema))
        self._connection.commit()

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()

    @contextmanager
    def replacing(self, service: str) -> Iterator[Copying]:
        """Replace all that is there of a service, when the context is left in peace."""
        with self._connection.transaction():
            run = self._connection.execute
            run(
                "INSERT INTO scopes(service, namespace) VALUES (%s, 'live') ON CONFLICT DO NOTHING",
                (service,),
            )
            scope = self._scope(service)
            for table in _SCOPED:
                run(sql.SQL("DELETE FROM {} WHERE scope = %s").format(sql.Identifier(table)),
                    (scope,))  # fmt: skip
            yield Copying(self._connection, scope)

    def _scope(self, service: str) -> int:
        found = self._connection.execute(
            "SELECT id FROM scopes WHERE service = %s AND namespace = 'live'", (service,)
        ).fetchone()
        return int(found[0]) if found else 0

    def number_from(self, txn: int) -> None:
        """Transactions to come have higher numbers than this one."""
        with self._connection.transaction():
            self._connection.execute(
                "SELECT setval('txns', greatest(%s, (SELECT last_value FROM txns)))", (max(1, txn),)
            )

    def rows(self, service: str, table: str) -> Iterator[tuple[Any, ...]]:
        """All rows of a service's table, their columns as in ``COLUMNS``."""
        names = sql.SQL(", ").join(map(sql.Identifier, COLUMNS[table]))
        query = sql.SQL("SELECT {} FROM {} WHERE scope = %s").format(names, sql.Identifier(table))
        with self._connection.transaction():
            yield from self._connection.execute(query, (self._scope(service),))

    def services(self) -> list[str]:
        """Whoever has rows here."""
        with self._connection.transaction():
            found = self._connection.execute(
                "SELECT DISTINCT service FROM scopes s WHERE EXISTS"
                " (SELECT FROM owners o WHERE o.scope = s.id)"
            ).fetchall()
        return sorted(name for (name,) in found)

    def latest(self) -> int:
        """The number of the latest transaction, 0 where there was none."""
        with self._connection.transaction():
            found = self._connection.execute("SELECT coalesce(max(txn), 0) FROM owners").fetchone()
        return int(found[0]) if found else 0


class Copying:
    """One service's rows being put in."""

    def __init__(self, connection: psycopg.Connection[Any], scope: int) -> None:
        self._connection, self._scope = connection, scope

    def put(self, table: str, rows: Iterable[Sequence[Any]]) -> int:
        """Put rows into a table, their columns as in ``COLUMNS``; how many."""
        names = sql.SQL(", ").join(map(sql.Identifier, ("scope", *COLUMNS[table])))
        copy = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), names)
        count = 0
        with self._connection.cursor() as cursor, cursor.copy(copy) as out:
            for row in rows:
                out.write_row((self._scope, *row))
                count += 1
        return count
