"""The shared suites: a backend is done when it passes them.

``log_scenarios`` and ``store_scenarios`` list what a backend with given ``Features`` has to pass,
each scenario a function of a fixture that the backend's own test file makes.
"""

from __future__ import annotations

from collections.abc import Callable

from penstock.conformance.contention import contention
from penstock.conformance.lanes import lanes
from penstock.conformance.logs import LogFixture, records
from penstock.conformance.mishaps import mishaps
from penstock.conformance.outboxes import outboxes
from penstock.conformance.stores import StoreFixture, stores
from penstock.ports import Features


def log_scenarios(features: Features) -> list[Callable[[LogFixture], None]]:
    """What a log with these features has to pass."""
    return [each for suite in (records, lanes, mishaps) for each in suite.fitting(features)]


def store_scenarios(features: Features) -> list[Callable[[StoreFixture], None]]:
    """What a store with these features has to pass."""
    return [each for suite in (stores, outboxes, contention) for each in suite.fitting(features)]
