"""What a batch and a look read does not grow with the tables, whatever they held when the
connection was made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from penstock.conformance.outboxes import Courier
from penstock.conformance.scenario import NOW, message
from penstock.conformance.stores import FOLDED, Owner, ask, ids, record, sheet
from penstock.event import Record
from penstock.ports import Outgoing, Settled, Waiting
from penstock.store.postgres import PostgresStore
from tests.support import eventually

Opened = Callable[..., PostgresStore]
Look = Callable[..., list[tuple[Any, ...]]]
TURNS, EACH = 15, 60


def turn(owner: Owner, courier: Courier, n: int) -> None:
    """A batch of new keys: all that a commit can hold; then the rows are carried."""
    names = [f"{n}/{k}" for k in range(EACH)]
    records = [record(n * EACH + k) for k in range(EACH)]
    with owner.turn(n) as tx:
        tx.load([sheet(name).ref for name in names], ids(*names))
        tx.save([sheet(name, b"{}", "open") for name in names])
        tx.mark(ids(*names))
        tx.send([Outgoing(FOLDED, True, message(name)) for name in names], NOW)
        tx.send([ask(name, "wake", "clock", NOW + 5) for name in names], NOW)
        tx.defer([waiting(r) for r in records], [])
    with owner.turn(n) as tx:
        tx.load([sheet(name).ref for name in names])
        tx.save([sheet(name, b"{}", "shut") for name in names])
        tx.defer([], records)
    rows = courier.store.due(FOLDED, NOW, (), 100, is_topic=True)
    rows += courier.store.due("clock", NOW + 9, (), 100)
    assert len(rows) == 2 * EACH
    courier.settle(*(Settled(r.id, "ok", attempts=1, shard=r.shard) for r in rows))
    assert courier.due() == []


def waiting(record: Record) -> Waiting:
    """A record that waits."""
    return Waiting(record=record, state="waiting", due=NOW, attempts=1)


def test_a_batch_reads_what_it_names(opened: Opened, look: Look) -> None:
    """The plans are made on empty tables and kept. By keys each row is read a few times in its
    life; a plan that read a table from end to end would read each row hundreds of times."""
    store = opened()
    owner, courier = Owner(store), Courier(store)
    for n in range(TURNS):
        turn(owner, courier, n)
    store.close()  # it hands in what it counted

    def reads() -> dict[str, int]:
        found = look(
            "SELECT relname::text, seq_tup_read + coalesce(idx_tup_fetch, 0)"
            " FROM pg_stat_user_tables WHERE n_tup_ins > 0"
        )
        return {table: int(count) for table, count in found}

    rows = TURNS * EACH
    seen = eventually(lambda: found if len(found := reads()) >= 5 else None)
    for table in ("documents", "marks", "waiting"):
        assert seen[table] <= 8 * rows, seen
    assert seen["outbox"] <= 8 * 2 * rows, seen
