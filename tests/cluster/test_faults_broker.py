"""The one broker and the way to it, harmed under orders: everything ends right afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from penstock.sim.servers.kafka import Cluster
from penstock.sim.servers.proxy import (
    BLACKHOLE,
    PASS,
    REFUSE,
    RESET,
    SERVER_UNHEARD,
    Fault,
    Proxy,
    cut_at,
    delay,
)
from tests.cluster.rig import House, house
from tests.servers import absent_is_skipped
from tests.support import eventually

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]


class Ground:
    """A house whose broker is ours to harm, and the proxy that all of it comes through."""

    def __init__(self, house: House, cluster: Cluster) -> None:
        self.house, self.cluster = house, cluster

    @property
    def proxy(self) -> Proxy:
        """Before the broker."""
        return self.cluster.proxies[0]

    @contextmanager
    def fault(self, fault: Fault) -> Iterator[None]:
        """The way to the broker is like this for the body."""
        self.proxy.set(fault)
        try:
            yield
        finally:
            self.proxy.set(PASS)

    def is_told(self) -> bool:
        """Do the services say that Kafka does not answer? The database takes their word."""
        return self.house.told_trouble("Kafka does not answer", services=5)


@pytest.fixture(scope="module")
def ground(
    databases: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ground]:
    """A house that runs, with a broker of its own."""
    folder = tmp_path_factory.mktemp("broker")
    with (
        absent_is_skipped(), Cluster(proxied=True) as cluster,
        house(folder, cluster.bootstrap, databases()) as made,
    ):  # fmt: skip
        yield Ground(made, cluster)


def test_the_broker_dies_and_comes_back(ground: Ground) -> None:
    """Orders are accepted without it, and carried when it is back. Who looks meanwhile is shown
    what is known, and that lags are not."""
    with ground.house.under_orders() as orders:
        ground.cluster.kill()
        orders.more()
        eventually(ground.is_told, 60, what="the services say what is missing")
        looked = ground.house.status()
        ground.cluster.restart()
    assert looked.returncode == 0, looked.stderr
    said = json.loads(looked.stdout)
    assert "Kafka does not answer" in said["trouble"]
    assert {service["lag"] for service in said["services"]} == {None}
    assert all(service["trouble"] for service in said["services"])
    after = json.loads(ground.house.status().stdout)
    assert after["trouble"] == ""
    assert all(service["lag"] is not None for service in after["services"])


@pytest.mark.parametrize("fault", [REFUSE, RESET], ids=["refused", "reset"])
def test_nobody_gets_through_to_the_broker(ground: Ground, fault: Fault) -> None:
    with ground.house.under_orders() as orders, ground.fault(fault):
        orders.more()
        eventually(ground.is_told, 60, what="the services say what is missing")


def test_the_way_to_the_broker_swallows_everything(ground: Ground) -> None:
    """No answer, no error: what waits gives up by its own bounds, or goes on when bytes flow."""
    with ground.house.under_orders() as orders, ground.fault(BLACKHOLE):
        orders.more()
        eventually(ground.is_told, 60, what="the services say what is missing")


def test_the_way_to_the_broker_is_slow(ground: Ground) -> None:
    with ground.house.under_orders() as orders, ground.fault(delay(0.05)):
        orders.more()


def test_what_the_broker_says_is_lost(ground: Ground) -> None:
    """It takes what is appended, and nobody hears that it did: appended again, and one effect."""
    with ground.house.under_orders() as orders, ground.fault(SERVER_UNHEARD):
        orders.more()
        eventually(ground.is_told, 60, what="the services say what is missing")


@pytest.mark.parametrize("forwarded", [True, False], ids=["done", "not done"])
def test_an_append_is_cut_and_nobody_knows_how_it_ended(ground: Ground, forwarded: bool) -> None:
    """The broker has the records and its answer is lost, or it has never got them. Six times."""
    with ground.house.under_orders() as orders:
        for _ in range(6):
            cuts = ground.proxy.cuts
            ground.proxy.set(cut_at(b"ce_id", forwarded=forwarded))
            eventually(lambda n=cuts: ground.proxy.cuts > n, 60)  # type: ignore[misc]
            orders.more(1)
