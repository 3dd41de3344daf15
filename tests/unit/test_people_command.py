"""``penstock people``: who is there, who is on call, as people and programs see it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from penstock.cli.main import run
from tests.unit.test_catalog_people import STAFFED

Printed = pytest.CaptureFixture[str]


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A catalog with a rotation."""
    path = tmp_path / "ferry.toml"
    path.write_text(STAFFED)
    return str(path)


def rows(file: str, capsys: Printed, *words: str) -> list[dict[str, object]]:
    assert run(["--catalog", file, "people", *words, "-o", "json"]) == 0
    found: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return found


def test_on_call_at_a_time_with_what_comes_next(file: str, capsys: Printed) -> None:
    (row,) = rows(file, capsys, "on-call", "--at", "2026-12-24T11:00:00+01:00")
    then = row.pop("then")
    assert row == {
        "team": "deck", "person": "jo", "address": "jo@ferry.example", "why": "holiday cover",
        "until": "2026-12-28T00:00:00Z", "backups": [],
    }  # fmt: skip
    assert isinstance(then, list)
    assert [(t["from"], t["person"], t["why"]) for t in then] == [
        ("2026-12-28T00:00:00Z", "mo", "rotation"),
        ("2026-12-28T09:00:00Z", "jo", "rotation"),
        ("2026-12-30T00:00:00Z", "mo", "holiday cover"),
    ]


def test_on_call_now_is_somebody(file: str, capsys: Printed) -> None:
    (row,) = rows(file, capsys, "on-call", "--team", "deck")
    assert row["person"] in ("mo", "jo")


def test_people_are_listed_with_their_roles(file: str, capsys: Printed) -> None:
    found = {row["name"]: row for row in rows(file, capsys, "list")}
    assert set(found) == {"local", "mo", "jo"}
    assert found["mo"]["roles"] == {"deck": ["owner"], "*": ["viewer"]}
    assert [name for name in ("mo", "jo") if found[name]["on_call_for"] == ["deck"]]


def test_tables_are_for_people(file: str, capsys: Printed) -> None:
    at = ["--at", "2026-12-29T11:00:00Z"]
    assert run(["--catalog", file, "people", "on-call", *at]) == 0
    assert "mo from 2026-12-30T00:00:00Z" in capsys.readouterr().out
    assert run(["--catalog", file, "people", "list"]) == 0
    assert "deck owner" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--team", "dekc"], 3, "Did you mean 'deck'?"),
        (["--at", "tomorrow"], 2, "is no time"),
        (["--at", "2026-12-24T11:00:00"], 2, "does not say in which zone"),
        (["--at", "9999-12-31T23:59:59Z"], 2, "too far away"),
        (["--at", "0001-01-01T00:00:00+14:00"], 2, "too far away"),
    ],
)
def test_what_cannot_be_asked(
    words: list[str], code: int, said: str, file: str, capsys: Printed
) -> None:
    assert run(["--catalog", file, "people", "on-call", *words]) == code
    assert said in capsys.readouterr().err
