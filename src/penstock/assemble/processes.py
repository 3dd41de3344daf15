"""The processes of a house: workers, couriers, the door."""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, cast

from penstock.assemble.cluster import Cluster
from penstock.assemble.house import House, WallClock, own_topics, specs
from penstock.assemble.stores import (
    Readers,
    Scanning,
    make_log,
    make_store,
    open_log,
    open_store,
)
from penstock.catalog.model import CLOCK, JOURNAL, Catalog, GatewayEntry
from penstock.decision import Request, Service
from penstock.dotted import resolve
from penstock.engine.courier import Courier
from penstock.engine.crew import open_beat
from penstock.engine.intake import Gate
from penstock.engine.keeper import Keeper
from penstock.engine.runner import Runner, Threads, write_whole
from penstock.engine.shift import Shift
from penstock.engine.slots import NoSlots, Slots
from penstock.engine.unit import Unit, accepts_of, door_service, unit_of
from penstock.engine.wakes import Wakes, run_folder
from penstock.engine.worker import Worker
from penstock.errors import NotFound, Problem, Usage
from penstock.event import Message, root_id
from penstock.limits import LOOK_SECONDS_MAX
from penstock.ports import Gateway, Log, Store
from penstock.web.site import Site

OUTSIDE_VARIABLE = "PENSTOCK_OUTSIDE"  # a JSON file that fills the gateways' settings
COURIERS = "courier"  # the name of a process that carries, and of its ears

def make_wakes(house: House, name: str, to: str = "") -> Wakes:
    """The ears and mouth of a process named after its service. What it writes is news to the
    readers of a topic, or to the one process that carries it (``to``)."""
    catalog = house.catalog
    readers = {topic: (to,) if to else catalog.readers(topic) for topic in catalog.topics}
    if to:
        readers |= dict.fromkeys((*catalog.gateways, CLOCK), (to,))
    return Wakes(run_folder(house.home), name, readers)


def make_gateways(
    house: House, names: Iterable[str]
) -> dict[str, tuple[GatewayEntry, Gateway]]:
    """Gateways ready to call, their settings filled from what the sandboxes said."""
    outside = outside_of(house)
    found = {}
    for name in names:
        entry = house.catalog.gateways.get(name)
        if entry is not None:
            factory = cast(Callable[[Mapping[str, Any]], Gateway], resolve(entry.handler))
            found[name] = entry, factory(filled(entry, outside))
    return found


def filled(entry: GatewayEntry, outside: Mapping[str, str]) -> dict[str, Any]:
    """A gateway's settings with ``{name}`` replaced by what is known of the outside."""
    settings = {"timeout_seconds": entry.timeout_seconds, **entry.settings}
    try:
        return {k: _filled(v, outside) for k, v in settings.items()}
    except KeyError as missing:
        raise Problem(
            "gateway_setting", f"gateway {entry.name}: nothing sets {missing}.",
            "Give its settings in the catalog, or start its sandbox with `penstock up`.",
        ) from None


def _filled(value: Any, outside: Mapping[str, str]) -> Any:
    if not isinstance(value, str):
        return value
    text = value.format_map(outside)
    return int(text) if text.isdigit() and text != value else text


def outside_of(house: House) -> dict[str, str]:
    """What the sandboxes of the running ``up`` set, or what the file of this variable says."""
    path = os.environ.get(OUTSIDE_VARIABLE)
    try:
        text = (Path(path) if path else house.run / "outside.json").read_text()
    except OSError as error:
        if path:
            raise NotFound(
                "outside_unknown", f"{OUTSIDE_VARIABLE} names {path}: {error.strerror}."
            ) from None
        return {}
    return cast(dict[str, str], json.loads(text))


def make_keeper(
    house: House, log: Log, store: Store, service: str, over: Scanning | None = None
) -> Keeper:
    """Retention and pruning of one service's rows (the door keeps the journal's as well)."""
    catalog, readers = house.catalog, Readers(house, over)
    topics = [s for s in specs(catalog) if s.owner_file == service]
    if service == house.flow.door:
        topics += [s for s in specs(catalog) if s.name == JOURNAL]

    def reading(name: str) -> Callable[[str], Mapping[int, int] | None]:
        return lambda topic: readers.positions(name, topic)

    followed = {t.name: [reading(r) for r in catalog.readers(t.name)] for t in topics}
    reads = [s for s in specs(catalog) if s.name in catalog.services[service].reads]
    return Keeper(log, store, topics, reads, followed, accepts=accepts_of(catalog))


def find_service(house: House, name: str) -> Service:
    """A service of the flow by its name. Raises ``NotFound``."""
    service = next((s for s in house.flow.services if s.name == name), None)
    if service is None or name not in house.catalog.services:
        known = ", ".join(s.name for s in house.flow.services)
        raise NotFound("service_unknown", f"no service {name}.", f"Services: {known}.")
    return service


def make_runner(house: House, name: str, member: str = "") -> Runner:
    """A service's process: on the embedded pair worker, courier and keeper over its own file, on
    a cluster the worker alone."""
    unit = unit_of(find_service(house, name), house.catalog, house.book)
    if house.cluster is not None:
        return _worker_alone(house, unit, member or name)
    log, store = make_log(house), make_store(house, name)
    store.file.beat = open_beat(house.run / f"{member or name}.beat")
    wakes = make_wakes(house, name)
    slots = Slots(run_folder(house.home) / f"{name}.slots", unit.lanes)
    courier = _courier(house, unit, log, store, wakes)
    return Runner(
        Worker(unit, log, store, slots), courier, wakes, WallClock(),
        make_keeper(house, log, store, name), reporter(house, member or name), store.file.beat,
    )


def _worker_alone(house: House, unit: Unit, member: str) -> Runner:
    """On a cluster: what it writes is carried by couriers elsewhere, what it reads comes by
    itself. The slots are the store's rows of attempts."""
    wakes = make_wakes(house, unit.name, to=f"{COURIERS}-{unit.name}")
    worker = Worker(
        unit, open_log(house, wakes.poke), open_store(house, unit.name), NoSlots(unit.lanes)
    )
    return Runner(worker, None, wakes, WallClock(), None, reporter(house, member))


def _courier(
    house: House, unit: Unit, log: Log, store: Store, wakes: Wakes
) -> Courier | None:
    """The service's courier, None where it has nothing to carry."""
    gateways = make_gateways(house, unit.entry.asks)
    pool = Threads({n: e.max_in_flight for n, (e, _) in gateways.items() if not e.inline})
    topics = carried_topics(house, unit)
    if not unit.entry.asks and not topics:
        return None
    return Courier(unit, log, store, gateways, pool, topics, wakes.poke)


def carried_topics(house: House, unit: Unit) -> list[str]:
    """Topics that the service's rows are carried to: on a cluster all it writes."""
    if house.cluster is None:
        own = set(own_topics(house.catalog, unit.name))
        return [topic for topic in unit.entry.writes if topic not in own]
    known = house.catalog.topics
    return [t for t in dict.fromkeys((*unit.entry.writes, unit.answers, unit.dead)) if t in known]


def make_shifts(house: House, services: Iterable[str], member: str) -> list[Shift]:
    """The couriers of some services (none named: of all, and of the door), each by itself with
    its own connections. Raises ``Usage`` where the workers carry."""
    if house.cluster is None:
        raise Usage(
            "workers_carry", "In a home folder each worker carries its own rows.",
            "Leave `penstock courier` out, or name a broker and a database.",
        )
    door, known = house.flow.door, [s.name for s in house.flow.services]
    gate = door_service(door, house.flow.door_states)
    chosen = [
        gate if name == door else find_service(house, name)
        for name in services or [*known, *([door] if door else [])]
    ]
    reader, reports = house.cluster.reader(), house.cluster.reports()  # one connection each
    return [
        _shift(house, house.cluster, unit_of(s, house.catalog, house.book), member, reader, reports)
        for s in chosen
    ]


def _shift(
    house: House, cluster: Cluster, unit: Unit, member: str, reader: Scanning, reports: Reports
) -> Shift:
    name = f"{COURIERS}-{unit.name}"
    wakes, log, store = make_wakes(house, name), open_log(house), open_store(house, unit.name)
    courier = _courier(house, unit, log, store, wakes)
    assert courier is not None, "every service has dead letters to carry"
    return Shift(
        courier, cluster.roll(unit.name, member), wakes, WallClock(),
        make_keeper(house, log, store, unit.name, reader),
        lambda said: reports.put(f"{member}/{unit.name}", said),
    )


class Reports(Protocol):
    """Where processes say how they are."""

    def put(self, name: str, said: dict[str, Any]) -> None:
        """Replace what the process said last."""


def reporter(house: House, member: str) -> Callable[[dict[str, Any]], None]:
    """Where a process says how it is: a file of the home, or a row of the database."""
    if house.cluster is not None:
        reports, name = house.cluster.reports(), f"{socket.gethostname()}/{member}"
        return lambda said: reports.put(name, said)
    path = house.run / "status" / f"{member}.json"
    return lambda said: write_whole(path, said)


def reports_of(house: House) -> Callable[[], Iterable[bytes]]:
    """What all processes said last."""
    if house.cluster is not None:
        return house.cluster.reports().all
    return lambda: _left_in(house.run / "status")


def _left_in(folder: Path) -> Iterable[bytes]:
    for path in sorted(folder.glob("*.json")):
        with suppress(FileNotFoundError):  # gone since it was listed
            yield path.read_bytes()


def make_gate(house: House, wakes: Wakes) -> tuple[Gate, Keeper | None]:
    """The door's group commit, and the keeper that its committer thread runs when idle."""
    flow, clock = house.flow, WallClock()
    made = flow.door, flow.door_states, flow.door_labels, house.book
    if house.cluster is not None:
        # Several doors at one database: each commits under a lane of its own, for they need not
        # exclude each other; the rows they lock do that.
        lane = -(1 << 10) - secrets.randbelow(1 << 30)
        store = open_store(house, flow.door)
        return Gate(*made, store, clock, wakes.tell, lane=lane), None
    file_store = make_store(house, flow.door)
    file_store.file.beat = open_beat(house.run / "web.beat")
    gate = Gate(*made, file_store, clock, wakes.tell)
    return gate, make_keeper(house, make_log(house), file_store, flow.door)


def make_site(house: House, host: str, port: int, names: tuple[str, ...] = ()) -> Site:
    """What the web is given: the door's gate, and readers of everything else. It answers to
    ``names`` besides its own addresses."""
    door = house.flow.door
    its_courier = f"{COURIERS}-{door}" if house.cluster is not None else ""
    wakes, operator = make_wakes(house, door, to=its_courier), operator_wakes(house)
    gate, keeper = make_gate(house, wakes)
    clock = WallClock()

    def close() -> None:
        wakes.close()
        operator.close()

    return Site(
        flow=house.flow, catalog=house.catalog, home=house.home, clock=clock,
        log=open_log(house, seconds=LOOK_SECONDS_MAX),
        scan=Readers(house).scan, journal=journal_writer(house, operator), gate=gate,
        close=close, idle=lambda: keeper.step(clock.now()) if keeper else 0,
        alarms=keeper.alarms if keeper else {}, reports=reports_of(house),
        sandbox=all_sandboxes(house.catalog), host=host,
        url=f"http://{host}:{port}", names=names,
    )


def all_sandboxes(catalog: Catalog) -> bool:
    """Does every gateway have a sandbox, so that nothing real is ever called?"""
    return all(g.sandbox is not None for g in catalog.gateways.values())


def operator_wakes(house: House) -> Wakes:
    """The mouth of whoever writes to the journal for an operator."""
    return make_wakes(house, f"operator-{os.getpid()}")


def journal_writer(house: House, wakes: Wakes) -> Callable[[str, Request], None]:
    """Append an operator's request to the journal, and wake who reads it."""
    log, clock = open_log(house), WallClock()

    def write(type_: str, wish: Request) -> None:
        now = clock.now()
        kind, version, value = house.book.seal_as(type_, wish)
        place = f"{wish.service}/{wish.topic}/{wish.partition}/{wish.offset}"
        id_ = root_id(now, wish.actor, type_, place, str(time.monotonic_ns()))
        message = Message(wish.key, value, id_, kind, version, now, b"", "", wish.actor)
        log.append(JOURNAL, [message], now)
        wakes.tell([JOURNAL])

    return write
