"""A message as headers and back; records of others come out readable, without a type."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.embedded.rows import message_bytes, message_of
from penstock.event import Message, Origin
from penstock.log.kafka_headers import KEY_BYTES, Reader, Writer, moment, timestamp

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
FULL = Message(
    "o-1", b"{}", bytes(range(16)), "order.placed", 3, 1_795_594_179_169, bytes(16),
    "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01", "door", {"replay": "r1"},
)
MESSAGES = st.builds(
    Message, key=TEXT.filter(lambda key: "\0" not in key), value=st.binary(max_size=20),
    id=st.one_of(st.just(b""), st.binary(min_size=16, max_size=16)),
    type=st.one_of(st.just(""), st.sampled_from(("order.placed", "ä/ö")), TEXT),
    version=st.integers(0, 1 << 31),
    at=st.one_of(st.just(0), st.integers(1 - (1 << 63), (1 << 63) - 1)),
    cause=st.one_of(st.just(b""), st.binary(min_size=16, max_size=16)), trace=TEXT,
    source=st.one_of(st.just(""), st.just("/"), TEXT),
    notes=st.one_of(st.none(), st.dictionaries(TEXT, TEXT, min_size=1, max_size=3)),
)
ORIGINS = st.one_of(st.none(), st.builds(Origin, st.integers(0, 1 << 62), st.integers(0, 1 << 62)))


def back(m: Message, origin: Origin | None = None) -> Message:
    return Reader().message(m.key.encode(), m.value, Writer().headers(m, origin))


@given(MESSAGES, ORIGINS)
def test_what_was_written_is_read(message: Message, origin: Origin | None) -> None:
    assert back(message, origin) == message


@given(st.lists(MESSAGES, max_size=6))
def test_what_is_remembered_of_one_message_touches_no_other(messages: list[Message]) -> None:
    writer, reader = Writer(), Reader()
    for m in messages:
        assert reader.message(m.key.encode(), m.value, writer.headers(m, Origin(7, 1))) == m


def test_headers_are_those_of_cloudevents() -> None:
    assert dict(Writer().headers(FULL, Origin(12, 3))) == {
        "ce_specversion": b"1.0", "ce_id": b"000102030405060708090a0b0c0d0e0f",
        "ce_type": b"order.placed", "ce_source": b"door",
        "ce_time": b"2026-11-25T08:09:39.169Z", "content-type": b"application/json",
        "penstock-schema": b"order.placed/3", "traceparent": FULL.trace.encode(),
        "penstock-origin": b"0" * 32 + b"-12.3", "penstock-note-replay": b"r1",
    }  # fmt: skip


def test_no_header_is_empty_where_cloudevents_wants_something() -> None:
    sourceless = Message("k", b"", bytes(16), "a.b", 1)
    headers = dict(Writer().headers(sourceless))
    assert headers["ce_source"] == b"/"
    assert back(sourceless) == sourceless


@given(st.integers(0, 253_402_300_799_999))
def test_times_are_rfc_3339(at: int) -> None:
    assert moment(timestamp(at).decode()) == at


Headers = Sequence[tuple[str, bytes | None]] | None


@pytest.mark.parametrize(
    ("key", "value", "headers", "expected"),
    [
        (b"k", b"v", None, Message("k", b"v")),
        (None, b"v", None, Message("", b"v")),
        (b"k", None, None, Message("k", b"")),
        (b"\xff\x00k", b"v", None, Message("\\xff\\x00k", b"v", notes={KEY_BYTES: "ff006b"})),
        (b"a\0b", b"v", None, Message("a\\x00b", b"v", notes={KEY_BYTES: "610062"})),
        (b"k", b"v", [("shop", b"7"), ("x", b"\xff"), ("n", None)],
         Message("k", b"v", notes={"shop": "7", "x": "\\xff", "n": ""})),
        (b"k", b"v", [("ce_specversion", b"1.0"), ("ce_id", b"A-17"), ("ce_type", b"com.x")],
         Message("k", b"v", notes={"ce_specversion": "1.0", "ce_id": "A-17", "ce_type": "com.x"})),
        (b"k", b"v", [("ce_id", b"4711"), ("ce_source", b"/till"), ("traceparent", b"00-ab")],
         Message("k", b"v", notes={"ce_id": "4711", "ce_source": "/till", "traceparent": "00-ab"})),
        (b"k", b"v", [("ce_id", None)], Message("k", b"v", notes={"ce_id": ""})),
    ],
)  # fmt: skip
def test_records_of_others(
    key: bytes | None, value: bytes | None, headers: Headers, expected: Message
) -> None:
    assert Reader().message(key, value, headers) == expected


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("ce_id", b"no hex"), ("penstock-schema", b"order.placed"), ("penstock-schema", b"x/y"),
        ("penstock-schema", b"\xff/1"), ("ce_time", b"yesterday"), ("ce_time", b"2026-11-25"),
        ("penstock-origin", b"zz-1.2"), ("traceparent", b"\xff"), ("ce_source", b"\xff"),
        ("penstock-schema", b"order.placed/99999999999999999999"), ("ce_id", None),
        ("penstock-schema", None), ("ce_time", None), ("penstock-origin", None),
    ],
)  # fmt: skip
def test_headers_like_ours_that_are_not_make_no_event(header: str, value: bytes | None) -> None:
    """The bytes are kept and the headers are shown; nothing raises, nothing is guessed."""
    written = Writer().headers(FULL, Origin(12, 3))
    headers = [(n, value if n == header else v) for n, v in written]
    found = Reader().message(b"o-1", b"{}", headers)
    assert (found.type, found.id, found.value) == ("", b"", b"{}")
    assert found.notes is not None
    assert set(found.notes) == {n for n, _ in headers}


def test_notes_are_read_where_the_count_of_headers_is_the_usual_one() -> None:
    """A message without a type has fewer headers of CloudEvents, and may have notes instead."""
    m = Message("k", b"", bytes(16), "", 1, 5, bytes(16), "", "us", {"a": "1", "b": "2", "c": "3"})
    assert len(Writer().headers(m)) == 8
    assert back(m) == m


def test_eight_headers_of_somebody_else_are_notes_the_trace_among_them() -> None:
    sent = [("ce_specversion", b"1.0"), ("ce_id", b"4711"), ("ce_type", b"x"), ("ce_source", b"/"),
            ("ce_time", b"2026-11-25T08:00:00Z"), ("content-type", b"application/json"),
            ("traceparent", FULL.trace.encode()), ("shop", b"7")]  # fmt: skip
    found = Reader().message(b"k", b"{}", sent)
    assert (found.type, found.id) == ("", b"")
    assert found.notes == {name: said.decode() for name, said in sent}


def test_a_header_that_somebody_added_on_the_way_becomes_a_note() -> None:
    headers = [*Writer().headers(FULL), ("x-gateway", b"eu-1")]
    found = Reader().message(b"o-1", b"{}", headers)
    assert found.notes == {"replay": "r1", "x-gateway": "eu-1"}
    assert found.id == FULL.id


NAMES = st.one_of(TEXT, st.sampled_from([*dict(Writer().headers(FULL, Origin(12, 3))),
                                         "penstock-at", "penstock-sourceless"]))  # fmt: skip
SAID = st.one_of(
    st.none(), st.binary(max_size=8),
    st.sampled_from((b"00", b"a.b/1", b"a.b/-9223372036854775809", b"9" * 19,
                     b"2026-11-25T08:00:00Z", b"0001-01-01T00:00:00+23:59")),
)  # fmt: skip


@given(st.one_of(st.none(), st.binary(max_size=8)), st.one_of(st.none(), st.binary(max_size=8)),
       st.lists(st.tuples(NAMES, SAID), max_size=9))
@example(b"k", b"", [("penstock-schema", b"a.b/1"), ("ce_source", b""), ("penstock-at", b"9" * 20)])
def test_any_record_can_be_read_and_kept(
    key: bytes | None, value: bytes | None, headers: Headers
) -> None:
    found = Reader().message(key, value, headers)
    json.dumps(found.key)
    assert "\0" not in found.key
    found.key.encode()
    assert message_of(message_bytes(found)) == found
