"""The checker flags each known-bad history by its name, and no clean twin of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from penstock.conformance.checker import check, main, told
from penstock.conformance.history import load, paired, write_lines
from penstock.errors import Usage
from tests.conformance.model import ACTS, modelled
from tests.conformance.mutations import MUTATIONS, Mutant, Mutation
from tests.conformance.story import Story
from tests.conformance.tales import (
    TALES,
    Tale,
    an_acknowledged_value_is_not_there,
    half_of_an_unknown_append_is_there,
    two_appends_lie_in_both_orders,
)
from tests.docs.written import ROOT


def called(parameter: object) -> str:
    """A function's own name as part of a test's id."""
    return str(getattr(parameter, "__name__", parameter))


@pytest.mark.parametrize(("name", "function"), TALES, ids=called)
def test_a_bad_history_is_flagged_by_its_name(name: str, function: Tale) -> None:
    story = Story()
    function(story, True)
    report = story.check()
    assert set(report.counts) == {name}, told(report)
    assert report.anomalies[0].ops


@pytest.mark.parametrize(("name", "function"), TALES, ids=called)
def test_its_clean_twin_is_not(name: str, function: Tale) -> None:
    story = Story()
    function(story, False)
    report = story.check()
    assert report.clean, told(report)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(ACTS, st.integers(0, 1 << 30))
def test_histories_of_a_model_are_clean(acts: list[int], seed: int) -> None:
    report = check(paired(modelled(acts, seed)))
    assert report.clean, told(report)
    assert not report.unseen


@pytest.mark.parametrize(("name", "function"), MUTATIONS, ids=called)
@settings(
    max_examples=15, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
@given(ACTS, st.integers(0, 1 << 30))
def test_one_change_is_flagged_by_its_name(
    name: str, function: Mutation, acts: list[int], seed: int
) -> None:
    mutant = Mutant(modelled(acts, seed), seed)
    assume(function(mutant))
    report = check(paired(mutant.lines))
    assert name in report.counts, told(report)


@pytest.mark.parametrize(
    "function", [two_appends_lie_in_both_orders, half_of_an_unknown_append_is_there], ids=called
)
def test_what_the_promises_leave_out_is_not_flagged(function: Tale) -> None:
    """Where an append to several partitions is one append for each, they have no common order."""
    story = Story()
    function(story, True)
    assert not story.check(whole_appends=True).clean
    assert story.check(whole_appends=False).clean


def test_what_nobody_looked_for_is_unseen() -> None:
    story = Story()
    story.append("a", "x", "y", partitions=(0, 1))
    story.look("r", 0, "x")
    report = story.check()
    assert (report.clean, report.unseen) == (True, 1)


def test_many_of_one_kind_are_counted_and_some_are_told() -> None:
    story = Story()
    for n in range(100):
        story.append("a", f"x{n}", kind="fail")
    story.look("r", 0, *(f"x{n}" for n in range(100)))
    report = story.check()
    assert report.counts == {"aborted-read": 100}
    assert len(report.anomalies) == 20
    assert "aborted-read: 80 more" in told(report)


def test_the_program_tells_and_ends_by_what_it_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, bad in (("clean", False), ("bad", True)):
        (tmp_path / folder).mkdir()
        story = Story()
        an_acknowledged_value_is_not_there(story, bad)
        by_process = {line.process for line in story.lines}
        for process in by_process:
            lines = [line for line in story.lines if line.process == process]
            write_lines(tmp_path / folder / f"{process}.jsonl", lines)
    assert main([str(tmp_path / "clean")]) == 0
    assert main([str(tmp_path / "bad")]) == 6
    assert "lost-write: y was acknowledged and is not in t[0] [a/2]" in capsys.readouterr().out
    assert main([str(tmp_path / "bad" / "a.jsonl")]) == 7
    assert main([]) == 2
    assert "folder" in capsys.readouterr().err


def test_the_line_that_a_killed_process_was_writing_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    story = Story()
    story.append("a", "x")
    story.append("a", "y")
    write_lines(path, story.lines)
    path.write_bytes(path.read_bytes()[:-10])
    assert [op.result for op in load(path)] == ["ok", "unknown"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"time":1}', "line 1"),
        ("[]", "line 1"),
        ('{"time":1,"process":"a","op":1,"kind":"ok"}', "never began"),
        ('{"time":1,"process":"a","op":1,"kind":"invoke"}\n' * 2, "a second time"),
    ],
)
def test_what_is_no_history_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(text.rstrip("\n") + "\n")
    with pytest.raises(Usage, match=said):
        load(path)


def test_every_anomaly_is_in_the_reference_and_has_a_tale() -> None:
    page = (ROOT / "docs/reference/log-checker.md").read_text()
    table = page.partition("## What it finds")[2]
    documented = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
                  for name in re.findall(r"`([\w-]+)`", row)}
    told_of = {re.sub("-(process|realtime)$", "", name) for name, _ in TALES}
    assert documented == told_of
