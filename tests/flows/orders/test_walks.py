"""Every walk of LIFECYCLE.md ends right in every interleaving tried."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.flows.orders.lifecycle import may_follow
from tests.flows.orders import walks
from tests.flows.orders.shop import Shop
from tests.flows.orders.walks import WALKS

SEEDS = 200
HEAVY = {"short": 10}  # 164 lines each

ENDS: dict[str, set[tuple[str, str]]] = {
    "completed": {("completed", "")},
    "scanned_early": {("completed", "")},
    "carriage_alone": {("completed", "")},
    "cancel_early": {("cancelled", "cancelled")},
    "cancel_any_time": {("cancelled", "cancelled")},
    "cancel_while_capturing": {("cancelled", "cancelled")},
    "cancel_labelled": {("cancelled", "cancelled")},
    "scan_and_cancel": {("cancelled", "cancelled"), ("completed", "")},
    "cancel_refused": {("completed", "")},
    "short": {("rejected", "out_of_stock")},
    "declined": {("rejected", "declined")},
    "webhook_first": {("completed", "")},
    "capture_failed": {("rejected", "capture_failed")},
    "delivered_alone": {("completed", "")},
    "undeliverable": {("rejected", "undeliverable")},
    "deadline": {("rejected", "deadline")},
    "last_piece": {("completed", ""), ("rejected", "out_of_stock")},
    "abandoned": {("rejected", "abandoned")},
}

MAILS: dict[str, list[str]] = {
    "completed": ["confirmed", "dispatched"],
    "scanned_early": ["confirmed", "dispatched"],
    "webhook_first": ["confirmed", "dispatched"],
    "carriage_alone": ["confirmed"],
    "cancel_refused": ["confirmed", "dispatched"],
    "declined": ["rejected"],
    "short": ["rejected"],
    "last_piece": ["confirmed", "dispatched", "rejected"],
}


def runs(name: str) -> list[Shop]:
    """The walk in all its interleavings, each checked for what must always hold."""
    shops = []
    for seed in range(HEAVY.get(name, SEEDS)):
        shop = WALKS[name](seed)
        try:
            shop.check()
            check_steps(shop)
        except AssertionError as error:
            raise AssertionError(f"{name} with seed {seed}: {error}") from error
        shops.append(shop)
    return shops


def check_steps(shop: Shop) -> None:
    """Every step is legal after the one before, and no step but a way back comes twice."""
    for key in {event.key for event in shop.bus.topics["order_states"]}:
        told = [
            event for event in shop.bus.topics["order_states"]
            if event.key == key and event.type not in ("order.received", "order.refunded")
        ]
        state = "received"
        for event in told:
            step = event.type.removeprefix("order.")
            assert event.data.previous == state
            assert may_follow(state, step), f"{state} to {step}"
            state = step
        once = [e.type for e in told if not e.data.resumed and e.type in _ONCE]
        assert len(once) == len(set(once)), once


_ONCE = {f"order.{step}" for step in ("processing", "confirmed", "shipped", "completed")}


@pytest.mark.parametrize("name", sorted(WALKS))
def test_the_walk_ends_right(name: str) -> None:
    shops = runs(name)
    ends = {(o.state, o.reason) for shop in shops for o in orders(shop)}
    assert ends == ENDS[name]
    if name in MAILS:
        assert {tuple(shop.mailed()) for shop in shops} == {tuple(MAILS[name])}


def orders(shop: Shop) -> list[Any]:
    return [state for ref, state in shop.bus.states["order"].items() if ref.kind == "order"]


def test_a_parked_payment_shows_on_hold_until_a_person_decided() -> None:
    for seed in range(50):
        shop = walks.wrong_amount(seed)
        assert shop.steps()[-1] == "on_hold"
        shop.bus.decide_parked(retry=False)
        shop.finish()
        assert shop.order().state == "rejected"
        assert shop.order().reason == "abandoned"
        assert shop.state("inventory", "reservation").state == "released"
        shop.check()  # the customer has all of the money back, and nothing dangles
