"""A contract's values in Avro's binary form, and back to the JSON that the engine knows.

JSON is read into the types that the schema's marks name (base64 to bytes, RFC 3339 to a moment),
so what comes back is what msgspec would have written of the same value: the same fields in the
same order. Two things are told apart by JSON and not by Avro: a moment comes back in UTC, and a
``float`` of 32 bits as near as it gets.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from decimal import Context, Decimal
from functools import partial
from io import BytesIO
from struct import pack
from typing import Any

import fastavro
import msgspec
from msgspec import Raw, Struct

from penstock.contracts import avro
from penstock.contracts.avro import Schema, Type, fingerprint, shape
from penstock.errors import Malformed, Problem
from penstock.limits import TEXT_CHARS_MAX

MAGIC = b"\x00"  # what Confluent's serializers begin with; the schema's id follows in 4 bytes
HEAD_BYTES = 5
ID_MAX = (1 << 31) - 1
_MEANINGS = ("logicalType", "precision", "scale")
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
_ENCODE = msgspec.json.Encoder().encode
_WRONG = (
    msgspec.MsgspecError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError,
    RecursionError, AttributeError, fastavro.schema.SchemaParseException,
    fastavro.read.SchemaResolutionError,
)  # fmt: skip

Change = Callable[[Any], Any]


class Written(Struct, frozen=True):
    """A schema that somebody wrote with, ready to read by."""

    parsed: Any


def written(schema: Any) -> Written:
    """The schema in the JSON of an ``.avsc`` file. Raises ``Malformed`` where it is none."""
    try:
        return Written(fastavro.parse_schema(_bare(schema), named_schemas={}, _write_hint=False))
    except _WRONG as error:
        raise Malformed(f"no Avro schema: {error}"[:TEXT_CHARS_MAX]) from None


def _bare(schema: Any) -> Any:
    """The schema without what values mean: bytes and numbers are read as they lie there."""
    if isinstance(schema, list):
        return [_bare(branch) for branch in schema]
    if not isinstance(schema, Mapping):
        return schema
    out = {key: value for key, value in schema.items() if key not in _MEANINGS}
    for key in ("type", "items", "values"):
        if key in out:
            out[key] = _bare(out[key])
    if "fields" in out:
        out["fields"] = [{**field, "type": _bare(field["type"])} for field in out["fields"]]
    return out


def stable_id(schema: Schema) -> int:
    """The id of a schema where no registry gives one: 31 bits of its fingerprint."""
    return int(fingerprint(schema)[:8], 16) & ID_MAX


def prefixed(id_: int, body: bytes) -> bytes:
    """A value as Confluent's deserializers expect it."""
    return MAGIC + id_.to_bytes(4, "big") + body


def schema_id(raw: bytes) -> int | None:
    """The id a value begins with; None for one without the prefix."""
    if len(raw) < HEAD_BYTES or raw[:1] != MAGIC:
        return None
    return int.from_bytes(raw[1:HEAD_BYTES], "big")


class Codec:
    """Writes and reads values of one schema. Raises ``Problem`` for one that refers to itself."""

    def __init__(self, schema: Schema) -> None:
        self.schema, self.own = schema, written(shape(schema))
        walk = _Walk(schema)
        self._decode = msgspec.json.Decoder(walk.kind(schema.root)).decode
        self._down, self._up = walk.down(schema.root), walk.up(schema.root)

    def write(self, raw: bytes) -> bytes:
        """Avro of JSON. Raises ``Malformed``."""
        out = BytesIO()
        try:
            fastavro.schemaless_writer(out, self.own.parsed, _done(self._down, self._decode(raw)))
        except _WRONG as error:
            raise Malformed(f"the value does not fit: {error}"[:TEXT_CHARS_MAX]) from None
        return out.getvalue()

    def read(self, raw: bytes, writer: Written | None = None) -> bytes:
        """JSON of Avro that was written with this schema, or with ``writer``. Raises
        ``Malformed``."""
        source = BytesIO(raw)
        other = writer is not None and writer != self.own
        try:
            found = fastavro.schemaless_reader(
                source, writer.parsed if other and writer else self.own.parsed,
                self.own.parsed if other else None,
            )  # fmt: skip
            if source.read(1):
                raise ValueError("bytes are left over")
            return _ENCODE(_done(self._up, found))
        except _WRONG as error:
            raise Malformed(f"the value cannot be read: {error}"[:TEXT_CHARS_MAX]) from None


def _done(change: Change | None, value: Any) -> Any:
    return value if change is None else change(value)


class _Walk:
    """From a schema to the types JSON is read into, and to functions between them and Avro's
    plain values; None is the function that changes nothing."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._kinds: dict[str, Any] = {}
        self._inside: list[str] = []

    def _entered(self, name: str) -> None:
        if name in self._inside:
            raise Problem(
                "contract_recursive", f"{name} refers to itself, which cannot be read back.",
                "Leave its topic in JSON.",
            )  # fmt: skip
        self._inside.append(name)

    def kind(self, type: Type) -> Any:
        """The Python type that JSON of this type is read into."""
        match self._schema.at(type):
            case avro.Scalar() as scalar:
                return _scalar_kind(scalar)
            case avro.Array(items=inner):
                return list[self.kind(inner)]  # type: ignore[misc]
            case avro.Map(values=inner):
                return dict[str, self.kind(inner)]  # type: ignore[misc]
            case avro.Nullable(of=inner):
                return self.kind(inner) | None
            case avro.Enum():
                return str
            case avro.Fixed():
                return bytes
            case avro.Record() as record:
                return self._record_kind(record)

    def _record_kind(self, record: avro.Record) -> Any:
        if record.name not in self._kinds:
            self._entered(record.name)
            names = {f"f{n}": field.name for n, field in enumerate(record.fields)}
            made = msgspec.defstruct(
                record.name.rpartition(".")[2],
                [(f"f{n}", self.kind(field.type)) for n, field in enumerate(record.fields)],
                rename=names,
            )
            self._kinds[record.name] = made
            self._inside.pop()
        return self._kinds[record.name]

    def down(self, type: Type) -> Change | None:
        """From what JSON was read into to what Avro's writer takes."""
        match self._schema.at(type):
            case avro.Scalar() as scalar:
                return _scalar_down(scalar)
            case avro.Array(items=inner):
                return _each(self.down(inner))
            case avro.Map(values=inner):
                return _each_value(self.down(inner))
            case avro.Nullable(of=inner):
                return _unless_null(self.down(inner))
            case avro.Record() as record:
                pairs = [
                    (f.name, f"f{n}", self.down(f.type)) for n, f in enumerate(record.fields)
                ]
                return lambda value: {
                    name: _done(change, getattr(value, own)) for name, own, change in pairs
                }
        return None

    def up(self, type: Type) -> Change | None:
        """From what Avro's reader gives to what is written as JSON."""
        match self._schema.at(type):
            case avro.Scalar() as scalar:
                return _scalar_up(scalar)
            case avro.Array(items=inner):
                return _each(self.up(inner))
            case avro.Map(values=inner):
                return _each_value(self.up(inner))
            case avro.Nullable(of=inner):
                return _unless_null(self.up(inner))
            case avro.Record() as record:
                changes = {f.name: up for f in record.fields if (up := self.up(f.type))}
                return _fields(changes) if changes else None
        return None


def _each(change: Change | None) -> Change | None:
    return None if change is None else lambda items: [change(item) for item in items]


def _each_value(change: Change | None) -> Change | None:
    return None if change is None else lambda items: {k: change(v) for k, v in items.items()}


def _unless_null(change: Change | None) -> Change | None:
    return None if change is None else lambda value: None if value is None else change(value)


def _fields(changes: Mapping[str, Change]) -> Change:
    def changed(value: dict[str, Any]) -> dict[str, Any]:
        return {k: changes[k](v) if k in changes else v for k, v in value.items()}

    return changed


# Scalars ---------------------------------------------------------------------------------------

_PLAIN_KINDS: Mapping[str, Any] = {
    "null": None, "boolean": bool, "int": int, "long": int, "float": float, "double": float,
    "bytes": bytes, "string": str,
}  # fmt: skip
_EXACT = Context(prec=4300)  # as many digits as Python reads; the usual one rounds to 28
_UNITS = {"millis": 1000, "micros": 1}  # microseconds in one


def _time_of(scalar: avro.Scalar) -> str:
    """``timestamp``, ``date`` or ``time`` where JSON has a text and Avro a number."""
    if scalar.logical is None or scalar.json == "number":
        return ""
    name = scalar.logical.name.removeprefix("local-").partition("-")[0]
    return name if name in ("timestamp", "date", "time") else ""


def _is_decimal(scalar: avro.Scalar) -> bool:
    return scalar.logical is not None and scalar.logical.name == "decimal"


def _scalar_kind(scalar: avro.Scalar) -> Any:
    if scalar.json == "any":
        return Raw
    if _is_decimal(scalar):
        return Decimal
    timed = {"timestamp": dt.datetime, "date": dt.date, "time": dt.time}
    return timed.get(_time_of(scalar)) or _PLAIN_KINDS[scalar.type]


def _scalar_down(scalar: avro.Scalar) -> Change | None:
    if scalar.json == "any":
        return bytes
    if _is_decimal(scalar) and scalar.logical is not None:
        return partial(_unscaled, scalar.logical.scale)
    if scalar.type == "float":
        return _narrow
    unit = _unit(scalar)
    match _time_of(scalar):
        case "timestamp":
            return lambda value: _ticks(value - _EPOCH, unit)
        case "date":
            return lambda value: value.toordinal() - _EPOCH.toordinal()
        case "time":
            return lambda value: _ticks(dt.datetime.combine(_EPOCH, value, dt.UTC) - _EPOCH, unit)
    return None


def _scalar_up(scalar: avro.Scalar) -> Change | None:
    if scalar.json == "any":
        return Raw
    if _is_decimal(scalar) and scalar.logical is not None:
        return partial(_scaled, scalar.logical.scale)
    unit = _unit(scalar)
    match _time_of(scalar):
        case "timestamp":
            return lambda ticks: _EPOCH + _elapsed(ticks, unit)
        case "date":
            return lambda days: dt.date.fromordinal(days + _EPOCH.toordinal())
        case "time":
            return lambda ticks: (_EPOCH + _elapsed(ticks, unit)).time()
    return None


def _unit(scalar: avro.Scalar) -> str:
    return scalar.logical.name.rpartition("-")[2] if scalar.logical else ""


def _ticks(since: dt.timedelta, unit: str) -> int:
    whole = since // _MICROSECOND
    return whole * 1000 if unit == "nanos" else whole // _UNITS[unit]


def _elapsed(ticks: int, unit: str) -> dt.timedelta:
    whole = ticks // 1000 if unit == "nanos" else ticks * _UNITS[unit]
    return dt.timedelta(microseconds=whole)


def _narrow(value: float) -> float:
    """A float of 32 bits. Raises ``OverflowError``: it would come back as infinity, which JSON
    cannot say."""
    pack("<f", value)
    return value


def _unscaled(scale: int, value: Decimal) -> bytes:
    whole = int(_EXACT.to_integral_exact(_EXACT.scaleb(value, scale)))
    if Decimal(f"{whole}E{-scale}") != value:
        raise ValueError(f"{value} has more than {scale} digits after the point")
    return whole.to_bytes((whole.bit_length() + 8) // 8, "big", signed=True)


def _scaled(scale: int, raw: bytes) -> Decimal:
    return Decimal(f"{int.from_bytes(raw, 'big', signed=True)}E{-scale}")
