"""What a strict JSON text is, said slowly and a second time: with the standard library alone."""

from __future__ import annotations

import json
import math
from functools import partial
from typing import Any

from penstock.contracts.strict import CODES, Unreadable, strict_json, strict_value
from penstock.flows.orders.requests import OrderIn
from penstock.limits import DEPTH_MAX, DIGITS_MAX
from tests.fuzz.tried import tried

SIZE_MAX = 1 << 16


class Twice(Exception):
    """A key is there twice in one object."""


class Long(Exception):
    """A number has too many characters."""


class Endless(Exception):
    """A number is NaN, or no double holds it."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise Twice
    return dict(pairs)


def _number(text: str) -> Any:
    if len(text) > DIGITS_MAX:
        raise Long
    value = int(text) if text.lstrip("-").isdigit() else float(text)
    if isinstance(value, float) and not math.isfinite(value):
        raise Endless
    return value


def _constant(word: str) -> Any:
    raise Endless


def depth(text: str) -> int:
    """How deep the brackets outside of strings go."""
    deepest = level = 0
    inside = escaped = False
    for letter in text:
        if inside:
            inside = escaped or letter != '"'
            escaped = letter == "\\" and not escaped
        elif letter == '"':
            inside = True
        elif letter in "[{":
            level += 1
            deepest = max(deepest, level)
        elif letter in "]}":
            level -= 1
    return deepest


def has_half(value: Any) -> bool:
    """Whether a text somewhere in it holds half of a surrogate pair."""
    if isinstance(value, str):
        return any("\ud800" <= letter <= "\udfff" for letter in value)
    if isinstance(value, dict):
        return any(has_half(part) for pair in value.items() for part in pair)
    return isinstance(value, list) and any(map(has_half, value))


def slowly(raw: bytes) -> tuple[set[str], Any]:
    """The codes that may be said of a text (none: it is strict JSON), and its value."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return {"not_utf8"}, None
    codes = {"too_deep"} if depth(text) > DEPTH_MAX else set()
    try:
        loose = json.loads(text)
    except RecursionError:
        return codes | {"not_json"}, None
    except ValueError as error:
        said = "number_too_long" if "digits" in str(error) else "not_json"
        return codes | {said, "not_json"}, None
    codes |= {"lone_surrogate"} if has_half(loose) else set()
    try:
        value = json.loads(
            text, object_pairs_hook=_pairs, parse_int=_number, parse_float=_number,
            parse_constant=_constant,
        )
    except (Twice, Long, Endless):
        return codes | {"duplicate_key", "number_too_long", "number_not_finite"}, None
    return codes, value


def agree(raw: bytes) -> None:
    """The strict decoder takes exactly what the slow reading takes, and means the same."""
    codes, value = slowly(raw)
    quick, refused = tried((Unreadable,), partial(strict_value, limit_bytes=SIZE_MAX), raw)
    if refused is not None:
        assert refused.code in CODES
        assert len(raw) > SIZE_MAX or refused.code in codes, f"{refused.code}, not of {codes}"
        _typed(raw, refused.code)
        return
    assert not codes, f"taken, though {codes}"
    assert quick == value
    assert strict_json(raw, object, limit_bytes=SIZE_MAX) == value, "msgspec reads it otherwise"
    _typed(raw, "")


def _typed(raw: bytes, code: str) -> None:
    """As an order: the same refusal, or one that names what is wrong with it."""
    read = partial(strict_json, limit_bytes=SIZE_MAX)
    _, refused = tried((Unreadable,), read, raw, OrderIn)
    if refused is None:
        assert not code, "taken as an order, refused as plain JSON"
    elif code:
        assert refused.code == code
    else:
        assert refused.code in ("missing_field", "unknown_field", "invalid_value")
        assert refused.code == "invalid_value" or refused.field, refused.message
