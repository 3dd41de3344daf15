"""The order flow's load for the bench: orders by number, and what the carrier sends back.

The gateways answer in process (``GATEWAYS``); the carrier's scans come as requests at the door,
as they do from a real one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from penstock.event import Message
from penstock.flows.orders.requests import (
    AddressIn,
    CustomerIn,
    LineIn,
    OrderIn,
    ScanIn,
    StockEntry,
    StockIn,
)

SKUS = 5000
PIECES = 1_000_000
STOCK_ROUTE, ORDER_ROUTE, ECHO_ROUTE = "load_stock", "place_order", "carrier_webhook"
LIST_ROUTE, LIST_FIELD = "list_orders", "orders"
ECHO_TOPIC, END_TOPIC = "shipments", "order_states"
ENDS = frozenset({"order.completed", "order.rejected", "order.cancelled"})
_DECODE = msgspec.json.Decoder(dict[str, Any]).decode
GATEWAYS = "penstock.flows.orders.gateways.instant:gateways"


def stock() -> Iterator[StockIn]:
    """Enough of every SKU, in files of 500."""
    for start in range(0, SKUS, 500):
        entries = tuple(
            StockEntry(sku=f"SKU-{i:05d}", quantity=PIECES) for i in range(start, start + 500)
        )
        yield StockIn(file=f"bench-{start}", entries=entries)


def order(i: int) -> OrderIn:
    """The i-th order: three lines and carriage."""
    lines = [
        LineIn(
            sku=f"SKU-{(i * 7 + k) % SKUS:05d}", quantity=1 + k, unit_minor=4333 - k,
            description=f"Widget model {k}",
        )
        for k in range(3)
    ]
    lines.append(LineIn(sku="POST", quantity=1, unit_minor=395, kind="carriage"))
    address = AddressIn(
        name="Ada Lovelace", street="12 Example Street", city="London", postcode="NW1 6XE",
        country="GB",
    )
    customer = CustomerIn(id=f"c-{i % 100000}", email="ada@example.invalid")
    return OrderIn(address=address, currency="GBP", lines=tuple(lines), customer=customer)


def echo(message: Message) -> Iterator[tuple[str, ScanIn]]:
    """What the carrier would send after a label: handover, then delivery."""
    if message.type == "shipment.labelled":
        shipment = _DECODE(message.value)["shipment"]
        for kind in ("handover", "delivered"):
            scan = f"{shipment}:{kind}"
            yield scan, ScanIn(
                scan=scan, reference=f"{message.key}/{shipment}",
                type=kind,
            )
