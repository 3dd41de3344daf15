"""Records that an earlier version wrote are still in the log, and go their whole way."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.catalog.load import load_catalog
from penstock.decision import Ref
from penstock.event import Message, root_id
from penstock.flow import Flow
from penstock.flows.orders import FLOW
from penstock.flows.orders.gateways.instant import gateways
from penstock.flows.orders.requests import ScanIn, StockEntry, StockIn
from tests.flows.ground import Ground
from tests.flows.rig import Rig

STORED = (Path(__file__).parents[2] / "data" / "order.placed.v1.json").read_bytes()
ORDER = "ord_from_long_ago"


@pytest.fixture
def shop(ground: Ground) -> Rig:
    """The order flow on every pair of backends, with stock for the stored order."""
    flow: Flow = FLOW
    rig = Rig(flow, load_catalog(None), ground, gateways())
    entries = tuple(StockEntry(sku=sku, quantity=10) for sku in ("TEAPOT", "MUG"))
    may = ("load_stock", "load_prices", "supplied_prices")
    rig.request("load_stock", StockIn(file="f", entries=entries), may=may)
    return rig.run()


def test_a_stored_version_1_order_goes_from_log_to_doorstep(shop: Rig) -> None:
    now = shop.clock.now()
    old = Message(ORDER, STORED, root_id(now, "v1"), "order.placed", 1, now, source="door")
    shop.log.append("orders", [old], now)
    shop.run().wait(1000, times=3)
    confirmed = shop.states("order")[Ref("order", ORDER)]
    assert confirmed.state == "confirmed"
    # What the flat total held beyond its lines is a carriage line now.
    assert [(line.sku, line.ordered) for line in confirmed.lines] == [
        ("TEAPOT", 2), ("MUG", 1), ("CARRIAGE", 1)
    ]
    shipment = confirmed.shipments[0].shipment
    for kind in ("handover", "delivered"):
        scan = ScanIn(scan=kind, reference=f"{ORDER}/{shipment}", type=kind)
        shop.request("carrier_webhook", scan)
    shop.run().wait(1000, times=3)
    ended = shop.states("order")[Ref("order", ORDER)]
    assert (ended.state, ended.final, ended.captured_minor) == ("completed", True, 3395)
