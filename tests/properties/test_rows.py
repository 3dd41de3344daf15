"""Log rows: packed and unpacked, cut anywhere, damaged anywhere."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.embedded.rows import Row, checksum, message_bytes, message_of, pack, split, unpack
from penstock.errors import Corrupt
from penstock.event import Message
from penstock.limits import OFFSET_BITS, OFFSET_MAX, ROW_BYTES_MAX, ROW_RECORDS_MAX

IDS = st.just(b"") | st.binary(min_size=16, max_size=16)
MESSAGES = st.builds(
    Message, key=st.text(max_size=8), value=st.binary(max_size=40), id=IDS,
    type=st.sampled_from(("", "a.sent", "b.kept")), version=st.integers(0, 9),
    at=st.integers(0, 1 << 45), cause=IDS, trace=st.text(max_size=6), source=st.text(max_size=6),
    notes=st.none() | st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=3),
)
BATCHES = st.lists(MESSAGES, min_size=1, max_size=8)
PLACES = st.tuples(st.integers(0, 1023), st.integers(0, OFFSET_MAX - 10))
COLUMNS = ("at", "records", "appended_at", "codec", "crc", "body")


def stored(row: Row) -> tuple[int, int, int, int, int, bytes]:
    """The columns that a reader asks for."""
    return row.at, row.records, row.appended_at, row.codec, row.crc, row.body


@given(PLACES, BATCHES, st.integers(0, 1 << 45), st.data())
def test_a_row_gives_back_its_messages_from_any_offset_on(
    place: tuple[int, int], messages: list[Message], now: int, data: Any
) -> None:
    partition, offset = place
    row = pack(partition, offset, messages, now)
    start = data.draw(st.integers(max(0, offset - 3), offset + len(messages)))
    found = unpack("t", stored(row), start)
    skipped = max(0, start - offset)
    assert [r.message for r in found] == messages[skipped:]
    assert [r.position for r in found] == [
        ("t", partition, offset + n) for n in range(skipped, len(messages))
    ]
    assert {r.appended_at for r in found} <= {now}
    assert row.schemas.split(",") == sorted({f"{m.type}/{m.version}" for m in messages if m.type}) \
        or not row.schemas


@settings(max_examples=300)
@given(PLACES, BATCHES, st.integers(0, 1 << 45), st.data())
def test_any_byte_changed_in_any_column_is_seen(
    place: tuple[int, int], messages: list[Message], now: int, data: Any
) -> None:
    row = pack(*place, messages, now)
    column = data.draw(st.sampled_from(COLUMNS))
    value = getattr(row, column)
    raw = bytearray(value if column == "body" else value.to_bytes(8, "big"))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    changed: Any = bytes(raw) if column == "body" else int.from_bytes(raw, "big")
    refused(stored(row._replace(**{column: changed})))


@given(PLACES, BATCHES, st.data())
def test_a_body_cut_short_or_made_longer_is_seen(
    place: tuple[int, int], messages: list[Message], data: Any
) -> None:
    row = pack(*place, messages, 0)
    end = data.draw(st.integers(0, len(row.body) - 1))
    refused(stored(row._replace(body=row.body[:end])))
    refused(stored(row._replace(body=row.body + data.draw(st.binary(min_size=1, max_size=4)))))


@settings(max_examples=300)
@given(st.binary(max_size=60), st.integers(1, 3), st.integers(0, 2), PLACES)
def test_a_body_that_is_no_batch_is_refused_whatever_its_checksum(
    body: bytes, count: int, codec: int, place: tuple[int, int]
) -> None:
    at = place[0] << OFFSET_BITS | place[1] + count
    row = at, count, 0, codec, checksum(at, count, 0, codec, body), body
    try:
        found = unpack("t", row, 0)
    except Corrupt:
        return
    assert len(found) == count


def refused(row: tuple[int, int, int, int, int, bytes]) -> None:
    """It raises, and nothing else than ``Corrupt``."""
    try:
        found = unpack("t", row, 0)
    except Corrupt:
        return
    raise AssertionError(f"taken for good: {found}")


@given(st.lists(st.tuples(MESSAGES, st.integers(0, 3)), max_size=8))
def test_a_commit_is_split_into_rows_in_order(pairs: list[tuple[Message, int]]) -> None:
    """Of at most so many records and bytes each; one message alone may be larger."""
    sizes = (0, 1000, ROW_BYTES_MAX // 3, ROW_BYTES_MAX + 1)
    messages = [msgspec.structs.replace(m, value=bytes(sizes[n])) for m, n in pairs]
    chunks = list(split(messages))
    assert [m for chunk in chunks for m in chunk] == messages
    for chunk in chunks:
        assert chunk
        assert len(chunk) <= ROW_RECORDS_MAX
        assert len(chunk) == 1 or sum(len(m.value) for m in chunk) <= ROW_BYTES_MAX


@given(st.integers(0, 3 * ROW_RECORDS_MAX))
def test_many_small_messages_are_split_by_their_number(count: int) -> None:
    sizes = [len(chunk) for chunk in split([Message("k", b"")] * count)]
    assert sum(sizes) == count
    assert all(size == ROW_RECORDS_MAX for size in sizes[:-1])


@given(MESSAGES, st.lists(st.none() | st.integers(0, 1 << 60) | st.text(max_size=3), max_size=3))
def test_a_message_alone_comes_back_and_a_newer_one_s_fields_are_passed_over(
    message: Message, newer: list[Any]
) -> None:
    raw = message_bytes(message)
    assert message_of(raw) == message
    longer = [*msgspec.msgpack.decode(raw), *newer]
    assert message_of(msgspec.msgpack.encode(longer)) == message
