"""Events, records and their ids: the values that travel.

Time is an integer: milliseconds since 1970-01-01T00:00Z, named ``at`` or ``*_at``. An event id is
16 bytes: the append time of the root event (6 bytes, big endian) and a hash of parent, service,
type and ordinal (10 bytes). A re-run derives the same ids, so duplicates are recognisable
everywhere, and ids made close together stay close in every index.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from struct import unpack_from
from typing import Any, NamedTuple

from msgspec import Struct

from penstock.limits import SLOTS

NO_CAUSE = b""


class Position(NamedTuple):
    """One record's place: topic, partition, offset."""

    topic: str
    partition: int
    offset: int


class Origin(NamedTuple):
    """The transaction that made a record, and the epoch it was made under."""

    txn: int = 0
    epoch: int = 0


class Message(Struct, frozen=True, array_like=True, gc=False):
    """What is handed to a log: a key, the bytes, and the envelope (CloudEvents in compact form).

    ``version`` is the schema version of ``type``; the schema reference is ``type/version``. A
    message without ``type`` came from outside and has no envelope. ``notes`` are free string
    headers (a replay id, a foreign client's own headers).
    """

    key: str
    value: bytes
    id: bytes = b""
    type: str = ""
    version: int = 0
    at: int = 0
    cause: bytes = NO_CAUSE
    trace: str = ""
    source: str = ""
    notes: dict[str, str] | None = None


class Record(Struct, frozen=True, gc=False):
    """A message as a log holds it: raw until a contract opens it."""

    topic: str
    partition: int
    offset: int
    appended_at: int
    message: Message

    @property
    def position(self) -> Position:
        """The record's place."""
        return Position(self.topic, self.partition, self.offset)


class Event(Struct, frozen=True, gc=False):
    """An opened record: ``data`` is an instance of the contract's current class.

    ``at`` is the time the input that caused it was appended (or a timer's due time);
    ``appended_at`` is the time this event's own record was appended. ``topic`` names the topic
    it was read from.
    """

    id: bytes
    type: str
    version: int
    key: str
    at: int
    data: Any
    cause: bytes = NO_CAUSE
    trace: str = ""
    notes: Mapping[str, str] | None = None
    topic: str = ""
    appended_at: int = 0


def root_id(at: int, *parts: str) -> bytes:
    """The id of an event that nothing inside caused; ``parts`` name its outside origin."""
    digest = blake2b("\x1f".join(parts).encode(), digest_size=10).digest()
    return at.to_bytes(6, "big") + digest


def child_id(parent: bytes, service: str, kind: str, ordinal: int) -> bytes:
    """The id of the ``ordinal``-th thing of ``kind`` that ``service`` made out of ``parent``."""
    return parent[:6] + blake2b(parent + _suffix(service, kind, ordinal), digest_size=10).digest()


@lru_cache(maxsize=4096)
def _suffix(service: str, kind: str, ordinal: int) -> bytes:
    return f"{service}\x1f{kind}\x1f{ordinal}".encode()


def murmur2(data: bytes) -> int:
    """Kafka's key hash (MurmurHash2, 32 bit, seed 0x9747b28c), so that other clients agree."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = (0x9747B28C ^ len(data)) & mask
    words = len(data) >> 2
    for k in unpack_from(f"<{words}I", data):
        k = k * m & mask
        h = (h * m ^ (k ^ k >> 24) * m) & mask
    tail = data[words * 4 :]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


_SLOT_OF_KEY: dict[str, int] = {}
_SLOT_CACHE_MAX = 65536


def slot_of(key: str) -> int:
    """The slot (0 to 4,095) of a key. Cached: a key is hashed for every event of its order."""
    slot = _SLOT_OF_KEY.get(key)
    if slot is None:
        if len(_SLOT_OF_KEY) >= _SLOT_CACHE_MAX:
            _SLOT_OF_KEY.clear()
        slot = _SLOT_OF_KEY[key] = (murmur2(key.encode()) & 0x7FFFFFFF) % SLOTS
    return slot


def partition_of(key: str, partitions: int) -> int:
    """The partition of a key; ``partitions`` is a power of two, so Kafka clients agree."""
    slot = _SLOT_OF_KEY.get(key)
    return (slot_of(key) if slot is None else slot) % partitions
