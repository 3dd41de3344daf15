"""Appending to Kafka: all of a batch is handed over, one flush waits for it, any failure raises.

A producer that failed is thrown away. What it still holds is purged first, so each partition
keeps the messages up to some one of them in their order, and the next append begins afresh: what
it repeats is absorbed by marks.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from threading import Lock
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from penstock.errors import Problem
from penstock.event import Message, Origin, partition_of
from penstock.log.kafka_clients import Clients
from penstock.log.kafka_errors import Ear, raised, sorted_out
from penstock.log.kafka_headers import Writer

SLICE_SECONDS = 0.25  # how often a wait looks whether it is in vain
ROOM_SECONDS = 0.05
LARGE_BYTES = 1 << 18


class Appender:
    """The producer of one log; threads may share it."""

    def __init__(self, clients: Clients) -> None:
        self._clients, self._lock = clients, Lock()
        self._producer: Producer | None = None
        self._ear = Ear()
        self._failed: list[KafkaError] = []

    def append(
        self, name: str, partitions: int, messages: Sequence[Message],
        origins: Sequence[Origin], writer: Writer, times: Sequence[int] = (),
    ) -> None:  # fmt: skip
        """Append all to the topic of this name. Raises; see ``Log.append``. ``times`` are their
        append times where the topic takes given ones: a copy keeps those of what it copies."""
        with self._lock:
            deadline = time.monotonic() + self._clients.seconds
            try:
                self._produce(name, partitions, messages, origins, writer, deadline, times)
                self._flush(name, deadline)
            except KafkaException as problem:  # as a producer that stopped for good
                self._throw_away()
                raise raised(problem, f"an append to {name}", name) from None
            except BaseException:
                self._throw_away()
                raise

    def _open(self) -> Producer:
        if self._producer is None:
            self._ear, self._failed = Ear(), []
            self._producer = self._clients.producer(self._ear)
        return self._producer

    def _report(self, error: KafkaError | None, _: object) -> None:
        if error is not None:
            self._failed.append(error)

    def _produce(
        self, name: str, partitions: int, messages: Sequence[Message],
        origins: Sequence[Origin], writer: Writer, deadline: float, times: Sequence[int],
    ) -> None:  # fmt: skip
        produce, headers = self._open().produce, writer.headers
        places = [partition_of(m.key, partitions) for m in messages]
        report, watched = self._report, _watched(messages, places)
        for at, m in enumerate(messages):
            told = report if at in watched else None
            described: Any = headers(m, origins[at] if origins else None)
            time_ = times[at] if times else 0
            while True:
                try:
                    produce(name, m.value, m.key.encode(), places[at], None, told, time_, described)
                    break
                except BufferError:  # the client's queue is full: let it send
                    self._look(name, ROOM_SECONDS, deadline)

    def _flush(self, name: str, deadline: float) -> None:
        assert self._producer is not None
        left = min(SLICE_SECONDS, max(0.0, deadline - time.monotonic()))
        while self._producer.flush(left):
            self._look(name, 0, deadline)
        self._check(name)
        self._ear.heard()

    def _look(self, name: str, seconds: float, deadline: float) -> None:
        """Let callbacks run; raise where waiting is in vain or time is up."""
        assert self._producer is not None
        self._producer.poll(seconds)
        self._check(name)
        self._ear.check(f"an append to {name}")
        if time.monotonic() > deadline:
            raise self._ear.unanswered(f"an append to {name} for {self._clients.seconds:g} s")

    def _check(self, name: str) -> None:
        if self._failed:
            # The first one is why; those after it failed because order must not break.
            found = [sorted_out(e, f"an append to {name}", name) for e in self._failed]
            raise next((e for e in found if isinstance(e, Problem)), found[0])

    def _throw_away(self) -> None:
        """Nothing of a failed batch may be written later: purged, in flight or not."""
        if self._producer is not None:
            producer, self._producer = self._producer, None
            with suppress(KafkaException):  # one that stopped for good says so again
                producer.purge()
                producer.flush(0)

    def close(self) -> None:
        """Let go of the connection. May repeat."""
        with self._lock:
            self._producer = None


def _watched(messages: Sequence[Message], places: Sequence[int]) -> set[int]:
    """Whose failures are reported: each report takes the interpreter's lock, a thousand of them
    cost more than sending. The library stops a producer before a message can pass a failed one of
    its partition (``enable.gapless.guarantee``; none times out), so where one failed the last one
    did. The first one, and large ones, tell best why."""
    last = {place: at for at, place in enumerate(places)}
    first = {place: len(places) - at for at, place in enumerate(reversed(places), 1)}
    return {
        *last.values(), *first.values(),
        *(at for at, m in enumerate(messages) if len(m.value) > LARGE_BYTES),
    }  # fmt: skip
