"""The documented bytes, decoded a second time: rows, messages, ids, slots (docs/formats.md).

Written from the page and from nothing else. Whatever the bytes are, no exception leaves: what
does not decode comes back with the reason, and the auditor says where it lies.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple
from zlib import crc32

import msgspec
import zstandard

from penstock.sim.audit.books import Fact

OFFSET_BITS = 48
OFFSET_MASK = (1 << OFFSET_BITS) - 1
SLOTS = 4096
COMPRESSED_FROM = 4  # records
ROW_RECORDS_MAX = 1024
ROW_BYTES_MAX = 1 << 20
VALUE_BYTES_MAX = 8 << 20
PLAIN_BYTES_MAX = 64 << 20  # what one frame may unpack to: far above every documented bound
_FRAME_BYTES_MAX = 1 << 27  # the window a frame may ask for
_BROKEN = (
    msgspec.MsgspecError, zstandard.ZstdError, ValueError, TypeError, OverflowError,
    RecursionError, MemoryError,
)  # fmt: skip


class Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A message as the page lists its fields; more may come at the end."""

    key: str
    value: bytes
    id: bytes = b""
    type: str = ""
    version: int = 0
    at: int = 0
    cause: bytes = b""
    trace: str = ""
    source: str = ""
    notes: dict[str, str] | None = None


class Cells(NamedTuple):
    """A stored row of a topic."""

    at: int
    count: int  # type: ignore[assignment]  # the page's name, and tuple.count is never wanted
    appended_at: int
    txn: int
    epoch: int
    schemas: str
    codec: int
    crc: int
    body: bytes

    @property
    def partition(self) -> int:
        """The partition it lies in."""
        return self.at >> OFFSET_BITS

    @property
    def last(self) -> int:
        """The offset of its last record."""
        return self.at & OFFSET_MASK


_MESSAGES = msgspec.msgpack.Decoder(list[Message])
_MESSAGE = msgspec.msgpack.Decoder(Message)
_ERRORS = msgspec.msgpack.Decoder(list[tuple[int, str]])


def checksum(at: int, count: int, appended_at: int, codec: int, body: bytes) -> int:
    """CRC-32 of the columns that place a row, continued over its body as stored."""
    return crc32(body, crc32(f"{at},{count},{appended_at},{codec}".encode()))


def plain(codec: int, body: bytes) -> bytes:
    """The body unpacked. Raises ``ValueError`` or ``ZstdError``."""
    if codec == 0:
        return body
    if codec != 1:
        raise ValueError(f"codec {codec} is unknown")
    unpacker = zstandard.ZstdDecompressor(max_window_size=_FRAME_BYTES_MAX)
    size = zstandard.frame_content_size(body)
    if size > PLAIN_BYTES_MAX:
        raise ValueError(f"the frame wants {size} bytes")
    return unpacker.decompress(body, max_output_size=PLAIN_BYTES_MAX)


def facts_of(topic: str, cells: Cells) -> tuple[list[Fact], str]:
    """The records of a row, and why there are none: empty where they decoded."""
    try:
        messages = _MESSAGES.decode(plain(cells.codec, cells.body))
    except _BROKEN as error:
        return [], f"the body does not decode: {said(error)}"
    if len(messages) != cells.count:
        return [], f"the row says {cells.count} records and holds {len(messages)}"
    partition, offset = cells.partition, cells.last - cells.count + 1
    appended_at, txn, epoch = cells.appended_at, cells.txn, cells.epoch
    return [
        Fact(
            topic, partition, offset + n, appended_at, txn, epoch, m.key, m.value, m.id, m.type,
            m.version, m.at, m.cause, m.trace, m.source, m.notes,
        )
        for n, m in enumerate(messages)
    ], ""  # fmt: skip


def message_of(raw: bytes) -> tuple[Message | None, str]:
    """One message alone, and why there is none."""
    try:
        return _MESSAGE.decode(raw), ""
    except _BROKEN as error:
        return None, f"the message does not decode: {said(error)}"


def admitted(fact: Fact, accepts: Mapping[str, tuple[str, int]]) -> Fact:
    """A record of somebody else, in a topic that takes such, with the envelope it goes by: its id
    is made of the source and id that its writer gave, or else of its place."""
    if fact.type or fact.id or fact.topic not in accepts:
        return fact
    notes = dict(fact.notes or {})
    if not fact.key or "penstock-key" in notes:
        return fact
    type_, version = accepts[fact.topic]
    source, given = notes.pop("ce_source", ""), notes.pop("ce_id", "")
    if source and given:
        id_ = root_id(0, "foreign", source, given)
    else:
        id_ = root_id(fact.appended_at, *map(str, fact[:3]))
    kept = {name: said for name, said in notes.items() if not name.startswith("ce_")}
    trace = kept.pop("traceparent", fact.trace)
    return fact._replace(
        id=id_, type=type_, version=version, at=fact.at or fact.appended_at, trace=trace,
        source=source, notes=kept or None,
    )


def errors_of(raw: bytes) -> tuple[list[tuple[int, str]], str]:
    """The errors of a held record, and why there are none."""
    try:
        return _ERRORS.decode(raw), ""
    except _BROKEN as error:
        return [], f"the errors do not decode: {said(error)}"


def said(error: BaseException) -> str:
    """An exception as a short text."""
    return f"{type(error).__name__}: {error}"[:200]


def schemas_of(facts: list[Fact]) -> str:
    """What a row's ``schemas`` must say of these records."""
    return ",".join(sorted({f"{f.type}/{f.version}" for f in facts if f.type}))


# Ids ---------------------------------------------------------------------------------------------


def root_id(at: int, *parts: str) -> bytes:
    """The id of an event that came from outside at this time."""
    digest = blake2b("\x1f".join(parts).encode(), digest_size=10)
    return at.to_bytes(6, "big") + digest.digest()


def child_id(parent: bytes, service: str, type_: str, ordinal: int) -> bytes:
    """The id of the ``ordinal``-th thing of a type that a service made out of its parent."""
    digest = blake2b(parent, digest_size=10)
    digest.update(f"{service}\x1f{type_}\x1f{ordinal}".encode())
    return parent[:6] + digest.digest()


def ordinal_of(
    id_: bytes, parent: bytes, service: str, type_: str, below: int, first: int = 0
) -> int | None:
    """Which of its parent's children an id names, of the first so many; None: none of them.

    Where many are to be looked up, ``first`` says where to begin.
    """
    rest = id_[6:]
    if id_[:6] != parent[:6]:
        return None
    begun = blake2b(parent + f"{service}\x1f{type_}\x1f".encode(), digest_size=10)
    for n in range(below):
        ordinal = (first + n) % below
        digest = begun.copy()
        digest.update(b"%d" % ordinal)
        if digest.digest() == rest:
            return ordinal
    return None


# Slots -------------------------------------------------------------------------------------------


def murmur2(key: bytes) -> int:
    """MurmurHash2 of 32 bits with the seed of Kafka's clients."""
    factor, mask = 0x5BD1E995, 0xFFFFFFFF
    found = 0x9747B28C ^ len(key)
    whole = len(key) & ~3
    for at in range(0, whole, 4):
        word = int.from_bytes(key[at : at + 4], "little") * factor & mask
        word = (word ^ word >> 24) * factor & mask
        found = (found * factor & mask) ^ word
    if whole < len(key):
        found = (found ^ int.from_bytes(key[whole:], "little")) * factor & mask
    found = (found ^ found >> 13) * factor & mask
    return found ^ found >> 15


@lru_cache(maxsize=1 << 16)
def slot_of(key: str) -> int:
    """The slot of a key."""
    return (murmur2(key.encode("utf-8", "surrogatepass")) & 0x7FFFFFFF) % SLOTS
