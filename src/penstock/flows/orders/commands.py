"""The flow's commands, each over one of its routes."""

from __future__ import annotations

from penstock.flow import Command

_ORDERS = ("order_id", "state", "final", "reason", "total_minor", "currency", "placed_at")
_STOCK = ("sku", "on_hand", "reserved", "available")
_PRICES = ("sku", "currency", "minimum_quantity", "valid_from", "unit_minor")
_TIMELINE = ("at", "kind", "type", "note", "state", "id", "cause")

COMMANDS: tuple[Command, ...] = (
    Command(
        noun="orders", verb="list", route="list_orders", summary="List orders, newest first.",
        options={"state": "only orders in this state"}, rows="orders", columns=_ORDERS,
    ),
    Command(
        noun="orders", verb="get", route="get_order", summary="Show one order, whole.",
        arguments=("id",),
    ),
    Command(
        noun="orders", verb="timeline", route="get_order",
        summary="Show what happened to an order: facts, causes, gateway calls.",
        arguments=("id",), rows="timeline", columns=_TIMELINE,
    ),
    Command(
        noun="orders", verb="place", route="place_order",
        summary="Place an order from a JSON file (or - for standard input).", body_file=True,
    ),
    Command(
        noun="orders", verb="cancel", route="cancel_order",
        summary="Ask for an order to be cancelled.", arguments=("id",),
        options={"reason": "why"},
    ),
    Command(
        noun="stock", verb="list", route="list_stock", summary="List stock by SKU.",
        options={"sku": "only this SKU"}, rows="stock", columns=_STOCK,
    ),
    Command(
        noun="stock", verb="load", route="load_stock",
        summary="Load or count stock from a JSON file.", body_file=True,
    ),
    Command(
        noun="prices", verb="list", route="list_prices", summary="List prices by SKU.",
        rows="prices", columns=_PRICES,
    ),
    Command(
        noun="prices", verb="load", route="load_prices",
        summary="Add or replace prices from a JSON file.", body_file=True,
    ),
)
