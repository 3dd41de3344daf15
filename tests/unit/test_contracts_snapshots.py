"""Snapshots: append-only files that a start, a check and git hold the classes to."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from msgspec import Struct

from penstock.cli import schema as command
from penstock.contracts.check import check, diff
from penstock.contracts.contract import Contract, Older
from penstock.contracts.snapshot import file_of, load, snapshot, verify
from penstock.contracts.wire import as_is
from penstock.dotted import resolve
from penstock.errors import CheckFailed, NotFound, Problem


class Paid(Struct, frozen=True, kw_only=True):
    order: str
    pence: int


class PaidDocumented(Struct, frozen=True, kw_only=True):
    """Money came in."""

    order: str
    pence: int


class PaidInPounds(Struct, frozen=True, kw_only=True):
    order: str
    pounds: float


class PaidWithNote(Struct, frozen=True, kw_only=True):
    order: str
    pence: int
    note: str = ""


def paid(model: type, version: int = 1, *older: Older) -> list[Contract]:
    return [Contract(type="shop.paid", version=version, model=model, older=older)]


def _pence(old: PaidInPounds) -> Paid:
    return Paid(order=old.order, pence=round(old.pounds * 100))


UPCAST = Older(1, PaidInPounds, _pence)


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(folder), *who, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def commit(folder: Path) -> str:
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", "change")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q", "-b", "main")
    return tmp_path


@pytest.fixture
def folder(repository: Path) -> Path:
    """A repository whose main branch holds version 1, on a branch of its own."""
    there = repository / "contracts"
    snapshot(paid(PaidInPounds), there)
    commit(repository)
    git(repository, "checkout", "-q", "-b", "work")
    return there


def codes(report: Any) -> list[str]:
    return [w.code for w in report.wrong]


def test_a_snapshot_is_written_once_and_kept(tmp_path: Path) -> None:
    (written,) = snapshot(paid(Paid), tmp_path)
    assert (written.outcome, written.file) == ("written", str(tmp_path / "shop.paid" / "v1.avsc"))
    before = Path(written.file).read_bytes()
    (kept,) = snapshot(paid(Paid), tmp_path)
    assert (kept.outcome, Path(written.file).read_bytes()) == ("kept", before)
    assert list(load(tmp_path)) == ["shop.paid"]


def test_another_shape_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    snapshot(paid(Paid), tmp_path)
    other = Contract(type="shop.new", version=1, model=Paid)
    with pytest.raises(CheckFailed, match="note is new"):
        snapshot([other, *paid(PaidWithNote)], tmp_path)
    assert list(load(tmp_path)) == ["shop.paid"]


def test_documentation_follows_the_class(tmp_path: Path) -> None:
    snapshot(paid(Paid), tmp_path)
    (again,) = snapshot(paid(PaidDocumented), tmp_path)
    assert again.outcome == "documented"
    assert "Money came in." in Path(again.file).read_text()


def test_a_start_with_a_class_that_is_no_snapshot_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed) as caught:
        verify(paid(Paid), tmp_path)
    said = str(caught.value)
    for named in ("Paid", str(file_of(tmp_path, "shop.paid", 1)), "penstock schema snapshot"):
        assert named in said
    snapshot(paid(Paid), tmp_path)
    verify(paid(Paid), tmp_path)
    with pytest.raises(CheckFailed) as changed:
        verify(paid(PaidWithNote), tmp_path)
    assert changed.value.field == "note"
    assert "PaidWithNote" in str(changed.value)


def test_a_version_read_as_it_is_must_be_readable(tmp_path: Path) -> None:
    snapshot(paid(Paid), tmp_path)
    good = paid(PaidWithNote, 2, Older(1, PaidWithNote, as_is))
    snapshot(good, tmp_path)
    verify(good, tmp_path)
    bad = paid(PaidInPounds, 3, Older(2, PaidInPounds, as_is))
    snapshot(bad, tmp_path)
    with pytest.raises(CheckFailed, match="pounds"):
        verify(bad, tmp_path)


def test_a_file_that_is_no_schema_is_named(tmp_path: Path) -> None:
    broken = file_of(tmp_path, "shop.paid", 1)
    broken.parent.mkdir()
    broken.write_text("{")
    with pytest.raises(Problem, match=r"shop\.paid/v1\.avsc"):
        verify(paid(Paid), tmp_path)
    assert "schema" in codes(check(paid(Paid), tmp_path))


def test_a_breaking_version_passes_by_its_upcast_only(folder: Path) -> None:
    with_upcast = paid(Paid, 2, UPCAST)
    snapshot(with_upcast, folder)
    commit(folder.parent)
    report = check(with_upcast, folder, consumers={"shop.paid": ("ledger",)})
    assert (report.exit_code, report.since) == (0, "the merge-base with main")
    (verdict,) = report.judged[0].verdicts
    assert verdict.bridged
    assert verdict.breaches[0].consumers == ("ledger",)
    assert check(paid(Paid, 2), folder).exit_code == 6
    assert check(with_upcast, folder, level="full").exit_code == 6


def test_every_older_version_is_compared_not_the_last_alone(folder: Path) -> None:
    snapshot(paid(Paid, 2, UPCAST), folder)
    commit(folder.parent)
    latest = paid(PaidWithNote, 3)
    snapshot(latest, folder)
    report = check(latest, folder, "HEAD")
    assert [(v.old, v.passed) for v in report.judged[0].verdicts] == [(1, False), (2, True)]


def test_committed_files_are_append_only(folder: Path) -> None:
    changed = file_of(folder, "shop.paid", 1)
    changed.write_text(changed.read_text().replace("pounds", "quid"))
    report = check([], folder)
    assert (report.exit_code, codes(report)) == (6, ["snapshot_changed"])
    assert "quid is new" in report.wrong[0].message
    changed.unlink()
    assert codes(check([], folder)) == ["snapshot_removed"]


def test_a_class_without_a_snapshot_does_not_pass(folder: Path) -> None:
    assert codes(check(paid(Paid, 2, UPCAST), folder)) == ["no_snapshot"]


def test_a_gap_between_versions_does_not_pass(folder: Path) -> None:
    snapshot(paid(Paid, 3), folder)
    assert "snapshot_missing" in codes(check(paid(Paid, 3), folder))


def test_on_the_default_branch_the_last_commit_is_looked_at(folder: Path) -> None:
    git(folder.parent, "checkout", "-q", "main")
    first = check(paid(PaidInPounds), folder)
    assert (first.exit_code, first.since.startswith("the first commit")) == (0, True)
    changed = file_of(folder, "shop.paid", 1)
    changed.write_text(changed.read_text().replace("pounds", "quid"))
    assert codes(check([], folder)) == ["snapshot_changed"]
    commit(folder.parent)
    committed = check([], folder)
    assert (committed.since, codes(committed)) == (
        "the commit before the last",
        ["snapshot_changed"],
    )


def test_outside_git_a_check_is_inconclusive_unless_something_is_wrong(tmp_path: Path) -> None:
    snapshot(paid(Paid), tmp_path)
    report = check(paid(Paid), tmp_path)
    assert (report.exit_code, "not in a git work tree" in report.inconclusive) == (7, True)
    assert check(paid(PaidWithNote), tmp_path).exit_code == 6


def test_a_shallow_clone_says_what_it_misses(folder: Path, tmp_path: Path) -> None:
    snapshot(paid(Paid, 2, UPCAST), folder)
    git(folder.parent, "checkout", "-q", "main")
    commit(folder.parent)
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{folder.parent}", str(clone))
    report = check(paid(Paid, 2, UPCAST), clone / "contracts")
    assert (report.exit_code, "--unshallow" in report.inconclusive) == (7, True)
    assert check(paid(Paid, 2, UPCAST), clone / "contracts", "v9").exit_code == 7


def test_a_ref_that_does_not_exist_is_the_caller_s_mistake(folder: Path) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        check([], folder, "nowhere")


def test_a_difference_tells_changes_and_who_reads_whom(folder: Path) -> None:
    snapshot(paid(Paid, 2, UPCAST), folder)
    found = diff(folder, "shop.paid", 1, 2, [1])
    assert [(c.path, c.what) for c in found.changes] == [("pence", "added"), ("pounds", "removed")]
    assert found.bridged
    assert found.forward[0].path == "pounds"
    with pytest.raises(NotFound, match="version 7"):
        diff(folder, "shop.paid", 1, 7)


def run(monkeypatch: pytest.MonkeyPatch, contracts: list[Contract], *words: str) -> Any:
    """The command over these contracts instead of a catalog's flow."""

    def declared(catalog: Path | None, folder: Path | None = None) -> command.Declared:
        assert folder is not None
        readers = {"shop.paid": ("ledger",)}
        return command.Declared(contracts=tuple(contracts), folder=folder, consumers=readers)

    monkeypatch.setattr(command, "declared", declared)
    return CliRunner().invoke(command.schema, words, obj={"catalog": None})


def test_the_commands_speak_to_people_and_programs(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    there, contracts = ("--contracts", str(folder)), paid(Paid, 2, UPCAST)
    rows = json.loads(run(monkeypatch, contracts, "snapshot", *there, "-o", "json").stdout)
    assert [(r["version"], r["outcome"]) for r in rows] == [(1, "kept"), (2, "written")]
    passed = run(monkeypatch, contracts, "check", *there)
    assert passed.exit_code == 0
    assert "version 2 reads version 1 by its upcast" in passed.stdout
    refused = run(monkeypatch, paid(Paid, 2), "check", *there, "-o", "json")
    report = json.loads(refused.stdout)
    assert (refused.exit_code, report["outcome"]) == (6, "not_passed")
    assert report["judged"][0]["verdicts"][0]["breaches"][0]["consumers"] == ["ledger"]
    shown = run(monkeypatch, contracts, "diff", "shop.paid", "1", "2", *there)
    assert "pence is new: long, required" in shown.stdout
    assert "version 1 CANNOT read version 2" in shown.stdout
    as_json = run(monkeypatch, contracts, "diff", "shop.paid", "1", "2", *there, "-o", "json")
    assert json.loads(as_json.stdout)["bridged"] is True


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("no_colon", "no dotted path"),
        ("penstock.nowhere:X", "no module"),
        ("penstock.dotted:absent", "has no 'absent'"),
        ("a b:c", "no dotted path"),
    ],
)
def test_a_dotted_path_that_leads_nowhere_is_named(path: str, says: str) -> None:
    with pytest.raises(Problem, match=says) as caught:
        resolve(path)
    assert path in str(caught.value)


def test_a_dotted_path_leads_to_its_value() -> None:
    assert resolve("penstock.dotted:resolve") is resolve
    assert resolve("penstock.contracts.wire:Book.seal")
