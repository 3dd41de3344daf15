"""The strict decoder: what no entrance takes, where it is, and that looking costs O(size)."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from penstock.contracts.strict import CODES, Unreadable, strict_json, strict_value
from penstock.limits import BODY_BYTES_MAX, DEPTH_MAX, DIGITS_MAX


class Line(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    sku: str
    qty: int


class Order(Struct, frozen=True, kw_only=True):
    order_id: str
    lines: tuple[Line, ...] = ()
    weight: float = 0.0
    extra: dict[str, msgspec.Raw] = {}


GOOD = b'{"order_id":"o-1","lines":[{"sku":"A","qty":2}],"weight":1.5e3}'


def refusal(raw: bytes, type: Any = Order, **limits: int) -> Unreadable:
    with pytest.raises(Unreadable) as caught:
        strict_json(raw, type, **limits)
    return caught.value


def test_a_good_order_is_read_as_its_class() -> None:
    order = strict_json(GOOD, Order)
    assert order == Order(order_id="o-1", lines=(Line(sku="A", qty=2),), weight=1500.0)


@pytest.mark.parametrize(
    ("raw", "code", "field"),
    [
        (b'{"order_id":"a","order_id":"b"}', "duplicate_key", "order_id"),
        (b'{"order_id":"a","lines":[{},{"qty":1,"qty":2}]}', "duplicate_key", "lines[1].qty"),
        (b'{"order_id":"a","x":{"y":1,"\\u0079":2}}', "duplicate_key", "x.y"),
        (b'{"order_id":"a","weight":NaN}', "number_not_finite", "weight"),
        (b'{"order_id":"a","ignored":[1,-Infinity]}', "number_not_finite", "ignored[1]"),
        (b'{"order_id":"a","extra":{"a":1e999}}', "number_not_finite", "extra.a"),
        (b'{"order_id":"a","x":' + b"9" * 31 + b"}", "number_too_long", "x"),
        (b'{"order_id":"a","x":[0.' + b"1" * 40 + b"]}", "number_too_long", "x[0]"),
        (b'{"order_id":"a","x":"\\ud800"}', "lone_surrogate", ""),
        (b'{"order_id":"a","x":"\\ude00\\ud83d"}', "lone_surrogate", ""),
        (b'{"order_id":"a","x":"\xff"}', "not_utf8", ""),
        (b'\xef\xbb\xbf{"order_id":"a"}', "not_json", ""),
        (b'{"order_id":"a"} x', "not_json", ""),
        (b'{"order_id":"a",}', "not_json", ""),
        (b'{"order_id":"a\n"}', "not_json", ""),
        (b"", "not_json", ""),
        (b'{"order_id":7}', "invalid_value", "order_id"),
        (b'{"order_id":"a","lines":[{"sku":"A","qty":"2"}]}', "invalid_value", "lines[0].qty"),
        (b'{"order_id":"a","lines":[{"sku":"A"}]}', "missing_field", "lines[0].qty"),
        (b"{}", "missing_field", "order_id"),
        (b'{"order_id":"a","lines":[{"sku":"A","qty":1,"z":2}]}', "unknown_field", "lines[0].z"),
        (b"[]", "invalid_value", ""),
    ],
)
def test_what_is_wrong_is_named_with_its_place(raw: bytes, code: str, field: str) -> None:
    error = refusal(raw)
    assert (error.code, error.field) == (code, field)
    assert error.message
    assert error.code in CODES


def test_both_halves_of_a_surrogate_pair_are_text() -> None:
    assert strict_value(b'["\\ud83d\\ude00","\\\\ud800"]') == ["\U0001f600", "\\ud800"]


def test_long_digit_runs_in_text_are_no_numbers() -> None:
    raw = b'{"order_id":"' + b"1" * 60 + b'e5","x":"2e9"}'
    assert strict_json(raw, Order).order_id == "1" * 60 + "e5"


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_depth_is_bounded_exactly(opening: bytes) -> None:
    closing = b"]" if opening == b"[" else b"}"
    deep = opening * DEPTH_MAX + b"1" + closing * DEPTH_MAX
    assert strict_value(deep)
    assert refusal(opening + deep + closing, Any).code == "too_deep"


def test_brackets_in_text_do_not_hide_depth_nor_make_it() -> None:
    inside = b'"]]]]\\"]]]]",'
    deep = (b"[" + inside) * (DEPTH_MAX + 1) + b"1" + b"]" * (DEPTH_MAX + 1)
    assert refusal(deep, Any).code == "too_deep"
    assert strict_value(b'["' + b"[" * 5000 + b'"]') == ["[" * 5000]


def test_many_flat_objects_are_not_deep() -> None:
    assert len(strict_value(b"[" + b",".join([b'{"a":[1]}'] * 500) + b"]")) == 500


def test_an_unclosed_string_of_brackets_is_refused() -> None:
    assert refusal(b'["' + b"[" * 100, Any).code in {"not_json", "too_deep"}


def test_size_is_bounded_by_the_caller() -> None:
    assert refusal(GOOD, limit_bytes=10).code == "too_large"
    assert refusal(b" " * (BODY_BYTES_MAX + 1)).code == "too_large"


def test_a_number_at_the_bound_is_taken() -> None:
    assert strict_value(b"9" * DIGITS_MAX) == int("9" * DIGITS_MAX)


HOSTILE = {
    "duplicates": lambda n: b"{" + b",".join([b'"a":1'] * n) + b"}",
    "keys": lambda n: b"{" + b",".join(b'"%d":1' % i for i in range(n)) + b"}",
    "digits": lambda n: b"9" * (6 * n),
    "opened": lambda n: b"[" * (6 * n),
    "escapes": lambda n: b'"' + b"\\\\" * (3 * n) + b"\\u0041" + b'"',
    "quotes": lambda n: b'["' + b'\\"[' * (2 * n),
    "open end": lambda n: b'["' + b'\\"[' * (2 * n) + b"\\",
    "exponents": lambda n: b"[" + b",".join([b"1e5"] * n) + b"]",
}


@pytest.mark.parametrize("shape", HOSTILE)
def test_hostile_text_costs_no_more_than_its_size(shape: str) -> None:
    raw = HOSTILE[shape](20_000)
    start = time.process_time()
    with suppress(Unreadable):
        strict_value(raw, limit_bytes=len(raw))
    # Some 10 ms where every step is O(size); a quadratic one takes 20 seconds and more.
    assert time.process_time() - start < 1.0


scalars = st.none() | st.booleans() | st.integers(-(10**28), 10**28) | st.text()
values = st.recursive(
    scalars | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(values, st.booleans())
def test_every_value_json_can_write_is_read_back(value: Any, ascii_only: bool) -> None:
    assert strict_value(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(st.binary(max_size=60))
def test_any_bytes_give_a_value_or_one_refusal(raw: bytes) -> None:
    said = "taken"
    try:
        strict_json(raw, Any)
    except Unreadable as error:
        said = error.code
    assert said in CODES | {"taken"}
