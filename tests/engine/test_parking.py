"""Parked records: durable before their position passes, accounted for, freed by request only."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.decision import Park, Ref
from penstock.entry import DISCARD_REQUESTED, RETRY_REQUESTED
from penstock.event import Message, Record
from penstock.flow import Scan
from tests.engine.tally import Orders, Step, always, raising, steps, tally, tally_rig
from tests.flows.ground import Ground
from tests.flows.rig import Rig

BAD = always(Park("bad_step", "this step is bad"))


def bad(number: int = 1) -> Orders:
    """Orders to park the steps of a number."""
    orders = Orders()
    orders.by_number[number] = BAD
    return orders


def parked(rig: Rig, nth: int = 0) -> Record:
    """The nth record that is set aside."""
    return rig.rows("tally", "waiting")[nth].body.record  # type: ignore[no-any-return]


def test_the_letter_and_the_row_are_in_the_batch_s_own_commit(tmp_path: Path) -> None:
    rig = tally_rig(tmp_path, bad())
    worker, file = rig.workers["tally"], rig.stores["tally"].file
    worker.step(rig.clock.now())
    (message,) = rig.append("steps", ("k", Step(n=1)))
    rig.append("steps", ("a", Step(n=2)))
    commits = file.commits
    worker.step(rig.clock.now())
    assert file.commits == commits + 1
    (letter,) = rig.facts("tally.dead")["k"]
    (row,) = rig.rows("tally", "waiting")
    assert letter.value == message.value == row.body.record.message.value
    place = row.body.record.position
    assert (letter.topic, letter.partition, letter.offset) == place
    assert (letter.kind, letter.reason) == ("bad_step", "this step is bad")
    assert (letter.event_id, letter.type, letter.schema_version) == (
        message.id.hex(), "step.taken", 1
    )
    assert (letter.owner, letter.service, letter.service_version) == ("us", "tally", "1")
    assert letter.appended_at == row.body.record.appended_at
    assert [a.error for a in letter.attempts] == ["this step is bad"]
    assert steps(rig, "a") == (2,)
    written = file.run("SELECT txn FROM waiting") + file.run('SELECT txn FROM "log_tally.dead"')
    assert len(set(written)) == 1


def test_halt_holds_the_key_back_across_restarts_until_it_is_retried(ground: Ground) -> None:
    orders = bad(2)
    rig = tally_rig(ground, orders)
    rig.append("steps", *(("k", Step(n=n)) for n in (1, 2, 3)), ("other", Step(n=2000)))
    rig.run()
    rig.start("tally")
    rig.append("steps", ("k", Step(n=4)), ("other", Step(n=2001)))
    rig.wait(100_000, 3)
    assert steps(rig, "k") == (1,)
    assert steps(rig, "other") == (2000, 2001)
    assert [state for _, state, _ in rig.waiting("tally")] == ["parked", "waiting", "waiting"]
    orders.by_number.clear()
    rig.operate(RETRY_REQUESTED, parked(rig), "tally")
    rig.append("steps", ("k", Step(n=5)))
    rig.run()
    assert steps(rig, "k") == (1, 2, 3, 4, 5)
    assert rig.waiting("tally") == []
    assert rig.types("tally.dead", "k") == ["dead.parked", "dead.retried"]


def test_a_retried_record_that_fails_again_parks_again_with_its_whole_story() -> None:
    orders = Orders()
    orders.by_number[1] = raising(ValueError("no"))
    rig = tally_rig(orders=orders, attempts=2)
    rig.append("steps", ("k", Step(n=1)))
    rig.run().wait(1000)
    rig.operate(RETRY_REQUESTED, parked(rig), "tally")
    rig.run()
    assert rig.waiting("tally") == [("k", "waiting", 1)]
    rig.wait(1000)
    letters = [f for f in rig.facts("tally.dead")["k"] if hasattr(f, "attempts")]
    assert [len(letter.attempts) for letter in letters] == [2, 4]
    assert rig.waiting("tally") == [("k", "parked", 2)]


def test_a_discarded_record_stays_marked_and_the_service_hears_of_it(ground: Ground) -> None:
    rig = tally_rig(ground, bad(), attempts=1)
    (message,) = rig.append("steps", ("k", Step(n=1)))
    rig.append("steps", ("k", Step(n=2)), ("k", Step(n=3)))
    rig.run()
    rig.operate(DISCARD_REQUESTED, parked(rig), "tally")
    rig.run()
    assert tally(rig, "k").notes == ("discarded bad_step",)
    assert steps(rig, "k") == (2, 3)
    rig.log.append("steps", [message], rig.clock.now())
    rig.run()
    assert steps(rig, "k") == (2, 3)
    assert rig.waiting("tally") == []
    (told,) = [f for f in rig.facts("tally.dead")["k"] if hasattr(f, "actor")]
    assert (told.actor, told.reason, told.kind) == ("pat", "because", "bad_step")


def test_requests_repeated_in_one_batch_are_obeyed_once() -> None:
    rig = tally_rig(orders=bad(), attempts=1)
    rig.append("steps", ("k", Step(n=1)), ("k", Step(n=2)))
    rig.run()
    for wish in (DISCARD_REQUESTED, DISCARD_REQUESTED, RETRY_REQUESTED):
        rig.operate(wish, parked(rig), "tally")
    rig.run()
    assert rig.types("tally.dead", "k") == ["dead.parked", "dead.discarded"]
    assert tally(rig, "k").notes == ("discarded bad_step",)
    assert rig.waiting("tally") == []


def test_requests_for_others_or_for_what_is_not_parked_change_nothing() -> None:
    orders = Orders()
    orders.by_number[1] = raising(ValueError("x"))
    rig = tally_rig(orders=orders)
    rig.append("steps", ("k", Step(n=1)), ("k", Step(n=2)))
    rig.run()
    rows = rig.waiting("tally")
    rig.operate(DISCARD_REQUESTED, parked(rig), "another")
    rig.operate(DISCARD_REQUESTED, parked(rig, 1), "tally")
    rig.run()
    assert rig.waiting("tally") == rows
    assert rig.records("tally.dead") == []


def test_a_broken_record_on_the_journal_holds_no_request_back() -> None:
    orders = bad()
    rig = tally_rig(orders=orders)
    rig.append("steps", ("k", Step(n=1)))
    broken = Message("k", b"{", b"0123456789abcdef", RETRY_REQUESTED, 1)
    rig.log.append("journal", [broken], rig.clock.now())
    rig.run()
    orders.by_number.clear()
    rig.operate(RETRY_REQUESTED, parked(rig, 1), "tally")
    rig.run()
    assert steps(rig, "k") == (1,)


def test_continue_lets_successors_pass_and_marks_the_late_one() -> None:
    orders = bad(2)
    rig = tally_rig(orders=orders, after_park="continue")
    rig.append("steps", *(("k", Step(n=n)) for n in (1, 2, 3)))
    rig.run()
    assert steps(rig, "k") == (1, 3)
    assert tally(rig, "k").notes == ()
    orders.by_number.clear()
    rig.start("tally")
    rig.operate(RETRY_REQUESTED, parked(rig), "tally")
    rig.run()
    assert steps(rig, "k") == (1, 3, 2)
    assert tally(rig, "k").notes == ("late",)
    assert rig.waiting("tally") == []


def test_continue_keeps_the_order_while_a_record_is_still_tried() -> None:
    orders = Orders()
    orders.by_number[2] = raising(ValueError("x"))
    rig = tally_rig(orders=orders, after_park="continue", attempts=2)
    rig.append("steps", *(("k", Step(n=n)) for n in (1, 2, 3)))
    rig.run()
    assert steps(rig, "k") == (1,)
    rig.wait(1000)
    assert steps(rig, "k") == (1, 3)
    assert rig.waiting("tally") == [("k", "aside", 2)]


def test_a_late_record_passes_a_key_that_waits() -> None:
    """What was set aside has left its order: it neither waits for the key nor spins on it."""
    orders = bad(1)
    rig = tally_rig(orders=orders, after_park="continue")
    rig.append("steps", ("k", Step(n=1)))
    rig.run()
    orders.by_number[2] = raising(ValueError("x"))
    del orders.by_number[1]
    rig.append("steps", ("k", Step(n=2)))
    rig.run()
    rig.operate(RETRY_REQUESTED, parked(rig), "tally")
    rig.run()
    assert steps(rig, "k") == (1,)


def test_discarding_what_a_copy_has_done_meanwhile_is_no_fault() -> None:
    orders = bad()
    rig = tally_rig(orders=orders, after_park="continue")
    (message,) = rig.append("steps", ("k", Step(n=1)))
    rig.run()
    orders.by_number.clear()
    rig.log.append("steps", [message], rig.clock.now())
    rig.run()
    assert steps(rig, "k") == (1,)
    rig.operate(DISCARD_REQUESTED, parked(rig), "tally")
    rig.run()
    assert rig.waiting("tally") == []
    assert steps(rig, "k") == (1,)


def test_a_lane_at_its_cap_is_held_and_a_request_frees_it(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.engine.worker.WAITING_PER_LANE_MAX", 10)
    orders = bad()
    rig = tally_rig(orders=orders, batch=4, partitions=1)
    for n in range(1, 31):
        rig.append("steps", ("k", Step(n=n)))
    rig.append("more", ("free", Step(n=100)))
    rig.run()
    assert 10 <= len(rig.waiting("tally")) <= 13
    assert "10 records wait" in rig.workers["tally"].trouble["lane 0"]
    orders.by_number.clear()
    rig.operate(RETRY_REQUESTED, parked(rig), "tally")
    rig.run()
    assert steps(rig, "k") == tuple(range(1, 31))
    assert steps(rig, "free") == (100,)
    assert rig.workers["tally"].trouble == {}


def test_a_long_queue_is_worked_off_in_order_in_batches() -> None:
    orders = bad(0)
    rig = tally_rig(orders=orders, batch=7, partitions=1)
    for n in range(60):
        rig.append("steps", ("k", Step(n=n)))
    rig.run()
    orders.by_number.clear()
    rig.operate(RETRY_REQUESTED, parked(rig), "tally")
    for n in range(60, 90):
        rig.append("steps", ("k", Step(n=n)))
    rig.run()
    assert steps(rig, "k") == tuple(range(90))


def test_a_held_lane_and_a_smaller_batch_are_obeyed_each_turn() -> None:
    from penstock.engine.worker import Desired

    rig = tally_rig(partitions=1, batch=50)
    worker = rig.workers["tally"]
    rig.run()
    worker.desired = Desired(held_lanes=frozenset({0}))
    for n in range(10):
        rig.append("steps", ("k", Step(n=n)))
    rig.run()
    assert steps(rig, "k") == ()
    worker.desired = Desired(batch=3)
    worker.step(rig.clock.now())
    assert steps(rig, "k") == (0, 1, 2)


def test_rows_of_a_topic_that_is_read_no_more_stay_and_stop_nobody(tmp_path: Path) -> None:
    rig = tally_rig(tmp_path, bad())
    rig.append("more", ("k", Step(n=1)))
    rig.run()
    rig.close()
    fewer = tally_rig(tmp_path, Orders(), reads=("steps",))
    fewer.append("steps", ("k", Step(n=2)))
    fewer.run()
    assert steps(fewer, "k") == (2,)
    what = Scan(service="tally", table="waiting")
    assert [r.body.record.topic for r in fewer.stores["tally"].scan(what)] == ["more"]
    assert Ref("tally", "k") in fewer.states("tally")
