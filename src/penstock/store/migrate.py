"""The schema of the PostgreSQL store and its history: numbered SQL files, each applied once.

A file is a transaction. An advisory lock lets one at a time apply them; the checksum of each is
kept, so that a file that was changed afterwards is seen. Files only add: workers of the version
before go on beside it, and one that finds a schema newer than itself does not start.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import sha256
from importlib.resources import files
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from penstock.errors import Conflict, Unreachable
from penstock.flow import Flow
from penstock.store.postgres_session import (
    Session,
    Statement,
    open_connection,
    schema_of,
    shown,
)
from penstock.store.postgres_values import number_of
from penstock.store.postgres_views import make_views

LOCK = 0x70656E73746F636B  # "penstock"
LOCK_MS = 5000  # a change that waits for a running transaction makes all others wait behind it
TRIES_MAX = 20
NOT_MIGRATED = {"3F000", "42P01"}
BUSY = {"55P03", "40P01"}

_HISTORY = """
CREATE TABLE IF NOT EXISTS migrations(
  number integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"""
_NEWEST = Statement("SELECT max(number), count(*) FROM migrations")


class Migration(NamedTuple):
    """One numbered file."""

    number: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """Of the text as it is."""
        return sha256(self.text.encode()).hexdigest()


class Step(NamedTuple):
    """Where a migration stands: ``applied``, ``pending``, ``changed`` (the file is not the one
    that was applied) or ``unknown`` (applied by a newer penstock)."""

    number: int
    name: str
    state: str
    applied_at: str = ""

    @property
    def title(self) -> str:
        """Number and name, as the file is called."""
        return f"{self.number:04}_{self.name}"


@lru_cache(maxsize=1)
def known() -> tuple[Migration, ...]:
    """The files of this penstock, by number."""
    found = []
    for file in (files("penstock.store") / "migrations").iterdir():
        named = re.fullmatch(r"(\d{4})_(\w+)\.sql", file.name)
        if named:
            found.append(Migration(int(named[1]), named[2], file.read_text(encoding="utf-8")))
    return tuple(sorted(found))


def status(where: str) -> list[Step]:
    """Every migration, known or applied, by number. Raises ``Unreachable``."""
    with open_connection(where, "penstock db") as connection:
        return _compared(_applied(connection))


def pending(where: str) -> list[str]:
    """What ``apply`` would apply. Raises ``Conflict`` where the schema is not ours to touch."""
    steps = status(where)
    _refuse_foreign(where, steps)
    return [step.title for step in steps if step.state == "pending"]


def apply(where: str, views_of: Flow | None = None) -> list[str]:
    """Bring the schema up to date, and the views of a flow's documents; returns what was applied.

    May be run again, by several at once, and while workers run. Raises ``Conflict`` where the
    schema is newer than this penstock, or was not made of these files.
    """
    try:
        with open_connection(where, "penstock db migrate") as connection:
            connection.execute("SELECT set_config('lock_timeout', '0', false)")
            connection.execute("SELECT pg_advisory_lock(%s)", [LOCK])
            done = _apply(connection, where)
            if views_of is not None:
                make_views(connection, views_of)
    except psycopg.OperationalError as error:
        raise Unreachable(f"{shown(where)} does not answer: {error}") from error
    return done


def views(where: str, flow: Flow) -> list[dict[str, Any]]:
    """Make the views of a flow's documents; their names with their columns."""
    with open_connection(where, "penstock db views") as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        return make_views(connection, flow)


def _apply(connection: psycopg.Connection[Any], where: str) -> list[str]:
    """What is pending, under the lock that this connection holds."""
    make = sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema_of(where)))
    if _schema_missing(connection, where):
        connection.execute(make)
    connection.execute(_HISTORY)
    steps = _compared(_applied(connection))
    _refuse_foreign(where, steps)
    ours = {m.number: m for m in known()}
    wanted = [step for step in steps if step.state == "pending"]
    for step in wanted:
        _run(connection, ours[step.number])
    return [step.title for step in wanted]


def _schema_missing(connection: psycopg.Connection[Any], where: str) -> bool:
    # Asked first: CREATE SCHEMA wants a right on the database that a careful site does not give.
    found = connection.execute(
        "SELECT FROM pg_namespace WHERE nspname = %s", [schema_of(where)]
    )
    return found.fetchone() is None


def _run(connection: psycopg.Connection[Any], migration: Migration) -> None:
    """One file, whole or not at all; it gives way to what runs, and tries again."""
    for _ in range(TRIES_MAX):
        try:
            with connection.transaction():
                connection.execute(f"SET LOCAL lock_timeout = {LOCK_MS}".encode())
                connection.execute("SET LOCAL statement_timeout = 0")
                connection.execute(migration.text.encode())
                connection.execute(
                    "INSERT INTO migrations(number, name, checksum) VALUES(%s, %s, %s)",
                    [migration.number, migration.name, migration.checksum],
                )
            return
        except psycopg.Error as error:
            if error.sqlstate not in BUSY:
                raise
    raise Conflict(
        "database_busy",
        f"Migration {migration.number:04} ({migration.name}) found no moment without a "
        "transaction that uses what it changes.",
        "Look for one that stands still (pg_stat_activity), then run `penstock db migrate` again.",
    )


def _applied(connection: psycopg.Connection[Any]) -> dict[int, tuple[str, str, str]]:
    try:
        found = connection.execute(
            "SELECT number, name, checksum, to_char(applied_at AT TIME ZONE 'UTC',"
            " 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') FROM migrations ORDER BY number"
        )
    except psycopg.Error as error:
        if error.sqlstate in NOT_MIGRATED:
            return {}
        raise
    return {number: (name, checksum, at) for number, name, checksum, at in found}


def _compared(applied: dict[int, tuple[str, str, str]]) -> list[Step]:
    ours, steps = {m.number: m for m in known()}, []
    for number in sorted(ours.keys() | applied.keys()):
        if number not in applied:
            steps.append(Step(number, ours[number].name, "pending"))
            continue
        name, checksum, at = applied[number]
        if number not in ours:
            state = "unknown"
        else:
            state = "applied" if checksum == ours[number].checksum else "changed"
        steps.append(Step(number, name, state, at))
    return steps


def _refuse_foreign(where: str, steps: list[Step]) -> None:
    for step in steps:
        place = f"{schema_of(where)} in {shown(where)}"
        if step.state == "unknown":
            raise newer(place, step.number)
        if step.state == "changed":
            raise Conflict(
                "migration_changed",
                f"Migration {step.number:04} ({step.name}) of {place} is not the one of this "
                "penstock.",
                "Run the penstock that made it, or choose another schema.",
            )


def newer(place: str, number: int) -> Conflict:
    """The refusal of an old program before a new schema."""
    return Conflict(
        "newer_schema",
        f"The schema {place} is at migration {number:04}; this penstock knows "
        f"{known()[-1].number:04}.",
        "Run the newer penstock that migrated it.",
    )


def check(session: Session) -> None:
    """Is the schema there, and no newer than this program? Asked once a connection.

    A schema that lacks migrations is refused by name: workers of a new version are started after
    ``penstock db migrate``. Raises ``Conflict``.
    """
    found = session.run(_NEWEST)
    number, count = (number_of(found.get_value(0, column)) for column in (0, 1))
    ours = known()
    if number > ours[-1].number:
        raise newer("of the database", number)
    if count < len(ours):
        raise Conflict(
            "not_migrated",
            f"The schema of the database has {count} of {len(ours)} migrations.",
            "Run `penstock db migrate`.",
        )
