"""Every process is killed with -9, in mid-flow and at named cut points; every order ends right."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import penstock.flows.orders
from penstock.engine.cuts import POINTS
from penstock.sim.crash.subject import command_line
from tests.crash.rig import (
    MEMBERS,
    SERVICES,
    Client,
    Shop,
    all_end_right,
    open_shop,
    select,
    wrongs,
)
from tests.support import eventually

SHIPPED = Path(penstock.flows.orders.__file__).parent / "catalog.toml"
DRAIN_SECONDS = 15.0
WORKER_POINTS = sorted(p for p in POINTS if p.startswith("worker."))
COURIER_POINTS = ("courier.called", "courier.settled")
INTAKE_POINTS = ("intake.position", "intake.reply")
ASKING = ("payment", "shipping", "notify")


@pytest.fixture(scope="module")
def shop_and_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shop, Client]]:
    """One shop for several kills: what an earlier one broke, a later one sees."""
    with open_shop(tmp_path_factory.mktemp("shop")) as both:
        yield both


@pytest.mark.parametrize("member", MEMBERS)
def test_a_process_killed_in_mid_flow_loses_nothing(
    shop_and_client: tuple[Shop, Client], member: str
) -> None:
    shop, client = shop_and_client
    client.stock(member, 100)
    with client.busy(member, 12):
        shop.kill(member)
    all_end_right(shop, client)


def cuts_of_round(turn: int, marks: Path) -> list[str]:
    """Every point once, each at another service in another round."""
    placed = [(SERVICES[(n + turn) % len(SERVICES)], p) for n, p in enumerate(WORKER_POINTS)]
    placed += [(ASKING[(n + turn) % len(ASKING)], p) for n, p in enumerate(COURIER_POINTS)]
    placed += [("door", point) for point in INTAKE_POINTS]
    return [
        f"{member}/{point}:{2 + n}:{marks}/{member}-{point}"
        for n, (member, point) in enumerate(placed)
    ]


@pytest.mark.parametrize("turn", range(3))
def test_a_process_killed_at_any_cut_point_loses_nothing(tmp_path: Path, turn: int) -> None:
    marks = tmp_path / "fired"
    marks.mkdir()
    cuts = cuts_of_round(turn, marks)
    with open_shop(tmp_path, env={"PENSTOCK_CUT": " ".join(cuts)}) as (shop, client):
        client.stock("TEAPOT", 1000)

        def all_fired() -> bool:
            client.mixed("TEAPOT", 5)
            return len(list(marks.iterdir())) == len(cuts)

        eventually(all_fired, 40, what=f"every one of {cuts} fires")
        all_end_right(shop, client)


def test_a_process_killed_while_it_drains_loses_nothing(tmp_path: Path) -> None:
    marks = tmp_path / "fired"
    marks.mkdir()
    cuts = " ".join(f"{s}/crew.drain:1:{marks}/{s}" for s in SERVICES)
    with open_shop(tmp_path, env={"PENSTOCK_CUT": cuts}) as (shop, client):
        client.stock("TEAPOT", 100)
        with client.busy("TEAPOT", 10):
            assert shop.stop() == 0
            assert {path.name for path in marks.iterdir()} == set(SERVICES)
            shop.start()
        all_end_right(shop, client)


def test_the_parent_killed_and_started_at_once_leaves_no_orphan(tmp_path: Path) -> None:
    with open_shop(tmp_path) as (shop, client):
        client.stock("TEAPOT", 100)
        with client.busy("TEAPOT", 15):
            before, port = shop.family(), shop.port
            shop.kill_up()
            shop.start()
            assert shop.port == port
            assert not set(before) & set(shop.family())
        all_end_right(shop, client)


def test_a_parent_killed_while_it_starts_leaves_nobody_in_the_way(tmp_path: Path) -> None:
    """The next start found the ledger of an orphan in use, and needed a person."""
    shop = Shop(tmp_path / "home")
    try:
        shop.spawn()
        ledger = shop.home / "sandbox" / "payments" / "provider.sqlite"
        eventually(ledger.exists, 30, what="the provider has its ledger")
        before = shop.family()
        (orphan,) = [pid for pid in before if "\0provider\0" in command_line(pid)]
        os.kill(orphan, signal.SIGSTOP)  # it cannot even hear that its parent died
        shop.kill_up()
        shop.start()
        assert not set(before) & set(shop.family())
        assert shop.stop() == 0
    finally:
        shop.clean_up()


def test_sigterm_drains_and_a_later_start_goes_on(tmp_path: Path) -> None:
    with open_shop(tmp_path) as (shop, client):
        client.stock("TEAPOT", 100)
        with client.busy("TEAPOT", 15):
            began = time.monotonic()
            assert shop.stop() == 0
            assert time.monotonic() - began < DRAIN_SECONDS
            assert "not all by itself" not in shop.said()
            assert not shop.family()
            shop.start()
        all_end_right(shop, client)
        assert shop.stop() == 0
        assert wrongs(shop.home, client.journal) == []


def test_a_second_sigterm_ends_at_once(tmp_path: Path) -> None:
    with open_shop(tmp_path) as (shop, client):
        client.stock("TEAPOT", 10)
        order = client.order("TEAPOT", card="tok_timeout")
        ledger = shop.home / "sandbox" / "payments" / "provider.sqlite"
        charged = "SELECT 1 FROM calls WHERE order_id = ? AND operation = 'authorise'"
        eventually(lambda: select(ledger, charged, order), what="the call hangs")
        assert shop.process is not None
        shop.process.send_signal(signal.SIGTERM)
        eventually(lambda: "Draining" in shop.said(), what="the drain begins")
        shop.process.send_signal(signal.SIGTERM)
        assert shop.process.wait(2.0) == 130
        eventually(lambda: not shop.family(), 2.0, what="nobody is left")
        shop.start()
        all_end_right(shop, client)


def test_who_stops_inside_a_transaction_is_killed(tmp_path: Path) -> None:
    marks = [tmp_path / "worker", tmp_path / "door"]
    cuts = (
        f"inventory/worker.before_commit:5:{marks[0]}:STOP door/intake.position:5:{marks[1]}:STOP"
    )
    env = {"PENSTOCK_CUT": cuts, "PENSTOCK_TRANSACTION_SECONDS": "1"}
    with open_shop(tmp_path, env=env) as (shop, client):
        client.stock("TEAPOT", 100)
        client.mixed("TEAPOT", 15)
        all_end_right(shop, client)
        assert all(mark.exists() for mark in marks)
        said = shop.said()
    for member in ("inventory", "door"):
        assert said.count(f"{member} is stuck inside a transaction; killing it") == 1


def test_who_was_stopped_and_wakes_up_is_fenced(tmp_path: Path) -> None:
    catalog, mark = tmp_path / "catalog.toml", tmp_path / "stopped"
    declared = SHIPPED.read_text()
    two = declared.replace("[services.inventory]", "[services.inventory]\nworkers = 2")
    catalog.write_text(two)
    cut = f"inventory/worker.open:1:{mark}:STOP"
    with open_shop(tmp_path, catalog=catalog, env={"PENSTOCK_CUT": cut}) as (shop, client):
        skus = [f"SKU-{n}" for n in range(12)]
        entries = [{"sku": sku, "quantity": 10} for sku in skus]
        client.send("/stock", "stock", {"file": "f", "entries": entries})
        eventually(mark.exists, what="the worker holds a batch and stands still")
        epochs = owners(shop)
        with third_worker(shop):
            # One more member moves lanes away from the sleeper, whose batch is in its hands.
            eventually(lambda: sum(owners(shop)) > sum(epochs), what="lanes have new owners")
            os.kill(shop.pid("inventory"), signal.SIGCONT)
            for sku in skus:
                client.order(sku)
            all_end_right(shop, client)
        all_end_right(shop, client)


def owners(shop: Shop) -> list[int]:
    """The epoch of every lane of the inventory service."""
    sql = "SELECT epoch FROM owners WHERE lane >= 0 ORDER BY lane"
    return [epoch for (epoch,) in select(shop.home / "inventory.db", sql)]


@contextmanager
def third_worker(shop: Shop) -> Iterator[None]:
    """A worker started by hand beside the crew's two."""
    words = shop.command("worker", "inventory", "--member", "inventory-3")
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
        yield
        process.terminate()
        assert process.wait(DRAIN_SECONDS) == 0
