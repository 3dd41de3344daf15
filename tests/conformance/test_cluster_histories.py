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
from tests.conformance import broken
from tests.conformance.backends import on_servers
from tests.conformance.broken_servers import BrokenServers

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


# Stores that break are found in tests/conformance/test_histories.py, on memory and files: on
# real servers it is chance whether such a mistake meets its occasion.
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
