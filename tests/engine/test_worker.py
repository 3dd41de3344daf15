"""A worker's batch: one commit, in order per key, every record done, waiting or parked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from penstock.decision import Ask, Context, Decision, Done, Emit, Hold, Ref, Retry, Service, States
from penstock.embedded.file import File
from penstock.event import Event, Message, partition_of
from penstock.limits import SCHEMA_WAIT_SECONDS
from tests.engine.tally import (
    Noise,
    Orders,
    Pot,
    Step,
    Tally,
    always,
    raising,
    steps,
    tally,
    tally_rig,
    tally_service,
)
from tests.flows.ground import Ground
from tests.flows.rig import Rig

PAIRS = pytest.mark.parametrize("embedded", [False, True], ids=["memory", "embedded"])


def claimed(rig: Rig) -> Rig:
    """The worker has its lanes, nothing was read yet."""
    rig.workers["tally"].step(rig.clock.now())
    return rig


def turn(rig: Rig) -> int:
    """One step of the worker; returns the commits it made."""
    file = rig.stores["tally"].file
    before = file.commits
    rig.workers["tally"].step(rig.clock.now())
    return file.commits - before


@PAIRS
def test_a_batch_is_one_commit(embedded: bool, tmp_path: Path) -> None:
    rig = claimed(tally_rig(tmp_path if embedded else None))
    rig.append("steps", *((f"k{n % 9}", Step(n=n, pots=("p",), tell=True)) for n in range(100)))
    assert turn(rig) == 1
    assert rig.states("tally")[Ref("pot", "p")] == Pot(steps=100, total=4950)
    assert steps(rig, "k3") == tuple(range(3, 100, 9))


def test_a_record_appended_again_is_handled_once(ground: Ground) -> None:
    """In one batch, in two, and after a restart."""
    rig = tally_rig(ground)
    message = rig.message("k", Step(n=1, tell=True))
    now = rig.clock.now()
    rig.log.append("steps", [message, message], now)
    rig.run()
    rig.log.append("steps", [message], now)
    rig.run()
    rig.start("tally")
    rig.log.append("more", [message], now)
    rig.run()
    assert steps(rig, "k") == (1,)
    assert len(rig.records("sums")) == 1
    assert len(rig.records("steps")) == 3


def test_later_records_of_a_batch_see_earlier_writes() -> None:
    rig = claimed(tally_rig())
    rig.append("steps", *(("k", Step(n=n, tell=True)) for n in (1, 2, 3)))
    assert turn(rig) == 1
    rig.run()
    assert [s.total for s in rig.facts("sums")["k"]] == [1, 3, 6]


def test_needs_that_an_earlier_record_of_the_batch_changed_are_loaded_in_a_second_pass() -> None:
    """The third record needs the pot that the first one named: known only once that is decided."""
    rig = claimed(tally_rig())
    rig.append("steps", ("x", Step(n=10, pots=("p",))))
    turn(rig)
    rig.append("steps", ("k", Step(n=1, pots=("q",))))
    rig.append("steps", ("k", Step(n=2, follow=True)), ("k", Step(n=4)))
    assert turn(rig) == 1
    assert steps(rig, "k") == (1, 2, 4)
    assert rig.states("tally")[Ref("pot", "q")] == Pot(steps=2, total=3)
    rig.append("steps", ("j", Step(n=1, pots=("fresh",))), ("j", Step(n=2, follow=True)))
    rig.append("steps", ("i", Step(n=1)), ("i", Step(n=5, pots=("p",), follow=True)))
    assert turn(rig) == 1
    assert rig.states("tally")[Ref("pot", "p")] == Pot(steps=2, total=15)


def test_a_document_written_by_another_key_is_seen_by_its_own() -> None:
    """``a`` writes the document of ``b``; ``b``'s own record comes later in the same batch."""

    def wants(event: Event, own: Tally | None) -> tuple[Ref, ...]:
        if event.key == "a":
            return (Ref("tally", "b"),)
        return tuple(Ref("pot", p) for p in own.pots) if own else ()

    def give(states: States, event: Event, context: Context) -> Decision:
        if event.key == "a":
            return Done({Ref("tally", "b"): Tally(pots=("p",))})
        return Done({Ref("pot", "p"): Pot(steps=1)})

    service = replace(tally_service(Orders()), needs=wants, decide=give)
    rig = claimed(tally_rig(service=service, partitions=1))
    rig.append("steps", ("a", Step()), ("b", Step()))
    assert turn(rig) == 1
    assert rig.states("tally")[Ref("pot", "p")] == Pot(steps=1)
    assert rig.waiting("tally") == []


def history() -> list[tuple[str, Step]]:
    """Steps that name pots, follow them, share them, over many keys."""
    return [
        (f"k{n % 7}", Step(n=n, pots=(f"p{n % 5}",) if n % 3 else (), follow=n % 2 == 0, tell=True))
        for n in range(300)
    ]


def test_a_whole_history_in_one_batch_equals_record_by_record() -> None:
    ends = []
    for batch in (1, 17, 2000):
        rig = tally_rig(batch=batch, partitions=1)
        for fact in history():
            rig.append("steps", fact)
        rig.run()
        ends.append((rig.states("tally"), rig.facts("sums")))
    assert ends[0] == ends[1] == ends[2]


def broken_label(service: Service) -> Service:
    return replace(service, labels={"tally": lambda t: t.no_such_field if 13 in t.steps else None})


def odd_label(service: Service) -> Service:
    return replace(service, labels={"tally": lambda t: t if 13 in t.steps else None})


def broken_needs(service: Service) -> Service:
    def wants(event: Event, own: Any) -> tuple[Ref, ...]:
        if event.data.n == 13:
            raise KeyError("needs")
        return service.needs(event, own)

    return replace(service, needs=wants)


def needing(*refs: Any) -> Callable[[Service], Service]:
    def broken(service: Service) -> Service:
        return replace(service, needs=lambda event, own: refs if event.data.n == 13 else ())

    return broken


ODD: Any = 7
FAILURES: dict[str, Any] = {
    "raises": raising(ValueError("boom")),
    "recurses": raising(RecursionError("deep")),
    "no decision": always("nothing"),
    "retries": always(Retry("later")),
    "odd retry": always(Retry("later", float("nan"))),
    "writes what it did not need": always(Done({Ref("pot", "other"): Pot()})),
    "state that has no JSON": always(Done({Ref("tally", "bad"): object()})),
    "event without contract": always(Done(events=(Emit("sums", object()),))),
    "undeclared topic": always(Done(events=(Emit("nowhere", Noise(text="")),))),
    "undeclared gateway": always(Done(asks=(Ask("nobody", "x"),))),
    "request that has no JSON": always(Done(asks=(Ask("clock", "x", object(), due=5),))),
    "timer without a time": always(Done(asks=(Ask("clock", "x"),))),
    "key that is no text": always(Done(events=(Emit("sums", Noise(text=""), ODD),))),
    "key with half a character": always(Done(events=(Emit("sums", Noise(text=""), "\ud800"),))),
    "label raises": broken_label,
    "label is no text": odd_label,
    "needs raises": broken_needs,
    "needs no ref": needing(("pot", "p")),
    "needs an unknown kind": needing(Ref("cup", "p")),
    "needs a key that is no text": needing(Ref("pot", ODD)),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failing_record_is_taken_out_of_its_batch(name: str) -> None:
    """It waits and is counted; all others commit, in the one commit of the batch."""
    failure, orders = FAILURES[name], Orders()
    service = tally_service(orders)
    if name.startswith(("label", "needs")):
        service = failure(service)
    else:
        orders.by_number[13] = failure
    rig = claimed(tally_rig(service=service))
    rig.append("steps", ("a", Step(n=1)), ("bad", Step(n=13)), ("bad", Step(n=14)))
    rig.append("steps", ("c", Step(n=3)))
    assert turn(rig) == 1
    assert (steps(rig, "a"), steps(rig, "c"), steps(rig, "bad")) == ((1,), (3,), ())
    assert rig.waiting("tally") == [("bad", "waiting", 1), ("bad", "waiting", 0)]


def test_a_stored_document_that_does_not_decode_fails_its_own_records_only() -> None:
    rig = claimed(tally_rig())
    rig.append("steps", ("a", Step(n=1, pots=("p",))), ("b", Step(n=1)), ("c", Step(n=1)))
    turn(rig)
    file = rig.stores["tally"].file
    file.run("UPDATE documents SET body = x'7b' WHERE key IN ('a', 'p')")
    rig.append("steps", ("a", Step(n=2)), ("b", Step(n=2)), ("c", Step(n=2, pots=("p",))))
    assert turn(rig) == 1
    file.run("DELETE FROM documents WHERE key IN ('a', 'p')")
    assert steps(rig, "b") == (1, 2)
    assert sorted(rig.waiting("tally")) == [("a", "waiting", 1), ("c", "waiting", 1)]
    rig.wait(1000)
    assert (steps(rig, "a"), steps(rig, "c")) == ((2,), (1, 2))


def test_order_is_kept_behind_a_record_that_waits(ground: Ground) -> None:
    """Across batches and a restart; other keys and other topics of the key flow."""
    orders = Orders()
    orders.by_number[2] = always(Retry("not yet"))
    rig = tally_rig(ground, orders, attempts=9)
    for n in (1, 2, 3):
        rig.append("steps", ("k", Step(n=n)), ("other", Step(n=n + 100)))
    rig.run()
    rig.append("steps", ("k", Step(n=4)))
    rig.append("more", ("k", Step(n=50)))
    rig.run()
    rig.start("tally")
    rig.append("steps", ("k", Step(n=5)))
    rig.run()
    assert steps(rig, "k") == (1, 50)
    assert steps(rig, "other") == (101, 102, 103)
    del orders.by_number[2]
    rig.wait(1000)
    assert steps(rig, "k") == (1, 50, 2, 3, 4, 5)
    assert rig.waiting("tally") == []


def test_attempts_have_a_budget_and_grow_apart() -> None:
    orders = Orders()
    orders.by_number[1] = raising(ValueError("no"))
    rig = tally_rig(orders=orders)
    start = rig.clock.now()
    rig.append("steps", ("k", Step(n=1)))
    rig.wait(0).wait(500, 10)
    (letter,) = rig.facts("tally.dead")["k"]
    assert letter.kind == "attempts_exhausted"
    assert [a.at - start for a in letter.attempts] == [0, 1000, 3000]
    assert [a.error for a in letter.attempts] == ["ValueError: no"] * 3
    assert rig.waiting("tally") == [("k", "parked", 3)]


def test_a_retry_may_name_its_own_time() -> None:
    orders = Orders()
    orders.by_number[1] = always(Retry("busy", 0.25))
    rig = tally_rig(orders=orders)
    rig.append("steps", ("k", Step(n=1)))
    assert rig.run().workers["tally"].step(rig.clock.now()).next_due == rig.clock.now() + 250
    del orders.by_number[1]
    assert steps(rig.wait(249), "k") == ()
    assert steps(rig.wait(1), "k") == (1,)


def test_a_hold_costs_no_attempt_and_keeps_the_order() -> None:
    orders = Orders()
    rig = tally_rig(orders=orders)
    orders.by_number[1] = lambda event: Hold("the bank", rig.clock.now() + 60_000)
    rig.append("steps", ("k", Step(n=1)), ("k", Step(n=2)))
    rig.run().wait(60_000, 20)
    assert rig.waiting("tally") == [("k", "waiting", 0), ("k", "waiting", 0)]
    orders.by_number.clear()
    assert steps(rig.wait(60_000), "k") == (1, 2)


def test_a_hold_until_a_time_long_past_does_not_spin() -> None:
    """``until`` counted from the append time lies behind when the worker lags."""
    orders = Orders()
    orders.by_number[1] = lambda event: Hold("the bank", event.appended_at + 1)
    rig = tally_rig(orders=orders)
    rig.append("steps", ("k", Step(n=1)))
    rig.wait(3_600_000)
    assert len(orders.said) == 1
    assert len(rig.wait(1000).waiting("tally")) == 1
    assert len(orders.said) == 2


def test_types_that_are_not_read_pass_unopened_and_unmarked() -> None:
    rig = tally_rig()
    rig.append("steps", ("k", Step(n=1)))
    noise = replace(rig.message("k", Noise(text="x")), value=b"\xff not even JSON")
    rig.log.append("steps", [noise], rig.clock.now())
    rig.append("steps", ("k", Step(n=2)))
    rig.run()
    assert steps(rig, "k") == (1, 2)
    assert rig.stores["tally"].file.run("SELECT count(*) FROM marks")[0][0] == 2
    positions = rig.workers["tally"].positions
    assert sum(n for (topic, _), n in positions.items() if topic == "steps") == 3


def ill_formed(rig: Rig) -> list[Message]:
    """Records that nothing can open."""
    good = rig.message("m", Step(n=1))
    return [
        replace(good, value=b"{\"n\": "), replace(good, value=b"\xff"), replace(good, id=b"short"),
        replace(good, type=""), replace(good, version=0), replace(good, value=b'{"n":"one"}'),
        Message("m", b"from a foreign tool"),
    ]


def test_ill_formed_records_park_at_once_and_keep_their_bytes() -> None:
    rig = tally_rig(after_park="continue")
    messages = ill_formed(rig)
    rig.log.append("steps", messages, rig.clock.now())
    rig.append("steps", ("m", Step(n=2)))
    rig.run()
    letters = rig.facts("tally.dead")["m"]
    assert [letter.kind for letter in letters] == ["malformed"] * len(messages)
    assert [letter.value for letter in letters] == [m.value for m in messages]
    assert steps(rig, "m") == (2,)


def test_an_unknown_schema_holds_its_partition_then_parks() -> None:
    rig = tally_rig(partitions=1)
    later = replace(rig.message("k", Step(n=1)), version=7)
    rig.append("steps", ("j", Step(n=0)))
    rig.log.append("steps", [later], rig.clock.now())
    rig.append("steps", ("j", Step(n=2)))
    rig.append("more", ("j", Step(n=9)))
    rig.run()
    assert steps(rig, "j") == (0, 9) or steps(rig, "j") == (9, 0)
    assert "step.taken/7 is not known" in rig.workers["tally"].trouble["steps[0]"]
    rig.wait(int(SCHEMA_WAIT_SECONDS * 1000) - 1)
    assert rig.waiting("tally") == []
    rig.wait(1)
    assert rig.waiting("tally") == [("k", "parked", 0)]
    assert steps(rig, "j")[-1] == 2
    assert rig.workers["tally"].trouble == {}


def test_a_position_outside_the_log_stops_its_lane_with_a_word(tmp_path: Path) -> None:
    rig = tally_rig(tmp_path, partitions=2)
    keys = {n: next(k for k in map(str, range(99)) if partition_of(k, 2) == n) for n in (0, 1)}
    for key in keys.values():
        rig.append("steps", *((key, Step(n=n)) for n in range(3)))
    rig.run()
    rig.workers["tally"].leave()
    file = rig.stores["tally"].file
    file.run(
        "UPDATE owners SET positions = json_set(positions, '$.steps', 99) WHERE lane = 0"
    )
    rig.start("tally")
    for key in keys.values():
        rig.append("steps", (key, Step(n=3)))
        rig.append("more", (key, Step(n=4)))
    rig.run()
    assert "outside the log" in rig.workers["tally"].trouble["steps[0]"]
    assert steps(rig, keys[0]) == (0, 1, 2)
    assert sorted(steps(rig, keys[1])) == [0, 1, 2, 3, 4]


def test_a_service_that_fails_most_keys_stops_and_parks_nothing() -> None:
    """A bad deploy: the fixed one, started again, continues where it was."""
    orders, bad = Orders(), raising(KeyError("new field"))
    orders.by_number[7] = bad
    rig = tally_rig(orders=orders, attempts=1, batch=2000)
    rig.append("steps", *((f"g{n}", Step(n=1)) for n in range(80)))
    rig.run()
    rig.append("steps", *((f"b{n}", Step(n=7)) for n in range(150)))
    rig.run()
    worker = rig.workers["tally"]
    assert "150 of the last 200 keys fail in decide" in worker.stopped
    assert "KeyError: 'new field'" in worker.stopped
    assert rig.waiting("tally") == []
    assert rig.records("tally.dead") == []
    orders.by_number.clear()
    rig.start("tally")
    rig.run()
    assert all(steps(rig, f"b{n}") == (7,) for n in range(150))


def test_a_stopped_worker_gives_its_lanes_to_who_joins() -> None:
    """Else both believed to own the first lane, and each one's courier fenced off the other's."""
    orders = Orders()
    orders.by_number[7] = raising(KeyError("new field"))
    rig = tally_rig(orders=orders, attempts=1, batch=2000)
    rig.append("steps", *((f"b{n}", Step(n=7)) for n in range(150)))
    rig.run()
    stopped, joined = rig.workers["tally"], rig.new_worker("tally")
    assert stopped.stopped
    for worker in (stopped, joined, stopped):
        worker.step(rig.clock.now())
    assert len(stopped.lanes) == len(joined.lanes) == 2
    assert not stopped.lanes & joined.lanes
    joined.leave()
    stopped.step(rig.clock.now())
    assert stopped.lanes == frozenset(range(4))


def test_up_to_half_of_the_keys_may_fail() -> None:
    orders = Orders()
    orders.by_number[7] = raising(KeyError("x"))
    rig = tally_rig(orders=orders, attempts=1, batch=2000, partitions=1)
    rig.append("steps", *((f"k{n}", Step(n=7 if n % 2 else 1)) for n in range(400)))
    rig.run()
    assert rig.workers["tally"].stopped == ""
    assert len(rig.waiting("tally")) == 200


def test_malformed_records_do_not_stop_a_service() -> None:
    rig = tally_rig(batch=2000)
    rig.log.append("steps", [Message(f"k{n}", b"x") for n in range(300)], rig.clock.now())
    rig.append("steps", *((f"g{n}", Step(n=1)) for n in range(5)))
    rig.run()
    assert rig.workers["tally"].stopped == ""
    assert len(rig.waiting("tally")) == 300
    assert tally(rig, "g4").steps == (1,)


def test_a_row_that_does_not_match_its_checksum_is_refused_and_said(tmp_path: Path) -> None:
    rig = tally_rig(tmp_path, partitions=1)
    rig.append("steps", *(("k", Step(n=n)) for n in range(10)))
    file = File(tmp_path / "source.db")
    (body,) = file.run("SELECT body FROM log_steps")[0]
    file.run("UPDATE log_steps SET body = ?", (body[:-1] + b"!",))
    rig.run()
    assert "checksum differs" in rig.workers["tally"].trouble["log"]
    assert rig.states("tally") == {}
    file.run("UPDATE log_steps SET body = ?", (body,))
    rig.run()
    assert steps(rig, "k") == tuple(range(10))
    assert rig.workers["tally"].trouble == {}
