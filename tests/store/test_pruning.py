"""Pruning where transactions are under way: nothing that may still come is forgotten."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg

from penstock.conformance.outboxes import Courier
from penstock.conformance.scenario import NOW, message
from penstock.conformance.stores import FOLDED, Owner, bodies, ids, seen, sheet
from penstock.ports import INTAKE_LANE, Advance, Outgoing, Settled
from penstock.store.postgres import PostgresStore
from penstock.store.postgres_pruning import INTAKE_LANES, READERLESS_MS
from penstock.store.pruning import CHECKPOINTS_MAX
from tests.store.conftest import in_thread, waits
from tests.support import eventually

Opened = Callable[..., PostgresStore]
Look = Callable[..., list[tuple[Any, ...]]]


def test_a_checkpoint_waits_for_numbers_that_are_on_their_way(
    opened: Opened, other: psycopg.Connection[Any], look: Look
) -> None:
    """Lane 0 has taken number n and not committed, lane 1 has committed n + 1. A checkpoint of
    n + 1 with lane 0's old position would let the marks of n go too early."""
    slow, fast = Owner(opened(), 0), Owner(opened(), 1)
    other.execute(
        "INSERT INTO documents(scope, kind, key, body, txn, epoch, before)"
        " VALUES(%s, 'sheet', 'a', 'x', nextval('txns'), 1, 0)", [slow.store.scope]
    )  # fmt: skip

    def write() -> None:
        with slow.turn(20) as tx:
            tx.mark(ids("slow"))
            tx.save([sheet("a")])

    writing, failures = in_thread(write)
    eventually(lambda: waits(look) == 1, what="the slow one has its number")
    with fast.turn(10) as tx:
        tx.mark(ids("fast"))
    pruning, _ = in_thread(lambda: opened().prune({}, NOW))
    eventually(lambda: waits(look) == 2, what="the checkpoint waits")
    other.rollback()
    writing.join()
    pruning.join()
    assert failures == []
    positions = look("SELECT positions -> '0' ->> 'letters' FROM checkpoints")
    assert positions == [("20",)]
    floors = {("letters", 0): 19, ("letters", 1): 10}
    store = opened()
    store.prune(floors, NOW + 1)
    assert seen(store, "slow", "fast") == {"slow", "fast"}


def test_tombstones_and_old_doors_go(opened: Opened, look: Look) -> None:
    """A deleted document, and the lane of a door that ended long ago; none that may be in use."""
    store = opened()
    doors = {lane: c.epoch for lane in (INTAKE_LANE, INTAKE_LANES, INTAKE_LANES - 7)
             for c in store.claim([lane], NOW)}  # fmt: skip
    owner = Owner(store)
    owner.save(sheet("a"), sheet("b"), offset=1)
    owner.save(sheet("a", None), offset=2)
    with store.begin() as tx:
        tx.advance([Advance(INTAKE_LANES - 7, doors[INTAKE_LANES - 7], {})], NOW)
    store.prune({}, NOW)
    owner.save(sheet("b", None), offset=3)
    assert look("SELECT key FROM documents ORDER BY key") == [("a",), ("b",)]
    assert store.prune({("letters", 0): 2}, NOW + 1) == 1
    assert look("SELECT key FROM documents") == [("b",)]
    lanes = {lane for (lane,) in look("SELECT DISTINCT lane FROM lanes")}
    assert lanes == {0, INTAKE_LANE, INTAKE_LANES - 7}
    assert bodies(store, "a", "b") == {}
    owner.save(sheet("a"), offset=4)
    assert bodies(store, "a") == {"a": b"{}"}


def test_a_document_that_comes_to_life_meanwhile_stays(
    opened: Opened, other: psycopg.Connection[Any], look: Look
) -> None:
    """The deletion of a tombstone waits for the transaction that writes it, and looks again."""
    store = opened()
    owner = Owner(store)
    owner.save(sheet("a"), offset=1)
    owner.save(sheet("a", None), offset=2)
    store.prune({}, NOW)
    other.execute("UPDATE documents SET body = 'alive', txn = nextval('txns')")
    pruning, failures = in_thread(lambda: opened().prune({("letters", 0): 2}, NOW + 1))
    eventually(lambda: waits(look), what="the deletion waits")
    other.commit()
    pruning.join()
    assert failures == []
    assert bodies(store, "a") == {"a": b"alive"}


def test_who_reads_nothing_keeps_its_settled_rows_for_a_while_only(
    opened: Opened, look: Look
) -> None:
    """A door has no positions and no marks that anything must wait for: all that is accepted goes
    through its outbox, and doors come and go."""
    store = opened("door")
    old, new = INTAKE_LANES - 1, INTAKE_LANES - 2

    def accept(lane: int, key: str) -> None:
        (claim,) = store.claim([lane], NOW)
        with store.begin() as tx:
            tx.advance([Advance(lane, claim.epoch, {})], NOW)
            tx.send([Outgoing(FOLDED, True, message(key))], NOW)

    courier = Courier(store)
    accept(old, "a")
    rows = store.due(FOLDED, NOW, (), 10, is_topic=True)
    courier.settle(*(Settled(r.id, "sent", attempts=1, shard=r.shard) for r in rows))
    accept(old, "open")
    store.prune({}, NOW)
    accept(new, "later")
    assert store.prune({}, NOW + READERLESS_MS - 1) == 0
    assert store.prune({}, NOW + READERLESS_MS) == 1
    assert look("SELECT key FROM outbox ORDER BY id") == [("open",), ("later",)]


def test_a_round_without_anything_to_drop_reads_no_whole_table(
    opened: Opened, look: Look
) -> None:
    """Rows stay for as long as the logs hold what they answer for; a round comes twice a minute."""
    store, count = opened(), 4000
    owner = Owner(store)
    owner.save(offset=1)
    store.prune({}, NOW)
    owner.save(offset=2)
    look(
        "INSERT INTO outbox(scope, destination, is_topic, shard, key, name, idempotency_key, due,"
        " made_at, message, txn, epoch, settled_at, settled_txn) SELECT %s, 'x', true, 0, '', '',"
        " '', 0, 1, '', 900 + n, 1, 1, 900 + n FROM generate_series(1, %s) n RETURNING 1",
        store.scope, count,
    )  # fmt: skip
    look("ANALYZE outbox")

    def reads() -> int:
        ((found,),) = look(
            "SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_user_tables"
            " WHERE relname = 'outbox'"
        )
        return int(found)

    before = reads()
    for n in range(3):
        store.prune({("letters", 0): 1}, NOW + n)
    store.close()  # it hands in what it counted
    eventually(lambda: not look(
        "SELECT FROM pg_stat_activity WHERE application_name LIKE 'penstock folding%%'"
        " AND datname = current_database()"
    ))  # fmt: skip
    assert 0 < reads() - before < count // 10


def test_checkpoints_are_bounded(opened: Opened, look: Look) -> None:
    """The oldest and the newest stay; what goes lay close to its neighbours for its age."""
    store = opened()
    owner = Owner(store)
    owner.save()
    scope = store.scope
    look(
        "INSERT INTO checkpoints SELECT %s, -n, %s - n * 1000, '{}' FROM generate_series(1, %s) n"
        " RETURNING 1", scope, NOW, CHECKPOINTS_MAX + 50,
    )  # fmt: skip
    store.prune({}, NOW)
    ((count, first, last),) = look("SELECT count(*), min(at), max(at) FROM checkpoints")
    assert (count, last) == (CHECKPOINTS_MAX, NOW)
    assert first == NOW - (CHECKPOINTS_MAX + 50) * 1000


def test_pruning_gives_way(
    opened: Opened, other: psycopg.Connection[Any]
) -> None:
    """Where a lane is held for long it drops nothing this time."""
    store = opened(options="-c lock_timeout=20ms")
    Owner(store).save(sheet("a"))
    other.execute("SELECT FROM owners FOR UPDATE")
    assert store.prune({("letters", 0): 99}, NOW) == 0
    other.rollback()
