"""``penstock journal log``: what lies in the journal, filtered, in the order it was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from penstock.cli.main import run
from tests.ops.homes import make, scribe_of, wish, write


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with ten entries, one of them by somebody else."""
    house = make(tmp_path / "home")
    write(house, 9)
    scribe_of(house).write(replace(wish(3, "again"), actor="cli:kim"))
    return house.home


def shown(home: Path, capsys: Any, *words: str) -> list[dict[str, Any]]:
    """The rows of a call."""
    capsys.readouterr()
    assert run(["--home", str(home), "journal", "log", "-o", "jsonl", *words]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_entries_come_in_the_order_they_were_written(home: Path, capsys: Any) -> None:
    found = shown(home, capsys)
    assert [row["seq"] for row in found] == list(range(1, 11))
    assert {row["act"] for row in found} == {"deadletter.retry_requested"}
    assert found[0]["about"] == "order: orders"
    assert [row["seq"] for row in shown(home, capsys, "-n", "3")] == [8, 9, 10]


def test_entries_are_chosen(home: Path, capsys: Any) -> None:
    assert [row["seq"] for row in shown(home, capsys, "--actor", "cli:kim")] == [10]
    assert [row["seq"] for row in shown(home, capsys, "--key", "key-3")] == [4, 10]
    assert shown(home, capsys, "--act", "deadletter.discarded") == []
    assert len(shown(home, capsys, "--since", "1h")) == 10
    assert shown(home, capsys, "--since", "2099-01-01T00:00:00Z") == []
    assert run(["--home", str(home), "journal", "log", "--since", "yesterday"]) == 2
    assert "12h" in capsys.readouterr().err


def test_the_table_is_for_people(home: Path, capsys: Any) -> None:
    assert run(["--home", str(home), "journal", "log"]) == 0
    out = capsys.readouterr().out
    assert "again" in out
    assert "cli:kim" in out
