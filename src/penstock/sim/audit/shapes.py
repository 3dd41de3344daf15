"""Whether a JSON value is what an Avro schema says: a second reading of the contracts' rules.

Plain JSON: bytes are base64, a union is null or the other type, timestamps, dates and times are
RFC 3339 text unless marked ``"json": "number"``; bytes marked ``"json": "any"`` are any value.
Unknown fields are ignored, a field with a default may be missing.
"""

from __future__ import annotations

import re
from binascii import Error as NotBase64
from binascii import a2b_base64
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[Any], str]  # why a value does not fit; empty where it does

_DATE = r"\d{4}-\d\d-\d\d"
_TIME = r"\d\d:\d\d(:\d\d(\.\d+)?)?"
_ZONE = r"(Z|[+-]\d\d:?\d\d)?"
_TEXTS = {
    "date": re.compile(_DATE),
    "time": re.compile(_TIME + _ZONE),
    "timestamp": re.compile(f"{_DATE}[Tt ]{_TIME}{_ZONE}", re.IGNORECASE),
    "local": re.compile(f"{_DATE}[Tt ]{_TIME}"),
    "uuid": re.compile(r"[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}"),
    "decimal": re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?"),
}
_RANGES = {"int": 1 << 31, "long": 1 << 63}


class Unusable(ValueError):
    """A schema that nobody can check by."""


def shape_of(schema: Any) -> Check:
    """The check of a schema. Raises ``Unusable``."""
    try:
        return _Shapes().of(schema, "")
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Unusable(f"{type(error).__name__}: {error}") from None


class _Shapes:
    """One schema being read; named types are known from where they were defined."""

    def __init__(self) -> None:
        self._named: dict[str, Check] = {}

    def of(self, schema: Any, space: str) -> Check:
        if isinstance(schema, str):
            return self._by_name(schema, space)
        if isinstance(schema, list):
            return self._union(schema, space)
        kind = schema["type"]
        if kind == "record":
            return self._record(schema, space)
        if kind == "array":
            return _array(self.of(schema["items"], space))
        if kind == "map":
            return _map(self.of(schema["values"], space))
        if kind == "enum":
            return self._define(schema, space, _enum(frozenset(schema["symbols"])))
        if kind == "fixed":
            return self._define(schema, space, _bytes(schema["size"]))
        return _scalar(kind, schema) if isinstance(kind, str) else self.of(kind, space)

    def _by_name(self, name: str, space: str) -> Check:
        if name in _SCALARS:
            return _scalar(name, {})
        full = name if "." in name or not space else f"{space}.{name}"
        named = self._named
        if full not in named and name not in named:
            raise Unusable(f"the type {name} is unknown")
        key = full if full in named else name
        return lambda value: named[key](value)  # it may be in the making: a record holds itself

    def _union(self, branches: list[Any], space: str) -> Check:
        inner = [self.of(branch, space) for branch in branches if branch != "null"]
        if len(inner) != 1 or len(branches) != 2:
            raise Unusable("a union is of null and one other type")
        check = inner[0]
        return lambda value: "" if value is None else check(value)

    def _define(self, schema: Mapping[str, Any], space: str, check: Check) -> Check:
        self._named[_full(schema, space)] = check
        return check

    def _record(self, schema: Mapping[str, Any], space: str) -> Check:
        name = _full(schema, space)
        inner = name.rpartition(".")[0]
        self._named[name] = _unfinished
        fields = [
            (field["name"], self.of(field["type"], inner), "default" in field)
            for field in schema["fields"]
        ]

        def check(value: Any) -> str:
            if type(value) is not dict:
                return "it is no object"
            for field, fits, optional in fields:
                if field in value:
                    why = fits(value[field])
                    if why:
                        return f"{field}: {why}"
                elif not optional:
                    return f"{field} is missing"
            return ""

        self._named[name] = check
        return check


def _full(schema: Mapping[str, Any], space: str) -> str:
    name: str = schema["name"]
    space = schema.get("namespace", space)
    return name if "." in name or not space else f"{space}.{name}"


def _unfinished(value: Any) -> str:
    raise Unusable("a type that is not read to its end")


def _array(item: Check) -> Check:
    def check(value: Any) -> str:
        if type(value) is not list:
            return "it is no list"
        return next((f"[{n}]: {why}" for n, v in enumerate(value) if (why := item(v))), "")

    return check


def _map(item: Check) -> Check:
    def check(value: Any) -> str:
        if type(value) is not dict:
            return "it is no object"
        return next((f"{{{k}}}: {why}" for k, v in value.items() if (why := item(v))), "")

    return check


def _enum(symbols: frozenset[str]) -> Check:
    return lambda value: "" if type(value) is str and value in symbols else "it is none of them"


def _bytes(size: int | None = None) -> Check:
    def check(value: Any) -> str:
        if type(value) is not str:
            return "it is no base64"
        try:
            found = a2b_base64(value, strict_mode=True) if value else b""
        except (NotBase64, ValueError):
            return "it is no base64"
        return "" if size is None or len(found) == size else f"it has not {size} bytes"

    return check


def _whole(kind: str) -> Check:
    bound = _RANGES[kind]
    return lambda v: "" if type(v) is int and -bound <= v < bound else f"it is no {kind}"


def _text(pattern: re.Pattern[str], name: str) -> Check:
    return lambda v: "" if type(v) is str and pattern.fullmatch(v) else f"it is no {name}"


def _of_type(*types: type) -> Check:
    return lambda value: "" if type(value) in types else f"it is no {types[0].__name__}"


def _scalar(kind: str, schema: Mapping[str, Any]) -> Check:
    mark, logical = schema.get("json"), schema.get("logicalType", "")
    if mark == "any":
        return lambda value: ""
    if logical and mark != "number":
        word = "local" if logical.startswith("local-") else logical.partition("-")[0]
        if word in _TEXTS:
            return _text(_TEXTS[word], logical)
    if kind not in _SCALARS:
        raise Unusable(f"the type {kind} is unknown")
    return _SCALARS[kind]


_SCALARS: dict[str, Check] = {
    "null": _of_type(type(None)),
    "boolean": _of_type(bool),
    "int": _whole("int"),
    "long": _whole("long"),
    "float": _of_type(float, int),
    "double": _of_type(float, int),
    "bytes": _bytes(),
    "string": _of_type(str),
}
