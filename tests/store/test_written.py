"""The SQL in the documentation does what the page says: roles without rights to create, views."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from penstock.conformance.outboxes import Courier
from penstock.conformance.stores import SERVICE, Owner, do_everything
from penstock.flows.orders import FLOW
from penstock.store import migrate
from penstock.store.postgres import PostgresStore
from penstock.store.postgres_roll import PostgresRoll
from tests.docs.written import ROOT

PAGE = ROOT / "docs" / "reference" / "postgres.md"
ROLES = ("penstock_owner", "penstock", "analyst")


def blocks() -> list[str]:
    """The SQL of the page."""
    parts = PAGE.read_text(encoding="utf-8").split("```")[1::2]
    return [part.removeprefix("sql\n") for part in parts if part.startswith("sql\n")]


@pytest.fixture
def as_role(dsn: str, postgres: str) -> Iterator[dict[str, str]]:
    """The database with the page's roles; the address for each."""
    with psycopg.connect(postgres) as turn, psycopg.connect(dsn, autocommit=True) as connection:
        turn.execute("SELECT pg_advisory_lock(77)")  # roles are the whole server's
        connection.execute(blocks()[0].encode())
        yield {role: make_conninfo(dsn, user=role) for role in ROLES}
        for role in ROLES:
            connection.execute(f"DROP OWNED BY {role} CASCADE".encode())
            connection.execute(f"DROP ROLE {role}".encode())


def test_the_roles_of_the_page_are_enough(as_role: dict[str, str]) -> None:
    """The owner migrates, the worker works, the analyst reads the views and writes nothing."""
    migrate.apply(as_role["penstock_owner"], FLOW)
    store = PostgresStore(as_role["penstock"], SERVICE)
    with Owner(store).turn() as tx:
        do_everything(tx, "a")
    courier = Courier(store)
    courier.close(*courier.due())
    store.prune({("letters", 0): 9}, 1)
    store.close()
    roll = PostgresRoll(as_role["penstock"], SERVICE, "a")
    assert roll.attend(1)
    roll.leave()
    assert read(as_role["analyst"], blocks()[1])
    with psycopg.connect(as_role["analyst"]) as connection:
        connection.execute("SET search_path = penstock")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM documents")


def read(where: str, text: str) -> list[Any]:
    """Every statement of a block, run."""
    with psycopg.connect(where) as connection:
        cursor = connection.execute(text.encode())
        found = [cursor.description]
        while cursor.nextset():
            found.append(cursor.description)
    return found
