"""The product's own flow, fed in bulk through the door's group commit, gateways in process."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from penstock.assemble import WallClock
from penstock.bench import harness
from penstock.catalog.load import load_catalog
from penstock.contracts.wire import Book
from penstock.dotted import resolve
from penstock.engine.intake import Gate, Wanted
from penstock.event import Message, Record
from penstock.flow import Call, Flow, Intake, Reply

GROUP = 500
IN_FLIGHT = 3000
READ_RECORDS = 2000


class Reading:
    """One topic, followed from the start without a group."""

    def __init__(self, stage: harness.Stage, topic: str) -> None:
        self._log, self._topic = stage.log(), topic
        self._at = dict.fromkeys(range(stage.catalog.topics[topic].partitions), 0)

    def more(self) -> Iterator[Record]:
        """What came since the last look."""
        for partition, offset in self._at.items():
            for record in self._log.rows(self._topic, partition, offset, READ_RECORDS):
                self._at[partition] = record.offset + 1
                yield record


class Door:
    """The bench's client: places requests as the door would, in groups."""

    def __init__(self, stage: harness.Stage, flow: Flow) -> None:
        self._routes = {route.name: route for route in flow.routes}
        self._may = stage.catalog.clients["local"].may
        self._gate = Gate(
            flow.door, flow.door_states, flow.door_labels, stage.book, stage.store(flow.door),
            WallClock(), stage.wakes(flow.door).tell,
        )
        self._clock = WallClock()

    def send(self, route: str, bodies: list[tuple[str, Any]]) -> None:
        """One group of requests, each with its key; every one must be accepted."""
        intake = self._routes[route].does
        assert isinstance(intake, Intake)
        now = self._clock.now()
        group = [
            Wanted(
                intake,
                Call(client="local", now=now, idempotency_key=key, body=body, digest=key,
                     may=self._may),
                _refuse_nothing,
            )
            for key, body in bodies
        ]  # fmt: skip
        for deliver, reply in self._gate.commit(group):
            deliver(reply)


def _refuse_nothing(reply: Reply) -> None:
    assert reply.status < 300, f"the door answered {reply}"


def make_feed(flow: Flow, load: Any) -> harness.Feed:
    """Place orders and echo the carrier's scans until all have ended."""

    def feed(stage: harness.Stage) -> None:
        door = Door(stage, flow)
        for n, body in enumerate(load.stock()):
            door.send(load.STOCK_ROUTE, [(f"stock-{n}", body)])
        orders = [(f"order-{i}", load.order(i)) for i in range(stage.orders)]
        echoes, ends = Reading(stage, load.ECHO_TOPIC), Reading(stage, load.END_TOPIC)
        sent = ended = 0
        while ended < stage.orders:
            ended += sum(record.message.type in load.ENDS for record in ends.more())
            scans = [pair for record in echoes.more() for pair in _echo(load, record.message)]
            for start in range(0, len(scans), GROUP):
                door.send(load.ECHO_ROUTE, scans[start : start + GROUP])
            if sent < stage.orders and sent - ended < IN_FLIGHT:
                door.send(load.ORDER_ROUTE, orders[sent : sent + GROUP])
                sent += min(GROUP, stage.orders - sent)
            elif not scans:
                time.sleep(0.001)
        stage.done.value = ended

    return feed


def _echo(load: Any, message: Message) -> list[tuple[str, Any]]:
    return list(load.echo(message))


def run(folder: Path, orders: int) -> harness.Measured:
    """The product's flow; every order must come to its end."""
    catalog = load_catalog(None)
    flow = resolve(catalog.flow)
    assert isinstance(flow, Flow)
    load = importlib.import_module(flow.load)
    return harness.run(
        folder, catalog, Book(flow.contracts), flow.services, make_feed(flow, load), orders,
        load.gateways(),
    )
