"""The door's routes, each with an example that works as it is."""

from __future__ import annotations

from typing import Any

from penstock.flow import Intake, Look, Route
from penstock.flows.orders import door, requests, views

ORDER_EXAMPLE: dict[str, Any] = {
    "order_ref": "web-1001",
    "customer": {"id": "c-17", "email": "ada@example.com"},
    "address": {
        "name": "Ada Byron", "street": "12 St James's Square", "city": "London",
        "postcode": "SW1Y 4JH", "country": "United Kingdom",
    },
    "currency": "GBP",
    "lines": [
        {"sku": "TEAPOT", "quantity": 2, "description": "Blue teapot", "unit_minor": 1250},
        {"sku": "POST", "quantity": 1, "kind": "carriage", "unit_minor": 395},
    ],
    "payment_method": "tok_ok",
    "expected_total": 2895,
}

STOCK_EXAMPLE: dict[str, Any] = {
    "file": "stock-2026-01-05",
    "entries": [
        {"sku": "TEAPOT", "location": "main", "kind": "receive", "quantity": 100},
        {"sku": "MUG", "location": "main", "kind": "count", "quantity": 40,
         "as_of": "2026-01-05T08:00:00Z"},
    ],
}

PRICES_EXAMPLE: dict[str, Any] = {
    "prices": [
        {"sku": "TEAPOT", "currency": "GBP", "unit_minor": 1250},
        {"sku": "TEAPOT", "currency": "GBP", "minimum_quantity": 12, "unit_minor": 1100},
        {"sku": "POST", "currency": "GBP", "unit_minor": 395},
    ],
}

SCAN_EXAMPLE: dict[str, Any] = {
    "scan": "scan-1", "reference": "ord_0/ord_0-1", "type": "handover",
    "at": "2026-01-05T09:30:00Z",
}

PROVIDER_EXAMPLE: dict[str, Any] = {
    "id": "evt-1", "type": "payment.authorised", "order": "ord_0", "group": "1", "amount": 2895,
    "currency": "GBP", "payment": "pay-1",
}

REFUSED = "The input is wrong; the problem names the field."

ROUTES: tuple[Route, ...] = (
    Route(
        method="POST", path="/orders", name="place_order", summary="Place an order.",
        does=Intake(needs=door.needs_of_order, decide=door.place), body=requests.OrderIn,
        example=ORDER_EXAMPLE, needs_idempotency_key=True, reply=door.Placed,
        leads_to={"get_order": {"id": "/order_id"}, "cancel_order": {"id": "/order_id"}},
        replies={
            202: "Accepted, and durable.", 403: "A permission is missing.",
            409: "The total is another (the problem holds the quote), or the key is in flight.",
            422: REFUSED,
        },
    ),
    Route(
        method="GET", path="/orders", name="list_orders", summary="List orders, newest first.",
        does=Look(wants=views.wants_orders, show=views.show_orders), reply=views.OrderPage,
        query={**views.STATE_FILTER, **views.PAGING},
        query_types={**views.STATE_TYPES, **views.PAGE_TYPES},
        leads_to={
            "get_order": {"id": "/orders/0/order_id"}, "list_orders": {"after": "/next"},
        },
        replies={200: "A page of orders.", 422: REFUSED},
    ),
    Route(
        method="GET", path="/orders/{id}", name="get_order",
        summary="One order with its timeline.",
        does=Look(wants=views.wants_order, show=views.show_order), reply=views.OrderView,
        leads_to={"cancel_order": {"id": "/order_id"}},
        replies={200: "The order.", 404: "There is no such order."},
    ),
    Route(
        method="POST", path="/orders/{id}/cancel", name="cancel_order",
        summary="Ask for an order to be cancelled.",
        does=Intake(
            needs=door.needs_of_cancel, decide=door.cancel, wants=door.wants_of_cancel
        ),
        body=requests.CancelIn, example={"reason": "changed my mind"}, reply=door.Cancelling,
        leads_to={"get_order": {"id": "/order_id"}},
        replies={
            202: "The wish is passed on; whether it is granted shows in the order's state.",
            404: "There is no such order.", 409: "The order has ended.", 422: REFUSED,
        },
    ),
    Route(
        method="POST", path="/stock", name="load_stock", summary="Load or count stock.",
        does=Intake(needs=door.needs_of_stock, decide=door.load_stock), body=requests.StockIn,
        example=STOCK_EXAMPLE, permission=door.LOAD_STOCK, reply=door.Loaded, bulk=True,
        replies={
            202: "Accepted, and durable.", 403: "A permission is missing.",
            409: "An entry was known with another content; nothing was loaded.", 422: REFUSED,
        },
    ),
    Route(
        method="GET", path="/stock", name="list_stock", summary="List stock by SKU.",
        does=Look(wants=views.wants_stock, show=views.show_stock), reply=views.StockPage,
        query={"sku": "only this SKU", **views.PAGING}, query_types=views.PAGE_TYPES,
        leads_to={"list_stock": {"after": "/next"}}, replies={200: "A page of stock."},
    ),
    Route(
        method="PUT", path="/prices", name="load_prices", summary="Add or replace prices.",
        does=Intake(needs=door.needs_of_prices, decide=door.load_prices),
        body=requests.PricesIn, example=PRICES_EXAMPLE, permission=door.LOAD_PRICES,
        reply=door.Loaded, bulk=True,
        replies={200: "Known, and durable.", 403: "A permission is missing.", 422: REFUSED},
    ),
    Route(
        method="GET", path="/prices", name="list_prices", summary="List prices by SKU.",
        does=Look(wants=views.wants_prices, show=views.show_prices), reply=views.PricePage,
        query=views.PAGING, query_types=views.PAGE_TYPES,
        leads_to={"list_prices": {"after": "/next"}}, replies={200: "A page of prices."},
    ),
    Route(
        method="POST", path="/webhooks/carrier", name="carrier_webhook",
        summary="The carrier scanned a parcel.",
        does=Intake(needs=door.needs_of_scan, decide=door.take_scan), body=requests.ScanIn,
        example=SCAN_EXAMPLE, reply=door.Noted,
        replies={202: "Noted, and durable.", 422: REFUSED},
    ),
    Route(
        method="POST", path="/webhooks/payments", name="payments_webhook",
        summary="The payment provider tells what became of a payment.",
        does=Intake(needs=door.needs_of_notice, decide=door.take_notice),
        body=requests.ProviderIn, example=PROVIDER_EXAMPLE, reply=door.Noted,
        replies={202: "Noted, and durable.", 422: REFUSED},
    ),
)
