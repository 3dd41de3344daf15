"""Migrations: once, twice, by several at once, beside a writer; and who refuses whom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from penstock.conformance.scenario import refused, together
from penstock.conformance.stores import SERVICE, Owner, bodies, sheet
from penstock.errors import Conflict, Unreachable, Usage
from penstock.store import migrate
from penstock.store.postgres import PostgresStore
from penstock.store.postgres_session import schema_of, shown
from tests.store.conftest import in_thread, waits
from tests.support import eventually, unused_port

Look = Callable[..., list[tuple[Any, ...]]]
ALL = [f"{m.number:04}_{m.name}" for m in migrate.known()]


def states(where: str) -> set[str]:
    return {step.state for step in migrate.status(where)}


def test_a_fresh_database_is_brought_up_to_date(dsn: str) -> None:
    """What is pending is applied, once."""
    assert migrate.pending(dsn) == ALL
    assert states(dsn) == {"pending"}
    assert migrate.apply(dsn) == ALL
    assert (migrate.pending(dsn), states(dsn)) == ([], {"applied"})
    assert migrate.apply(dsn) == []
    assert all(step.applied_at.endswith("Z") for step in migrate.status(dsn))


def test_files_are_numbered_without_a_gap() -> None:
    assert [m.number for m in migrate.known()] == list(range(1, len(ALL) + 1))


def test_several_migrate_at_once(dsn: str) -> None:
    """One does it, the others wait and find it done."""
    done: list[str] = []
    together(*[lambda: done.extend(migrate.apply(dsn))] * 4)
    assert sorted(done) == ALL


def test_a_program_from_before_the_migration_is_told(dsn: str) -> None:
    """A store on a database that lacks the schema says what to do."""
    error = refused(Conflict, PostgresStore(dsn, SERVICE).claim, [0], 1)
    assert "penstock db migrate" in str(error)


def test_an_old_program_refuses_a_newer_schema(where: str, look: Look) -> None:
    """Neither the store starts nor does the old migrate touch it; the status tells."""
    look("INSERT INTO migrations VALUES(9000, 'later', 'x', now()) RETURNING 1")
    store = PostgresStore(where, SERVICE)
    assert refused(Conflict, store.claim, [0], 1).code == "newer_schema"
    assert refused(Conflict, migrate.apply, where).code == "newer_schema"
    assert refused(Conflict, migrate.pending, where).code == "newer_schema"
    assert migrate.status(where)[-1][:3] == (9000, "later", "unknown")
    store.close()


def test_a_file_that_changed_afterwards_is_seen(where: str, look: Look) -> None:
    look("UPDATE migrations SET checksum = 'other' WHERE number = 2 RETURNING 1")
    assert refused(Conflict, migrate.apply, where).code == "migration_changed"
    assert {step.number for step in migrate.status(where) if step.state == "changed"} == {2}


def test_an_open_connection_goes_on_beside_a_migration(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers run while the schema is migrated: what is there stays as it is."""
    store = PostgresStore(where, SERVICE)
    owner = Owner(store)
    more = migrate.Migration(9000, "more", "CREATE TABLE more(of integer)")
    files = (*migrate.known(), more)
    monkeypatch.setattr(migrate, "known", lambda: files)
    with owner.turn() as tx:
        tx.load([sheet("a").ref])
        assert migrate.apply(where) == ["9000_more"]
        tx.save([sheet("a")])
    assert bodies(store, "a") == {"a": b"{}"}
    store.close()


def test_a_migration_gives_way_to_what_runs(
    where: str, other: psycopg.Connection[Any], look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that changes a table waits a moment for its writers, lets go, and tries again: never do
    all others wait behind it for long."""
    store = PostgresStore(where, SERVICE)
    owner, done = Owner(store), list[str]()
    more = migrate.Migration(9000, "more", "ALTER TABLE documents ADD COLUMN more integer")
    files = (*migrate.known(), more)
    monkeypatch.setattr(migrate, "known", lambda: files)
    monkeypatch.setattr(migrate, "LOCK_MS", 50)
    monkeypatch.setattr(migrate, "TRIES_MAX", 1000)
    other.execute("LOCK TABLE documents IN ROW EXCLUSIVE MODE")

    thread, failures = in_thread(lambda: done.extend(migrate.apply(where)))
    eventually(lambda: waits(look), what="the migration waits")
    for offset in range(5):
        owner.save(sheet(f"{offset}"), offset=offset)
    other.rollback()
    thread.join()
    store.close()
    assert (done, failures) == (["9000_more"], [])
    assert look("SELECT count(*) FROM documents WHERE more IS NULL") == [(5,)]


def test_a_migration_that_finds_no_moment_gives_up(
    where: str, other: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    more = migrate.Migration(9000, "more", "ALTER TABLE documents ADD COLUMN more integer")
    files = (*migrate.known(), more)
    monkeypatch.setattr(migrate, "known", lambda: files)
    monkeypatch.setattr(migrate, "LOCK_MS", 1)
    other.execute("LOCK TABLE documents IN ROW EXCLUSIVE MODE")
    assert refused(Conflict, migrate.apply, where).code == "database_busy"
    other.rollback()
    assert migrate.pending(where) == ["9000_more"]


def test_a_schema_of_another_name(dsn: str) -> None:
    """Two may live in one database, named by the search path of the connection string."""
    other = psycopg.conninfo.make_conninfo(dsn, options="-c search_path=second")
    assert (schema_of(dsn), schema_of(other)) == ("penstock", "second")
    assert schema_of("postgresql://a@b/c?options=-csearch_path%3Dthird%2Cpublic") == "third"
    migrate.apply(dsn)
    assert migrate.pending(other) == ALL
    migrate.apply(other)
    here, there = PostgresStore(dsn, SERVICE), PostgresStore(other, SERVICE)
    Owner(here).save(sheet("a"))
    assert (bodies(here, "a"), bodies(there, "a")) == ({"a": b"{}"}, {})
    here.close()
    there.close()


def test_nobody_answers() -> None:
    """A database that is away is the world's fault, an address that is none the caller's."""
    nobody = f"postgresql://ann:secret@127.0.0.1:{unused_port()}/things"
    for ask in (migrate.pending, migrate.apply, lambda at: PostgresStore(at, "a").claim([0], 1)):
        error = refused(Unreachable, ask, nobody)
        assert "/things" in str(error)
        assert "secret" not in str(error)
    assert refused(Usage, migrate.pending, "postgresql://a b").code == "bad_dsn"


def test_an_address_is_shown_without_its_password() -> None:
    assert shown("postgresql://ann:secret@db.example:5433/things") == "db.example:5433/things"
    assert shown("dbname=things password='a b'") == "the local socket:5432/things"
