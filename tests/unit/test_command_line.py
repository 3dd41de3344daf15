"""The command line's habits: exit codes, closed pipes, near names, plain output."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.cli.main import run
from penstock.cli.output import show_rows

Printed = pytest.CaptureFixture[str]


def command(*argv: str, stdout: int) -> subprocess.CompletedProcess[str]:
    """A command in its own process, with that file as stdout."""
    return subprocess.run(
        [sys.executable, "-m", "penstock", *argv], stdout=stdout, stderr=subprocess.PIPE,
        text=True, timeout=60, check=False,
    )  # fmt: skip


def test_a_reader_that_has_seen_enough_is_no_failure(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = command("--home", str(tmp_path), "topics", "list", "-o", "jsonl", stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_full_disk_behind_stdout_is_one_line(tmp_path: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    done = command("--home", str(tmp_path), "topics", "list", stdout=full)
    os.close(full)
    assert (done.returncode, done.stderr) == (1, "error: [Errno 28] No space left on device\n")


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["ordrs"], 2, "Did you mean 'orders'?"),
        (["orders", "lst"], 2, "Did you mean 'list'?"),
        (["topics", "tail", "ordres"], 3, "there is no topic 'ordres'. Did you mean 'orders'?"),
        (["deadletters", "list", "--service", "paymnt"], 3, "Did you mean 'payment'?"),
        (["deadletters", "retry", "nothing"], 3, "nothing is parked as nothing"),
        (["deadletters", "discard", "nothing"], 2, "--reason"),
        (["orders", "list"], 1, "Start one: penstock up"),
    ],
)
def test_wrong_words_say_what_to_do(
    argv: list[str], code: int, said: str, tmp_path: Path, capsys: Printed
) -> None:
    assert run(["--home", str(tmp_path), *argv]) == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("id_", ["", ".", ".."])
def test_an_argument_never_leaves_its_place_in_the_path(id_: str, capsys: Printed) -> None:
    assert run(["--url", "http://127.0.0.1:1", "orders", "get", id_]) == 2
    assert capsys.readouterr().err == f"error: {id_!r} cannot be the id.\n"


@pytest.mark.parametrize(
    "noun", ["orders", "stock", "prices", "topics", "services", "deadletters", "schema", "catalog"]
)
def test_no_line_of_help_breaks_off(noun: str, capsys: Printed) -> None:
    assert run([noun, "--help"]) == 0
    assert "..." not in capsys.readouterr().out.partition("Commands:")[2]


def test_numbers_are_read_from_the_right_and_no_line_ends_in_blanks(capsys: Printed) -> None:
    rows = [{"sku": "TEAPOT", "left": 7, "note": ""}, {"sku": "MUG", "left": 120, "note": "new"}]
    show_rows(rows, ("sku", "left", "note"), "table")
    assert capsys.readouterr().out.splitlines() == [
        "sku     left  note", "TEAPOT     7  –", "MUG      120  new",
    ]  # fmt: skip
