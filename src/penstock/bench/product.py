"""The product's own flow, fed in bulk through the door's group commit, gateways in process."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from penstock import assemble
from penstock.bench import harness
from penstock.dotted import resolve
from penstock.engine.intake import Wanted
from penstock.event import Message, Record
from penstock.flow import Call, Intake, Reply

GROUP = 500
IN_FLIGHT = 6000
READ_RECORDS = 2000


class Reading:
    """One topic, followed from the start without a group."""

    def __init__(self, stage: harness.Stage, topic: str) -> None:
        house, self._topic = stage.house, topic
        # The files' own `rows` spare the look at the extent, at every look that finds nothing.
        embedded = house.cluster is None
        self._read = assemble.make_log(house).rows if embedded else assemble.open_log(house).read
        self._at = dict.fromkeys(range(stage.house.catalog.topics[topic].partitions), 0)

    def more(self) -> Iterator[Record]:
        """What came since the last look."""
        for partition, offset in self._at.items():
            for record in self._read(self._topic, partition, offset, READ_RECORDS):
                self._at[partition] = record.offset + 1
                yield record


class Door:
    """The bench's client: places requests as the door would, in groups."""

    def __init__(self, house: assemble.House) -> None:
        self._routes = {route.name: route for route in house.flow.routes}
        self._may = house.catalog.clients["local"].may
        wakes = assemble.make_wakes(house, house.flow.door)
        self._gate, _ = assemble.make_gate(house, wakes)
        self._clock = assemble.WallClock()

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


def make_feed(load: Any) -> harness.Feed:
    """Place orders and echo the carrier's scans until all have ended."""

    def feed(stage: harness.Stage) -> Callable[[], None]:
        door = Door(stage.house)
        orders = [(f"order-{i}", load.order(i)) for i in range(stage.orders)]
        for n, body in enumerate(load.stock()):
            door.send(load.STOCK_ROUTE, [(f"stock-{n}", body)])
        return lambda: _feed(stage, door, load, orders)

    return feed


def _feed(
    stage: harness.Stage, door: Door, load: Any, orders: list[tuple[str, Any]]
) -> None:
    """Place orders, echo what the carrier would send, until all have ended."""
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


def _echo(load: Any, message: Message) -> list[tuple[str, Any]]:
    return list(load.echo(message))


def run(folder: Path, orders: int) -> harness.Measured:
    """The product's flow; every order must come to its end."""
    house = assemble.open_house(folder)
    load = importlib.import_module(house.flow.load)
    gateways = cast(Callable[[], harness.Gateways], resolve(load.GATEWAYS))()
    return harness.run(house, make_feed(load), orders, gateways)
