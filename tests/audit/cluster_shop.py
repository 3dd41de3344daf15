"""A library's life on Kafka and PostgreSQL, and copies of it in which something was done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from penstock import assemble
from penstock.catalog.load import load_catalog
from penstock.catalog.model import Catalog
from penstock.sim.audit.books import Books
from penstock.sim.audit.cluster import Where, books_of_cluster
from penstock.sim.audit.files import snapshots
from tests.audit.library_shop import CONTRACTS, READS, leave, lend, live, open_library
from tests.flows.ground import HandClock, HastyClock, Servers
from tests.flows.library import CATALOG
from tests.flows.library.door import LoanWish
from tests.servers import unique
from tests.support import eventually

SECONDS = 20


class Raw(NamedTuple):
    """A record as a plain client sees it."""

    topic: str
    partition: int
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]
    timestamp: int

    def header(self, name: str) -> bytes:
        """One header's value; empty where there is none."""
        return dict(self.headers).get(name, b"")

    def saying(self, **headers: str) -> Raw:
        """With other headers; ``_`` in a name stands for ``-`` where there is such a header."""
        known = {name.replace("-", "_"): name for name, _ in self.headers}
        changed = {known[name]: value.encode() for name, value in headers.items()}
        return self._replace(headers=tuple((n, changed.get(n, v)) for n, v in self.headers))


def live_on(servers: Servers, catalog: Catalog | None = None) -> None:
    """Everything an auditor may meet; a courier dies once between its append and its commit."""
    rig = open_library(servers, catalog, HastyClock())
    live(rig)
    wish = LoanWish(loan="twice", member="mia", title="emma")
    rig.request("lend", wish, idempotency_key="twice", digest="twice")
    rows = rig.stores["counter"].due("requests", rig.clock.now(), (), 10, is_topic=True)
    messages, origins = [row.message for row in rows], [row.origin for row in rows]
    rig.log.append("requests", messages, rig.clock.now(), origins)
    rig.run()
    lend(rig, "end")
    leave(rig)


def where(servers: Servers, catalog: Catalog | None = None) -> Where:
    """As the auditor is told; of the library where no other catalog is named."""
    catalog = catalog or load_catalog(CATALOG)
    producers = {topic: assemble.owner_file(catalog, topic) for topic in catalog.topics}
    return Where(
        servers.cluster.client_settings(), servers.prefix, producers, servers.dsn,
        avro=frozenset(n for n, t in catalog.topics.items() if t.wire == "avro"),
        accepts={n: ref for n, t in catalog.topics.items() if (ref := t.accepted) is not None},
        registry=servers.registry,
    )  # fmt: skip


def books(servers: Servers, catalog: Catalog | None = None, **how: Any) -> Books:
    """The books of a library on a cluster."""
    return books_of_cluster(
        where(servers, catalog), Path("/nonexistent"), reads=READS, continues=["notices"],
        contracts=snapshots(CONTRACTS), **how,
    )  # fmt: skip


def by_hand(found: Books, clock: HandClock) -> Books:
    """The books with the hand clock's time in place of the broker's."""
    topics = {
        topic: [f._replace(appended_at=clock.at(f.appended_at)) for f in facts]
        for topic, facts in found.topics.items()
    }
    return found._replace(topics=topics)


@contextmanager
def copied(servers: Servers) -> Iterator[Servers]:
    """The same topics with a copy of the database, to do harm to."""
    known, name = conninfo_to_dict(servers.dsn), unique("crime", "_")
    with psycopg.connect(make_conninfo(servers.dsn, dbname="postgres"), autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE {name} TEMPLATE "{known["dbname"]}"'.encode())
        try:
            yield servers._replace(dsn=make_conninfo(servers.dsn, dbname=name))
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def did(servers: Servers, *statements: str) -> int:
    """Do something to the tables; returns how many rows it touched."""
    with psycopg.connect(servers.dsn) as connection:
        connection.execute("SET search_path = penstock")
        return sum(connection.execute(s.encode()).rowcount for s in statements)


# Topics ------------------------------------------------------------------------------------------


def raws(servers: Servers, topics: Mapping[str, int]) -> list[Raw]:
    """Every record of these topics, partition by partition."""
    consumer = Consumer(
        {"bootstrap.servers": servers.kafka, "group.id": unique("copy", "-"),
         "enable.auto.commit": False, "auto.offset.reset": "earliest"}
    )  # fmt: skip
    names = {servers.prefix + topic: topic for topic in topics}
    places = [TopicPartition(n, p, 0) for n, t in names.items() for p in range(topics[t])]
    try:
        ends = [consumer.get_watermark_offsets(place, timeout=SECONDS)[1] for place in places]
        consumer.assign([place for place, end in zip(places, ends, strict=True) if end])
        found = [_raw(names, consumer.poll(SECONDS)) for _ in range(sum(ends))]
    finally:
        consumer.close()
    return sorted(found, key=lambda raw: raw[:2])  # (the order within a partition stays)


def _raw(names: Mapping[str, str], polled: Any) -> Raw:
    assert polled is not None
    assert polled.error() is None
    return Raw(
        names[polled.topic()], polled.partition(), polled.key(), polled.value(),
        tuple(polled.headers() or ()), polled.timestamp()[1],
    )


def rewritten(
    servers: Servers, topics: Mapping[str, int], records: list[Raw],
    does: Callable[[list[Raw]], list[Raw]],
) -> Servers:  # fmt: skip
    """Topics under another prefix with these records, changed; their times are kept."""
    prefix = unique("crime", "-") + "-"
    admin = AdminClient({"bootstrap.servers": servers.kafka})
    timed = {"message.timestamp.type": "CreateTime"}
    new = [NewTopic(prefix + t, n, 1, config=timed) for t, n in topics.items()]
    for made in admin.create_topics(new).values():
        made.result(SECONDS)
    names = {topic.topic for topic in new}
    eventually(lambda: admin.list_topics(timeout=SECONDS).topics.keys() >= names)
    producer = Producer({"bootstrap.servers": servers.kafka, "acks": "all",
                         "enable.idempotence": True})  # fmt: skip
    for raw in does(list(records)):
        producer.produce(
            prefix + raw.topic, raw.value, raw.key, raw.partition, None, None, raw.timestamp,
            list(raw.headers),
        )  # fmt: skip
    assert producer.flush(SECONDS) == 0
    return servers._replace(prefix=prefix)
