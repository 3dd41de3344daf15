"""Where a key lies: other clients of Kafka choose as penstock does (those of other languages are in
tests/languages)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.event import murmur2, partition_of
from penstock.limits import SLOTS
from penstock.ports import TopicSpec
from tests.kafka.rig import Desk

KEYS = ["a", "o-1", "order/7", "Straße 7", "ключ", "鍵", "🚚", *(f"k{n}" for n in range(200))]


@given(st.binary(max_size=40), st.integers(0, 10))
def test_slots_agree_with_kafkas_own_way(key: bytes, doublings: int) -> None:
    """Kafka takes the hash modulo the count; ours goes by slots, and a count divides them."""
    count = 1 << doublings
    assert SLOTS % count == 0
    assert (murmur2(key) & 0x7FFFFFFF) % SLOTS % count == (murmur2(key) & 0x7FFFFFFF) % count


def test_librdkafka_puts_keys_where_penstock_does_when_asked_for_murmur2(desk: Desk) -> None:
    spec = TopicSpec(name="wide", partitions=16)
    log = desk.log(spec)
    desk.produce(
        "wide", *({"key": key.encode(), "value": b""} for key in KEYS), partitioner="murmur2_random"
    )
    found = {
        r.message.key: partition
        for partition, extent in enumerate(log.extent("wide")) if extent.next
        for r in log.read("wide", partition, 0, extent.next)
    }  # fmt: skip
    assert found == {key: partition_of(key, 16) for key in KEYS}
