"""Rows of another store, put into PostgreSQL as they are: a service at a time, whole or not at
all, and as often as it takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from penstock.errors import Conflict, Unreachable
from penstock.store.postgres_session import open_connection, schema_of, shown
from penstock.store.postgres_values import clean

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
_ORDER = {"outbox": sql.SQL(" ORDER BY id")}  # the ids are new, the order is kept
_FENCE = """
CREATE TRIGGER moving BEFORE INSERT OR UPDATE ON owners FOR EACH STATEMENT
EXECUTE FUNCTION refuse_moving()"""
_FIRST = "INSERT INTO moved_offsets(first, move, topic, partition) VALUES (%s, %s, %s, %s)"
_COPIED = "UPDATE moved_offsets SET copied = %s WHERE move = %s AND topic = %s AND partition = %s"
_STATE = "UPDATE moves SET state = %s, at = clock_timestamp() WHERE id = %s"


class PostgresCopy:
    """A connection for copying; one thread. Raises ``Unreachable``."""

    def __init__(self, where: str) -> None:
        self._shown = shown(where)
        try:
            self._connection = psycopg.connect(where, connect_timeout=10)
        except psycopg.Error as error:
            raise Unreachable(f"the database does not answer: {error}") from None
        schema = sql.Identifier(schema_of(where))
        self._connection.execute(sql.SQL("SET search_path TO {}").format(schema))
        self._connection.execute("SET penstock.moving = 'on'")  # the fence is for others
        self._connection.commit()

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()

    # Where the move stands ----------------------------------------------------------------------

    def state(self, move: str) -> str:
        """``copying``, ``switched`` or ``returned``; empty where the move never came here."""
        with self._connection.transaction():
            if not self._has_tables():
                return ""
            found = self._connection.execute(
                "SELECT state FROM moves WHERE id = %s", (move,)
            ).fetchone()
        return str(found[0]) if found else ""

    def refuse_others(self, move: str) -> None:
        """Raises ``Conflict`` where something is in the database that this move did not put
        there."""
        with self._connection.transaction():
            if self._has_tables():
                self._refuse_others(move)

    def begin(self, move: str, prefix: str, firsts: Mapping[str, Sequence[int]]) -> None:
        """Take the database for a move, and keep all others out until ``finish``. May repeat.
        Raises ``Conflict`` where somebody else has it."""
        run = self._connection.execute
        with self._connection.transaction():
            run("LOCK TABLE moves")
            self._refuse_others(move)
            run(
                "INSERT INTO moves(id, prefix, state) VALUES (%s, %s, 'copying')"
                " ON CONFLICT (id) DO UPDATE SET prefix = excluded.prefix, state = 'copying',"
                " at = clock_timestamp()", (move, prefix),
            )
            run("DELETE FROM moved_offsets WHERE move = %s", (move,))
            self._by_partition(_FIRST, move, firsts)
            self._fence()

    def finish(self, move: str, ends: Mapping[str, Sequence[int]]) -> None:
        """The move is through, with so many records of each partition: whoever wants to may work
        here."""
        with self._connection.transaction():
            self._by_partition(_COPIED, move, ends)
            self._connection.execute("DROP TRIGGER IF EXISTS moving ON owners")
            self._connection.execute(_STATE, ("switched", move))

    def _by_partition(
        self, query: LiteralString, move: str, numbers: Mapping[str, Sequence[int]]
    ) -> None:
        values = [(at, move, t, n) for t, each in numbers.items() for n, at in enumerate(each)]
        with self._connection.cursor() as cursor:
            cursor.executemany(query, values)

    @contextmanager
    def withdrawing(self, move: str) -> Iterator[int]:
        """Keep all out again, when the context is left in peace; gives the number of the latest
        transaction. Who has one open is waited for, and nobody begins another meanwhile."""
        with self._connection.transaction():
            self._fence()
            yield self._latest()
            self._connection.execute(_STATE, ("returned", move))

    def _has_tables(self) -> bool:
        return self._connection.execute("SELECT to_regclass('moves')").fetchone() != (None,)

    def _refuse_others(self, move: str) -> None:
        # Another move that is under way counts as well: two copies into the same topics would mix.
        other = self._connection.execute(
            "SELECT EXISTS (SELECT FROM moves WHERE id <> %s AND state <> 'returned')", (move,)
        ).fetchone()
        ours = self._connection.execute("SELECT FROM moves WHERE id = %s", (move,)).fetchone()
        used = self._connection.execute(
            "SELECT EXISTS (SELECT FROM owners) OR EXISTS (SELECT FROM documents)"
            " OR EXISTS (SELECT FROM outbox)"
        ).fetchone()
        if other == (True,) or (used == (True,) and ours is None):
            what = "is where another house moves to" if other == (True,) else (
                "holds the states of another house"
            )  # fmt: skip
            raise Conflict(
                "database_in_use", f"{self._shown} {what}.",
                "Name another database, or another schema in its connection string.",
            )

    def _fence(self) -> None:
        found = self._connection.execute(
            "SELECT FROM pg_trigger WHERE tgrelid = 'owners'::regclass AND tgname = 'moving'"
        ).fetchone()
        if found is None:
            self._connection.execute(_FENCE)

    # Rows ----------------------------------------------------------------------------------------

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
        """All rows of a service's table, their columns as in ``COLUMNS``; of the outbox in order.
        Read to the end before anything else is asked."""
        names = sql.SQL(", ").join(map(sql.Identifier, COLUMNS[table]))
        query = sql.SQL("SELECT {} FROM {} WHERE scope = %s").format(names, sql.Identifier(table))
        with self._connection.transaction(), self._connection.cursor("rows") as cursor:
            cursor.execute(query + _ORDER.get(table, sql.SQL("")), (self._scope(service),))
            yield from cursor

    def kept(self, rows: Iterable[Sequence[Any]]) -> Iterator[tuple[Any, ...]]:
        """Rows of another store as the columns here keep them."""
        yield from (tuple(map(_fit, row)) for row in rows)

    def latest(self) -> int:
        """The number of the latest transaction, 0 where there was none."""
        with self._connection.transaction():
            return self._latest()

    def _latest(self) -> int:
        found = self._connection.execute("SELECT coalesce(max(txn), 0) FROM owners").fetchone()
        return int(found[0]) if found else 0


def is_kept(where: str) -> bool:
    """Does the database keep everybody out, for a house is being moved there?"""
    with open_connection(where, "penstock") as connection:
        schema = sql.Literal(f'"{schema_of(where)}".owners')
        query = "SELECT FROM pg_trigger WHERE tgname = 'moving' AND tgrelid = to_regclass({})"
        return connection.execute(sql.SQL(query).format(schema)).fetchone() is not None


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
                out.write_row((self._scope, *map(_fit, row)))
                count += 1
        return count


def _fit(cell: Any) -> Any:
    return clean(cell) if isinstance(cell, str) else cell
