"""The auditor's reading of Kafka records agrees with the writer and with the engine's reader, takes
any bytes, and notices when a second look sees others."""

from __future__ import annotations

from typing import Any

import msgspec
from confluent_kafka import Message as Raw
from hypothesis import assume, given
from hypothesis import strategies as st

from penstock.engine.unit import admitted
from penstock.event import Message, Origin, Record
from penstock.log.kafka_headers import Reader, Writer
from penstock.sim.audit import decode
from penstock.sim.audit.books import Flaw
from penstock.sim.audit.topics import Topics, fact_of

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
NAMES = st.sampled_from(
    ["ce_id", "ce_source", "ce_time", "ce_type", "ce_specversion", "content-type", "traceparent",
     "penstock-schema", "penstock-origin", "penstock-at", "penstock-sourceless",
     "penstock-note-a%25b", "x"]
)  # fmt: skip
SAID = st.binary(max_size=8) | st.sampled_from(
    [b"01" * 16, b"a.b/1", b"2026-11-25T08:09:39.169Z", b"ff-3.4", b"-5.6", b"/", b"7", b""]
)
MESSAGES = st.builds(
    Message, key=TEXT, value=st.binary(), id=st.binary(max_size=16), type=TEXT,
    version=st.integers(0, 1 << 31), at=st.integers(0, 1 << 44), cause=st.binary(max_size=16),
    trace=TEXT, source=TEXT, notes=st.none() | st.dictionaries(TEXT, TEXT, min_size=1, max_size=3),
)  # fmt: skip
ORIGINS = st.none() | st.builds(Origin, st.integers(1, 1 << 40), st.integers(1, 1 << 20))


def raw_of(key: bytes | None, value: bytes | None, headers: Any) -> Raw:
    """A record as the client hands it over."""
    return Raw(
        topic="p-loans", partition=2, offset=7, key=key, value=value, headers=list(headers),
        timestamp=(2, 1_767_600_000_000),
    )


@given(MESSAGES, ORIGINS)
def test_what_is_written_is_read(message: Message, origin: Origin | None) -> None:
    headers = Writer().headers(message, origin)
    fact = fact_of("loans", raw_of(message.key.encode(), message.value, headers))
    engine = Reader().message(message.key.encode(), message.value, headers)
    assert fact.content == msgspec.structs.astuple(engine)
    assert fact[:6] == ("loans", 2, 7, 1_767_600_000_000, 0, 0)
    if engine == message:  # it does not look like somebody else's
        assert fact.origin == origin or not origin


@given(
    st.none() | st.binary(max_size=9), st.none() | st.binary(max_size=9),
    st.lists(st.tuples(NAMES, SAID), max_size=9),
)
def test_whatever_lies_there_is_read_as_the_engine_reads_it(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]
) -> None:
    assume(len(headers) != 8)  # as many as ours have: the engine then looks less closely
    fact = fact_of("loans", raw_of(key, value, headers))
    assert fact.content == msgspec.structs.astuple(Reader().message(key, value, headers))


@given(TEXT, st.dictionaries(NAMES, TEXT, max_size=4))
def test_a_record_of_others_is_let_in_as_the_engine_lets_it_in(
    key: str, notes: dict[str, str]
) -> None:
    accepts = {"loans": ("loan.requested", 2)}
    message = Message(key, b"{}", notes=notes or None)
    record = admitted(accepts, Record("loans", 2, 7, 1_767_600_000_000, message))
    fact = fact_of("loans", raw_of(key.encode(), b"{}", ()))._replace(notes=notes or None)
    assert decode.admitted(fact, accepts).content == msgspec.structs.astuple(record.message)


def test_other_bytes_at_a_second_look_are_told() -> None:
    flaws: list[Flaw] = []
    topics = Topics({}, "p-", flaws, {})
    topics._taken("loans", raw_of(b"k", b"one", [("x", b"1")]))
    topics._look_again("loans", raw_of(b"k", b"one", [("x", b"1")]))
    assert not flaws
    for changed in (raw_of(b"k", b"two", [("x", b"1")]), raw_of(b"k", b"one", [("x", b"2")])):
        topics._look_again("loans", changed)
    assert [(flaw.rule, flaw.records) for flaw in flaws] == [("I19", ("loans[2]@7",))] * 2
    assert topics.examined["I19"] == 3
