"""The ledger as an outside auditor reads it: by its manual, with another SQLite."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from penstock.errors import Conflict, NotFound
from penstock.flows.orders.sandbox.ledger import TABLES, Effect, Ledger
from tests.flows.orders.sandbox_process import Sandbox, running

MANUAL = Path(__file__).parents[3] / "docs" / "reference" / "sandboxes.md"


def questions() -> dict[str, str]:
    """The manual's queries by their comment."""
    (block,) = re.findall(r"```sql\n(.*?)```", MANUAL.read_text(encoding="utf-8"), re.DOTALL)
    return dict(re.findall(r"-- (.*?)\n(.*?;)\n", block, re.DOTALL))


def found(path: Path) -> set[str]:
    """The manual's questions that have rows, asked while the sandbox runs."""
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return {name for name, sql in questions().items() if database.execute(sql).fetchall()}
    finally:
        database.close()


def pay(provider: Sandbox, capture_keys: tuple[str, ...]) -> None:
    card = {"order": "o", "group": "1", "amount": 100, "currency": "EUR"}
    payment = provider.post("/authorise", "a", **card, method="tok_ok").json()["id"]
    for key in capture_keys:
        taken = {**card, "payment": payment, "amount": 50}
        assert provider.post("/capture", key, **taken).status_code == 200


def test_a_clean_ledger_answers_every_question_with_nothing(tmp_path: Path) -> None:
    with running("provider", tmp_path) as provider:
        pay(provider, ("c", "c"))
        assert len(questions()) == 4
        assert found(tmp_path / "provider.sqlite") == set()


def test_a_second_charge_under_a_second_key_is_seen(tmp_path: Path) -> None:
    with running("provider", tmp_path) as provider:
        pay(provider, ("c1", "c2"))
        provider.post("/void", "c1", order="o", group="1")
        assert found(tmp_path / "provider.sqlite") == {
            "charged twice",
            "asked twice under two keys",
            "one key for two different calls",
        }


def test_the_manual_names_every_column() -> None:
    manual = MANUAL.read_text(encoding="utf-8").partition("## The ledger")[2]
    for table, columns in re.findall(r"CREATE TABLE IF NOT EXISTS (\w+)\((.*?)\)", TABLES, re.S):
        assert f"**{table}**" in manual
        if table in ("faults", "notes"):
            continue
        for column in columns.split(","):
            assert f"`{column.split()[0]}`" in manual, f"{table}.{column}"


def test_an_effect_happens_once_per_key(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "provider.sqlite")
    effect = Effect(at=1, key="k", operation="capture", order="o", part="1", id="cap_1")
    with ledger.write():
        ledger.add(effect)
    with pytest.raises(Exception, match="UNIQUE"), ledger.write():
        ledger.add(effect)
    assert len(ledger.history("o")) == 1
    ledger.close()


def test_nothing_to_read_and_a_newer_format_are_named(tmp_path: Path) -> None:
    path = tmp_path / "provider.sqlite"
    with pytest.raises(NotFound):
        Ledger(path, readonly=True)
    path.touch()
    with pytest.raises(NotFound):
        Ledger(path, readonly=True)
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version=99")
    database.close()
    with pytest.raises(Conflict, match="format 99"):
        Ledger(path)
