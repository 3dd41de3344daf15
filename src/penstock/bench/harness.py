"""Services of a flow in processes of their own, fed in bulk, gateways answering in process.

What `up` runs, minus HTTP and sandboxes: the same units, workers, couriers, files and wake-ups.
"""

from __future__ import annotations

import gc
import multiprocessing as mp
import multiprocessing.sharedctypes
import os
import resource
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from penstock.assemble import WallClock
from penstock.catalog.model import Catalog, GatewayEntry
from penstock.contracts.wire import Book
from penstock.decision import Service
from penstock.embedded.file import File
from penstock.engine.courier import Courier
from penstock.engine.runner import Runner
from penstock.engine.slots import Slots
from penstock.engine.unit import unit_of
from penstock.engine.wakes import Wakes
from penstock.engine.worker import Worker
from penstock.log.embedded import EmbeddedLog
from penstock.ports import Gateway, TopicSpec
from penstock.store.sqlite import SqliteStore

Gateways = Mapping[str, Gateway]
Feed = Callable[["Stage"], None]


class Stage(Struct, kw_only=True):
    """What a process of the bench gets: the folder, the flow's declarations, shared counters."""

    folder: Path
    catalog: Catalog
    book: Book
    done: Any  # shared: orders that came to their end
    orders: int

    def log(self) -> EmbeddedLog:
        """A log of one's own."""
        return EmbeddedLog(self.folder, specs(self.catalog), frozenset({"journal"}))

    def store(self, service: str) -> SqliteStore:
        """A service's store with its topics in the same file."""
        own = [t.name for t in self.catalog.topics.values() if t.producer == service]
        return SqliteStore(File(self.folder / f"{service}.db"), service, direct=own)

    def wakes(self, name: str) -> Wakes:
        """A process's ears and mouth."""
        readers = {t: self.catalog.readers(t) for t in self.catalog.topics}
        sockets = self.folder / "run"
        sockets.mkdir(exist_ok=True)
        return Wakes(sockets, name, readers)


def specs(catalog: Catalog) -> list[TopicSpec]:
    """Every topic of the catalog."""
    return [
        TopicSpec(
            name=t.name, partitions=t.partitions,
            owner_file="journal" if t.name == "journal" else t.producer,
        )
        for t in catalog.topics.values()
    ]


def runner(stage: Stage, service: Service, gateways: Gateways, batch: int) -> Runner:
    """One service as `up` would run it, its gateways answering in process."""
    unit = unit_of(service, stage.catalog, stage.book)
    log, store = stage.log(), stage.store(service.name)
    inline = {
        name: (
            GatewayEntry(name=name, owner="", handler="", inline=True, max_in_flight=1),
            gateways[name],
        )
        for name in unit.entry.asks
        if name in gateways
    }
    wakes = stage.wakes(service.name)
    courier = Courier(unit, log, store, inline, _NoThreads()) if unit.entry.asks else None
    slots = Slots(stage.folder / f"{service.name}.slots", unit.lanes)
    return Runner(Worker(unit, log, store, slots, batch), courier, wakes, WallClock())


class _NoThreads:
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


def memory_mb() -> float:
    """This process's proportional share of memory (PSS)."""
    with open(f"/proc/{os.getpid()}/smaps_rollup") as file:
        for line in file:
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def _serve(
    stage: Stage, service: Service, gateways: Gateways, batch: int, ready: Any, result: Any
) -> None:
    running = runner(stage, service, gateways, batch)
    _settle_memory()
    ready.wait()
    began = _cpu_seconds()
    while stage.done.value < stage.orders:
        running.turn()
    result.put((service.name, running.worker.counts.handled, _cpu_seconds() - began, memory_mb()))


def _feed(stage: Stage, feed: Feed, ready: Any, result: Any) -> None:
    _settle_memory()
    ready.wait()
    began = _cpu_seconds()
    feed(stage)
    result.put(("door", 0, _cpu_seconds() - began, memory_mb()))


def _settle_memory() -> None:
    gc.freeze()
    gc.set_threshold(50_000, 20, 1000)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def run(
    folder: Path, catalog: Catalog, book: Book, services: tuple[Service, ...], feed: Feed,
    orders: int, gateways: Gateways | None = None, batch: int = 500,
) -> Measured:  # fmt: skip
    """Run ``orders`` through; raises when they do not all come to their end in time."""
    folder.mkdir(parents=True)
    context = mp.get_context("fork")
    done = multiprocessing.sharedctypes.RawValue("q", 0)
    stage = Stage(folder=folder, catalog=catalog, book=book, done=done, orders=orders)
    log = stage.log()
    log.ensure(specs(catalog))
    log.close()
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
