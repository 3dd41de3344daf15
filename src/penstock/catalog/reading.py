"""From TOML's tables to the catalog value, collecting what is wrong instead of stopping at it.

The shape is that of the Structs in ``model``: no second list of keys to keep. Where a value is
wrong a neutral one takes its place, so that the rules can look at the rest in the same run; the
paths of such values are *spoilt*, and what a rule says about them is noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date
from typing import Any

import msgspec
from msgspec import Struct, inspect

from penstock.catalog.flaw import Flaw, Keys, meant, near, shown
from penstock.catalog.model import Catalog

_NEUTRAL: dict[type, Any] = {
    inspect.StrType: "", inspect.IntType: 1, inspect.FloatType: 1.0, inspect.BoolType: False,
    inspect.VarTupleType: (), inspect.DictType: {},
}  # fmt: skip
_WANTED: dict[type, str] = {
    inspect.StrType: "text", inspect.IntType: "a whole number", inspect.FloatType: "a number",
    inspect.BoolType: "true or false", inspect.VarTupleType: "a list",
    inspect.DictType: "a table", inspect.StructType: "a table",
}  # fmt: skip
_TAKEN: dict[type, type | tuple[type, ...]] = {
    inspect.StrType: str, inspect.IntType: int, inspect.FloatType: (int, float),
    inspect.BoolType: bool, inspect.VarTupleType: list, inspect.DictType: dict,
    inspect.StructType: dict,
}  # fmt: skip


class Reading(Struct, frozen=True):
    """What one document says, what is wrong with it, and where it could not be read."""

    catalog: Catalog
    flaws: tuple[Flaw, ...]
    spoilt: frozenset[Keys]

    def is_spoilt(self, path: Keys) -> bool:
        """Whether a value on the way to ``path`` is already told of."""
        return any(path[:n] in self.spoilt for n in range(1, len(path) + 1))


def read(document: Mapping[str, Any]) -> Reading:
    """The catalog of a parsed TOML document."""
    reader = _Reader()
    catalog = reader.table((), inspect.type_info(Catalog), document)
    return Reading(catalog, tuple(reader.flaws), frozenset(reader.spoilt))


class _Reader:
    """Walks tables and types side by side."""

    def __init__(self) -> None:
        self.flaws: list[Flaw] = []
        self.spoilt: set[Keys] = set()

    def _wrong(self, path: Keys, message: str, hint: str = "") -> None:
        self.flaws.append(Flaw(path, message, hint))
        self.spoilt.add(path)

    def table(
        self,
        path: Keys,
        kind: Any,
        table: Mapping[str, Any],
        name: str | None = None,
        otherwise: Struct | None = None,
    ) -> Any:
        """A Struct from a table; ``name`` is its key in the table around it, ``otherwise`` gives
        what the table leaves out."""
        fields = {f.encode_name: f for f in kind.fields}
        values: dict[str, Any] = {}
        if name is not None and "name" in fields:
            values[fields.pop("name").name] = name
        misspelt = self._unknown(path, table, fields)
        for key, field in fields.items():
            if key in table:
                values[field.name] = self._value((*path, key), field.type, table[key], field)
            elif field.required:
                self._missing((*path, key), key in misspelt)
                values[field.name] = _neutral(field)
            elif otherwise is not None:
                values[field.name] = getattr(otherwise, field.name)
        return kind.cls(**values)

    def _unknown(self, path: Keys, table: Mapping[str, Any], fields: Mapping[str, Any]) -> set[str]:
        """Tell of keys nobody knows; returns the keys that were probably meant."""
        told = set()
        for key in table:
            if key not in fields:
                hint = near(key, [f for f in fields if f not in table], "Other keys")
                self._wrong((*path, key), "is no known key.", hint)
                told |= {f for f in fields if hint == f"Did you mean {f}?"}
        return told

    def _missing(self, path: Keys, is_told: bool) -> None:
        if is_told:
            self.spoilt.add(path)
        else:
            self._wrong(path, "is missing.", f"Add {path[-1]}.")

    def _value(self, path: Keys, kind: Any, value: Any, field: Any = None) -> Any:
        """The value as its type wants it; a neutral one after telling what is wrong."""
        if isinstance(kind, inspect.UnionType):  # X | None: TOML knows no null
            (kind,) = (t for t in kind.types if not isinstance(t, inspect.NoneType))
        match kind:
            case inspect.AnyType():
                return self._free(path, value)
            case inspect.LiteralType(values=choices):
                return self._choice(path, choices, value, field)
        taken = _TAKEN[type(kind)]
        is_lie = isinstance(value, bool) and not isinstance(kind, inspect.BoolType)
        if is_lie or not isinstance(value, taken):
            hint = f'Write "{shown(value)}".' if isinstance(value, date) else ""
            self._wrong(path, f"must be {_WANTED[type(kind)]}, and is {shown(value)}.", hint)
            return _neutral(field, kind)
        return self._inner(path, kind, value, field)

    def _inner(self, path: Keys, kind: Any, value: Any, field: Any) -> Any:
        match kind:
            case inspect.StructType():
                default = field.default if field is not None else None
                otherwise = default if isinstance(default, Struct) else None
                return self.table(path, kind, value, path[-1], otherwise)
            case inspect.VarTupleType(item_type=item):
                return tuple(self._value((*path, str(n)), item, v) for n, v in enumerate(value))
            case inspect.DictType(value_type=item):
                return {k: self._value((*path, k), item, v) for k, v in value.items()}
            case inspect.FloatType():
                return self._number(path, kind, value, field)
        return value

    def _number(self, path: Keys, kind: Any, value: int | float, field: Any) -> float:
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
        self._wrong(path, f"must be a finite number, and is {shown(value)}.")
        return float(_neutral(field, kind) or 1.0)

    def _choice(self, path: Keys, choices: tuple[Any, ...], value: Any, field: Any) -> Any:
        if value in choices:
            return value
        hint = meant(value, choices) if isinstance(value, str) else ""
        said = " or ".join(map(str, choices))
        self._wrong(path, f"must be {said}, and is {shown(value)}.", hint)
        return _neutral(field)

    def _free(self, path: Keys, value: Any) -> Any:
        """A free setting: anything but what JSON cannot say."""
        if isinstance(value, dict):
            return {k: self._free((*path, k), v) for k, v in value.items()}
        if isinstance(value, list):
            return [self._free((*path, str(n)), v) for n, v in enumerate(value)]
        if isinstance(value, float) and not math.isfinite(value):
            self._wrong(path, f"must be a finite number, and is {shown(value)}.")
        return value


def _neutral(field: Any, kind: Any = None) -> Any:
    """What stands in for a wrong value: the default, else nothing of its type."""
    if field is not None and not field.required:
        if field.default is not msgspec.NODEFAULT:
            return field.default
        return field.default_factory()
    kind = kind if kind is not None else field.type
    if isinstance(kind, inspect.StructType):
        return _Reader().table((), kind, {}, "")
    return _NEUTRAL[type(kind)]
