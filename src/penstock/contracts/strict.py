"""The one strict decoder of every entrance: JSON bytes to a typed value, or a named refusal.

msgspec takes duplicate keys silently (the last one wins), skips unknown fields without looking
for broken text in them, and recurses as deep as the input. An entrance must not: what one reader
takes and another refuses is how an amount changes between a check and its use. So the text is
scanned once more, by the C scanner of the standard library and a few passes of ``bytes`` methods;
every step is O(size) and Python runs per object, never per character. The slow scan, which looks
at each number, runs only where a pass found something suspicious; the path of what is wrong is
looked for only once something is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from functools import lru_cache
from itertools import accumulate
from json import JSONDecodeError, JSONDecoder
from typing import Any, NoReturn, TypeVar, cast

import msgspec

from penstock.errors import Problem
from penstock.limits import BODY_BYTES_MAX, DEPTH_MAX, DIGITS_MAX

Value = TypeVar("Value")

NOT_UTF8, TOO_LARGE, TOO_DEEP = "not_utf8", "too_large", "too_deep"
NOT_JSON, DUPLICATE_KEY, LONE_SURROGATE = "not_json", "duplicate_key", "lone_surrogate"
NOT_FINITE, NUMBER_TOO_LONG = "number_not_finite", "number_too_long"
MISSING_FIELD, UNKNOWN_FIELD, INVALID_VALUE = "missing_field", "unknown_field", "invalid_value"
CODES = frozenset(
    {NOT_UTF8, TOO_LARGE, TOO_DEEP, NOT_JSON, DUPLICATE_KEY, LONE_SURROGATE}
    | {NOT_FINITE, NUMBER_TOO_LONG, MISSING_FIELD, UNKNOWN_FIELD, INVALID_VALUE}
)


class Unreadable(Problem):
    """Bytes that came from outside and are refused; ``code`` is one of ``CODES``.

    ``field`` is the path to what is wrong (``lines[0].qty``), empty where the text as a whole is.
    """

    exit_code = 2


class _Suspect(Exception):
    """The quick scan met something that must be refused; the slow one finds where."""


def strict_json(raw: bytes, type: type[Value], *, limit_bytes: int = BODY_BYTES_MAX) -> Value:
    """``raw`` as an instance of ``type``; raises ``Unreadable``.

    Unknown fields are ignored unless the Struct says ``forbid_unknown_fields``. Refused are text
    above ``limit_bytes`` and broken UTF-8, NaN and Infinity, duplicate keys, lone surrogates,
    nesting above ``DEPTH_MAX`` and numbers of more than ``DIGITS_MAX`` characters.
    """
    _scan(raw, limit_bytes)
    try:
        return cast(Value, _decoder(cast(Hashable, type)).decode(raw))
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unreadable(NOT_JSON, f"This is no JSON: {error}.") from None


def strict_value(raw: bytes, *, limit_bytes: int = BODY_BYTES_MAX) -> Any:
    """``raw`` as plain dicts, lists and scalars under the same rules; raises ``Unreadable``."""
    return _scan(raw, limit_bytes)


@lru_cache(maxsize=256)
def _decoder(type: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(type)


def _scan(raw: bytes, limit_bytes: int) -> Any:
    """Refuse what no entrance takes, whatever the type."""
    if len(raw) > limit_bytes:
        _refuse(TOO_LARGE, f"The text has {len(raw)} bytes; at most {limit_bytes} are taken.")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        _refuse(NOT_UTF8, f"Byte {error.start} is not UTF-8.", "Send the text as UTF-8.")
    if raw.count(b"{") + raw.count(b"[") > DEPTH_MAX:
        _bound_depth(raw)
    slow = _suspicious_numbers(raw)
    try:
        value = (_SLOW if slow else _QUICK)(text)
    except JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        _refuse(NOT_JSON, f"This is no JSON at {where}: {error.msg}.")
    except _Suspect:
        _locate(text)
    if b"\\u" in raw:
        _bound_surrogates(text)
    return value


def _refuse(code: str, message: str, fix: str = "", field: str = "") -> NoReturn:
    raise Unreadable(code, message, fix, field)


# --- numbers ---------------------------------------------------------------------------------

_NUMERIC = bytes(
    ord("e") if chr(c) in "eE" else ord("0") if chr(c) in "0123456789.+-" else ord(" ")
    for c in range(256)
)
_TOO_MANY = b"0" * (DIGITS_MAX + 1)


def _suspicious_numbers(raw: bytes) -> bool:
    """Whether a number may be too long or overflow a float; strings may cry wolf."""
    shape = raw.translate(_NUMERIC)
    return b"0e" in shape or _TOO_MANY in shape


def _integer(text: str) -> int:
    if len(text) > DIGITS_MAX:
        raise _Suspect
    return int(text)


def _fraction(text: str) -> float:
    if len(text) > DIGITS_MAX:
        raise _Suspect
    value = float(text)
    if value - value != 0.0:
        raise _Suspect
    return value


# --- depth -----------------------------------------------------------------------------------

# An unclosed string runs to the end: were it no match, every quote in it would start another try.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_NO_BRACKET = bytes(c for c in range(256) if chr(c) not in "[]{}")
_STEPS = tuple({"[": 1, "{": 1, "]": -1, "}": -1}.get(chr(c), 0) for c in range(256))


def _bound_depth(raw: bytes) -> None:
    """Many brackets: drop the strings, keep the brackets, and walk those."""
    brackets = _STRING.sub(b"", raw).translate(None, _NO_BRACKET)
    if max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > DEPTH_MAX:
        _refuse(TOO_DEEP, f"The text is nested more than {DEPTH_MAX} levels deep.")


# --- surrogates ------------------------------------------------------------------------------

_ESCAPES = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.",
    re.DOTALL,
)


def _bound_surrogates(text: str) -> None:
    for found in _ESCAPES.finditer(text):
        if found[1]:
            _refuse(
                LONE_SURROGATE,
                f"Character {found.start()} is half of a surrogate pair ({found[1]}).",
                "Send the text as UTF-8, or both halves.",
            )


# --- keys, and where it went wrong -----------------------------------------------------------


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object hook of the scans: a repeated key is refused."""
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _Suspect
    return value


def _not_finite(word: str) -> NoReturn:
    raise _Suspect


def _inner(path: str, key: str) -> str:
    """The path of a key in the object at ``path``; a key without a letter still shows."""
    return f"{path}.{key}" if path else key or '""'


class _Wrong:
    """Stands for a number that is refused, while its place is looked for."""

    def __init__(self, code: str, message: str) -> None:
        self.code, self.message = code, message


class _Pairs(list[tuple[str, Any]]):
    """An object's pairs as written, repeated keys and all."""


def _wrong_constant(word: str) -> _Wrong:
    return _Wrong(NOT_FINITE, f"{word} is no JSON number.")


def _wrong_number(text: str) -> _Wrong | None:
    if len(text) > DIGITS_MAX:
        return _Wrong(NUMBER_TOO_LONG, f"A number has more than {DIGITS_MAX} characters.")
    if abs(float(text)) == float("inf"):
        return _Wrong(NOT_FINITE, f"{text} does not fit into a double.")
    return None


_QUICK: Callable[[str], Any] = JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_not_finite
).decode
_SLOW: Callable[[str], Any] = JSONDecoder(
    object_pairs_hook=_unique,
    parse_constant=_not_finite,
    parse_int=_integer,
    parse_float=_fraction,
).decode
_LOCATING: Callable[[str], Any] = JSONDecoder(
    object_pairs_hook=_Pairs,
    parse_constant=_wrong_constant,
    parse_int=_wrong_number,
    parse_float=_wrong_number,
).decode


def _locate(text: str) -> NoReturn:
    """Parse once more, keeping what is wrong in its place, and name the first such place."""
    try:
        tree = _LOCATING(text)
    except JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        _refuse(NOT_JSON, f"This is no JSON at {where}: {error.msg}.")
    _look(tree, "")
    raise AssertionError("the quick scan refused what the slow one takes")


def _look(node: Any, path: str) -> None:
    """Depth-first in the order written; the depth is bounded before."""
    if isinstance(node, _Wrong):
        _refuse(node.code, f"{node.message}", field=path)
    if isinstance(node, _Pairs):
        _look_into(node, path)
    elif isinstance(node, list):
        for at, item in enumerate(node):
            _look(item, f"{path}[{at}]")


def _look_into(pairs: _Pairs, path: str) -> None:
    seen: set[str] = set()
    for key, value in pairs:
        inner = _inner(path, key)
        if key in seen:
            _refuse(
                DUPLICATE_KEY,
                f"The key {key!r} is there twice in one object.",
                "Send it once: readers disagree on which one counts.",
                inner,
            )
        seen.add(key)
        _look(value, inner)


# --- what msgspec says -----------------------------------------------------------------------

_AT = re.compile(r"(?s)(.*?)(?: - at `(?:key in )?\$\.?(.*?)`)?")
_NAMED = re.compile(r"Object (missing required|contains unknown) field `(.*)`", re.DOTALL)


def _invalid(said: str) -> Unreadable:
    """msgspec's sentence as a refusal that names the field."""
    parts = _AT.fullmatch(said)
    assert parts is not None, said
    message, path = parts[1], parts[2] or ""
    named = _NAMED.fullmatch(message)
    if named is None:
        return Unreadable(INVALID_VALUE, f"{message}.", field=path)
    inner = _inner(path, named[2])
    if named[1] == "missing required":
        return Unreadable(MISSING_FIELD, f"The field {inner} is required.", field=inner)
    return Unreadable(
        UNKNOWN_FIELD, f"There is no field {inner}.", "Leave it out or mend its name.", inner
    )
