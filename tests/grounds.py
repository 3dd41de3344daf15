"""The fixture ``ground``: a test that takes it runs on every pair of log and store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.store import migrate
from tests.flows.ground import Ground, Servers

REAL = [pytest.mark.kafka, pytest.mark.postgres]
PAIRS = (
    "memory", "embedded", pytest.param("postgres", marks=pytest.mark.postgres),
    pytest.param("cluster", marks=REAL),
)  # fmt: skip


@pytest.fixture(params=PAIRS)
def ground(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ground]:
    """What a rig stands on: memory, embedded files, the memory log with PostgreSQL, or Kafka
    with PostgreSQL."""
    if request.param == "memory":
        yield None
    elif request.param == "embedded":
        yield tmp_path
    elif request.param == "postgres":
        yield from _servers(request)
    else:
        yield from _servers(request, *map(request.getfixturevalue, ("kafka", "prefix")))


@pytest.fixture
def servers(request: pytest.FixtureRequest, kafka: str, prefix: str) -> Iterator[Servers]:
    """Kafka with PostgreSQL alone."""
    yield from _servers(request, kafka, prefix)


def _servers(
    request: pytest.FixtureRequest, kafka: str = "", prefix: str = ""
) -> Iterator[Servers]:
    servers = Servers(request.getfixturevalue("dsn"), kafka, prefix, [])
    migrate.apply(servers.dsn, None)
    yield servers
    servers.close()
