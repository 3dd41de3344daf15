"""``penstock crash`` on a cluster: its own servers, or named ones; what cannot be done is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from confluent_kafka.admin import AdminClient

from penstock.assemble.cluster import KAFKA_VARIABLE, POSTGRES_VARIABLE
from penstock.catalog.load import load_catalog
from penstock.flows.orders import FLOW
from penstock.sim.crash.plan import (
    BROKER,
    CARRYING,
    DATABASE,
    FULL,
    KILL,
    ON_CLUSTER,
    STOP,
    cast_of,
    plan,
)
from penstock.sim.crash.servers import Share
from tests.cluster.stage import catalog_at

SECONDS = 300.0
EXERCISED = (0, 7)  # so few cycles do not meet every rule


def crash(
    *words: str, catalog: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The command, to its end."""
    named = ["--catalog", str(catalog)] if catalog else []
    return subprocess.run(
        [sys.executable, "-m", "penstock", *named, "crash", *words], capture_output=True,
        text=True, timeout=SECONDS, check=False, env={**os.environ, **(env or {})},
    )  # fmt: skip


@pytest.mark.kafka
@pytest.mark.postgres
def test_cycles_with_servers_of_its_own_that_die_too() -> None:
    words = ("--cluster", "--cycles", "2", "--seed", "11", "--faults", "broker,database")
    ended = crash(*words, "-o", "json")
    assert ended.returncode in EXERCISED, ended.stderr[-4000:]
    said: dict[str, Any] = json.loads(ended.stdout)
    assert said["violations"] == []
    assert said["brokers"] == said["databases"] == 1
    assert said["orders"] >= 8


def test_cycles_on_named_servers_leave_nothing_there(kafka: str, dsn: str) -> None:
    words = ("--kafka", kafka, "--postgres", dsn, "--cycles", "3", "--seed", "2")
    ended = crash(*words, "--faults", "kill,stop", "-o", "json")
    assert ended.returncode in EXERCISED, ended.stderr[-4000:]
    assert json.loads(ended.stdout)["violations"] == []
    with psycopg.connect(dsn) as connection:
        query = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'crash%'"
        assert connection.execute(query).fetchone() == (0,)
    topics = AdminClient({"bootstrap.servers": kafka}).list_topics(timeout=20).topics
    assert not [name for name in topics if name.startswith("crash-")]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--cluster", "--faults", "full"), "On a cluster nothing is kept in the home"),
        (("--kafka", "h:1", "--postgres", "postgresql://h/d", "--faults", "broker"), "--cluster"),
        (("--faults", "database"), "--cluster"),
        (("--kafka", "h:1"), "Name both"),
    ],
)
def test_what_cannot_be_harmed_is_refused(words: tuple[str, ...], says: str) -> None:
    ended = crash(*words)
    assert ended.returncode == 2
    assert says in ended.stderr


def test_a_cluster_that_people_work_on_is_not_harmed_by_mistake(tmp_path: Path) -> None:
    """One that the catalog names has to be named again; one of the environment does not count."""
    catalog = catalog_at(tmp_path, "h:1", "postgresql://h/d", "shop-")
    named = {KAFKA_VARIABLE: "h:1", POSTGRES_VARIABLE: "postgresql://h/d"}
    for env in ({}, named):
        ended = crash(catalog=catalog, env=env)
        assert ended.returncode == 2
        assert "The catalog names a broker and a database" in ended.stderr


# Pure parts --------------------------------------------------------------------------------------

BEFORE = """
[kafka]
servers = "old:1"
prefix = "old-"
replication = 3

[kafka.client]
"sasl.mechanism" = "PLAIN"

[postgres]
dsn = "postgresql://old/d"

[topics.letters]
prefix = "kept"
"""


@pytest.mark.parametrize("own", [True, False])
def test_a_catalog_is_given_a_share_and_no_other_cluster(own: bool) -> None:
    share = Share(kafka="new:1", postgres="postgresql://new/d", prefix="crash-1-", own=own)
    text = share.catalog(BEFORE)
    assert "old" not in text
    assert text.count("[kafka]") == text.count("[postgres]") == 1
    assert 'servers = "new:1"\nprefix = "crash-1-"' in text
    assert "search_path=crash_1" in text
    assert 'prefix = "kept"' in text
    assert ("replication = 3" in text) is ("sasl.mechanism" in text) is (not own)


def test_on_a_cluster_one_member_carries_and_nobody_is_stuck() -> None:
    cast = cast_of(load_catalog(), FLOW.door, "courier")
    assert "courier" in cast.members
    for home in plan(3, 200, cast, ON_CLUSTER):
        assert home.carried == ()
        for cycle in home.cycles:
            assert cycle.fault != FULL
            if cycle.point in CARRYING or cycle.point.startswith("courier."):
                assert cycle.member == "courier"
            if cycle.fault == STOP and cycle.point.startswith("worker."):
                assert cycle.member == home.doubled
    faults = {cycle.fault for home in plan(3, 200, cast, ON_CLUSTER) for cycle in home.cycles}
    assert {BROKER, DATABASE, KILL} <= faults
