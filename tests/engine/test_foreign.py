"""Records that somebody else wrote, without our headers, to a topic that takes such."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.engine.backlog import Backlog
from penstock.event import Message, Position, Record
from penstock.ports import Waiting
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


def test_those_without_a_key_hold_nobody_back_each_other_neither(ground: Ground) -> None:
    rig = taking(ground)
    append(rig, "steps", *(foreign("", n) for n in range(5)), foreign("k", 2))
    rig.run()
    assert steps(rig, "k") == (2,)
    assert rig.waiting("tally") == [("", "aside", 0)] * 5
    assert len(rig.records("tally.dead")) == 5
    rig.start("tally")
    assert rig.run().waiting("tally") == [("", "aside", 0)] * 5


def test_a_key_in_two_lanes_is_two_orders() -> None:
    """Another program's partitioner may put it so; what one lane holds is not the other's."""
    rows = [
        Waiting(record=Record("steps", lane, 7, 0, foreign("k", lane)), state="parked", due=0,
                attempts=1)
        for lane in (0, 1)
    ]  # fmt: skip
    backlog = Backlog()
    backlog.put(rows)
    assert (len(backlog), backlog.parked) == (2, 2)
    backlog.forget(0)
    assert backlog.find(rows[1].record.position) == rows[1]
    backlog.drop([rows[1].record])
    assert not backlog.held


def test_one_whose_value_is_wrong_is_parked_with_its_bytes() -> None:
    rig = taking()
    append(rig, "steps", Message("k", b'{"n":"x"}'))
    rig.run()
    (row,) = rig.rows("tally", "waiting")
    assert (row.body.kind, row.body.record.message.value) == ("malformed", b'{"n":"x"}')


@pytest.mark.parametrize(
    "value", [b'{"n":1,"n":2}', b'{"n":1,"x":{"y":1,"y":2}}', b'{"n":1,"x":"\\ud800"}']
)
def test_one_whose_json_readers_disagree_about_is_parked(value: bytes) -> None:
    """Such a topic is an entrance, as the door is."""
    rig = taking()
    append(rig, "steps", Message("k", value), foreign("other", 1))
    rig.run()
    (row,) = rig.rows("tally", "waiting")
    assert (row.body.kind, row.body.record.message.value) == ("malformed", value)
    assert (steps(rig, "k"), steps(rig, "other")) == ((), (1,))


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
