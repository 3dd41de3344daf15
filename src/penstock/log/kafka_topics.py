"""Topics on a Kafka cluster: what the catalog wants, what there is, and how one becomes the other.

``plan`` is pure. Nothing but ``penstock topics apply`` changes a topic that is there; ``make``
creates what is missing and no more.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewTopic
from msgspec import Struct

from penstock.catalog.model import KafkaSettings, dead_of
from penstock.errors import Conflict, Unreachable
from penstock.limits import KAFKA_SECONDS_MAX
from penstock.log.kafka_clients import DEAD_BYTES_MAX, RECORD_BYTES_MAX
from penstock.log.kafka_errors import raised
from penstock.log.kafka_reader import Ends
from penstock.ports import TopicSpec


def wanted_settings(settings: KafkaSettings, spec: TopicSpec) -> dict[str, str]:
    """A topic's settings as Kafka spells them. Bounds that are off are written as off: a
    cluster's own default would drop what the catalog keeps."""
    age, size = spec.retention_seconds, spec.retention_bytes
    is_dead = spec.name.endswith(dead_of(""))
    wanted = {
        "cleanup.policy": "delete",
        "message.timestamp.type": "LogAppendTime",
        "max.message.bytes": str(DEAD_BYTES_MAX if is_dead else RECORD_BYTES_MAX),
        "retention.ms": "-1" if age is None else str(round(age * 1000)),
        # The catalog bounds the topic, Kafka each partition: together they never hold less.
        "retention.bytes": "-1" if size is None else str(max(1, size // spec.partitions)),
    }
    if settings.min_insync is not None:
        wanted["min.insync.replicas"] = str(settings.min_insync)
    return wanted


def refuse_counts(specs: Sequence[TopicSpec], prefix: str, found: Mapping[str, int]) -> None:
    """Raises ``Conflict`` where a topic has another partition count than it is declared with."""
    for spec in specs:
        count = found.get(prefix + spec.name)
        if count is not None and count != spec.partitions:
            raise Conflict(
                "partition_count",
                f"topic {prefix}{spec.name} has {count} partitions, not {spec.partitions}.",
                "Put the count back in the catalog: keys would move to other partitions.",
            )


def make(ends: Ends, settings: KafkaSettings, specs: Sequence[TopicSpec]) -> None:
    """Create what is missing, after counts have been compared. Raises ``Conflict``."""
    prefix = settings.prefix
    names = [prefix + spec.name for spec in specs]
    found = ends.counts(names)
    refuse_counts(specs, prefix, found)
    missing = [spec for spec in specs if prefix + spec.name not in found]
    if missing:
        create(ends, settings, missing)
        refuse_counts(specs, prefix, ends.counts(names))


def create(ends: Ends, settings: KafkaSettings, specs: Sequence[TopicSpec]) -> None:
    """Create topics; one that somebody else has just made is well."""
    new = [
        NewTopic(
            settings.prefix + spec.name, spec.partitions,
            spec.replication or settings.replication,
            config=wanted_settings(settings, spec),
        )
        for spec in specs
    ]  # fmt: skip
    answers = ends.admin().create_topics(
        new, request_timeout=KAFKA_SECONDS_MAX, operation_timeout=KAFKA_SECONDS_MAX
    )
    for name, answer in answers.items():
        try:
            answer.result(KAFKA_SECONDS_MAX + 1)
        except KafkaException as problem:
            error = problem.args[0]
            if error.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise raised(problem, f"the creation of topic {name}", name) from None
    _wait_for(ends, [topic.topic for topic in new])


def _wait_for(ends: Ends, names: Sequence[str]) -> None:
    """A topic that was made is known to every broker a moment later."""
    deadline = time.monotonic() + KAFKA_SECONDS_MAX
    while time.monotonic() < deadline and len(ends.counts(names)) < len(names):
        ends.pause()


class Found(Struct, frozen=True, kw_only=True):
    """A topic as the cluster has it; ``settings`` are all that hold, its own and the cluster's."""

    partitions: int
    replication: int
    settings: Mapping[str, str] = {}


class Change(Struct, frozen=True, kw_only=True):
    """One difference between catalog and cluster, and what ``apply`` does about it.

    ``act``: ``create`` the topic, ``set`` a setting, or nothing: ``refused`` (it must not be done
    by a tool), ``unknown`` (a topic that the catalog does not have: never deleted).
    """

    act: Literal["create", "set", "refused", "unknown"]
    topic: str
    what: str
    old: str = ""
    new: str = ""
    reason: str = ""


def plan(
    wanted: Sequence[TopicSpec], settings: KafkaSettings, found: Mapping[str, Found]
) -> list[Change]:
    """Every difference between what the catalog wants and what the cluster has."""
    changes: list[Change] = []
    for spec in wanted:
        name = settings.prefix + spec.name
        there = found.get(name)
        if there is None:
            changes.append(_creation(name, spec, settings))
        else:
            changes += _differences(name, spec, settings, there)
    return changes + _strangers(wanted, settings, found)


def _creation(name: str, spec: TopicSpec, settings: KafkaSettings) -> Change:
    copies = spec.replication or settings.replication
    said = f"{spec.partitions} partitions, {copies} replicas"
    return Change(act="create", topic=name, what="topic", new=said)


def _differences(
    name: str, spec: TopicSpec, settings: KafkaSettings, there: Found
) -> Iterator[Change]:
    copies = spec.replication or settings.replication
    if there.partitions != spec.partitions:
        yield Change(
            act="refused", topic=name, what="partitions", old=str(there.partitions),
            new=str(spec.partitions),
            reason="keys would move to other partitions, behind their own earlier records",
        )
    if there.replication != copies:
        yield Change(
            act="refused", topic=name, what="replication", old=str(there.replication),
            new=str(copies), reason="brokers must copy the records: kafka-reassign-partitions.sh",
        )
    for key, value in wanted_settings(settings, spec).items():
        old = there.settings.get(key, "")
        if old != value:
            yield Change(act="set", topic=name, what=key, old=old, new=value)


def _strangers(
    wanted: Sequence[TopicSpec], settings: KafkaSettings, found: Mapping[str, Found]
) -> list[Change]:
    """Topics with our prefix that the catalog does not have. Without a prefix any topic of the
    cluster would be one, so then none is."""
    known = {settings.prefix + spec.name for spec in wanted}
    strangers = [n for n in found if settings.prefix and n.startswith(settings.prefix)]
    return [
        Change(
            act="unknown", topic=name, what="topic", old=f"{found[name].partitions} partitions",
            reason="the catalog has no such topic; nothing is ever deleted",
        )
        for name in sorted(strangers) if name not in known
    ]  # fmt: skip


def find(ends: Ends, settings: KafkaSettings, specs: Sequence[TopicSpec]) -> dict[str, Found]:
    """The topics of the catalog, and others with its prefix, as the cluster has them."""
    ours = {settings.prefix + spec.name for spec in specs}
    there = {
        name: topic for name, topic in ends.topics().items()
        if name in ours or (settings.prefix and name.startswith(settings.prefix))
    }
    asked = [ConfigResource(ResourceType.TOPIC, name) for name in there if name in ours]
    held = _results(
        ends.admin().describe_configs(asked, request_timeout=KAFKA_SECONDS_MAX) if asked else {},
        "the settings of topics",
    )
    return {
        name: Found(
            partitions=len(topic.partitions),
            replication=min((len(p.replicas) for p in topic.partitions.values()), default=0),
            settings={k: e.value for k, e in held.get(name, {}).items() if e.value is not None},
        )
        for name, topic in there.items()
    }  # fmt: skip


def apply(
    ends: Ends, settings: KafkaSettings, specs: Sequence[TopicSpec], changes: Sequence[Change]
) -> None:
    """Do what a plan says: create, and set. Raises ``Conflict`` where the world moved since."""
    by_name = {settings.prefix + spec.name: spec for spec in specs}
    new = [by_name[c.topic] for c in changes if c.act == "create"]
    if new:
        create(ends, settings, new)
    by_topic: dict[str, list[Any]] = {}
    for change in changes:
        if change.act == "set":
            entry = ConfigEntry(
                change.what, change.new, incremental_operation=AlterConfigOpType.SET
            )
            by_topic.setdefault(change.topic, []).append(entry)
    asked = [
        ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)
        for name, entries in by_topic.items()
    ]
    if asked:
        admin = ends.admin()
        done = admin.incremental_alter_configs(asked, request_timeout=KAFKA_SECONDS_MAX)
        _results(done, "a change of topics' settings")
        _wait_until_seen(ends, settings, specs, changes)
    if new:
        names = [settings.prefix + spec.name for spec in new]
        refuse_counts(new, settings.prefix, ends.counts(names))


TIMES = "message.timestamp.type"


def keep_times(
    ends: Ends, settings: KafkaSettings, specs: Sequence[TopicSpec], kept: bool
) -> None:
    """Whose time a record is appended under: its producer's (``kept``; nothing is dropped then,
    however old), or the broker's, with the bounds of the catalog."""
    settled = {settings.prefix + spec.name: wanted_settings(settings, spec) for spec in specs}
    # What is copied is old: bounds by age or size would drop it while it arrives.
    free = {TIMES: "CreateTime", "retention.ms": "-1", "retention.bytes": "-1"}
    wanted = {
        name: free if kept else {key: own[key] for key in free} for name, own in settled.items()
    }
    asked = [
        ConfigResource(
            ResourceType.TOPIC, name,
            incremental_configs=[
                ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
                for key, value in values.items()
            ],
        )
        for name, values in wanted.items()
    ]  # fmt: skip
    done = ends.admin().incremental_alter_configs(asked, request_timeout=KAFKA_SECONDS_MAX)
    _results(done, "a change of topics' times")
    deadline = time.monotonic() + KAFKA_SECONDS_MAX
    while time.monotonic() < deadline:
        found = find(ends, settings, specs)
        if all(
            found[name].settings.get(key) == value
            for name, values in wanted.items() for key, value in values.items()
        ):  # fmt: skip
            return
        ends.pause()
    raise Unreachable(f"Kafka's brokers do not show whose times {', '.join(wanted)} take")


def _wait_until_seen(
    ends: Ends, settings: KafkaSettings, specs: Sequence[TopicSpec], changes: Sequence[Change]
) -> None:
    """A change is on the controller first and on the brokers a moment later."""
    deadline, wanted = time.monotonic() + KAFKA_SECONDS_MAX, set(changes)
    while time.monotonic() < deadline:
        if wanted.isdisjoint(plan(specs, settings, find(ends, settings, specs))):
            return
        ends.pause()


def _results(answers: Mapping[Any, Any], doing: str) -> dict[str, Any]:
    found = {}
    for resource, answer in answers.items():
        try:
            found[resource.name] = answer.result(KAFKA_SECONDS_MAX + 1)
        except KafkaException as problem:
            raise raised(problem, doing, resource.name) from None
    return found
