"""A verdict says what decoding does: readable is readable, whatever the value, and means the same.

That its structure is Avro's is held against Avro's own checker elsewhere; here real classes read
what real classes wrote.
"""

from __future__ import annotations

import enum
from typing import Any

import avro.schema
import msgspec
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st

from penstock.contracts.avro import Schema, fingerprint, text
from penstock.contracts.avsc import parse
from penstock.contracts.derive import derive
from penstock.contracts.verdict import breaches
from penstock.errors import Problem
from tests.properties.shapes import Tree, edited, made, read_as, records
from tests.properties.values import plain, values_of


def meant(value: Any) -> Any:
    """A value as readers of other classes see it: enums are their symbols."""
    if isinstance(value, dict):
        return {key: meant(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [meant(inner) for inner in value]
    return value.value if isinstance(value, enum.Enum) else value


def derived(model: type) -> Schema:
    """The schema of a class that a contract takes."""
    try:
        return derive(model)
    except Problem:
        reject()


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.data())
def test_what_the_verdict_calls_readable_is_read_and_means_the_same(data: Any) -> None:
    old: Tree = data.draw(records)
    new: Tree = data.draw(edited(old))
    writer, reader = made(old), made(new)
    assume(not breaches(derived(writer), derived(reader)))
    for _ in range(3):
        value = data.draw(values_of(writer))
        read = msgspec.json.decode(msgspec.json.encode(value), type=reader)
        assert meant(plain(read)) == read_as(old, new, meant(plain(value)))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(records)
def test_the_schema_of_any_class_is_written_and_read_back(tree: Tree) -> None:
    schema = derived(made(tree))
    again = parse(text(schema).encode())
    assert again == schema
    assert fingerprint(again) == fingerprint(schema)
    assert breaches(schema, schema) == ()
    avro.schema.parse(text(schema))
