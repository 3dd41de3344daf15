"""The Avro schema language as frozen values, written back to ``.avsc`` and fingerprinted.

Unions are nullable types only (DESIGN section 5): ``Nullable``. A named type is written where it
is met first, and by its name from then on (``Named``). Three marks of our own say how a value
looks as JSON; other tools keep attributes they do not know:

    "json": "number"   a timestamp, date or time that is a JSON number, not RFC 3339 text
    "json": "any"      bytes that are any JSON value, embedded as it is
    "unit": "..."      what a number counts

All other attributes (``pii`` among them) are tags: kept, and no part of the shape.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any

from msgspec import Struct

SCALARS = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")
NAMED = ("record", "enum", "fixed")

# logical type -> the types it may sit on
LOGICAL: Mapping[str, tuple[str, ...]] = {
    "decimal": ("bytes", "fixed"),
    "big-decimal": ("bytes",),
    "uuid": ("string", "fixed"),
    "date": ("int",),
    "time-millis": ("int",),
    "time-micros": ("long",),
    "timestamp-millis": ("long",),
    "timestamp-micros": ("long",),
    "timestamp-nanos": ("long",),
    "local-timestamp-millis": ("long",),
    "local-timestamp-micros": ("long",),
    "local-timestamp-nanos": ("long",),
    "duration": ("fixed",),
}
FIXED_SIZES = {"uuid": 16, "duration": 12}


class Absent(Struct, frozen=True):
    """The field has no default (``None`` is the default null)."""


ABSENT = Absent()


class Logical(Struct, frozen=True):
    """What a value means beyond its bytes; precision and scale belong to ``decimal``."""

    name: str
    precision: int = 0
    scale: int = 0

    def __str__(self) -> str:
        return f"decimal({self.precision}, {self.scale})" if self.precision else self.name


class Scalar(Struct, frozen=True, kw_only=True):
    """A primitive type; ``json`` and ``unit`` are the marks above."""

    type: str
    logical: Logical | None = None
    json: str = ""
    unit: str = ""
    tags: dict[str, Any] = {}


class Array(Struct, frozen=True, kw_only=True):
    """A list of one type."""

    items: Type
    tags: dict[str, Any] = {}


class Map(Struct, frozen=True, kw_only=True):
    """Text keys to one type."""

    values: Type
    tags: dict[str, Any] = {}


class Nullable(Struct, frozen=True, kw_only=True):
    """Null or one type; Avro wants the branch of a field's default first."""

    of: Type
    null_first: bool = True


class Named(Struct, frozen=True, kw_only=True):
    """A named type that is written elsewhere in the schema."""

    name: str


class Enum(Struct, frozen=True, kw_only=True):
    """Symbols; ``default`` (may be empty: none) stands for a symbol the reader does not know."""

    name: str
    symbols: tuple[str, ...]
    default: str = ""
    aliases: tuple[str, ...] = ()
    doc: str = ""
    tags: dict[str, Any] = {}


class Fixed(Struct, frozen=True, kw_only=True):
    """Exactly ``size`` bytes."""

    name: str
    size: int
    logical: Logical | None = None
    aliases: tuple[str, ...] = ()
    doc: str = ""
    tags: dict[str, Any] = {}


class Field(Struct, frozen=True, kw_only=True):
    """One field of a record; ``default`` is in Avro's JSON form."""

    name: str
    type: Type
    default: Any = ABSENT
    aliases: tuple[str, ...] = ()
    unit: str = ""
    doc: str = ""
    tags: dict[str, Any] = {}

    @property
    def has_default(self) -> bool:
        """Whether a reader can do without the field."""
        return self.default is not ABSENT


class Record(Struct, frozen=True, kw_only=True):
    """Named fields."""

    name: str
    fields: tuple[Field, ...]
    aliases: tuple[str, ...] = ()
    doc: str = ""
    tags: dict[str, Any] = {}

    def field(self, name: str) -> Field | None:
        """The field of that name."""
        return next((f for f in self.fields if f.name == name), None)


Type = Scalar | Array | Map | Nullable | Named | Enum | Fixed | Record
Definition = Record | Enum | Fixed


class Schema(Struct, frozen=True):
    """A whole schema: the root type and every named type in it, by full name."""

    root: Type
    named: dict[str, Definition] = {}

    @classmethod
    def of(cls, root: Type) -> Schema:
        """The schema with this root; its named types are collected."""
        return cls(root, {d.name: d for d in _definitions(root)})

    def at(self, type: Type) -> Scalar | Array | Map | Nullable | Definition:
        """The type itself, or the definition a name stands for."""
        return self.named[type.name] if isinstance(type, Named) else type


def _definitions(type: Type) -> Iterator[Definition]:
    match type:
        case Array(items=inner) | Map(values=inner) | Nullable(of=inner):
            yield from _definitions(inner)
        case Enum() | Fixed():
            yield type
        case Record():
            yield type
            for field in type.fields:
                yield from _definitions(field.type)


def render(schema: Schema) -> Any:
    """The schema as the JSON value of an ``.avsc`` file."""
    return _render(schema.root, "", full=True)


def text(schema: Schema) -> str:
    """The schema as the text of an ``.avsc`` file; equal schemas give equal text."""
    return json.dumps(render(schema), indent=2, ensure_ascii=False) + "\n"


def shape(schema: Schema) -> Any:
    """What readers and writers must agree on: all but docs and tags."""
    return _render(schema.root, "", full=False)


def fingerprint(schema: Schema) -> str:
    """SHA-256 (hex) of the shape. Avro's own canonical form drops logical types, defaults and
    aliases, so it cannot tell two versions apart that must be told apart."""
    canonical = json.dumps(shape(schema), sort_keys=True, separators=(",", ":"))
    return sha256(canonical.encode()).hexdigest()


def _render(type: Type, space: str, *, full: bool) -> Any:
    match type:
        case Nullable():
            inner = _render(type.of, space, full=full)
            return ["null", inner] if type.null_first else [inner, "null"]
        case Named():
            return _local(type.name, space)
        case Array():
            out = {"type": "array", "items": _render(type.items, space, full=full)}
        case Map():
            out = {"type": "map", "values": _render(type.values, space, full=full)}
        case Scalar():
            return _render_scalar(type, full=full)
        case _:
            return _render_named(type, space, full=full)
    return {**out, **(type.tags if full else {})}


def _render_scalar(type: Scalar, *, full: bool) -> Any:
    marks = {"json": type.json} if type.json else {}
    marks |= {"unit": type.unit} if type.unit else {}
    out = {"type": type.type, **_logical(type.logical), **marks, **(type.tags if full else {})}
    return out if len(out) > 1 else type.type


def _logical(logical: Logical | None) -> dict[str, Any]:
    if logical is None:
        return {}
    if logical.precision:
        return {
            "logicalType": logical.name,
            "precision": logical.precision,
            "scale": logical.scale,
        }
    return {"logicalType": logical.name}


def _render_named(type: Definition, space: str, *, full: bool) -> dict[str, Any]:
    own, _, name = type.name.rpartition(".")
    out: dict[str, Any] = {"type": "", "name": name}
    if own != space:
        out["namespace"] = own
    if full and type.doc:
        out["doc"] = type.doc
    if type.aliases:
        out["aliases"] = list(type.aliases)
    match type:
        case Enum():
            default = {"default": type.default} if type.default else {}
            out |= {"type": "enum", "symbols": list(type.symbols), **default}
        case Fixed():
            out |= {"type": "fixed", "size": type.size, **_logical(type.logical)}
        case Record():
            fields = [_render_field(f, own, full=full) for f in type.fields]
            out |= {"type": "record", "fields": fields}
    return out | (type.tags if full else {})


def _render_field(field: Field, space: str, *, full: bool) -> dict[str, Any]:
    out: dict[str, Any] = {
        "name": field.name,
        "type": _render(field.type, space, full=full),
    }
    if field.has_default:
        out["default"] = field.default
    if field.aliases:
        out["aliases"] = list(field.aliases)
    if field.unit:
        out["unit"] = field.unit
    if full:
        out |= {"doc": field.doc} if field.doc else {}
        out |= field.tags
    return out


def _local(name: str, space: str) -> str:
    """A reference as short as its surroundings allow."""
    own, _, simple = name.rpartition(".")
    return simple if own == space else name


def spell(schema: Schema, type: Type) -> str:
    """A type as people read it: ``array of Line``, ``long (timestamp-millis)``, ``string?``."""
    match schema.at(type):
        case Scalar() as scalar:
            marks = [str(m) for m in (scalar.logical, scalar.unit) if m]
            marks += [f"as JSON {scalar.json}"] if scalar.json else []
            return f"{scalar.type} ({', '.join(marks)})" if marks else scalar.type
        case Array() as array:
            return f"array of {spell(schema, array.items)}"
        case Map() as map_:
            return f"map of {spell(schema, map_.values)}"
        case Nullable() as nullable:
            return f"{spell(schema, nullable.of)} or null"
        case Fixed() as fixed:
            meaning = f", {fixed.logical}" if fixed.logical else ""
            return f"fixed {fixed.name} ({fixed.size} bytes{meaning})"
        case Enum() as enum:
            return f"enum {enum.name} ({', '.join(enum.symbols)})"
        case Record() as record:
            return f"record {record.name}"
