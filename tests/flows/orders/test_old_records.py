"""Records that an older penstock left in the log go the whole way: opened, upcast, delivered."""

from __future__ import annotations

from pathlib import Path

import msgspec

from penstock.catalog.load import load_catalog
from penstock.decision import Ref
from penstock.event import Message, root_id
from penstock.flows.orders import FLOW
from penstock.flows.orders.events import StockReceived
from penstock.flows.orders.gateways.instant import gateways
from tests.flows.rig import Rig

STORED = Path(__file__).parents[2] / "data" / "order_placed_v1.jsonl"
KEYS = ("ord_old_1", "ord_old_2", "ord_old_3")


def remembering(home: Path) -> Rig:
    """The order flow over embedded files with stock, whose log holds orders of version 1."""
    rig = Rig(FLOW, load_catalog(), home, gateways())
    now = rig.clock.now()
    old = [
        Message(key, line, root_id(now, key), "order.placed", 1, now, b"", "", "door")
        for key, line in zip(KEYS, STORED.read_bytes().splitlines(), strict=True)
    ]
    stock = StockReceived(file="f", location="here", quantity=10)
    rig.append("arrivals", ("TEAPOT", stock), ("LAMP", stock))
    rig.run()
    rig.log.append("orders", old, now)
    return rig


def test_stored_orders_of_version_1_are_paid_and_labelled(tmp_path: Path) -> None:
    rig = remembering(tmp_path).run()
    assert {r.message.version for r in rig.records("orders")} == {1}
    states = rig.states("order")
    orders = [states[Ref("order", key)] for key in KEYS]
    assert [order.state for order in orders] == ["confirmed"] * 3
    assert [(o.captured_minor, o.currency) for o in orders] == [
        (1500, "GBP"), (1000, "GBP"), (250, "GBP"),
    ]  # fmt: skip
    assert [(o.order_ref, o.customer) for o in orders][:2] == [("old-1", "c-17"), ("old-2", "c-18")]
    assert [len(o.lines) for o in orders] == [2, 2, 1]  # the first one's carriage is a line
    for service in rig.units:
        assert rig.waiting(service) == []


def test_the_stored_bytes_are_what_version_1_says() -> None:
    """The file is data: no code of today wrote it, and no field is lost on the way."""
    (contract,) = [c for c in FLOW.contracts if c.type == "order.placed"]
    first = contract.older[0].model
    for line in STORED.read_bytes().splitlines():
        known = {f.encode_name for f in msgspec.structs.fields(first)}
        assert msgspec.json.decode(line).keys() <= known
        assert msgspec.json.decode(line, type=first).lines
