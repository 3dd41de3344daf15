"""The log on Apache Kafka.

Positions are the store's; Kafka's own are a hint for other tools. Appended-at is the broker's
time. A record is written by an idempotent producer with ``acks=all`` to the partition of its key,
which is where Kafka's own clients put it too. ``docs/reference/kafka.md`` tells the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import methodcaller
from threading import Lock
from typing import Any
from weakref import WeakSet

from confluent_kafka import Message as Raw

from penstock.catalog.model import KafkaSettings
from penstock.errors import NotFound, OutsideLog
from penstock.event import Message, Origin, Record
from penstock.limits import KAFKA_SECONDS_MAX
from penstock.log.kafka_avro import AvroWire
from penstock.log.kafka_clients import Clients
from penstock.log.kafka_headers import AVRO, Reader, Writer
from penstock.log.kafka_lane import KafkaLane
from penstock.log.kafka_reader import Ends, Ranges
from penstock.log.kafka_topics import Change, apply, find, keep_times, make, plan
from penstock.log.kafka_writer import Appender
from penstock.ports import Extent, Features, TopicSpec

TIME_MAX = (1 << 48) - 1  # ms
_given_headers = methodcaller("headers")
UNNAMED = "penstock-headers-unreadable"  # the note of a record whose headers have no names


def nobody(topics: Iterable[str]) -> None:
    """The ``arrived`` of who looks by itself."""


class KafkaLog:
    """The ``Log`` port on Kafka; threads may share it. Nothing is connected before it is used."""

    features = Features(
        retention=False, torn_tail=False, given_time=False, whole_appends=False, at_once=False
    )

    def __init__(
        self, settings: KafkaSettings, specs: Sequence[TopicSpec] = (),
        arrived: Callable[[Iterable[str]], None] = nobody, wire: AvroWire | None = None,
        seconds: float = KAFKA_SECONDS_MAX,
    ) -> None:  # fmt: skip
        self.settings, self._arrived, self._wire = settings, arrived, wire
        self._specs = {spec.name: spec for spec in specs}
        self._clients = Clients(settings, seconds)
        self._appender = Appender(self._clients)
        self._ends = Ends(self._clients)
        self._ranges = Ranges(self._clients, self._ends)
        self._lock, self._reader = Lock(), Reader()
        self._writers = {"json": Writer(), "avro": Writer(AVRO)}
        self._lanes: WeakSet[KafkaLane] = WeakSet()

    def _spec(self, topic: str) -> TopicSpec:
        if topic not in self._specs:
            known = ", ".join(sorted(self._specs))
            raise NotFound("topic_unknown", f"no topic {topic}.", f"Topics: {known}.")
        return self._specs[topic]

    def name(self, topic: str) -> str:
        """What Kafka calls the topic."""
        return self.settings.prefix + topic

    def ensure(self, topics: Sequence[TopicSpec]) -> None:
        """Make the missing ones; other differences are shown by ``penstock topics plan``."""
        make(self._ends, self.settings, topics)
        self._specs |= {spec.name: spec for spec in topics}

    def plan(self) -> list[Change]:
        """Where the cluster's topics differ from those declared; changes nothing."""
        specs = list(self._specs.values())
        return plan(specs, self.settings, find(self._ends, self.settings, specs))

    def keep_times(self, topics: Sequence[str], kept: bool) -> None:
        """Let topics take the times that records are appended with, as a copy wants it, or (not
        ``kept``) the broker's own again, as everybody else does."""
        keep_times(self._ends, self.settings, [self._specs[topic] for topic in topics], kept)

    def apply(self, changes: Sequence[Change]) -> None:
        """Do what a plan says, as far as a tool may."""
        apply(self._ends, self.settings, list(self._specs.values()), changes)

    def append(
        self, topic: str, messages: Sequence[Message], now: int, origins: Sequence[Origin] = (),
        times: Sequence[int] = (),
    ) -> None:  # fmt: skip
        """Hand all over, wait for all once. ``times``: see ``keep_times``."""
        spec, name = self._spec(topic), self.name(topic)
        if not messages:
            return
        if spec.wire == "avro":
            wire = self._avro()
            messages = [wire.sealed(name, message) for message in messages]
        writer = self._writers[spec.wire]
        self._appender.append(name, spec.partitions, messages, origins, writer, times)

    def _avro(self) -> AvroWire:
        assert self._wire is not None, "a log with topics in Avro is given their schemas"
        return self._wire

    def read(self, topic: str, partition: int, start: int, limit: int) -> list[Record]:
        """Records from ``start`` on, by a consumer that belongs to no group."""
        spec = self._spec(topic)
        try:
            found = self._ranges.read(self.name(topic), partition, start, limit)
        except OutsideLog as error:
            raise OutsideLog(topic, partition, start, error.first, error.next) from None
        with self._lock:
            return self._opened(self._reader, spec, found)

    def _opened(self, reader: Reader, spec: TopicSpec, raws: Sequence[Raw]) -> list[Record]:
        found = records(reader, spec.name, raws)
        if spec.wire == "avro":
            wire = self._avro()
            found = [wire.opened(spec, record) for record in found]
        return found

    def extent(self, topic: str, since: int | None = None) -> list[Extent]:
        """First and next offset of every partition."""
        count = self._spec(topic).partitions
        return self._ends.extents(self.name(topic), range(count), since)

    def join(self, group: str, topics: Sequence[str]) -> KafkaLane:
        """A member of the group; it is assigned lanes as soon as the broker answers."""
        specs = {topic: self._spec(topic) for topic in topics}
        names = {topic: self.name(topic) for topic in topics}
        counts, reader = {topic: spec.partitions for topic, spec in specs.items()}, Reader()

        def opened(topic: str, raws: Sequence[Raw]) -> list[Record]:
            return self._opened(reader, specs[topic], raws)

        lane = KafkaLane(
            self._clients, self._ends, group, names, counts, opened, self._arrived
        )
        self._lanes.add(lane)
        return lane

    def retain(self, topic: str, floors: Mapping[int, int], now: int) -> int:
        """Nothing: the broker drops what is old, by the bounds it was given with the topic."""
        return 0

    def close(self) -> None:
        """Leave every group and let go of all connections. May repeat."""
        for lane in list(self._lanes):
            lane.leave()
        self._appender.close()
        self._ranges.close()
        self._ends.close()
        if self._wire is not None:
            self._wire.close()


def records(reader: Reader, topic: str, raws: Sequence[Raw]) -> list[Record]:
    """The records of one topic in what a client returned. Where the topic takes its writers' times
    one may be none, or no time of ours: ids begin with it, in six bytes."""
    message = reader.message
    return [
        Record(
            topic, raw.partition(), raw.offset(),  # type: ignore[arg-type]
            min(max(raw.timestamp()[1], 0), TIME_MAX),
            message(raw.key(), raw.value(), _headers(raw)),
        )
        for raw in raws
    ]  # fmt: skip


def _headers(raw: Raw) -> Any:
    """A record's headers. Of one with a header's name that is no UTF-8 the client library makes a
    list with holes, which crashes the process when it is looked into. Called by C code, and once
    only, it is refused instead. Such a record is somebody else's, and says so in a note."""
    try:
        return _given_headers(raw)
    except (SystemError, UnicodeError):
        return [(UNNAMED, b"")]


