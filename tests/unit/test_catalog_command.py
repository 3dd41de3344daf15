"""``penstock catalog``: what people and programs see of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from penstock.catalog.load import load_catalog
from penstock.cli.main import run
from penstock.cli.up import patience
from tests.unit.test_catalog_load import SOUND, changed

Printed = pytest.CaptureFixture[str]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A catalog file, sound as long as nothing is imported."""
    path = tmp_path / "ferry.toml"
    path.write_text(SOUND)
    return path


def test_a_sound_catalog_ends_with_0(file: Path, capsys: Printed) -> None:
    assert run(["catalog", "check", "--no-import", str(file)]) == 0
    assert capsys.readouterr().out.startswith(f"{file}: sound; 1 teams, 7 topics, 3 services")


def test_the_shipped_catalog_is_sound_imports_included() -> None:
    assert run(["catalog", "check"]) == 0


def test_what_cannot_be_imported_is_told_with_its_line(file: Path, capsys: Printed) -> None:
    assert run(["catalog", "check", str(file)]) == 6
    assert f"{file}:2: flow: 'ferry.flow:FLOW': there is no module" in capsys.readouterr().out


def test_errors_end_with_6_one_a_line(file: Path, capsys: Printed) -> None:
    file.write_text(changed(('producer = "gate"', 'prodcer = "gate"'), ("= 3", "= 0")))
    assert run(["--catalog", str(file), "catalog", "check"]) == 6
    said = capsys.readouterr()
    assert [line.split(": ")[1] for line in said.out.splitlines()] == [
        "topics.tickets.prodcer", "services.captain.retry.attempts",
    ]  # fmt: skip
    assert said.err == "2 errors.\n"


def test_json_holds_every_error(file: Path, capsys: Printed) -> None:
    file.write_text("x = 1 1")
    assert run(["catalog", "check", str(file), "-o", "json"]) == 6
    said = json.loads(capsys.readouterr().out)
    assert (said["file"], said["passed"]) == (str(file), False)
    assert [(e["line"], e["key"]) for e in said["errors"]] == [(1, "")]


def test_no_such_file_ends_with_3(tmp_path: Path, capsys: Printed) -> None:
    assert run(["catalog", "check", str(tmp_path / "none.toml")]) == 3
    assert "There is no catalog" in capsys.readouterr().err


def test_a_broken_catalog_is_not_shown(file: Path, capsys: Printed) -> None:
    file.write_text("")
    assert run(["--catalog", str(file), "catalog", "show"]) == 6
    assert f"{file}:1: name: is missing." in capsys.readouterr().err


def test_show_prints_the_worst_case_of_each_retry_policy(file: Path, capsys: Printed) -> None:
    assert run(["--catalog", str(file), "catalog", "show", "-o", "json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["services"]["captain"]["worst_case"] == {"attempts": 3, "seconds": 3.0}
    assert said["gateways"]["radio"]["worst_case"]["seconds"] == 86_400.0
    assert said["topics"]["journal"]["readers"] == ["captain", "journal"]
    assert said["topics"]["trips"]["class"] == "critical"


def test_show_prints_every_part_for_people(file: Path, capsys: Printed) -> None:
    assert run(["--catalog", str(file), "catalog", "show"]) == 0
    said = capsys.readouterr().out
    parts = ("TEAMS", "TOPICS", "SERVICES", "JOINS", "GATEWAYS", "STAGES", "CLIENTS")
    assert all(f"\n{part}\n" in said for part in parts)
    assert "captain.dead" in said


def test_a_start_says_what_failing_for_ever_costs() -> None:
    parked, given_up = patience(load_catalog())
    services = "order, inventory, payment, shipping, notify, journal"
    assert parked.strip() == (
        f"a record that always fails is parked after 5 attempts over 15 s: {services}"
    )
    assert given_up.endswith("given up after 24 h: payments, carrier, mail")


@pytest.mark.parametrize("output", ["table", "json", "jsonl"])
def test_no_password_is_printed(file: Path, capsys: Printed, output: str) -> None:
    with file.open("a") as more:
        more.write('\n[kafka]\nservers = "a:9092"\n[kafka.client]\nsasl.password = "hunter2"\n')
        more.write('[postgres]\ndsn = "postgresql://shop:hunter2@database/shop"\n')
    assert run(["--catalog", str(file), "catalog", "show", "-o", output]) == 0
    printed = capsys.readouterr()
    assert "hunter2" not in printed.out + printed.err
    assert (output == "table") or "a:9092" in printed.out
