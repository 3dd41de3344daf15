"""What a dead owner was about to decide, told to the next; and what is no death."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from threading import Event
from typing import Any

from penstock.conformance.scenario import NOW, PROCESSES, eventually, processes, refused
from penstock.conformance.stores import SERVICE, Owner, ids, record, sheet
from penstock.engine.slots import NoSlots
from penstock.engine.worker import Worker
from penstock.errors import StaleOwner
from penstock.ports import Advance, Claim, Span, Waiting
from penstock.store.postgres import PostgresStore
from tests.engine.tally import Orders, Step, raising, tally_rig

Opened = Callable[..., PostgresStore]
Look = Callable[..., list[tuple[Any, ...]]]
SPANS = {0: [Span("letters", 4, 9), Span("more", 1, 1)], 1: [Span("letters", 7, 7)]}


def begin_and_stop(where: str, told: Connection, spans: dict[int, Sequence[Span]]) -> None:
    """The life of a process that is killed in its decides."""
    store = PostgresStore(where, SERVICE)
    owner = Owner(store, *spans)
    with store.begin(spans) as tx:
        owner.advance(tx, 10)
        tx.load([sheet("a").ref], ids("a"))
        told.send(True)
        Event().wait()


def die(where: str) -> None:
    """A process begins to decide ``SPANS`` and is killed."""
    here, there = PROCESSES.Pipe()
    with processes(begin_and_stop, [(where, there, SPANS)]) as (process,):
        eventually(here.poll, "the process is inside")
        process.kill()
        process.join()


def alone(look: Look) -> bool:
    """Has the server seen the end of all who were here, but for the one who asks?"""
    found = look(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    return bool(found[0][0] == 0)


def test_a_killed_process_is_told_of(opened: Opened, where: str, look: Look) -> None:
    """Each of its lanes' next owners learns the spans, again and again until a commit."""
    die(where)
    eventually(partial(alone, look), "the server has seen it")
    owner = Owner(opened(), 0, 1)
    assert {lane: list(c.attempted) for lane, c in owner.claims.items()} == SPANS
    assert Owner(opened(), 1).claims[1].attempted == tuple(SPANS[1])
    owner = Owner(opened(), 0)
    assert owner.claims[0].attempted == tuple(SPANS[0])
    owner.save(sheet("a"), offset=10)
    assert Owner(opened(), 0).claims[0].attempted == ()
    assert Owner(opened(), 1).claims[1].attempted == tuple(SPANS[1])


def test_a_finished_batch_is_no_attempt(opened: Opened, look: Look) -> None:
    """A commit closes what was begun, without a statement of its own."""
    store = opened()
    owner = Owner(store)
    with store.begin({0: SPANS[0]}) as tx:
        owner.advance(tx, 10)
        tx.load([sheet("a").ref])
    store.close()
    eventually(partial(alone, look), "the server has seen its end")
    assert Owner(opened()).claims[0].attempted == ()


def broken_off(store: PostgresStore, owner: Owner) -> None:
    """A batch that is begun and rolled back."""
    with store.begin({0: SPANS[0]}) as tx:
        owner.advance(tx, 10)
        tx.load([sheet("a").ref])
        raise InterruptedError


def test_one_that_lives_is_not_taken_for_dead(opened: Opened, look: Look) -> None:
    """A lane that goes to another in the middle of a batch was not left by a death: nobody is
    charged, and nothing runs one by one. Its owner ends later, and then it counts."""
    old = opened()
    owner = Owner(old)
    refused(InterruptedError, broken_off, old, owner)
    assert Owner(opened()).claims[0].attempted == ()
    old.close()

    def told() -> tuple[Span, ...]:
        return Owner(opened()).claims[0].attempted

    assert eventually(told, "its connections are seen to be gone") == tuple(SPANS[0])


def test_ones_own_attempts_are_no_death(opened: Opened) -> None:
    """A worker that claims again after it lost the database did not die."""
    store = opened()
    refused(InterruptedError, broken_off, store, Owner(store))
    store.close()
    assert Owner(store).claims[0].attempted == ()


def test_a_stale_owner_leaves_no_word(opened: Opened, look: Look) -> None:
    """One that lost its lane does not write over what the new owner is about to decide."""
    old, new = opened(), opened()
    late, owner = Owner(old), Owner(new)
    with new.begin({0: [Span("letters", 1, 1)]}) as tx:
        owner.advance(tx, 2)
        tx.load([sheet("a").ref])
        refused(InterruptedError, broken_off, old, late)
        assert look("SELECT spans FROM attempts") == [('[["letters",1,1]]',)]
    refused(StaleOwner, late.save)


def test_a_charge_closes_the_attempt(opened: Opened, where: str, look: Look) -> None:
    """The next owner's first commit, which charges the record, is a commit like any other."""
    die(where)
    eventually(partial(alone, look), "the server has seen it")
    store = opened()
    (claim,) = store.claim([1], NOW)
    charged = Waiting(record=record(7), state="waiting", due=NOW, attempts=0, deaths=1)
    with store.begin() as tx:
        tx.advance([Advance(1, claim.epoch, {"letters": 7})], NOW)
        tx.defer([charged], [])
    assert opened().claim([1], NOW)[0].attempted == ()


class Killed(BaseException):
    """Stands for the end of the process."""


def test_the_record_that_kills_is_found(opened: Opened, look: Look) -> None:
    """The engine on this store: the batch dies, then records run one by one, the one that kills
    is charged and parked at the bound, and every turn was three statements at most."""
    orders = Orders()
    rig = tally_rig(orders=orders)
    rig.workers.pop("tally").leave()
    rig.append("steps", *((f"k{n}", Step(n=n, pots=("p",))) for n in range(8)))
    orders.by_number[5] = raising(Killed())
    deaths, most, done = 0, 0, False
    while not done:
        store = opened("tally")
        worker = Worker(rig.units["tally"], rig.log, store, NoSlots(4))
        try:
            for _ in range(30):
                before, claimed = store.statements, worker.lanes
                worker.step(rig.clock.now())
                most = max(most, store.statements - before if claimed else 0)
            done = True
        except Killed:
            deaths += 1
            worker.leave()
        store.close()
        eventually(partial(alone, look), "the server has seen its end")
    assert deaths == 1 + 3, "once in the batch, and then alone up to the bound"
    assert most <= 4, "own documents, then those that needs name: a load more"
    pot = look("SELECT body -> 'total' FROM documents_json WHERE kind = 'pot'")
    assert pot == [(sum(n for n in range(8) if n != 5),)]
    assert look("SELECT key, state, kind, deaths FROM waiting_now") == [
        ("k5", "parked", "process_death", 0)
    ]


def test_claims_carry_positions(opened: Opened) -> None:
    claims: list[Claim] = opened().claim([3], NOW)
    assert (claims[0].positions, claims[0].attempted) == ({}, ())
