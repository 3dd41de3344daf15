"""A desk on the run's broker for every test here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kafka.rig import Desk


@pytest.fixture
def desk(kafka: str, prefix: str) -> Iterator[Desk]:
    """Logs under a prefix of the test's own."""
    desk = Desk(kafka, prefix)
    yield desk
    desk.close()
