"""Failures that other systems published, as cases of ours: those of one machine's engine.

R1, R2 and R14 are in tests/disk, R15 and R16 in tests/crash; R3 to R7 and R12 concern a broker.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from penstock.decision import Park
from penstock.engine.courier import Courier
from penstock.entry import DISCARD_REQUESTED, RETRY_REQUESTED
from penstock.errors import StaleOwner, StorageFull
from penstock.event import Message, partition_of
from penstock.ports import COURIER_LANE, Advance, Outgoing
from penstock.sim.audit import files, platform, report
from penstock.store.sqlite import SqliteStore
from tests.engine.tally import Orders, Step, always, steps, tally, tally_rig
from tests.flows.rig import HandClock, HandPool, Rig, Scripted

BAD = always(Park("bad_step", "this step is bad"))


def carried(home: Path) -> Rig:
    """A service whose every record goes by outbox and courier."""
    rig = tally_rig(home)
    rig.stores["tally"].direct = frozenset()
    rig.start("tally")
    return rig


def told(rig: Rig, key: str = "k") -> list[int]:
    """The numbers a key told, copies of one event once."""
    found = [r.message for r in rig.records("sums") if r.message.key == key]
    once = {message.id: message for message in found}
    return [rig.book.open(m.type, m.version, m.value).n for m in once.values()]


def test_r8_rows_of_a_slow_writer_are_not_passed_by_those_of_a_quick_one(tmp_path: Path) -> None:
    """Readers of an outbox by "id above the last" lose what commits late under a lower id."""
    rig = carried(tmp_path)
    slow, quick = rig.stores["tally"], rig.new_store("tally")
    epochs = {c.lane: c.epoch for c in slow.claim([0, 1], rig.clock.now())}

    def row(n: int) -> Outgoing:
        message = Message("k", b'{"n":%d,"total":0}' % n, n.to_bytes(16, "big"), "sum.told", 1)
        return Outgoing("sums", True, message)

    def takes_the_lower_id_and_fails() -> None:
        with slow.begin() as tx:
            tx.advance([Advance(0, epochs[0], {})], 1)
            tx.send([row(1)], 1)
            raise StorageFull("no room")

    with pytest.raises(StorageFull):
        takes_the_lower_id_and_fails()
    with quick.begin() as tx:
        tx.advance([Advance(1, epochs[1], {})], 2)
        tx.send([row(2)], 2)
    rig.couriers["tally"].step(3)
    with slow.begin() as tx:
        tx.advance([Advance(0, epochs[0], {})], 4)
        tx.send([row(3)], 4)
    rig.couriers["tally"].step(5)
    assert told(rig) == [2, 3]
    assert not slow.due("sums", 9, (), 10, is_topic=True)


def test_r9_the_outbox_goes_out_in_order_and_closes_only_what_is_there(tmp_path: Path) -> None:
    rig = carried(tmp_path)
    rig.append("steps", *(("k", Step(n=n, tell=True)) for n in range(1, 6)))
    for _ in range(2):  # the first turn claims the lanes
        rig.workers["tally"].step(rig.clock.now())
    courier, log = rig.couriers["tally"], rig.log
    append, fails = log.append, itertools.cycle((True, False))

    def failing(topic: str, messages: list[Message], now: int, origins: Any = ()) -> None:
        if next(fails):
            raise StorageFull("the log has no room")
        append(topic, messages, now)

    log.append = failing  # type: ignore[method-assign, assignment]
    assert courier.step(rig.clock.now()).blocked
    assert len(rig.stores["tally"].due("sums", rig.clock.now(), (), 10, is_topic=True)) == 5
    courier.step(rig.clock.now())
    log.append = append  # type: ignore[method-assign]
    rig.run()
    assert told(rig) == [1, 2, 3, 4, 5]
    copies = [r.message.id for r in rig.records("sums")]
    assert copies == list(dict.fromkeys(copies)), "nothing that was closed is sent again"


def test_r10_who_lost_its_lanes_parks_nothing(tmp_path: Path) -> None:
    orders = Orders()
    rig = tally_rig(tmp_path, orders, shared=("tally",))
    first = rig.workers["tally"]
    first.step(rig.clock.now())
    orders.by_number[1] = BAD
    rig.append("steps", ("k", Step(n=1)))
    lane = partition_of("k", 4)
    stale = {c: first._claims[c].epoch for c in first.lanes}
    rig.stores["tally"].claim(sorted(first.lanes), rig.clock.now())
    with pytest.raises(StaleOwner), rig.stores["tally"].begin() as tx:
        tx.advance([Advance(lane, stale[lane], {})], rig.clock.now())
    rig.run()  # it notices, claims again, and parks it once
    assert rig.types("tally.dead", "k") == ["dead.parked"]


def test_r10_a_clock_ahead_lets_no_timer_go_twice(tmp_path: Path) -> None:
    clock = HandClock()
    rig = tally_rig(tmp_path, clock=clock)
    rig.append("steps", ("k", Step(n=1, wake_ms=60_000)))
    rig.run()
    ahead = clock.now() + 120_000
    rig.couriers["tally"].step(ahead)
    rig.couriers["tally"].step(clock.now())
    rig.wait(61_000)
    assert len(tally(rig, "k").wakes) == 1
    due = rig.rows("tally", "asks")
    assert not due, "the timer is closed"


def test_r11_a_thousand_redrives_leave_a_record_as_small_as_it_was(tmp_path: Path) -> None:
    orders = Orders()
    orders.by_number[1] = BAD
    rig = tally_rig(tmp_path, orders)
    (message,) = rig.append("steps", ("k", Step(n=1)))
    rig.run()
    sizes = []
    for turn in range(1000):
        (row,) = rig.rows("tally", "waiting")
        rig.clock.pass_(10)
        rig.operate(RETRY_REQUESTED, row.body.record, "tally")
        rig.run() if turn in (0, 999) else rig.workers["tally"].step(rig.clock.now())
        kept = rig.stores["tally"].file.run("SELECT length(message), length(errors) FROM waiting")
        sizes.append(kept[0])
    (row,) = rig.rows("tally", "waiting")
    assert {size for size, _ in sizes} == {sizes[0][0]}, "the record itself never grows"
    assert len({size for _, size in sizes[50:]}) == 1, "nor does its story, past its bound"
    assert row.body.record.message == message, "first seen, id and bytes are what they were"


def test_r13_a_gap_that_was_declared_is_no_loss(tmp_path: Path) -> None:
    """Retention takes the front of a partition: an auditor must not cry loss over it."""
    rig = tally_rig(tmp_path)
    for n in range(6):
        rig.append("steps", ("k", Step(n=n)))
        rig.run()
        rig.clock.pass_(1000)
    lane = partition_of("k", 4)
    file = rig.log._writer("steps")  # type: ignore[attr-defined]
    with file.write():
        file.run('DELETE FROM "log_steps" WHERE at <= ?', ((lane << 48) + 2,))
    books = files.books_of(tmp_path, reads={}, now=rig.clock.now())
    found = report.audit(books, platform.RULES)
    assert not [v for v in found.violations if v.rule == "I18"]


def test_r17_a_caller_is_told_in_time_that_the_outcome_is_unknown(tmp_path: Path) -> None:
    """A gateway that never answers is asked with one key until the buffer ends; then it is said."""
    clock, bank = HandClock(), Scripted({"k": ["lost"] * 1000})
    rig = tally_rig(
        tmp_path, clock=clock, gateways={"bank": ({"buffer_seconds": 30.0}, bank)}
    )
    rig.append("steps", ("k", Step(n=1, ask=("bank",))))
    rig.wait(1000, 60)
    assert tally(rig, "k").answers == ("bank-1:expired",)
    assert len({call.idempotency_key for call in bank.calls}) == 1
    assert 1 < len(bank.calls) < 60


def test_a_courier_that_was_fenced_off_closes_nothing(tmp_path: Path) -> None:
    """R9, R10: the row it holds is the next owner's, who repeats the call under the same key."""
    bank = Scripted()
    rig = tally_rig(tmp_path, gateways={"bank": ({}, bank)})
    rig.append("steps", ("k", Step(n=1, ask=("bank",))))
    rig.workers["tally"].step(rig.clock.now())
    old: Courier = rig.couriers["tally"]
    old.step(rig.clock.now())
    store: SqliteStore = rig.stores["tally"]
    assert store.claim([COURIER_LANE], rig.clock.now())[0].epoch > 1
    rig.pools["tally"].work()
    old.step(rig.clock.now())
    assert not rig.records("tally.answers"), "its close was refused"
    rig.pools["tally"] = HandPool()
    rig.couriers["tally"] = rig.new_courier("tally", rig.pools["tally"])
    rig.run()
    assert tally(rig, "k").answers == ("bank-1:ok",)
    assert bank.deeds.total() == 1
    assert steps(rig, "k") == (1,)


def test_what_was_discarded_is_told_once_more_where_the_news_was_discarded(
    tmp_path: Path
) -> None:
    """Found by the simulator: a discard of the news of a discard left nobody to compensate."""
    orders = Orders()
    orders.by_number[1] = BAD
    rig = tally_rig(tmp_path, orders)
    rig.append("steps", ("k", Step(n=1)))
    rig.run()
    orders.by_number[-1] = BAD  # the news as well
    for _ in range(2):
        row = rig.rows("tally", "waiting")[-1]
        rig.clock.pass_(10)
        rig.operate(DISCARD_REQUESTED, row.body.record, "tally")
        rig.run()
    news = rig.facts("tally.answers")["k"]
    assert [(said.type, said.offset) for said in news] == [("step.taken", 0)] * 2
    orders.by_number.clear()
    (row,) = rig.rows("tally", "waiting")
    rig.operate(RETRY_REQUESTED, row.body.record, "tally")
    rig.run()
    assert tally(rig, "k").notes == ("discarded bad_step",)
