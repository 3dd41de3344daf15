"""A retailer's export becomes orders: what each kind of row is, and where every row went.

Pure: bytes in, a Plan out. The command line sends the Plan's requests through the same door as
everybody's and writes down what the door answered; nothing here knows whether it did.

An order is an invoice. A row that is set aside takes itself out and nothing else: the rest of its
invoice is placed, because the goods that can be read were sold. Only where the rows of an invoice
disagree about who bought it or where it goes is the whole invoice set aside.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from hashlib import blake2b
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Struct

from penstock.errors import Usage
from penstock.flows.orders.export import Row, read
from penstock.flows.orders.sold import (
    CURRENCY,
    PLAIN,
    REASONS,
    Reading,
    SetAside,
    Sold,
    verdict,
    zone_of,
)

__all__ = ["CLIENT", "NOUN", "OPTIONS", "REASONS", "SAMPLE", "Option", "Plan", "Reading", "Request"]
__all__ += ["loaded", "loaded_before", "on_hand", "outcomes", "plan", "stock", "stock_of"]
__all__ += ["stock_page"]

NOUN = "orders"  # what a Plan places, as the summary calls it
CLIENT = "importer"  # the door's client: it may supply prices
PLACE = "/orders"
STOCK = "/stock"
STOCK_ENTRIES = 1000  # in one call
STOCK_QUANTITY_MAX = 1_000_000_000  # of one entry at the door
SAMPLE = ("penstock.flows.orders.sample", "sample.csv")
DELIMITERS = {"tab": "\t", "\\t": "\t"}


class Option(Struct, frozen=True, kw_only=True):
    """One option of the command: the field of ``Reading`` it fills, its flag and help.

    ``pairs`` is given as NAME=VALUE, any number of times.
    """

    field: str
    flag: str
    help: str
    default: str = ""
    metavar: str = "TEXT"
    pairs: bool = False


OPTIONS = (
    Option(field="source", flag="source", default="online-retail", help="Whose invoices."),
    Option(
        field="columns", flag="map", pairs=True, metavar="COLUMN=NAME",
        help="What this file calls a column; nothing after = means it has none. Repeatable.",
    ),
    Option(field="delimiter", flag="delimiter", default=",", help="Between fields; tab for one."),
    Option(field="encoding", flag="encoding", default="utf-8", help="As utf-8 or cp1252."),
    Option(
        field="date_format", flag="date-format", metavar="FORMAT",
        help="Of the invoice dates, as '%d/%m/%Y %H:%M'; else ISO 8601.",
    ),
    Option(field="zone", flag="zone", default="Europe/London", help="Of the invoice dates."),
    Option(field="currency", flag="currency", default="GBP", help="Of the prices."),
    Option(
        field="payment_method", flag="payment-method", default="tok_ok", metavar="TOKEN",
        help="What the orders are paid with.",
    ),
)  # fmt: skip


class Request(Struct, frozen=True, kw_only=True):
    """One call of the door. ``rows`` are in the order placed, ``merged`` added to one of them."""

    name: str
    path: str
    key: str
    body: bytes
    rows: tuple[int, ...] = ()
    merged: tuple[int, ...] = ()


class Plan(Struct, frozen=True, kw_only=True):
    """What a file becomes: every row is in exactly one request or set aside."""

    source: str
    header: tuple[str, ...]
    rows: tuple[Row, ...]
    requests: tuple[Request, ...]
    set_aside: tuple[SetAside, ...]
    pieces: dict[str, int]


def plan(content: bytes, reading: Reading) -> Plan:
    """The orders of a file, oldest first, and the rows set aside; raises ``Usage``."""
    if not PLAIN.fullmatch(reading.source):
        raise Usage(
            "bad_source", f"{reading.source!r} names no source.", "Use letters, digits, . _ and -."
        )
    if not CURRENCY.fullmatch(reading.currency):
        raise Usage("bad_currency", f"{reading.currency!r} is no currency.", "Say it as GBP.")
    zone = zone_of(reading.zone)
    export = read(
        content,
        columns=reading.columns,
        delimiter=DELIMITERS.get(reading.delimiter, reading.delimiter),
        encoding=reading.encoding,
    )
    verdicts = [verdict(export, i, row, reading, zone) for i, row in enumerate(export.rows)]
    aside = [v for v in verdicts if isinstance(v, SetAside)]
    invoices, torn = _invoices(v for v in verdicts if isinstance(v, Sold))
    return Plan(
        source=reading.source,
        header=export.header,
        rows=export.rows,
        requests=tuple(_request(lines, reading) for lines in invoices),
        set_aside=tuple(sorted(aside + torn, key=lambda s: s.row)),
        pieces=_pieces(line for lines in invoices for line in lines),
    )


# ---- one invoice


def _invoices(sold: Iterable[Sold]) -> tuple[list[list[Sold]], list[SetAside]]:
    """Rows by invoice, the oldest first, and the rows of invoices that contradict themselves."""
    of: dict[str, list[Sold]] = {}
    for line in sold:
        of.setdefault(line.invoice, []).append(line)
    whole: list[list[Sold]] = []
    torn: list[SetAside] = []
    for lines in of.values():
        if len({line.customer for line in lines}) > 1 or len({line.country for line in lines}) > 1:
            detail = REASONS["conflicting_rows"]
            torn += [SetAside(line.row, "conflicting_rows", detail) for line in lines]
        else:
            whole.append(lines)
    whole.sort(key=lambda lines: (min(line.at for line in lines), lines[0].invoice))
    return whole, torn


def _request(lines: list[Sold], reading: Reading) -> Request:
    """The order of one invoice: the same bytes, whatever the order of its rows in the file."""
    kept: dict[tuple[str, str, int], list[Sold]] = {}
    for line in lines:
        kept.setdefault((line.kind, line.sku, line.price_minor), []).append(line)
    first = lines[0]
    body = {
        "order_ref": first.invoice,
        "customer": _buyer(first.customer),
        "address": _address(first),
        "currency": reading.currency,
        "lines": [_line(key, kept[key]) for key in sorted(kept, key=_goods_first)],
        "payment_method": reading.payment_method,
        "placed_at": _moment(min(line.at for line in lines)),
    }
    return Request(
        name=first.invoice,
        path=PLACE,
        key=f"import:{reading.source}:{quote(first.invoice, safe='')}",
        body=msgspec.json.encode(body),
        rows=tuple(same[0].row for same in kept.values()),
        merged=tuple(line.row for same in kept.values() for line in same[1:]),
    )


def _goods_first(key: tuple[str, str, int]) -> tuple[bool, str, int]:
    kind, sku, price = key
    return kind != "item", sku, price


def _line(key: tuple[str, str, int], same: list[Sold]) -> dict[str, Any]:
    kind, sku, price = key
    told = min(line.description for line in same)
    return {
        "sku": sku,
        "quantity": sum(line.quantity for line in same),
        **({"description": told} if told else {}),
        "kind": kind,
        "unit_minor": price,
    }


def _buyer(customer: str) -> dict[str, str]:
    """Who bought. A guest has no address to write to; history must never reach a real mailbox."""
    if not customer:
        return {}
    plain = customer
    if not PLAIN.fullmatch(customer):
        plain = blake2b(customer.encode(), digest_size=8).hexdigest()
    return {"id": customer, "email": f"customer-{plain}@example.invalid"}


def _address(line: Sold) -> dict[str, str]:
    """Exports name a country alone; the rest says so, because a label needs something to print."""
    unknown = "not in the export"
    name = f"Customer {line.customer}" if line.customer else "Guest"
    return {
        "name": name,
        "street": unknown,
        "city": unknown,
        "postcode": "-",
        "country": line.country or "Unspecified",
    }


def _moment(at: int) -> str:
    text = msgspec.to_builtins(datetime.fromtimestamp(at / 1000, ZoneInfo("UTC")))
    return str(text)


# ---- stock


def _pieces(lines: Iterable[Sold]) -> dict[str, int]:
    pieces: dict[str, int] = {}
    for line in lines:
        if line.kind == "item":
            pieces[line.sku] = pieces.get(line.sku, 0) + line.quantity
    return dict(sorted(pieces.items()))


def stock(plan: Plan) -> tuple[Request, ...]:
    """The calls that load what the orders of a file need: 426,730 pieces, say."""
    return stock_of(plan.pieces, plan.source)


def stock_of(pieces: Mapping[str, int], source: str) -> tuple[Request, ...]:
    """The calls that load so many pieces per SKU.

    The name of the load is made of what is in it, so the same file loads once, however often it
    is imported, and another file of the same source loads what it needs.
    """
    said = "\n".join(f"{sku}\t{quantity}" for sku, quantity in sorted(pieces.items()))
    name = f"import:{source}:{blake2b(said.encode(), digest_size=8).hexdigest()}"
    entries = [
        {"sku": sku, "kind": "receive", "quantity": min(quantity, STOCK_QUANTITY_MAX)}
        for sku, quantity in sorted(pieces.items())
        if quantity > 0
    ]
    parts = [entries[i : i + STOCK_ENTRIES] for i in range(0, len(entries), STOCK_ENTRIES)]
    return tuple(
        Request(
            name=name,
            path=STOCK,
            key=f"{name}:{number}",
            body=msgspec.json.encode({"file": name, "entries": part}),
        )
        for number, part in enumerate(parts)
    )


def loaded(request: Request) -> tuple[str, ...]:
    """The SKUs that one call of ``stock`` loads."""
    body = msgspec.json.decode(request.body, type=dict[str, Any])
    return tuple(entry["sku"] for entry in body["entries"])


def loaded_before(reply: bytes) -> bool:
    """Whether the door's reply to such a call says that all of it was known."""
    said = msgspec.json.decode(reply, type=dict[str, Any])
    return not said.get("accepted")


def stock_page(after: str) -> str:
    """Where a page of the stock is read, behind the SKU of that name."""
    return f"{STOCK}?limit={STOCK_ENTRIES}" + (f"&after={quote(after, safe='')}" if after else "")


def on_hand(content: bytes) -> tuple[dict[str, int], str]:
    """Pieces on hand per SKU of such a page, and where the next one is; empty after the last."""
    page = msgspec.json.decode(content, type=dict[str, Any])
    found = {str(row["sku"]): int(row["on_hand"]) for row in page["stock"]}
    return found, stock_page(page["next"]) if page.get("next") else ""


# ---- what became of the rows


def outcomes(plan: Plan, placed: Mapping[str, str]) -> dict[str, int]:
    """Rows per outcome; ``placed`` says per invoice ``placed``, ``already_placed``, ``not_sent``
    or the reason why it is set aside. They add up to the rows of the file."""
    counts = {"placed": 0, "merged": 0, "set_aside": len(plan.set_aside), "already_placed": 0}
    for request in plan.requests:
        outcome = placed.get(request.name, "not_sent")
        size = len(request.rows) + len(request.merged)
        if outcome == "placed":
            counts["placed"] += len(request.rows)
            counts["merged"] += len(request.merged)
        elif outcome in ("already_placed", "not_sent"):
            counts[outcome] = counts.get(outcome, 0) + size
        else:
            counts["set_aside"] += size
    assert sum(counts.values()) == len(plan.rows), "a row has no outcome"
    return counts
