"""A broker that is away for long: who waits for it neither grows nor asks without end."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock.catalog.model import KafkaSettings
from penstock.engine.keeper import AWAY, Keeper
from penstock.errors import Unreachable
from penstock.event import Message
from penstock.log.kafka import KafkaLog
from penstock.ports import Extent, TopicSpec
from tests.support import eventually, unused_port

LETTERS = TopicSpec(name="letters", partitions=4, retention_seconds=3600.0)
SECONDS = 0.6  # the patience of the log here
ROUNDS = 5
CLIENT_THREADS = 4  # of one client that is just being made or let go


@pytest.fixture
def away() -> Iterator[KafkaLog]:
    """A log whose broker is not there."""
    log = KafkaLog(
        KafkaSettings(servers=f"127.0.0.1:{unused_port()}"), [LETTERS], seconds=SECONDS
    )
    yield log
    log.close()


def clients() -> int:
    """How many threads of Kafka clients this process has."""
    found = Path("/proc/self/task").glob("*/comm")
    return sum(name.read_text().startswith("rdk:") for name in found)


@contextmanager
def nothing_kept(count: int) -> Iterator[None]:
    """The body leaves at most so many objects that a collection does not free."""
    gc.collect()
    before = len(gc.get_objects())
    yield
    gc.collect()
    assert len(gc.get_objects()) <= before + count


def gives_up(log: KafkaLog) -> None:
    """Append, and ask for ends, in vain."""
    with pytest.raises(Unreachable):
        log.append("letters", [Message(f"k{n}", b"v" * 300) for n in range(200)], 0)
    with pytest.raises(Unreachable):
        log.extent("letters")


def test_what_is_given_up_on_is_let_go(away: KafkaLog) -> None:
    """Every failed append throws a producer away, and every question repeats until its time is
    up: neither threads nor memory are left of it."""
    gives_up(away)
    before = clients()
    with nothing_kept(ROUNDS * 20):
        for _ in range(ROUNDS):
            gives_up(away)
    eventually(lambda: clients() <= before + CLIENT_THREADS)


class Asked:
    """A log that is away, and counts how often it was asked."""

    def __init__(self, log: KafkaLog) -> None:
        self._log, self.times, self.is_away = log, 0, True

    def retain(self, topic: str, floors: object, now: int) -> int:
        """Nothing, as on Kafka."""
        return 0

    def extent(self, topic: str, since: int | None = None) -> Sequence[Extent]:
        """Its ends, when it is there."""
        self.times += 1
        return self._log.extent(topic, since) if self.is_away else [Extent(0, 0)] * 4


def test_a_keeper_asks_once_a_round_and_takes_its_alarm_back(away: KafkaLog) -> None:
    """It waits for the broker each time: in every turn, that would be all its courier does."""
    log = Asked(away)
    keeper = Keeper(log, None, [LETTERS], [], {}, every_seconds=10.0)  # type: ignore[arg-type]
    with pytest.raises(Unreachable):
        keeper.step(1_000)
    keeper.alarms[AWAY] = "it does not answer"  # as its courier notes it
    for now in range(1_000, 11_000, 500):
        keeper.step(now)
    assert log.times == 1
    assert AWAY in keeper.alarms
    log.is_away = False
    keeper.step(11_001)
    assert log.times == 2
    assert AWAY not in keeper.alarms
