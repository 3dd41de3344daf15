"""The auditor on topics in Avro: a clean life is clean by all rules, with a registry and without,
and a record that nobody can read, or that says another thing, is a plain finding."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from confluent_kafka import Producer
from msgspec.structs import replace

from penstock.catalog.load import load_catalog
from penstock.catalog.model import Catalog
from penstock.cli.main import run
from penstock.contracts import snapshot
from penstock.contracts.avro import render
from penstock.contracts.binary import Codec, prefixed, schema_id
from penstock.contracts.derive import derive
from penstock.sim.audit.avro import Avro
from penstock.sim.audit.books import Books, Flaw
from penstock.sim.audit.cluster import Unfit, books_of_cluster
from penstock.sim.audit.files import snapshots
from penstock.sim.audit.platform import RULES
from penstock.sim.audit.topics import Topics
from penstock.store import migrate
from tests.audit.cluster_shop import Raw, books, live_on, raws, rewritten, where
from tests.audit.library_shop import (
    CONTRACTS,
    broken,
    buy,
    judged,
    leave,
    lend,
    open_library,
    parked,
)
from tests.flows.ground import HastyClock, Servers
from tests.flows.library import CATALOG, SNAPSHOTS
from tests.flows.library.events import CopyFetched
from tests.kafka.registry import Registry
from tests.servers import unique

AVRO = ("loans", "letters", "shelves")
SECONDS = 20


def in_avro(*topics: str, **more: Any) -> Catalog:
    """The library's catalog with these topics in Avro."""
    catalog = load_catalog(CATALOG)
    changed = {name: replace(catalog.topics[name], wire="avro", **more) for name in topics}
    return replace(catalog, topics={**catalog.topics, **changed})


class Life(NamedTuple):
    """A library at rest on servers, its books and its records."""

    servers: Servers
    catalog: Catalog
    books: Books
    raws: list[Raw]


@pytest.fixture(scope="module", params=["by fingerprint", "by a registry"])
def life(
    request: pytest.FixtureRequest, kafka: str, databases: Callable[[], str]
) -> Iterator[Life]:
    """A life that the tests of a process share: they harm copies only."""
    catalog = in_avro(*AVRO)
    with Registry() as registry:
        url = registry.url if request.param == "by a registry" else ""
        prefix = unique("avro", "-") + "-"
        servers = Servers(databases(), kafka, prefix, [], SNAPSHOTS, url)
        migrate.apply(servers.dsn, None)
        live_on(servers, catalog)
        found = books(servers, catalog)
        yield Life(servers, catalog, found, raws(servers, found.partitions))


def test_a_life_with_everything_in_it_is_clean(life: Life) -> None:
    report = judged(life.books)
    assert report.violations == []
    assert report.asked_not == ()
    assert {rule.id for rule in report.rules} == {rule.id for rule in RULES} | {"I46"}
    assert {r.topic for r in life.raws if r.value[:1] == b"\0"} == set(AVRO)
    assert all(f.said for topic in AVRO for f in life.books.topics[topic])


def test_the_command_audits_topics_in_avro(
    life: Life, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = CATALOG.read_text().replace('"contracts"', json.dumps(str(SNAPSHOTS)), 1)
    for name in AVRO:
        text = text.replace(f"[topics.{name}]", f'[topics.{name}]\nwire = "avro"')
    servers = life.servers
    registry = f'registry = "{servers.registry}"\n' if servers.registry else ""
    catalog = tmp_path / "catalog.toml"
    catalog.write_text(
        f'{text}\n[kafka]\nservers = "{servers.kafka}"\nprefix = "{servers.prefix}"\n{registry}'
        f"[postgres]\ndsn = {json.dumps(servers.dsn)}\n"
    )
    code = run(["--catalog", str(catalog), "--home", str(tmp_path / "none"), "audit", "-o", "json"])
    report = json.loads(capsys.readouterr().out)
    assert [rule["id"] for rule in report["rules"] if rule["violations"]] == []
    assert code == 0


# Harm --------------------------------------------------------------------------------------------


def altered(life: Life, change: Callable[[bytes], bytes]) -> Books:
    """The books where the value of the last letter was changed."""

    def do(records: list[Raw]) -> list[Raw]:
        n = max(n for n, r in enumerate(records) if r.topic == "letters")
        records[n] = records[n]._replace(value=change(records[n].value))
        return records

    harmed = rewritten(life.servers, life.books.partitions, life.raws, do)
    flaws: list[Flaw] = []
    avro = Avro(AVRO, snapshots(CONTRACTS), life.servers.registry)
    topics = Topics(harmed.cluster.client_settings(), harmed.prefix, flaws, {}, avro)
    topics.read(life.books.partitions)
    return life.books._replace(
        topics=topics.facts, first=topics.first, flaws=flaws, same=avro.same
    )


def said_otherwise(value: bytes) -> bytes:
    """Good Avro of another letter."""
    codec = Codec(snapshot.load(SNAPSHOTS)["letter.sent"][1])
    letter = {**json.loads(codec.read(value[5:])), "about": "nothing"}
    return value[:5] + codec.write(json.dumps(letter).encode())


HARM: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "an id that nobody knows": (lambda value: prefixed(0x7FFFFFF0, value[5:]), "0x7ffffff0"),
    "a damaged body": (lambda value: value[:5] + b"\xff" * 12, "it is no Avro: "),
    "a body cut short": (lambda value: value[:-3], "it is no Avro: "),
    "bytes behind its end": (lambda value: value + b"\0", "bytes are left over"),
    "no prefix": (lambda value: b"{}", "its prefix is missing"),
    "nothing at all": (lambda value: b"", "its prefix is missing"),
}


@pytest.mark.parametrize("name", HARM)
def test_a_record_that_nobody_can_read_is_a_finding(life: Life, name: str) -> None:
    change, why = HARM[name]
    found = altered(life, change)
    violations = judged(found).violations
    assert {v.rule for v in violations} == {"I36", "I21"}
    (unread,) = [v for v in violations if v.rule == "I36"]
    assert (str(int(why, 16)) if why.startswith("0x") else why) in unread.detail
    assert unread.records


def test_a_record_that_says_another_thing_than_its_row_is_seen(life: Life) -> None:
    assert broken(altered(life, said_otherwise)) == {"I21"}


def test_a_copy_is_clean(life: Life) -> None:
    assert broken(altered(life, lambda value: value)) == set()


def test_without_contracts_nobody_can_read(life: Life, tmp_path: Path) -> None:
    there = where(life.servers, life.catalog)
    with pytest.raises(Unfit, match="letters, loans, shelves are Avro, and no contracts"):
        books_of_cluster(there, tmp_path)


# Records of others -------------------------------------------------------------------------------


class FetchedWithCare(CopyFetched, kw_only=True):
    """What a later program of others writes."""

    gloves: bool


def test_records_of_others_are_read_by_their_writers_schema(
    servers: Servers, registry: Registry
) -> None:
    """One lends, those that nobody can read are parked: the audit excuses what is accounted for."""
    catalog = in_avro("scans", accepts="copy.fetched/1")
    servers = servers._replace(contracts=SNAPSHOTS, registry=registry.url)
    rig = open_library(servers, catalog, HastyClock())
    buy(rig, "emma")
    lend(rig, "l0")
    theirs = derive(FetchedWithCare, "CopyFetched")
    id_ = registry.add("theirs", json.dumps(render(theirs)))
    body = Codec(theirs).write(b'{"barcode":"b7","gloves":true}')
    write(servers, "scans", {
        "l7": prefixed(id_, body), "l8": prefixed(999, body), "l9": prefixed(id_, b"\xff"),
        "l6": b'{"barcode":"b6"}',
    })  # fmt: skip
    rig.run()
    assert {parked(rig, "lending", key).message.key for key in ("l8", "l9")} == {"l8", "l9"}
    leave(rig)
    found = books(servers, catalog)
    assert judged(found).violations == []
    read = {f.key: f.value for f in found.topics["scans"] if not schema_id(f.value)}
    assert read["l7"] == b'{"barcode":"b7"}'
    assert read["l6"] == b'{"barcode":"b6"}'
    assert {f.key for f in found.topics["scans"] if f.unread} == {"l8", "l9"}


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as registry:
        yield registry


def write(servers: Servers, topic: str, values: dict[str, bytes]) -> None:
    """Records of a program that knows nothing of penstock."""
    producer = Producer({"bootstrap.servers": servers.kafka, "partitioner": "murmur2"})
    for key, value in values.items():
        producer.produce(servers.prefix + topic, value, key)
    assert producer.flush(SECONDS) == 0
