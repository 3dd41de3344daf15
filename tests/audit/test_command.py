"""``penstock audit`` on a real home: the shipped demo, at rest, in use, and as a backup."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import apsw
import pytest

from penstock.assemble import HomeLock, open_house
from penstock.cli.main import run
from penstock.sim.audit.opening import is_running
from tests.audit.library_shop import leave, lend, live, open_library
from tests.flows.library import CATALOG


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home that `penstock demo --exit` leaves."""
    home = tmp_path_factory.mktemp("shop") / "home"
    words = ["--home", str(home), "demo", "--exit", "--port", "0"]
    subprocess.run([sys.executable, "-m", "penstock", *words], check=True, capture_output=True,
                   timeout=120)  # fmt: skip
    return home


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    """The exit code of an audit, and what it said as JSON."""
    code = run([*words, "audit", "-o", "json"])
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return code, report


def violated(report: dict[str, Any]) -> set[str]:
    """The rules that are."""
    return {rule["id"] for rule in report["rules"] if rule["violations"]}


def test_the_demo_s_home_is_clean(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(path for path in shop.rglob("*"))
    code, report = said(capsys, "--home", str(shop))
    assert violated(report) == set()
    assert code == 0
    assert report["until"] is None
    assert {row["id"]: row["why"] for row in report["asked_not"]} == {
        "I1": "no client journal was given", "I2": "no client journal was given",
    }  # fmt: skip
    assert sum(rule["examined"] for rule in report["rules"]) > 50_000
    assert sorted(path for path in shop.rglob("*")) == before


def test_a_table_names_rule_key_and_records(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    shutil.copytree(shop, home)
    db = apsw.Connection(str(home / "payment.db"))
    db.execute("UPDATE waiting SET message = x'c1'")
    db.execute("DELETE FROM marks WHERE ordinal = 0 AND txn < 40")
    db.close()
    assert run(["--home", str(home), "audit"]) == 6
    out, err = capsys.readouterr()
    assert "VIOLATED" in out
    assert "✗ I22 payment: a held record is unreadable" in out
    assert ": VIOLATED: " in out.splitlines()[-1]
    assert "I1 was not asked: no client journal was given." in err


def test_the_rules_of_choice_are_asked_alone(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--home", str(shop), "audit", "--rules", "I18, I6"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == ["I6", "I18", "I46"]
    assert lines[-1].endswith("nothing is wrong.")


def test_a_rule_that_is_none_is_named(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--home", str(shop), "audit", "--rules", "I99"]) == 2
    assert "There is no rule 'I99'. There are: I1, I2" in capsys.readouterr().err


def test_a_home_that_is_none_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--home", str(tmp_path / "none"), "audit"]) == 3
    assert "There is no home" in capsys.readouterr().err


def test_an_empty_home_proves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--home", str(tmp_path), "audit"]) == 7
    assert "nothing to see for" in capsys.readouterr().out


def test_a_journal_is_read_or_refused(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = tmp_path / "journal.jsonl"
    journal.write_text("nonsense\n")
    words = ["--home", str(shop), "audit", "--journal", str(journal)]
    assert run(words) == 2
    assert f"{journal}:1:" in capsys.readouterr().err
    journal.write_text(
        '{"sent": 1, "at": 1, "client": "x", "method": "POST", "path": "/orders", "key": "lost"}\n'
        '{"answered": 1, "at": 2, "status": 202, "reply": {"order_id": "ord_0"}}\n'
    )
    assert run([*words, "--rules", "I1"]) == 6


def test_a_backup_is_compared(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(shop, copy)
    words = ["--home", str(copy), "audit", "--grace", "5", "--against", str(shop)]
    assert run([*words, "--rules", "I19"]) == 0
    assert "Not judged (by --grace)" in capsys.readouterr().err
    db = apsw.Connection(str(copy / "door.db"))
    db.execute("UPDATE log_orders SET body = body || x'00' WHERE at & 7 = 0")
    db.close()
    assert run([*words, "--rules", "I19"]) == 6
    assert f"{shop} holds other bytes" in capsys.readouterr().out


def test_a_running_home_is_noticed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    rig = open_library(home)
    live(rig)
    lock = HomeLock(open_house(home, CATALOG))
    assert is_running(home)
    words = ["--catalog", str(CATALOG), "--home", str(home), "audit"]
    assert run(words) == 0
    out, err = capsys.readouterr()
    assert f"Not judged (penstock runs in {home})" in err
    assert "I45 was not asked: work may be under way." in err
    assert "I1 " not in out  # the library brings no rules of its own
    lend(rig, "one more")
    assert run([*words, "--grace", "0"]) == 0
    os.close(lock._fd)  # as the end of its process does
    assert not is_running(home)
    leave(rig)

