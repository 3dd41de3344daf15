"""The life of an order as one table: code, docs and tests read it from here.

A row says: in these states of this machine, on these triggers, the state may become one of
``next``. A trigger is an event's type; an answer is ``<ask> <outcome>``, a wake ``wake <name>``,
a webhook or a scan its type and what it says. ``new`` is an order this service knows nothing of,
or only facts that came ahead of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from penstock.event import Event

DEADLINE_SECONDS = 86_400  # an order that is not paid and reserved by then is given up

NEW = "new"
ORDER_STATES = (
    "received", "processing", "on_hold", "confirmed", "cancelling", "part_shipped", "shipped",
    "completed", "cancelled", "rejected",
)
FINAL_STATES = frozenset({"completed", "cancelled", "rejected"})
OPEN_STATES = tuple(s for s in ORDER_STATES if s not in FINAL_STATES)

OUT_OF_STOCK = "out_of_stock"
DECLINED = "declined"
CANCELLED = "cancelled"
DEADLINE = "deadline"
CAPTURE_FAILED = "capture_failed"
ABANDONED = "abandoned"
UNDELIVERABLE = "undeliverable"


class Row(Struct, frozen=True, kw_only=True):
    """One row of the table. ``event`` is how people say what ``on`` lists."""

    service: str
    states: tuple[str, ...]
    on: tuple[str, ...]
    next: tuple[str, ...]
    event: str
    cause: str
    effect: str = ""


def _rows(service: str, *rows: tuple[str, str, str, str, str, str]) -> tuple[Row, ...]:
    return tuple(
        Row(service=service, states=_words(states), on=_words(on), next=_words(next_),
            event=event, cause=cause, effect=effect)
        for states, on, next_, event, cause, effect in rows
    )


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


PAYMENT = _rows(
    "payment",
    ("new", "order.placed", "authorising", "order placed", "door",
     "ask authorise, start the deadline"),
    ("new", "inventory.reserved, inventory.rejected, provider.notified authorised", "new",
     "facts ahead of the order", "topics race", "kept, applied when the order is known"),
    ("new", "order.placed", "closed", "order placed, refused by stock already", "topics race",
     "nothing is asked; emit closed"),
    ("new", "order.placed", "authorised, capturing", "order placed, answered before it was known",
     "topics race", "as if the facts came behind it"),
    ("authorising", "authorise ok, provider.notified authorised", "authorised", "authorised",
     "provider", "emit authorised; wait for inventory"),
    ("authorising", "inventory.reserved", "authorising", "reserved", "inventory",
     "the amount to capture is known"),
    ("authorising", "authorise refused, provider.notified declined", "closed", "declined",
     "provider", "emit declined, closed; inventory releases"),
    ("authorising", "authorise ok, provider.notified authorised", "capturing",
     "authorised, reserved before", "provider", "emit authorised; ask capture"),
    ("authorised", "inventory.reserved", "capturing", "reserved", "inventory", "ask capture"),
    ("capturing", "capture ok, provider.notified captured", "captured", "captured", "provider",
     "emit captured, fulfillment.requested"),
    ("capturing, refunding", "capture refused", "closing", "capture failed", "provider",
     "ask void"),
    ("closing", "void ok, provider.notified voided, authorise refused, "
     "provider.notified declined", "closed", "voided, declined", "provider",
     "emit closed with the first reason"),
    ("closing", "authorise ok, provider.notified authorised", "closing", "authorised late",
     "provider", "ask void"),
    ("closing", "capture ok, provider.notified captured", "refunding", "captured after all",
     "provider", "emit captured; ask refund"),
    ("authorising, authorised", "inventory.rejected, order.cancel_requested, wake deadline",
     "closing", "out of stock, cancel, deadline", "inventory, customer, clock",
     "void after any answer"),
    ("capturing", "order.cancel_requested", "refunding", "cancel", "customer",
     "the capture answers first; nothing is sent"),
    ("refunding", "capture ok, provider.notified captured", "refunding", "captured", "provider",
     "emit captured (not kept); ask refund"),
    ("captured", "order.cancel_requested", "captured", "cancel", "customer",
     "forward on fulfillment"),
    ("captured", "fulfillment.cancelled", "refunding", "parcel cancelled", "shipping",
     "ask refund"),
    ("refunding", "refund ok, provider.notified refunded", "closed", "refunded", "provider",
     "emit refunded, closed"),
    ("closed", "authorise ok, provider.notified authorised", "closed", "authorised late",
     "webhook, answer", "ask void"),
    ("closed", "capture ok, provider.notified captured", "closed", "captured late",
     "webhook, answer", "emit captured (not kept); ask refund"),
    ("new, authorising, authorised, capturing, closing, refunding", "dead.discarded", "closed",
     "a parked record was discarded", "operator",
     "emit closed (abandoned, or the first reason); give back what may have been taken"),
    ("closed", "dead.discarded", "closed", "the answer to a refund was discarded", "operator",
     "ask for the refund again, same key: only so is it told"),
)

RESERVATION = _rows(
    "inventory",
    ("new", "order.placed", "reserved", "order placed", "door", "emit reserved"),
    ("new", "order.placed", "rejected", "order placed, too little there", "door",
     "emit rejected, with what is short; nothing is kept back"),
    ("new", "payment.closed", "released", "payment closed", "payment",
     "a later order.placed reserves nothing"),
    ("reserved", "payment.closed, fulfillment.cancelled", "released",
     "payment closed, parcel cancelled", "payment, shipping", "emit released; available rises"),
    ("reserved", "shipment.dispatched", "consumed", "dispatched", "shipping",
     "emit consumed; on hand falls"),
)

SHIPMENT = _rows(
    "shipping",
    ("new", "fulfillment.requested", "planned", "fulfillment requested", "payment", "ask label"),
    ("new", "carrier.scanned handover, carrier.scanned delivered", "new",
     "a scan ahead of the parcel", "topics race", "kept, applied when the parcel is known"),
    ("new", "fulfillment.requested", "dispatched, delivered", "fulfillment requested, "
     "scanned before it was known", "topics race", "as if the scans came behind it"),
    ("planned", "label ok", "labelled", "label", "carrier", "emit labelled"),
    ("planned, cancelling", "label refused", "cancelled", "no label", "carrier",
     "emit fulfillment.cancelled; payment refunds"),
    ("planned, labelled", "fulfillment.cancel_requested", "cancelling", "cancel requested",
     "payment", "void the label, once there is one"),
    ("cancelling", "label ok", "cancelling", "label", "carrier", "ask void_label"),
    ("cancelling", "void_label ok", "cancelled", "label voided", "carrier",
     "emit fulfillment.cancelled"),
    ("planned, labelled, cancelling", "carrier.scanned handover", "dispatched", "handover scan",
     "carrier", "emit dispatched; if cancelling, cancel_refused before it"),
    ("cancelling", "void_label refused", "labelled", "void of the label refused", "carrier",
     "emit cancel_refused"),
    ("dispatched, delivered", "fulfillment.cancel_requested", "dispatched, delivered",
     "cancel requested", "payment", "emit cancel_refused"),
    ("cancelled", "carrier.scanned handover, carrier.scanned delivered", "cancelled",
     "a scan of a cancelled parcel", "carrier", "emit exception: the parcel moves"),
    ("planned, labelled, cancelling", "carrier.scanned delivered", "delivered",
     "delivered scan before the handover", "carrier",
     "emit dispatched, delivered: delivery proves the handover"),
    ("dispatched", "carrier.scanned delivered", "delivered", "delivered scan", "carrier",
     "emit delivered"),
)

ORDER = _rows(
    "order",
    ("new", "order.placed", "received", "order placed", "door", "facts ahead of it are applied"),
    ("received", "any fact", "processing", "any fact", "stock, money, parcel", ""),
    ("received, processing, on_hold, confirmed, part_shipped, shipped", "order.cancel_requested",
     "cancelling", "cancel requested", "customer", "payment or shipping decides"),
    ("cancelling", "fulfillment.cancel_refused", "processing, confirmed, part_shipped, shipped",
     "cancel refused", "shipping", "back to where it is, every step crossed told"),
    ("cancelling, on_hold", "shipment.delivered, payment.captured", "confirmed, shipped, completed",
     "all delivered", "shipping", "nothing is left to decide: every step crossed, then final"),
    ("received, processing, confirmed, cancelling, part_shipped, shipped", "dead.parked",
     "on_hold", "its payment was parked", "payment", "a person decides"),
    ("on_hold", "dead.retried, dead.discarded",
     "processing, confirmed, cancelling, part_shipped, shipped", "retried or discarded",
     "operator", "back to where it is"),
    ("processing", "payment.captured", "confirmed", "captured", "payment",
     "a dispatch seen before is kept until now"),
    ("processing, on_hold, cancelling, confirmed", "payment.closed", "rejected, cancelled",
     "payment closed, nothing dispatched", "payment", "final"),
    ("confirmed", "shipment.dispatched", "part_shipped, shipped", "dispatched", "shipping", ""),
    ("part_shipped", "shipment.dispatched", "shipped", "the rest dispatched", "shipping", ""),
    ("part_shipped, shipped", "shipment.delivered", "completed", "all delivered", "shipping",
     "final"),
    ("confirmed", "payment.captured", "completed", "captured, carriage alone", "payment",
     "final"),
)

TABLE = PAYMENT + RESERVATION + SHIPMENT + ORDER

_SPOKEN: dict[str, Callable[[Any], str]] = {
    "answer": lambda fact: f"{fact.name} {fact.outcome}",
    "wake": lambda fact: f"wake {fact.name}",
    "provider.notified": lambda fact: f"provider.notified {fact.type}",
    "carrier.scanned": lambda fact: f"carrier.scanned {fact.type}",
}


def trigger(event: Event) -> str:
    """The word of the table for this event."""
    speak = _SPOKEN.get(event.type)
    return event.type if speak is None else speak(event.data)


def rows_for(service: str, state: str, on: str, next_: str) -> tuple[Row, ...]:
    """The rows that allow this change; empty where the table forbids it."""
    return tuple(
        row for row in TABLE
        if row.service == service and state in row.states and on in row.on and next_ in row.next
    )


def may_follow(state: str, next_: str) -> bool:
    """Whether an order may step from one public state to the other."""
    return any(state in row.states and next_ in row.next for row in ORDER)


_TITLES = {
    "payment": "payment(g)", "inventory": "reservation", "shipping": "shipment(n)",
    "order": "order (the order service)",
}


def table_markdown() -> str:
    """The table as Markdown, one part per machine."""
    parts = []
    for service, title in _TITLES.items():
        rows = [_markdown_row(row) for row in TABLE if row.service == service]
        head = ["| state | event → next | cause | effect |", "|---|---|---|---|"]
        parts.append("\n".join([f"### {title}", "", *head, *rows]))
    return "\n\n".join(parts) + "\n"


def _markdown_row(row: Row) -> str:
    states = "–" if row.states == (NEW,) else ", ".join(row.states)
    return f"| {states} | {row.event} → {', '.join(row.next)} | {row.cause} | {row.effect} |"
