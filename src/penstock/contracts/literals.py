"""Default values in Avro's JSON form: whether one fits its type, and how a Python value reads."""

from __future__ import annotations

import datetime as dt
import enum
from decimal import Decimal
from typing import Any
from uuid import UUID

from msgspec import Raw, Struct
from msgspec.structs import asdict

from penstock.contracts import avro
from penstock.contracts.avro import Schema, Type
from penstock.errors import Problem

_RANGES = {"int": 1 << 31, "long": 1 << 63}
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_PARTS = {"millis": 1000, "micros": 1}  # microseconds in one unit


def check_default(schema: Schema, type: Type, value: Any) -> str:
    """Why ``value`` is no default of ``type``; empty where it is one."""
    match schema.at(type):
        case avro.Scalar(type=kind):
            return _check_scalar(kind, value)
        case avro.Nullable() as nullable:
            return _check_nullable(schema, nullable, value)
        case avro.Array(items=inner):
            return _check_all(schema, inner, value, list)
        case avro.Map(values=inner):
            return _check_all(schema, inner, value, dict)
        case avro.Enum() as enum_:
            return "" if value in enum_.symbols else f"{enum_.name} has no such symbol"
        case avro.Fixed() as fixed:
            fits = _bytes_like(value) and len(value) == fixed.size
            return "" if fits else f"{fixed.name} has {fixed.size} bytes"
        case avro.Record() as record:
            return _check_record(schema, record, value)


def _check_scalar(kind: str, value: Any) -> str:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if kind in _RANGES:
        fits = whole and -_RANGES[kind] <= value < _RANGES[kind]
    elif kind in ("float", "double"):
        fits = whole or isinstance(value, float)
    elif kind == "bytes":
        fits = _bytes_like(value)
    else:
        fits = isinstance(value, {"null": type(None), "boolean": bool, "string": str}[kind])
    return "" if fits else f"it is no {kind}"


def _bytes_like(value: Any) -> bool:
    """Avro writes default bytes as text whose code points are the bytes."""
    return isinstance(value, str) and all(ord(c) < 256 for c in value)


def _check_nullable(schema: Schema, type: avro.Nullable, value: Any) -> str:
    if (value is None) == type.null_first:
        return "" if value is None else check_default(schema, type.of, value)
    return "a default belongs to the first type of a union, so that one must come first"


def _check_all(schema: Schema, inner: Type, value: Any, container: Any) -> str:
    if not isinstance(value, container):
        return "it is no " + ("list" if container is list else "object")
    items: list[Any] = list(value.values()) if isinstance(value, dict) else list(value)
    return next((why for item in items if (why := check_default(schema, inner, item))), "")


def _check_record(schema: Schema, record: avro.Record, value: Any) -> str:
    if not isinstance(value, dict):
        return f"{record.name} is an object"
    for field in record.fields:
        if field.name not in value:
            if not field.has_default:
                return f"{record.name} needs {field.name}"
        elif why := check_default(schema, field.type, value[field.name]):
            return f"{field.name}: {why}"
    return ""


def literal(schema: Schema, type: Type, value: Any) -> Any:
    """A Python default in Avro's JSON form."""
    at = schema.at(type)
    match at:
        case avro.Nullable():
            return None if value is None else literal(schema, at.of, value)
        case avro.Array():
            return [literal(schema, at.items, item) for item in value]
        case avro.Map():
            return {k: literal(schema, at.values, v) for k, v in value.items()}
        case avro.Record():
            return _record_literal(schema, at, value)
        case avro.Scalar():
            return _scalar_literal(at, value)
    return value.value if isinstance(value, enum.Enum) else value


def _record_literal(schema: Schema, record: avro.Record, value: Any) -> Any:
    assert isinstance(value, Struct), f"{record.name} derives from a Struct"
    encoded = dict(zip(value.__struct_encode_fields__, asdict(value).values(), strict=True))
    return {f.name: literal(schema, f.type, encoded[f.name]) for f in record.fields}


def _scalar_literal(type: avro.Scalar, value: Any) -> Any:
    match value:
        case Raw() | bytes():
            return bytes(value).decode("latin-1")
        case UUID():
            return str(value)
        case dt.datetime():
            return _elapsed(type, value - _EPOCH)
        case dt.date():
            return value.toordinal() - _EPOCH.toordinal()
        case dt.time():
            return _elapsed(type, dt.datetime.combine(_EPOCH, value, dt.UTC) - _EPOCH)
        case Decimal():
            return _decimal_literal(type, value)
    return value


def _elapsed(type: avro.Scalar, since: dt.timedelta) -> int:
    assert type.logical is not None, "derived with its logical type"
    unit = type.logical.name.rpartition("-")[2]
    return since // dt.timedelta(microseconds=1) // _PARTS[unit]


def _decimal_literal(type: avro.Scalar, value: Decimal) -> str:
    assert type.logical is not None, "derived with its logical type"
    unscaled = int(value.scaleb(type.logical.scale).to_integral_exact())
    if Decimal(unscaled).scaleb(-type.logical.scale) != value:
        raise Problem("contract_default", f"the default {value} does not fit {type.logical}.")
    size = (unscaled.bit_length() + 8) // 8
    return unscaled.to_bytes(size, "big", signed=True).decode("latin-1")
