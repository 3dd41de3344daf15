"""What a rig may stand on: nothing, a home folder, or real servers; and the hand clock's time on a
broker that has a clock of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka.admin import AdminClient
from msgspec.structs import replace

from penstock.assemble.cluster import Cluster
from penstock.catalog.model import KafkaSettings
from penstock.event import Message, Origin, Record
from penstock.ports import Extent, Features, Lane, Log, Positions, Taken, TopicSpec

NOW = 1_767_600_000_000
ANSWER_SECONDS = 20


class Servers(NamedTuple):
    """A PostgreSQL database, and a broker with a prefix for all names. Without a broker the log
    is in memory. ``rigs`` are those that stand on it. ``contracts`` and ``registry`` are for topics
    in Avro."""

    dsn: str
    kafka: str
    prefix: str
    rigs: list[Any]
    contracts: Path | None = None
    registry: str = ""

    @property
    def cluster(self) -> Cluster:
        """As a house names it."""
        return Cluster(
            kafka=KafkaSettings(
                servers=self.kafka, prefix=self.prefix, registry=self.registry
            ),
            postgres=self.dsn, contracts=self.contracts,
        )  # fmt: skip

    def close(self) -> None:
        """Close all that stood here, and take its topics away: a run's broker serves hundreds of
        tests. May repeat."""
        while self.rigs:
            self.rigs.pop().close()
        self.clear()

    def clear(self) -> None:
        """Take all topics away."""
        if self.kafka:
            admin = AdminClient({"bootstrap.servers": self.kafka, "log_level": 0})
            names = admin.list_topics(timeout=ANSWER_SECONDS).topics
            mine = [name for name in names if name.startswith(self.prefix)]
            for gone in admin.delete_topics(mine).values() if mine else ():
                gone.result(ANSWER_SECONDS)


Ground = Path | Servers | None


def real_now() -> int:
    """The machine's time in milliseconds."""
    return time.time_ns() // 1_000_000


class HandClock:
    """The ``Clock`` port, moved by hand."""

    def __init__(self, now: int = NOW) -> None:
        self._now = now
        self.moves: list[tuple[int, int]] = [(0, now)]  # when it was moved, and what it shows since

    def now(self) -> int:
        """Milliseconds since the epoch, as far as it was moved."""
        return self._now

    def pass_(self, milliseconds: int) -> None:
        """Let time go by."""
        self._now += milliseconds
        self.moves.append((real_now(), self._now))

    def at(self, real: int) -> int:
        """What it showed at a time of the machine."""
        return next(shown for moved, shown in reversed(self.moves) if moved < real)


class HastyClock(HandClock):
    """Real time, and what was added to it by hand: a broker's own times fit beside it."""

    def now(self) -> int:
        """The machine's time and all that was let go by."""
        return real_now() + self._now - NOW


class HandTimed:
    """A log whose appended-at is what the hand clock showed when the broker took the record."""

    def __init__(self, log: Log, clock: HandClock) -> None:
        self._log, self._clock = log, clock
        self.features: Features = log.features

    def ensure(self, topics: Sequence[TopicSpec]) -> None:
        """As the log does."""
        self._log.ensure(topics)

    def append(
        self, topic: str, messages: Sequence[Message], now: int, origins: Sequence[Origin] = ()
    ) -> None:
        """Append, never in the millisecond in which the clock was moved."""
        while real_now() <= self._clock.moves[-1][0]:
            threading.Event().wait(0.0005)
        self._log.append(topic, messages, now, origins)

    def timed(self, records: Iterable[Record]) -> list[Record]:
        """Records with the hand clock's time."""
        return [replace(r, appended_at=self._clock.at(r.appended_at)) for r in records]

    def read(self, topic: str, partition: int, start: int, limit: int) -> list[Record]:
        """As the log does."""
        return self.timed(self._log.read(topic, partition, start, limit))

    def extent(self, topic: str, since: int | None = None) -> list[Extent]:
        """As the log does."""
        return self._log.extent(topic, since)

    def join(self, group: str, topics: Sequence[str]) -> Lane:
        """A member whose records have the hand clock's time."""
        return _TimedLane(self._log.join(group, topics), self)

    def retain(self, topic: str, floors: Mapping[int, int], now: int) -> int:
        """As the log does."""
        return self._log.retain(topic, floors, now)

    def close(self) -> None:
        """As the log does."""
        self._log.close()  # type: ignore[attr-defined]


class _TimedLane(Lane):
    def __init__(self, lane: Lane, log: HandTimed) -> None:
        self._lane, self._log = lane, log

    def take(self, limit: int, positions: Positions, topics: Iterable[str] | None = None) -> Taken:
        taken = self._lane.take(limit, positions, topics)
        return replace(taken, records=self._log.timed(taken.records))

    def hold(self, lanes: frozenset[int]) -> None:
        self._lane.hold(lanes)

    def leave(self) -> None:
        self._lane.leave()

    def note(self, positions: Positions) -> None:
        self._lane.note(positions)
