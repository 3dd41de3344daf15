"""The composition root: the only module that names adapters.

A *house* is a home folder with its catalog and flow. From it come the log, the stores, and the
processes: one per service with its courier, the web, and the sandboxes.
"""

from __future__ import annotations

import fcntl
import importlib.resources
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import apsw
import msgspec
from msgspec import Struct

from penstock import __version__
from penstock.catalog.load import BadCatalog, load_catalog
from penstock.catalog.model import JOURNAL, Catalog, GatewayEntry
from penstock.contracts.own import OWN
from penstock.contracts.snapshot import OWN_FOLDER, verify
from penstock.contracts.wire import Book
from penstock.decision import Request
from penstock.dotted import resolve
from penstock.embedded.file import File, wal_safe
from penstock.engine.courier import Courier
from penstock.engine.crew import Member, open_beat
from penstock.engine.intake import Gate
from penstock.engine.keeper import Keeper
from penstock.engine.runner import Runner, Threads, sync_folder, write_whole
from penstock.engine.slots import Slots
from penstock.engine.unit import unit_of
from penstock.engine.wakes import Wakes, run_folder
from penstock.engine.worker import Worker
from penstock.errors import Conflict, NotFound, Problem, Usage
from penstock.event import Message, root_id
from penstock.flow import Flow, Row, Scan
from penstock.log.embedded import EmbeddedLog
from penstock.log.memory import MemoryLog
from penstock.ports import Gateway, TopicSpec
from penstock.store.sqlite import SqliteStore
from penstock.web.site import Site

HOME_FORMAT = 1
CARRIED_VARIABLE = "PENSTOCK_CARRIED"  # topics that go by outbox and courier all the same


class WallClock:
    """The real time (the ``Clock`` port)."""

    def now(self) -> int:
        """Milliseconds since the epoch."""
        return time.time_ns() // 1_000_000


class House(Struct, frozen=True, kw_only=True):
    """A home folder with everything declared of it."""

    home: Path
    catalog: Catalog
    flow: Flow
    book: Book
    catalog_path: Path | None = None
    vfs: str = ""  # the layer between SQLite and the disk (sim.disk); empty: the system's own

    @property
    def run(self) -> Path:
        """Where processes leave what others must know; worth nothing after a stop."""
        return self.home / "run"


def contracts_folder(catalog: Catalog, catalog_path: Path | None) -> Path:
    """The folder of schema snapshots: beside the catalog, or shipped with the flow."""
    beside = (catalog_path.parent if catalog_path else Path.cwd()) / catalog.contracts
    if catalog_path and beside.is_dir():
        return beside
    shipped = Path(str(importlib.resources.files(catalog.flow.partition(":")[0])))
    if (shipped / "contracts").is_dir():
        return shipped / "contracts"
    # A checkout: the package's contracts lie in the repository's folder of that name.
    return Path(__file__).resolve().parents[2] / catalog.contracts


def refuse_unsafe(version: str) -> None:
    """Refuse a SQLite that can lose acknowledged records. Raises ``Problem``."""
    if not wal_safe(version):
        raise Problem(
            "sqlite_unsafe", f"SQLite {version} can lose data in WAL mode (the WAL-reset race).",
            "Install apsw 3.51.3 or newer: pip install -U apsw",
        )


def open_house(home: Path, catalog_path: Path | None = None) -> House:
    """Load and check everything a start relies on. Raises ``Problem``."""
    refuse_unsafe(apsw.sqlite_lib_version())
    catalog = _declared(catalog_path)
    flow = cast(Flow, resolve(catalog.flow))
    verify(OWN, OWN_FOLDER)
    verify(flow.contracts, contracts_folder(catalog, catalog_path))
    book = Book(flow.contracts)
    return House(home=home, catalog=catalog, flow=flow, book=book, catalog_path=catalog_path)


def _declared(catalog_path: Path | None) -> Catalog:
    """The catalog; a broken one is wrong input to whoever wants to start with it."""
    try:
        return load_catalog(catalog_path)
    except BadCatalog as bad:
        raise Usage(bad.code, bad.message, bad.fix) from None


def prepare(house: House) -> None:
    """Make the home folder and every topic; refuse one that a newer penstock wrote."""
    make_home(house)
    (house.run / "status").mkdir(exist_ok=True)
    stamp = house.home / "home.json"
    if stamp.exists():
        found = json.loads(stamp.read_text())
        if found.get("format", 0) > HOME_FORMAT:
            raise Conflict(
                "newer_home",
                f"{house.home} was made by penstock {found.get('penstock')} (format "
                f"{found['format']}); this is {__version__} (format {HOME_FORMAT}).",
                "Run the newer penstock, or choose another folder with --home.",
            )
    else:
        write_whole(stamp, {"format": HOME_FORMAT, "penstock": __version__}, durable=True)
    log = make_log(house)
    log.ensure(specs(house.catalog))
    log.close()


def make_home(house: House) -> None:
    """The folders of a home, private, and their names on the disk: a power cut shall not take
    them with everything that is promised in them."""
    home = house.home.absolute()
    new = [folder for folder in (home, *home.parents) if not folder.exists()]
    # One by one: mkdir makes missing parents with the umask's mode, readable by others.
    for folder in (home, house.run):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in new:
        sync_folder(folder.parent)


class HomeLock:
    """One ``up`` at a time per home; the lock dies with its process."""

    def __init__(self, house: House) -> None:
        make_home(house)
        self._fd = os.open(house.run / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(
                "home_in_use", f"{house.home} is in use by another penstock ({who(house)}).",
                "Stop it (Ctrl-C where it runs), or choose another folder with --home.",
            ) from None


def who(house: House) -> str:
    """Who runs in this home, as far as it left word."""
    try:
        said = json.loads((house.run / "up.json").read_text())
        return f"pid {said['pid']}, {said['url']}"
    except (OSError, ValueError, KeyError):
        return "just starting"


# Topics, log and stores ------------------------------------------------------------------------


def owner_file(catalog: Catalog, topic: str) -> str:
    """The file a topic lies in: its producer's, or its own where several produce."""
    return JOURNAL if topic == JOURNAL else catalog.topics[topic].producer


def specs(catalog: Catalog) -> list[TopicSpec]:
    """Every topic as the log needs to know it."""
    return [
        TopicSpec(
            name=t.name, partitions=t.partitions, owner_file=owner_file(catalog, t.name),
            retention_seconds=t.retention_seconds, retention_bytes=t.retention_bytes,
        )
        for t in catalog.topics.values()
    ]


def shared_files(catalog: Catalog) -> frozenset[str]:
    """Files that several processes write: the journal, those of services with several workers,
    and the door's, for a second `penstock web` may serve the same home."""
    several = {s.name for s in catalog.services.values() if s.workers > 1 or not s.handler}
    return frozenset({JOURNAL} | several)


def own_topics(catalog: Catalog, service: str) -> list[str]:
    """Topics the service alone produces: appended in its own commit."""
    carried = os.environ.get(CARRIED_VARIABLE, "").split()
    own = [t.name for t in catalog.topics.values() if owner_file(catalog, t.name) == service]
    return [name for name in own if name not in carried]


def make_log(house: House) -> EmbeddedLog:
    """A log of one's own (one thread each)."""
    shared = shared_files(house.catalog)
    return EmbeddedLog(house.home, specs(house.catalog), shared, vfs=house.vfs)


def make_store(house: House, service: str, *, readonly: bool = False) -> SqliteStore:
    """A service's store, with its topics in the same file."""
    path = house.home / f"{service}.db"
    shared = service in shared_files(house.catalog)
    file = File(path, readonly=readonly, shared=shared, vfs=house.vfs)
    return SqliteStore(file, service, direct=own_topics(house.catalog, service))


def store_at(path: Path, service: str) -> SqliteStore:
    """A store alone in a file, without topics."""
    return SqliteStore(File(path), service)


def store_over(file: File, service: str, direct: Iterable[str] = ()) -> SqliteStore:
    """A store over an open file; ``direct`` topics are appended in its own commit."""
    return SqliteStore(file, service, direct=direct)


def make_memory_log(house: House) -> MemoryLog:
    """The memory log with the house's topics; its store is ``make_memory_store``."""
    return MemoryLog(specs(house.catalog))


def make_memory_store(house: House, service: str, *, direct: bool = True) -> SqliteStore:
    """A store that no disk ever sees: with its own topics inside, or (for the memory log)
    with every topic reached by outbox and courier."""
    topics = own_topics(house.catalog, service) if direct else []
    file = File(None)
    for topic in topics:
        file.ensure_topic(topic, house.catalog.topics[topic].partitions)
    return SqliteStore(file, service, direct=topics)


class Readers:
    """Read-only stores of every service, opened when first looked at (one thread each)."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._stores: dict[str, SqliteStore] = {}
        self._decoders = decoders(house.flow)

    def scan(self, what: Scan) -> list[Row]:
        """A scan with document bodies decoded; nothing where the service has no file yet."""
        try:
            if what.service not in self._stores:
                self._stores[what.service] = make_store(self._house, what.service, readonly=True)
        except NotFound:
            return []
        rows = self._stores[what.service].scan(what)
        if what.table != "documents":
            return rows
        decode = self._decoders[what.service, what.kind]
        return [msgspec.structs.replace(row, body=decode(row.body)) for row in rows]

    def positions(self, service: str, topic: str) -> Mapping[int, int] | None:
        """A service's position per lane of a topic; None where it never ran."""
        rows = self.scan(Scan(service=service, table="positions", limit=5000))
        if not rows:
            return None
        return {int(row.key): row.body.get(topic, 0) for row in rows}


def decoders(flow: Flow) -> dict[tuple[str, str], Callable[[bytes], Any]]:
    """What decodes a document, by service and kind."""
    states = {(s.name, kind): cls for s in flow.services for kind, cls in s.states.items()}
    states |= {(flow.door, kind): cls for kind, cls in flow.door_states.items()}
    return {at: msgspec.json.Decoder(cls).decode for at, cls in states.items()}


# Processes -------------------------------------------------------------------------------------


def make_wakes(house: House, name: str) -> Wakes:
    """The ears and mouth of a process named after its service."""
    catalog = house.catalog
    readers = {topic: catalog.readers(topic) for topic in catalog.topics}
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
    """What the sandboxes of the running ``up`` set."""
    try:
        return cast(dict[str, str], json.loads((house.run / "outside.json").read_text()))
    except OSError:
        return {}


def make_keeper(house: House, log: EmbeddedLog, store: SqliteStore, service: str) -> Keeper:
    """Retention and pruning of one service's file (the door keeps the journal's as well)."""
    catalog, readers = house.catalog, Readers(house)
    topics = [s for s in specs(catalog) if s.owner_file == service]
    if service == house.flow.door:
        topics += [s for s in specs(catalog) if s.name == JOURNAL]

    def reading(name: str) -> Callable[[str], Mapping[int, int] | None]:
        return lambda topic: readers.positions(name, topic)

    followed = {t.name: [reading(r) for r in catalog.readers(t.name)] for t in topics}
    reads = [s for s in specs(catalog) if s.name in catalog.services[service].reads]
    return Keeper(log, store, topics, reads, followed)


def make_runner(house: House, name: str, member: str = "") -> Runner:
    """A service's process: worker and courier over its own file."""
    service = next((s for s in house.flow.services if s.name == name), None)
    if service is None or name not in house.catalog.services:
        known = ", ".join(s.name for s in house.flow.services)
        raise NotFound("service_unknown", f"no service {name}.", f"Services: {known}.")
    unit = unit_of(service, house.catalog, house.book)
    log, store = make_log(house), make_store(house, name)
    store.file.beat = open_beat(house.run / f"{member or name}.beat")
    wakes = make_wakes(house, name)
    slots = Slots(run_folder(house.home) / f"{name}.slots", unit.lanes)
    gateways = make_gateways(house, unit.entry.asks)
    pool = Threads({n: e.max_in_flight for n, (e, _) in gateways.items() if not e.inline})
    own = set(own_topics(house.catalog, name))
    foreign = [t for t in unit.entry.writes if t not in own]
    courier = Courier(unit, log, store, gateways, pool, foreign, wakes.poke)
    return Runner(
        Worker(unit, log, store, slots), courier if unit.entry.asks or foreign else None, wakes,
        WallClock(), make_keeper(house, log, store, name),
        house.run / "status" / f"{member or name}.json", store.file.beat,
    )


def make_gate(house: House, wakes: Wakes) -> tuple[Gate, Keeper]:
    """The door's group commit, and the keeper that its committer thread runs when idle."""
    flow, store = house.flow, make_store(house, house.flow.door)
    store.file.beat = open_beat(house.run / "web.beat")
    gate = Gate(
        flow.door, flow.door_states, flow.door_labels, house.book, store, WallClock(), wakes.tell
    )
    return gate, make_keeper(house, make_log(house), store, flow.door)


def make_site(house: House, host: str, port: int) -> Site:
    """What the web is given: the door's gate, and readers of everything else."""
    wakes, operator = make_wakes(house, house.flow.door), operator_wakes(house)
    gate, keeper = make_gate(house, wakes)
    clock = WallClock()

    def close() -> None:
        wakes.close()
        operator.close()

    return Site(
        flow=house.flow, catalog=house.catalog, home=house.home, clock=clock, log=make_log(house),
        scan=Readers(house).scan, journal=journal_writer(house, operator), gate=gate,
        close=close, idle=lambda: keeper.step(clock.now()), alarms=keeper.alarms,
        sandbox=all_sandboxes(house.catalog), host=host, url=f"http://{host}:{port}",
    )


def all_sandboxes(catalog: Catalog) -> bool:
    """Does every gateway have a sandbox, so that nothing real is ever called?"""
    return all(g.sandbox is not None for g in catalog.gateways.values())


def operator_wakes(house: House) -> Wakes:
    """The mouth of whoever writes to the journal for an operator."""
    return make_wakes(house, f"operator-{os.getpid()}")


def journal_writer(house: House, wakes: Wakes) -> Callable[[str, Request], None]:
    """Append an operator's request to the journal, and wake who reads it."""
    log, clock = make_log(house), WallClock()

    def write(type_: str, wish: Request) -> None:
        now = clock.now()
        kind, version, value = house.book.seal_as(type_, wish)
        place = f"{wish.service}/{wish.topic}/{wish.partition}/{wish.offset}"
        id_ = root_id(now, wish.actor, type_, place, str(time.monotonic_ns()))
        message = Message(wish.key, value, id_, kind, version, now, b"", "", wish.actor)
        log.append(JOURNAL, [message], now)
        wakes.tell([JOURNAL])

    return write


# The members of one `up` -----------------------------------------------------------------------


def sandboxes(house: House, ports: Mapping[str, int], door: str) -> list[Member]:
    """The processes that stand for the outside on one machine."""
    members = []
    for entry in house.catalog.gateways.values():
        if entry.sandbox is None:
            continue
        box = entry.sandbox
        argv = (
            sys.executable, "-m", box.module, *box.args, "--port", str(ports[entry.name]),
            "--home", str(house.home / "sandbox" / entry.name), "--door", door,
        )
        members.append(
            Member(name=f"sandbox-{entry.name}", argv=argv, stage=0, about=box.about or entry.about)
        )
    return members


def outside_settings(house: House, ports: Mapping[str, int]) -> dict[str, str]:
    """What the sandboxes set: placeholder to value."""
    found: dict[str, str] = {}
    for entry in house.catalog.gateways.values():
        if entry.sandbox is not None:
            here = {"host": "127.0.0.1", "port": str(ports[entry.name])}
            found |= {k: v.format_map(here) for k, v in entry.sandbox.sets.items()}
    return found


def workers(house: House) -> list[Member]:
    """One process per worker of every service of the flow."""
    members = []
    for service in house.flow.services:
        entry = house.catalog.services[service.name]
        for n in range(entry.workers):
            name = service.name if n == 0 else f"{service.name}-{n + 1}"
            argv = command(house, "worker", service.name, "--member", name)
            beat = house.run / f"{name}.beat"
            members.append(Member(name=name, argv=argv, stage=1, about=entry.about, beat=beat))
    return members


def command(house: House, *words: str) -> tuple[str, ...]:
    """A penstock command over this house, as a process's argv."""
    catalog = ("--catalog", str(house.catalog_path)) if house.catalog_path else ()
    return (sys.executable, "-m", "penstock", "--home", str(house.home), *catalog, *words)


