"""Texts that not every store keeps are the failure of the record that brought them, and of no
other: a NUL, or more bytes than an index has room for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from penstock.decision import Ask, Decision, Done, Emit, Ref, Service
from penstock.engine.unit import storable
from penstock.event import Event
from penstock.limits import STORED_KEY_BYTES_MAX, VALUE_BYTES_MAX
from tests.engine.tally import (
    Noise,
    Orders,
    Pot,
    Step,
    Sum,
    Tally,
    always,
    decide,
    needs,
    steps,
    tally_rig,
)

LONG = "ü" * (STORED_KEY_BYTES_MAX // 2) + "u"


@pytest.mark.parametrize("key", ["a\0b", LONG])
def test_a_record_under_such_a_key_is_parked(key: str) -> None:
    """At once, bytes and all; an operator can discard it; the others go on."""
    rig = tally_rig()
    rig.append("steps", (key, Step(n=1)), ("k", Step(n=2)), (LONG[2:], Step(n=3)))
    rig.run()
    assert steps(rig, "k") == (2,)
    assert steps(rig, LONG[2:]) == (3,)
    (letter,) = rig.facts("tally.dead")[key]
    assert (letter.kind, letter.key) == ("malformed", key)
    assert "no document can have the key" in letter.reason


def emitting(event: Event) -> Decision:
    return Done(events=(Emit("sums", Sum(n=1, total=1), key="a\0b"),))


def asking(event: Event) -> Decision:
    return Done(asks=(Ask("clock", "a\0b", due=9_999_999_999_999),))


def test_an_event_that_no_reader_would_open_fails_where_it_is_made() -> None:
    """Kafka would not take it either, and every row behind it would wait for ever."""
    orders = Orders()
    orders.by_key["bad"] = always(
        Done(events=(Emit("sums", Noise(text="x" * VALUE_BYTES_MAX)),))
    )
    rig = tally_rig(orders=orders, attempts=1)
    rig.append("steps", ("bad", Step(n=1)), ("k", Step(n=2)))
    rig.run()
    assert steps(rig, "k") == (2,)
    (letter,) = rig.facts("tally.dead")["bad"]
    assert f"more than {VALUE_BYTES_MAX}" in letter.reason
    assert rig.records("sums") == []


@pytest.mark.parametrize("order", [emitting, asking])
def test_a_decision_with_such_a_text_fails(order: Callable[[Event], Decision]) -> None:
    """It is retried and parked as any failure is; the others of its batch are handled."""
    orders = Orders()
    orders.by_key["bad"] = order
    rig = tally_rig(orders=orders, attempts=1)
    rig.append("steps", ("bad", Step(n=1)), ("k", Step(n=2)))
    rig.run()
    assert steps(rig, "k") == (2,)
    (letter,) = rig.facts("tally.dead")["bad"]
    assert "NUL" in letter.reason


def test_a_ref_with_such_a_key_fails() -> None:
    rig = tally_rig(attempts=1)
    rig.append("steps", ("bad", Step(n=1, pots=("a\0b",))), ("k", Step(n=2, pots=("p",))))
    rig.run()
    assert steps(rig, "k") == (2,)
    assert [letter.kind for letter in rig.facts("tally.dead")["bad"]] == ["attempts_exhausted"]


def test_a_label_with_such_a_text_fails() -> None:
    def labelled(state: Any) -> str:
        return "a\0b" if state.steps == (1,) else "fine"

    service = Service(
        name="tally", kind="tally", states={"tally": Tally, "pot": Pot},
        reads={"steps": ("step.taken",)},
        decide=decide, needs=needs, labels={"tally": labelled},
    )
    rig = tally_rig(attempts=1, service=service, reads=("steps",))
    rig.append("steps", ("bad", Step(n=1)), ("k", Step(n=2)))
    rig.run()
    assert steps(rig, "k") == (2,)
    assert Ref("tally", "bad") not in rig.states("tally")


def test_what_can_be_stored() -> None:
    for text in (None, "", "k", "ключ", "x" * STORED_KEY_BYTES_MAX):
        storable(text)
    for text in ("\0", "\ud800", "x" * (STORED_KEY_BYTES_MAX + 1)):
        with pytest.raises(ValueError, match=r"."):
            storable(text)
