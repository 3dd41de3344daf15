"""What one row of a retailer's export is: goods or carriage that were sold, or set aside and why.

The codes are those of Online Retail II. Pure: text in, a verdict out.
"""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import Struct

from penstock.errors import Usage
from penstock.flows.orders.export import Export, Row
from penstock.flows.orders.pricing import decimals_of

# What the door takes. A row beyond it is set aside; a description is cut.
QUANTITY_MAX = 1_000_000
TEXT_CHARS_MAX = 90
DESCRIPTION_CHARS_MAX = 500

CARRIAGE = frozenset({"POST", "C2", "DOT"})
MANUAL = frozenset({"M"})
DISCOUNT = frozenset({"D"})
LEDGER = frozenset({"ADJUST", "ADJUST2", "BANK CHARGES", "AMAZONFEE", "CRUK", "B"})

REASONS: dict[str, str] = {
    "malformed": "the row cannot be read",
    "credit_note": "a credit note takes back an earlier purchase it does not name",
    "positive_on_credit_note": "a credit note with a positive quantity takes nothing back",
    "manual": "a charge made by hand is no goods",
    "discount": "a discount names no goods it is for",
    "ledger": "a correction of the books is no goods",
    "negative_quantity": "a negative quantity on an invoice that is no credit note",
    "zero_quantity": "nothing was sold",
    "negative_price": "nothing is sold below zero",
    "sub_penny_price": "the price is finer than the smallest coin and is not rounded",
    "conflicting_rows": "the rows of this invoice name several customers or countries",
    "different_content": "this invoice was placed before with other content",
    "refused": "the door refused the order",
}

_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f/]{1,60}")
_WHOLE = re.compile(r"[+-]?[0-9]{1,9}")
_MONEY = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,15})?")  # 27 digits: Decimal keeps 28
CURRENCY = re.compile(r"[A-Z]{3}")
PLAIN = re.compile(r"[A-Za-z0-9._-]{1,60}")
_FLOAT_ID = re.compile(r"([0-9]+)\.0")  # a spreadsheet writes 12417 as 12417.0 beside empty cells
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


class Reading(Struct, frozen=True, kw_only=True):
    """How to read one file. ``date_format`` is strptime's; empty means ISO 8601.

    ``source`` names the shop whose invoices these are: with the invoice it is the key under
    which an order is placed once, whichever file brings it.
    """

    source: str = "online-retail"
    currency: str = "GBP"
    zone: str = "Europe/London"
    date_format: str = ""
    delimiter: str = ","
    encoding: str = "utf-8"
    columns: dict[str, str] = {}
    payment_method: str = "tok_ok"
    carriage: frozenset[str] = CARRIAGE


class SetAside(Struct, frozen=True):
    """One row that becomes no part of an order: which (index into ``Plan.rows``) and why."""

    row: int
    reason: str
    detail: str


class Sold(Struct, frozen=True, kw_only=True):
    """One readable row of goods or carriage. ``price_minor`` is of one piece, ``at`` in ms."""

    row: int
    invoice: str
    sku: str
    description: str
    kind: Literal["item", "carriage"]
    quantity: int
    price_minor: int
    at: int
    customer: str
    country: str


def zone_of(name: str) -> ZoneInfo:
    """The time zone of that name; raises ``Usage``."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise Usage(
            "unknown_zone",
            f"This machine knows no time zone {name!r}.",
            "Give a name as Europe/London, or install the zones: pip install tzdata.",
        ) from None


# ---- one row


class _Unreadable(Exception):
    """A cell does not hold what its column needs."""


def verdict(
    export: Export, index: int, row: Row, reading: Reading, zone: ZoneInfo
) -> Sold | SetAside:
    """What one row is. The first reason that holds is the one given."""
    try:
        invoice, sku, quantity, price = _cells(export, row)
        at = _at(export.cell(row, "invoice_date"), reading.date_format, zone)
    except _Unreadable as wrong:
        return SetAside(index, "malformed", f"{REASONS['malformed']}: {wrong}")
    minor = price.scaleb(decimals_of(reading.currency))
    reason = _reason(invoice, sku, quantity, minor)
    if reason:
        return SetAside(index, reason, REASONS[reason])
    return Sold(
        row=index,
        invoice=invoice,
        sku=sku,
        description=_CONTROL.sub(" ", export.cell(row, "description"))[:DESCRIPTION_CHARS_MAX],
        kind="carriage" if sku.upper() in reading.carriage else "item",
        quantity=quantity,
        price_minor=int(minor),
        at=at,
        customer=_customer(export.cell(row, "customer_id")),
        country=export.cell(row, "country"),
    )


def _reason(invoice: str, sku: str, quantity: int, minor: Decimal) -> str:
    """Why a readable row is set aside; empty where it is not."""
    code = sku.upper()
    checks = (
        ("positive_on_credit_note", invoice[0] in "Cc" and quantity > 0),
        ("credit_note", invoice[0] in "Cc"),
        ("manual", code in MANUAL),
        ("discount", code in DISCOUNT),
        ("ledger", code in LEDGER),
        ("negative_quantity", quantity < 0),
        ("zero_quantity", quantity == 0),
        ("negative_price", minor < 0),
        ("sub_penny_price", minor != minor.to_integral_value()),
    )
    return next((reason for reason, holds in checks if holds), "")


def _cells(export: Export, row: Row) -> tuple[str, str, int, Decimal]:
    if len(row.fields) != len(export.header):
        raise _Unreadable(f"{len(row.fields)} fields, the header has {len(export.header)}")
    invoice, sku = export.cell(row, "invoice"), export.cell(row, "stock_code")
    for column, text in (("invoice", invoice), ("stock_code", sku)):
        if not _NAME.fullmatch(text):
            raise _Unreadable(f"{column} must have 1 to 60 printable characters and no slash")
    for column in ("customer_id", "country"):
        if len(export.cell(row, column)) > TEXT_CHARS_MAX:
            raise _Unreadable(f"{column} is longer than {TEXT_CHARS_MAX} characters")
    quantity, price = export.cell(row, "quantity"), export.cell(row, "unit_price")
    if not _WHOLE.fullmatch(quantity):
        raise _Unreadable(f"quantity {quantity[:40]!r} is no whole number")
    if int(quantity) > QUANTITY_MAX:
        raise _Unreadable(f"quantity {quantity} is more than {QUANTITY_MAX:,}")
    if not _MONEY.fullmatch(price):
        raise _Unreadable(f"unit_price {price[:40]!r} is no plain decimal number as 2.95")
    return invoice, sku, int(quantity), Decimal(price)


def _at(text: str, date_format: str, zone: ZoneInfo) -> int:
    """Local time as ms since the epoch; the hour that comes twice in autumn is the first one."""
    try:
        if date_format:
            moment = datetime.strptime(text, date_format)
        else:
            moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=zone)
        at = int(moment.timestamp() * 1000)
    except (ValueError, OverflowError):
        raise _Unreadable(
            f"invoice_date {text[:40]!r} is no {date_format or 'ISO 8601'} time"
        ) from None
    if at < 0:
        raise _Unreadable(f"invoice_date {text[:40]!r} lies before 1970")
    return at


def _customer(text: str) -> str:
    whole = _FLOAT_ID.fullmatch(text)
    return whole[1] if whole else _CONTROL.sub(" ", text)


