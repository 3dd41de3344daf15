"""Failures that others published, as cases of ours; each is named by what went wrong there."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from penstock.limits import LIVENESS_SECONDS
from penstock.sim.crash.subject import FULL_AT_BYTES, PLENTY
from tests.crash.rig import Shop, all_end_right, open_shop, select
from tests.crash.test_kill import SHIPPED, owners
from tests.support import eventually

LOOK_SECONDS = 1.0  # what a busy machine may add to two lease periods


def test_r15_a_single_node_killed_after_its_answer_has_lost_nothing(tmp_path: Path) -> None:
    """A crash of the only node lost the write that it had just acknowledged."""
    with open_shop(tmp_path) as (shop, client):
        client.stock("TEAPOT", 100)
        placed = [client.order("TEAPOT") for _ in range(5)]
        for pid in shop.family():  # everybody, the moment the last answer is here
            os.kill(pid, signal.SIGKILL)
        shop.kill_up()
        shop.start()  # by itself: no operator, no repair
        assert all(client.get(f"/orders/{id_}").status_code == 200 for id_ in placed)
        all_end_right(shop, client)


def test_r15_work_of_a_dead_worker_is_taken_over_within_two_lease_periods(
    tmp_path: Path,
) -> None:
    """Work stayed "executing" for ever after its worker was killed."""
    catalog = tmp_path / "catalog.toml"
    two = "[services.inventory]\nworkers = 2"
    catalog.write_text(SHIPPED.read_text().replace("[services.inventory]", two))
    with open_shop(tmp_path, catalog=catalog) as (shop, client):
        client.stock("TEAPOT", 100)
        before, victim = owners(shop), shop.pid("inventory")
        assert shop.process is not None
        shop.process.send_signal(signal.SIGSTOP)  # nobody starts another worker
        os.kill(victim, signal.SIGKILL)
        died = time.monotonic()
        lost = eventually(lambda: risen(shop, before), 10, what="a lane has another owner")
        assert time.monotonic() - died < 2 * LIVENESS_SECONDS + LOOK_SECONDS
        assert lost
        client.mixed("TEAPOT", 10)
        eventually(lambda: not client.states(), 25, what="one worker does it all")
        shop.process.send_signal(signal.SIGCONT)
        all_end_right(shop, client)


def risen(shop: Shop, before: list[int]) -> list[int]:
    """Lanes of the inventory that were claimed since."""
    return [lane for lane, epoch in enumerate(owners(shop)) if epoch > before[lane]]


def test_r16_who_cannot_write_its_own_ledger_charges_nobody(tmp_path: Path) -> None:
    """A ledger was read-only, the charger went on charging."""
    with open_shop(tmp_path) as (shop, client):
        client.stock("TEAPOT", 100)
        client.mixed("TEAPOT", 10)
        all_end_right(shop, client)
        before = calls(shop)
        shop.limit_files(FULL_AT_BYTES, shop.pid("payment"))  # the provider works on
        orders = [client.order("TEAPOT") for _ in range(5)]
        eventually(
            lambda: all(reserved(shop, id_) for id_ in orders), what="all but the payment moves"
        )
        assert calls(shop) == before, "the provider was called, and nobody could have noted it"
        shop.limit_files(PLENTY, shop.pid("payment"))
        all_end_right(shop, client)


def test_r16_a_call_whose_outcome_cannot_be_noted_is_made_once_until_it_can(
    tmp_path: Path,
) -> None:
    """The same, with the charge already under way when the ledger became unwritable."""
    with open_shop(tmp_path) as (shop, client):
        client.stock("TEAPOT", 100)
        id_ = client.order("TEAPOT", card="tok_slow")
        eventually(lambda: asked(shop, id_), what="the intent to authorise is durable")
        shop.limit_files(FULL_AT_BYTES, shop.pid("payment"))
        eventually(lambda: calls(shop, id_), what="the provider has answered")
        others = [client.order("TEAPOT") for _ in range(3)]
        eventually(lambda: all(reserved(shop, o) for o in others), what="the others move")
        assert len(calls(shop, id_)) == 1
        assert not any(calls(shop, other) for other in others)
        shop.limit_files(PLENTY, shop.pid("payment"))
        all_end_right(shop, client)
        keys = {key for key, operation in calls(shop, id_) if operation == "authorise"}
        assert len(keys) == 1, "asked again under another key"


def calls(shop: Shop, id_: str = "") -> list[tuple[str, str]]:
    """Key and operation of every call that the provider got, of one order or of all."""
    ledger = shop.home / "sandbox" / "payments" / "provider.sqlite"
    sql = "SELECT key, operation FROM calls WHERE ? IN ('', order_id) ORDER BY seq"
    return [(key, operation) for key, operation in select(ledger, sql, id_)]


def asked(shop: Shop, id_: str) -> bool:
    """Does the payment service want something of the provider?"""
    sql = "SELECT 1 FROM outbox WHERE key = ? AND destination = 'payments'"
    return bool(select(shop.home / "payment.db", sql, id_))


def reserved(shop: Shop, id_: str) -> bool:
    """Has the inventory decided about an order?"""
    sql = "SELECT 1 FROM documents WHERE kind = 'reservation' AND key = ?"
    return bool(select(shop.home / "inventory.db", sql, id_))
