"""Whole orders on Kafka and PostgreSQL: ours by a cluster's processes, and the peer's."""

from __future__ import annotations

import importlib.util
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import Producer

from penstock import assemble
from penstock.bench import kafka_ours
from penstock.bench.child import Child
from penstock.bench.ground import Ground, Place
from penstock.bench.kafka_runs import OURS, Side, child, side
from penstock.bench.reference import BOOK, IN_FLIGHT
from penstock.bench.shapes import Placed, body
from penstock.bench.tailing import SECONDS_MAX, Found, Tail, tailing
from penstock.event import Message, root_id

PARTITIONS = 4
GROUP = 500
WARM_ORDERS = 4  # they show that every process takes part
PEER = "penstock.bench.peer"
PEER_SERVICES = ("inventory", "payment", "coordinator", "shipping")
PEER_TOPICS = ("placed", "reserved", "captured", "requested", "shipped", "completed")
NEEDED = ("faststream", "sqlalchemy")
INSTALL = "pip install 'faststream[confluent]' sqlalchemy"


def missing() -> list[str]:
    """The libraries of the peer that are not installed."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


def ended_once(found: Sequence[Found], orders: Iterable[str], who: str) -> None:
    """Did every order come to its end, once?"""
    keys, wanted = Counter(record.key.decode() for record in found), set(orders)
    assert keys.keys() == wanted, f"{who}: {len(keys)} of {len(wanted)} orders ended"
    twice = [key for key, count in keys.items() if count > 1]
    assert not twice, f"{who}: {len(twice)} orders ended twice, {twice[0]} among them"


def _keys(start: int, count: int) -> list[str]:
    return [f"ord_{n:020d}" for n in range(start, start + count)]


# Ours --------------------------------------------------------------------------------------------


class Cluster:
    """The processes of a flow on the ground: a worker a service, and one that carries."""

    def __init__(self, ground: Ground, folder: Path, flow: str, stack: ExitStack) -> None:
        self.place = ground.place(flow)
        self.house = kafka_ours.house_of(flow, folder, self.place)
        assemble.prepare(self.house, make=True)
        self.given: dict[str, Any] = {
            "flow": flow, "folder": str(folder), "place": msgspec.to_builtins(self.place),
        }
        door = self.house.flow.door
        names = [service.name for service in self.house.flow.services]
        carried = [*names, door] if flow == kafka_ours.PRODUCT else names
        self.couriers: Child = stack.enter_context(
            child(f"{OURS}:carry", services=carried, **self.given)
        )
        self.workers = [
            stack.enter_context(child(f"{OURS}:work", service=name, **self.given))
            for name in names
        ]
        for each in (self.couriers, *self.workers):
            each.said()

    def stop(self) -> list[dict[str, Any]]:
        """What all of them said at their end, the workers first."""
        reports = [each.stop() for each in (*self.workers, self.couriers)]
        wrong = [said["wrong"] for said in reports if said.get("wrong")]
        assert not wrong, f"a worker stands still: {wrong[0]}"
        return reports


def reference(ground: Ground, folder: Path, orders: int) -> Side:
    """The six-record order by penstock's processes."""
    with ExitStack() as stack:
        cluster = Cluster(ground, folder, kafka_ours.REFERENCE, stack)
        topic = f"{cluster.place.prefix}completed"
        tail: Tail = stack.enter_context(tailing(ground.servers, topic, PARTITIONS))
        log = assemble.open_log(cluster.house)
        stack.callback(log.close)
        _append(log, 0, WARM_ORDERS)
        tail.wait(WARM_ORDERS)
        began = time.time()
        for start in range(WARM_ORDERS, WARM_ORDERS + orders, GROUP):
            _append(log, start, min(GROUP, WARM_ORDERS + orders - start))
            tail.wait(start + GROUP - IN_FLIGHT)
        tail.wait(WARM_ORDERS + orders)
        reports = cluster.stop()
        found = list(tail.records())
    ended_once(found, _keys(0, WARM_ORDERS + orders), "penstock")
    handled = sum(said.get("handled", 0) for said in reports)
    assert handled == 6 * (WARM_ORDERS + orders), f"{handled} records of {orders} orders"
    return side(orders, reports, max(record.at for record in found), began)


def _append(log: Any, start: int, count: int) -> None:
    """Orders as a door would write them."""
    decode, now = msgspec.json.Decoder(Placed).decode, time.time_ns() // 1_000_000
    messages = []
    for n in range(start, start + count):
        placed = decode(body(n))
        type_, version, value = BOOK.seal(placed)
        id_ = root_id(now, "bench", placed.order_id)
        messages.append(
            Message(placed.order_id, value, id_, type_, version, now, b"", placed.trace, "door")
        )
    log.append("placed", messages, now)


def product(ground: Ground, folder: Path, orders: int) -> Side:
    """The product's flow by a cluster's processes, fed through the door's group commit."""
    with ExitStack() as stack:
        cluster = Cluster(ground, folder, kafka_ours.PRODUCT, stack)
        door = stack.enter_context(child(f"{OURS}:feed", count=orders, **cluster.given))
        door.said()
        fed = door.said()
        reports = cluster.stop()
    handled = sum(said.get("handled", 0) for said in reports)
    assert handled > 6 * orders, f"{handled} records of {orders} orders"
    return side(orders, [*reports, fed], fed["ended"], fed["began"])


# The peer ----------------------------------------------------------------------------------------


def peer(ground: Ground, orders: int, *, outbox: bool) -> Side:
    """The same six records by FastStream and SQLAlchemy, a process a service, a transaction a
    message; with an outbox and a task that empties it, or published after the commit."""
    with ExitStack() as stack:
        place = ground.place("peer")
        ground.make_topics(*(place.prefix + t for t in PEER_TOPICS), partitions=PARTITIONS)
        schemas = {name: ground.place(f"peer_{name}") for name in PEER_SERVICES}
        children = [
            stack.enter_context(_peer(place, name, schemas[name], outbox))
            for name in PEER_SERVICES
        ]
        for each in children:
            each.said()
        tail = stack.enter_context(
            tailing(ground.servers, f"{place.prefix}completed", PARTITIONS)
        )
        _produce(place, 0, WARM_ORDERS)
        tail.wait(WARM_ORDERS)
        before = [_spent(each) for each in children]
        began = time.time()
        _produce(place, WARM_ORDERS, orders)
        tail.wait(WARM_ORDERS + orders)
        ended = time.time()
        spent = [_spent(each) - b for each, b in zip(children, before, strict=True)]
        reports = [each.stop() for each in children]
        found = list(tail.records())
    ended_once(found, _keys(0, WARM_ORDERS + orders), "the peer")
    told = [{**r, "cpu_seconds": cpu} for r, cpu in zip(reports, spent, strict=True)]
    return side(orders, told, ended, began)


def _spent(each: Child) -> float:
    return each.cpu_seconds()


def _peer(place: Place, name: str, schema: Place, outbox: bool) -> Any:
    return child(
        f"{PEER}:serve", name=name, servers=place.servers, prefix=place.prefix,
        postgres=schema.postgres, outbox=outbox,
    )  # fmt: skip


def _produce(place: Place, start: int, count: int) -> None:
    writer = Producer({
        "bootstrap.servers": place.servers, "acks": "all", "enable.idempotence": True,
        "linger.ms": 5,
    })  # fmt: skip
    for n, key in enumerate(_keys(start, count), start):
        writer.produce(f"{place.prefix}placed", body(n), key)
    assert writer.flush(SECONDS_MAX) == 0, "the orders could not be written"
