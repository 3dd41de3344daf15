"""Contracts: what is sealed opens as it was, of every version, and entrances read it alike."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.contracts.contract import Contract
from penstock.contracts.own import OWN
from penstock.contracts.strict import strict_json, strict_value
from penstock.contracts.wire import Book
from penstock.errors import Malformed, UnknownSchema
from penstock.flows.orders import FLOW
from penstock.limits import VALUE_BYTES_MAX
from tests.properties.values import plain, values_of

CONTRACTS = (*OWN, *FLOW.contracts)
BOOK = Book(FLOW.contracts)


def titled(contract: Contract) -> str:
    """A contract as a test's id."""
    return contract.type


@pytest.mark.parametrize("contract", CONTRACTS, ids=titled)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.data())
def test_any_value_that_is_sealed_opens_as_it_was(contract: Contract, data: Any) -> None:
    value = data.draw(values_of(contract.model))
    type_, version, raw = BOOK.seal_as(contract.type, value)
    assert (type_, version) == (contract.type, contract.version)
    assert plain(BOOK.open(type_, version, raw)) == plain(value)
    assert plain(strict_json(raw, contract.model, limit_bytes=VALUE_BYTES_MAX)) == plain(value)
    assert strict_value(raw) == json.loads(raw)


@pytest.mark.parametrize("contract", [c for c in CONTRACTS if c.older], ids=titled)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_any_value_of_an_older_version_opens_as_the_class_of_today(
    contract: Contract, data: Any
) -> None:
    for at, older in enumerate(contract.older):
        value = data.draw(values_of(older.model))
        raw = msgspec.json.encode(value)
        wanted = value
        for step in contract.older[at:]:
            wanted = step.upcast(wanted)
        opened = BOOK.open(contract.type, older.version, raw)
        assert type(opened) is contract.model
        assert plain(opened) == plain(wanted)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.sampled_from(CONTRACTS), st.data())
def test_damaged_bytes_open_as_the_class_or_are_malformed(contract: Contract, data: Any) -> None:
    """Any one byte changed, left out or put in: never another error, never another class."""
    raw = bytearray(BOOK.seal_as(contract.type, data.draw(values_of(contract.model)))[2])
    at, byte = data.draw(st.integers(0, len(raw) - 1)), data.draw(st.integers(0, 255))
    match data.draw(st.sampled_from(("change", "drop", "insert", "cut"))):
        case "change":
            raw[at] = byte
        case "drop":
            del raw[at]
        case "insert":
            raw.insert(at, byte)
        case "cut":
            del raw[at:]
    version = data.draw(st.sampled_from([o.version for o in contract.older] + [contract.version]))
    with suppress(Malformed):
        assert type(BOOK.open(contract.type, version, bytes(raw))) is contract.model


@given(st.text(max_size=20) | st.integers() | st.none(), st.integers() | st.text(max_size=3))
def test_any_reference_is_known_or_unknown_or_malformed(type_: Any, version: Any) -> None:
    with suppress(Malformed, UnknownSchema):
        assert callable(BOOK.opener(type_, version))
