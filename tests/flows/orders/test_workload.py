"""The demo's plan shows every kind of end, says how, and is the same every time."""

from __future__ import annotations

from collections import Counter
from importlib.resources import files
from typing import Any

import msgspec

from penstock.flows.orders.importer import Request
from penstock.flows.orders.lifecycle import OUT_OF_STOCK
from penstock.flows.orders.workload import SAMPLE, WAITS, Step, Workload, state_of, workload

CONTENT = files(SAMPLE[0]).joinpath(SAMPLE[1]).read_bytes()


def made() -> Workload:
    """The demo's workload."""
    return workload(CONTENT)


def body(request: Request) -> dict[str, Any]:
    """What the door is sent."""
    return msgspec.json.decode(request.body, type=dict[str, Any])


def goods(step: Step) -> Counter[str]:
    """Pieces per SKU of one order."""
    pieces: Counter[str] = Counter()
    for line in body(step.request)["lines"]:
        if line["kind"] == "item":
            pieces[line["sku"]] += line["quantity"]
    return pieces


def test_it_has_at_least_a_hundred_orders_and_every_kind_of_end() -> None:
    plan = made()
    assert len(plan.steps) >= 100
    assert set(plan.ends) == {
        "completed", "cancelled", "rejected(out_of_stock)", "rejected(declined)", "on_hold",
    }  # fmt: skip
    assert sum(plan.ends.values()) == len(plan.steps)


def test_what_is_arranged_is_said_and_what_is_not_is_a_plain_order() -> None:
    for step in made().steps:
        plain = body(step.request)["payment_method"] == "tok_ok" and not step.cancel
        assert bool(step.arranged) == (not plain or step.end == "rejected(out_of_stock)")
        assert step.cancel == (step.end == "cancelled")


def test_exactly_the_orders_meant_to_lack_stock_lack_it() -> None:
    plan = made()
    there = Counter({e["sku"]: e["quantity"] for part in plan.stock for e in body(part)["entries"]})
    wanted: Counter[str] = Counter()
    for step in plan.steps:
        wanted += goods(step)
    short = wanted - there
    assert sum(short.values()) == 1
    lacking = [step for step in plan.steps if set(goods(step)) & set(short)]
    assert [step.end for step in lacking] == ["rejected(out_of_stock)"]


def test_it_is_the_same_every_time_and_each_key_is_used_once() -> None:
    assert made() == made()
    keys = [step.request.key for step in made().steps] + [part.key for part in made().stock]
    assert len(set(keys)) == len(keys)
    assert all(key.startswith("import:demo:") for key in keys)


def test_how_an_order_stands_is_said_in_the_words_of_the_plan() -> None:
    assert state_of({"state": "rejected", "reason": OUT_OF_STOCK}) == "rejected(out_of_stock)"
    assert state_of({"state": "rejected", "reason": "declined"}) == "rejected(declined)"
    assert state_of({"state": "cancelled", "reason": "customer"}) == "cancelled"
    assert state_of({"state": "on_hold", "reason": ""}) in WAITS
