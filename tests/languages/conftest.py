"""A test that takes ``client`` runs with Java's client of Kafka and with one of Node."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kafka.rig import Desk
from tests.languages.programs import Client
from tests.servers import absent_is_skipped


@pytest.fixture(params=["java", "node"])
def client(request: pytest.FixtureRequest) -> Client:
    """The programs of one language; a test is left out where the language is not installed."""
    made = Client(request.param)
    with absent_is_skipped():
        made.prepare()
    return made


@pytest.fixture
def desk(kafka: str, prefix: str) -> Iterator[Desk]:
    """Logs under a prefix of the test's own."""
    desk = Desk(kafka, prefix)
    yield desk
    desk.close()
