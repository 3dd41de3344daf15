"""The database and the way to it, harmed under orders: everything ends right afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psycopg
import pytest

from penstock.sim.servers.postgres import Postgres
from penstock.sim.servers.process import descendants
from penstock.sim.servers.proxy import (
    BLACKHOLE,
    PASS,
    REFUSE,
    RESET,
    Fault,
    Proxy,
    cut_at,
    delay,
)
from tests.cluster.rig import House, house
from tests.servers import absent_is_skipped
from tests.support import eventually

PULSE_SECONDS = 1.0
pytestmark = [pytest.mark.kafka, pytest.mark.postgres]


class Ground:
    """A house whose database is ours to harm, and the proxy that all of it comes through."""

    def __init__(self, house: House, server: Postgres, proxy: Proxy) -> None:
        self.house, self.server, self.proxy = house, server, proxy

    def pulse(self) -> None:
        """All of the server stands still for a moment."""
        everybody = [self.server.pid, *descendants(self.server.pid)]
        until = time.monotonic() + PULSE_SECONDS
        for pid in everybody:
            with suppress(ProcessLookupError):  # a backend that ended meanwhile
                self.server.stand_still(pid)
        try:
            eventually(lambda: time.monotonic() >= until, 2 * PULSE_SECONDS)
        finally:
            for pid in everybody:
                with suppress(ProcessLookupError):
                    self.server.go_on(pid)

    def admin(self, statement: str) -> list[tuple[object, ...]]:
        """Ask the server past the proxy, as who runs it."""
        with psycopg.connect(self.server.dsn("shop"), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def fault(self, fault: Fault) -> Iterator[None]:
        """The way to the database is like this for the body."""
        self.proxy.set(fault)
        try:
            yield
        finally:
            self.proxy.set(PASS)


@pytest.fixture(scope="module")
def ground(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """A house that runs, with a database server of its own."""
    folder = tmp_path_factory.mktemp("database")
    with absent_is_skipped(), Postgres() as server, server.proxy() as proxy:
        server.create("shop")
        with house(folder, kafka, server.dsn("shop", port=proxy.port)) as made:
            yield Ground(made, server, proxy)


def is_told(ground: Ground) -> Callable[[], bool]:
    """Whether the door says that it cannot take anything, now or since this was made."""
    client = ground.house.stage.client
    before = client.statuses[503]
    return lambda: client.statuses[503] > before


@pytest.mark.parametrize("fault", [REFUSE, RESET], ids=["refused", "reset"])
def test_nobody_gets_through_to_the_database(ground: Ground, fault: Fault) -> None:
    with ground.house.under_orders(), ground.fault(fault):
        eventually(is_told(ground), 30, what="the door puts clients off")


def test_the_way_to_the_database_swallows_everything(ground: Ground) -> None:
    """No answer, no error: what waits finds out by its own bounds, or goes on when bytes flow."""
    with ground.house.under_orders() as orders, ground.fault(BLACKHOLE):
        before, tries = len(orders.placed), len(ground.house.noted("sent"))
        asked_again = lambda: len(ground.house.noted("sent")) >= tries + 2  # noqa: E731
        eventually(asked_again, 60, what="clients wait and ask again")
        assert len(orders.placed) <= before + 2, "answered without a database"


def test_the_way_to_the_database_is_slow(ground: Ground) -> None:
    with ground.house.under_orders() as orders, ground.fault(delay(0.05)):
        orders.more()


@pytest.mark.parametrize("forwarded", [True, False], ids=["done", "not done"])
def test_a_commit_is_cut_and_nobody_knows_how_it_ended(ground: Ground, forwarded: bool) -> None:
    """The database has carried it out and its answer is lost, or has never heard of it: whoever
    asked for it finds out which by asking the database. Six times, whoever it meets."""
    with ground.house.under_orders() as orders:
        for _ in range(6):
            cuts = ground.proxy.cuts
            ground.proxy.set(cut_at(b"COMMIT", forwarded=forwarded))
            eventually(lambda n=cuts: ground.proxy.cuts > n, 30)  # type: ignore[misc]
            orders.more(1)


def test_the_database_dies_and_comes_back(ground: Ground) -> None:
    with ground.house.under_orders():
        is_away = is_told(ground)
        ground.server.kill()
        eventually(is_away, 30, what="the door puts clients off")
        ground.server.restart()


def test_the_server_has_become_one_that_only_reads(ground: Ground) -> None:
    """As after a failover whose old address still leads to the old primary. Nobody writes, the
    processes stand still and say why, and go on by themselves when it takes writes again."""
    with ground.house.under_orders(), ground.house.worker("order") as extra:
        is_refused = is_told(ground)
        ground.admin("ALTER SYSTEM SET default_transaction_read_only = on")
        ground.admin("SELECT pg_reload_conf()")
        try:
            eventually(is_refused, 30, what="the door puts clients off")
            handled = ground.house.handled()
            assert ground.house.refusals()[-1]["reply"]["code"] == "store_unreachable"
            eventually(lambda: "read-only" in extra.trouble(), 30, what="a worker says why")
            assert ground.house.handled() == handled, "somebody still writes"
        finally:
            ground.admin("ALTER SYSTEM RESET default_transaction_read_only")
            ground.admin("SELECT pg_reload_conf()")
        eventually(lambda: not extra.trouble(), 30, what="it goes on by itself")


def test_the_disk_of_the_database_is_slow(ground: Ground) -> None:
    """Every flush of a commit takes 100 ms longer, and all of the server stands still again and
    again, as it does behind a disk that takes nothing for a while."""
    with ground.house.under_orders() as orders:
        ground.server.slow_disk(0.1)
        try:
            for _ in range(3):
                ground.pulse()
                orders.more(1)
        finally:
            ground.server.slow_disk(0)
