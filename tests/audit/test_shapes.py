"""The second reading of the contracts agrees with the snapshots, and knows what does not fit."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from penstock.sim.audit.books import Books
from penstock.sim.audit.shapes import Unusable, shape_of


def line(type_: Any, **more: Any) -> dict[str, Any]:
    """A record with one field of a type."""
    return {"type": "record", "name": "R", "fields": [{"name": "f", "type": type_, **more}]}


TREE = {
    "type": "record", "name": "Tree", "namespace": "n",
    "fields": [
        {"name": "leaf", "type": {"type": "enum", "name": "Leaf", "symbols": ["A"]}},
        {"name": "inner", "type": {"type": "array", "items": "Tree"}},
        {"name": "same", "type": ["null", "n.Leaf"], "default": None},
    ],
}  # fmt: skip
STAMP = {"type": "long", "logicalType": "timestamp-millis"}
FITS = [
    (line("string"), {"f": "x", "unknown": 1}),
    (line("string", default=""), {}),
    (line(["null", "long"]), {"f": None}),
    (line("double"), {"f": 1}),
    (line("bytes"), {"f": "eHh4"}),
    (line({"type": "bytes", "json": "any"}), {"f": [1, {}]}),
    (line({"type": "fixed", "name": "F", "size": 3}), {"f": "eHh4"}),
    (line({"type": "map", "values": "int"}), {"f": {"a": 1}}),
    (line(STAMP), {"f": "2026-01-05T10:30:00.5Z"}),
    (line({**STAMP, "json": "number"}), {"f": 1767600000000}),
    (line({"type": "int", "logicalType": "date"}), {"f": "2026-01-05"}),
    (line({"type": "string", "logicalType": "uuid"}), {"f": f"{1:032x}"}),
    (line({"type": "bytes", "logicalType": "decimal", "precision": 4}), {"f": "12.5"}),
    (TREE, {"leaf": "A", "inner": [{"leaf": "A", "inner": []}]}),
    ("string", "alone"),
]  # fmt: skip
DOES_NOT = [
    (line("string"), {}, "f is missing"),
    (line("string"), {"f": 1}, "f: it is no str"),
    (line("string"), [], "it is no object"),
    (line("long"), {"f": 1 << 63}, "f: it is no long"),
    (line("int"), {"f": True}, "f: it is no int"),
    (line("long"), {"f": 1.0}, "f: it is no long"),
    (line("boolean"), {"f": 0}, "f: it is no bool"),
    (line("bytes"), {"f": "x"}, "f: it is no base64"),
    (line({"type": "fixed", "name": "F", "size": 4}), {"f": "eHh4"}, "f: it has not 4 bytes"),
    (line(["null", "long"]), {"f": "1"}, "f: it is no long"),
    (line({"type": "map", "values": "int"}), {"f": {"a": "1"}}, "f: {a}: it is no int"),
    (line(STAMP), {"f": 1767600000000}, "f: it is no timestamp-millis"),
    (line({**STAMP, "json": "number"}), {"f": "2026-01-05T10:30:00Z"}, "f: it is no long"),
    (TREE, {"leaf": "A", "inner": [{"leaf": "B", "inner": []}]}, "inner: [0]: leaf: it is none"),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "value"), FITS)
def test_what_fits(schema: Any, value: Any) -> None:
    assert shape_of(schema)(value) == ""


@pytest.mark.parametrize(("schema", "value", "why"), DOES_NOT)
def test_what_does_not_fit_says_where(schema: Any, value: Any, why: str) -> None:
    assert shape_of(schema)(value).startswith(why)


@pytest.mark.parametrize(
    "schema", [None, 7, {}, "other", ["null", "int", "long"], line("Missing"), {"type": "weird"}]
)
def test_a_schema_that_is_none_is_refused(schema: Any) -> None:
    with pytest.raises(Unusable):
        shape_of(schema)


def test_every_value_of_a_life_fits_its_snapshot(clean: Books) -> None:
    assert clean.contracts is not None
    shapes = {name: shape_of(schema) for name, schema in clean.contracts.items()}
    seen = 0
    for topic in clean.topics.values():
        for fact in topic:
            if fact.type and fact.source != "foreign":
                check = shapes[f"{fact.type}/{fact.version}"]
                assert check(msgspec.json.decode(fact.value)) == ""
                seen += 1
    assert seen > 100
