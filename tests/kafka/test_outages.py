"""Brokers that die, stand still, refuse, or are not there: bounded, told, and nothing reordered."""

from __future__ import annotations

import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from random import Random

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType

from penstock.conformance.scenario import keys_of
from penstock.errors import NotFound, Problem, Unreachable
from penstock.event import Message
from penstock.log.kafka import KafkaLog
from penstock.log.kafka_clients import RECORD_BYTES_MAX
from penstock.log.kafka_member import REJOIN_SECONDS
from penstock.ports import TopicSpec
from penstock.sim.servers.kafka import Cluster
from penstock.sim.servers.proxy import BLACKHOLE, PASS, Proxy
from tests.kafka.rig import ALL, LETTERS, REPLIES, START, Desk, numbered, take_all
from tests.servers import absent_is_skipped
from tests.support import eventually, unused_port

SECONDS = 2.0  # the patience of logs here
MARGIN = 3.0
(KEY,) = keys_of(1, 4)


@pytest.fixture
def away(prefix: str) -> Iterator[Desk]:
    """A desk whose broker is not there."""
    desk = Desk(f"127.0.0.1:{unused_port()}", prefix)
    yield desk
    desk.close()


@pytest.fixture
def own(own_kafka: Cluster) -> Iterator[Desk]:
    """A desk on a broker that may be harmed."""
    desk = Desk(own_kafka.bootstrap)
    yield desk
    desk.close()


@pytest.fixture
def proxied() -> Iterator[tuple[Desk, Proxy]]:
    """A desk that comes to its broker through a proxy."""
    with absent_is_skipped(), Cluster(proxied=True) as cluster:
        desk = Desk(cluster.bootstrap)
        yield desk, cluster.proxies[0]
        cluster.proxies[0].set(PASS)
        desk.close()


def numbers(log: KafkaLog, partition: int = 1) -> list[int]:
    """The numbers in a partition, in its order."""
    ((_, next_),) = log.extent("letters")[partition : partition + 1]
    found: list[int] = []
    while len(found) < next_:
        records = log.read("letters", partition, len(found), next_)
        found += [int(r.message.value) for r in records]
    return found


def test_nobody_there_is_told_in_time_and_nothing_is_printed(
    away: Desk, capfd: pytest.CaptureFixture[str]
) -> None:
    log = away.quiet(LETTERS, seconds=SECONDS)
    calls = [
        lambda: log.ensure([LETTERS]), lambda: log.append("letters", [Message("k", b"1")], 0),
        lambda: log.extent("letters"), lambda: log.read("letters", 0, 0, 1),
    ]  # fmt: skip
    for call in calls:
        began = time.monotonic()
        with pytest.raises(Unreachable, match="does not answer"):
            call()
        assert time.monotonic() - began < SECONDS + MARGIN
    assert capfd.readouterr() == ("", "")


def test_a_lane_without_a_broker_says_so_and_ends_in_time(
    away: Desk, capfd: pytest.CaptureFixture[str]
) -> None:
    lane = away.quiet(LETTERS, seconds=SECONDS).join("readers", ["letters"])

    def told() -> bool:
        began = time.monotonic()
        try:
            lane.take(10, START)
        except Unreachable:
            return True
        finally:
            assert time.monotonic() - began < 1, "a take waited for the broker"
        return False

    eventually(told, 20)
    began = time.monotonic()
    lane.leave()
    assert time.monotonic() - began < SECONDS + 2 * MARGIN
    assert capfd.readouterr() == ("", "")


def test_a_broker_that_dies_under_appends_loses_and_reorders_nothing(
    own: Desk, own_kafka: Cluster
) -> None:
    """Appends are repeated until they are taken. With repeats absorbed, as marks do it, what was
    acknowledged is there in its order; and no later number stands before the first of an earlier
    one."""
    log, over = own.log(seconds=SECONDS), threading.Event()
    acknowledged: list[int] = []

    def write() -> None:
        start = 0
        while not over.is_set():
            batch = range(start, start + 50)
            try:
                log.append("letters", numbered(KEY, batch), 0)
            except Unreachable:
                continue
            acknowledged.extend(batch)
            start += 50

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(2):
            before = len(acknowledged)
            eventually(lambda n=before: len(acknowledged) > n + 500, 30)  # type: ignore[misc]
            own_kafka.kill()
            own_kafka.restart()
        before = len(acknowledged)
        eventually(lambda: len(acknowledged) > before + 500, 30)
    finally:
        over.set()
        writer.join(60)
    found = list(dict.fromkeys(numbers(own.log())))
    assert found == list(range(len(found)))
    assert len(found) >= len(acknowledged)


def test_a_broker_that_stands_still_costs_time_and_no_order(own: Desk, own_kafka: Cluster) -> None:
    log = own.log(seconds=SECONDS)
    log.append("letters", numbered(KEY, range(10)), 0)
    own_kafka.stand_still()
    began = time.monotonic()
    with pytest.raises(Unreachable):
        log.append("letters", numbered(KEY, range(10, 20)), 0)
    assert time.monotonic() - began < SECONDS + MARGIN
    own_kafka.go_on()
    log.append("letters", numbered(KEY, range(10, 30)), 0)
    found = list(dict.fromkeys(numbers(log)))
    assert found == list(range(30))


def test_a_lane_survives_its_brokers_restart(own: Desk, own_kafka: Cluster) -> None:
    log = own.log(seconds=SECONDS)
    lane = log.join("readers", ["letters"])
    log.append("letters", numbered(KEY, range(10)), 0)
    take_all(lane, 10)
    own_kafka.kill()

    def told() -> bool:
        try:
            lane.take(10, START | {("letters", 1): 10})
        except Unreachable:
            return True
        return False

    eventually(told, 20, what="the lane says that nobody answers")
    own_kafka.restart()
    other = own.log()
    other.append("letters", numbered(KEY, range(10, 20)), 0)

    def rest() -> list[int]:
        try:
            found = lane.take(100, START | {("letters", 1): 10}).records
        except Unreachable:
            return []
        return [int(r.message.value) for r in found]

    assert eventually(lambda: rest() == list(range(10, 20)) or None, 30)
    assert lane.take(1, {}).assigned == ALL


def test_an_acknowledgement_that_never_came_is_a_repeat(proxied: tuple[Desk, Proxy]) -> None:
    """The connection falls silent under an append: it raises in time; the repeat is absorbed."""
    desk, proxy = proxied
    log = desk.log(seconds=SECONDS)
    log.append("letters", numbered(KEY, range(5)), 0)
    proxy.set(BLACKHOLE)
    began = time.monotonic()
    with pytest.raises(Unreachable):
        log.append("letters", numbered(KEY, range(5, 10)), 0)
    assert time.monotonic() - began < SECONDS + MARGIN
    proxy.set(PASS)
    log.append("letters", numbered(KEY, range(5, 15)), 0)
    assert list(dict.fromkeys(numbers(log))) == list(range(15))


def test_a_record_that_a_topic_refuses_leaves_no_hole(desk: Desk) -> None:
    """What came before it is there, what comes after it is not: order first."""
    log = desk.log()
    _shrink(desk, log.name("letters"))
    large = Message(KEY, Random(1).randbytes(200_000))
    with pytest.raises(Problem, match="too large") as told:
        log.append("letters", [*numbered(KEY, range(3)), large, *numbered(KEY, range(3, 6))], 0)
    assert told.value.code == "record_too_large"
    assert numbers(log) in ([], [0, 1, 2])
    log.append("letters", numbered(KEY, range(3, 6)), 0)
    assert numbers(log)[-3:] == [3, 4, 5]


def test_the_dead_letter_of_the_largest_record_fits(desk: Desk) -> None:
    """It has the record's bytes in base64, whatever compression can do with them."""
    log = desk.log(TopicSpec(name="reading.dead", partitions=1))
    value = b64encode(Random(2).randbytes(RECORD_BYTES_MAX)) + b"the story" * 20_000
    log.append("reading.dead", [Message(KEY, value)], 0)
    assert len(log.read("reading.dead", 0, 0, 1)[0].message.value) == len(value)


def _shrink(desk: Desk, name: str) -> None:
    entry = ConfigEntry("max.message.bytes", "50000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": desk.servers})
    for done in admin.incremental_alter_configs([resource]).values():
        done.result(10)
    later = desk.quiet(LETTERS)
    eventually(lambda: any(c.old == "50000" for c in later.plan()))


def test_a_topic_that_is_gone_is_the_callers(desk: Desk) -> None:
    log = desk.quiet(TopicSpec(name="nothing", partitions=4), seconds=SECONDS)
    for call in (
        lambda: log.append("nothing", [Message("k", b"1")], 0), lambda: log.extent("nothing"),
    ):  # fmt: skip
        began = time.monotonic()
        with pytest.raises((Problem, Unreachable), match="nothing"):
            call()
        assert time.monotonic() - began < SECONDS + MARGIN


def test_the_extent_of_a_topic_that_is_gone_is_told_at_once(desk: Desk) -> None:
    log, began = desk.quiet(TopicSpec(name="nothing", partitions=4)), time.monotonic()
    with pytest.raises(NotFound, match="penstock topics apply"):
        log.extent("nothing")
    assert time.monotonic() - began < MARGIN


def test_a_group_that_is_full_is_told_and_not_besieged() -> None:
    with absent_is_skipped(), Cluster(settings={"group.consumer.max.size": "1"}) as cluster:
        desk = Desk(cluster.bootstrap)
        log = desk.log()
        first = log.join("readers", ["letters"])
        eventually(lambda: first.take(1, {}).assigned == ALL, 20)
        second = log.join("readers", ["letters"])

        def told() -> str:
            try:
                second.take(1, {})
            except Unreachable as error:
                return str(error)
            return ""

        assert "out of group readers" in eventually(told, 20, what="the second one says why")
        member = second._member
        assert member is not None
        before = member._join_at
        eventually(lambda: member._join_at > before, 20, what="it tries again")
        assert member._join_at >= before + REJOIN_SECONDS
        first.leave()
        eventually(lambda: not told() and second.take(1, {}).assigned == ALL, 30)
        desk.close()


def test_a_broker_without_the_newer_protocol_is_joined_by_the_older_one() -> None:
    older = {"group.coordinator.rebalance.protocols": "classic"}
    with absent_is_skipped(), Cluster(settings=older) as cluster:
        desk = Desk(cluster.bootstrap, client={"session.timeout.ms": 1000})
        log = desk.log(LETTERS, REPLIES)
        log.append("letters", numbered(KEY, range(10)), 0)
        members = [log.join("readers", ["letters", "replies"]) for _ in range(2)]

        def shares() -> list[frozenset[int]]:
            return [m.take(1, {}).assigned for m in members]

        def shared() -> bool:
            found = shares()
            return sorted(n for share in found for n in share) == [0, 1, 2, 3] and all(found)

        eventually(shared, 30)
        owner = next(m for m, share in zip(members, shares(), strict=True) if 1 in share)
        assert len(take_all(owner, 10, {("letters", 1): 0}).records) == 10
        members[0].crash()
        eventually(lambda: members[1].take(1, {}).assigned == ALL, 30)
        desk.close()
