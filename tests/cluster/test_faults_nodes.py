"""Three nodes that replicate: the leader stands still, dies under appends, one is lost for good."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka.admin import AdminClient

from penstock.catalog.model import KafkaSettings
from penstock.errors import Unreachable
from penstock.event import Message, partition_of
from penstock.log.kafka import KafkaLog
from penstock.ports import TopicSpec
from penstock.sim.servers.kafka import Cluster
from tests.cluster.rig import House, house
from tests.servers import absent_is_skipped
from tests.support import eventually

STANDSTILL_SECONDS = 6.0  # longer than the others wait for one that says nothing
PIECE = 50
WELL = TopicSpec(name="well", partitions=1, replication=3)
SETTINGS_OF_THREE = {"replication": "3", "min_insync": "2"}
pytestmark = [pytest.mark.kafka, pytest.mark.postgres]


class Ground:
    """A house on three nodes."""

    def __init__(self, house: House, cluster: Cluster) -> None:
        self.house, self.cluster = house, cluster

    def leader(self, topic: str) -> int:
        """The node that leads the topic's first partition."""
        return leader_of(self.cluster, self.house.prefix + topic)


def leader_of(cluster: Cluster, name: str) -> int:
    """The node that leads the first partition of a topic."""
    admin = AdminClient({**cluster.client_settings(), "log_level": 0})

    def led() -> int:
        found = admin.list_topics(name, timeout=20).topics[name].partitions.get(0)
        return max(0, found.leader) if found is not None else 0

    return eventually(led, 30, what=f"{name} has a leader")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three replicas of everything, of which two must have a record."""
    with absent_is_skipped(), Cluster(3) as made:
        yield made


@pytest.fixture(scope="module")
def ground(
    cluster: Cluster, databases: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ground]:
    """A house that runs on them."""
    folder = tmp_path_factory.mktemp("nodes")
    with house(folder, cluster.bootstrap, databases(), kafka_settings=SETTINGS_OF_THREE) as made:
        yield Ground(made, cluster)


def test_r6_a_confirmed_record_outlives_an_election(cluster: Cluster) -> None:
    """The leader is killed again and again while it is appended to. What was acknowledged is read
    back, in its order; repeats of what was not are absorbed as marks do it."""
    settings = KafkaSettings(
        servers=cluster.bootstrap, prefix="r6-", replication=3, min_insync=2
    )
    log = KafkaLog(settings, [WELL])
    log.ensure([WELL])
    acknowledged: list[int] = []
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            batch = range(len(acknowledged), len(acknowledged) + PIECE)
            try:
                log.append("well", [Message("k", b"%d" % n) for n in batch], 0)
            except Unreachable:
                continue
            acknowledged.extend(batch)

    assert partition_of("k", 1) == 0
    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(2):
            await_more(acknowledged)
            leader = leader_of(cluster, "r6-well")
            cluster.kill(leader)
            await_more(acknowledged)
            cluster.restart(leader)
    finally:
        over.set()
        writer.join(60)
    assert not writer.is_alive()
    found = list(dict.fromkeys(read_all(log)))
    assert found[: len(acknowledged)] == acknowledged
    assert found == list(range(len(found)))
    log.close()


def await_more(acknowledged: list[int]) -> None:
    """Until a few more appends are acknowledged."""
    goal = len(acknowledged) + 5 * PIECE
    eventually(lambda: len(acknowledged) >= goal, 60, what="appends go on")


def read_all(log: KafkaLog) -> list[int]:
    """The numbers in the topic."""
    ((first, next_),) = log.extent("well")
    found: list[int] = []
    at = first
    while at < next_:
        records = log.read("well", 0, at, next_ - at)
        found += [int(r.message.value) for r in records]
        at = records[-1].offset + 1
    return found


def test_the_leader_stands_still_and_wakes_up(ground: Ground) -> None:
    """Others lead meanwhile; what it still says when it wakes up counts for nothing."""
    with ground.house.under_orders() as orders:
        leader = ground.leader("orders")
        until = time.monotonic() + STANDSTILL_SECONDS
        ground.cluster.stand_still(leader)
        try:
            eventually(lambda: time.monotonic() >= until, 2 * STANDSTILL_SECONDS)
            orders.more()
        finally:
            ground.cluster.go_on(leader)


def test_one_of_three_is_lost_for_good(ground: Ground) -> None:
    """The last test here: nobody brings it back."""
    with ground.house.under_orders():
        ground.cluster.kill(ground.leader("payments"))
