"""The facts of the order flow: one class per event type, and the contracts over them.

An event's key is the order (or the SKU, for stock), so no class repeats it. Money is integer
minor units of the currency named beside it; every ``*_at`` and ``as_of`` is milliseconds since
the epoch. Personal data carries the tag ``pii``.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from penstock.contracts.contract import Contract, Older

At = Annotated[int, Meta(extra={"logicalType": "timestamp-millis"})]
Personal = Annotated[str, Meta(extra={"pii": True})]


class Address(Struct, frozen=True, kw_only=True, gc=False):
    """Where the parcel goes: a snapshot, taken when the order was placed."""

    name: Personal = ""
    street: Personal = ""
    city: Personal = ""
    postcode: Personal = ""
    country: str


class Customer(Struct, frozen=True, kw_only=True, gc=False):
    """Who ordered. A guest has no id; without an e-mail address nothing is mailed."""

    id: str = ""
    email: Personal = ""


class Line(Struct, frozen=True, kw_only=True, gc=False):
    """One line, its money frozen: gross = net + tax, net = quantity x unit - discount share.

    ``kind`` is ``item`` or ``carriage`` (no stock). ``tax_rate_bp`` is in basis points.
    """

    line: int
    sku: str
    quantity: int
    unit_minor: int
    net_minor: int
    tax_minor: int = 0
    gross_minor: int
    discount_minor: int = 0
    tax_rate_bp: int = 0
    kind: str = "item"
    description: str = ""


class Piece(Struct, frozen=True, kw_only=True, gc=False):
    """A quantity of one SKU, for one line of an order."""

    line: int
    sku: str
    quantity: int


class Shortage(Struct, frozen=True, kw_only=True, gc=False):
    """A SKU of which there was too little."""

    sku: str
    wanted: int
    available: int


class OrderPlaced(Struct, frozen=True, kw_only=True, gc=False):
    """A customer ordered. ``placed_at`` lies in the past for an imported order."""

    order_ref: str = ""
    client: str = ""
    customer: Customer
    address: Address
    currency: str
    lines: tuple[Line, ...]
    total_minor: int
    payment_method: Personal = "tok_ok"
    deadline_seconds: int | None = None
    placed_at: At


class LineV1(Struct, frozen=True, kw_only=True, gc=False):
    """A line before money was split per line and tax was known."""

    sku: str
    quantity: int
    unit_minor: int


class OrderPlacedV1(Struct, frozen=True, kw_only=True, gc=False):
    """The first shape: pounds only, one flat total with carriage hidden in it."""

    order_ref: str = ""
    customer_id: str = ""
    email: Personal = ""
    address: Address
    lines: tuple[LineV1, ...]
    total: int
    payment_method: Personal = "tok_ok"
    placed_at: At


def order_placed_2(old: OrderPlacedV1) -> OrderPlaced:
    """Version 1 to 2: what the flat total held beyond its lines becomes a carriage line.

    A total below the sum of its lines was a discount; the first lines bear it.
    """
    rest = old.total - sum(line.quantity * line.unit_minor for line in old.lines)
    lines = list(_discounted(old.lines, max(0, -rest)))
    if rest > 0:
        lines.append(
            Line(line=len(lines) + 1, sku="CARRIAGE", quantity=1, unit_minor=rest,
                 net_minor=rest, gross_minor=rest, kind="carriage")
        )
    return OrderPlaced(
        order_ref=old.order_ref, customer=Customer(id=old.customer_id, email=old.email),
        address=old.address, currency="GBP", lines=tuple(lines), total_minor=old.total,
        payment_method=old.payment_method, placed_at=old.placed_at,
    )


def _discounted(lines: tuple[LineV1, ...], discount: int) -> list[Line]:
    made = []
    for number, old in enumerate(lines, start=1):
        full = old.quantity * old.unit_minor
        share = min(discount, full)
        discount -= share
        made.append(
            Line(line=number, sku=old.sku, quantity=old.quantity, unit_minor=old.unit_minor,
                 net_minor=full - share, gross_minor=full - share, discount_minor=share)
        )
    return made


class OrderCancelRequested(Struct, frozen=True, kw_only=True, gc=False):
    """The customer (or care) wants the order cancelled; payment or shipping decides."""

    reason: str = ""
    client: str = ""


class StockReceived(Struct, frozen=True, kw_only=True, gc=False):
    """Pieces came in: a delta. Keyed by SKU; one entry per file, SKU and location."""

    file: str
    location: str
    quantity: int


class StockCounted(Struct, frozen=True, kw_only=True, gc=False):
    """Pieces were counted: absolute as of a time; later movements are applied again."""

    file: str
    location: str
    quantity: int
    as_of: At


class CarrierScanned(Struct, frozen=True, kw_only=True, gc=False):
    """The carrier scanned a parcel: ``type`` is ``handover`` or ``delivered``."""

    scan: str
    shipment: str
    type: str
    at: At


class ProviderNotified(Struct, frozen=True, kw_only=True, gc=False):
    """The payment provider told us by webhook what became of a payment.

    ``type`` is authorised, declined, captured, voided or refunded.
    """

    id: str
    type: str
    group: str = "1"
    payment: str = ""
    amount_minor: int = 0
    currency: str = ""
    reason: str = ""


class OrderStep(Struct, frozen=True, kw_only=True, gc=False):
    """What every step of an order says. ``resumed``: back in a state it was in before."""

    previous: str = ""
    reason: str = ""
    resumed: bool = False


class OrderReceived(Struct, frozen=True, kw_only=True, gc=False):
    """The order exists. Carries what the customer is told by and nothing else does."""

    order_ref: str = ""
    customer: Customer = Customer()
    currency: str = ""
    total_minor: int = 0
    previous: str = ""


class OrderProcessing(OrderStep, frozen=True, kw_only=True, gc=False):
    """Stock and money are being seen to."""


class OrderOnHold(OrderStep, frozen=True, kw_only=True, gc=False):
    """A person has to look at its payment."""


class OrderConfirmed(OrderStep, frozen=True, kw_only=True, gc=False):
    """Stock is reserved and the money taken."""


class OrderCancelling(OrderStep, frozen=True, kw_only=True, gc=False):
    """A cancellation is wished for and not decided yet."""


class OrderPartShipped(OrderStep, frozen=True, kw_only=True, gc=False):
    """Some of it is on its way."""

    shipment: str = ""
    carrier: str = ""
    tracking: str = ""


class OrderShipped(OrderStep, frozen=True, kw_only=True, gc=False):
    """All of it is on its way."""

    shipment: str = ""
    carrier: str = ""
    tracking: str = ""


class OrderCompleted(OrderStep, frozen=True, kw_only=True, gc=False):
    """Final: everything arrived (or there was nothing to send)."""


class OrderCancelled(OrderStep, frozen=True, kw_only=True, gc=False):
    """Final: the customer's wish was granted, the money is back."""


class OrderRejected(OrderStep, frozen=True, kw_only=True, gc=False):
    """Final: it could not be fulfilled; ``reason`` says why."""


class OrderRefunded(Struct, frozen=True, kw_only=True, gc=False):
    """Money went back to the customer. No state: an amount."""

    refund: str
    amount_minor: int
    currency: str


class InventoryReserved(Struct, frozen=True, kw_only=True, gc=False):
    """The pieces are kept for this order; ``amount_minor`` is what they cost, with carriage."""

    pieces: tuple[Piece, ...]
    amount_minor: int
    currency: str


class InventoryRejected(Struct, frozen=True, kw_only=True, gc=False):
    """Nothing was reserved."""

    reason: str
    short: tuple[Shortage, ...] = ()


class InventoryReleased(Struct, frozen=True, kw_only=True, gc=False):
    """The pieces are free again."""

    pieces: tuple[Piece, ...]
    reason: str


class InventoryConsumed(Struct, frozen=True, kw_only=True, gc=False):
    """The pieces left the house."""

    pieces: tuple[Piece, ...]
    shipment: str


class StockMoved(Struct, frozen=True, kw_only=True, gc=False):
    """One movement of one SKU and what is there after it.

    ``kind`` is receive, reserve, release, ship or count. ``quantity`` is the change of
    ``on_hand`` (receive, ship, count) or of ``reserved`` (reserve, release).
    """

    kind: str
    quantity: int
    on_hand: int
    reserved: int
    order: str = ""
    location: str = ""


class PaymentAuthorised(Struct, frozen=True, kw_only=True, gc=False):
    """The money is set aside at the provider."""

    group: str
    payment: str
    amount_minor: int
    currency: str


class PaymentDeclined(Struct, frozen=True, kw_only=True, gc=False):
    """The provider said no."""

    group: str
    code: str
    reason: str


class PaymentCaptured(Struct, frozen=True, kw_only=True, gc=False):
    """The money was taken. ``kept`` is false where it goes straight back."""

    group: str
    payment: str
    amount_minor: int
    currency: str
    kept: bool = True


class PaymentRefunded(Struct, frozen=True, kw_only=True, gc=False):
    """Money went back."""

    group: str
    refund: str
    amount_minor: int
    currency: str


class PaymentClosed(Struct, frozen=True, kw_only=True, gc=False):
    """The end of a payment that bought nothing; ``reason`` is the first one there was."""

    group: str
    reason: str


class FulfillmentRequested(Struct, frozen=True, kw_only=True, gc=False):
    """Paid and reserved: send it."""

    group: str
    address: Address
    pieces: tuple[Piece, ...]


class FulfillmentCancelRequested(Struct, frozen=True, kw_only=True, gc=False):
    """Do not send it, if that can still be helped."""

    group: str = "1"
    reason: str


class ShipmentLabelled(Struct, frozen=True, kw_only=True, gc=False):
    """The parcel has a label. No dispatch yet."""

    shipment: str
    label: str
    carrier: str
    tracking: str


class ShipmentDispatched(Struct, frozen=True, kw_only=True, gc=False):
    """The carrier has it."""

    shipment: str
    pieces: tuple[Piece, ...]
    carrier: str = ""
    tracking: str = ""
    dispatched_at: At


class ShipmentDelivered(Struct, frozen=True, kw_only=True, gc=False):
    """The customer has it."""

    shipment: str
    delivered_at: At


class ShipmentException(Struct, frozen=True, kw_only=True, gc=False):
    """The parcel does what it must not: a cancelled one moves."""

    shipment: str
    reason: str


class FulfillmentCancelled(Struct, frozen=True, kw_only=True, gc=False):
    """It will not be sent."""

    shipment: str
    reason: str


class FulfillmentCancelRefused(Struct, frozen=True, kw_only=True, gc=False):
    """Too late to stop it; ``requests`` cancellations are answered by this."""

    shipment: str
    reason: str
    requests: int = 1


class NotificationSent(Struct, frozen=True, kw_only=True, gc=False):
    """The customer was told: ``kind`` of mail, and which parcel or refund where there is one."""

    kind: str
    subject: str = ""
    to: Personal
    text: Personal


MODELS: dict[str, type] = {
    "order.placed": OrderPlaced,
    "order.cancel_requested": OrderCancelRequested,
    "stock.received": StockReceived,
    "stock.counted": StockCounted,
    "carrier.scanned": CarrierScanned,
    "provider.notified": ProviderNotified,
    "order.received": OrderReceived,
    "order.processing": OrderProcessing,
    "order.on_hold": OrderOnHold,
    "order.confirmed": OrderConfirmed,
    "order.cancelling": OrderCancelling,
    "order.part_shipped": OrderPartShipped,
    "order.shipped": OrderShipped,
    "order.completed": OrderCompleted,
    "order.cancelled": OrderCancelled,
    "order.rejected": OrderRejected,
    "order.refunded": OrderRefunded,
    "inventory.reserved": InventoryReserved,
    "inventory.rejected": InventoryRejected,
    "inventory.released": InventoryReleased,
    "inventory.consumed": InventoryConsumed,
    "stock.moved": StockMoved,
    "payment.authorised": PaymentAuthorised,
    "payment.declined": PaymentDeclined,
    "payment.captured": PaymentCaptured,
    "payment.refunded": PaymentRefunded,
    "payment.closed": PaymentClosed,
    "fulfillment.requested": FulfillmentRequested,
    "fulfillment.cancel_requested": FulfillmentCancelRequested,
    "shipment.labelled": ShipmentLabelled,
    "shipment.dispatched": ShipmentDispatched,
    "shipment.delivered": ShipmentDelivered,
    "shipment.exception": ShipmentException,
    "fulfillment.cancelled": FulfillmentCancelled,
    "fulfillment.cancel_refused": FulfillmentCancelRefused,
    "notification.sent": NotificationSent,
}

_OLDER = {"order.placed": (Older(1, OrderPlacedV1, order_placed_2),)}


def _contract(type_: str, model: type) -> Contract:
    older = _OLDER.get(type_, ())
    about = (model.__doc__ or "").strip().partition("\n")[0]
    return Contract(type=type_, version=len(older) + 1, model=model, older=older, about=about)


CONTRACTS: tuple[Contract, ...] = tuple(_contract(t, m) for t, m in MODELS.items())
