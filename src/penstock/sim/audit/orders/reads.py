"""Which event types each service reads from each topic, written down from the documents.

A service with a decide also reads its own answers and the journal. What is not listed is passed
over by its header and never marked.
"""

from __future__ import annotations

REQUESTS = frozenset({"deadletter.retry_requested", "deadletter.discard_requested"})
DEAD = frozenset({"dead.parked", "dead.retried", "dead.discarded"})
SERVICES = ("order", "inventory", "payment", "shipping", "notify")


def _reads(answers: str, **topics: str) -> dict[str, frozenset[str]]:
    return {
        **{topic: frozenset(types.split()) for topic, types in topics.items()},
        answers: frozenset(), "journal": REQUESTS,
    }


READS: dict[str, dict[str, frozenset[str]]] = {
    "order": {
        **_reads(
            "order.answers",
            orders="order.placed order.cancel_requested",
            inventory="inventory.reserved inventory.rejected inventory.released",
            payments="payment.authorised payment.declined payment.captured payment.refunded"
            " payment.closed",
            shipments="shipment.labelled shipment.dispatched shipment.delivered"
            " shipment.exception fulfillment.cancelled fulfillment.cancel_refused",
        ),
        "payment.dead": DEAD,
    },
    "inventory": _reads(
        "inventory.answers",
        orders="order.placed",
        arrivals="stock.received stock.counted",
        payments="payment.closed",
        shipments="shipment.dispatched fulfillment.cancelled",
    ),
    "payment": {
        **_reads(
            "payment.answers",
            orders="order.placed order.cancel_requested",
            arrivals="provider.notified",
            inventory="inventory.reserved inventory.rejected",
            shipments="fulfillment.cancelled",
        ),
        "payment.answers": frozenset({"answer", "wake", "dead.discarded"}),
    },
    "shipping": {
        **_reads(
            "shipping.answers",
            fulfillment="fulfillment.requested fulfillment.cancel_requested",
            arrivals="carrier.scanned",
        ),
        "shipping.answers": frozenset({"answer"}),
    },
    "notify": {
        **_reads(
            "notify.answers",
            order_states="order.received order.confirmed order.part_shipped order.shipped"
            " order.rejected order.cancelled order.refunded",
        ),
        "notify.answers": frozenset({"answer"}),
    },
}
