"""The PostgreSQL store passes the suite, every handle with a connection of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from penstock.conformance import store_scenarios
from penstock.conformance.scenario import NOW, title
from penstock.conformance.stores import SERVICE, StoreFixture
from penstock.event import Message
from penstock.store import migrate
from penstock.store.postgres import PostgresStore


def open_store(where: str) -> PostgresStore:
    """The live store as another process opens it."""
    return PostgresStore(where, SERVICE)


class PostgresFixture:
    """A database of its own; rows for topics leave by the outbox."""

    features = PostgresStore.features

    def __init__(self, where: str) -> None:
        migrate.apply(where)
        self._where, self._stores = where, list[PostgresStore]()
        self.opener = partial(open_store, where)

    def open(self, service: str = SERVICE, namespace: str = "live") -> PostgresStore:
        self._stores.append(PostgresStore(self._where, service, namespace))
        return self._stores[-1]

    def restart(self) -> None:
        self.close()

    def promised(self, topic: str) -> list[Message]:
        return [row.message for row in self.open().due(topic, NOW, (), 1000, is_topic=True)]

    def close(self) -> None:
        for store in self._stores:
            store.close()
        self._stores.clear()


@pytest.fixture
def database(dsn: str) -> Iterator[PostgresFixture]:
    fixture = PostgresFixture(dsn)
    yield fixture
    fixture.close()


@pytest.mark.parametrize("scenario", store_scenarios(PostgresFixture.features), ids=title)
def test_store_in_postgres(
    scenario: Callable[[StoreFixture], None], database: PostgresFixture
) -> None:
    scenario(database)
