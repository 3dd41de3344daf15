"""Homes in which nothing is wrong: no rule says otherwise, and none looks at nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.sim.audit.books import Books
from penstock.sim.audit.files import books_of, latest
from penstock.sim.audit.index import Index
from penstock.sim.audit.platform import RULES
from penstock.sim.audit.report import audit
from tests.audit.library_shop import books, judged, keeping


def kinds(found: Books, rule: str) -> dict[str, int]:
    """What a rule examined, by kind."""
    return dict(next(r for r in judged(found).rules if r.id == rule).kinds)


def test_a_life_with_everything_in_it_is_clean(clean: Books) -> None:
    report = judged(clean)
    assert report.violations == []
    assert report.exit_code == 0
    assert report.asked_not == ()
    assert {rule.id for rule in report.rules} == {rule.id for rule in RULES} | {"I46"}
    assert kinds(clean, "I29")["letters"] >= 8
    assert kinds(clean, "I37") == {"at once": 22, "unknown first": 1}


def test_what_a_courier_carried_is_clean_and_its_repeat_is_counted(carried: Path) -> None:
    found = books(carried)
    assert judged(found).violations == []
    assert kinds(found, "I24")["rows"] > 50
    assert kinds(found, "I26")["courier repeats"] == 1
    assert kinds(found, "I26")["redelivered"] == 1


def test_what_was_retained_and_pruned_away_is_missed_by_nobody(aged: Path) -> None:
    ages = dict.fromkeys(keeping(1).topics, 3600.0)
    found = books(aged, retention=ages)
    assert judged(found).violations == []
    assert judged(found).exit_code == 0
    index = Index(found)
    assert index.trimmed >= {"requests", "loans", "lending.answers"}
    assert min(index.pruned["lending"], index.pruned["notices"]) > 30


def test_a_home_with_nothing_in_it_decides_nothing(tmp_path: Path) -> None:
    report = judged(books(tmp_path))
    assert report.exit_code == 7
    assert set(report.empty) == {rule.id for rule in RULES}


def test_what_was_not_given_is_not_asked(lived: Path) -> None:
    found = books_of(lived, until=1)
    report = audit(found, RULES)
    assert dict(report.asked_not) == {
        "I36": "no contracts were given",
        "I45": "work may be under way",
    }


@pytest.mark.parametrize("seconds", [0, 1, 100_000, 10_000_000])
def test_nothing_is_wrong_at_any_earlier_time(clean: Books, seconds: int) -> None:
    found = clean._replace(until=latest(clean) - seconds * 1000)
    assert judged(found).violations == []
