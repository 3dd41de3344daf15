"""Records that somebody else wrote, without our headers, to a topic that takes such."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.event import Message, Position
from tests.engine.tally import Orders, raising, steps, tally_rig
from tests.flows.ground import Ground
from tests.flows.rig import Rig


def taking(home: Path | None = None, orders: Orders | None = None, attempts: int = 3) -> Rig:
    return tally_rig(home, orders, accepts={"steps": "step.taken/1"}, attempts=attempts)


def foreign(key: str, n: int, **notes: str) -> Message:
    return Message(key, b'{"n":%d}' % n, notes=notes or None)


def append(rig: Rig, topic: str, *messages: Message) -> None:
    rig.log.append(topic, messages, rig.clock.now())


def test_it_is_handled_where_the_catalog_says_what_it_is(ground: Ground) -> None:
    rig = taking(ground)
    append(rig, "steps", foreign("k", 1), foreign("k", 2))
    rig.run()
    assert steps(rig, "k") == (1, 2)


def test_it_is_parked_where_the_catalog_says_nothing() -> None:
    rig = taking()
    append(rig, "more", foreign("k", 1))
    rig.run()
    assert steps(rig, "k") == ()
    (row,) = rig.rows("tally", "waiting")
    assert (row.body.kind, row.body.record.message.value) == ("malformed", b'{"n":1}')


def test_one_sent_twice_is_handled_once(ground: Ground) -> None:
    """Its writer's id and source tell, at whatever time and place it comes again."""
    rig = taking(ground)
    sent = foreign("k", 1, ce_id="A-17", ce_source="/till")
    append(rig, "steps", sent, sent, foreign("k", 2, ce_id="A-17", ce_source="/other till"))
    rig.run().wait(1000)
    append(rig, "steps", sent)
    rig.run()
    assert steps(rig, "k") == (1, 2)


def test_without_an_id_each_is_its_own() -> None:
    rig = taking()
    append(rig, "steps", foreign("k", 5), foreign("k", 5))
    rig.run()
    assert steps(rig, "k") == (5, 5)


@pytest.mark.parametrize(
    "message",
    [foreign("", 1), foreign("\\xff", 1, **{"penstock-key": "ff"})], ids=["none", "bytes"],
)
def test_one_without_a_usable_key_belongs_to_nothing(message: Message) -> None:
    rig = taking()
    append(rig, "steps", message, foreign("k", 2))
    rig.run()
    assert steps(rig, "k") == (2,)
    (row,) = rig.rows("tally", "waiting")
    assert row.body.kind == "malformed"
    (dead,) = rig.records("tally.dead")
    assert b"has no key" in dead.message.value


def test_one_whose_value_is_wrong_is_parked_with_its_bytes() -> None:
    rig = taking()
    append(rig, "steps", Message("k", b'{"n":"x"}'))
    rig.run()
    (row,) = rig.rows("tally", "waiting")
    assert (row.body.kind, row.body.record.message.value) == ("malformed", b'{"n":"x"}')


def test_one_that_fails_is_tried_again_and_parked_and_retried_like_any_other() -> None:
    orders = Orders()
    orders.by_number[1] = raising(ValueError("not now"))
    rig = taking(orders=orders, attempts=2)
    sent = foreign("k", 1, ce_id="1", ce_source="/till")
    append(rig, "steps", sent)
    rig.run().wait(2000)
    (row,) = rig.rows("tally", "waiting")
    assert row.body.state == "parked"
    orders.by_number.clear()
    rig.operate("deadletter.retry_requested", row.body.record, "tally")
    rig.run()
    append(rig, "steps", sent)
    rig.run()
    assert steps(rig, "k") == (1,)


def test_a_death_while_deciding_one_is_charged_to_it() -> None:
    """What the next owner reads from the log by its place is the same event."""
    rig = taking()
    append(rig, "steps", foreign("k", 1), foreign("k", 2))
    worker = rig.workers["tally"]
    worker.step(rig.clock.now())
    lane = rig.records("steps")[0].partition
    found = worker._unhandled("steps", lane, 0, rig.clock.now())
    assert found is not None
    assert found.record.position == Position("steps", lane, 0)
    assert found.record.message.type == "step.taken"


def test_its_headers_are_notes_and_its_trace_goes_on() -> None:
    rig = taking()
    trace = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
    value = b'{"n":1,"tell":true}'
    notes = {"ce_id": "1", "ce_type": "x", "shop": "7", "traceparent": trace}
    append(rig, "steps", Message("k", value, notes=notes))
    rig.run()
    (told,) = rig.records("sums")
    assert (told.message.trace, told.message.notes) == (trace, {"shop": "7"})
