"""Speaking to a broker as a plain client does, for tests of the servers themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, PartitionMetadata

from tests.support import eventually

SECONDS = 30.0
QUIET = {"log_level": 0}


def make_topic(
    settings: Mapping[str, Any], topic: str, partitions: int = 1
) -> PartitionMetadata:
    """Make a topic with the broker's own replication; what is told of its partition 0."""
    client = AdminClient({**settings, **QUIET})
    (made,) = client.create_topics([NewTopic(topic, partitions)]).values()
    made.result(SECONDS)

    def known() -> PartitionMetadata | None:
        # The node that is asked may not have heard of the topic yet, or of its leader.
        told = client.list_topics(topic, timeout=SECONDS).topics[topic].partitions.get(0)
        return told if told is not None and told.leader > 0 else None

    found = eventually(known, what=f"{topic} has no leader")
    assert found is not None
    return found


def put(settings: Mapping[str, Any], topic: str, value: str, seconds: float = SECONDS) -> str:
    """Append a record; the error's name, or nothing when all replicas that must have it do."""
    told: list[str] = []

    def delivered(error: KafkaError | None, _record: object) -> None:
        told.append(error.name() if error is not None else "")

    client = Producer(
        {**settings, **QUIET, "acks": "all", "message.timeout.ms": round(seconds * 1000)}
    )
    client.produce(topic, value, partition=0, on_delivery=delivered)
    client.flush(seconds + 5)
    return told[0] if told else "no answer"


def values(settings: Mapping[str, Any], topic: str, count: int) -> list[str]:
    """The first values of partition 0; fewer when no more come in time."""
    client = Consumer({**settings, **QUIET, "group.id": f"{topic}-reader"})
    try:
        client.assign([TopicPartition(topic, 0, 0)])
        found: list[str] = []
        while len(found) < count and (record := client.poll(SECONDS)) is not None:
            assert record.error() is None, record.error()
            found.append((record.value() or b"").decode())
        return found
    finally:
        client.close()
