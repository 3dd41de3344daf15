"""Where a key lies: other clients of Kafka choose as penstock does."""

from __future__ import annotations

import subprocess
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from penstock.event import murmur2, partition_of
from penstock.limits import SLOTS
from penstock.ports import TopicSpec
from penstock.sim.servers.jars import classpath, java
from penstock.sim.servers.process import Absent
from tests.kafka.rig import LETTERS, Desk
from tests.servers import absent_is_skipped

KEYS = ["a", "o-1", "order/7", "Straße 7", "ключ", "鍵", "🚚", *(f"k{n}" for n in range(200))]


@given(st.binary(max_size=40), st.integers(0, 10))
def test_slots_agree_with_kafkas_own_way(key: bytes, doublings: int) -> None:
    """Kafka takes the hash modulo the count; ours goes by slots, and a count divides them."""
    count = 1 << doublings
    assert SLOTS % count == 0
    assert (murmur2(key) & 0x7FFFFFFF) % SLOTS % count == (murmur2(key) & 0x7FFFFFFF) % count


def test_the_java_client_puts_keys_where_penstock_does(desk: Desk) -> None:
    """By its own default partitioner."""
    log = desk.log(LETTERS)
    with absent_is_skipped():
        said = run_source("Keys.java", [desk.servers, log.name("letters")], "\n".join(KEYS))
    assert [int(line) for line in said.split()] == [partition_of(key, 4) for key in KEYS]
    found = {
        r.message.key: r.partition
        for p, extent in enumerate(log.extent("letters")) if extent.next
        for r in log.read("letters", p, 0, extent.next)
    }  # fmt: skip
    assert found == {key: partition_of(key, 4) for key in KEYS}


def run_source(name: str, args: list[str], text: str) -> str:
    """What a Java program prints, run from its source, with Kafka's jars."""
    found = subprocess.run([java(), "--list-modules"], capture_output=True, text=True, check=True)
    if "jdk.compiler@" not in found.stdout:
        raise Absent("this Java has no compiler; apt-get install openjdk-17-jdk-headless")
    source = str(Path(__file__).with_name(name))
    argv = [java(), "-XX:TieredStopAtLevel=1", "-cp", classpath(), source, *args]
    done = subprocess.run(
        argv, input=text.encode(), capture_output=True, check=False, timeout=60,
        env={"LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return done.stdout.decode()


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
