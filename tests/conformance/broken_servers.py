"""Kafka and PostgreSQL behind a log and a store that each break one promise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import psycopg
from msgspec.structs import replace

from penstock.catalog.model import KafkaSettings
from penstock.conformance.history_load import LOAD_TOPICS, Backend
from penstock.conformance.stores import SERVICE
from penstock.event import Message, Origin
from penstock.log.kafka import KafkaLog
from penstock.ports import Span, Tx
from penstock.store.postgres import PostgresStore
from tests.conformance.broken import EVERY, BrokenLane, BrokenTx, Take


class BrokenKafka(KafkaLog):
    """A Kafka log that now and then does something else; ``how`` says what."""

    def __init__(self, servers: str, prefix: str, how: str, take: Take | None) -> None:
        super().__init__(KafkaSettings(servers=servers, prefix=prefix), LOAD_TOPICS)
        self._how, self._take, self._turns = how, take, count(1)
        self._late: list[tuple[str, Sequence[Message]]] = []

    def append(
        self, topic: str, messages: Sequence[Message], now: int, origins: Sequence[Origin] = ()
    ) -> None:
        late, self._late = self._late, []
        for one in self._instead(topic, messages) if not next(self._turns) % EVERY else [messages]:
            super().append(topic, one, now)
        for known, one in late:
            super().append(known, one, now)

    def _instead(self, topic: str, messages: Sequence[Message]) -> list[Sequence[Message]]:
        if self._how == "drop":
            return []
        if self._how == "double":
            return [messages, messages[:1]]
        if self._how == "delay":
            self._late.append((topic, messages))
            return []
        if self._how == "turn round":
            return [[replace(m, key=messages[0].key) for m in reversed(messages)]]
        return [messages]

    def join(self, group: str, topics: Sequence[str]) -> Any:
        lane = super().join(group, topics)
        return BrokenLane(lane, self._take) if self._take else lane


class _Forgotten(Exception):
    """A commit that is acknowledged and was not made."""


class BrokenPostgres(PostgresStore):
    """A PostgreSQL store whose transactions do one thing otherwise."""

    def __init__(self, dsn: str, how: str) -> None:
        super().__init__(dsn, SERVICE)
        self.how, self._dsn = how, dsn

    def epoch_of(self, lane: int) -> int:
        """Whoever owns the lane now."""
        with psycopg.connect(self._dsn) as connection:
            row = connection.execute(
                "SELECT epoch FROM penstock.owners WHERE scope = %s AND lane = %s",
                (self.scope, lane),
            ).fetchone()
        assert row is not None
        return int(row[0])

    @contextmanager
    def _begin(self, spans: Mapping[int, Sequence[Span]]) -> Iterator[Tx]:
        try:
            with super()._begin(spans) as tx:
                yield BrokenTx(tx, self)
                if self.how == "forget":
                    raise _Forgotten
        except _Forgotten:
            pass


class BrokenServers:
    """Opens a log or a store that is broken in one way, on real servers. (One that forgets does so
    for the first client only: the next one has to come to an end.)"""

    def __init__(self, append: str = "", take: Take | None = None, how: str = "") -> None:
        self._append, self._take, self._how = append, take, how
        self._opened = count()

    def on(self, dsn: str, kafka: str, prefix: str) -> Backend:
        """One more client of these servers."""
        log = BrokenKafka(kafka, prefix, self._append, self._take)
        log.ensure(LOAD_TOPICS)
        is_broken = self._how and not (self._how == "forget" and next(self._opened))
        store = BrokenPostgres(dsn, self._how) if is_broken else PostgresStore(dsn, SERVICE)

        def close() -> None:
            log.close()
            store.close()

        return Backend(log, store, frozenset(), fresh=False, close=close)
