"""The parser of ``.avsc`` files: bounded, strict, and every refusal names the path."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NoReturn

from penstock.contracts import avro
from penstock.contracts.avro import ABSENT, Logical, Schema, Type
from penstock.contracts.literals import check_default
from penstock.contracts.strict import Unreadable, strict_value
from penstock.errors import Problem
from penstock.limits import DEPTH_MAX

SCHEMA_BYTES_MAX = 1 << 20
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FULL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")

Json = dict[str, Any]


class Place:
    """Where the parser is: path, namespace, depth, and the names defined so far."""

    __slots__ = ("depth", "named", "path", "root", "space")

    def __init__(self, root: str, path: str, space: str, depth: int, named: dict[str, Any]) -> None:
        self.root, self.path, self.space = root, path, space
        self.depth, self.named = depth, named

    def into(self, step: str, space: str | None = None) -> Place:
        """One level down."""
        dot = "." if self.path and not step.startswith(("[", "{")) else ""
        inner = Place(
            self.root,
            f"{self.path}{dot}{step}",
            self.space if space is None else space,
            self.depth + 1,
            self.named,
        )
        if inner.depth > DEPTH_MAX:
            inner.refuse(f"types are nested more than {DEPTH_MAX} deep")
        return inner

    def refuse(self, message: str, fix: str = "") -> NoReturn:
        """Raise the Problem for this place."""
        where = ": ".join(part for part in (self.root, self.path) if part)
        raise Problem("schema", f"{where or 'schema'}: {message}.", fix, self.path)


def parse(raw: bytes, where: str = "") -> Schema:
    """The schema in an ``.avsc`` file; ``where`` (the file) starts every message.

    Raises ``Problem`` (code ``schema``) whose ``field`` is the path, like ``lines[].tax``.
    """
    try:
        value = strict_value(raw, limit_bytes=SCHEMA_BYTES_MAX)
    except Unreadable as error:
        message = f"{where or 'schema'}: {error.message}"
        raise Problem("schema", message, error.fix, error.field) from None
    return parse_value(value, where)


def parse_value(value: Any, where: str = "") -> Schema:
    """As ``parse``, from JSON that is read already."""
    place = Place(where, "", "", 0, {})
    schema = Schema.of(_type(value, place))
    for check in place.named.pop("", []):
        check(schema)
    return schema


def _type(value: Any, place: Place) -> Type:
    if isinstance(value, str):
        return _by_name(value, place)
    if isinstance(value, list):
        return _union(value, place)
    if not isinstance(value, dict):
        place.refuse(f"a type is a name, a list or an object, not {value!r:.40}")
    kind = value.get("type")
    if isinstance(kind, dict | list):
        place.refuse("a type inside a type means nothing", "Write the inner one alone.")
    if not isinstance(kind, str):
        place.refuse("a type object needs a 'type'")
    parser = _PARSERS.get(kind)
    if parser is not None:
        return parser(value, place)
    if kind in avro.SCALARS:
        return _scalar(value, kind, place)
    if set(value) != {"type"}:
        place.refuse(f"{kind!r} is no type that takes attributes")
    return _by_name(kind, place)


def _by_name(name: str, place: Place) -> Type:
    if name in avro.SCALARS:
        return avro.Scalar(type=name)
    for full in dict.fromkeys((_full(name, place), name)):
        if full in place.named:
            return avro.Named(name=full)
    place.refuse(f"{name!r} is no type known here", "Define a named type where it is used first.")


def _union(branches: list[Any], place: Place) -> Type:
    if len(branches) != 2 or branches.count("null") != 1:
        place.refuse(
            "a union must be of null and one other type",
            "Make a record with one nullable field for each alternative.",
        )
    at = branches.index("null")
    inner = _type(branches[1 - at], place)
    if isinstance(inner, avro.Nullable):
        place.refuse("a union cannot hold a union")
    return avro.Nullable(of=inner, null_first=at == 0)


def _scalar(value: Json, kind: str, place: Place) -> avro.Scalar:
    return avro.Scalar(
        type=kind,
        logical=_logical(value, kind, place),
        json=_word(value, "json", place),
        unit=_word(value, "unit", place),
        tags=_tags(value, "logicalType precision scale json unit"),
    )


def _logical(value: Json, kind: str, place: Place, size: int = 0) -> Logical | None:
    name = _word(value, "logicalType", place)
    if not name:
        return None
    homes = avro.LOGICAL.get(name)
    if homes is None:
        place.refuse(f"logical type {name!r} is unknown", f"Known: {', '.join(avro.LOGICAL)}.")
    if kind not in homes:
        place.refuse(f"{name} cannot sit on {kind}", f"It sits on {' or '.join(homes)}.")
    wanted = avro.FIXED_SIZES.get(name, size)
    if kind == "fixed" and size != wanted:
        place.refuse(f"{name} needs {wanted} bytes, this fixed has {size}")
    return _decimal(value, size, place) if name == "decimal" else Logical(name)


def _decimal(value: Json, size: int, place: Place) -> Logical:
    precision = _count(value, "precision", place, least=1)
    scale = _count(value, "scale", place, least=0) if "scale" in value else 0
    if scale > precision:
        place.refuse(f"scale {scale} is above precision {precision}")
    if size and precision > (most := len(str(2 ** (8 * size - 1))) - 1):
        place.refuse(f"{size} bytes hold {most} digits, the precision is {precision}")
    return Logical("decimal", precision, scale)


def _array(value: Json, place: Place) -> Type:
    items = _type(_needed(value, "items", place), place.into("[]"))
    return avro.Array(items=items, tags=_tags(value, "items"))


def _map(value: Json, place: Place) -> Type:
    values = _type(_needed(value, "values", place), place.into("{}"))
    return avro.Map(values=values, tags=_tags(value, "values"))


def _enum(value: Json, place: Place) -> Type:
    name = _define(value, place)
    symbols = _names(value, "symbols", place)
    if not symbols:
        place.refuse(f"enum {name} has no symbols")
    default = _word(value, "default", place)
    if default and default not in symbols:
        place.refuse(f"enum {name}: the default {default!r} is none of its symbols")
    return avro.Enum(
        name=name,
        symbols=symbols,
        default=default,
        aliases=_aliases(value, name, place),
        doc=_word(value, "doc", place),
        tags=_tags(value, "symbols default"),
    )


def _fixed(value: Json, place: Place) -> Type:
    name = _define(value, place)
    size = _count(value, "size", place, least=1)
    return avro.Fixed(
        name=name,
        size=size,
        logical=_logical(value, "fixed", place, size),
        aliases=_aliases(value, name, place),
        doc=_word(value, "doc", place),
        tags=_tags(value, "size logicalType precision scale"),
    )


def _record(value: Json, place: Place) -> Type:
    name = _define(value, place)
    rows = _needed(value, "fields", place)
    if not isinstance(rows, list):
        place.refuse(f"record {name}: 'fields' must be a list")
    space = name.rpartition(".")[0]
    fields = tuple(_field(row, place, space) for row in rows)
    _once([f.name for f in fields] + [a for f in fields for a in f.aliases], "field", place)
    return avro.Record(
        name=name,
        fields=fields,
        aliases=_aliases(value, name, place),
        doc=_word(value, "doc", place),
        tags=_tags(value, "fields"),
    )


def _field(value: Any, record: Place, space: str) -> avro.Field:
    if not isinstance(value, dict):
        record.refuse(f"a field is an object, not {value!r:.40}")
    name = _word(value, "name", record)
    if not _NAME.fullmatch(name):
        record.refuse(f"{name!r} is no field name", "Use letters, digits and _.")
    place = record.into(name, space)
    type_ = _type(_needed(value, "type", place), place)
    default = value.get("default", ABSENT)
    if default is not ABSENT:
        _later(place, lambda schema: _default(schema, type_, default, place))
    return avro.Field(
        name=name,
        type=type_,
        default=default,
        aliases=_names(value, "aliases", place) if "aliases" in value else (),
        unit=_word(value, "unit", place),
        doc=_word(value, "doc", place),
        tags=_tags(value, "default unit"),
    )


def _later(place: Place, check: Callable[[Schema], None]) -> None:
    """Defaults are checked once every name is known: a record may hold itself."""
    place.named.setdefault("", []).append(check)


def _default(schema: Schema, type: Type, default: Any, place: Place) -> None:
    wrong = check_default(schema, type, default)
    if wrong:
        place.refuse(f"the default {default!r:.60} is wrong: {wrong}")


def _define(value: Json, place: Place) -> str:
    """The full name of a definition, registered."""
    name = _word(value, "name", place)
    if not _FULL_NAME.fullmatch(name) or name in avro.SCALARS:
        place.refuse(f"{name!r} is no name for a type", "Use letters, digits and _.")
    space = value.get("namespace")
    if "." not in name and space is not None:
        if space and not (isinstance(space, str) and _FULL_NAME.fullmatch(space)):
            place.refuse(f"{space!r:.40} is no namespace")
        name = f"{space}.{name}" if space else name
    else:
        name = _full(name, place)
    if name in place.named:
        place.refuse(f"the type {name} is defined twice", "Refer to it by its name.")
    place.named[name] = True
    return name


def _full(name: str, place: Place) -> str:
    return f"{place.space}.{name}" if place.space and "." not in name else name


def _aliases(value: Json, name: str, place: Place) -> tuple[str, ...]:
    if "aliases" not in value:
        return ()
    space = name.rpartition(".")[0]
    given = _names(value, "aliases", place, _FULL_NAME)
    return tuple(a if "." in a or not space else f"{space}.{a}" for a in given)


def _names(
    value: Json, key: str, place: Place, pattern: re.Pattern[str] = _NAME
) -> tuple[str, ...]:
    found = _needed(value, key, place)
    if not isinstance(found, list):
        place.refuse(f"'{key}' must be a list of names")
    for name in found:
        if not (isinstance(name, str) and pattern.fullmatch(name)):
            place.refuse(f"'{key}' holds {name!r:.40}, which is no name")
    _once(found, key, place)
    return tuple(found)


def _once(names: list[str], what: str, place: Place) -> None:
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        place.refuse(f"{what} {', '.join(twice)} is there twice")


def _needed(value: Json, key: str, place: Place) -> Any:
    if key not in value:
        place.refuse(f"{key!r} is missing")
    return value[key]


def _word(value: Json, key: str, place: Place) -> str:
    found = value.get(key, "")
    if not isinstance(found, str):
        place.refuse(f"{key!r} must be text, not {found!r:.40}")
    return found


def _count(value: Json, key: str, place: Place, least: int) -> int:
    found = _needed(value, key, place)
    if not isinstance(found, int) or isinstance(found, bool) or found < least:
        place.refuse(f"{key!r} must be a whole number from {least} on, not {found!r:.40}")
    return found


def _tags(value: Json, known: str) -> dict[str, Any]:
    ours = {"type", "name", "namespace", "aliases", "doc", *known.split()}
    return {k: v for k, v in value.items() if k not in ours}


_PARSERS: dict[str, Callable[[Json, Place], Type]] = {
    "array": _array,
    "map": _map,
    "enum": _enum,
    "fixed": _fixed,
    "record": _record,
}
