"""Transactions of the PostgreSQL store that meet each other: who wins, who does it again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from threading import Barrier
from typing import Any

import psycopg
import pytest

from penstock.conformance.scenario import NOW, refused, together
from penstock.conformance.stores import Owner, bodies, do_everything, ids, seen, sheet
from penstock.decision import Ref
from penstock.errors import Contended, StaleOwner, Unreachable
from penstock.ports import Advance, Span
from penstock.store.postgres import PostgresStore
from tests.store.conftest import in_thread, waits
from tests.support import eventually

Opened = Callable[..., PostgresStore]
Look = Callable[..., list[tuple[Any, ...]]]
MAKE = (
    "INSERT INTO documents(scope, kind, key, body, txn, epoch, before)"
    " VALUES(%s, 'sheet', %s, %s, nextval('txns'), 1, 0)"
)


def test_of_two_that_make_one_document_the_second_does_it_again(opened: Opened) -> None:
    """Nothing is there to be locked; the first commit wins, and no update is lost."""
    left, right = Owner(opened(), 0), Owner(opened(), 1)

    def count(owner: Owner, meanwhile: Callable[[], None] = lambda: None) -> None:
        with owner.turn() as tx:
            found = tx.load([Ref("sheet", "a")]).bodies
            meanwhile()
            tx.save([sheet("a", b"%d" % (int(found.get(Ref("sheet", "a"), b"0")) + 1))])
            tx.mark(ids(f"of {min(owner.claims)}"))

    refused(Contended, count, left, lambda: count(right))
    assert bodies(opened(), "a") == {"a": b"1"}
    assert seen(opened(), "of 0", "of 1") == {"of 1"}
    count(left)
    assert bodies(opened(), "a") == {"a": b"2"}


def test_a_document_made_meanwhile_refuses_the_whole_commit(
    opened: Opened, other: psycopg.Connection[Any], look: Look
) -> None:
    """It waits for the other transaction: committed, it wins; rolled back, it never was."""
    owner = Owner(opened())

    def commit() -> None:
        with owner.turn() as tx:
            tx.load([Ref("sheet", key) for key in "abc"])
            tx.save([sheet(key, b"ours") for key in "abc"])

    for end, wins in ((other.commit, False), (other.rollback, True)):
        other.execute(MAKE, [owner.store.scope, "b" if not wins else "d", b"theirs"])
        other.execute(
            "UPDATE documents SET label = NULL WHERE key = 'b'"
        )  # the second time it is there, and locked
        thread, failures = in_thread(commit)
        eventually(lambda: waits(look), what="one waits for the other")
        end()
        thread.join()
        if wins:
            assert failures == []
        else:
            assert [type(f) for f in failures] == [Contended]
            assert bodies(opened(), "a", "b", "c") == {"b": b"theirs"}
    assert bodies(opened(), "a", "b", "c") == dict.fromkeys("abc", b"ours")


def test_numbers_rise_where_a_document_is_written_unread(
    opened: Opened, other: psycopg.Connection[Any], look: Look
) -> None:
    """A number is taken before the wait for a document's other writer. Who got the higher one
    and was first makes the lower one do it again."""
    owner = Owner(opened())
    other.execute(
        "INSERT INTO documents(scope, kind, key, body, txn, epoch, before)"
        " VALUES(%s, 'sheet', 'a', 'x', 999, 1, 0)", [owner.store.scope]
    )  # fmt: skip
    thread, failures = in_thread(lambda: owner.save(sheet("a", b"ours")))
    eventually(lambda: waits(look), what="it waits for the other writer")
    other.commit()
    thread.join()
    assert [type(f) for f in failures] == [Contended]
    look("SELECT setval('txns', 1000)")
    owner.save(sheet("a", b"ours"))
    assert look("SELECT txn > 999, before FROM documents") == [(True, -1)]


def test_who_waits_in_a_circle_is_told_and_does_it_again(opened: Opened) -> None:
    """Two that load two documents crosswise: the database breaks the circle, both end well."""
    stores = [opened(), opened()]
    Owner(stores[0], 9).save(sheet("a", b"0"), sheet("b", b"0"))
    barrier, contended = Barrier(2), []

    def change(lane: int, first: str, second: str) -> None:
        owner, meet = Owner(stores[lane], lane), True
        while True:
            try:
                with owner.turn() as tx:
                    found = tx.load([Ref("sheet", first)]).bodies
                    if meet:
                        meet = False
                        barrier.wait(10)
                    found |= tx.load([Ref("sheet", second)]).bodies
                    tx.save([sheet(r.key, b"%d" % (int(b) + 1)) for r, b in found.items()])
                return
            except Contended:
                contended.append(lane)

    together(lambda: change(0, "a", "b"), lambda: change(1, "b", "a"))
    assert contended
    assert bodies(opened(), "a", "b") == {"a": b"2", "b": b"2"}


def test_a_lock_held_for_too_long_is_contention(
    opened: Opened, other: psycopg.Connection[Any]
) -> None:
    """Whoever holds a row and stands still makes the others try again, not hang."""
    owner = Owner(opened(options="-c lock_timeout=100ms"))
    owner.save(sheet("a"))
    other.execute("SELECT FROM documents FOR UPDATE")
    refused(Contended, bodies, owner.store, "a")
    other.rollback()
    assert bodies(owner.store, "a")


def test_a_statement_that_takes_too_long_is_given_up(
    opened: Opened, other: psycopg.Connection[Any]
) -> None:
    """The connection is made anew, and nothing was written."""
    owner = Owner(opened(options="-c statement_timeout=200ms"))
    owner.save(sheet("a"))
    other.execute("SELECT FROM documents FOR UPDATE")
    refused(Unreachable, owner.save, sheet("a", b"late"))
    other.rollback()
    assert bodies(owner.store, "a") == {"a": b"{}"}


def test_a_transaction_that_stands_still_is_ended_by_the_server(opened: Opened) -> None:
    """So a stopped process blocks the others for a bounded time; its own commit fails."""
    owner = Owner(opened(options="-c idle_in_transaction_session_timeout=50ms"))
    owner.save(sheet("a"))

    def stand_still() -> None:
        with owner.turn(2) as tx:
            tx.load([Ref("sheet", "a")])
            with suppress(Contended):
                eventually(lambda: bodies(opened(), "a"))
            tx.save([sheet("a", b"late")])

    refused(Unreachable, stand_still)
    assert bodies(owner.store, "a") == {"a": b"{}"}


def test_a_claim_waits_for_the_commit_under_way(
    opened: Opened, other: psycopg.Connection[Any], look: Look
) -> None:
    """What it returns is what came of it; the old owner's next commit fails."""
    old = Owner(opened())
    other.execute(MAKE, [old.store.scope, "a", b"theirs"])

    def commit() -> None:
        with old.turn(7) as tx:
            do_everything(tx, "a")

    thread, failures = in_thread(commit)
    eventually(lambda: waits(look), what="the commit is under way")
    found: list[Owner] = []
    claiming, _ = in_thread(lambda: found.append(Owner(opened())))
    eventually(lambda: waits(look) == 2, what="the claim waits")
    assert not found
    other.rollback()
    thread.join()
    claiming.join()
    assert failures == []
    assert found[0].claims[0].positions == {"letters": 7}
    refused(StaleOwner, old.save)


def test_nothing_is_sent_for_nothing(opened: Opened) -> None:
    """A turn is three statements at most; one that loads nothing is one."""
    store = opened()
    owner = Owner(store)

    before = store.statements
    with store.begin({0: [Span("letters", 0, 1)]}) as tx:
        tx.advance([Advance(0, owner.claims[0].epoch, {"letters": 2})], NOW)
        tx.load([Ref("sheet", "a")], ids("a"))
        do_everything(tx, "a")
    assert store.statements - before == 3
    with owner.turn(3):
        pass
    assert store.statements - before == 4
    with store.begin():
        pass
    assert store.statements - before == 4


def test_a_write_without_an_owner_is_our_bug(opened: Opened) -> None:
    def write() -> None:
        with opened().begin() as tx:
            tx.save([sheet("a")])

    refused(AssertionError, write)


def test_our_bugs_are_not_taken_for_the_world(opened: Opened) -> None:
    """A repeated mark is the database's own error, and the next transaction works."""
    owner = Owner(opened())
    with owner.turn() as tx:
        tx.mark(ids("a"))

    def repeat() -> None:
        with owner.turn(2) as tx:
            tx.load([Ref("sheet", "a")])
            tx.mark(ids("a"))

    assert isinstance(refused(Exception, repeat), psycopg.errors.UniqueViolation)
    owner.save(sheet("a"), offset=3)
    assert owner.store.claim([0], NOW)[0].positions == {"letters": 3}


@pytest.mark.parametrize("key", ["a\0b", "\0"])
def test_no_document_has_a_nul_in_its_key(opened: Opened, key: str) -> None:
    """Asked for, it is absent; the engine lets none be written."""
    assert bodies(opened(), key, "a") == {}
