"""Avro's binary form: any value of any contract comes back as the JSON it was written as."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from io import BytesIO
from typing import Annotated, Any
from uuid import UUID

import fastavro
import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from penstock.contracts.avro import render
from penstock.contracts.binary import Codec, prefixed, schema_id, stable_id, written
from penstock.contracts.contract import Contract
from penstock.contracts.derive import derive, record_name
from penstock.contracts.own import OWN
from penstock.errors import Malformed, Problem
from penstock.flows.orders import FLOW
from tests.properties.shapes import made, records
from tests.properties.values import plain, values_of

CONTRACTS = (*OWN, *FLOW.contracts)


def codec(contract: Contract) -> Codec:
    return Codec(derive(contract.model, record_name(contract.type)))


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda c: c.type)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(st.data())
def test_any_value_of_a_contract_comes_back_to_the_byte(contract: Contract, data: Any) -> None:
    raw = msgspec.json.encode(data.draw(values_of(contract.model)))
    both = codec(contract)
    assert both.read(both.write(raw)) == raw


@settings(max_examples=100, deadline=None, derandomize=True)
@given(records, st.data())
def test_any_value_of_any_class_opens_as_it_was(tree: Any, data: Any) -> None:
    model = made(tree)
    value = data.draw(values_of(model))
    try:
        schema = derive(model)
    except Problem:  # what has no place in a contract
        assume(False)
    raw, both = msgspec.json.encode(value), Codec(schema)
    try:
        body = both.write(raw)
    except Malformed as error:  # a number or a decimal that Avro has no room for
        assume("does not fit" not in str(error))
        raise
    back = msgspec.json.decode(both.read(body), type=model)
    assert plain(back) == plain(value) or "float32" in str(tree)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.binary(max_size=60))
def test_bytes_that_are_no_value_are_refused(raw: bytes) -> None:
    both = codec(next(c for c in FLOW.contracts if c.type == "order.placed"))
    try:
        both.read(raw)
    except Malformed:
        return


class Sent(msgspec.Struct, kw_only=True):
    """One of each kind that JSON spells in its own way."""

    at: dt.datetime
    day: dt.date
    hour: dt.time
    id: UUID
    price: Annotated[Decimal, msgspec.Meta(extra={"precision": 12, "scale": 2})]
    body: bytes
    any: msgspec.Raw


def test_another_program_reads_what_was_written() -> None:
    schema = derive(Sent)
    raw = (
        b'{"at":"2026-11-25T08:09:39.169001Z","day":"2026-11-25","hour":"08:09:39",'
        b'"id":"00000000-0000-0000-0000-000000000001","price":"12.30","body":"/w==",'
        b'"any":{"n":1.50}}'
    )
    body = Codec(schema).write(raw)
    theirs = fastavro.schemaless_reader(BytesIO(body), fastavro.parse_schema(render(schema)), None)
    assert isinstance(theirs, dict)
    assert theirs["at"] == dt.datetime(2026, 11, 25, 8, 9, 39, 169001, dt.UTC)
    assert (theirs["day"], theirs["price"]) == (dt.date(2026, 11, 25), Decimal("12.30"))
    assert (theirs["body"], theirs["any"]) == (b"\xff", b'{"n":1.50}')
    assert Codec(schema).read(body) == raw


def test_a_moment_comes_back_in_utc() -> None:
    class Seen(msgspec.Struct):
        at: dt.datetime

    both = Codec(derive(Seen))
    assert both.read(both.write(b'{"at":"2026-11-25T10:00:00+02:00"}')) == (
        b'{"at":"2026-11-25T08:00:00Z"}'
    )


def test_a_decimal_keeps_all_its_digits() -> None:
    class Sold(msgspec.Struct):
        price: Annotated[Decimal, msgspec.Meta(extra={"precision": 40, "scale": 2})]

    both = Codec(derive(Sold))
    raw = b'{"price":"12345678901234567890123456789012345678.01"}'
    assert both.read(both.write(raw)) == raw


def test_what_an_older_writer_left_out_has_the_readers_default() -> None:
    class Old(msgspec.Struct):
        a: int

    class New(msgspec.Struct):
        a: int
        b: str = "none"

    old = derive(Old, "Seen")
    body = Codec(old).write(b'{"a":1}')
    assert Codec(derive(New, "Seen")).read(body, written(render(old))) == b'{"a":1,"b":"none"}'


def test_a_value_that_does_not_fit_is_refused() -> None:
    class Seen(msgspec.Struct):
        n: int

    both = Codec(derive(Seen))
    for raw in (b'{"n":"x"}', b"{}", b"[]", b'{"n":9223372036854775808}'):
        with pytest.raises(Malformed, match="does not fit"):
            both.write(raw)


class Tree(msgspec.Struct):
    """Refers to itself."""

    children: list[Tree] = []


def test_a_contract_that_refers_to_itself_stays_in_json() -> None:
    with pytest.raises(Problem, match="refers to itself"):
        Codec(derive(Tree))


def test_a_value_begins_with_the_id_of_its_schema() -> None:
    id_ = stable_id(derive(Tree))
    assert 0 <= id_ < 1 << 31
    assert prefixed(id_, b"x")[5:] == b"x"
    assert schema_id(prefixed(id_, b"")) == id_
    assert schema_id(b'{"a":1}') is None
    assert schema_id(b"\x00ab") is None
