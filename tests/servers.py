"""Fixtures that give a test a real Kafka broker and a real PostgreSQL.

One of each serves all processes of a run. ``PENSTOCK_TEST_KAFKA`` (host:port) and
``PENSTOCK_TEST_POSTGRES`` (address of a superuser) name running ones to use instead. A test that
kills its server, or needs three nodes, makes its own: ``penstock.sim.servers``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from psycopg.conninfo import make_conninfo

from penstock.sim.servers.kafka import Cluster
from penstock.sim.servers.postgres import Postgres, create_database, drop_database
from penstock.sim.servers.process import Absent
from penstock.sim.servers.shared import shared

GIVEN = {"kafka": "PENSTOCK_TEST_KAFKA", "postgres": "PENSTOCK_TEST_POSTGRES"}
FIXTURES = {
    "kafka": "kafka", "own_kafka": "kafka", "postgres": "postgres", "own_postgres": "postgres",
    "dsn": "postgres", "databases": "postgres", "hosts": "hosts",
}  # fmt: skip
NAME_LENGTH_MAX = 40


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test that uses a server carries its marker: ``-m "not kafka"`` leaves them out."""
    for item in items:
        for fixture in getattr(item, "fixturenames", ()):
            if fixture in FIXTURES:
                item.add_marker(FIXTURES[fixture])


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same folder in all processes of one run, and in none of another."""
    own = tmp_path_factory.getbasetemp()
    return (own.parent if os.environ.get("PYTEST_XDIST_WORKER") else own) / "servers"


@contextmanager
def server(kind: str, run: Path) -> Iterator[str]:
    """The address of the run's server. Skips, or fails with ``CI=true``, where there is none."""
    given = os.environ.get(GIVEN[kind])
    if given:
        yield given
        return
    with absent_is_skipped(), shared(kind, run) as address:
        yield address


@contextmanager
def absent_is_skipped() -> Iterator[None]:
    """What cannot be had here skips a test with the reason; with ``CI=true`` it fails."""
    try:
        yield
    except Absent as absent:
        if os.environ.get("CI") == "true":
            raise  # an error of the test: nothing is left out there
        pytest.skip(str(absent))


@pytest.fixture(scope="session")
def kafka(run_folder: Path) -> Iterator[str]:
    """``host:port`` of the run's one broker."""
    with server("kafka", run_folder) as address:
        yield address


@pytest.fixture(scope="session")
def postgres(run_folder: Path) -> Iterator[str]:
    """The address of the run's database server, for its superuser."""
    with server("postgres", run_folder) as address:
        yield address


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """What the names of a test's topics and groups begin with: nobody else's do."""
    return unique(request.node.name, "-") + "-"


@pytest.fixture
def dsn(postgres: str) -> Iterator[str]:
    """The address of an empty database of this test's own."""
    with database(postgres) as address:
        yield address


@pytest.fixture(scope="session")
def databases(postgres: str) -> Iterator[Callable[[], str]]:
    """Makes empty databases, for a test or a module that wants to say when; ``()`` gives the
    address of a fresh one. All are dropped at the end of the run."""
    with ExitStack() as made:
        yield lambda: made.enter_context(database(postgres))


@contextmanager
def database(postgres: str) -> Iterator[str]:
    """The address of an empty database that is dropped afterwards, whoever is still in it."""
    name = unique("test", "_")
    create_database(postgres, name)
    yield make_conninfo(postgres, dbname=name)
    drop_database(postgres, name)


@pytest.fixture
def own_kafka() -> Iterator[Cluster]:
    """A broker that the test may harm."""
    with absent_is_skipped(), Cluster() as cluster:
        yield cluster


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A database server that the test may harm."""
    with absent_is_skipped(), Postgres() as server:
        yield server


def unique(name: str, joint: str) -> str:
    """A name that no other test has, readable and fit for a topic, a group or a database."""
    readable = re.sub(r"[^a-z0-9]+", joint, name.lower()).strip(joint)[:NAME_LENGTH_MAX]
    return f"{readable}{joint}{uuid4().hex[:8]}"
