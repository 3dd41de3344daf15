"""The order flow's load for the bench: orders by number, and gateways that answer in process.

The gateways are instant and always agree; the carrier's scans come back as requests at the door,
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
from penstock.ports import Gateway, Ok, Outcome, Request

SKUS = 5000
PIECES = 1_000_000
STOCK_ROUTE, ORDER_ROUTE, ECHO_ROUTE = "load_stock", "place_order", "carrier_webhook"
LIST_ROUTE, LIST_FIELD = "list_orders", "orders"
ECHO_TOPIC, END_TOPIC = "shipments", "order_states"
ENDS = frozenset({"order.completed", "order.rejected", "order.cancelled"})
_STATES = {"authorise": "authorised", "capture": "captured", "void": "voided"}
_DECODE = msgspec.json.Decoder(dict[str, Any]).decode
_ENCODE = msgspec.json.Encoder().encode


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
                type=kind,  # type: ignore[arg-type]
            )


class Payments:
    """A provider that always agrees."""

    def call(self, request: Request) -> Outcome:
        """The money asked for, in the state asked for."""
        asked = _DECODE(request.body)
        said = {
            "id": f"pay_{request.key}", "state": _STATES.get(request.name, "refunded"),
            "amount": asked.get("amount", 0), "currency": asked.get("currency", ""),
        }
        return Ok(_ENCODE(said))


class Carrier:
    """A carrier that prints every label."""

    def call(self, request: Request) -> Outcome:
        """A label by the shipment's name."""
        if request.name != "label":
            return Ok(b'{"state":"voided"}')
        shipment = _DECODE(request.body)["shipment"]
        said = {"label": f"l_{shipment}", "tracking": f"t_{shipment}", "carrier": "bench"}
        return Ok(_ENCODE(said))


class Mail:
    """A mail server that takes everything."""

    def call(self, request: Request) -> Outcome:
        """Taken."""
        return Ok(b"{}")


def gateways() -> dict[str, Gateway]:
    """Every gateway of the catalog, in process."""
    return {"payments": Payments(), "carrier": Carrier(), "mail": Mail()}
