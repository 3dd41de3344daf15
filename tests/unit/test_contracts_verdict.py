"""Verdicts: agreed with Avro's own checker on structure, and stricter where it is blind."""

from __future__ import annotations

import json
from typing import Any

import avro.compatibility
import avro.schema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.contracts.avsc import parse_value
from penstock.contracts.verdict import advice, breaches, judge, rollout

Json = Any


def order(*fields: Json) -> Json:
    return {"type": "record", "name": "Order", "fields": list(fields)}


def field(name: str, type: Json, **more: Json) -> Json:
    return {"name": name, "type": type, **more}


def enum(*symbols: str, **more: Json) -> Json:
    return {"type": "enum", "name": "Kind", "symbols": list(symbols), **more}


def logical(type: str, name: str, **more: Json) -> Json:
    return {"type": type, "logicalType": name, **more}


def found(writer: Json, reader: Json, **how: Any) -> list[tuple[str, str]]:
    broken = breaches(parse_value(writer), parse_value(reader), **how)
    return [(b.code, b.path) for b in broken]


MILLIS = logical("long", "timestamp-millis")
NUMBER = {**MILLIS, "json": "number"}
MEANING = [
    (logical("bytes", "decimal", precision=9, scale=2),
     logical("bytes", "decimal", precision=9, scale=3)),
    (MILLIS, logical("long", "timestamp-micros")),
    ("long", MILLIS),
    (MILLIS, "long"),
    ("int", logical("int", "date")),
    ("string", logical("string", "uuid")),
    (logical("int", "date"), "long"),
]  # fmt: skip


@pytest.mark.parametrize(("writer", "reader"), MEANING)
@pytest.mark.parametrize("wire", ["json", "avro"])
def test_a_change_of_meaning_that_avro_takes_is_caught(
    writer: Json, reader: Json, wire: Any
) -> None:
    w, r = order(field("at", writer)), order(field("at", reader))
    assert found(w, r, wire=wire) == [("logical_type_changed", "at")]
    assert avro_takes(w, r)


def test_units_and_json_forms_are_part_of_the_meaning() -> None:
    assert found(
        order(field("wait", "long", unit="ms")), order(field("wait", "long", unit="s"))
    ) == [("unit_changed", "wait")]
    assert found(order(field("at", MILLIS)), order(field("at", NUMBER))) == [
        ("json_form_changed", "at")
    ]


def line(*more: Json) -> Json:
    tax = {"type": "record", "name": "Tax", "fields": list(more)}
    row = {"type": "record", "name": "Line", "fields": [field("tax", ["null", tax])]}
    return order(field("lines", {"type": "array", "items": row}))


def test_all_breaches_come_at_once_with_named_paths() -> None:
    writer = line(field("rate", "double"), field("kind", enum("a", "b")), field("n", "string"))
    reader = line(
        field("rate", "long"), field("kind", enum("a")), field("n", "string"),
        field("code", "string"),
    )  # fmt: skip
    assert found(writer, reader) == [
        ("type_changed", "lines[].tax.rate"),
        ("symbol_unknown", "lines[].tax.kind"),
        ("default_missing", "lines[].tax.code"),
    ]


def test_a_breach_names_the_types_the_consumers_and_the_fix() -> None:
    w, r = parse_value(order(field("qty", "string"))), parse_value(order(field("qty", "long")))
    (breach,) = breaches(w, r, consumers=("payment", "stock"))
    assert (breach.writer, breach.reader) == ("string", "long")
    assert str(breach) == (
        "qty: the writer sends string, the reader takes long. Hit: payment, stock. "
        "Add a new field beside the old one, or register an upcast."
    )
    (forward,) = breaches(w, r, "forward")
    assert forward.fix.startswith("Keep sending the old field")


def test_json_knows_no_aliases_and_no_type_names() -> None:
    writer = order(field("ref", "string"))
    reader = {**order(field("reference", "string", default="", aliases=["ref"])), "name": "Other"}
    assert found(writer, reader) == [("field_renamed", "reference")]
    assert found(writer, reader, wire="avro") == [("name_changed", "")]
    assert found("bytes", "string") == [("type_changed", "")]
    assert found("bytes", "string", wire="avro") == []


@pytest.mark.parametrize(
    ("writer", "reader", "code"),
    [
        (["null", "string"], "string", "null_refused"),
        ("string", ["null", "string"], None),
        (["null", "string"], ["string", "null"], None),
        ("null", ["null", "string"], None),
        (enum("a", "b"), enum("a", default="a"), None),
        (enum("a"), enum("a", "b"), None),
        ("int", "double", None),
        ("long", "int", "type_changed"),
        ({"type": "map", "values": "int"}, {"type": "map", "values": "string"}, "type_changed"),
    ],
)
def test_the_rules_one_by_one(writer: Json, reader: Json, code: str | None) -> None:
    broken = found(order(field("f", writer)), order(field("f", reader)))
    assert [c for c, _ in broken] == ([code] if code else [])


def test_a_type_inside_itself_is_compared_once() -> None:
    def tree(value: Json) -> Json:
        kids = {"type": "array", "items": "Tree"}
        return {
            "type": "record",
            "name": "Tree",
            "fields": [field("value", value), field("kids", kids)],
        }

    assert found(tree("long"), tree("double")) == []
    assert found(tree("double"), tree("long")) == [("type_changed", "value")]


def test_types_shared_many_times_do_not_explode() -> None:
    def ladder(leaf: Json) -> Json:
        inner: Json = {"type": "record", "name": "R0", "fields": [field("x", leaf)]}
        for n in range(1, 25):
            both = [field("a", inner), field("b", f"R{n - 1}")]
            inner = {"type": "record", "name": f"R{n}", "fields": both}
        return inner

    assert found(ladder("long"), ladder("double")) == []
    assert len(found(ladder("double"), ladder("long"))) >= 1000


def test_levels_look_at_every_older_version_and_upcasts_mend_one_direction() -> None:
    one = parse_value(order(field("pounds", "double")))
    two = parse_value(order(field("pence", "long")))
    three = parse_value(order(field("pence", "long"), field("note", "string", default="")))
    verdicts = judge((3, three), [(1, one), (2, two)], "full", upcasts=[1])
    assert [(v.old, v.direction, v.passed, v.bridged) for v in verdicts] == [
        (1, "backward", True, True),
        (1, "forward", False, False),
        (2, "backward", True, False),
        (2, "forward", True, False),
    ]
    assert [v.passed for v in judge((3, three), [(1, one), (2, two)])] == [False, True]


def test_the_order_of_upgrades_follows_from_the_verdicts() -> None:
    said = {rollout(b, f) for b in (True, False) for f in (True, False)}
    assert len(said) == 4
    assert "consumer first" in rollout(True, False)


def test_advice_warns_of_what_will_hurt_later() -> None:
    schema = order(field("kind", enum("a")), field("n", "long", default=1 << 60))
    said = advice(parse_value(schema))
    assert any("Kind has no default" in s for s in said)
    assert any("2^53" in s for s in said)
    assert advice(parse_value(order(field("kind", enum("a", default="a"))))) == []


# --- Avro's own checker as the oracle, on structure ------------------------------------------


def avro_takes(writer: Json, reader: Json) -> bool:
    checker = avro.compatibility.ReaderWriterCompatibilityChecker()
    result = checker.get_compatibility(
        avro.schema.parse(json.dumps(reader)), avro.schema.parse(json.dumps(writer))
    )
    return bool(result.compatibility is avro.compatibility.SchemaCompatibilityType.compatible)


SCALARS = ("boolean", "int", "long", "float", "double", "bytes", "string")
_DEFAULTS = {"boolean": True, "float": 1.5, "double": 0.5, "bytes": "", "string": ""}
_plain = st.sampled_from([("scalar", kind) for kind in SCALARS])
_symbols = st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True)
_named = st.tuples(st.just("enum"), _symbols, st.booleans()) | st.tuples(
    st.just("fixed"), st.integers(4, 6)
)
_field = st.tuples(st.sampled_from("pqrs"), st.booleans())


def _grow(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    fields = st.lists(st.tuples(_field, inner), max_size=4, unique_by=lambda f: f[0][0])
    return (
        st.tuples(st.just("array"), inner)
        | st.tuples(st.just("map"), inner)
        | st.tuples(st.just("null"), inner.filter(lambda t: t[0] != "null"))
        | st.tuples(st.just("record"), fields, st.booleans())
    )


trees = st.recursive(_plain | _named, _grow, max_leaves=8)


def written(tree: Any, path: str = "T") -> Json:
    """A tree as a schema; named types are called after their place, so that places match."""
    match tree:
        case ("scalar", kind):
            return kind
        case ("enum", symbols, has_default):
            default = {"default": symbols[0]} if has_default else {}
            return {"type": "enum", "name": f"{path}E", "symbols": symbols, **default}
        case ("fixed", size):
            return {"type": "fixed", "name": f"{path}F", "size": size}
        case ("array", inner):
            return {"type": "array", "items": written(inner, f"{path}i")}
        case ("map", inner):
            return {"type": "map", "values": written(inner, f"{path}v")}
        case ("null", inner):
            return ["null", written(inner, path)]
        case ("record", fields, renamed):
            name = f"{path}Rx" if renamed else f"{path}R"
            aliases = {"aliases": [f"{path}R"]} if renamed else {}
            rows = [_row(f, inner, path) for f, inner in fields]
            return {"type": "record", "name": name, "fields": rows, **aliases}
    raise AssertionError(tree)


def _row(named: tuple[str, bool], inner: Any, path: str) -> Json:
    name, has_default = named
    row = field(name, written(inner, path + name))
    if has_default and inner[0] == "null":
        row["default"] = None
    elif has_default and inner[0] in ("array", "map"):
        row["default"] = [] if inner[0] == "array" else {}
    elif has_default and inner[0] == "scalar":
        row["default"] = _DEFAULTS.get(inner[1], 3)
    if name == "s":
        row["aliases"] = ["q_old", "r_old"]
    return row


@st.composite
def mutated(draw: Any, tree: Any) -> Any:
    """The tree with small changes here and there, as an edit would make them."""
    if draw(st.integers(0, 5)) == 0:
        return draw(trees)
    match tree:
        case ("scalar", _):
            return draw(st.sampled_from([tree, tree, draw(_plain), ("null", tree)]))
        case ("enum", symbols, _):
            return ("enum", draw(st.sampled_from([symbols, draw(_symbols)])), draw(st.booleans()))
        case ("array" | "map" as kind, inner):
            return (kind, draw(mutated(inner)))
        case ("null", inner):
            changed = draw(mutated(inner))
            keep = draw(st.booleans()) and changed[0] != "null"
            return ("null", changed) if keep else changed
        case ("record", fields, renamed):
            kept = [(f, draw(mutated(t))) for f, t in fields if draw(st.integers(0, 4))]
            free = [c for c in "pqrs" if c not in {f[0] for f, _ in kept}]
            if free and draw(st.booleans()):
                kept.append(((free[0], draw(st.booleans())), draw(trees)))
            return ("record", kept, renamed or draw(st.integers(0, 6)) == 0)
    return tree


@st.composite
def pairs(draw: Any) -> tuple[Json, Json]:
    tree = draw(trees)
    return written(tree), written(draw(mutated(tree)))


@settings(max_examples=400, deadline=None)
@given(pairs())
def test_on_structure_the_verdict_is_that_of_avro(pair: tuple[Json, Json]) -> None:
    writer, reader = pair
    ours = breaches(parse_value(writer), parse_value(reader), wire="avro")
    assert (not ours) == avro_takes(writer, reader)


@settings(max_examples=150, deadline=None)
@given(pairs())
def test_json_never_takes_what_avro_refuses_but_for_names(pair: tuple[Json, Json]) -> None:
    writer, reader = (parse_value(p) for p in pair)
    strict = breaches(writer, reader, wire="avro")
    if any(b.code != "name_changed" for b in strict):
        assert breaches(writer, reader)
