"""Which partition a key lies in: every client puts it where penstock looks for it."""

from __future__ import annotations

import pytest

from penstock.event import partition_of
from penstock.ports import TopicSpec
from tests.kafka.rig import Desk
from tests.languages.programs import Client

KEYS = [
    "a", "o-1", "order/7", "Straße 7", "ключ", "鍵", "🚚", "e\u0301", "\u00e9", " ", "\u2028",
    "k" * 500, *(f"key {n}" for n in range(100)), *(f"ключ-{n}" for n in range(50)),
]  # fmt: skip


def expected(partitions: int) -> list[int]:
    found = [partition_of(key, partitions) for key in KEYS]
    assert len(set(found)) == partitions  # they say something
    return found


@pytest.mark.parametrize("partitions", [4, 16])
def test_a_client_puts_keys_where_penstock_looks_for_them(
    client: Client, desk: Desk, partitions: int
) -> None:
    """By the partitioner that the client comes with."""
    desk.log(TopicSpec(name="keys", partitions=partitions))
    lines = [{"key": key, "value": "{}"} for key in KEYS]
    places = client.run("writer", desk.servers, desk.prefix + "keys", lines=lines)
    assert [place["partition"] for place in places] == expected(partitions)


@pytest.mark.parametrize("partitions", [4, 16])
@pytest.mark.parametrize("said", ["murmur2_random", "consistent_random"])
def test_librdkafka_does_so_when_it_is_told(desk: Desk, partitions: int, said: str) -> None:
    """The last one is what it does untold, and there keys lie elsewhere."""
    desk.log(TopicSpec(name="keys", partitions=partitions))
    desk.produce("keys", *({"key": k.encode(), "value": b"{}"} for k in KEYS), partitioner=said)
    found = {}
    for raw in desk.consume("keys", len(KEYS), partitions):
        key = raw.key()
        assert isinstance(key, bytes)
        found[key.decode()] = raw.partition()
    agree = [found[key] for key in KEYS] == expected(partitions)
    assert agree == (said == "murmur2_random")
