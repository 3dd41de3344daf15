"""Avro schemas of typed classes: what a msgspec Struct says, in the language of contracts.

    str, bool, bytes, float    string, boolean, bytes, double
    int                        long; int with ``Meta(extra={"avro": "int"})`` or a logical type
    datetime, date, time       timestamp-micros, date, time-micros (JSON: RFC 3339 text)
    UUID, Decimal              string uuid, bytes decimal (``precision`` and ``scale`` in extra)
    Enum, Literal of text      enum; an Enum's ``_missing_`` gives the default for unknown symbols
    list, tuple, set           array
    dict[str, X], Struct       map, record
    X | None                   union of null and X
    msgspec.Raw                bytes marked ``"json": "any"``

``Annotated[int, Meta(extra={"logicalType": "timestamp-millis"})]`` is a timestamp that travels as
a JSON number (marked ``"json": "number"``). ``extra`` may also hold ``unit``, ``aliases`` and
tags such as ``pii``; ``description`` becomes the field's doc. The result depends on the class and
nothing else. What has no place in a contract is refused, saying why.
"""

from __future__ import annotations

import enum
import inspect
import re
from typing import Any, NoReturn

import msgspec
from msgspec import inspect as types
from msgspec.structs import replace

from penstock.contracts import avro
from penstock.contracts.avro import ABSENT, Logical, Schema, Type
from penstock.contracts.contract import Contract
from penstock.contracts.literals import check_default, literal
from penstock.errors import Problem

_SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TYPE_KEYS = ("avro", "logicalType", "precision", "scale")
_PLAIN = {
    types.StrType: "string",
    types.BoolType: "boolean",
    types.BytesType: "bytes",
    types.FloatType: "double",
    types.IntType: "long",
}
_TIMED = {
    types.DateTimeType: ("long", "timestamp-micros"),
    types.DateType: ("int", "date"),
    types.TimeType: ("long", "time-micros"),
    types.UUIDType: ("string", "uuid"),
}
_Arrays = (types.ListType, types.VarTupleType, types.SetType, types.FrozenSetType)


def schema_of(contract: Contract) -> Schema:
    """The schema of a contract's current class; its name comes from the event type."""
    return derive(contract.model, record_name(contract.type))


def record_name(type: str) -> str:
    """The record name of an event type: ``order.placed`` is ``OrderPlaced``."""
    return "".join(word[:1].upper() + word[1:] for word in re.split(r"[._]", type))


def derive(model: type, name: str = "") -> Schema:
    """The Avro schema of a Struct class; ``name`` is the root record's, else the class's.

    Raises ``Problem`` (code ``contract_class``) naming class and field.
    """
    if not (isinstance(model, type) and issubclass(model, msgspec.Struct)):
        raise Problem("contract_class", f"{model!r} is no msgspec Struct.")
    try:
        node = types.type_info(model)
    except (TypeError, NameError) as error:
        raise Problem("contract_class", f"{model.__qualname__}: {error}.") from error
    schema = Schema.of(_Walk(model, name).of(node, "", {}))
    for path, _, field in defaults(schema):
        if wrong := check_default(schema, field.type, field.default):
            raise Problem(
                "contract_class",
                f"{model.__qualname__}: the default of {path} is wrong: {wrong}.",
                field=path,
            )
    return schema


def defaults(schema: Schema) -> list[tuple[str, avro.Record, avro.Field]]:
    """Every field with a default: its path, its record, the field."""
    return [
        (f"{record.name}.{field.name}", record, field)
        for record in schema.named.values()
        if isinstance(record, avro.Record)
        for field in record.fields
        if field.has_default
    ]


class _Walk:
    """One derivation: the classes met so far, by the name their record or enum got."""

    def __init__(self, model: type, name: str) -> None:
        self.model, self.root_name = model, name
        self.names: dict[str, object] = {}
        self.definitions: dict[str, avro.Definition] = {}

    def refuse(self, path: str, message: str, fix: str = "") -> NoReturn:
        where = f"{self.model.__qualname__}.{path}" if path else self.model.__qualname__
        raise Problem("contract_class", f"{where}: {message}.", fix, path)

    def of(self, node: types.Type, path: str, extra: dict[str, Any]) -> Type:
        """The Avro type of one msgspec node."""
        match node:
            case types.Metadata():
                return self.of(node.type, path, {**(node.extra or {}), **extra})
            case types.UnionType():
                return self.nullable(node, path, extra)
            case types.StructType():
                return self.record(node, path)
            case types.EnumType():
                return self.enum(node.cls, path)
            case types.LiteralType():
                return self.literals(node, path)
            case types.DictType():
                return self.map(node, path)
        if isinstance(node, _Arrays):
            own = {k: v for k, v in extra.items() if k in _TYPE_KEYS}
            return avro.Array(items=self.item(node.item_type, f"{path}[]", own))
        return self.scalar(node, path, extra)

    def item(self, node: types.Type, path: str, extra: dict[str, Any]) -> Type:
        """The type of a list's items or a map's values, with the marks a field would carry."""
        inner = self.of(node, path, extra)
        marks, _ = _metadata(node)
        tags = _tags(marks)
        if not tags and "unit" not in marks:
            return inner
        if not isinstance(inner, avro.Scalar):
            self.refuse(path, "marks belong to a field or a plain item", "Mark the field.")
        return replace(inner, unit=marks.get("unit", ""), tags=tags)

    def scalar(self, node: types.Type, path: str, extra: dict[str, Any]) -> Type:
        if isinstance(node, types.RawType):
            return avro.Scalar(type="bytes", json="any")
        if isinstance(node, types.DecimalType):
            decimal = self.logical("decimal", "bytes", path, extra)
            return avro.Scalar(type="bytes", logical=decimal)
        timed = _TIMED.get(node.__class__)
        if timed is not None:
            named = extra.get("logicalType", timed[1])
            kind = extra.get("avro") or ("int" if named == "time-millis" else timed[0])
            return avro.Scalar(type=kind, logical=self.logical(named, kind, path, extra))
        kind = _PLAIN.get(node.__class__, "")
        if not kind:
            what = type(node).__name__.removesuffix("Type").lower()
            self.refuse(path, f"{what} has no place in a contract", "Name one type.")
        return self.plain(kind, path, extra)

    def plain(self, kind: str, path: str, extra: dict[str, Any]) -> avro.Scalar:
        named = extra.get("logicalType", "")
        if kind == "long" and named and avro.LOGICAL.get(named) == ("int",):
            kind = "int"
        narrow = extra.get("avro", kind)
        if narrow != kind and (kind, narrow) not in (("long", "int"), ("double", "float")):
            self.refuse(path, f"{narrow!r} cannot hold a Python {kind}")
        if not named:
            return avro.Scalar(type=narrow)
        logical = self.logical(named, narrow, path, extra)
        return avro.Scalar(
            type=narrow, logical=logical, json="number" if narrow in ("int", "long") else ""
        )

    def logical(self, name: str, kind: str, path: str, extra: dict[str, Any]) -> Logical:
        if kind not in avro.LOGICAL.get(name, ()):
            self.refuse(path, f"logical type {name!r} cannot sit on {kind}")
        if name != "decimal":
            return Logical(name)
        precision, scale = extra.get("precision", 0), extra.get("scale", 0)
        if not 0 <= scale <= precision or not precision:
            self.refuse(path, "a decimal needs 'precision', and a 'scale' not above it")
        return Logical(name, precision, scale)

    def nullable(self, node: types.UnionType, path: str, extra: dict[str, Any]) -> Type:
        inner = [t for t in node.types if not isinstance(t, types.NoneType)]
        if len(inner) != 1 or len(node.types) != 2:
            self.refuse(
                path,
                "a union must be of None and one other type",
                "Make a Struct with one optional field for each alternative.",
            )
        return avro.Nullable(of=self.of(inner[0], path, extra))

    def map(self, node: types.DictType, path: str) -> Type:
        key = node.key_type
        if not isinstance(key.type if isinstance(key, types.Metadata) else key, types.StrType):
            self.refuse(path, "the keys of a map are text")
        return avro.Map(values=self.item(node.value_type, f"{path}{{}}", {}))

    def literals(self, node: types.LiteralType, path: str) -> Type:
        words = [w[:1].upper() + w[1:] for w in re.split(r"\W|_", path) if w]
        name = f"{self.root_name or _plain_name(self.model)}{''.join(words)}"
        return self.symbols(name, node, tuple(node.values), "", "", path)

    def enum(self, cls: type[enum.Enum], path: str) -> Type:
        values = tuple(member.value for member in cls)
        fallback: Any = cls._missing_("\x00 no such symbol") if "_missing_" in vars(cls) else None
        default = fallback.value if isinstance(fallback, cls) else ""
        doc = inspect.cleandoc(vars(cls).get("__doc__") or "")
        return self.symbols(_plain_name(cls), cls, values, default, doc, path)

    def symbols(
        self,
        name: str,
        origin: object,
        values: tuple[Any, ...],
        default: str,
        doc: str,
        path: str,
    ) -> Type:
        if self.claimed(name, origin, path):
            return avro.Named(name=name)
        for value in values:
            if not (isinstance(value, str) and _SYMBOL.fullmatch(value)):
                self.refuse(path, f"{value!r} is no symbol", "Use letters, digits and _.")
        return avro.Enum(name=name, symbols=values, default=default, doc=doc)

    def claimed(self, name: str, origin: object, path: str) -> bool:
        """Whether this very class has been written already; another of that name is refused."""
        if name in self.names and self.names[name] is not origin:
            self.refuse(path, f"two types are called {name}", "Rename one class.")
        known = name in self.names
        self.names[name] = origin
        return known

    def record(self, node: types.StructType, path: str) -> Type:
        named = self.root_name if node.cls is self.model else ""
        name = named or _plain_name(node.cls)
        if self.claimed(name, node.cls, path):
            return avro.Named(name=name)
        self.check_config(node, path)
        doc = inspect.cleandoc(vars(node.cls).get("__doc__") or "")
        fields = tuple(self.field(f, path) for f in node.fields)
        record = avro.Record(name=name, fields=fields, doc=doc)
        return self.with_defaults(record, node)

    def check_config(self, node: types.StructType, path: str) -> None:
        """Options of a Struct that would give it another JSON than the schema says."""
        if node.array_like or node.tag_field is not None:
            self.refuse(path, f"{node.cls.__qualname__} is array_like or tagged", "Drop that.")
        if node.forbid_unknown_fields:
            self.refuse(
                path,
                f"{node.cls.__qualname__} forbids unknown fields, and readers must ignore them",
            )
        if node.cls.__struct_config__.omit_defaults:
            self.refuse(
                path,
                f"{node.cls.__qualname__} omits defaults",
                "A later reader would put its own default where the writer meant another.",
            )

    def field(self, field: types.Field, path: str) -> avro.Field:
        inner = f"{path}.{field.encode_name}" if path else field.encode_name
        if not _SYMBOL.fullmatch(field.encode_name):
            self.refuse(inner, f"{field.encode_name!r} is no field name")
        extra, doc = _metadata(field.type)
        return avro.Field(
            name=field.encode_name,
            type=self.of(field.type, inner, {}),
            aliases=tuple(extra.get("aliases", ())),
            unit=extra.get("unit", ""),
            doc=doc,
            tags=_tags(extra),
        )

    def with_defaults(self, record: avro.Record, node: types.StructType) -> avro.Record:
        """The record with its defaults, which need the finished types of its fields."""
        self.definitions |= Schema.of(record).named
        known = Schema(record, self.definitions)
        pairs = zip(record.fields, node.fields, strict=True)
        done = replace(
            record, fields=tuple(_defaulted(known, ours, theirs) for ours, theirs in pairs)
        )
        self.definitions[done.name] = done
        return done


def _defaulted(schema: Schema, ours: avro.Field, theirs: types.Field) -> avro.Field:
    """A field with its default, the branch of the default first."""
    value = _python_default(theirs)
    if value is ABSENT:
        return ours
    type_ = ours.type
    if isinstance(type_, avro.Nullable) and value is not None:
        type_ = replace(type_, null_first=False)
    return replace(ours, type=type_, default=literal(schema, type_, value))


def _python_default(field: types.Field) -> Any:
    if field.default is not msgspec.NODEFAULT:
        return field.default
    factory = field.default_factory
    return ABSENT if factory is msgspec.NODEFAULT else factory()


def _metadata(node: types.Type) -> tuple[dict[str, Any], str]:
    """All ``extra`` on the way to the type itself, and the description."""
    extra: dict[str, Any] = {}
    doc = ""
    while True:
        if isinstance(node, types.Metadata):
            extra = {**(node.extra or {}), **extra}
            doc = doc or (node.extra_json_schema or {}).get("description", "")
            node = node.type
        elif isinstance(node, types.UnionType):
            inner = [t for t in node.types if not isinstance(t, types.NoneType)]
            if len(inner) != 1:
                return extra, doc
            node = inner[0]
        else:
            return extra, doc


def _tags(extra: dict[str, Any]) -> dict[str, Any]:
    """What ``extra`` holds beside the marks with a meaning of their own."""
    return {k: v for k, v in extra.items() if k not in (*_TYPE_KEYS, "unit", "aliases")}


def _plain_name(cls: type) -> str:
    """A class's name without its version, so that ``LineV1`` and ``Line`` are one type."""
    return re.sub(r"_?[Vv]\d+$", "", cls.__name__) or cls.__name__
