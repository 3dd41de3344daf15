"""Logs and stores of a house. ``open_log`` and ``open_store`` give those of the pair it runs on;
the others make one of a kind, for those who know which they want."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from penstock.assemble.cluster import nobody_listens
from penstock.assemble.house import House, own_topics, shared_files, specs
from penstock.embedded.file import File
from penstock.errors import NotFound
from penstock.flow import Flow, Row, Scan
from penstock.limits import KAFKA_SECONDS_MAX
from penstock.log.embedded import EmbeddedLog
from penstock.log.memory import MemoryLog
from penstock.ports import Log, Store
from penstock.store.sqlite import SqliteStore


class OpenLog(Log, Protocol):
    """A log that can be closed."""

    def close(self) -> None:
        """Let go of files and connections."""


def open_log(
    house: House, arrived: Callable[[Iterable[str]], None] = nobody_listens,
    seconds: float = KAFKA_SECONDS_MAX,
) -> OpenLog:  # fmt: skip
    """A log of one's own (one thread each); ``arrived`` may be told from a thread which topics
    have something new. A broker that is away is waited for so many ``seconds``."""
    if house.cluster is not None:
        return house.cluster.log(specs(house.catalog), arrived, seconds)
    return make_log(house)


def open_store(house: House, service: str, *, readonly: bool = False) -> Store:
    """A service's store (one thread each)."""
    if house.cluster is not None:
        return house.cluster.store(service)
    return make_store(house, service, readonly=readonly)


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


class Scanning(Protocol):
    """What rows can be read from."""

    def scan(self, what: Scan) -> list[Row]:
        """A scan, bodies undecoded. Raises ``NotFound`` where there is nothing to open."""


class Files:
    """Read-only stores of every service's file, opened when first looked at (one thread each)."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._stores: dict[str, SqliteStore] = {}

    def scan(self, what: Scan) -> list[Row]:
        """A scan of the service's own file."""
        if what.service not in self._stores:
            self._stores[what.service] = make_store(self._house, what.service, readonly=True)
        return self._stores[what.service].scan(what)


class Readers:
    """The rows of every service, document bodies decoded."""

    def __init__(self, house: House, over: Scanning | None = None) -> None:
        self._over = over or scanning(house)
        self._decoders = decoders(house.flow)

    def scan(self, what: Scan) -> list[Row]:
        """A scan with document bodies decoded; nothing where the service has no file yet."""
        try:
            rows = self._over.scan(what)
        except NotFound:
            return []
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


def scanning(house: House) -> Scanning:
    """What reads the rows of all services: their files, or the database over one connection."""
    return Files(house) if house.cluster is None else house.cluster.reader()


def decoders(flow: Flow) -> dict[tuple[str, str], Callable[[bytes], Any]]:
    """What decodes a document, by service and kind."""
    states = {(s.name, kind): cls for s in flow.services for kind, cls in s.states.items()}
    states |= {(flow.door, kind): cls for kind, cls in flow.door_states.items()}
    return {at: msgspec.json.Decoder(cls).decode for at, cls in states.items()}
