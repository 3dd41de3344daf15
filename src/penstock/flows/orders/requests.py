"""What clients may send to the door, with its bounds, and what is refused in any of it.

Bounds are declared on the fields, so bad input is refused while it is read and the answer names
the field. Times are RFC 3339 here and milliseconds inside.
"""

from __future__ import annotations

import re
from base64 import b32hexencode
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from penstock.flows.orders.events import Address, Customer
from penstock.flows.orders.pricing import AMOUNT_MAX

LINES_MAX = 1000
BULK_ENTRIES_MAX = 20_000
QUANTITY_MAX = 1_000_000
EARLIEST, LATEST = -62_135_596_800_000, 253_402_300_799_999  # the years 1 to 9999, in ms

# `$` alone lets a newline through at the end: every pattern here ends in END.
END = r"$(?!\n)"
# Characters that command a terminal, or turn the text around them: nobody's name has them.
_COMMANDS = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069"
_NAME = rf"^[^{_COMMANDS}\t\n\r/]+{END}"
_PART = rf"[^@\s\ufeff{_COMMANDS}]+"  # of a mail address

Short = Annotated[str, Meta(max_length=100, pattern=rf"^[^{_COMMANDS}\t\n\r]*{END}")]
Long = Annotated[str, Meta(max_length=500, pattern=rf"^[^{_COMMANDS}]*{END}")]
Sku = Annotated[str, Meta(min_length=1, max_length=64, pattern=_NAME)]
Location = Annotated[str, Meta(min_length=1, max_length=64, pattern=_NAME)]
Currency = Annotated[str, Meta(pattern=f"^[A-Z]{{3}}{END}")]
Amount = Annotated[int, Meta(ge=0, lt=AMOUNT_MAX)]
Quantity = Annotated[int, Meta(ge=1, le=QUANTITY_MAX)]
Moment = Annotated[datetime, Meta(tz=True)]
OrderId = Annotated[str, Meta(pattern=rf"^[A-Za-z0-9_.\-]{{1,100}}{END}")]


class AddressIn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where to send it."""

    name: Long = ""
    street: Long = ""
    city: Long = ""
    postcode: Short = ""
    country: Annotated[Short, Meta(min_length=1)]


class CustomerIn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who orders; nothing of it is needed, and a guest without e-mail gets no mail."""

    id: Short = ""
    email: Annotated[str, Meta(max_length=254, pattern=rf"^({_PART}@{_PART})?{END}")] = ""


class LineIn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line. ``unit_minor`` needs the permission ``supplied_prices``."""

    sku: Sku
    quantity: Quantity
    description: Long = ""
    kind: Literal["item", "carriage"] = "item"
    unit_minor: Amount | None = None
    tax_rate_bp: Annotated[int, Meta(ge=0, le=10_000)] = 0


class OrderIn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An order. Amounts are minor units of ``currency``.

    ``discount_minor`` and ``placed_at`` (an import's own time) need the permission
    ``supplied_prices``, too.
    """

    address: AddressIn
    currency: Currency
    lines: Annotated[tuple[LineIn, ...], Meta(min_length=1, max_length=LINES_MAX)]
    customer: CustomerIn = CustomerIn()
    order_ref: Short = ""
    payment_method: Short = "tok_ok"
    expected_total: Amount | None = None
    discount_minor: Amount = 0
    placed_at: Moment | None = None
    deadline_seconds: Annotated[int, Meta(ge=1, le=30 * 86_400)] | None = None


class CancelIn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why an order is to be cancelled."""

    reason: Long = ""


class StockEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One SKU at one location: pieces that came in, or a count as of a time."""

    sku: Sku
    location: Location = "main"
    kind: Literal["receive", "count"] = "receive"
    quantity: Annotated[int, Meta(ge=0, le=1_000_000_000)]
    as_of: Moment | None = None


class StockIn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of stock. Its id makes every entry of it count once."""

    file: Annotated[Short, Meta(min_length=1)]
    entries: Annotated[tuple[StockEntry, ...], Meta(min_length=1, max_length=BULK_ENTRIES_MAX)]


class PriceEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The unit price of a SKU from a quantity and a time on (always, where no time is given)."""

    sku: Sku
    currency: Currency
    unit_minor: Amount
    minimum_quantity: Quantity = 1
    valid_from: Moment | None = None


class PricesIn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A price list, or a part of one."""

    prices: Annotated[tuple[PriceEntry, ...], Meta(min_length=1, max_length=BULK_ENTRIES_MAX)]


class ScanIn(Struct, frozen=True, kw_only=True):
    """The carrier's webhook. ``reference`` is ours: order, slash, shipment."""

    scan: Annotated[Short, Meta(min_length=1)]
    reference: Annotated[
        str, Meta(pattern=rf"^[A-Za-z0-9_.\-]{{1,100}}/[A-Za-z0-9_.\-]{{1,100}}{END}")
    ]
    type: Literal["handover", "delivered"]
    at: Moment | int | None = None


class ProviderIn(Struct, frozen=True, kw_only=True):
    """The payment provider's webhook; ``type`` may carry the prefix ``payment.``."""

    id: Annotated[Short, Meta(min_length=1)]
    type: Short
    order: OrderId
    group: Short | int = "1"
    amount: Amount = 0
    currency: Short = ""
    payment: Short = ""
    reason: Long = ""


# ---- out of a request


def millis(moment: datetime | int | None, default: int) -> int:
    """A time as milliseconds."""
    if moment is None or isinstance(moment, int):
        return default if moment is None else moment
    return round(moment.timestamp() * 1000)


def beyond(moment: datetime | int | None) -> bool:
    """Whether a time cannot be shown: in UTC it is none of the years 1 to 9999."""
    return moment is not None and not EARLIEST <= millis(moment, 0) <= LATEST


def rfc3339(at: int) -> str:
    """Milliseconds as people and other programs read them, in UTC."""
    moment = datetime.fromtimestamp(at / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def address_of(given: AddressIn) -> Address:
    """The snapshot that goes into the event."""
    return Address(
        name=given.name, street=given.street, city=given.city, postcode=given.postcode,
        country=given.country,
    )


def customer_of(given: CustomerIn) -> Customer:
    """The customer as the event names them."""
    return Customer(id=given.id, email=given.email)


def order_id(now: int, client: str, key: str) -> str:
    """An order's id: sorts by time, cannot be guessed from the time alone."""
    digest = blake2b(f"{client}\x1f{key}".encode(), digest_size=9).digest()
    return "ord_" + b32hexencode(now.to_bytes(6, "big") + digest).decode().lower()


# ---- card numbers: refused wherever they are

_RUN = re.compile(rb"[0-9]{13}")
_DIGITS = re.compile(r"(?<![0-9])[0-9](?:[ -]?[0-9]){12,18}(?![0-9])")
_GTIN_LENGTHS = (13, 14)


def _luhn(digits: str) -> bool:
    doubled = [int(d) * 2 for d in digits[-2::-2]]
    return (sum(map(int, digits[-1::-2])) + sum(d - 9 if d > 9 else d for d in doubled)) % 10 == 0


def _gtin(digits: str) -> bool:
    """Whether an article number's own check digit holds (weights 3 and 1 from the right)."""
    return (sum(map(int, digits[-1::-2])) + 3 * sum(map(int, digits[-2::-2]))) % 10 == 0


def _is_card(text: str, name: str) -> bool:
    for found in _DIGITS.findall(text):
        digits = re.sub("[ -]", "", found)
        article = name == "sku" and len(digits) in _GTIN_LENGTHS and _gtin(digits)
        if _luhn(digits) and not article:
            return True
    return False


def card_field(body: Struct) -> str:
    """The path of the first field that holds a card number, or an empty string."""
    raw = msgspec.json.encode(body)
    # Most bodies have no such run even without their spaces: a plain scan says so quickly.
    if not _RUN.search(raw.translate(None, b" -")) or not _DIGITS.search(raw.decode()):
        return ""
    return next(_card_paths(msgspec.to_builtins(body), "", ""), "")


def _card_paths(value: Any, path: str, name: str) -> Any:
    if isinstance(value, str):
        if _is_card(value, name):
            yield path
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _card_paths(inner, f"{path}.{key}" if path else key, key)
    elif isinstance(value, (list, tuple)):
        for place, inner in enumerate(value):
            yield from _card_paths(inner, f"{path}[{place}]", name)
