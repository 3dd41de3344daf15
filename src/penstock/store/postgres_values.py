"""Values for PostgreSQL in its binary form: what a statement is sent, and what comes back.

All arguments of all statements go this way: nothing is quoted, a text is sent with its length (a
NUL inside is refused by the server, not cut), and an array of thousands is one ``join``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import Struct
from typing import NamedTuple

_SHORT, _LONG, _LENGTH = Struct(">i"), Struct(">q"), Struct(">i").pack
_ITEM_SHORT, _ITEM_LONG = Struct(">ii").pack, Struct(">iq").pack
_HEAD, _EMPTY = Struct(">iiiii").pack, Struct(">iii").pack
_NULL = _LENGTH(-1)
_LENGTHS = [_LENGTH(n) for n in range(2048)]
_TRUE, _FALSE = _LENGTH(1) + b"\1", _LENGTH(1) + b"\0"

BOOL, BYTES, LONG, SHORT, TEXT = 16, 17, 20, 23, 25  # types by their number in pg_type
BOOLS, SHORTS, TEXTS, MANY_BYTES, LONGS = 1000, 1007, 1009, 1001, 1016


class Value(NamedTuple):
    """One argument: the number of its type and its bytes; None is null."""

    type: int
    raw: bytes | None


def short(number: int) -> Value:
    """An ``integer``."""
    return Value(SHORT, _SHORT.pack(number))


def long(number: int) -> Value:
    """A ``bigint``."""
    return Value(LONG, _LONG.pack(number))


def text(value: str) -> Value:
    """A ``text``."""
    return Value(TEXT, value.encode())


def truth(value: bool) -> Value:
    """A ``boolean``."""
    return Value(BOOL, b"\1" if value else b"\0")


def raw(value: bytes) -> Value:
    """A ``bytea``."""
    return Value(BYTES, value)


def shorts(numbers: Sequence[int]) -> Value:
    """An ``integer[]``."""
    return _array(SHORTS, SHORT, [_ITEM_SHORT(4, n) for n in numbers])


def longs(numbers: Sequence[int]) -> Value:
    """A ``bigint[]``."""
    return _array(LONGS, LONG, [_ITEM_LONG(8, n) for n in numbers])


def truths(values: Sequence[bool]) -> Value:
    """A ``boolean[]``."""
    return _array(BOOLS, BOOL, [_TRUE if v else _FALSE for v in values])


def texts(values: Iterable[str | None]) -> Value:
    """A ``text[]``; None is null."""
    return _varying(TEXTS, TEXT, [None if v is None else v.encode() for v in values])


def many_bytes(values: Sequence[bytes | None]) -> Value:
    """A ``bytea[]``; None is null."""
    return _varying(MANY_BYTES, BYTES, values)


def _varying(array: int, item: int, values: Sequence[bytes | None]) -> Value:
    parts: list[bytes] = []
    add, lengths, known = parts.append, _LENGTHS, len(_LENGTHS)
    nulls = False
    for value in values:
        if value is None:
            nulls = True
            add(_NULL)
            continue
        size = len(value)
        add(lengths[size] if size < known else _LENGTH(size))
        add(value)
    return _array(array, item, parts, len(values), nulls)


def _array(
    array: int, item: int, parts: list[bytes], count: int | None = None, nulls: bool = False
) -> Value:
    count = len(parts) if count is None else count
    if not count:
        return Value(array, _EMPTY(0, 0, item))
    return Value(array, b"".join((_HEAD(1, nulls, item, count, 1), *parts)))


def number_of(raw: bytes | None) -> int:
    """The number of a ``smallint``, ``integer`` or ``bigint``; 0 for null."""
    return int.from_bytes(raw, "big", signed=True) if raw else 0


def text_of(raw: bytes | None) -> str:
    """The text of a ``text`` or ``json``; empty for null."""
    return raw.decode() if raw else ""


def clean(value: str) -> str:
    """What a ``text`` column can keep of any text, for columns that people read and nobody
    relies on: the exact key of a row is in its message."""
    if "\0" in value:
        value = value.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return value if value.isascii() else value.encode(errors="replace").decode()
