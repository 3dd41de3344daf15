"""Schemas: read, written, fingerprinted, and derived from typed classes."""

from __future__ import annotations

import datetime as dt
import enum
import json
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

import avro.schema
import pytest
from hypothesis import given
from msgspec import Meta, Raw, Struct

from penstock.contracts.avro import fingerprint, render, text
from penstock.contracts.avsc import parse, parse_value
from penstock.contracts.changes import changes
from penstock.contracts.contract import Contract
from penstock.contracts.derive import derive, schema_of
from penstock.contracts.own import OWN
from penstock.contracts.snapshot import OWN_FOLDER, verify
from penstock.errors import Problem
from tests.unit.test_contracts_verdict import trees, written

Millis = Annotated[int, Meta(extra={"logicalType": "timestamp-millis"})]


class Kind(enum.Enum):
    """What a line is."""

    item = "item"
    carriage = "carriage"
    other = "other"

    @classmethod
    def _missing_(cls, value: object) -> Kind:
        return cls.other


class LineV2(Struct, frozen=True, kw_only=True):
    """One line."""

    sku: str
    qty: Annotated[int, Meta(description="Pieces.", extra={"unit": "piece"})] = 1
    kind: Kind = Kind.item


class Order(Struct, frozen=True, kw_only=True):
    placed_at: Millis
    seen: dt.datetime
    day: dt.date | None = None
    lines: tuple[LineV2, ...] = ()
    gifts: list[LineV2] = []
    email: Annotated[str | None, Meta(extra={"pii": "contact"})] = None
    channel: Literal["web", "shop"] = "web"
    labels: dict[str, str] = {}
    size: Annotated[int, Meta(extra={"avro": "int"})] = 3
    weight: float = 0.5
    total: Annotated[Decimal, Meta(extra={"precision": 9, "scale": 2})] = Decimal("1.50")
    ref: UUID = UUID(int=0)
    proof: bytes = b"\xff"
    body: Raw = Raw(b"null")
    parent: Order | None = None


def by_name(schema: Any) -> dict[str, Any]:
    return {f["name"]: f for f in render(schema)["fields"]}


def test_a_class_says_its_schema() -> None:
    fields = by_name(derive(Order))
    types = {name: f["type"] for name, f in fields.items()}
    assert types["placed_at"] == {
        "type": "long", "logicalType": "timestamp-millis", "json": "number",
    }  # fmt: skip
    assert types["seen"] == {"type": "long", "logicalType": "timestamp-micros"}
    assert types["day"] == ["null", {"type": "int", "logicalType": "date"}]
    assert types["lines"]["items"]["name"] == "Line"
    assert types["gifts"] == {"type": "array", "items": "Line"}
    assert types["channel"] == {
        "type": "enum", "name": "OrderChannel", "symbols": ["shop", "web"],
    }  # fmt: skip
    assert (types["size"], types["weight"], types["parent"]) == ("int", "double", ["null", "Order"])
    assert types["body"] == {"type": "bytes", "json": "any"}
    assert fields["email"]["pii"] == "contact"
    assert "default" not in fields["placed_at"]
    assert fields["proof"]["default"] == "\xff"
    assert fields["total"]["default"] == "\x00\x96"  # 150 as two's complement
    assert fields["day"]["default"] is None


def test_an_enum_s_missing_gives_the_default_for_unknown_symbols() -> None:
    sku, qty, kind = by_name(derive(Order))["lines"]["type"]["items"]["fields"]
    assert kind["type"]["default"] == "other"
    assert (kind["default"], qty["unit"], qty["doc"]) == ("item", "piece", "Pieces.")
    assert "default" not in sku


def test_what_is_derived_is_read_back_and_avro_reads_it_too() -> None:
    schema = derive(Order)
    assert parse(text(schema).encode()) == schema
    assert text(derive(Order)) == text(schema)
    assert avro.schema.parse(text(schema)).name == "Order"


def test_the_record_is_called_after_the_event_type() -> None:
    contract = Contract(type="order.cancel_requested", version=1, model=LineV2)
    assert render(schema_of(contract))["name"] == "OrderCancelRequested"


class Omitting(Struct, omit_defaults=True):
    a: int = 0


class Closed(Struct, forbid_unknown_fields=True):
    a: int


class Rowlike(Struct, array_like=True):
    a: int


class Either(Struct):
    a: int | str


class Anything(Struct):
    a: list[Any]


class Keyed(Struct):
    a: dict[int, str]


class Spaced(Struct):
    a: Literal["two words"]


class Priced(Struct):
    a: Decimal


class Dated(Struct):
    a: Annotated[str, Meta(extra={"logicalType": "date"})]


class Nested(Struct):
    rows: list[Either]


@pytest.mark.parametrize(
    ("model", "path"),
    [
        (Omitting, ""),
        (Closed, ""),
        (Rowlike, ""),
        (Either, "a"),
        (Anything, "a[]"),
        (Keyed, "a"),
        (Spaced, "a"),
        (Priced, "a"),
        (Dated, "a"),
        (Nested, "rows[].a"),
    ],
)
def test_a_class_that_is_no_contract_is_refused_by_field(model: type, path: str) -> None:
    with pytest.raises(Problem, match=model.__name__) as caught:
        derive(model)
    assert (caught.value.code, caught.value.field) == ("contract_class", path)


def record(*fields: Any, **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": "R", "fields": list(fields), **more}


def test_the_fingerprint_is_of_the_shape() -> None:
    plain = record({"name": "a", "type": "long", "default": 1})
    shape = fingerprint(parse_value(plain))
    described = record(
        {"name": "a", "type": "long", "default": 1, "doc": "x", "pii": True}, doc="d"
    )
    assert fingerprint(parse_value(described)) == shape
    others = [
        record({"name": "a", "type": "long"}),
        record({"name": "a", "type": "long", "default": 2}),
        record({"name": "a", "type": "long", "default": 1, "aliases": ["b"]}),
        record({"name": "a", "type": "long", "default": 1, "unit": "ms"}),
        record(
            {
                "name": "a",
                "type": {"type": "long", "logicalType": "timestamp-millis"},
                "default": 1,
            }
        ),
    ]
    assert len({shape, *(fingerprint(parse_value(o)) for o in others)}) == 6


def test_namespaces_are_resolved_and_written_as_short_as_they_go() -> None:
    inner = {"type": "fixed", "name": "other.F", "size": 2}
    again = {"name": "b", "type": "other.F"}
    schema = parse_value(record({"name": "a", "type": inner}, again, namespace="shop"))
    assert set(schema.named) == {"shop.R", "other.F"}
    assert parse(text(schema).encode()) == schema
    assert avro.schema.parse(text(schema)).fullname == "shop.R"


DEEP: Any = "int"
for _ in range(40):
    DEEP = {"type": "array", "items": DEEP}


@pytest.mark.parametrize(
    ("type_", "path", "says"),
    [
        ("strin", "f", "no type known"),
        (["int", "string"], "f", "null and one other"),
        (["null", "int", "string"], "f", "null and one other"),
        ({"type": "array"}, "f", "'items' is missing"),
        ({"type": "array", "items": {"type": "map", "values": "x"}}, "f[]{}", "no type known"),
        ({"type": "enum", "name": "E", "symbols": ["a", "a"]}, "f", "twice"),
        ({"type": "enum", "name": "E", "symbols": ["a b"]}, "f", "no name"),
        ({"type": "enum", "name": "E", "symbols": ["a"], "default": "b"}, "f", "none of its"),
        ({"type": "fixed", "name": "F", "size": 0}, "f", "whole number from 1"),
        ({"type": "fixed", "name": "1F", "size": 1}, "f", "no name for a type"),
        ({"type": "long", "logicalType": "date"}, "f", "date cannot sit on long"),
        ({"type": "long", "logicalType": "moon"}, "f", "unknown"),
        ({"type": "bytes", "logicalType": "decimal", "precision": 2, "scale": 3}, "f", "above"),
        ({"type": "fixed", "name": "F", "size": 2, "logicalType": "decimal", "precision": 9},
         "f", "hold 4 digits"),
        ({"type": {"type": "int"}}, "f", "inside a type"),
        ({"type": "record", "name": "R", "fields": []}, "f", "defined twice"),
        (7, "f", "a type is a name"),
        (DEEP, "f" + "[]" * 32, "nested more than"),
    ],
)  # fmt: skip
def test_a_schema_that_is_none_is_refused_at_its_path(type_: Any, path: str, says: str) -> None:
    with pytest.raises(Problem, match=says) as caught:
        parse_value(record({"name": "f", "type": type_}), "v1.avsc")
    assert caught.value.field == path
    assert str(caught.value).startswith(f"v1.avsc: {path}: ")


@pytest.mark.parametrize(
    ("type_", "default"),
    [
        ("int", 1 << 31),
        ("int", True),
        ("string", None),
        (["null", "int"], 1),
        ("bytes", "\u0100"),
        (["int", "null"], None),
        ({"type": "array", "items": "int"}, ["1"]),
    ],
)
def test_a_default_of_another_type_is_refused(type_: Any, default: Any) -> None:
    with pytest.raises(Problem, match="default"):
        parse_value(record({"name": "f", "type": type_, "default": default}))


@pytest.mark.parametrize("raw", [b"", b"{", b'{"type":"int","type":"long"}', b"\xff", b"NaN"])
def test_a_file_that_is_no_strict_json_is_refused(raw: bytes) -> None:
    with pytest.raises(Problem, match=r"v9\.avsc"):
        parse(raw, "v9.avsc")


@given(trees)
def test_every_schema_is_written_as_it_was_read(tree: Any) -> None:
    schema = parse_value(written(tree))
    assert parse(text(schema).encode()) == schema
    assert avro.schema.parse(json.dumps(render(schema)))
    assert changes(schema, schema) == []


def test_the_engine_s_own_classes_equal_their_committed_snapshots() -> None:
    verify(OWN, OWN_FOLDER)
