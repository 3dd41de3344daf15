"""The six-record order: the records both the bare loop and the engine's flow handle.

    placed -> inventory (three stock rows, reserved) and payment (captured)
           -> coordinator (both there: requested) -> shipping (shipped) -> coordinator (completed)
"""

from __future__ import annotations

import msgspec
from msgspec import Struct


class Address(Struct, frozen=True, gc=False):
    """Where it goes."""

    name: str
    street: str
    city: str
    postcode: str
    country: str


class Line(Struct, frozen=True, gc=False):
    """One line."""

    sku: str
    qty: int
    unit_minor: int
    title: str


class Placed(Struct, frozen=True, gc=False):
    """Twelve fields, three lines, 665 bytes of JSON."""

    event_id: str
    type: str
    schema_version: int
    order_id: str
    customer_id: str
    occurred_at: str
    currency: str
    total_minor: int
    channel: str
    shipping: Address
    trace: str
    lines: tuple[Line, ...]


class Reserved(Struct, frozen=True, gc=False):
    """Stock is set aside."""

    order_id: str
    warehouse: str
    ok: bool
    skus: tuple[tuple[str, int], ...]
    trace: str


class Captured(Struct, frozen=True, gc=False):
    """Money is taken."""

    order_id: str
    amount: int
    currency: str
    auth: str
    shipping: Address
    trace: str


class Requested(Struct, frozen=True, gc=False):
    """Both are there."""

    order_id: str
    shipping: Address
    skus: tuple[tuple[str, int], ...]
    trace: str


class Shipped(Struct, frozen=True, gc=False):
    """It is on its way."""

    order_id: str
    carrier: str
    tracking: str
    trace: str


class Completed(Struct, frozen=True, gc=False):
    """The end."""

    order_id: str
    trace: str


SKUS = 5000
STOCK = 1_000_000_000


def body(i: int) -> bytes:
    """The i-th order as a client would send it."""
    lines = tuple(
        Line(f"SKU-{(i * 7 + k) % SKUS:05d}", 1 + k, 4333 - k, f"Widget model {k}")
        for k in range(3)
    )
    address = Address("Ada Lovelace", "12 Example Street", "London", "NW1 6XE", "GB")
    return msgspec.json.encode(
        Placed(
            f"018f2c5e-7b1a-7{i % 4096:03x}-9c3d-{i:012x}", "order.placed", 3, f"ord_{i:020d}",
            f"cus_{i % 100000:012d}", "2026-11-23T18:44:00.123456Z", "EUR", 12999 + i % 100, "web",
            address, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", lines,
        )
    )
