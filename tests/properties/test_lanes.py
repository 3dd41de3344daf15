"""Keys, slots, partitions and lanes: one key one place, and every lane one reader."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.embedded.rows import by_partition
from penstock.engine.slots import NoSlots
from penstock.event import Message, murmur2, partition_of, slot_of
from penstock.limits import OFFSET_BITS, OFFSET_MAX, PARTITIONS_MAX, SLOTS
from penstock.log.assignment import assign
from penstock.log.memory import MemoryLog
from penstock.ports import TopicSpec

KEYS = st.text(max_size=40)
COUNTS = st.integers(0, PARTITIONS_MAX.bit_length() - 1).map(lambda n: 1 << n)
MEMBERS = st.lists(st.text(min_size=1, max_size=4), max_size=12)


def murmur2_by_its_definition(data: bytes) -> int:
    """MurmurHash2 (Austin Appleby), byte by byte, with the seed of Kafka's clients."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = 0x9747B28C ^ len(data)
    at = 0
    while len(data) - at >= 4:
        k = data[at] | data[at + 1] << 8 | data[at + 2] << 16 | data[at + 3] << 24
        k = k * m & mask
        k ^= k >> 24
        h = (h * m & mask) ^ (k * m & mask)
        at += 4
    left = len(data) - at
    if left >= 3:
        h ^= data[at + 2] << 16
    if left >= 2:
        h ^= data[at + 1] << 8
    if left >= 1:
        h = (h ^ data[at]) * m & mask
    h ^= h >> 13
    h = h * m & mask
    return h ^ h >> 15


@given(st.binary(max_size=40))
def test_the_hash_is_that_of_kafka_s_clients(data: bytes) -> None:
    assert murmur2(data) == murmur2_by_its_definition(data)


@given(KEYS, COUNTS)
def test_a_key_has_one_partition_and_it_is_that_of_its_slot(key: str, partitions: int) -> None:
    assert 0 <= slot_of(key) < SLOTS
    assert partition_of(key, partitions) == slot_of(key) % partitions
    assert partition_of(key, partitions) == partition_of(f"{key}"[:], partitions)
    # What a client does that knows no slots: the counts are powers of two.
    assert partition_of(key, partitions) == (murmur2(key.encode()) & 0x7FFFFFFF) % partitions


@given(KEYS, COUNTS.filter(lambda n: n < PARTITIONS_MAX))
def test_a_doubling_moves_a_key_to_the_new_half_of_its_partition_or_not(
    key: str, partitions: int
) -> None:
    before, after = partition_of(key, partitions), partition_of(key, 2 * partitions)
    assert after in (before, before + partitions)


@given(st.lists(KEYS, max_size=60), COUNTS)
def test_the_keys_of_a_lane_are_the_same_in_every_topic(keys: list[str], partitions: int) -> None:
    """Co-partitioned topics: all records of a key are in the lane of one member."""
    log = MemoryLog([TopicSpec(name=t, partitions=partitions) for t in ("one", "two")])
    for topic in ("one", "two"):
        log.append(topic, [Message(key, b"") for key in keys], 0)
    found: dict[str, set[int]] = {}
    for topic in ("one", "two"):
        for lane, extent in enumerate(log.extent(topic)):
            for record in log.read(topic, lane, 0, 1000) if extent.next else ():
                found.setdefault(record.message.key, set()).add(lane)
    assert all(len(lanes) == 1 for lanes in found.values())
    assert found.keys() == set(keys)


@given(st.lists(st.tuples(st.integers(0, 5), KEYS), max_size=40))
def test_messages_are_grouped_by_partition_in_their_order(pairs: list[tuple[int, str]]) -> None:
    sent = [(partition, Message(key, b"")) for partition, key in pairs]
    groups = by_partition(sent)
    for partition, group in groups.items():
        assert group == [message for p, message in sent if p == partition]
    assert sum(map(len, groups.values())) == len(sent)


@given(MEMBERS, st.integers(1, 64))
def test_every_lane_has_exactly_one_member(members: list[str], lanes: int) -> None:
    shares = assign(members, lanes)
    owners = Counter(lane for share in shares.values() for lane in share)
    assert owners == (Counter(range(lanes)) if members else Counter())
    assert shares.keys() == set(members)
    sizes = [len(share) for share in shares.values()]
    assert not sizes or max(sizes) - min(sizes) <= 1


@given(MEMBERS, st.integers(1, 64), st.randoms(use_true_random=False))
def test_members_that_know_the_same_agree(members: list[str], lanes: int, dice: object) -> None:
    mixed = [*members, *members]
    dice.shuffle(mixed)  # type: ignore[attr-defined]
    assert assign(mixed, lanes) == assign(members, lanes)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(("join", "leave", "look")), max_size=20), COUNTS)
def test_at_any_time_no_lane_has_two_members(acts: list[str], partitions: int) -> None:
    log = MemoryLog([TopicSpec(name="t", partitions=partitions)])
    lanes = [log.join("g", ["t"])]
    for act in acts:
        if act == "join":
            lanes.append(log.join("g", ["t"]))
        elif act == "leave" and len(lanes) > 1:
            lanes.pop(0).leave()
        shares = [lane.take(1, {}).assigned for lane in lanes]
        assert sorted(n for share in shares for n in share) == list(range(partitions))


@given(st.integers(0, 7), st.integers(0, 30), st.integers(0, OFFSET_MAX - 1))
def test_a_slot_says_which_record_was_being_decided(lane: int, topic: int, offset: int) -> None:
    slots = NoSlots(8)
    assert slots.read(lane) is None
    slots.words[lane] = (topic << OFFSET_BITS | offset) + 1
    assert slots.read(lane) == (topic, offset)
    assert all(slots.read(n) is None for n in range(8) if n != lane)
    slots.clear({lane})
    assert slots.read(lane) is None
