"""One log row: many messages of one commit and partition, packed, checksummed, unpacked."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple
from zlib import crc32

import msgspec
import zstandard

from penstock.errors import Corrupt
from penstock.event import Message, Record
from penstock.limits import (
    COMPRESS_FROM_RECORDS,
    OFFSET_BITS,
    OFFSET_MAX,
    ROW_BYTES_MAX,
    ROW_RECORDS_MAX,
    TEXT_CHARS_MAX,
    VALUE_BYTES_MAX,
)

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(list[Message])
_LOCAL = threading.local()
UNPACKED_BYTES_MAX = ROW_BYTES_MAX + VALUE_BYTES_MAX + (1 << 20)
# Bytes whose checksum fits and that are no row's all the same: forged, or written by a bug.
# (msgspec lets a text that is no UTF-8 out as a ValueError.)
_UNREADABLE = (msgspec.MsgspecError, zstandard.ZstdError, ValueError, RecursionError)


class Row(NamedTuple):
    """A log row as stored, without its transaction number and epoch."""

    at: int
    records: int
    appended_at: int
    schemas: str
    codec: int
    crc: int
    body: bytes


def _zstd() -> tuple[zstandard.ZstdCompressor, zstandard.ZstdDecompressor]:
    """Compressors are not thread-safe: each thread keeps its own pair."""
    try:
        pair: tuple[zstandard.ZstdCompressor, zstandard.ZstdDecompressor] = _LOCAL.pair
    except AttributeError:
        pair = zstandard.ZstdCompressor(level=1), zstandard.ZstdDecompressor()
        _LOCAL.pair = pair
    return pair


def checksum(at: int, count: int, appended_at: int, codec: int, body: bytes) -> int:
    """CRC-32 over the columns that place the row and the stored body."""
    return crc32(body, crc32(b"%d,%d,%d,%d" % (at, count, appended_at, codec)))


def _fits(at: int, count: int, appended_at: int, codec: int, crc: int, body: bytes) -> bool:
    """Does the checksum fit? A damaged row may hold anything, a text where a number was."""
    try:
        return checksum(at, count, appended_at, codec, body) == crc
    except TypeError:
        return False


def split(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    """Chunks that each fit one row: bounded in records and bytes, never empty."""
    start, size = 0, 0
    for i, message in enumerate(messages):
        length = len(message.value) + 200
        if i > start and (i - start == ROW_RECORDS_MAX or size + length > ROW_BYTES_MAX):
            yield messages[start:i]
            start, size = i, 0
        size += length
    if start < len(messages):
        yield messages[start:]


def pack(partition: int, offset: int, messages: Sequence[Message], appended_at: int) -> Row:
    """The row that holds ``messages`` from ``offset`` on."""
    count = len(messages)
    body, codec = _ENCODER.encode(messages), 0
    if count >= COMPRESS_FROM_RECORDS:
        body, codec = _zstd()[0].compress(body), 1
    at = partition << OFFSET_BITS | offset + count - 1
    schemas = ",".join(sorted({f"{m.type}/{m.version}" for m in messages if m.type}))
    crc = checksum(at, count, appended_at, codec, body)
    return Row(at, count, appended_at, schemas, codec, crc, body)


def unpack(topic: str, row: tuple[int, int, int, int, int, bytes], start: int) -> list[Record]:
    """The records of a stored row (at, count, appended_at, codec, crc, body) from ``start`` on.

    Raises ``Corrupt`` when the checksum or the count does not fit, or the body is no such row's.
    """
    at, count, appended_at, codec, crc, body = row
    partition, last = at >> OFFSET_BITS, at & OFFSET_MAX
    if not _fits(at, count, appended_at, codec, crc, body):
        raise Corrupt(f"{topic}[{partition}] row ending at offset {last}: checksum differs")
    try:
        messages = _DECODER.decode(_inflated(body) if codec else body)
    except _UNREADABLE as error:
        said = f"{topic}[{partition}] row ending at offset {last}: {error}"
        raise Corrupt(said[:TEXT_CHARS_MAX]) from None
    if len(messages) != count:
        raise Corrupt(f"{topic}[{partition}] row ending at offset {last}: count differs")
    base = last - count + 1
    skip = max(0, start - base)
    return [
        Record(topic, partition, base + i, appended_at, messages[i]) for i in range(skip, count)
    ]


def _inflated(body: bytes) -> bytes:
    """The body decompressed. Raises ``ZstdError``, also where it says to be larger than any row:
    a frame that names its size is otherwise believed, whatever the bound."""
    size = zstandard.frame_content_size(body)
    if size > UNPACKED_BYTES_MAX:
        raise zstandard.ZstdError(f"{size} bytes in a row of at most {UNPACKED_BYTES_MAX}")
    return _zstd()[1].decompress(body, max_output_size=UNPACKED_BYTES_MAX)


def message_bytes(message: Message) -> bytes:
    """One message alone, as waiting and outbox rows keep it."""
    return _ENCODER.encode(message)


_ONE = msgspec.msgpack.Decoder(Message)


def message_of(raw: bytes) -> Message:
    """The message that ``message_bytes`` wrote. Raises ``Corrupt`` where it did not."""
    try:
        return _ONE.decode(raw)
    except _UNREADABLE as error:
        raise Corrupt(f"a stored message cannot be read: {error}"[:TEXT_CHARS_MAX]) from None


def by_partition(
    messages: Iterable[tuple[int, Message]],
) -> dict[int, list[Message]]:
    """Messages grouped by partition, order kept."""
    groups: dict[int, list[Message]] = {}
    for partition, message in messages:
        groups.setdefault(partition, []).append(message)
    return groups
