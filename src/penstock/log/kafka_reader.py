"""Reading a range of a Kafka topic, and asking for its ends, without touching any group."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from threading import RLock

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka import Message as Raw
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._metadata import TopicMetadata

from penstock.errors import OutsideLog
from penstock.limits import BATCH_BYTES_MAX
from penstock.log.kafka_clients import Clients
from penstock.log.kafka_errors import ABSENT, Ear, absent, raised, sorted_out
from penstock.ports import Extent

FETCH_WAIT_MS = 10  # how long a broker holds a fetch at the end: markers alone are there
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
    """Asks for first and next offsets; threads may share it.

    It asks by a consumer, which waits for its answers. The admin client, made for whoever changes
    topics, has futures instead; of its questions for offsets that are late it frees memory twice,
    and the process dies (confluent-kafka 2.16, seen 1 in 1,000 times).
    """

    def __init__(self, clients: Clients) -> None:
        self._clients, self._lock, self._ear = clients, RLock(), Ear()
        self._asker: Consumer | None = None
        self._admin: AdminClient | None = None

    def asker(self) -> Consumer:
        """The client that asks; it reads nothing."""
        with self._lock:
            if self._asker is None:
                self._asker = self._clients.fetcher(self._ear)
            return self._asker

    def admin(self) -> AdminClient:
        """The client that makes and changes topics."""
        with self._lock:
            if self._admin is None:
                self._admin = self._clients.admin(self._ear)
            return self._admin

    def extents(self, name: str, partitions: Sequence[int], since: int | None = None) -> list[
        Extent
    ]:
        """The extent of each partition. Raises ``Unreachable``, ``NotFound``."""
        at = OFFSET_BEGINNING if since is None else max(since, 0)
        deadline = time.monotonic() + self._clients.seconds
        firsts = self._ask(name, partitions, at, deadline)
        lasts = self._ask(name, partitions, OFFSET_END, deadline)
        # A time after the last record is answered with -1.
        return [Extent(f if f >= 0 else n, n) for f, n in zip(firsts, lasts, strict=True)]

    def _ask(
        self, name: str, partitions: Sequence[int], at: int, deadline: float
    ) -> list[int]:
        """The first offset at or after a time (ms), of the beginning, or of the end."""
        doing = f"the offsets of {name}"
        asked = [TopicPartition(name, partition, at) for partition in partitions]
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._ear.unanswered(doing)
            try:
                found = self.asker().offsets_for_times(asked, timeout=min(left, 2 * ANSWER_SECONDS))
                for place in found:
                    if place.error is not None:
                        raise KafkaException(place.error)
                offsets: list[int] = [place.offset for place in found]
                if min(offsets) >= (0 if at < 0 else -1):
                    return offsets
                self.pause()  # an answer without one of them
            except KafkaException as problem:
                self._again(problem, doing, name, deadline)

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
                self.asker().list_topics(topic, timeout=min(left, ANSWER_SECONDS))
        self.pause()

    def pause(self) -> None:
        """Wait a moment for the client's news, before asking again."""
        self.asker().poll(RETRY_SECONDS)

    def _hear(self, doing: str) -> None:
        self.asker().poll(0)
        self._ear.check(doing)

    def topics(self, seconds: float | None = None) -> dict[str, TopicMetadata]:
        """What is known of every topic. Raises ``Unreachable``, or a ``Problem`` at the door."""
        found = self._metadata("", "what topics there are", self._deadline(seconds))
        return {name: topic for name, topic in found.items() if not topic.error}

    def counts(self, names: Collection[str], seconds: float | None = None) -> dict[str, int]:
        """The partition counts of those of these topics that are there; raises as ``topics``
        does. Asks about no other topic: a cluster may have thousands."""
        deadline, counts = self._deadline(seconds), {}
        for name in names:
            topic = self._metadata(name, "which topics there are", deadline)[name]
            if topic.error is None:
                counts[name] = len(topic.partitions)
        return counts

    def _deadline(self, seconds: float | None) -> float:
        return time.monotonic() + (seconds or self._clients.seconds)

    def _metadata(self, name: str, doing: str, deadline: float) -> dict[str, TopicMetadata]:
        """What the cluster says of a topic, or of all. One that is just being made, or is not
        shown to us, is asked about again; one that is not there says so."""
        while True:
            left = max(RETRY_SECONDS, deadline - time.monotonic())
            try:
                found: dict[str, TopicMetadata] = self.asker().list_topics(
                    name or None, timeout=min(left, ANSWER_SECONDS)
                ).topics
                error = found[name].error if name else None
                if error is None or error.code() in ABSENT:
                    return found
                raise KafkaException(error)
            except KafkaException as problem:
                self._hear(doing)  # a wrong password is told by and by, and costs no more time
                if time.monotonic() >= deadline:
                    raise raised(problem, doing, name) from None
                self.pause()

    def close(self) -> None:
        """Let go of the connections, when nobody asks any more."""
        with self._lock:
            self._asker = self._admin = None


def meet(client: Consumer, names: Iterable[str]) -> None:
    """Let a client know of topics before it is to read them: it would look for the leaders of one
    that it never heard of a second later."""
    with suppress(KafkaException):  # it finds out by itself, when somebody answers
        for name in names:
            client.list_topics(name, timeout=ANSWER_SECONDS)


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
        self._met: set[str] = set()  # topics that the client knows

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
            self._met = set()
        if name not in self._met:
            meet(self._fetcher, [name])
            self._met.add(name)
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


