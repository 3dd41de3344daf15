"""The second decoder agrees with the writer, and never breaks on anything."""

from __future__ import annotations

import msgspec
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.embedded import rows
from penstock.event import Message, child_id, murmur2, root_id, slot_of
from penstock.sim.audit import decode

LONG = st.integers(-(1 << 63), (1 << 63) - 1)
MESSAGES = st.builds(
    Message, key=st.text(), value=st.binary(), id=st.binary(max_size=20), type=st.text(),
    version=LONG, at=LONG, cause=st.binary(max_size=20), trace=st.text(), source=st.text(),
    notes=st.none() | st.dictionaries(st.text(), st.text(), max_size=3),
)  # fmt: skip
ANYTHING = st.recursive(
    st.none() | st.booleans() | LONG | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=12) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=20,
)
CELLS = st.builds(
    decode.Cells, LONG, LONG, LONG, LONG, LONG, st.text(), st.integers(-1, 3), LONG, st.binary()
)


def cells_of(row: rows.Row) -> decode.Cells:
    """A row as penstock writes it, as the auditor reads it."""
    return decode.Cells(
        row.at, row.records, row.appended_at, 3, 4, row.schemas, row.codec, row.crc, row.body
    )


@given(st.lists(MESSAGES, min_size=1, max_size=8), st.integers(0, 1023), st.integers(0, 1 << 40))
def test_what_is_written_is_read(messages: list[Message], partition: int, offset: int) -> None:
    row = rows.pack(partition, offset, messages, 12345)
    cells = cells_of(row)
    found, wrong = decode.facts_of("loans", cells)
    assert wrong == ""
    assert decode.checksum(row.at, row.records, 12345, row.codec, row.body) == row.crc
    assert decode.schemas_of(found) == row.schemas
    assert [fact[:6] for fact in found] == [
        ("loans", partition, offset + n, 12345, 3, 4) for n in range(len(messages))
    ]
    assert [fact.content for fact in found] == [msgspec.structs.astuple(m) for m in messages]


@given(MESSAGES)
def test_one_message_alone_is_read(message: Message) -> None:
    found, wrong = decode.message_of(rows.message_bytes(message))
    assert wrong == ""
    assert found is not None
    assert msgspec.structs.astuple(found) == msgspec.structs.astuple(message)


@given(MESSAGES, st.integers(1, 4))
def test_fields_that_were_added_later_are_passed_over(message: Message, more: int) -> None:
    raw = msgspec.msgpack.encode([*msgspec.structs.astuple(message), *range(more)])
    found, wrong = decode.message_of(raw)
    assert (found is not None, wrong) == (True, "")


@given(CELLS)
def test_no_row_breaks_the_decoder(cells: decode.Cells) -> None:
    found, wrong = decode.facts_of("t", cells)
    assert bool(wrong) or len(found) == cells.count


@given(ANYTHING, st.booleans(), st.integers(-2, 12))
def test_no_value_breaks_the_decoder(value: object, zipped: bool, count: int) -> None:
    body = msgspec.msgpack.encode(value)
    if zipped:
        body = zstandard.compress(body)
    found, wrong = decode.facts_of("t", decode.Cells(7, count, 1, 1, 1, "", int(zipped), 0, body))
    assert bool(wrong) or len(found) == count
    decode.message_of(body)
    decode.errors_of(body)


@given(MESSAGES, st.data())
def test_no_flipped_byte_breaks_the_decoder(message: Message, draw: st.DataObject) -> None:
    body = bytearray(rows.pack(0, 0, [message] * 4, 1).body)
    at = draw.draw(st.integers(0, len(body) - 1))
    body[at] ^= draw.draw(st.integers(1, 255))
    decode.facts_of("t", decode.Cells(3, 4, 1, 1, 1, "", 1, 0, bytes(body)))


def test_a_frame_that_unpacks_without_end_is_refused() -> None:
    bomb = zstandard.compress(b"\0" * (decode.PLAIN_BYTES_MAX + 1))
    found, wrong = decode.facts_of("t", decode.Cells(0, 1, 1, 1, 1, "", 1, 0, bomb))
    assert (found, "wants" in wrong) == ([], True)


def test_nesting_without_end_is_refused() -> None:
    for deep in (b"\x91" * 100_000, b"\x81\xa1a" * 100_000):
        assert decode.facts_of("t", decode.Cells(0, 1, 1, 1, 1, "", 0, 0, deep))[1]
        assert decode.message_of(deep)[1]


@given(st.text())
def test_slots_agree(key: str) -> None:
    assert decode.slot_of(key) == slot_of(key)
    assert decode.murmur2(key.encode()) == murmur2(key.encode())


@given(st.integers(0, (1 << 48) - 1), st.lists(st.text(), max_size=4))
def test_first_ids_agree(at: int, parts: list[str]) -> None:
    assert decode.root_id(at, *parts) == root_id(at, *parts)


@given(st.binary(min_size=16, max_size=16), st.text(), st.text(), st.integers(0, 50))
@settings(max_examples=50)
def test_derived_ids_agree(parent: bytes, service: str, type_: str, ordinal: int) -> None:
    id_ = child_id(parent, service, type_, ordinal)
    assert decode.child_id(parent, service, type_, ordinal) == id_
    assert decode.ordinal_of(id_, parent, service, type_, ordinal + 1) == ordinal
    assert decode.ordinal_of(id_, parent, service, type_, ordinal) is None
    assert decode.ordinal_of(b"?" * 16, parent, service, type_, 3) is None
