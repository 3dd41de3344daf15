"""Connections: what a refusal means, what is lost with one, how many there are."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Any

import psycopg
import pytest

from penstock.conformance.scenario import NOW, refused
from penstock.conformance.stores import SERVICE, Owner, bodies, ids, sheet
from penstock.errors import Conflict, Contended, StorageFull, Unreachable, Usage
from penstock.ports import Span
from penstock.store import migrate
from penstock.store.postgres import PostgresStore
from penstock.store.postgres_session import OurBug, Statement, address, shown
from penstock.store.postgres_values import clean, many_bytes, text_of, texts
from tests.support import eventually

Opened = Callable[..., PostgresStore]
Look = Callable[..., list[tuple[Any, ...]]]


@pytest.mark.parametrize(
    ("state", "meaning"),
    [
        ("53100", StorageFull), ("53200", StorageFull), ("53300", Unreachable),
        ("40001", Contended), ("40P01", Contended), ("55P03", Contended),
        ("57014", Unreachable), ("57P01", Unreachable), ("25006", Unreachable),
        ("08006", Unreachable), ("22012", psycopg.errors.DivisionByZero),
        ("54000", psycopg.errors.ProgramLimitExceeded), ("ZZ123", OurBug),
        ("42P01", Conflict), ("42501", psycopg.errors.InsufficientPrivilege),
    ],
)  # fmt: skip
def test_what_a_refusal_means(
    opened: Opened, look: Look, state: str, meaning: type[Exception]
) -> None:
    """The database's codes become the engine's errors; what is nobody's fault outside stays what
    it is. Nothing was written, and the same store goes on."""
    owner = Owner(opened())
    look(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN RAISE EXCEPTION 'on purpose' USING ERRCODE = '{state}'; END $$"
    )
    look("CREATE TRIGGER refuse BEFORE INSERT ON documents EXECUTE FUNCTION refuse()")
    error = refused(meaning, owner.save, sheet("a"))
    assert type(error) is meaning
    assert "on purpose" in str(error)
    look("DROP TRIGGER refuse ON documents")
    owner.save(sheet("a"), offset=2)
    assert bodies(owner.store, "a")


def test_a_connection_lost_in_a_transaction_ends_it(opened: Opened, look: Look) -> None:
    """It would begin anew without its locks. Nothing is written; the next one connects again."""
    owner = Owner(opened())
    owner.save(sheet("a"))

    def lose(write: bool) -> None:
        with owner.turn(2) as tx:
            tx.load([sheet("a").ref])
            owner.store.close()
            if write:
                tx.save([sheet("a", b"late")])
            else:
                tx.load([sheet("b").ref])

    refused(Unreachable, lose, True)
    refused(Unreachable, lose, False)
    assert bodies(owner.store, "a") == {"a": b"{}"}


def test_attempts_alone_are_not_waited_for(opened: Opened) -> None:
    """They may be lost with the server; the batch behind them may not."""
    store = opened()
    owner = Owner(store)
    ask = Statement("SELECT current_setting('synchronous_commit')")
    with store.begin({0: [Span("letters", 1, 1)]}) as tx:
        owner.advance(tx, 2)
        tx.load([sheet("a").ref], ids("a"))
        within = store.session().run(ask)
    after = store.session().run(ask)
    assert text_of(within.get_value(0, 0)) == text_of(after.get_value(0, 0)) == "on"


def test_each_thread_has_a_connection_and_leaves_none(opened: Opened, look: Look) -> None:
    """What a thread that ended has left is closed when the next one comes."""
    store = opened()
    store.claim([0], NOW)
    for lane in range(1, 5):
        thread = Thread(target=store.claim, args=([lane], NOW))
        thread.start()
        thread.join()
    assert store.statements == 5

    def connections() -> int:
        found = look(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
            " AND datname = current_database()", f"penstock {SERVICE}/live",
        )  # fmt: skip
        return int(found[0][0])

    eventually(lambda: connections() == 2, what="that of this thread and of the last one")
    store.close()
    eventually(lambda: connections() == 0, what="all are closed")
    store.claim([0], NOW)
    assert store.statements == 6


def test_a_database_of_another_encoding_is_refused(postgres: str, dsn: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(
            f"CREATE DATABASE {name}_latin TEMPLATE template0 ENCODING 'LATIN1'"
            " LC_COLLATE 'C' LC_CTYPE 'C'".encode()
        )
    at = psycopg.conninfo.make_conninfo(dsn, dbname=f"{name}_latin")
    try:
        assert refused(Conflict, migrate.apply, at).code == "wrong_encoding"
    finally:
        with psycopg.connect(postgres, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name}_latin".encode())


def test_a_service_names_its_connections(opened: Opened, look: Look) -> None:
    """Who looks for what holds a lock finds the service."""
    opened("pressing", namespace="rebuild").claim([0], NOW)
    found = look("SELECT application_name FROM pg_stat_activity WHERE datname = current_database()")
    assert ("penstock pressing/rebuild",) in found


def test_a_large_batch_fills_the_socket_both_ways(opened: Opened) -> None:
    """Megabytes out and megabytes in do not wait for each other."""
    owner, body = Owner(opened()), bytes(range(256)) * 1024
    keys = [f"k{n}" for n in range(60)]
    with owner.turn() as tx:
        tx.save([sheet(key, body) for key in keys])
    with owner.turn(2) as tx:
        found = tx.load([sheet(key).ref for key in keys], ids(*keys)).bodies
        tx.save([sheet(ref.key, held + b"!") for ref, held in found.items()])
    assert bodies(owner.store, *keys) == dict.fromkeys(keys, body + b"!")


def test_arrays_in_the_binary_form(opened: Opened) -> None:
    """Nulls, empty ones, long items."""
    session = opened().session()
    for values in ([], ["a", None, "", "ü" * 5000], [None]):
        found = session.run(Statement("SELECT unnest($given::text[])"), given=texts(values))
        cells = [found.get_value(n, 0) for n in range(found.ntuples)]
        assert [c if c is None else c.decode() for c in cells] == values
    for raw in ([b"", None, b"\0\xff" * 3000], []):
        found = session.run(Statement("SELECT unnest($given::bytea[])"), given=many_bytes(raw))
        assert [found.get_value(n, 0) for n in range(found.ntuples)] == raw


def test_texts_for_people_are_cleaned() -> None:
    assert clean("plain") == "plain"
    assert clean("ключ") == "ключ"
    assert clean("a\0b\ud800") == "a\N{REPLACEMENT CHARACTER}b?"


@pytest.mark.parametrize("where", ["postgresql://u:se/cret@h:5/db", "postgresql//u:se/cret@h/db"])
def test_no_error_shows_a_password(where: str) -> None:
    """Not even that of an address that is written wrong."""
    said = []
    try:
        said.append(shown(where))
        address(where)
    except Usage as wrong:
        said.append(str(wrong))
    assert said
    assert not any("cret" in sentence or "u:" in sentence for sentence in said)


def test_an_error_says_where_the_database_is() -> None:
    assert shown("postgresql://u:secret@h:5/db") == "h:5/db"
