"""The logs and stores of a simulated world: in memory (fast), or the embedded files (slow).

Both are the real engine's ports. In memory a topic that is appended in its producer's commit lands
in the memory log when that commit is through, and not before: as in the embedded file, where both
are one transaction. Every record that ever landed is kept for the auditor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penstock import assemble
from penstock.embedded.file import File
from penstock.errors import StorageFull
from penstock.event import Message, Origin, Record, partition_of
from penstock.ports import Extent, Features, Lane, Log, Store, TopicSpec
from penstock.sim.audit.books import Fact
from penstock.sim.faults import Faults

Landing = Callable[[str, Sequence[Message], int, int, int], None]


class Recorded:
    """The memory log (the ``Log`` port), with faults, that remembers every record it took."""

    features = Features(survives_restart=False, several_processes=False, torn_tail=False)

    def __init__(self, house: assemble.House, faults: Faults) -> None:
        self._memory = assemble.make_memory_log(house)
        self._faults = faults
        self.facts: dict[str, list[Fact]] = {topic: [] for topic in house.catalog.topics}
        self._appends: Counter[str] = Counter()

    def ensure(self, topics: Sequence[TopicSpec]) -> None:
        """Nothing to do: the topics are there from the start."""
        self._memory.ensure(topics)

    def append(
        self, topic: str, messages: Sequence[Message], now: int, origins: Sequence[Origin] = ()
    ) -> None:
        """Append, unless the disk is full before or (as far as the caller knows) after it."""
        if self._faults.fires("full:append"):
            raise StorageFull("simulated: no room for the append")
        self._appends[topic] += 1
        self.land(topic, messages, now, self._appends[topic], 0)
        if self._faults.fires("full:appended"):
            raise StorageFull("simulated: the append was made, its end was not seen")

    def land(
        self, topic: str, messages: Sequence[Message], now: int, txn: int, epoch: int
    ) -> None:
        """Append what a commit (or a courier) made durable."""
        held, facts = self._memory.partitions(topic), self.facts[topic]
        count = len(held)
        next_ = [partition.next for partition in held]
        for m in messages:
            p = partition_of(m.key, count)
            facts.append(
                Fact(topic, p, next_[p], max(now, held[p].latest), txn, epoch, m.key, m.value,
                     m.id, m.type, m.version, m.at, m.cause, m.trace, m.source, m.notes)
            )  # fmt: skip
            next_[p] += 1
        self._memory.append(topic, messages, now)

    def read(self, topic: str, partition: int, start: int, limit: int) -> list[Record]:
        """As the memory log."""
        return self._memory.read(topic, partition, start, limit)

    def extent(self, topic: str, since: int | None = None) -> list[Extent]:
        """As the memory log."""
        return self._memory.extent(topic, since)

    def join(self, group: str, topics: Sequence[str]) -> Lane:
        """As the memory log."""
        return self._memory.join(group, topics)

    def retain(self, topic: str, floors: Mapping[int, int], now: int) -> int:
        """As the memory log; what is dropped stays among ``facts``."""
        return self._memory.retain(topic, floors, now)


class MemoryFile(File):
    """A service's tables in memory; its topics land in the memory log at the commit."""

    def __init__(self, landing: Landing, faults: Faults) -> None:
        super().__init__(None)
        self._landing, self._faults = landing, faults
        self._pending: list[tuple[str, Sequence[Message], int, int, int]] = []

    def append(
        self, topic: str, messages: Sequence[Message], now: int, txn: int, epoch: int
    ) -> None:
        """Kept until the commit."""
        self._pending.append((topic, messages, now, txn, epoch))

    @contextmanager
    def write(self) -> Iterator[None]:
        """A transaction that may find the disk full before it began or at its end."""
        if self._faults.fires("full:begin"):
            raise StorageFull("simulated: no room to begin")
        self._pending = []
        with super().write():
            yield
            if self._faults.fires("full:commit"):
                raise StorageFull("simulated: no room to commit")
        for appended in self._pending:
            self._landing(*appended)


class FullFile(File):
    """An embedded file whose disk may be full."""

    def __init__(self, path: Path, faults: Faults) -> None:
        self._faults: Faults | None = None
        super().__init__(path, shared=True)
        self._faults = faults

    @contextmanager
    def write(self) -> Iterator[None]:
        """A transaction that may find the disk full before it began or at its end."""
        faults = self._faults
        if faults is not None and faults.fires("full:begin"):
            raise StorageFull("simulated: no room to begin")
        with super().write():
            yield
            if faults is not None and faults.fires("full:commit"):
                raise StorageFull("simulated: no room to commit")


class MemoryParts:
    """Everything in memory: one log for all, one store per service for all its processes."""

    def __init__(
        self, house: assemble.House, direct: Iterable[str], faults: Faults,
        seconds: Callable[[], float],
    ) -> None:  # fmt: skip
        self._house, self._direct, self._faults = house, frozenset(direct), faults
        self.recorded = Recorded(house, faults)
        self._stores: dict[str, Any] = {}

    def log(self) -> Log:
        """The log."""
        return self.recorded

    def store(self, service: str) -> Store:
        """The service's store."""
        if service not in self._stores:
            own = [t for t in assemble.own_topics(self._house.catalog, service)
                   if t in self._direct]  # fmt: skip
            file = MemoryFile(self.recorded.land, self._faults)
            self._stores[service] = assemble.store_over(file, service, own)
        store: Store = self._stores[service]
        return store

    def direct(self, service: str) -> frozenset[str]:
        """The topics that the service appends in its own commit."""
        return frozenset(self._stores[service].direct)

    def connection(self, service: str) -> Any:
        """The database of a service, for the auditor."""
        return self._stores[service].file.db

    def gone(self, *parts: Log | Store) -> None:
        """A process ended: nothing of it was its own."""


class EmbeddedParts:
    """The embedded files in a folder: every process has a log and connections of its own."""

    def __init__(
        self, house: assemble.House, direct: Iterable[str], faults: Faults,
        seconds: Callable[[], float],
    ) -> None:  # fmt: skip
        self._house, self._direct, self._faults = house, frozenset(direct), faults
        self._seconds = seconds
        assemble.prepare(house)

    def log(self) -> Log:
        """A log of one's own; members are seen by the simulated clock."""
        log = assemble.make_log(self._house)
        log.monotonic = self._seconds
        return log

    def store(self, service: str) -> Store:
        """A store of one's own."""
        file = FullFile(self._house.home / f"{service}.db", self._faults)
        return assemble.store_over(file, service, self.direct(service))

    def direct(self, service: str) -> frozenset[str]:
        """The topics that the service appends in its own commit."""
        own = assemble.own_topics(self._house.catalog, service)
        return self._direct & frozenset(own)

    def gone(self, *parts: Log | Store) -> None:
        """Close what the process had open."""
        for part in parts:
            open_: Any = getattr(part, "file", part)
            open_.close()


Parts = MemoryParts | EmbeddedParts
