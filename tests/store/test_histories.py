"""Histories of a load over the PostgreSQL store hold no anomaly: processes that are killed,
owners that are replaced in the middle, couriers that fence each other off."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from penstock.conformance.checker import check, told
from penstock.conformance.history_load import LOAD_TOPICS, Backend, record
from penstock.conformance.stores import SERVICE
from penstock.log.embedded import EmbeddedLog
from penstock.store.postgres import PostgresStore


def opened(home: Path, where: str) -> Backend:
    """An embedded log that all write to, and the store; every topic leaves by the outbox."""
    log = EmbeddedLog(home, LOAD_TOPICS, frozenset(spec.name for spec in LOAD_TOPICS))
    log.ensure(LOAD_TOPICS)
    return Backend(log, PostgresStore(where, SERVICE), direct=frozenset())


@pytest.mark.parametrize("seed", range(2))
def test_processes_over_the_postgres_store(seed: int, tmp_path: Path, where: str) -> None:
    home, histories = tmp_path / "home", tmp_path / "histories"
    home.mkdir()
    histories.mkdir()
    report = check(record(partial(opened, home, where), histories, seed, kills=3))
    assert report.clean, told(report)
    assert report.records > 1000
    assert not report.unseen
