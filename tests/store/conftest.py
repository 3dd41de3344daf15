"""A migrated database, and stores on it that are closed with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Thread
from typing import Any

import psycopg
import pytest

from penstock.store import migrate
from penstock.store.postgres import PostgresStore
from penstock.store.postgres_session import schema_of


@pytest.fixture
def where(dsn: str) -> str:
    """The address of a database with the schema, and nothing in it."""
    migrate.apply(dsn)
    return dsn


@pytest.fixture
def opened(where: str) -> Iterator[Callable[..., PostgresStore]]:
    """Opens stores of the suite's service; ``options`` go into the connection string."""
    made: list[PostgresStore] = []

    # The suites' service; they are imported later, for pytest rewrites their assertions.
    def make(service: str = "folding", options: str = "", **more: Any) -> PostgresStore:
        at = psycopg.conninfo.make_conninfo(where, options=options) if options else where
        made.append(PostgresStore(at, service, **more))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def other(where: str) -> Iterator[psycopg.Connection[Any]]:
    """Somebody else's connection, in a transaction of its own as soon as it does something."""
    with psycopg.connect(where) as connection:
        connection.execute(f"SET search_path = {schema_of(where)}")
        connection.commit()
        yield connection


def waits(look: Callable[..., list[tuple[Any, ...]]]) -> int:
    """How many in this database wait for another's lock."""
    found = look(
        "SELECT count(DISTINCT pid) FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
        " WHERE NOT l.granted AND a.datname = current_database()"
    )
    return int(found[0][0])


def in_thread(work: Callable[[], None]) -> tuple[Thread, list[BaseException]]:
    """The work under way in a thread, and what it raised."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as failure:
            failures.append(failure)

    thread = Thread(target=run)
    thread.start()
    return thread, failures


@pytest.fixture
def look(where: str) -> Iterator[Callable[..., list[tuple[Any, ...]]]]:
    """Asks the database something, with plain SQL."""
    with psycopg.connect(where, autocommit=True) as connection:
        connection.execute(f"SET search_path = {schema_of(where)}")

        def ask(query: str, *values: Any) -> list[tuple[Any, ...]]:
            cursor = connection.execute(query.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

        yield ask
