"""What came into a topic since a moment, read without a group: how a run ends, and is judged."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaException, TopicPartition

LOOK_SECONDS = 0.05  # a look is four requests, which cost the broker
ANSWER_SECONDS = 10.0
READ_RECORDS = 2000
SECONDS_MAX = 300.0


class Found(NamedTuple):
    """A record that was read back; ``at`` is the broker's time where the topic has that."""

    key: bytes
    value: bytes
    at: float


class Tail:
    """One topic from its end at the time this was made."""

    def __init__(self, client: Consumer, topic: str, partitions: int) -> None:
        self._client = client
        self._places = [TopicPartition(topic, p) for p in range(partitions)]
        self._from = [self._end(place) for place in self._places]

    def _end(self, place: TopicPartition) -> int:
        until = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                return int(self._client.get_watermark_offsets(place, timeout=ANSWER_SECONDS)[1])
            except KafkaException:  # a topic made a moment ago may not be known everywhere
                if time.monotonic() > until:
                    raise
                time.sleep(LOOK_SECONDS)

    @property
    def count(self) -> int:
        """Offsets written since."""
        return sum(map(self._end, self._places)) - sum(self._from)

    def wait(self, count: int) -> None:
        """Until so many are there. Raises when they do not come."""
        until = time.monotonic() + SECONDS_MAX
        while self.count < count:
            if time.monotonic() > until:
                raise AssertionError(f"{self.count} of {count} records came in {SECONDS_MAX:g} s")
            time.sleep(LOOK_SECONDS)

    def records(self) -> Iterator[Found]:
        """What is there now."""
        ends = [self._end(place) for place in self._places]
        starts = zip(self._places, self._from, strict=True)
        self._client.assign([TopicPartition(p.topic, p.partition, at) for p, at in starts])
        left = {p.partition: end for p, end in zip(self._places, ends, strict=True)}
        left = {n: end for n, end in left.items() if end > self._from[n]}
        until = time.monotonic() + SECONDS_MAX
        while left:
            assert time.monotonic() < until, f"{self._places[0].topic} could not be read"
            for raw in self._client.consume(READ_RECORDS, 0.5):
                assert raw.error() is None, str(raw.error())
                yield Found(raw.key() or b"", raw.value() or b"", raw.timestamp()[1] / 1000)
                n, after = raw.partition() or 0, (raw.offset() or 0) + 1
                if after >= left.get(n, after + 1):
                    del left[n]
        self._client.unassign()


@contextmanager
def tailing(servers: str, topic: str, partitions: int) -> Iterator[Tail]:
    """Follow a topic from here on."""
    settings = {
        "bootstrap.servers": servers, "group.id": f"{topic}-tail", "enable.auto.commit": False,
        "log_level": 2,
    }  # fmt: skip
    with closing(Consumer(settings)) as client:
        yield Tail(client, topic, partitions)
