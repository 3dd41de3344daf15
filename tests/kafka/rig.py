"""What the tests of the Kafka log share: logs on the run's broker, closed at the end of a test."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka import Message as Raw
from confluent_kafka.admin import AdminClient

from penstock.catalog.model import KafkaSettings
from penstock.event import Message
from penstock.limits import KAFKA_SECONDS_MAX
from penstock.log.kafka import KafkaLog
from penstock.log.kafka_avro import AvroWire
from penstock.log.kafka_errors import Ear
from penstock.ports import Taken, TopicSpec
from tests.support import eventually

LETTERS = TopicSpec(name="letters", partitions=4)
REPLIES = TopicSpec(name="replies", partitions=4)
START = {("letters", partition): 0 for partition in range(4)}
ALL = frozenset(range(4))


def remove_topics(servers: str, prefix: str) -> None:
    """Delete every topic with the prefix; a broker that is gone has none."""
    admin = AdminClient({"bootstrap.servers": servers}, logger=Ear())
    with suppress(KafkaException):
        names = [name for name in admin.list_topics(timeout=5).topics if name.startswith(prefix)]
        for done in admin.delete_topics(names).values() if names else ():
            done.result(20)


def numbered(key: str, numbers: Iterable[int]) -> list[Message]:
    """Messages of one key whose values are numbers."""
    return [Message(key, b"%d" % n) for n in numbers]


class Desk:
    """One prefix on a broker: penstock's logs there, and plain clients beside them."""

    def __init__(self, servers: str, prefix: str = "", **settings: Any) -> None:
        self.servers, self.prefix = servers, prefix
        self.settings = KafkaSettings(servers=servers, prefix=prefix, **settings)
        self._logs: list[KafkaLog] = []

    def log(
        self, *specs: TopicSpec, arrived: Callable[[Iterable[str]], None] | None = None,
        seconds: float = KAFKA_SECONDS_MAX,
    ) -> KafkaLog:  # fmt: skip
        """A log with its topics made."""
        log = self.quiet(*specs, arrived=arrived, seconds=seconds)
        log.ensure(specs or (LETTERS,))
        return log

    def quiet(
        self, *specs: TopicSpec, arrived: Callable[[Iterable[str]], None] | None = None,
        wire: AvroWire | None = None, seconds: float = KAFKA_SECONDS_MAX,
    ) -> KafkaLog:  # fmt: skip
        """A log that has asked nothing of the broker yet."""
        heard = arrived or (lambda topics: None)
        log = KafkaLog(self.settings, specs or (LETTERS,), heard, wire, seconds)
        self._logs.append(log)
        return log

    def close(self) -> None:
        """Close every log, and leave no topic behind on a broker of many tests."""
        for log in self._logs:
            log.close()
        if self.prefix and self._logs:
            remove_topics(self.servers, self.prefix)

    def produce(self, topic: str, *records: dict[str, Any], **settings: Any) -> None:
        """Write as a program that knows nothing of penstock would."""
        producer = Producer({"bootstrap.servers": self.servers, **settings})
        failed: list[Any] = []
        for record in records:
            producer.produce(
                self.prefix + topic, on_delivery=lambda e, _: failed.append(e) if e else None,
                **record,
            )
        assert producer.flush(20) == 0
        assert not failed, failed

    def consume(self, topic: str, count: int, partitions: int = 4) -> list[Raw]:
        """Read as a program that knows nothing of penstock would."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.servers, "group.id": "unused",
                "enable.auto.commit": False, "auto.offset.reset": "earliest",
            }
        )  # fmt: skip
        consumer.assign([TopicPartition(self.prefix + topic, p, 0) for p in range(partitions)])
        found: list[Raw] = []

        def enough() -> bool:
            found.extend(raw for raw in consumer.consume(count, 0.2) if raw.error() is None)
            return len(found) >= count

        try:
            eventually(enough, 20, what=f"{count} records of {topic}")
        finally:
            consumer.close()
        return found


def take_all(
    lane: Any, count: int, positions: dict[tuple[str, int], int] | None = None,
    topics: Sequence[str] | None = None,
) -> Taken:  # fmt: skip
    """A look that finds ``count`` records; positions are not moved."""

    def look() -> Taken | None:
        taken: Taken = lane.take(100_000, positions or START, topics)
        return taken if len(taken.records) >= count else None

    found = eventually(look, 30, what=f"{count} records are taken")
    assert found is not None
    return found
