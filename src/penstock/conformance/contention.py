"""What every store must do when several handles and processes write at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from threading import Event

from penstock.conformance.scenario import (
    NOW,
    PROCESSES,
    Suite,
    eventually,
    finished,
    processes,
    together,
)
from penstock.conformance.stores import (
    Owner,
    StoreFixture,
    bodies,
    do_everything,
    ids,
    position,
    scan,
    seen,
    sheet,
    traces,
)
from penstock.decision import Ref
from penstock.errors import Contended
from penstock.ports import Span, Store

contention = Suite[StoreFixture]()


def _count_up(open_store: Callable[[], Store], lane: int, rounds: int) -> None:
    owner, n = Owner(open_store(), lane), 0
    while n < rounds:
        with suppress(Contended):  # where two make what was not there yet
            _count_one(owner, lane, n)
            n += 1


def _count_one(owner: Owner, lane: int, n: int) -> None:
    with owner.turn(n + 1) as tx:
        ref = Ref("sheet", "total")
        total = int(tx.load([ref]).bodies.get(ref, b"0"))
        tx.save([sheet("total", b"%d" % (total + 1))])
        tx.mark(ids(f"{lane}/{n}"))


def _check_total(store: Store, lanes: Sequence[int], rounds: int) -> None:
    assert bodies(store, "total") == {"total": b"%d" % (len(lanes) * rounds)}
    names = [f"{lane}/{n}" for lane in lanes for n in range(rounds)]
    assert seen(store, *names) == set(names)
    assert [position(store, lane) for lane in lanes] == [rounds] * len(lanes)


@contention.scenario("several_processes")
def handles_share_a_document(fixture: StoreFixture) -> None:
    """Threads that read, change and write one document lose no change."""
    fixture.open()
    together(*(partial(_count_up, fixture.open, lane, 25) for lane in range(4)))
    _check_total(fixture.open(), range(4), 25)


@contention.scenario("several_processes")
def processes_share_a_document(fixture: StoreFixture) -> None:
    """Processes that read, change and write one document lose no change."""
    with processes(_count_up, [(fixture.opener, lane, 60) for lane in (1, 2)]) as started:
        _count_up(fixture.open, 0, 60)
        finished(started)
    _check_total(fixture.open(), range(3), 60)


@contention.scenario("several_processes")
def reading_waits_for_no_writer(fixture: StoreFixture) -> None:
    """Scans and ``due`` answer while a transaction is open, with what is committed."""
    owner, reader = Owner(fixture.open()), fixture.open()
    owner.save(sheet("a"))
    with owner.turn(2) as tx:
        do_everything(tx, "first")
        assert [r.key for r in scan(reader, "documents")] == ["a"]
        assert reader.due("press", NOW, (), 100) == []
        assert scan(reader, "asks", key="first") == scan(reader, "waiting") == []
    assert all(traces(fixture, "first"))


def _stop_inside(open_store: Callable[[], Store], told: Connection) -> None:
    owner = Owner(open_store(), 1)
    with owner.turn(9) as tx:
        do_everything(tx, "dying")
        told.send(True)
        Event().wait()


def _die_deciding(open_store: Callable[[], Store], told: Connection) -> None:
    store = open_store()
    owner = Owner(store, 0, 1)
    with store.begin(_SPANS) as tx:
        owner.advance(tx, 9)
        tx.load([Ref("sheet", "a")], ids("a"))
        told.send(True)
        Event().wait()


_SPANS = {0: (Span("letters", 4, 8), Span("replies", 1, 1)), 1: (Span("letters", 7, 7),)}


@contention.scenario("several_processes", "attempts")
def a_death_is_told_to_the_next_owner(fixture: StoreFixture) -> None:
    """What a process was deciding when it was killed comes with each claim of its lanes, until
    the lane has a commit; what a living one is deciding does not."""
    here, there = PROCESSES.Pipe()
    with processes(_die_deciding, [(fixture.opener, there)]) as (other,):
        eventually(here.poll, "the other process is inside")
        other.kill()
        other.join()
    owner = Owner(fixture.open(), 0, 1)

    def told() -> bool:
        nonlocal owner
        owner = Owner(fixture.open(), 0, 1)
        return all(claim.attempted for claim in owner.claims.values())

    eventually(told, "the store has seen the end of the process")
    assert {lane: claim.attempted for lane, claim in owner.claims.items()} == _SPANS
    with owner.turn(9, 0):
        pass
    again = Owner(fixture.open(), 0, 1)
    assert {lane: claim.attempted for lane, claim in again.claims.items()} == {0: (), 1: _SPANS[1]}


@contention.scenario("several_processes")
def a_kill_inside_a_transaction_keeps_nothing(fixture: StoreFixture) -> None:
    """A process killed before its commit leaves no trace, and nobody waits for it."""
    here, there = PROCESSES.Pipe()
    with processes(_stop_inside, [(fixture.opener, there)]) as (other,):
        eventually(here.poll, "the other process is inside")
        other.kill()
        other.join()
        Owner(fixture.open()).save(sheet("after"))
    assert not any(traces(fixture, "dying"))
    assert bodies(fixture.open(), "after")
    assert position(fixture.open(), 1) == 0
