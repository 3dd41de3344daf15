"""The courier: durable intent, one effect, strict order per key, and a gateway's own troubles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from penstock.catalog.model import Breaker, RetryPolicy
from penstock.engine.courier import REFUSED_PAUSE_MS
from penstock.errors import Problem, StorageFull
from penstock.event import Message
from penstock.ports import COURIER_LANE, Ok, Outcome, Request
from tests.engine.tally import Orders, Step, raising, steps, tally, tally_rig
from tests.flows.ground import Ground
from tests.flows.rig import HandClock, HandPool, Rig, Scripted

STEADY = RetryPolicy(attempts=1_000_000, first_delay_seconds=1.0, factor=1.0)
FIRM = Breaker(failures=1_000_000)


def bank(
    scripts: Mapping[str, list[str]] | None = None, ground: Ground = None, **changes: Any
) -> tuple[Rig, Scripted]:
    """A rig whose service asks one scripted gateway."""
    clock = HandClock()
    gateway = Scripted(scripts, clock)
    entry = {"retry": STEADY, "breaker": FIRM, **changes}
    return tally_rig(ground, gateways={"bank": (entry, gateway)}, clock=clock), gateway


def asking(rig: Rig, *keys: str, n: int = 1, to: str = "bank") -> None:
    """Each key asks, and the worker commits it."""
    rig.append("steps", *((key, Step(n=n, ask=(to,))) for key in keys))
    for _ in range(8):
        rig.workers["tally"].step(rig.clock.now())


def test_the_intent_is_durable_before_the_call_and_the_answer_comes_after(tmp_path: Path) -> None:
    seen: list[Any] = []

    class Watching:
        def call(self, request: Request) -> Outcome:
            other = rig.new_store("tally")
            open_ = other.file.run("SELECT settled_at, idempotency_key FROM outbox")
            seen.append((open_, len(rig.records("tally.answers"))))
            return Ok(b'{"fine":true}')

    rig = tally_rig(tmp_path, gateways={"bank": ({}, Watching())})
    asking(rig, "k")
    key = rig.stores["tally"].due("bank", 0, (), 1)[0].idempotency_key
    assert key == rig.stores["tally"].due("bank", 0, (), 1)[0].message.id.hex()
    rig.run()
    assert seen == [([(None, key)], 0)]
    (answer,) = rig.facts("tally.answers")["k"]
    assert (answer.outcome, bytes(answer.body), answer.calls) == ("ok", b'{"fine":true}', 1)
    assert answer.idempotency_key == key
    assert tally(rig, "k").answers == ("bank-1:ok",)


def test_asks_of_a_key_go_one_after_the_other_over_failures_and_restarts(ground: Ground) -> None:
    scripts = {"a": ["unavailable", "unknown", "ok", "lost"], "b": ["lost"]}
    rig, gateway = bank(scripts, ground)
    for n in (1, 2, 3):
        asking(rig, "a", "b", n=n)
    rig.run()
    assert gateway.keys().count("a") == 1
    rig.start("tally")
    rig.wait(999)
    assert gateway.keys().count("a") == 1
    rig.wait(1)
    rig.start("tally")
    rig.wait(1000, 5)
    called = [call.name for call in gateway.calls if call.key == "a"]
    assert called == ["bank-1", "bank-1", "bank-1", "bank-2", "bank-2", "bank-3"]
    assert tally(rig, "a").answers == ("bank-1:ok", "bank-2:ok", "bank-3:ok")
    assert set(gateway.deeds.values()) == {1}
    assert len(gateway.deeds) == 6


def test_keys_are_called_at_once_up_to_the_bound(tmp_path: Path) -> None:
    rig, _ = bank(max_in_flight=7)
    asking(rig, *(f"k{n}" for n in range(30)))
    courier, pool = rig.couriers["tally"], rig.pools["tally"]
    assert courier.step(rig.clock.now()).called == 7
    assert courier.step(rig.clock.now()).called == 0
    pool.work(3, latest_first=True)
    assert courier.step(rig.clock.now()).called == 3
    rig.run()
    assert pool.most == 7
    assert len(rig.records("tally.answers")) == 30


def test_a_key_that_waits_for_its_answer_holds_no_other() -> None:
    rig, gateway = bank(max_in_flight=4)
    asking(rig, "slow", n=1)
    asking(rig, "slow", n=2)
    asking(rig, "quick", n=3)
    courier, pool = rig.couriers["tally"], rig.pools["tally"]
    courier.step(rig.clock.now())
    assert len(pool.resting) == 2
    pool.work(latest_first=True)
    courier.step(rig.clock.now())
    assert pool.resting == []  # the answer must be durable before the key's next call
    courier.step(rig.clock.now())
    assert gateway.keys() == ["quick", "slow"]
    assert len(pool.resting) == 1


@pytest.mark.parametrize("step", ["unknown", "lost", "crash"])
def test_an_unknown_outcome_repeats_with_the_same_key(step: str) -> None:
    rig, gateway = bank({"k": [step, step]})
    asking(rig, "k")
    rig.run().wait(1000, 3)
    assert len({call.idempotency_key for call in gateway.calls}) == 1
    assert [call.attempt for call in gateway.calls] == [1, 2, 3]
    assert list(gateway.deeds.values()) == [1]
    (answer,) = rig.facts("tally.answers")["k"]
    assert (answer.outcome, answer.calls) == ("ok", 3)


def test_a_refusal_is_an_answer() -> None:
    rig, gateway = bank({"k": ["refused"]})
    asking(rig, "k")
    rig.wait(0).wait(10_000)
    (answer,) = rig.facts("tally.answers")["k"]
    assert (answer.outcome, answer.reason) == ("refused", "not for you")
    assert len(gateway.calls) == 1


def test_retry_after_holds_the_whole_gateway() -> None:
    rig, gateway = bank({"a": ["unavailable:30"]})
    asking(rig, "a")
    rig.run()
    asking(rig, "b")
    rig.wait(29_999)
    assert gateway.keys() == ["a"]
    rig.wait(1)
    assert sorted(gateway.keys()) == ["a", "a", "b"]


def breaking(*, failures: int = 3, dead: int = 99) -> tuple[Rig, Scripted, Scripted]:
    """Two gateways; the first one fails for a while and has a breaker."""
    clock = HandClock()
    scripts = {f"k{n}": ["lost"] * dead for n in range(20)}
    first, second = Scripted(scripts, clock), Scripted(clock=clock)
    breaker = Breaker(failures=failures, open_seconds=10.0)
    entry = {"retry": STEADY, "breaker": breaker, "max_in_flight": 1, "buffer_seconds": 60.0}
    gateways = {"bank": (entry, first), "post": ({}, second)}
    return tally_rig(gateways=gateways, clock=clock), first, second


def test_a_breaker_opens_tries_one_and_holds_its_own_gateway_only() -> None:
    rig, first, second = breaking()
    asking(rig, *(f"k{n}" for n in range(10)))
    rig.run()
    desk = rig.couriers["tally"].desks["bank"]
    assert (len(first.calls), desk.state) == (3, "open")
    assert desk.last_error == "no answer"
    asking(rig, "p", to="post")
    rig.wait(9_999)
    assert (len(first.calls), len(second.calls)) == (3, 1)
    rig.couriers["tally"].step(rig.clock.now() + 1)
    assert desk.state == "probing"
    rig.wait(1)
    assert (len(first.calls), desk.state) == (4, "open")


def test_a_breaker_closes_when_a_try_succeeds() -> None:
    rig, first, _ = breaking(dead=1)
    asking(rig, *(f"k{n}" for n in range(3)))
    rig.run()
    desk = rig.couriers["tally"].desks["bank"]
    assert desk.state == "open"
    rig.wait(10_000)
    assert desk.state == "closed"
    assert len(rig.records("tally.answers")) == 3
    assert set(first.deeds.values()) == {1}


def test_rows_expire_when_their_gateway_stays_broken_past_the_buffer() -> None:
    rig, first, _ = breaking()
    asking(rig, *(f"k{n}" for n in range(10)))
    rig.run().wait(10_000, 8)
    answers = [a for facts in rig.facts("tally.answers").values() for a in facts]
    assert [a.outcome for a in answers] == ["expired"] * 10
    assert len(first.calls) < 12
    assert tally(rig, "k7").answers == ("bank-1:expired",)


def test_a_row_is_called_once_however_late_it_is_looked_at() -> None:
    rig, gateway = bank(buffer_seconds=60.0)
    asking(rig, "k")
    rig.wait(3_600_000)
    assert len(gateway.calls) == 1
    assert tally(rig, "k").answers == ("bank-1:ok",)


def test_the_rate_is_kept() -> None:
    rig, gateway = bank(rate=5.0, max_in_flight=100)
    asking(rig, *(f"k{n}" for n in range(20)))
    rig.run()
    assert len(gateway.calls) == 5
    due = rig.couriers["tally"].step(rig.clock.now()).next_due
    assert due is not None
    assert 190 <= due - rig.clock.now() <= 202
    rig.wait(1000)
    assert len(gateway.calls) == 10


def test_a_courier_killed_after_the_call_repeats_it_with_its_key() -> None:
    """The deed is done, its row is not closed: one effect in the ledger, one answer."""
    rig, gateway = bank()
    asking(rig, "k")
    rig.couriers["tally"].step(rig.clock.now())
    rig.pools["tally"].work()
    assert rig.records("tally.answers") == []
    rig.start("tally")
    rig.run()
    assert [call.idempotency_key for call in gateway.calls] == [*gateway.deeds] * 2
    assert list(gateway.deeds.values()) == [1]
    assert tally(rig, "k").answers == ("bank-1:ok",)


def test_of_two_couriers_the_older_one_closes_nothing(tmp_path: Path) -> None:
    rig, gateway = bank(ground=tmp_path)
    asking(rig, "k")
    old, pool = rig.couriers["tally"], rig.pools["tally"]
    old.step(rig.clock.now())
    pool.work()
    other = HandPool()
    young = rig.new_courier("tally", other)
    young.step(rig.clock.now())
    assert old.step(rig.clock.now()).wrote == frozenset()
    assert rig.records("tally.answers") == []
    other.work()
    assert young.step(rig.clock.now()).settled == 1
    assert len(rig.records("tally.answers")) == 1
    rig.run()
    assert list(gateway.deeds.values()) == [1]
    assert tally(rig, "k").answers == ("bank-1:ok",)


def test_the_clock_wakes_at_its_time_after_a_restart_and_once(ground: Ground) -> None:
    rig = tally_rig(ground)
    start = rig.clock.now()
    rig.append("steps", ("k", Step(n=1, wake_ms=5000)), ("j", Step(n=1, wake_ms=100)))
    rig.run().wait(4999)
    assert tally(rig, "k").wakes == ()
    assert tally(rig, "j").wakes == (start + 100,)
    rig.start("tally")
    rig.wait(1).wait(10_000)
    rig.start("tally")
    rig.wait(10_000)
    assert tally(rig, "k").wakes == (start + 5000,)


def test_topics_go_out_in_order_per_key_and_a_repeat_keeps_its_ids() -> None:
    rig = tally_rig()
    for n in range(60):
        rig.append("steps", (f"k{n % 4}", Step(n=n, tell=True)))
    for _ in range(8):
        rig.workers["tally"].step(rig.clock.now())
    rows = rig.stores["tally"].due("sums", 0, (), 9, is_topic=True)
    rig.log.append("sums", [row.message for row in rows], 1)
    courier = rig.couriers["tally"]
    assert courier.step(rig.clock.now()).wrote == {"sums"}
    rig.run()
    for key in ("k0", "k1", "k2", "k3"):
        ids = [r.message.id for r in rig.records("sums") if r.message.key == key]
        told = list(dict.fromkeys(ids))
        assert len(told) == 15
        assert [s.n for s in rig.facts("sums")[key]][-15:] == list(range(int(key[1]), 60, 4))
    assert len(rig.records("sums")) == 69


def test_a_topic_that_refuses_a_row_holds_its_own_rows_and_no_others() -> None:
    """One too large, say. What was made before it goes, once; all else goes on; and when it is
    taken at last, what waited behind it follows in its order."""
    rig, gateway = bank()
    numbers = range(1, 8)
    rig.append("steps", *(("k", Step(n=n, tell=True, ask=("bank",))) for n in numbers))
    rig.workers["tally"].step(rig.clock.now())
    rig.workers["tally"].step(rig.clock.now())
    append, is_picky = rig.log.append, True

    def picky(topic: str, messages: Sequence[Message], now: int, origins: Any = ()) -> None:
        for m in messages:
            if is_picky and topic == "sums" and b'"n":4,' in m.value:
                raise Problem("record_too_large", "Kafka refused it: too large.")
            append(topic, [m], now)

    rig.log.append = picky  # type: ignore[method-assign]
    courier, pool = rig.couriers["tally"], rig.pools["tally"]
    for _ in range(30):
        courier.step(rig.clock.now())
        pool.work()
    assert courier.trouble == "Kafka refused it: too large."
    assert len(gateway.calls) == 7, "the gateway is called all the same"
    told = [fact.n for fact in rig.facts("sums")["k"]]
    assert list(dict.fromkeys(told)) == [1, 2, 3]
    assert len(told) <= 2 * 3, "the first ones are not appended again and again"
    is_picky = False
    rig.wait(REFUSED_PAUSE_MS)
    assert list(dict.fromkeys(fact.n for fact in rig.facts("sums")["k"])) == [*numbers]
    assert courier.trouble == ""


def test_a_full_disk_stops_the_courier_for_a_while_and_costs_no_effect(tmp_path: Path) -> None:
    rig, gateway = bank(ground=tmp_path)
    asking(rig, "k")
    file = rig.stores["tally"].file
    pages = file.run("PRAGMA page_count")[0][0]
    file.run(f"PRAGMA max_page_count={pages}")
    fat = "x" * 100_000
    with pytest.raises(StorageFull), file.write():
        file.run("INSERT INTO meta VALUES('ballast', ?)", (fat,))
    gateway.effects[rig.stores["tally"].due("bank", 0, (), 1)[0].idempotency_key] = (
        b'"' + fat.encode() + b'"'
    )
    courier, pool = rig.couriers["tally"], rig.pools["tally"]
    courier.step(rig.clock.now())
    pool.work()
    assert courier.step(rig.clock.now()).blocked
    assert tally(rig, "k").answers == ()
    file.run("PRAGMA max_page_count=1000000")
    rig.run()
    assert tally(rig, "k").answers == ("bank-1:ok",)
    assert len({call.idempotency_key for call in gateway.calls}) == 1


def test_a_full_disk_stops_the_worker_for_a_while(tmp_path: Path) -> None:
    orders = Orders()
    rig = tally_rig(tmp_path, orders)
    rig.run()
    file = rig.stores["tally"].file
    file.run(f"PRAGMA max_page_count={file.run('PRAGMA page_count')[0][0]}")
    orders.by_number[3] = raising(ValueError("x" * 900))
    rig.append("steps", *((f"k{n}", Step(n=n, tell=True)) for n in range(500)))
    worker = rig.workers["tally"]
    assert any(worker.step(rig.clock.now()).blocked for _ in range(4))
    file.run("PRAGMA max_page_count=1000000")
    rig.run()
    assert all(steps(rig, f"k{n}") == (n,) for n in range(4, 500))


def test_a_courier_left_alone_claims_once(tmp_path: Path) -> None:
    rig, _ = bank(ground=tmp_path)
    for _ in range(3):
        rig.run()
    find = "SELECT epoch FROM owners WHERE lane = ?"
    epochs = rig.stores["tally"].file.run(find, (COURIER_LANE,))
    assert epochs == [(1,)]


def test_a_result_that_comes_after_its_courier_was_overtaken_is_dropped(tmp_path: Path) -> None:
    rig, gateway = bank(ground=tmp_path)
    asking(rig, "k1", "k2")
    old, pool, other = rig.couriers["tally"], rig.pools["tally"], HandPool()
    old.step(rig.clock.now())
    young = rig.new_courier("tally", other)
    young.step(rig.clock.now())
    other.work()
    young.step(rig.clock.now())
    for _ in range(2):
        pool.work(1)
        old.step(rig.clock.now())
        old.step(rig.clock.now())
    assert len(gateway.calls) == 4
    assert len(rig.records("tally.answers")) == 2


def test_an_answer_has_the_same_id_whenever_it_comes() -> None:
    """Derived from its ask, so that a re-run recognises it."""
    ids = []
    for late in (0, 5000):
        rig, _ = bank()
        asking(rig, "k")
        rig.wait(late)
        ids.append([record.message.id for record in rig.records("tally.answers")])
    assert ids[0] == ids[1]
    assert len(ids[0]) == 1
