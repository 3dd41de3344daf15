"""Rows under concurrent writers and couriers: none lost, each key in its order."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from threading import Event
from typing import Any

import psycopg

from penstock.conformance.outboxes import ANSWERS, Courier, answer, names
from penstock.conformance.scenario import NOW, message, refused, together
from penstock.conformance.stores import FOLDED, Owner, ask, sheet
from penstock.decision import Ref
from penstock.embedded.rows import message_bytes
from penstock.errors import Contended, StaleOwner
from penstock.event import slot_of
from penstock.ports import SHARDS, Outgoing, Settled, courier_lane
from penstock.store.postgres import PostgresStore
from tests.store.conftest import waits
from tests.support import eventually

Opened = Callable[..., PostgresStore]
Look = Callable[..., list[tuple[Any, ...]]]
ROW = (
    "INSERT INTO outbox(scope, destination, is_topic, shard, key, name, idempotency_key, due,"
    " made_at, message, txn, epoch)"
    " VALUES(%s, 'press', false, 0, 'slow', 'slow', '', 0, 1, %s, nextval('txns'), 1)"
    " RETURNING id"
)


def test_a_slow_transaction_loses_no_row(
    opened: Opened, other: psycopg.Connection[Any]
) -> None:
    """Its row has the lower id and is seen later, when the courier has long passed that id."""
    store = opened()
    owner = Owner(store)
    slow = other.execute(ROW, [store.scope, message_bytes(message("slow"))]).fetchone()
    with owner.turn() as tx:
        tx.send([ask("fast", "fast")], NOW)
    courier = Courier(store)
    (fast,) = courier.due()
    assert slow is not None
    assert fast.id > slow[0]
    courier.close(fast)
    assert courier.due() == []
    other.commit()
    assert [(row.id, row.name) for row in courier.due()] == [(slow[0], "slow")]
    later = [fast.id + 5]  # no row is passed over because it comes before one that is known
    assert names(store.due("press", NOW, later, 10)) == ["slow"]
    assert names(store.due("press", NOW, [slow[0], *later], 10)) == []


def test_rows_of_a_key_come_in_the_order_of_its_commits(opened: Opened) -> None:
    """Four lanes write rows under keys that they share, each beside the key's own document; a
    courier carries all the while. Of each key it carries 1, 2, 3 and so on."""
    keys, rounds, done = [f"k{n}" for n in range(3)], 30, Event()
    carried: list[tuple[str, int]] = []

    def write(lane: int) -> None:
        owner, n = Owner(opened(), lane), 0
        while n < rounds:
            with suppress(Contended):
                number_all(owner, keys)
                n += 1

    def carry() -> None:
        courier = Courier(opened())
        while True:
            last = done.is_set()
            rows = courier.store.due(FOLDED, NOW, (), 7, is_topic=True)
            carried.extend((row.message.key, int(row.message.value)) for row in rows)
            courier.settle(*(Settled(r.id, "sent", attempts=1, shard=r.shard) for r in rows))
            if last and not rows:
                return

    def write_all() -> None:
        try:
            together(*(lambda lane=lane: write(lane) for lane in range(4)))
        finally:
            done.set()

    together(write_all, carry)
    by_key = {key: [n for k, n in carried if k == key] for key in keys}
    assert by_key == {key: list(range(1, 4 * rounds + 1)) for key in keys}


def number_all(owner: Owner, keys: list[str]) -> None:
    """One transaction that counts each key's document up, and tells the number in a row."""
    with owner.turn() as tx:
        found = tx.load([Ref("sheet", key) for key in keys]).bodies
        numbers = {key: int(found.get(Ref("sheet", key), b"0")) + 1 for key in keys}
        tx.save([sheet(key, b"%d" % n) for key, n in numbers.items()])
        tx.send([Outgoing(FOLDED, True, message(key, f"{n}")) for key, n in numbers.items()], NOW)


def test_couriers_share_the_rows_by_shard(opened: Opened) -> None:
    """Each sees its own; together all; a row's shard is its key's."""
    store, keys = opened(), [f"k{n}" for n in range(200)]
    with Owner(store).turn() as tx:
        tx.send([ask(key, key) for key in keys], NOW)
    even, odd = frozenset(range(0, SHARDS, 2)), frozenset(range(1, SHARDS, 2))
    seen = {}
    for shards in (even, odd, frozenset(range(SHARDS))):
        rows = store.due("press", NOW, (), 1000, shards=shards)
        assert {row.shard for row in rows} <= shards
        seen[shards] = names(rows)
    assert sorted(seen[even] + seen[odd]) == sorted(keys)
    assert seen[frozenset(range(SHARDS))] == keys
    assert store.due("press", NOW, (), 1000, shards=()) == []
    for row in store.due("press", NOW, (), 1000):
        assert row.shard == slot_of(row.message.key) % SHARDS


def test_a_settlement_is_refused_where_one_shard_is_anothers(opened: Opened) -> None:
    """All or nothing: the courier claims again and asks what is still open."""
    store = opened()
    with Owner(store).turn() as tx:
        tx.send([ask(f"k{n}", "fold") for n in range(20)], NOW)
    courier = Courier(store)
    rows = courier.due()
    opened().claim([courier_lane(rows[0].shard)], NOW)
    refused(StaleOwner, courier.close, *rows)
    assert len(courier.due()) == 20
    Courier(store).close(*rows)
    assert courier.due() == []


def test_a_settlement_is_one_statement(opened: Opened) -> None:
    store = opened()
    with Owner(store).turn() as tx:
        tx.send([ask(f"k{n}", "fold") for n in range(20)], NOW)
    courier = Courier(store)
    rows, before = courier.due(), store.statements
    courier.close(*rows)
    assert store.statements - before == 1
    courier.settle()
    assert store.statements - before == 1
    assert [m.message for m in store.due(ANSWERS, NOW, (), 100, is_topic=True)] == [
        answer(row) for row in rows
    ]


def test_a_settlement_waits_for_the_lane(
    opened: Opened, other: psycopg.Connection[Any], look: Look
) -> None:
    """While another courier's claim is under way nobody knows who wins: it waits, and loses."""
    store = opened()
    with Owner(store).turn() as tx:
        tx.send([ask("k0", "fold")], NOW)
    courier = Courier(store)
    (row,) = courier.due()
    other.execute(
        "UPDATE owners SET epoch = epoch + 1 WHERE lane = %s", [courier_lane(row.shard)]
    )

    def settle() -> None:
        refused(StaleOwner, courier.close, row)

    def commit() -> None:
        eventually(lambda: waits(look), what="the settlement waits")
        other.commit()

    together(settle, commit)
    assert len(courier.due()) == 1


def test_texts_of_others_are_kept_as_far_as_they_can_be(opened: Opened, look: Look) -> None:
    """A gateway's words and a foreign key may hold what no column can: the exact key stays in
    the message, and the row is found by it."""
    store, key = opened(), "a\0b"
    with Owner(store).turn() as tx:
        tx.send([Outgoing(name, name != "press", message(key)) for name in ("press", FOLDED)], NOW)
    courier = Courier(store)
    (row,) = courier.due()
    assert row.message.key == key
    error = "no\0such \ud800 paper" + "x" * 2000
    courier.settle(Settled(row.id, "", None, NOW + 5, 1, error, row.shard))
    ((kept,),) = look("SELECT error FROM outbox_log WHERE destination = 'press'")
    assert kept.startswith("no\N{REPLACEMENT CHARACTER}such ? paper")
    assert len(kept) == 1000
