"""Reading a range of a Kafka topic, and asking for its ends, without touching any group."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from threading import RLock
from typing import Any

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka import Message as Raw
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

from penstock.errors import OutsideLog
from penstock.limits import BATCH_BYTES_MAX
from penstock.log.kafka_clients import Clients
from penstock.log.kafka_errors import ABSENT, Ear, absent, raised, sorted_out
from penstock.ports import Extent

FETCH_WAIT_MS = 100  # how long a broker holds a fetch at the end: markers alone are there
PIECE = 500
SLICE_SECONDS = 0.25
RETRY_SECONDS = 0.05
ANSWER_SECONDS = 1.0  # of a broker that is well
_E = KafkaError
# Leadership moves, or a topic was made a moment ago: the next question is answered.
LEADERLESS = ABSENT | {_E._NOENT}
MOVED = {
    _E.LEADER_NOT_AVAILABLE, _E.NOT_LEADER_FOR_PARTITION, _E.FENCED_LEADER_EPOCH,
    _E.UNKNOWN_LEADER_EPOCH,
}  # fmt: skip
PASSING = LEADERLESS | MOVED | {
    _E._TRANSPORT, _E._TIMED_OUT, _E.REQUEST_TIMED_OUT, _E.BROKER_NOT_AVAILABLE,
    _E.OFFSET_NOT_AVAILABLE, _E.NETWORK_EXCEPTION, _E._DESTROY,
}  # fmt: skip


class Ends:
    """Asks for first and next offsets; threads may share it."""

    def __init__(self, clients: Clients) -> None:
        self._clients, self._lock, self._ear = clients, RLock(), Ear()
        self._admin: AdminClient | None = None

    def admin(self) -> AdminClient:
        """The client that asks."""
        with self._lock:
            if self._admin is None:
                self._admin = self._clients.admin(self._ear)
            return self._admin

    def extents(self, name: str, partitions: Sequence[int], since: int | None = None) -> list[
        Extent
    ]:
        """The extent of each partition. Raises ``Unreachable``, ``NotFound``."""
        last: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        first: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
        if since is not None:
            first = OffsetSpec.for_timestamp(max(since, 0))
        deadline = time.monotonic() + self._clients.seconds
        asked = [TopicPartition(name, partition) for partition in partitions]
        firsts, lasts = self._ask(asked, (first, last), deadline)
        # A time after the last record is answered with -1.
        return [Extent(f if f >= 0 else n, n) for f, n in zip(firsts, lasts, strict=True)]

    def _ask(
        self, asked: list[TopicPartition], specs: Sequence[OffsetSpec], deadline: float
    ) -> list[list[int]]:
        doing = f"the offsets of {asked[0].topic}"
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._ear.unanswered(doing)
            try:
                # Both questions are under way before either is waited for.
                answers = [
                    self.admin().list_offsets(
                        dict.fromkeys(asked, spec),
                        isolation_level=IsolationLevel.READ_COMMITTED,
                        request_timeout=min(left, 2 * ANSWER_SECONDS),
                    )
                    for spec in specs
                ]
                found = [[a[place].result(left).offset for place in asked] for a in answers]
                if min(found[-1]) >= 0:
                    return found
                self.pause()  # an answer without this partition: its offset is -1001
            except KafkaException as problem:
                self._again(problem, doing, asked[0].topic, deadline)
            except TimeoutError:
                self._hear(doing)

    def _again(self, problem: KafkaException, doing: str, topic: str, deadline: float) -> None:
        """Returns where asking again may help."""
        self._hear(doing)
        code = problem.args[0].code() if isinstance(problem.args[0], KafkaError) else 0
        left = max(SLICE_SECONDS, deadline - time.monotonic())
        if code in LEADERLESS and topic not in self.counts([topic], left):
            raise absent(topic, doing) from None
        if code not in PASSING:
            raise raised(problem, doing, topic) from None
        if code in MOVED:
            # Nobody else tells the client of the new leader until its next look at the cluster, and
            # until then each question goes out under the old epoch.
            with suppress(KafkaException):
                self.admin().list_topics(topic, timeout=min(left, ANSWER_SECONDS))
        self.pause()

    def pause(self) -> None:
        """Wait a moment for the client's news, before asking again."""
        self.admin().poll(RETRY_SECONDS)

    def _hear(self, doing: str) -> None:
        self.admin().poll(0)
        self._ear.check(doing)

    def topics(self, seconds: float | None = None) -> dict[str, Any]:
        """What is known of every topic. Raises ``Unreachable``, or a ``Problem`` at the door."""
        doing = "what topics there are"
        deadline = time.monotonic() + (seconds or self._clients.seconds)
        while True:
            try:
                left = max(0.0, deadline - time.monotonic())
                found = self.admin().list_topics(timeout=min(left, ANSWER_SECONDS))
                break
            except KafkaException as problem:
                self._hear(doing)  # a wrong password is told by and by, and costs no more time
                if time.monotonic() >= deadline:
                    raise raised(problem, doing) from None
                self.pause()
        return {name: topic for name, topic in found.topics.items() if not topic.error}

    def counts(self, names: Collection[str], seconds: float | None = None) -> dict[str, int]:
        """The partition counts of those of these topics that are there; raises as ``topics``
        does. Asks about no other topic: a cluster may have thousands."""
        deadline = time.monotonic() + (seconds or self._clients.seconds)
        doing = "which topics there are"
        while names:
            left = max(RETRY_SECONDS, deadline - time.monotonic())
            answers = self.admin().describe_topics(
                TopicCollection([*names]), request_timeout=min(left, 2 * ANSWER_SECONDS)
            )
            try:
                return _present(answers, left)
            except (KafkaException, TimeoutError) as problem:
                self._hear(doing)
                if time.monotonic() >= deadline:
                    if isinstance(problem, KafkaException):
                        raise raised(problem, doing) from None
                    raise self._ear.unanswered(doing) from None
                self.pause()
        return {}

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            self._admin = None


def _present(answers: Mapping[str, Any], seconds: float) -> dict[str, int]:
    found = {}
    for name, answer in answers.items():
        try:
            found[name] = len(answer.result(seconds).partitions)
        except KafkaException as problem:
            if problem.args[0].code() not in ABSENT:
                raise
    return found


def offset_of(raw: Raw) -> int:
    """The offset of a record (events that are none have none)."""
    found = raw.offset()
    assert found is not None
    return found


class Ranges:
    """Reads pieces of partitions by a client of its own, kept for the next piece."""

    def __init__(self, clients: Clients, ends: Ends) -> None:
        self._clients, self._ends, self._lock = clients, ends, RLock()
        self._ear = Ear()
        self._fetcher: Consumer | None = None
        self._at: tuple[str, int, int] | None = None  # where the client stands

    def read(self, name: str, partition: int, start: int, limit: int) -> list[Raw]:
        """The records from ``start`` on, at most ``limit``. Raises ``OutsideLog``."""
        ((first, next_),) = self._ends.extents(name, [partition])
        if not first <= start <= next_:
            raise OutsideLog(name, partition, start, first, next_)
        if start == next_:
            return []
        with self._lock:
            try:
                return self._read(name, partition, start, limit, next_)
            except BaseException:
                self._drop()
                raise

    def _read(self, name: str, partition: int, start: int, limit: int, next_: int) -> list[Raw]:
        fetcher = self._placed(name, partition, start)
        deadline = time.monotonic() + self._clients.seconds
        found: list[Raw] = []
        size, at_end = 0, False
        while len(found) < limit and size < BATCH_BYTES_MAX and not at_end:
            pieces = self._piece(fetcher, min(limit - len(found), PIECE))
            for raw in pieces:
                error = raw.error()
                if error is None:
                    found.append(raw)
                    size += len(raw.value() or b"")
                    at_end = offset_of(raw) + 1 >= next_
                elif error.code() == _E._PARTITION_EOF:
                    at_end = True  # what is left are markers of transactions
                else:
                    self._refuse(error, name, partition, start)
            if not pieces:
                self._ear.check(f"a read of {name}")
                if time.monotonic() > deadline:
                    raise self._ear.unanswered(f"a read of {name}[{partition}]")
        if at_end:
            fetcher.unassign()  # else it would fetch all that comes, for nobody
        self._at = None if at_end else (name, partition, offset_of(found[-1]) + 1)
        return found

    def _piece(self, fetcher: Consumer, limit: int) -> list[Raw]:
        """What there is, as soon as there is some: a ``consume`` waits until it has all."""
        first = fetcher.poll(SLICE_SECONDS)
        if first is None:
            return []
        return [first, *(fetcher.consume(limit - 1, 0) if limit > 1 else ())]

    def _placed(self, name: str, partition: int, start: int) -> Consumer:
        if self._fetcher is None:
            self._ear = Ear()
            self._fetcher = self._clients.fetcher(self._ear, **{
                "enable.partition.eof": True, "fetch.wait.max.ms": FETCH_WAIT_MS,
                "queued.min.messages": 1000, "queued.max.messages.kbytes": 4096,
            })  # fmt: skip
        if self._at != (name, partition, start):
            self._fetcher.assign([TopicPartition(name, partition, start)])
        return self._fetcher

    def _refuse(self, error: KafkaError, name: str, partition: int, start: int) -> None:
        if error.code() in (_E._AUTO_OFFSET_RESET, _E.OFFSET_OUT_OF_RANGE):
            ((first, next_),) = self._ends.extents(name, [partition])
            if not first <= start <= next_:
                raise OutsideLog(name, partition, start, first, next_)
        if not error.retriable():
            raise sorted_out(error, f"a read of {name}[{partition}]", name)

    def _drop(self) -> None:
        fetcher, self._fetcher, self._at = self._fetcher, None, None
        if fetcher is not None:
            fetcher.close()

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            self._drop()


