"""A SQLite with the WAL-reset race is told and refused; a fit machine passes."""

from __future__ import annotations

import json
from pathlib import Path

import apsw
import pytest

from penstock import assemble
from penstock.cli.doctor import sqlite_finding
from penstock.cli.main import run
from penstock.errors import Problem

UNSAFE = ("3.40.1", "3.44.5", "3.46.0", "3.50.6", "3.51.2")
SAFE = ("3.44.6", "3.50.7", "3.51.3", "3.54.1", "4.0.0")


@pytest.mark.parametrize("version", UNSAFE)
def test_an_unsafe_sqlite_is_unfit_and_no_house_opens(version: str) -> None:
    finding = sqlite_finding(version)
    assert (finding["ok"], finding["found"]) == (False, version)
    assert "apsw" in finding["fix"]
    with pytest.raises(Problem, match=version):
        assemble.refuse_unsafe(version)


@pytest.mark.parametrize("version", SAFE)
def test_a_mended_sqlite_is_fit(version: str) -> None:
    assert sqlite_finding(version)["ok"]
    assemble.refuse_unsafe(version)


def test_doctor_prints_the_version_that_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(["--home", str(tmp_path / "h"), "doctor", "-o", "json"])
    found = {f["check"]: f for f in json.loads(capsys.readouterr().out)}
    assert found["sqlite"]["found"] == apsw.sqlite_lib_version()
    assert code == (0 if all(f["ok"] for f in found.values()) else 6)


def test_a_damaged_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "order.db").write_bytes(b"this is no database" * 100)
    tmp_path.chmod(0o700)
    assert run(["--home", str(tmp_path), "doctor", "-o", "json"]) == 6
    found = {f["check"]: f for f in json.loads(capsys.readouterr().out)}
    assert found["file order.db"]["ok"] is False
