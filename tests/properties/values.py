"""Any value of a class, by its types alone."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect as types

_INT64 = 1 << 63
_DEPTH_MAX = 3  # of a class inside itself


def values_of(model: type) -> st.SearchStrategy[Any]:
    """Instances of a Struct class, every field anything its type takes."""
    return _of(types.type_info(model), {}, 0)


def _of(node: types.Type, extra: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
    match node:
        case types.Metadata():
            return _of(node.type, {**extra, **(node.extra or {})}, depth)
        case types.StructType():
            return _struct(node, depth)
        case types.UnionType():
            kinds = [t for t in node.types if not isinstance(t, types.NoneType)]
            some = [_of(kind, extra, depth) for kind in kinds] if depth < _DEPTH_MAX else []
            return st.one_of(st.none(), *some) if len(kinds) < len(node.types) else st.one_of(some)
        case types.ListType() | types.VarTupleType() | types.SetType() | types.FrozenSetType():
            return _array(node, extra, depth)
        case types.DictType():
            most = 3 if depth < _DEPTH_MAX else 0
            return st.dictionaries(st.text(max_size=5), _of(node.value_type, extra, depth + 1),
                                   max_size=most)
    return _scalar(node, extra)


def _struct(node: types.StructType, depth: int) -> st.SearchStrategy[Any]:
    fields = {f.name: _of(f.type, {}, depth + 1) for f in node.fields}
    return st.builds(node.cls, **fields)


def _array(node: Any, extra: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
    most = 3 if depth < _DEPTH_MAX else 0
    items = st.lists(_of(node.item_type, extra, depth + 1), max_size=most)
    plain = {types.ListType: list, types.VarTupleType: tuple, types.SetType: set,
             types.FrozenSetType: frozenset}
    return items.map(plain[type(node)])


def _scalar(node: Any, extra: dict[str, Any]) -> st.SearchStrategy[Any]:
    match node:
        case types.StrType():
            if node.pattern:
                return st.from_regex(node.pattern, fullmatch=True)
            return st.text(min_size=node.min_length or 0, max_size=node.max_length or 12)
        case types.IntType():
            narrow = 1 << 31 if extra.get("avro") == "int" else _INT64
            low = node.ge if node.ge is not None else -narrow
            return st.integers(low, node.le if node.le is not None else narrow - 1)
        case types.FloatType():
            return st.floats(allow_nan=False, allow_infinity=False)
        case types.DecimalType():
            return st.decimals(-10**6, 10**6, places=extra.get("scale", 0))
        case types.EnumType():
            return st.sampled_from(list(node.cls))
        case types.LiteralType():
            return st.sampled_from(node.values)
    return _SIMPLE[type(node)]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-_INT64, _INT64 - 1) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
_SIMPLE: dict[type, st.SearchStrategy[Any]] = {
    types.BoolType: st.booleans(),
    types.BytesType: st.binary(max_size=12),
    types.NoneType: st.none(),
    types.DateTimeType: st.datetimes(timezones=st.just(dt.UTC)),
    types.DateType: st.dates(),
    types.TimeType: st.times(),
    types.UUIDType: st.uuids(),
    types.RawType: _JSON.map(lambda value: msgspec.Raw(msgspec.json.encode(value))),
}


def plain(value: Any) -> Any:
    """A value with JSON inside it read, so that equal meanings are equal."""
    if isinstance(value, msgspec.Raw):
        return "raw", msgspec.json.decode(bytes(value))
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value
