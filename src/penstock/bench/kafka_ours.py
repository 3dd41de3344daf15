"""Processes of penstock in the figures on Kafka, made of the parts that its own processes are."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from msgspec.structs import replace

from penstock import assemble
from penstock.assemble.processes import (
    COURIERS,
    carried_topics,
    find_service,
    make_keeper,
    make_wakes,
)
from penstock.bench import product, records, reference
from penstock.bench.child import Meter, Parent, settle_memory
from penstock.bench.ground import Place
from penstock.bench.harness import Gateways, NoThreads, Stage, inline
from penstock.bench.memory import MemoryStore
from penstock.dotted import resolve
from penstock.engine.courier import Courier
from penstock.engine.runner import Runner
from penstock.engine.shift import Shift
from penstock.engine.slots import NoSlots
from penstock.engine.unit import door_service, unit_of
from penstock.engine.worker import Worker
from penstock.ports import Store

RECORDS, REFERENCE, PRODUCT = "records", "reference", "product"
HERE = "penstock.bench.kafka_ours"
STARTED_SECONDS = 60.0


def house_of(flow: str, folder: str | Path, place: Place | Mapping[str, str]) -> assemble.House:
    """One of the bench's flows, at home on the ground."""
    found = place if isinstance(place, Place) else Place(**place)
    if flow == RECORDS:
        return records.house(Path(folder), found.cluster)
    house = reference.house(Path(folder)) if flow == REFERENCE else _product(Path(folder))
    return replace(house, cluster=found.cluster)


def _product(folder: Path) -> assemble.House:
    return replace(assemble.open_house(folder), cluster=None)


def gateways_of(house: assemble.House) -> Gateways:
    """The flow's gateways that answer in process; none where its load names none."""
    if not house.flow.load:
        return {}
    load: Any = importlib.import_module(house.flow.load)
    return cast(Callable[[], Gateways], resolve(load.GATEWAYS))()


# The pair in one process, the store in memory ---------------------------------------------------


def copy(
    parent: Parent, *, flow: str, folder: str, place: dict[str, str], sqlite: bool
) -> None:
    """A worker over Kafka with a store in memory, and the courier that carries its rows back."""
    house = house_of(flow, folder, place)
    unit = unit_of(find_service(house, "copy"), house.catalog, house.book)
    wakes = make_wakes(house, unit.name)
    log = assemble.open_log(house, wakes.poke)
    kept = assemble.make_memory_store(house, unit.name, direct=False) if sqlite else None
    store: Store = kept or MemoryStore()
    courier = Courier(unit, log, store, {}, NoThreads(), carried_topics(house, unit), wakes.poke)
    worker = Worker(unit, log, store, NoSlots(unit.lanes), records.COPY_BATCH)
    _work(parent, Runner(worker, courier, wakes, assemble.WallClock()), lambda: 0)
    log.close()


# The cluster's processes ------------------------------------------------------------------------


def work(parent: Parent, *, flow: str, folder: str, place: dict[str, str], service: str) -> None:
    """What ``penstock worker`` runs on a cluster."""
    house = house_of(flow, folder, place)
    unit = unit_of(find_service(house, service), house.catalog, house.book)
    wakes = make_wakes(house, unit.name, to=f"{COURIERS}-{unit.name}")
    log = assemble.open_log(house, wakes.poke)
    assert house.cluster is not None
    store = house.cluster.store(unit.name)
    worker = Worker(unit, log, store, NoSlots(unit.lanes))
    _work(parent, Runner(worker, None, wakes, assemble.WallClock()), lambda: store.statements)
    log.close()
    store.close()


def _work(parent: Parent, runner: Runner, statements: Callable[[], int]) -> None:
    """Turn until told to stop, and tell what it took from the first batch on."""
    settle_memory()
    worker, meter = runner.worker, Meter()
    batches = before = 0
    told = False
    while not parent.stopped:
        passes = worker.counts.passes
        if not batches:
            meter.begin()
        runner.turn()
        batches += worker.counts.passes > passes
        if not told and len(worker.lanes) == worker.unit.lanes:
            told, before = True, statements()
            parent.tell(ready=worker.unit.name)
    said = meter.report() | {"batches": batches, "statements": statements() - before}
    counts = worker.counts
    worker.leave()
    parent.tell(**said, handled=counts.handled, duplicates=counts.duplicates, wrong=_wrong(worker))


def _wrong(worker: Worker) -> str:
    return worker.stopped or "; ".join(worker.trouble.values())


def carry(
    parent: Parent, *, flow: str, folder: str, place: dict[str, str], services: list[str]
) -> None:
    """What ``penstock courier`` runs: a thread for each service, gateways answering in process."""
    house = house_of(flow, folder, place)
    shifts = [_shift(house, service) for service in services]
    settle_memory()
    threads = [threading.Thread(target=s.run, name=s.name, daemon=True) for s in shifts]
    for thread in threads:
        thread.start()
    while not all(s.courier.shards for s in shifts):
        assert not parent.stopped, "stopped before all shards were carried"
        assert all(t.is_alive() for t in threads), "a courier ended"
        threads[0].join(0.01)
    meter = Meter()
    meter.begin()
    parent.tell(ready=COURIERS)
    parent.wait()
    said = meter.report()
    for shift in shifts:
        shift.stop()
    for thread in threads:
        thread.join()
    assert not any(s.failed for s in shifts), "a courier failed"
    parent.tell(**said)


def _shift(house: assemble.House, name: str) -> Shift:
    assert house.cluster is not None
    door = house.flow.door
    service = door_service(door, house.flow.door_states) if name == door else None
    unit = unit_of(service or find_service(house, name), house.catalog, house.book)
    wakes = make_wakes(house, f"{COURIERS}-{name}")
    log, store = assemble.open_log(house), assemble.open_store(house, name)
    courier = Courier(
        unit, log, store, inline(unit, gateways_of(house)), NoThreads(),
        carried_topics(house, unit), wakes.poke,
    )
    keeper = make_keeper(house, log, store, name, house.cluster.reader())
    roll = house.cluster.roll(name, "bench")
    return Shift(courier, roll, wakes, assemble.WallClock(), keeper, lambda said: None)


def feed(parent: Parent, *, flow: str, folder: str, place: dict[str, str], count: int) -> None:
    """The product's door: places orders and echoes the carrier until all have ended."""
    house = house_of(flow, folder, place)
    load: Any = importlib.import_module(house.flow.load)
    done = _Counted()
    begin = product.make_feed(load)(Stage(house=house, done=done, orders=count))
    settle_memory()
    meter = Meter()
    parent.tell(ready="door")
    meter.begin()
    begin()
    parent.tell(**meter.report(), ended_orders=done.value)
    parent.wait()


class _Counted:
    """What the feed of several processes shares, for one alone."""

    value = 0
