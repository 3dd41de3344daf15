"""Several processes move things between documents that they share, each in a lane of its own."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from penstock.conformance.scenario import finished, processes
from penstock.conformance.stores import SERVICE, Owner, bodies, ids, position, seen, sheet
from penstock.decision import Ref
from penstock.errors import Contended
from penstock.store.postgres import PostgresStore

Opened = Callable[..., PostgresStore]
Look = Callable[..., list[tuple[Any, ...]]]
LANES, ROUNDS, POTS = 3, 25, 6


def move_about(where: str, lane: int) -> None:
    """Take from one document and put into two others, some not there yet, loaded in two goes
    and in any order; what is contended is done again."""
    store, dice = PostgresStore(where, SERVICE), random.Random(lane)
    owner, n = Owner(store, lane), 0
    while n < ROUNDS:
        pots = [f"p{dice.randrange(POTS)}" for _ in range(3)]
        with suppress(Contended):
            move(owner, f"{lane}/{n}", n + 1, *dict.fromkeys(pots))
            n += 1
    store.close()


def move(owner: Owner, name: str, offset: int, first: str, *others: str) -> None:
    """One transaction."""
    with owner.turn(offset) as tx:
        found = tx.load([Ref("sheet", first)], ids(name)).bodies
        found |= tx.load([Ref("sheet", other) for other in others]).bodies
        numbers = {
            key: int(found.get(Ref("sheet", key), b"0")) + 1 for key in others
        }
        held = int(found.get(Ref("sheet", first), b"0"))
        numbers[first] = held - len(others)
        tx.save([sheet(key, b"%d" % number) for key, number in numbers.items()])
        tx.mark(ids(name))


def test_processes_move_things_and_lose_none(opened: Opened, where: str, look: Look) -> None:
    """The sum of all documents stays what it was, every move is marked once, every lane is at
    its end, and of each document the numbers rose from version to version."""
    with processes(move_about, [(where, lane) for lane in range(1, LANES)]) as started:
        move_about(where, 0)
        finished(started)
    store = opened()
    found = bodies(store, *(f"p{n}" for n in range(POTS)))
    assert sum(int(body) for body in found.values()) == 0
    assert len(found) == POTS
    names = [f"{lane}/{n}" for lane in range(LANES) for n in range(ROUNDS)]
    assert seen(store, *names) == set(names)
    assert [position(store, lane) for lane in range(LANES)] == [ROUNDS] * LANES
    assert look("SELECT count(*) FROM documents WHERE before >= txn OR before < 0") == [(0,)]
    assert look("SELECT count(*), count(DISTINCT txn) FROM marks") == [(len(names), len(names))]
