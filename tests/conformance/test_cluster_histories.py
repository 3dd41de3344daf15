"""Histories of Kafka and PostgreSQL hold no anomaly, and those of broken ones do, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from penstock.conformance.checker import check, told
from penstock.conformance.history_findings import Promises
from penstock.conformance.history_load import record
from penstock.store import migrate
from tests.conformance import broken, occasions
from tests.conformance.backends import on_servers
from tests.conformance.broken_servers import BrokenServers
from tests.conformance.occasions import Occasion, recorded

KAFKA = Promises(whole_appends=False)  # partitions are appended to one by one


@pytest.fixture
def database(dsn: str) -> str:
    """A database with penstock's tables."""
    migrate.apply(dsn, None)
    return dsn


@pytest.mark.parametrize("seed", range(2))
def test_processes_that_are_killed(
    seed: int, database: str, kafka: str, prefix: str, tmp_path: Path
) -> None:
    """Members steal lanes, leave, and die in the middle of an append; what they left is carried
    once more by others, so a value may lie there as often as it was tried."""
    opener = partial(on_servers, database, kafka, prefix)
    report = check(record(opener, tmp_path, seed, members=3, steps=200, kills=2), KAFKA)
    assert report.clean, told(report)
    assert report.records > 500
    assert not report.unseen


def test_threads(database: str, kafka: str, prefix: str, tmp_path: Path) -> None:
    opener = partial(on_servers, database, kafka, prefix)
    report = check(record(opener, tmp_path, 7, members=3, steps=200, apart=False), KAFKA)
    assert report.clean, told(report)
    assert not report.unseen


BROKEN: dict[str, tuple[Callable[[], BrokenServers], str]] = {
    "an acknowledged append is dropped": (lambda: BrokenServers("drop"), "lost-write"),
    "an append is written twice": (lambda: BrokenServers("double"), "duplicate"),
    "an append is written late": (lambda: BrokenServers("delay"), "nonmonotonic-append"),
    "an append is turned round": (
        lambda: BrokenServers("turn round"), "int-nonmonotonic-append"
    ),
    "a take skips one": (lambda: BrokenServers(take=broken.skip_inside), "int-poll-skip"),
    "a take repeats one": (lambda: BrokenServers(take=broken.serve_again), "int-nonmonotonic-poll"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_one_is_flagged_by_name(
    what: str, database: str, kafka: str, prefix: str, tmp_path: Path
) -> None:
    make, name = BROKEN[what]
    servers = make()
    opener = partial(servers.on, database, kafka, prefix)
    report = check(record(opener, tmp_path, 1, members=1, steps=120, apart=False), KAFKA)
    assert name in report.counts, told(report)


# Whether a store's mistake meets its occasion would be chance in a load: here each meets it.
STORES: dict[str, tuple[Occasion, str]] = {
    "any epoch": (occasions.it_commits_after_another_claimed, "stale-commit"),
    "no marks": (occasions.a_message_comes_twice, "handled-twice"),
    "forget": (occasions.a_commit_is_asked_for_again, "position-regress"),
}


@pytest.mark.parametrize("how", STORES)
def test_a_broken_store_is_flagged_by_name(
    how: str, database: str, kafka: str, prefix: str, tmp_path: Path
) -> None:
    occasion, name = STORES[how]
    opener = partial(BrokenServers(how=how).on, database, kafka, prefix)
    report = check(recorded(occasion, opener, tmp_path), KAFKA)
    assert set(report.counts) == {name}, told(report)


@pytest.mark.parametrize("how", STORES)
def test_the_real_store_stands_the_same_occasion(
    how: str, database: str, kafka: str, prefix: str, tmp_path: Path
) -> None:
    opener = partial(on_servers, database, kafka, prefix)
    report = check(recorded(STORES[how][0], opener, tmp_path), KAFKA)
    assert report.clean, told(report)
    assert not report.unseen
