"""The store that the log is measured over is a store: it passes the suite."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from penstock.bench.memory import MemoryStore, Tables
from penstock.conformance import store_scenarios
from penstock.conformance.scenario import NOW, title
from penstock.conformance.stores import SERVICE, StoreFixture
from penstock.event import Message


class MemoryFixture:
    """All handles of a service share its tables."""

    features = MemoryStore.features
    opener = None

    def __init__(self) -> None:
        self._tables: dict[tuple[str, str], Tables] = {}

    def open(self, service: str = SERVICE, namespace: str = "live") -> MemoryStore:
        return MemoryStore(self._tables.setdefault((service, namespace), Tables()))

    def restart(self) -> None:
        raise AssertionError("a store in memory ends with its process")

    def promised(self, topic: str) -> list[Message]:
        return [row.message for row in self.open().due(topic, NOW, (), 1000, is_topic=True)]


@pytest.mark.parametrize("scenario", store_scenarios(MemoryStore.features), ids=title)
def test_the_store_of_dictionaries(scenario: Callable[[StoreFixture], None]) -> None:
    scenario(MemoryFixture())
