"""Backends for the load that leaves a history, opened in a thread or in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any

from penstock.catalog.model import KafkaSettings
from penstock.conformance.history_load import DIRECT, LOAD_TOPICS, Backend
from penstock.conformance.stores import SERVICE
from penstock.embedded.file import File
from penstock.log.embedded import EmbeddedLog
from penstock.log.kafka import KafkaLog
from penstock.log.memory import MemoryLog
from penstock.ports import Claim, Settled, Tx
from penstock.store.postgres import PostgresStore
from penstock.store.sqlite import SqliteStore


def embedded(home: Path) -> Backend:
    """An embedded log, and the store in the file that holds its topics; several may write both."""
    shared = frozenset(spec.owner_file or spec.name for spec in LOAD_TOPICS)
    log = EmbeddedLog(home, LOAD_TOPICS, shared)
    log.ensure(LOAD_TOPICS)
    file = File(home / f"{SERVICE}.db", shared=True)
    return Backend(log, SqliteStore(file, SERVICE, direct=DIRECT))


def on_servers(dsn: str, kafka: str, prefix: str) -> Backend:
    """Kafka and PostgreSQL: all topics leave by the outbox, and a take shows what has come in."""
    log = KafkaLog(KafkaSettings(servers=kafka, prefix=prefix), LOAD_TOPICS)
    log.ensure(LOAD_TOPICS)
    store = PostgresStore(dsn, SERVICE)

    def close() -> None:
        log.close()
        store.close()

    return Backend(log, store, frozenset(), fresh=False, close=close)


class TurnStore(SqliteStore):
    """A store in memory, entered by one thread at a time."""

    def __init__(self) -> None:
        super().__init__(File(None), SERVICE)
        self._lock = RLock()

    def claim(self, lanes: Sequence[int], now: int) -> list[Claim]:
        with self._lock:
            return super().claim(lanes, now)

    @contextmanager
    def _begin(self) -> Iterator[Tx]:
        with self._lock, super()._begin() as tx:
            yield tx

    def due(self, *what: Any, **more: Any) -> Any:
        with self._lock:
            return super().due(*what, **more)

    def settle(
        self, epochs: Mapping[int, int], rows: Sequence[Settled], answers_to: str, now: int
    ) -> None:
        with self._lock:
            super().settle(epochs, rows, answers_to, now)


class InMemory:
    """Opens the same memory log and the same store each time; all topics leave by the outbox."""

    def __init__(self) -> None:
        self.log, self.store = MemoryLog(LOAD_TOPICS), TurnStore()

    def __call__(self) -> Backend:
        return Backend(self.log, self.store, direct=frozenset())
