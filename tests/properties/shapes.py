"""Classes made of trees, so that a class can be changed a little as an edit would change it.

A tree is a tuple: its kind and what is in it. ``made`` turns it into a Python type of the kinds
that contracts know, and ``read_as`` says what a value of one tree is, read as another one.
"""

from __future__ import annotations

import datetime as dt
import enum
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from hypothesis import strategies as st
from msgspec import Meta

Tree = tuple[Any, ...]
Millis = Annotated[int, Meta(extra={"logicalType": "timestamp-millis"})]
SCALARS: dict[str, Any] = {
    "str": str, "bool": bool, "bytes": bytes, "float": float, "int": int,
    "int32": Annotated[int, Meta(extra={"avro": "int"})],
    "float32": Annotated[float, Meta(extra={"avro": "float"})],
    "seconds": Annotated[int, Meta(extra={"unit": "s"})], "millis": Millis,
    "datetime": dt.datetime, "date": dt.date, "time": dt.time, "uuid": UUID,
    "pence": Annotated[Decimal, Meta(extra={"precision": 12, "scale": 2})],
    "mills": Annotated[Decimal, Meta(extra={"precision": 12, "scale": 3})],
    "raw": msgspec.Raw,
}  # fmt: skip
ALIKE = (("int", "int32", "float", "float32", "seconds", "millis"), ("pence", "mills"),
         ("str", "uuid", "datetime", "date", "time"))  # as JSON
DEFAULTS = {"str": "", "bool": True, "float": 1.5, "int": 3, "int32": 4, "bytes": b"\xff"}

_scalars = st.sampled_from([(kind,) for kind in SCALARS])
_symbols = st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True)
_enums = st.tuples(st.just("enum"), _symbols.map(tuple), st.booleans())
_names = st.tuples(st.sampled_from("pqrst"), st.booleans())


def _grow(inner: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    fields = st.lists(st.tuples(_names, inner), max_size=4, unique_by=lambda f: f[0][0])
    return (
        st.tuples(st.just("list"), inner)
        | st.tuples(st.just("map"), inner)
        | inner.map(lambda t: t if t[0] in ("null", "raw") else ("null", t))
        | st.tuples(st.just("record"), fields.map(tuple))
    )


_inner = st.recursive(_scalars | _enums, _grow, max_leaves=6)
records = st.lists(
    st.tuples(_names, _inner), min_size=1, max_size=4, unique_by=lambda f: f[0][0]
).map(lambda fields: ("record", tuple(fields)))


@st.composite
def edited(draw: Any, tree: Tree) -> Tree:
    """The tree after somebody worked on it."""
    match tree:
        case ("enum", symbols, _):
            return ("enum", draw(st.sampled_from([symbols, tuple(draw(_symbols))])),
                    draw(st.booleans()))
        case ("list" | "map" as kind, inner):
            return (kind, draw(edited(inner)))
        case ("null", inner):
            changed = draw(edited(inner))
            free = draw(st.booleans()) and changed[0] not in ("null", "raw")
            return ("null", changed) if free else changed
        case ("record", fields):
            kept = [(f, draw(edited(t))) for f, t in fields if draw(st.integers(0, 5))]
            free = [c for c in "pqrst" if c not in {f[0] for f, _ in kept}]
            if free and draw(st.booleans()):
                kept.append(((free[0], draw(st.booleans())), draw(_inner)))
            return ("record", tuple(kept))
    alike = next((kinds for kinds in ALIKE if tree[0] in kinds), (tree[0],))
    changes = [tree, tree, tree, (draw(st.sampled_from(alike)),), draw(_scalars)]
    return draw(st.sampled_from([*changes, ("null", tree)] if tree != ("raw",) else changes))


def made(tree: Tree, path: str = "T") -> Any:
    """The tree as a type; classes are called after their place, so that places match."""
    match tree:
        case ("enum", symbols, True):
            return _with_default(f"{path}E", symbols)
        case ("enum", symbols, _):
            return Literal[symbols]
        case ("list", inner):
            return list[made(inner, f"{path}i")]  # type: ignore[misc]
        case ("map", inner):
            return dict[str, made(inner, f"{path}v")]  # type: ignore[misc]
        case ("null", inner):
            return made(inner, path) | None
        case ("record", fields):
            rows = [_row(name, default, inner, path) for (name, default), inner in fields]
            return msgspec.defstruct(f"{path}R", rows, frozen=True, kw_only=True)
    return SCALARS[tree[0]]


def _with_default(name: str, symbols: tuple[str, ...]) -> Any:
    cls: Any = enum.Enum(name, {symbol: symbol for symbol in symbols})
    cls._missing_ = classmethod(lambda c, value: c(symbols[0]))
    return cls


def _row(name: str, default: bool, inner: Tree, path: str) -> tuple[Any, ...]:
    type_ = made(inner, path + name)
    if not default:
        return name, type_
    if inner[0] == "list":
        return name, type_, msgspec.field(default_factory=list)
    if inner[0] == "map":
        return name, type_, msgspec.field(default_factory=dict)
    if inner[0] == "null":
        return name, type_, None
    return (name, type_, DEFAULTS[inner[0]]) if inner[0] in DEFAULTS else (name, type_)


def read_as(old: Tree, new: Tree, value: Any) -> Any:
    """What a (plain) value of the old tree must be as one of the new."""
    if value is None and old[0] in ("null", "raw"):
        return None
    old = old[1] if old[0] == "null" else old
    new = new[1] if new[0] == "null" else new
    match new:
        case ("enum", symbols, _):
            return value if value in symbols else symbols[0]
        case ("list", inner):
            return [read_as(old[1], inner, item) for item in value]
        case ("map", inner):
            return {key: read_as(old[1], inner, item) for key, item in value.items()}
        case ("record", fields):
            before = {name: tree for (name, _), tree in old[1]}
            return {
                name: read_as(before[name], inner, value[name]) if name in before
                else _default(inner)
                for (name, _), inner in fields
            }
    assert means(old) == means(new), f"{old[0]} read as {new[0]} is another thing"
    return float(value) if new[0] in ("float", "float32") else value


def means(tree: Tree) -> str:
    """What a scalar is about: numbers without a unit or a logical type are just numbers."""
    return "number" if tree[0] in ("int", "int32", "float", "float32") else tree[0]


def _default(tree: Tree) -> Any:
    return {"list": [], "map": {}, "null": None, **DEFAULTS}[tree[0]]
