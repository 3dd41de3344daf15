"""The server dies, in the middle of commits, and comes back: what was answered is there, what was
not is known to be there or not after a claim."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import psycopg
import pytest

from penstock.conformance.scenario import NOW, refused
from penstock.conformance.stores import SERVICE, Owner, bodies, do_everything, ids, seen, sheet
from penstock.decision import Ref
from penstock.errors import StaleOwner, Unreachable
from penstock.sim.servers.postgres import Postgres
from penstock.store import migrate, postgres_session
from penstock.store.postgres import PostgresStore
from tests.servers import absent_is_skipped
from tests.store.conftest import in_thread, waits
from tests.support import eventually

Opened = Callable[..., PostgresStore]
Look = Callable[..., list[tuple[Any, ...]]]
KILLS = 4


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A server of this module's own, to be killed."""
    with absent_is_skipped():
        made = Postgres()
    with made:
        yield made


pytestmark = pytest.mark.postgres


class Committer:
    """A worker in small that goes on whatever happens, as the engine does: after a refusal of
    the world it claims its lane and looks where it stands."""

    def __init__(self, where: str) -> None:
        self.store = PostgresStore(where, SERVICE)
        self.answered = self.lost = self.unknown = 0
        self.stopping = self.failed = False

    def run(self) -> None:
        try:
            self.go_on()
        except BaseException:
            self.failed = True
            raise

    def go_on(self) -> None:
        owner, position = None, 0
        while not self.stopping:
            try:
                if owner is None:
                    owner = Owner(self.store)
                    position = owner.claims[0].positions.get("letters", 0)
                    self.unknown += position > self.answered
                    assert position in (self.answered, self.answered + 1)
                self.commit(owner, position + 1)
                self.answered = position = position + 1
            except Unreachable:
                owner, self.lost = None, self.lost + 1

    def is_past(self, position: int) -> bool:
        """Has it come so far, or will it never?"""
        return self.answered >= position or self.failed

    def commit(self, owner: Owner, position: int) -> None:
        """One turn: a document counts, the event is marked, the position moves."""
        with owner.turn(position) as tx:
            ref = Ref("sheet", "total")
            total = int(tx.load([ref], ids(f"{position}")).bodies.get(ref, b"0"))
            tx.save([sheet("total", b"%d" % (total + 1))])
            tx.mark(ids(f"{position}"))


def test_a_killed_server_loses_nothing_that_was_answered(server: Postgres) -> None:
    """It is killed again and again under a worker that commits as fast as it can. The claim
    afterwards says how the last commit ended; a total that were counted twice or lost would
    differ from the position."""
    where = server.create("killed")
    migrate.apply(where)
    committer = Committer(where)
    thread, failures = in_thread(committer.run)
    for _ in range(KILLS):
        goal = committer.answered + 20
        eventually(partial(committer.is_past, goal), 30)
        server.kill()
        server.restart()
    eventually(partial(committer.is_past, committer.answered + 20), 30)
    committer.stopping = True
    thread.join()
    assert failures == []
    assert committer.lost >= KILLS
    store, last = PostgresStore(where, SERVICE), committer.answered
    assert bodies(store, "total") == {"total": b"%d" % last}
    names = [f"{n}" for n in range(1, last + 2)]
    assert seen(store, *names) == set(names[:-1])
    for each in (store, committer.store):
        each.close()


def test_a_commit_that_was_cut_is_told_by_the_next_claim(
    opened: Opened, other: psycopg.Connection[Any], look: Look
) -> None:
    """The backend is ended in the middle of the commit's statement: it is not known to us, and
    the claim says that it did not happen."""
    owner = Owner(opened())
    owner.save(sheet("before"), offset=3)
    other.execute(
        "INSERT INTO documents(scope, kind, key, body, txn, epoch, before)"
        " VALUES(%s, 'sheet', 'a', 'x', nextval('txns'), 1, 0)", [owner.store.scope]
    )  # fmt: skip

    def commit() -> None:
        with owner.turn(4) as tx:
            do_everything(tx, "a")

    thread, failures = in_thread(lambda: refused(Unreachable, commit))
    eventually(lambda: waits(look), what="the commit is under way")
    look("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted")
    thread.join()
    assert failures == []
    other.rollback()
    again = Owner(owner.store)
    assert again.claims[0].positions == {"letters": 3}
    assert bodies(owner.store, "before", "a") == {"before": b"{}"}


def test_a_server_that_stands_still_is_given_up(
    server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No answer for too long is no answer: the connection is dropped, whatever becomes of it."""
    where = server.create("still")
    migrate.apply(where)
    store = PostgresStore(where, SERVICE)
    owner = Owner(store)
    monkeypatch.setattr(postgres_session, "SILENCE_SECONDS_MAX", 0.2)
    with psycopg.connect(server.dsn("still"), autocommit=True) as looker:
        found = looker.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'penstock folding%'"
        ).fetchone()
    assert found is not None
    server.stand_still(found[0])
    try:
        error = refused(Unreachable, owner.save, sheet("a"))
        assert "silent" in str(error)
        assert Owner(store).claims[0].positions == {}
    finally:
        server.go_on(found[0])
    refused(StaleOwner, owner.save, sheet("a"))
    store.close()


def test_a_server_that_stops_and_one_that_starts_are_unreachable(server: Postgres) -> None:
    """And the same store works again when it is back."""
    where = server.create("stopped")
    migrate.apply(where)
    store = PostgresStore(where, SERVICE)
    owner = Owner(store)
    server.stop()
    for ask in (owner.save, lambda: store.claim([0], NOW), lambda: bodies(store, "a")):
        refused(Unreachable, ask)
    server.start()
    assert Owner(store).claims[0].positions == {}
    store.close()


def test_a_standby_is_refused(server: Postgres) -> None:
    """A database that takes no writes is one that does not answer: after a failover the address
    may lead to the old server."""
    where = server.create("standby")
    migrate.apply(where)
    with psycopg.connect(where, autocommit=True) as connection:
        connection.execute("ALTER DATABASE standby SET default_transaction_read_only = on")
    refused(Unreachable, PostgresStore(where, SERVICE).claim, [0], NOW)


def test_too_many_connections_are_told(server: Postgres) -> None:
    where = server.create("crowded")
    migrate.apply(where)
    with psycopg.connect(where, autocommit=True) as connection:
        connection.execute("CREATE ROLE ann LOGIN CONNECTION LIMIT 0")
    at = psycopg.conninfo.make_conninfo(where, user="ann")
    error = refused(Unreachable, PostgresStore(at, SERVICE).claim, [0], NOW)
    assert "too many connections" in str(error)


