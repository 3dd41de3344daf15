"""The Kafka log passes the suite on a real broker, all but what its features deny."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from penstock.catalog.model import KafkaSettings
from penstock.conformance import log_scenarios
from penstock.conformance.logs import LogFixture
from penstock.conformance.scenario import title
from penstock.log.kafka import KafkaLog
from penstock.log.kafka_lane import KafkaLane
from penstock.ports import Lane, Log
from tests.kafka.rig import remove_topics


class KafkaFixture:
    """A prefix of its own on the broker; every handle has connections of its own."""

    features = KafkaLog.features

    def __init__(self, servers: str, prefix: str) -> None:
        self._settings = KafkaSettings(servers=servers, prefix=prefix)
        self.opener: Callable[[], Log] = partial(KafkaLog, self._settings)
        self._handles: list[KafkaLog] = []

    def open(self) -> KafkaLog:
        log = KafkaLog(self._settings)
        self._handles.append(log)
        return log

    def crash(self, lane: Lane) -> None:
        assert isinstance(lane, KafkaLane)
        lane.crash()

    def restart(self) -> None:
        for log in self._handles:
            log.close()
        self._handles.clear()

    def tear(self, unfinished: Callable[[Log], None], share: float) -> Log:
        raise AssertionError("the files are the broker's")

    def flip(self, topic: str, partition: int, offset: int) -> None:
        raise AssertionError("the files are the broker's")


@pytest.fixture
def on_kafka(kafka: str, prefix: str) -> Iterator[KafkaFixture]:
    fixture = KafkaFixture(kafka, prefix)
    yield fixture
    fixture.restart()
    remove_topics(kafka, prefix)


@pytest.mark.parametrize("scenario", log_scenarios(KafkaLog.features), ids=title)
def test_kafka_log(scenario: Callable[[LogFixture], None], on_kafka: KafkaFixture) -> None:
    scenario(on_kafka)
