"""What ``penstock topics plan`` says: given a catalog and a cluster, then these changes."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from penstock.catalog.model import KafkaSettings
from penstock.errors import Conflict
from penstock.log.kafka_topics import Change, Found, plan, wanted_settings
from penstock.ports import TopicSpec
from tests.kafka.rig import LETTERS, REPLIES, Desk

CLUSTER = KafkaSettings(servers="b:9092", prefix="shop-", replication=3, min_insync=2)
AGED = TopicSpec(name="letters", partitions=4, retention_seconds=86_400, retention_bytes=1 << 30)


def as_wanted(spec: TopicSpec, **changes: str) -> Found:
    settings = wanted_settings(CLUSTER, spec) | {k.replace("_", "."): v for k, v in changes.items()}
    return Found(partitions=spec.partitions, replication=3, settings=settings)


def test_a_missing_topic_is_created() -> None:
    (change,) = plan([LETTERS], CLUSTER, {})
    assert change == Change(
        act="create", topic="shop-letters", what="topic", new="4 partitions, 3 replicas"
    )


def test_a_topic_as_it_should_be_is_left_alone() -> None:
    assert plan([AGED], CLUSTER, {"shop-letters": as_wanted(AGED)}) == []


def test_a_setting_is_changed_and_both_values_are_told() -> None:
    found = {"shop-letters": as_wanted(AGED, retention_ms="604800000")}
    assert plan([AGED], CLUSTER, found) == [
        Change(
            act="set", topic="shop-letters", what="retention.ms", old="604800000", new="86400000"
        )
    ]


def test_bounds_that_are_off_are_written_as_off() -> None:
    """A cluster's default of seven days would drop what the catalog keeps."""
    found = {"shop-letters": as_wanted(LETTERS, retention_ms="604800000")}
    (change,) = plan([LETTERS], CLUSTER, found)
    assert (change.what, change.new) == ("retention.ms", "-1")


def test_the_bytes_of_a_topic_are_shared_by_its_partitions() -> None:
    assert wanted_settings(CLUSTER, AGED)["retention.bytes"] == str((1 << 30) // 4)


@pytest.mark.parametrize("count", [2, 8])
def test_another_partition_count_is_refused(count: int) -> None:
    found = {"shop-letters": replace(as_wanted(LETTERS), partitions=count)}
    (change,) = plan([LETTERS], CLUSTER, found)
    assert (change.act, change.what, change.old, change.new) == (
        "refused", "partitions", str(count), "4"
    )
    assert "keys would move" in change.reason


def test_another_replication_is_refused() -> None:
    found = {"shop-letters": replace(as_wanted(LETTERS), replication=1)}
    (change,) = plan([LETTERS], CLUSTER, found)
    assert (change.act, change.what) == ("refused", "replication")


def test_a_topic_may_have_a_replication_of_its_own() -> None:
    single = replace(LETTERS, replication=1)
    found = {"shop-letters": replace(as_wanted(single), replication=1)}
    assert plan([single], CLUSTER, found) == []


def test_an_unknown_topic_with_the_prefix_is_told_of() -> None:
    theirs = {"shop-old": as_wanted(REPLIES), "other": as_wanted(REPLIES)}
    (change,) = plan([LETTERS], CLUSTER, {"shop-letters": as_wanted(LETTERS), **theirs})
    assert (change.act, change.topic) == ("unknown", "shop-old")


def test_without_a_prefix_no_topic_of_the_cluster_is_a_stranger() -> None:
    bare = replace(CLUSTER, prefix="")
    (change,) = plan([LETTERS], bare, {"other": as_wanted(REPLIES)})
    assert (change.act, change.topic) == ("create", "letters")


def test_the_broker_agrees_with_what_was_applied(desk: Desk) -> None:
    log = desk.quiet(AGED, REPLIES)
    log.apply(log.plan())
    assert log.plan() == []
    aged = replace(AGED, retention_seconds=3600)
    later = desk.quiet(aged, REPLIES)
    changes = later.plan()
    assert [(c.act, c.what, c.old, c.new) for c in changes] == [
        ("set", "retention.ms", "86400000", "3600000")
    ]
    later.apply(changes)
    assert later.plan() == []


def test_a_topic_that_is_there_is_not_changed_by_ensure(desk: Desk) -> None:
    desk.log(AGED)
    other = desk.log(replace(AGED, retention_seconds=60))
    assert [c.what for c in other.plan()] == ["retention.ms"]


def test_an_apply_that_meets_another_count_says_so(desk: Desk) -> None:
    doubled = desk.quiet(replace(LETTERS, partitions=8))
    (change,) = doubled.plan()
    assert change.act == "create"
    desk.log(LETTERS)  # somebody was quicker
    with pytest.raises(Conflict, match="4 partitions, not 8"):
        doubled.apply([change])
