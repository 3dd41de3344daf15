"""The topics of a Kafka cluster: every record up to the ends that were looked up at the start.

Decoded by ``docs/reference/kafka.md`` and nothing else. The reader belongs to no group and commits
nothing, so nobody notices it.
"""

from __future__ import annotations

import re
import time
from binascii import unhexlify
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from operator import methodcaller
from typing import Any, cast
from uuid import uuid4
from zlib import crc32

import confluent_kafka as kafka

from penstock.sim.audit.avro import Avro
from penstock.sim.audit.books import Fact, Flaw
from penstock.sim.audit.decode import admitted
from penstock.sim.audit.opening import Unfit

SILENCE_SECONDS_MAX = 20.0  # without a record or an answer the broker counts as gone
PIECE, LOOK_SECONDS = 10_000, 0.05
KEY_BYTES = "penstock-key"
Place = tuple[str, int]
_given = methodcaller("headers")
Take = Callable[[str, kafka.Message], None]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ORIGIN = re.compile(rb"(\d+)\.(\d+)")
_NOTE = "penstock-note-"
_PLAIN = frozenset(
    ("ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time", "content-type", "traceparent",
     "penstock-schema", "penstock-origin", "penstock-at", "penstock-sourceless")
)  # fmt: skip
_STORED_MAX = (1 << 63) - 1  # of a number, in tables


class Topics:
    """What the topics of a catalog hold."""

    def __init__(
        self, client: Mapping[str, Any], prefix: str, flaws: list[Flaw],
        accepts: Mapping[str, tuple[str, int]], avro: Avro | None = None,
    ) -> None:  # fmt: skip
        self._client, self._prefix, self._flaws, self._accepts = client, prefix, flaws, accepts
        self._avro = avro
        self.facts: dict[str, list[Fact]] = {}
        self.partitions: dict[str, int] = {}
        self.first: dict[Place, int] = {}
        self.examined: Counter[str] = Counter(I19=0)
        self._sums: dict[tuple[str, int, int], int] = {}

    def read(self, names: Iterable[str]) -> None:
        """Read all of these, and look a second time whether it is the same. Raises ``Unfit``."""
        try:
            self._read(names)
        except kafka.KafkaException as error:
            raise Unfit(
                f"Kafka cannot be read: {error.args[0].str()}.",
                "Check the address in PENSTOCK_KAFKA or [kafka], and what its user may read.",
            ) from None

    def _read(self, names: Iterable[str]) -> None:
        with _Reading(self._client) as reading:
            self.partitions = reading.counts(self._prefix, names)
            places = [(t, n) for t, count in self.partitions.items() for n in range(count)]
            spans = reading.spans(self._prefix, places)
            self.first = {place: low for place, (low, _) in spans.items()}
            lanes: dict[Place, list[Fact]] = {place: [] for place in places}

            def take(topic: str, raw: kafka.Message) -> None:
                fact = self._taken(topic, raw)
                lanes[fact[:2]].append(fact)

            reading.walk(self._prefix, spans, take)
            for topic, count in self.partitions.items():
                self.facts[topic] = [f for n in range(count) for f in lanes[topic, n]]
        with _Reading(self._client) as reading:
            reading.walk(self._prefix, spans, self._look_again)
            # What retention took while we read is listed, and is said to be gone.
            for place, (low, _) in reading.spans(self._prefix, places).items():
                self.first[place] = max(low, self.first[place])

    def _taken(self, topic: str, raw: kafka.Message) -> Fact:
        fact = fact_of(topic, raw)
        self._sums[fact[:3]] = _sum(raw)
        if self._avro is not None:
            fact = self._avro.opened(fact, dict(_headers(raw)).get("content-type") or b"")
        return admitted(fact, self._accepts)

    def _look_again(self, topic: str, raw: kafka.Message) -> None:
        place = topic, raw.partition() or 0, raw.offset() or 0
        self.examined["I19"] += 1
        if self._sums.get(place) != _sum(raw):
            where = f"{topic}[{place[1]}]@{place[2]}"
            self._flaws.append(Flaw("I19", topic, "a second reader saw other bytes", (where,)))


def _sum(raw: kafka.Message) -> int:
    found = crc32(raw.value() or b"", crc32(raw.key() or b""))
    for name, said in _headers(raw):
        found = crc32(said or b"", crc32(name.encode(), found))
    return crc32(b"%d" % raw.timestamp()[1], found)


def _headers(raw: kafka.Message) -> list[tuple[str, bytes | None]]:
    """A name that is no UTF-8 makes of the client's list one with holes, which ends the process
    where it is looked into; called by C code it is refused instead."""
    try:
        return cast(list[tuple[str, bytes | None]], _given(raw) or [])
    except (SystemError, UnicodeError):
        return [("penstock-headers-unreadable", b"")]


class _Reading:
    """A client of its own for one walk over the topics; a context manager."""

    def __init__(self, client: Mapping[str, Any]) -> None:
        self._consumer = kafka.Consumer(
            {
                **client, "group.id": f"penstock-audit-{uuid4().hex}",
                "enable.auto.commit": False, "enable.auto.offset.store": False,
                "auto.offset.reset": "earliest", "isolation.level": "read_committed",
                "enable.partition.eof": True, "check.crcs": True,
                "fetch.queue.backoff.ms": 20, "queued.max.messages.kbytes": 65_536,
            }
        )  # fmt: skip

    def __enter__(self) -> _Reading:
        return self

    def __exit__(self, *what: object) -> None:
        self._consumer.close()

    def counts(self, prefix: str, names: Iterable[str]) -> dict[str, int]:
        """The partitions of each topic. Raises ``Unfit`` where one is missing."""
        there = self._consumer.list_topics(timeout=SILENCE_SECONDS_MAX).topics
        counts = {}
        for name in names:
            found = there.get(prefix + name)
            if found is None or found.error is not None:
                raise Unfit(
                    f"Kafka has no topic {prefix + name}.",
                    "`penstock topics plan` shows how the cluster differs from the catalog.",
                )
            counts[name] = len(found.partitions)
        return counts

    def spans(self, prefix: str, places: Sequence[Place]) -> dict[Place, tuple[int, int]]:
        """The first offset of each partition, and the one after its last."""
        found = {}
        for topic, partition in places:
            place = kafka.TopicPartition(prefix + topic, partition)
            found[topic, partition] = self._consumer.get_watermark_offsets(
                place, timeout=SILENCE_SECONDS_MAX
            )
        return found

    def walk(
        self, prefix: str, spans: Mapping[Place, tuple[int, int]], take: Take
    ) -> None:
        """Hand over every record of these spans. Raises ``Unfit`` where none comes any more."""
        open_ = {(prefix + t, n): (t, high) for (t, n), (low, high) in spans.items() if low < high}
        self._consumer.assign(
            [kafka.TopicPartition(prefix + t, n, low) for (t, n), (low, high) in spans.items()
             if low < high]
        )  # fmt: skip
        heard = time.monotonic()
        while open_:
            first = self._consumer.poll(LOOK_SECONDS)
            found = [] if first is None else [first, *self._consumer.consume(PIECE, 0)]
            if found:
                heard = time.monotonic()
            elif time.monotonic() > heard + SILENCE_SECONDS_MAX:
                names = ", ".join(sorted(f"{name}[{n}]" for name, n in open_))[:300]
                raise Unfit(
                    f"For {SILENCE_SECONDS_MAX:g} s nothing came of {names}.",
                    "Wait until the brokers are well, or a foreign transaction is over.",
                )
            for place in self._handed(found, open_, take):
                del open_[place]
                self._consumer.incremental_unassign([kafka.TopicPartition(*place)])

    def _handed(
        self, found: Iterable[kafka.Message], open_: Mapping[Any, tuple[str, int]], take: Take
    ) -> set[Any]:
        """Records handed over; the partitions that came to their end."""
        done: set[Any] = set()
        for raw in found:
            place, error = (raw.topic(), raw.partition()), raw.error()
            if error is not None:
                if error.code() != kafka.KafkaError._PARTITION_EOF:
                    raise kafka.KafkaException(error)
                done |= {place} & open_.keys()
            elif place in open_:
                topic, high = open_[place]
                offset = raw.offset() or 0
                if offset < high:
                    take(topic, raw)
                if offset >= high - 1:
                    done.add(place)
        return done


# A record ----------------------------------------------------------------------------------------


def fact_of(topic: str, raw: kafka.Message) -> Fact:
    """A record; one that penstock did not write has no type and no id, its headers are notes.

    It was carried (``epoch`` 0): its origin tells what made it.
    """
    place = topic, raw.partition() or 0, raw.offset() or 0, raw.timestamp()[1]
    key, value, headers = raw.key(), raw.value(), _headers(raw)
    try:
        name = (key or b"").decode()
        if key is None or value is None or "\0" in name:
            raise ValueError("penstock writes a key and a value")
        if any(said is None and n in _PLAIN for n, said in headers):
            raise ValueError  # none of ours is without a value
        return _ours(place, name, value, {n: v or b"" for n, v in headers})
    except (KeyError, ValueError):
        notes = {n: _text(v) for n, v in headers}
        name = "" if key is None else _text(key)
        if key is not None and name.encode() != key:
            notes[KEY_BYTES] = key.hex()
        return Fact(*place, 0, 0, name, value or b"", b"", "", 0, 0, b"", "", "", notes or None)


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode(errors="backslashreplace").replace("\0", "\\x00")


def _ours(
    place: tuple[str, int, int, int], key: str, value: bytes, headers: Mapping[str, bytes]
) -> Fact:
    type_, _, version = headers["penstock-schema"].decode().rpartition("/")
    source = headers["ce_source"].decode() if type_ else headers.get("ce_source", b"").decode()
    if source == "/" and "penstock-sourceless" in headers:
        source = ""
    notes = dict(_noted(n, v) for n, v in headers.items() if n not in _PLAIN)
    cause, _, made = headers.get("penstock-origin", b"").partition(b"-")
    said = _ORIGIN.fullmatch(made)
    return Fact(
        *place, 0, 0, key, value, unhexlify(headers.get("ce_id", b"")), type_, _stored(version),
        _time(headers), unhexlify(cause), headers.get("traceparent", b"").decode(), source,
        notes or None, (int(said[1]), int(said[2])) if said else None,
    )


def _noted(name: str, said: bytes) -> tuple[str, str]:
    """A note of ours, or what somebody added on the way."""
    if not name.startswith(_NOTE):
        return name, _text(said)
    return name.removeprefix(_NOTE).replace("%00", "\0").replace("%25", "%"), said.decode()


def _stored(said: str | bytes) -> int:
    if abs(number := int(said)) > _STORED_MAX:
        raise ValueError("no table holds the number")
    return number


def _time(headers: Mapping[str, bytes]) -> int:
    if "ce_time" not in headers:
        return _stored(headers.get("penstock-at", b"0"))
    found = datetime.fromisoformat(headers["ce_time"].decode())
    if found.tzinfo is None:
        raise ValueError("the time names no zone")
    return (found - _EPOCH) // timedelta(milliseconds=1)
