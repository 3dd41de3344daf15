"""The bench on Kafka and PostgreSQL: its figures stand beside their references, its checks see
what is wrong, and it leaves nothing behind. Nothing here is timed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psycopg
import pytest
from click.testing import CliRunner
from confluent_kafka.admin import AdminClient

from penstock.bench import cluster, kafka_flow, kafka_runs
from penstock.bench.child import Child
from penstock.bench.ground import Ground, ground
from penstock.bench.kafka_runs import Lot
from penstock.bench.tailing import Found
from penstock.cli.bench import ON_KAFKA, bench
from penstock.errors import Problem, Usage

FIGURES = {
    "log": {"kafka_log": 0.30},
    "effect": {"kafka_effect": 0.4, "statements_a_batch": 1.0},
    "peer": {"kafka_orders": 30},
    "product": {"kafka_product_orders": None},
}
SMALL = cluster.Profile(
    records=600, effects=600, orders=20, peer_orders=4, product_orders=6, rounds=1,
    warm_records=100, warm_times=1,
)  # fmt: skip
SPENT = {"cpu_us", "pss_mb"}


@pytest.fixture
def field(kafka: str, postgres: str) -> Iterator[Ground]:
    """The servers of the run, cleared afterwards."""
    with ground(kafka, postgres, lambda text: None) as found:
        yield found


def _left(found: Ground, name: str) -> list[str]:
    """What is on the servers under a name."""
    admin: AdminClient = found.admin()
    groups = admin.list_consumer_groups().result(10).valid
    with psycopg.connect(found._postgres) as connection:
        schemas = connection.execute("SELECT nspname FROM pg_namespace").fetchall()
    every = [*admin.list_topics(timeout=10).topics, *(g.group_id for g in groups)]
    every += [schema for (schema,) in schemas]
    return [each for each in every if name in each.replace("-", "_")]


@pytest.mark.parametrize("name", ON_KAFKA)
def test_a_figure_stands_beside_its_reference_and_floor(
    name: str, field: Ground, tmp_path: Path
) -> None:
    plan = cluster.Plan(ground=field, folder=tmp_path, profile=SMALL)
    found = list(cluster.FIGURES[name](plan))
    assert {figure.name: figure.floor for figure in found} == FIGURES[name]
    for figure in found:
        assert figure.value > 0
        if figure.reference is not None:
            assert figure.ratio is not None
            assert figure.ratio > 0
        if "statements" in figure.name:
            assert 0 < figure.value <= cluster.STATEMENTS_MAX
    assert found[0].detail.keys() >= SPENT
    assert found[0].detail.get("statements_a_batch", 0) <= cluster.STATEMENTS_MAX
    if found[0].reference is not None:
        assert found[0].detail.keys() >= {f"reference_{each}" for each in SPENT}


def test_the_command_prints_figures_and_leaves_nothing(kafka: str, postgres: str) -> None:
    servers = ("--kafka", kafka, "--postgres", postgres)
    done = CliRunner().invoke(
        bench, ["--backend", "kafka", "effect", *servers, "-o", "json"], catch_exceptions=False
    )
    found = json.loads(done.stdout)
    assert [figure["name"] for figure in found] == ["kafka_effect", "statements_a_batch"]
    assert found[1]["ratio"] >= 1


def test_nothing_is_left_on_the_servers(field: Ground, tmp_path: Path) -> None:
    lot = Lot(field, tmp_path, "left", 50)
    lot.raw("tally", postgres=lot.place.postgres)
    name = field._name
    kinds = _left(field, name)
    assert f"{lot.place.prefix}items" in kinds
    assert len(kinds) > 3
    field.clear()
    assert not _left(field, name)


def test_an_effect_too_many_is_seen(field: Ground, tmp_path: Path) -> None:
    lot = Lot(field, tmp_path, "effect", 50)
    lot.raw("tally", postgres=lot.place.postgres)
    lot.effect("raw_tally")
    with psycopg.connect(lot.place.postgres) as connection:
        lowest = "(SELECT min(key) FROM raw_tally)"
        connection.execute(f"UPDATE raw_tally SET seen = seen + 1 WHERE key = {lowest}".encode())
    with pytest.raises(AssertionError, match="raw_tally"):
        lot.effect("raw_tally")


def _found(*ids: str) -> list[Found]:
    item = {"order_id": "o", "customer": "", "sku": "", "qty": 1, "total": 1, "pad": ""}
    return [Found(i.encode(), msgspec.json.encode({**item, "event_id": i}), 0.0) for i in ids]


def test_a_record_that_lacks_or_comes_twice_is_seen() -> None:
    kafka_runs.once(_found("a", "b"), 2, "it")
    with pytest.raises(AssertionError, match="1 of 2 records came through"):
        kafka_runs.once(_found("a"), 2, "it")
    with pytest.raises(AssertionError, match="3 records of 2 events"):
        kafka_runs.once(_found("a", "b", "b"), 2, "it")


def test_an_order_that_lacks_or_ends_twice_is_seen() -> None:
    kafka_flow.ended_once(_found("a", "b"), ["a", "b"], "it")
    with pytest.raises(AssertionError, match="1 of 2 orders ended"):
        kafka_flow.ended_once(_found("a"), ["a", "b"], "it")
    with pytest.raises(AssertionError, match="ended twice"):
        kafka_flow.ended_once(_found("a", "b", "a"), ["a", "b"], "it")


def test_a_process_that_dies_says_why() -> None:
    with kafka_runs.child("penstock.bench.nowhere:work") as dead:
        assert isinstance(dead, Child)
        with pytest.raises(AssertionError, match="there is no module"):
            dead.said()


def test_without_its_libraries_the_peer_is_left_out(
    field: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faststream", None)
    said: list[str] = []
    plan = cluster.Plan(ground=field, folder=tmp_path, profile=SMALL, say=said.append)
    assert list(cluster.peer(plan)) == []
    (told,) = said
    assert told.startswith("left out: kafka_orders needs faststream")
    assert kafka_flow.INSTALL in told


def test_what_cannot_be_started_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(Problem, match=r"no Java here.*--kafka"), ground("", "", lambda _: None):
        pass


def test_servers_that_do_not_answer_are_named(free_port: int, kafka: str) -> None:
    with (
        pytest.raises(Usage, match="PostgreSQL does not answer"),
        ground(kafka, f"postgresql://127.0.0.1:{free_port}/x", lambda text: None),
    ):
        pass


@pytest.mark.parametrize("argv", [["log"], ["--backend", "kafka", "marks"], ["--full"]])
def test_a_figure_of_the_other_backend_is_refused(argv: list[str]) -> None:
    with pytest.raises(Usage):
        CliRunner().invoke(bench, argv, catch_exceptions=False)
