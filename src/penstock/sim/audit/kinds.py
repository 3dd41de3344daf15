"""What values of an Avro schema look like as JSON, and when two of them mean the same.

The marks are those of the contracts (``shapes`` has the rules): bytes are base64, moments, dates
and times RFC 3339 text unless marked ``"json": "number"``, decimals text, bytes marked ``"json":
"any"`` the JSON they hold.
"""

from __future__ import annotations

import datetime as dt
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping
from decimal import Decimal
from struct import pack
from typing import Any

import msgspec

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
_NANOS = {"millis": 1_000_000, "micros": 1000, "nanos": 1}


class Kind:
    """Of one type: ``said`` makes of what a reader of Avro gives what is written as JSON,
    ``meant`` of JSON what can be compared."""

    def said(self, value: Any) -> Any:
        """What is written as JSON."""
        return value

    def meant(self, value: Any) -> Any:
        """What JSON means. Raises whatever its type does where it is none."""
        return value


class _Bytes(Kind):
    def said(self, value: Any) -> Any:
        return b2a_base64(value, newline=False).decode()

    def meant(self, value: Any) -> Any:
        return a2b_base64(value)


class _Any(Kind):
    """JSON as it is, in bytes."""

    def said(self, value: Any) -> Any:
        return msgspec.Raw(value)


class _Narrow(Kind):
    """A float of 32 bits."""

    def meant(self, value: Any) -> Any:
        return pack("<f", value)


class _Decimal(Kind):
    def __init__(self, scale: int) -> None:
        self._scale = scale

    def said(self, value: Any) -> Any:
        return Decimal(f"{int.from_bytes(value, 'big', signed=True)}E{-self._scale}")

    def meant(self, value: Any) -> Any:
        return Decimal(value)


class _Moment(Kind):
    """A count since 1970 in units of so many nanoseconds; ``is_local``: of nowhere's clock."""

    def __init__(self, nanos: int, is_local: bool) -> None:
        self._nanos, self._is_local = nanos, is_local

    def said(self, value: Any) -> Any:
        moment = _EPOCH + dt.timedelta(microseconds=value * self._nanos // 1000)
        return moment.replace(tzinfo=None) if self._is_local else moment

    def meant(self, value: Any) -> Any:
        moment = msgspec.convert(value, dt.datetime)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=dt.UTC)
        return (moment - _EPOCH) // _MICROSECOND * 1000 // self._nanos


class _Date(Kind):
    def said(self, value: Any) -> Any:
        return dt.date.fromordinal(value + _EPOCH.toordinal())

    def meant(self, value: Any) -> Any:
        return msgspec.convert(value, dt.date).toordinal() - _EPOCH.toordinal()


class _Hour(Kind):
    """A time of the day in units of so many nanoseconds."""

    def __init__(self, nanos: int) -> None:
        self._nanos = nanos

    def said(self, value: Any) -> Any:
        return (_EPOCH + dt.timedelta(microseconds=value * self._nanos // 1000)).time()

    def meant(self, value: Any) -> Any:
        at = msgspec.convert(value, dt.time).replace(tzinfo=None)
        since = dt.datetime.combine(_EPOCH, at, dt.UTC) - _EPOCH
        return since // _MICROSECOND * 1000 // self._nanos


class _List(Kind):
    def __init__(self, item: Kind) -> None:
        self._item = item

    def said(self, value: Any) -> Any:
        return [self._item.said(item) for item in value]

    def meant(self, value: Any) -> Any:
        return [self._item.meant(item) for item in value]


class _Map(Kind):
    def __init__(self, item: Kind) -> None:
        self._item = item

    def said(self, value: Any) -> Any:
        return {key: self._item.said(item) for key, item in value.items()}

    def meant(self, value: Any) -> Any:
        return {key: self._item.meant(item) for key, item in value.items()}


class _Nullable(Kind):
    def __init__(self, of: Kind) -> None:
        self._of = of

    def said(self, value: Any) -> Any:
        return None if value is None else self._of.said(value)

    def meant(self, value: Any) -> Any:
        return None if value is None else self._of.meant(value)


class _Record(Kind):
    def __init__(self) -> None:
        self.fields: dict[str, Kind] = {}

    def said(self, value: Any) -> Any:
        return {name: kind.said(value[name]) for name, kind in self.fields.items()}

    def meant(self, value: Any) -> Any:
        return {name: kind.meant(value[name]) for name, kind in self.fields.items()}


_PLAIN = frozenset(("null", "boolean", "int", "long", "double", "string"))


def kind_of(schema: Any) -> Kind:
    """The kind of a schema. Raises ``ValueError``, or whatever its JSON is not fit for."""
    return _Kinds().of(schema, "")


class _Kinds:
    """One schema being read; named types are known from where they were begun."""

    def __init__(self) -> None:
        self._named: dict[str, Kind] = {}

    def of(self, schema: Any, space: str) -> Kind:
        if isinstance(schema, str):
            full = schema if "." in schema or not space else f"{space}.{schema}"
            return self._named.get(full) or self._named.get(schema) or _scalar(schema, {})
        if isinstance(schema, list):
            inner = [branch for branch in schema if branch != "null"]
            if len(inner) != 1 or len(schema) != 2:
                raise ValueError("a union is of null and one other type")
            return _Nullable(self.of(inner[0], space))
        match schema["type"]:
            case "array":
                return _List(self.of(schema["items"], space))
            case "map":
                return _Map(self.of(schema["values"], space))
            case "record":
                return self._record(schema, space)
            case "enum":
                return self._begun(schema, space, Kind())
            case "fixed":
                return self._begun(schema, space, _Bytes())
            case str() as name:
                return _scalar(name, schema)
            case nested:
                return self.of(nested, space)

    def _begun(self, schema: Mapping[str, Any], space: str, kind: Kind) -> Kind:
        self._named[_full(schema, space)] = kind
        return kind

    def _record(self, schema: Mapping[str, Any], space: str) -> Kind:
        record, inner = _Record(), _full(schema, space).rpartition(".")[0]
        self._begun(schema, space, record)
        for field in schema["fields"]:
            record.fields[field["name"]] = self.of(field["type"], inner)
        return record


def _full(schema: Mapping[str, Any], space: str) -> str:
    name: str = schema["name"]
    own = schema.get("namespace", space)
    return name if "." in name or not own else f"{own}.{name}"


def _scalar(name: str, schema: Mapping[str, Any]) -> Kind:
    mark, logical = schema.get("json"), str(schema.get("logicalType", ""))
    word, _, unit = logical.removeprefix("local-").partition("-")
    if mark == "any":
        return _Any()
    if word == "timestamp" and mark != "number":
        return _Moment(_NANOS[unit], logical.startswith("local-"))
    if word == "time" and mark != "number":
        return _Hour(_NANOS[unit])
    if word == "date" and mark != "number":
        return _Date()
    if logical == "decimal":
        return _Decimal(schema.get("scale", 0))
    if name in ("bytes", "float"):
        return _Bytes() if name == "bytes" else _Narrow()
    if name not in _PLAIN:
        raise ValueError(f"the type {name} is unknown")
    return Kind()
