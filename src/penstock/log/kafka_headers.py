"""A message as a Kafka record's headers, and back: CloudEvents 1.0 in Kafka's binary mode.

What penstock writes comes back exactly. What others write comes back without a type: its bytes
as they are, its headers as notes, so that a contract may open it where the catalog says how, and
it is parked otherwise. ``docs/reference/kafka.md`` tells the headers to readers in other
languages. Every header costs the client 0.4 us on its way there and back, so constant ones are
made once, and what a message does not have is left out.
"""

from __future__ import annotations

from binascii import Error as NotHex
from binascii import hexlify, unhexlify
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from penstock.event import Message, Origin

Header = tuple[str, bytes]

SPEC, ID, TYPE, SOURCE, TIME = "ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time"
CONTENT, SCHEMA, TRACE, NOTE = "content-type", "penstock-schema", "traceparent", "penstock-note-"
ORIGIN = "penstock-origin"  # what caused it, and the transaction and epoch that made it
UNTIMED = "penstock-at"  # a time that RFC 3339 cannot say
SOURCELESS = "penstock-sourceless"  # CloudEvents wants a source where the message has none
KEY_BYTES = "penstock-key"  # note of a record whose key is no text: the key in hex
NO_SOURCE = b"/"
JSON, AVRO = b"application/json", b"application/avro"
SPEC_VERSION = b"1.0"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME_MAX = 253_402_300_799_999  # the last millisecond of the year 9999
_MEMORY_MAX = 4096
_PLAIN = frozenset(
    {SPEC, ID, TYPE, SOURCE, TIME, CONTENT, SCHEMA, TRACE, ORIGIN, UNTIMED, SOURCELESS}
)
_STORED_MAX = (1 << 63) - 1  # of a number, in waiting rows
_USUAL = 8  # CloudEvents' version, type, source, id and time, schema, content type, origin


class Unreadable(Exception):
    """Headers that penstock did not write."""


def timestamp(at: int) -> bytes:
    """A time in milliseconds, not before 1970, as RFC 3339 with three digits of the second."""
    moment = _EPOCH + timedelta(milliseconds=at)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{at % 1000:03d}Z".encode()


def moment(text: str) -> int:
    """Milliseconds of an RFC 3339 time. Raises ``ValueError``."""
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError(f"{text} names no time zone")
    return (found - _EPOCH) // timedelta(milliseconds=1)


class Writer:
    """Makes the headers of messages of one content type; threads do not share one."""

    def __init__(self, content: bytes = JSON) -> None:
        self._content = content
        self._constant: dict[tuple[str, int, str], list[Header]] = {}
        self._times: dict[int, Header] = {}

    def headers(self, m: Message, origin: Origin | None = None) -> list[Header]:
        """The headers of a message, and of the transaction that made it."""
        headers = self._constant.get((m.type, m.version, m.source)) or self._constants(m)
        if m.id and m.at and m.cause and origin is not None:  # nearly all of ours
            at = self._times.get(m.at) or self._time(m.at)
            made = b"%b-%d.%d" % (hexlify(m.cause), *origin)
            headers = [*headers, (ID, hexlify(m.id)), at, (ORIGIN, made)]
        else:
            headers = [*headers, *self._some(m, origin)]
        if m.trace:
            headers.append((TRACE, m.trace.encode()))
        if m.notes:
            headers += ((NOTE + _escaped(name), said.encode()) for name, said in m.notes.items())
        return headers

    def _some(self, m: Message, origin: Origin | None) -> Iterator[Header]:
        if m.id:
            yield ID, hexlify(m.id)
        if m.at:
            yield self._time(m.at)
        if m.cause or origin is not None:
            made = b"" if origin is None else b"-%d.%d" % origin
            yield ORIGIN, hexlify(m.cause) + made

    def _constants(self, m: Message) -> list[Header]:
        if len(self._constant) >= _MEMORY_MAX:
            self._constant.clear()
        headers = [] if not m.type else [(SPEC, SPEC_VERSION), (TYPE, m.type.encode())]
        # Always, for by it ours are known: others have CloudEvents' headers, too.
        headers.append((SCHEMA, f"{m.type}/{m.version}".encode()))
        if m.source:
            headers.append((SOURCE, m.source.encode()))
        elif m.type:
            headers += ((SOURCE, NO_SOURCE), (SOURCELESS, b""))
        if m.type:
            headers.append((CONTENT, self._content))
        self._constant[m.type, m.version, m.source] = headers
        return headers

    def _time(self, at: int) -> Header:
        if len(self._times) >= _MEMORY_MAX:
            self._times.clear()
        said = (TIME, timestamp(at)) if 0 <= at <= _TIME_MAX else (UNTIMED, b"%d" % at)
        self._times[at] = said
        return said


def _escaped(name: str) -> str:
    """A note's name without the one character that ends a name in the client library."""
    return name.replace("%", "%25").replace("\0", "%00") if "%" in name or "\0" in name else name


def _unescaped(name: str) -> str:
    return name.replace("%00", "\0").replace("%25", "%") if "%" in name else name


class Reader:
    """Makes messages of records; threads do not share one."""

    def __init__(self) -> None:
        self._schemas: dict[bytes, tuple[str, int]] = {}
        self._texts: dict[bytes, str] = {}
        self._times: dict[bytes, int] = {}

    def message(
        self, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]] | None
    ) -> Message:
        """The message in a record; one that penstock cannot have written has no type and no id."""
        try:
            name = key.decode()  # type: ignore[union-attr]
            if "\0" in name or value is None:
                raise Unreadable
            return self._ours(name, value, headers) if headers else Message(name, value)
        except (AttributeError, KeyError, NotHex, TypeError, Unreadable, ValueError):
            return foreign(key, value, headers)  # (a header without a value is a None)

    def _ours(self, key: str, value: bytes, headers: Sequence[tuple[str, bytes]]) -> Message:
        h = dict(headers)
        try:  # nearly all of ours say all of this
            schema, id_, time, origin, source = h[SCHEMA], h[ID], h[TIME], h[ORIGIN], h[SOURCE]
        except KeyError:
            return self._sparse(key, value, headers, h)
        type_, version = self._schemas.get(schema) or self._schema(schema)
        plain = len(headers) == _USUAL and TYPE in h and SPEC in h and CONTENT in h
        return Message(
            key, value, unhexlify(id_), type_, version,
            self._times.get(time) or self._time(time), unhexlify(origin.partition(b"-")[0]),
            "" if plain or TRACE not in h else h[TRACE].decode(),
            self._texts.get(source) or self._text(source, h), None if plain else _notes(headers),
        )

    def _sparse(
        self, key: str, value: bytes, headers: Sequence[tuple[str, bytes]], h: dict[str, bytes]
    ) -> Message:
        """A message of ours that says less than most."""
        type_, version = self._schema(h[SCHEMA])
        at = self._time(h[TIME]) if TIME in h else _stored(int(h.get(UNTIMED, 0)))
        return Message(
            key, value, unhexlify(h.get(ID, b"")), type_, version, at,
            unhexlify(h.get(ORIGIN, b"").partition(b"-")[0]), h.get(TRACE, b"").decode(),
            self._text(h[SOURCE], h) if type_ or SOURCE in h else "", _notes(headers),
        )

    def _schema(self, said: bytes) -> tuple[str, int]:
        type_, _, version = said.decode().rpartition("/")
        if len(self._schemas) >= _MEMORY_MAX:
            self._schemas.clear()
        self._schemas[said] = type_, _stored(int(version))
        return self._schemas[said]

    def _text(self, said: bytes, h: dict[str, bytes]) -> str:
        if said == NO_SOURCE:  # never remembered: what it means stands beside it
            return "" if SOURCELESS in h else "/"
        if len(self._texts) >= _MEMORY_MAX:
            self._texts.clear()
        self._texts[said] = said.decode()
        return self._texts[said]

    def _time(self, said: bytes) -> int:
        if len(self._times) >= _MEMORY_MAX:
            self._times.clear()
        self._times[said] = moment(said.decode())
        return self._times[said]


def _stored(number: int) -> int:
    """A number that every store can keep."""
    if abs(number) > _STORED_MAX:
        raise Unreadable
    return number


def _notes(headers: Sequence[tuple[str, bytes]]) -> dict[str, str] | None:
    """Our notes, and what others added on the way (a tracer, a gateway) under its own name."""
    notes: dict[str, str] = {}
    for name, said in headers:
        if name.startswith(NOTE):
            notes[_unescaped(name[len(NOTE) :])] = said.decode()
        elif name not in _PLAIN:
            notes[name] = said_text(said)
    return notes or None


def said_text(said: bytes | None) -> str:
    """A header's value as text; bytes that are none stay readable."""
    return "" if said is None else readable(said)


def readable(raw: bytes) -> str:
    """Any bytes as a text that every store takes: no half characters, no NUL."""
    return raw.decode(errors="backslashreplace").replace("\0", "\\x00")


def foreign(
    key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]] | None
) -> Message:
    """A record of somebody else: no type, its headers as notes; the raw key among them where it
    is no text."""
    notes = {name: said_text(said) for name, said in headers or ()}
    name = "" if key is None else readable(key)
    if key is not None and name.encode() != key:
        notes[KEY_BYTES] = key.hex()
    return Message(name, b"" if value is None else value, notes=notes or None)
