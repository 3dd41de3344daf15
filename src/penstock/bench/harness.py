"""Services of a flow in processes of their own, fed in bulk, gateways answering in process.

What `up` runs, minus HTTP and sandboxes: the same units, workers, couriers, files and wake-ups.
"""

from __future__ import annotations

import multiprocessing as mp
import multiprocessing.sharedctypes
import time
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from penstock import assemble
from penstock.bench.child import cpu_seconds, memory_mb, settle_memory
from penstock.catalog.model import GatewayEntry
from penstock.decision import Service
from penstock.engine.courier import Courier
from penstock.engine.runner import Runner
from penstock.engine.slots import Slots
from penstock.engine.unit import Unit, unit_of
from penstock.engine.worker import Worker
from penstock.ports import Gateway, Log, Store

Gateways = Mapping[str, Gateway]
# Made ready before the clock starts; what it returns feeds until all orders have ended.
Feed = Callable[["Stage"], Callable[[], None]]


class Stage(Struct, kw_only=True):
    """What a process of the bench gets: the house, and the shared count of ends."""

    house: assemble.House
    done: Any  # shared: orders that came to their end
    orders: int


def runner(stage: Stage, service: Service, gateways: Gateways, batch: int) -> Runner:
    """One service as `up` would run it, its gateways answering in process."""
    house = stage.house
    unit = unit_of(service, house.catalog, house.book)
    log, store = assemble.make_log(house), assemble.make_store(house, service.name)
    wakes = assemble.make_wakes(house, service.name)
    courier = _courier(unit, log, store, gateways)
    slots = Slots(house.run / f"{service.name}.slots", unit.lanes)
    return Runner(Worker(unit, log, store, slots, batch), courier, wakes, assemble.WallClock())


def _courier(unit: Unit, log: Log, store: Store, gateways: Gateways) -> Courier | None:
    if not unit.entry.asks:
        return None
    return Courier(unit, log, store, inline(unit, gateways), NoThreads())


def inline(unit: Unit, gateways: Gateways) -> dict[str, tuple[GatewayEntry, Gateway]]:
    """Those gateways that the service asks, to be called without a thread."""
    return {
        name: (
            GatewayEntry(name=name, owner="", handler="", inline=True, max_in_flight=1),
            gateways[name],
        )
        for name in unit.entry.asks
        if name in gateways
    }


class NoThreads:
    """Inline gateways need no pool."""

    def submit(self, gateway: str, work: Callable[[], None]) -> None:
        """Never called."""
        raise AssertionError(f"{gateway} is not inline")


class Measured(Struct, frozen=True, kw_only=True):
    """One run: seconds, handled records by process, CPU seconds and memory by process."""

    seconds: float
    handled: dict[str, int]
    cpu_seconds: float
    memory_mb: dict[str, float]


def _serve(
    stage: Stage, service: Service, gateways: Gateways, batch: int, ready: Any, result: Any
) -> None:
    running = runner(stage, service, gateways, batch)
    settle_memory()
    ready.wait()
    began = cpu_seconds()
    while stage.done.value < stage.orders:
        running.turn()
    result.put((service.name, running.worker.counts.handled, cpu_seconds() - began, memory_mb()))


def _feed(stage: Stage, feed: Feed, ready: Any, result: Any) -> None:
    begin = feed(stage)
    settle_memory()
    ready.wait()
    began = cpu_seconds()
    begin()
    result.put(("door", 0, cpu_seconds() - began, memory_mb()))


def run(
    house: assemble.House, feed: Feed, orders: int, gateways: Gateways | None = None,
    batch: int = 500,
) -> Measured:  # fmt: skip
    """Run ``orders`` through; raises when they do not all come to their end in time."""
    assemble.prepare(house)
    services = house.flow.services
    context = mp.get_context("fork")
    done = multiprocessing.sharedctypes.RawValue("q", 0)
    stage = Stage(house=house, done=done, orders=orders)
    ready, result = context.Barrier(len(services) + 2), context.Queue()
    processes = [
        context.Process(target=_serve, args=(stage, s, gateways or {}, batch, ready, result))
        for s in services
    ]
    processes.append(context.Process(target=_feed, args=(stage, feed, ready, result)))
    for process in processes:
        process.start()
    ready.wait(60)
    began = time.perf_counter()
    found = [result.get(timeout=300) for _ in processes]
    seconds = time.perf_counter() - began
    for process in processes:
        process.join()
    return Measured(
        seconds=seconds, handled={name: n for name, n, _, _ in found},
        cpu_seconds=sum(cpu for _, _, cpu, _ in found),
        memory_mb={name: round(mb, 1) for name, _, _, mb in found},
    )
