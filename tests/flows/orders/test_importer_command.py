"""``penstock import`` from file to door: what is sent, said, written, and how it ends."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from penstock.cli.importing import harmless, import_command
from penstock.errors import Problem
from penstock.flows.orders import importer
from tests.flows.orders.loopback_door import LoopbackDoor, listening

SAMPLE = files(importer.SAMPLE[0]).joinpath(importer.SAMPLE[1]).read_bytes()
HEADER = "invoice,stock_code,description,quantity,invoice_date,unit_price,customer_id,country\n"
ROWS = (
    "1001,22423,CAKESTAND,2,2010-01-04T10:24:00,12.75,12417,Belgium\n"
    "1001,22423,CAKESTAND,3,2010-01-04T10:24:00,12.75,12417,Belgium\n"
    "1001,POST,POSTAGE,1,2010-01-04T10:24:00,18,12417,Belgium\n"
    "1002,21212,=CAKE CASES,24,2010-01-05T10:24:00,0.55,,France\n"
    "1002,M,@Manual,1,2010-01-05T10:24:00,20,,France\n"
)
KEYS = {"import:online-retail:1001", "import:online-retail:1002"}


@pytest.fixture
def door() -> Iterator[LoopbackDoor]:
    """A sandbox's door."""
    with listening(LoopbackDoor(page_rows=100)) as one:
        yield one


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A small export."""
    path = tmp_path / "shop.csv"
    path.write_text(HEADER + ROWS)
    return path


def run(door: LoopbackDoor | None, home: Path, *words: object) -> Result:
    """The command's result; a Problem is raised as it is, for ``main`` to say."""
    where = ["--url", door.url] if door else []
    arguments = [*map(str, words), "--home", str(home), *where]
    return CliRunner().invoke(import_command, arguments, catch_exceptions=False)


def summary(result: Result) -> dict[str, Any]:
    """The one object at the end."""
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def listed(path: str) -> list[dict[str, str]]:
    """The rows set aside, as the file lists them."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_sample_goes_through_the_door_once(
    door: LoopbackDoor, home: Path, tmp_path: Path
) -> None:
    sample = tmp_path / "sample.csv"
    sample.write_bytes(SAMPLE)
    first = run(door, home, sample, "-o", "json")
    assert first.exit_code == 0
    said = summary(first)
    assert (said["rows"], said["orders"]) == (1086, 112)
    assert said["outcomes"] == {
        "placed": 1027, "merged": 8, "set_aside": 51, "already_placed": 0,
    }  # fmt: skip
    assert len(listed(said["set_aside_file"])) == 51
    assert len(door.placed) == 112
    assert door.clients == {"importer"}
    assert sum(door.pieces.values()) == 84147

    again = summary(run(door, home, sample, "-o", "json"))
    assert again["outcomes"] == {
        "placed": 0, "merged": 0, "set_aside": 51, "already_placed": 1035,
    }  # fmt: skip
    assert len(door.placed) == 112
    assert sum(door.pieces.values()) == 84147


def test_rows_set_aside_are_listed_with_line_and_reason_and_harmless(
    door: LoopbackDoor, home: Path, file: Path, tmp_path: Path
) -> None:
    target = tmp_path / "aside" / "list.csv"
    result = run(door, home, file, "-o", "json", "--set-aside", target)
    assert summary(result)["set_aside_file"] == str(target)
    (row,) = listed(str(target))
    assert (row["line"], row["reason"], row["invoice"]) == ("6", "manual", "1002")
    assert row["description"] == "'@Manual"
    assert row["quantity"] == "1"


def test_other_content_under_a_placed_invoice_is_set_aside(
    door: LoopbackDoor, home: Path, file: Path
) -> None:
    run(door, home, file)
    file.write_text(HEADER + ROWS.replace("CAKESTAND,2", "CAKESTAND,4"))
    result = run(door, home, file, "-o", "json")
    said = summary(result)
    assert result.exit_code == 0
    assert said["reasons"] == {"different_content": 3, "manual": 1}
    assert said["outcomes"]["already_placed"] == 1
    assert sum(said["outcomes"].values()) == said["rows"]
    assert {row["line"] for row in listed(said["set_aside_file"])} == {"2", "3", "4", "6"}


def test_an_order_the_door_refuses_is_listed_with_its_sentence(
    door: LoopbackDoor, home: Path, file: Path
) -> None:
    refusal = {"code": "invalid", "detail": "=Too much.", "field": "lines[0].quantity"}
    door.first["import:online-retail:1002"] = [(400, {}, refusal)]
    result = run(door, home, file, "-o", "json")
    assert result.exit_code == 8
    said = summary(result)
    assert (said["orders"], said["reasons"]) == (1, {"manual": 1, "refused": 1})
    details = [row["detail"] for row in listed(said["set_aside_file"])]
    assert any("Too much. lines[0].quantity" in detail for detail in details)


def test_a_busy_door_is_asked_again_under_the_same_key(
    door: LoopbackDoor, home: Path, file: Path
) -> None:
    busy = (503, {"Retry-After": "0"}, {"detail": "Busy."})
    door.first = {key: [busy, (409, {}, {}), (500, {}, {})] for key in KEYS}
    result = run(door, home, file, "-o", "json", "--without-stock")
    assert result.exit_code == 0
    assert set(door.placed) == KEYS
    assert door.calls == 8


def test_a_door_that_stays_broken_counts_as_refusing(
    door: LoopbackDoor, home: Path, file: Path
) -> None:
    door.first["import:online-retail:1001"] = [(500, {"Retry-After": "0"}, {})] * 9
    result = run(door, home, file, "-o", "json")
    assert (result.exit_code, summary(result)["orders"]) == (8, 1)


def test_a_dry_run_sends_nothing_and_needs_no_server(home: Path, file: Path) -> None:
    result = run(None, home, file, "--dry-run", "-o", "json")
    said = summary(result)
    assert (result.exit_code, said["orders"], said["set_aside_file"]) == (0, 2, None)
    assert said["outcomes"] == {"placed": 3, "merged": 1, "set_aside": 1, "already_placed": 0}
    assert list(home.iterdir()) == []


def test_history_does_not_reach_real_money_unless_asked_twice(home: Path, file: Path) -> None:
    with listening(LoopbackDoor(sandbox=False)) as real:
        with pytest.raises(Problem) as refused:
            run(real, home, file)
        assert (refused.value.code, refused.value.exit_code) == ("not_a_sandbox", 2)
        assert real.calls == 0
        assert run(real, home, file, "--live").exit_code == 0
        assert (set(real.placed), real.pieces) == (KEYS, {})


def test_the_server_is_found_through_the_home_folder(
    door: LoopbackDoor, home: Path, file: Path
) -> None:
    (home / "run").mkdir()
    (home / "run" / "up.json").write_bytes(msgspec.json.encode({"url": door.url}))
    assert run(None, home, file).exit_code == 0
    assert set(door.placed) == KEYS


@pytest.mark.parametrize(
    "left", [b"", b"{", b"[]", b'{"url": 1}', b'{"url": "http://127.0.0.1:9"}']
)
def test_where_nothing_runs_one_line_says_what_to_do(home: Path, file: Path, left: bytes) -> None:
    (home / "run").mkdir()
    (home / "run" / "up.json").write_bytes(left)
    with pytest.raises(Problem) as refused:
        run(None, home, file)
    assert "penstock up" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_rate_paces_the_calls(door: LoopbackDoor, home: Path, file: Path) -> None:
    said = summary(run(door, home, file, "-o", "json", "--rate", "10", "--without-stock"))
    assert said["seconds"] >= 0.1


def test_the_table_says_the_same_for_people(door: LoopbackDoor, home: Path, file: Path) -> None:
    result = run(door, home, file)
    assert "already placed" in result.stdout
    assert "1 manual" in result.stdout
    assert "shop.set_aside.csv" in result.stdout
    assert result.stderr == ""  # no bar off a terminal


@pytest.mark.parametrize(
    ("cell", "written"),
    [("=1+1", "'=1+1"), ("@A1", "'@A1"), ("+cmd", "'+cmd"), ("\tx", "'\tx"), ("-3", "-3"),
     ("-3.50", "-3.50"), ("-3-1", "'-3-1"), ("plain", "plain"), ("", "")],
)  # fmt: skip
def test_a_cell_is_never_a_formula_and_a_number_stays_one(cell: str, written: str) -> None:
    assert harmless(cell) == written


@pytest.mark.parametrize("words", [["--map", "invoice"], ["--rate", "-1"], ["--in-flight", "0"]])
def test_wrong_words_end_with_2(home: Path, file: Path, words: list[str]) -> None:
    assert run(None, home, file, *words).exit_code == 2
