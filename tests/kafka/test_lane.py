"""A lane on Kafka, where it is more than every log's: positions, gaps, bounds, odd topics."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from penstock.conformance.scenario import keys_of
from penstock.errors import Corrupt, NotFound
from penstock.event import Message, Record
from penstock.log.kafka import KafkaLog
from penstock.log.kafka_buffers import RECORDS_MAX, Buffers
from penstock.ports import Extent, Lane, TopicSpec
from tests.kafka.rig import ALL, LETTERS, REPLIES, START, Desk, numbered, take_all
from tests.support import eventually

KEYS = [keys_of(partition, 4)[0] for partition in range(4)]


def fill(log: KafkaLog, count: int, topic: str = "letters") -> None:
    """So many records in each partition, their values their offsets."""
    log.append(topic, [m for key in KEYS for m in numbered(key, range(count))], 0)


def offsets(records: Iterable[Record], partition: int) -> list[int]:
    return [r.offset for r in records if r.partition == partition]


def test_positions_may_jump_to_and_fro_and_nothing_stale_comes(desk: Desk) -> None:
    """What was fetched for an earlier position never answers a later one."""
    log = desk.log()
    fill(log, 400)
    lane, dice = log.join("readers", ["letters"]), Random(3)
    take_all(lane, 1)
    for _ in range(150):
        asked = {("letters", p): dice.randrange(400) for p in range(4)}
        for _ in range(dice.randrange(3)):
            lane.take(dice.randrange(1, 300), asked)
        for place, position in asked.items():
            found = lane.take(50, {place: position}).records
            wanted = list(range(position, position + len(found)))
            assert offsets(found, place[1]) == wanted
            assert [int(r.message.value) for r in found] == wanted


def test_a_slow_batch_finds_what_was_fetched_meanwhile() -> None:
    """Full buffers make room for partitions that are asked for, not because of a worker that asks
    for none while it is busy: it would wait for all of it again, after every batch."""
    buffers, places = Buffers(), [("letters", 0), ("letters", 1)]
    for place in places:
        buffers.ask(place, 0, 0.0)
    buffers.begin(0.0)
    some = [Record("letters", 0, n, 0, Message("k", b"")) for n in range(RECORDS_MAX)]
    buffers.of[places[0]].put(some[:-1], 1)
    buffers.of[places[1]].put(some[:1], 1)
    assert buffers.full
    assert buffers.unasked() == [], "the worker decides for minutes"
    buffers.ask(places[1], 0, 60.0)
    assert buffers.unasked() == places[:1], "it came by and did not want the first one"


def test_records_taken_again_are_there_at_once(desk: Desk) -> None:
    """A refused commit costs no fetch: what was given stays until the position passes it."""
    log = desk.log()
    fill(log, 100)
    lane = log.join("readers", ["letters"])
    take_all(lane, 400)
    for start in (0, 0, 7, 7, 50, 99):
        found = lane.take(1000, {("letters", 1): start}).records
        assert offsets(found, 1) == list(range(start, 100))


def test_a_group_that_is_not_asked_for_a_partition_still_reads_the_others(desk: Desk) -> None:
    """A held lane, or one at its cap, fills its share of the buffers and makes room again."""
    log, per = desk.log(), RECORDS_MAX // 4
    for start in range(0, 2 * per, 1000):
        log.append("letters", [m for k in KEYS for m in numbered(k, range(start, start + 1000))], 0)
    lane = log.join("readers", ["letters"])
    take_all(lane, RECORDS_MAX // 2)
    positions = dict(START)
    lane.hold(frozenset({0, 2}))

    def everything() -> bool:
        for record in lane.take(500, positions).records:
            assert record.offset == positions[record.topic, record.partition]
            positions[record.topic, record.partition] += 1
        return positions["letters", 1] == positions["letters", 3] == 2 * per

    eventually(everything, 30, what="the lanes that are not held are read to their ends")
    lane.hold(frozenset())
    assert offsets(take_all(lane, 1, {("letters", 0): 0}).records, 0)[0] == 0


def test_markers_of_transactions_are_gaps_and_no_end(desk: Desk) -> None:
    """Offsets are not contiguous where somebody else writes in transactions; what was aborted is
    never seen, and the end is the end."""
    log = desk.log()
    producer = Producer(
        {"bootstrap.servers": desk.servers, "transactional.id": f"{desk.prefix}writer"}
    )
    producer.init_transactions(20)
    for n in range(6):
        producer.begin_transaction()
        producer.produce(log.name("letters"), b"%d" % n, KEYS[1].encode(), partition=1)
        producer.flush(20)
        producer.abort_transaction(20) if n % 3 == 2 else producer.commit_transaction(20)
    lane = log.join("readers", ["letters"])
    found = take_all(lane, 4, {("letters", 1): 0}).records
    assert [int(r.message.value) for r in found] == [0, 1, 3, 4]
    assert offsets(found, 1) == [0, 2, 6, 8]
    assert log.extent("letters")[1] == Extent(0, 12)
    assert [r.offset for r in log.read("letters", 1, 1, 100)] == [2, 6, 8]
    assert log.read("letters", 1, 9, 100) == []
    log.append("letters", [Message(KEYS[1], b"7")], 0)
    assert take_all(lane, 1, {("letters", 1): 9}).records[0].offset == 12


def test_a_position_that_retention_passed_stops_the_lane(desk: Desk) -> None:
    log = desk.log()
    fill(log, 50)
    lane = log.join("readers", ["letters"])
    cut = TopicPartition(log.name("letters"), 2, 30)
    admin = AdminClient({"bootstrap.servers": desk.servers})
    admin.delete_records([cut])[cut].result(20)
    asked = {("letters", 2): 10, ("letters", 3): 10}
    taken = eventually(lambda: t if (t := lane.take(100, asked)).outside else None)
    assert taken is not None
    assert taken.outside == {("letters", 2): Extent(30, 50)}
    assert offsets(take_all(lane, 40, asked).records, 2) == []
    assert offsets(take_all(lane, 20, {("letters", 2): 30}).records, 2) == list(range(30, 50))


def test_a_topic_that_somebody_expands_stops_the_lane(desk: Desk) -> None:
    """Keys of other writers lie elsewhere from now on: nothing is skipped, nothing overtaken."""
    log = desk.log()
    fill(log, 10)
    lane = log.join("readers", ["letters"])
    take_all(lane, 40)
    name = log.name("letters")
    admin = AdminClient({"bootstrap.servers": desk.servers})
    admin.create_partitions([NewPartitions(name, 8)])[name].result(20)

    def stopped() -> str:
        try:
            lane.take(10, START)
        except Corrupt as error:
            return str(error)
        return ""

    said = eventually(stopped, 20, what="the lane stops")
    assert "8 partitions, not 4" in said
    assert "Nothing is read" in said
    (change,) = [c for c in log.plan() if c.what == "partitions"]
    assert (change.act, change.old, change.new) == ("refused", "8", "4")


def test_a_topic_that_is_not_there_is_named(desk: Desk) -> None:
    lane = desk.quiet(TopicSpec(name="nothing", partitions=4)).join("readers", ["nothing"])

    def told() -> str:
        try:
            lane.take(10, {("nothing", 0): 0})
        except NotFound as error:
            return str(error)
        return ""

    assert "penstock topics apply" in eventually(told, 20, what="the missing topic is told")


def test_news_are_told_once_until_somebody_looks(desk: Desk) -> None:
    heard: list[str] = []
    log = desk.log(LETTERS, REPLIES, arrived=lambda topics: heard.extend(topics))
    lane = log.join("readers", ["letters", "replies"])
    both = START | {("replies", p): 0 for p in range(4)}
    eventually(lambda: lane.take(1, both).assigned == ALL)
    lane.take(1, both)
    heard.clear()
    fill(log, 5, "replies")
    eventually(lambda: heard)
    assert set(heard) == {"replies"}
    take_all(lane, 20, both)


def test_what_is_noted_shows_as_kafkas_own_position(desk: Desk) -> None:
    log = desk.log()
    fill(log, 10)
    lane = log.join("readers", ["letters"])
    eventually(lambda: lane.take(1, START).assigned == ALL)
    lane.note({("letters", 0): 4, ("letters", 1): 7})
    admin, group = AdminClient({"bootstrap.servers": desk.servers}), f"{desk.prefix}readers"

    def noted() -> dict[int, int]:
        asked = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])
        return {p.partition: p.offset for p in asked[group].result(10).topic_partitions}

    eventually(lambda: noted() == {0: 4, 1: 7})


def test_members_of_one_group_never_split_a_lane(desk: Desk) -> None:
    """Whatever the number of members and topics, partition n of all topics has one owner."""
    specs = [TopicSpec(name=f"t{n}", partitions=4) for n in range(5)]
    members: list[Lane] = []
    for _ in range(3):
        log = desk.log(*specs)
        members.append(log.join("readers", [spec.name for spec in specs]))

        def shared() -> bool:
            found = [m.take(1, {}).assigned for m in members]
            return sorted(n for share in found for n in share) == [0, 1, 2, 3] and all(found)

        eventually(shared, 20, what="every lane has one owner")


@pytest.mark.parametrize("count", [1, 16])
def test_any_power_of_two_is_a_count_of_lanes(desk: Desk, count: int) -> None:
    spec = TopicSpec(name="letters", partitions=count)
    lane = desk.log(spec).join("readers", ["letters"])
    eventually(lambda: lane.take(1, {}).assigned == frozenset(range(count)))
