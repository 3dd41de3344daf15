"""The SQLite store passes the suite: in memory, in a file with an outbox for every topic, and in
a file that holds its own topics and appends to them in the commit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import pytest

from penstock.conformance import store_scenarios
from penstock.conformance.scenario import NOW, title
from penstock.conformance.stores import ANSWERS, FOLDED, SERVICE, StoreFixture
from penstock.embedded.file import File
from penstock.embedded.rows import unpack
from penstock.embedded.schema import log_table
from penstock.event import Message
from penstock.ports import Features
from penstock.store.sqlite import SqliteStore

OWN_TOPICS = (ANSWERS, FOLDED)


def open_store(path: Path, direct: tuple[str, ...]) -> SqliteStore:
    """The live store as another process opens it."""
    return SqliteStore(File(path, shared=True), SERVICE, direct=direct)


class MemoryStoreFixture:
    """All handles are one connection to one database in memory."""

    features = Features(survives_restart=False, several_processes=False, torn_tail=False)
    opener = None

    def __init__(self) -> None:
        self._file = File(None)

    def open(self, service: str = SERVICE, namespace: str = "live") -> SqliteStore:
        store = SqliteStore(self._file, service, namespace)
        assert store.features == self.features
        return store

    def restart(self) -> None:
        raise AssertionError("a store in memory ends with its process")

    def promised(self, topic: str) -> list[Message]:
        return [row.message for row in self.open().due(topic, NOW, (), 1000, is_topic=True)]

    def close(self) -> None:
        self._file.close()


class FileStoreFixture:
    """Every handle is a connection of its own to one file, with the turnstile."""

    features = Features()
    direct: tuple[str, ...] = ()

    def __init__(self, home: Path) -> None:
        self._path = home / f"{SERVICE}.db"
        self.opener = partial(open_store, self._path, self.direct)
        self._files: list[File] = []

    def _file(self) -> File:
        self._files.append(File(self._path, shared=True))
        return self._files[-1]

    def open(self, service: str = SERVICE, namespace: str = "live") -> SqliteStore:
        store = SqliteStore(self._file(), service, namespace, self.direct)
        assert store.features == self.features
        return store

    def restart(self) -> None:
        self.close()

    def promised(self, topic: str) -> list[Message]:
        return [row.message for row in self.open().due(topic, NOW, (), 1000, is_topic=True)]

    def close(self) -> None:
        for file in self._files:
            file.close()
        self._files.clear()


class OwnTopicsFixture(FileStoreFixture):
    """The file holds the service's topics, appended in the commit itself."""

    features = Features(appends_in_commit=True)
    direct = OWN_TOPICS

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        file = self._file()
        for topic in OWN_TOPICS:
            file.ensure_topic(topic, 4)

    def promised(self, topic: str) -> list[Message]:
        rows: Iterable[tuple[int, int, int, int, int, bytes]] = self._file().run(
            f"SELECT at, count, appended_at, codec, crc, body FROM {log_table(topic)} ORDER BY at"
        )
        return [record.message for row in rows for record in unpack(topic, row, 0)]


@pytest.fixture
def memory() -> Iterator[MemoryStoreFixture]:
    fixture = MemoryStoreFixture()
    yield fixture
    fixture.close()


@pytest.fixture
def with_outbox(home: Path) -> Iterator[FileStoreFixture]:
    fixture = FileStoreFixture(home)
    yield fixture
    fixture.close()


@pytest.fixture
def with_topics(home: Path) -> Iterator[OwnTopicsFixture]:
    fixture = OwnTopicsFixture(home)
    yield fixture
    fixture.close()


Scenario = Callable[[StoreFixture], None]


@pytest.mark.parametrize("scenario", store_scenarios(MemoryStoreFixture.features), ids=title)
def test_store_in_memory(scenario: Scenario, memory: MemoryStoreFixture) -> None:
    scenario(memory)


@pytest.mark.parametrize("scenario", store_scenarios(FileStoreFixture.features), ids=title)
def test_store_with_outbox(scenario: Scenario, with_outbox: FileStoreFixture) -> None:
    scenario(with_outbox)


@pytest.mark.parametrize("scenario", store_scenarios(OwnTopicsFixture.features), ids=title)
def test_store_with_topics(scenario: Scenario, with_topics: OwnTopicsFixture) -> None:
    scenario(with_topics)
