"""``penstock db``: migrate, status, views."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from penstock.cli.main import run
from penstock.store import migrate
from tests.support import unused_port

Look = Callable[..., list[tuple[Any, ...]]]
Out = pytest.CaptureFixture[str]


def said(capsys: Out, *argv: str, code: int = 0) -> str:
    """What a command said, and that it ended so."""
    assert run(list(argv)) == code
    found = capsys.readouterr()
    return found.out + found.err


def test_a_database_is_migrated_once(dsn: str, capsys: Out) -> None:
    """The status before and after; a second time there is nothing to do."""
    db = ("db", "--postgres", dsn)
    before = json.loads(said(capsys, *db, "status", "-o", "json"))
    assert {row["state"] for row in before} == {"pending"}
    applied = said(capsys, *db, "migrate")
    assert all(f"applied {row['migration']}" in applied for row in before)
    assert "up to date" in said(capsys, *db, "migrate")
    after = json.loads(said(capsys, *db, "status", "-o", "json"))
    assert {row["state"] for row in after} == {"applied"}
    assert all(row["applied_at"] for row in after)


def test_the_flow_gets_its_views(
    where: str, look: Look, capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A view of each kind of document; the address may stand in the environment."""
    monkeypatch.setenv("PENSTOCK_POSTGRES", where)
    made = json.loads(said(capsys, "db", "views", "-o", "json"))
    stock = next(row for row in made if row["view"] == "inventory_stock")
    assert (stock["service"], stock["kind"]) == ("inventory", "stock")
    for row in made:
        assert row["columns"][:4] == ["namespace", "key", "label", "txn"]
        assert look(f'SELECT count(*) FROM "{row["view"]}"') == [(0,)]


def test_a_newer_schema_is_refused(where: str, look: Look, capsys: Out) -> None:
    look("INSERT INTO migrations VALUES(9000, 'later', 'x', now())")
    assert "newer penstock" in said(capsys, "db", "--postgres", where, "migrate", code=5)
    shown = said(capsys, "db", "--postgres", where, "status")
    assert "9000_later" in shown
    assert "unknown" in shown


def test_no_database(capsys: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    """None named is the caller's mistake; one that does not answer is the world's."""
    monkeypatch.delenv("PENSTOCK_POSTGRES", raising=False)
    assert "--postgres" in said(capsys, "db", "status", code=2)
    nobody = f"postgresql://ann:secret@127.0.0.1:{unused_port()}/a"
    answer = said(capsys, "db", "--postgres", nobody, "migrate", code=1)
    assert "does not answer" in answer
    assert "secret" not in answer
    assert len(migrate.known()) >= 3
