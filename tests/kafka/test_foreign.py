"""Records that other programs write with plain clients, as the log gives them to the engine."""

from __future__ import annotations

from penstock.engine.unit import KEY_BYTES as UNITS_KEY_BYTES
from penstock.engine.unit import admitted
from penstock.log.kafka_headers import KEY_BYTES, Reader
from penstock.ports import TopicSpec
from tests.kafka.rig import Desk

STEPS = TopicSpec(name="steps", partitions=1)
ACCEPTS = {"steps": ("step.taken", 1)}
SENT = {
    "key": b"k", "value": b'{"n":1}',
    "headers": [
        ("ce_specversion", b"1.0"), ("ce_id", b"A-17"), ("ce_source", b"/till"),
        ("ce_type", b"com.till.sold"), ("ce_time", b"2026-11-25T08:00:00Z"), ("shop", b"7"),
    ],
}  # fmt: skip


def test_a_cloudevent_of_another_maker_sent_twice_is_one_event(desk: Desk) -> None:
    log = desk.log(STEPS)
    other = {**SENT, "headers": [("ce_id", b"A-18"), ("ce_source", b"/till")]}
    desk.produce("steps", SENT, SENT, other)
    raw = log.read("steps", 0, 0, 10)
    assert {r.message.type for r in raw} == {""}
    first, again, third = (admitted(ACCEPTS, record).message for record in raw)
    assert (first.type, first.version, first.source) == ("step.taken", 1, "/till")
    assert first.notes == {"shop": "7"}
    assert len(first.id) == 16
    assert first.id == again.id != third.id


def test_records_without_headers_are_events_of_their_own(desk: Desk) -> None:
    log = desk.log(STEPS)
    desk.produce("steps", *({"key": b"k", "value": b'{"n":1}'},) * 2)
    one, two = (admitted(ACCEPTS, record).message for record in log.read("steps", 0, 0, 10))
    assert one.id != two.id
    again = admitted(ACCEPTS, log.read("steps", 0, 1, 1)[0]).message
    assert again.id == two.id, "another look at the same place is the same event"


def test_odd_records_stop_nothing(desk: Desk) -> None:
    """No key, a key that is no text, no value, nothing at all: each is there with its bytes."""
    log = desk.log(STEPS)
    desk.produce(
        "steps", {"value": b"x"}, {"key": b"\xff\x00", "value": b"y"}, {"key": b"k"}, {},
    )  # fmt: skip
    found = [(r.message.key, r.message.value) for r in log.read("steps", 0, 0, 10)]
    assert found == [("", b"x"), ("\\xff\\x00", b"y"), ("k", b""), ("", b"")]
    admitted_types = [admitted(ACCEPTS, r).message.type for r in log.read("steps", 0, 0, 10)]
    assert admitted_types == ["", "", "step.taken", ""]


def test_engine_and_log_mean_the_same_note() -> None:
    assert UNITS_KEY_BYTES == KEY_BYTES
    assert Reader().message(b"\xff", b"", None).notes == {KEY_BYTES: "ff"}
