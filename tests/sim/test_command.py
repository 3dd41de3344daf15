"""``penstock sim``: exit codes, JSON, the failure it writes down, and the page about a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from penstock.cli import sim as command
from penstock.cli.main import run
from penstock.flows.orders import inventory
from penstock.sim.run import Tally

WORDS = ("sim", "--seeds", "3", "--orders", "20", "--cores", "1")


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed to standard output."""
    return capsys.readouterr().out


def test_a_clean_run_says_what_it_did(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--home", str(home), *WORDS, "-o", "json"]) == 0
    found = json.loads(said(capsys))
    assert (found["seeds"], found["orders"], found["violations"]) == (3, 60, [])
    assert len(found["trace"]) == 32
    assert found["handled"] > 500
    assert all(found["examined"].values())


def test_the_page_about_the_last_run(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--home", str(home), "sim", "report"]) == 3
    assert "penstock sim --seeds" in capsys.readouterr().err
    run(["--home", str(home), *WORDS])
    capsys.readouterr()
    assert run(["--home", str(home), "sim", "report"]) == 0
    page = said(capsys)
    for part in ("3 seeds, 60 orders", "Faults fired, by class", "Sites never struck", "I10 "):
        assert part in page
    assert run(["--home", str(home), "sim", "report", "--html", str(home / "r.html")]) == 0
    html = (home / "r.html").read_text()
    assert "Rules, and what they examined" in html
    assert "<script" not in html


def test_a_broken_rule_is_6_and_becomes_a_test(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    more = property(lambda stock: max(0, stock.on_hand - stock.reserved) + 1)
    monkeypatch.setattr(inventory.Stock, "available", more)
    words = [*WORDS, "--out", str(tmp_path / "failures"), "-o", "json"]
    assert run(["--home", str(home), *words]) == 6
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert "I10" in {v["rule"] for v in found["violations"]}
    assert set(found["violations"][0]) == {"seed", "rule", "key", "detail", "records"}
    assert f"penstock sim --seed {found['violations'][0]['seed']}" in err
    (path,) = (tmp_path / "failures").iterdir()
    assert "CASE = Case(" in path.read_text()


def test_a_rule_that_saw_nothing_is_7(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add = Tally.add

    def blind(self: Tally, outcome: object) -> None:
        add(self, outcome)  # type: ignore[arg-type]
        self.examined["I10"] = 0

    monkeypatch.setattr(Tally, "add", blind)
    assert run(["--home", str(home), *WORDS]) == 7
    assert "I10" in capsys.readouterr().err


def test_a_flow_without_a_simulation_says_what_to_do(tmp_path: Path) -> None:
    assert CliRunner().invoke(command.sim, ["--help"]).exit_code == 0
