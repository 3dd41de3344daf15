"""I1 to I3: what the client was told against what the log holds.

An order's id is ``ord_`` and 24 letters of base32hex, lower case: six bytes of the time it was
accepted at and nine bytes BLAKE2b of the client, 0x1F and the Idempotency-Key. So the request
behind an order is found by its id alone.
"""

from __future__ import annotations

from base64 import b32hexdecode
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any

from penstock.sim.audit.books import Asked, Books, Notes
from penstock.sim.audit.orders.stories import Entry, Orders, Placed, Story, index_of, rows, text

PLACE = "/orders"
STOCK = "/stock"
_CANCEL_END = "/cancel"
_PASSING = frozenset({408, 425, 429})  # a 4xx that says: later


def digest_of(client: str, key: str) -> bytes:
    """What the id of an order placed under this key ends with."""
    return blake2b(f"{client}\x1f{key}".encode(), digest_size=9).digest()


def parts_of(order: str) -> tuple[int, bytes] | None:
    """When an order was accepted (ms) and the digest of its request; None: no such id."""
    if not order.startswith("ord_") or len(order) != 28:
        return None
    try:
        raw = b32hexdecode(order[4:].upper())
    except ValueError:
        return None
    return int.from_bytes(raw[:6], "big"), raw[6:]


def _said(reply: Any) -> Mapping[str, Any]:
    return reply if isinstance(reply, dict) else {}


def _asked(books: Books, path: str) -> Iterator[Asked]:
    return (a for a in books.journal or () if a.method == "POST" and a.path == path)


# ---- I1


def nothing_is_lost(books: Books, notes: Notes) -> None:
    """Every acknowledged order has one order.placed; every other acknowledged wish is there."""
    index = index_of(books)
    for asked in books.journal or ():
        if asked.state != "acked" or asked.method != "POST":
            continue
        if asked.path == PLACE:
            notes.saw()
            _acked_order(index, asked, notes)
        elif asked.path == STOCK:
            _acked_stock(index, asked, notes)
        elif asked.path.startswith(PLACE) and asked.path.endswith(_CANCEL_END):
            _acked_wish(index, asked, notes)


def _acked_order(index: Orders, asked: Asked, notes: Notes) -> None:
    orders = {text(_said(reply).get("order_id")) for reply in asked.replies}
    for order in orders or _of_key(index, asked):
        story = index.stories.get(order)
        placed = story.of("orders", "order.placed") if story else ()
        if len(placed) > 1:
            notes.wrong(order, f"placed {len(placed)} times", *(e.fact for e in placed))
        elif not placed and not _out_of_sight(index, asked, order):
            detail = f"key {asked.key} of {asked.client} was acknowledged, no order.placed is there"
            notes.wrong(order or asked.key, detail)


def _of_key(index: Orders, asked: Asked) -> set[str]:
    """The orders of a request whose reply was acknowledged and not kept."""
    digest = digest_of(asked.client, asked.key)
    found = {id_ for id_ in index.stories if (parts := parts_of(id_)) and parts[1] == digest}
    return found or {""}


def _out_of_sight(index: Orders, asked: Asked, order: str) -> bool:
    """Accepted too late to be in what was read, or so early that retention took it since."""
    parts = parts_of(order)
    at = parts[0] if parts else asked.sent_at
    if at < index.horizon("orders", "arrivals"):
        return True
    live = index.books.until is not None
    return index.books.young(max(at, asked.sent_at)) or (live and order in index.open_asks)


def _acked_wish(index: Orders, asked: Asked, notes: Notes) -> None:
    notes.saw()
    order = asked.path.removeprefix(f"{PLACE}/").removesuffix(_CANCEL_END)
    story = index.stories.get(order)
    if story and story.of("orders", "order.cancel_requested"):
        return
    if not _out_of_sight(index, asked, order):
        detail = f"the cancellation under key {asked.key} was acknowledged and is nowhere"
        notes.wrong(order, detail)


def _acked_stock(index: Orders, asked: Asked, notes: Notes) -> None:
    if not asked.bodies or asked.sent_at < index.horizon("arrivals"):
        return
    body = _said(asked.bodies[0])
    for entry in rows(body.get("entries")):
        notes.saw()
        sku, location = text(entry.get("sku")), entry.get("location", "main")
        shelf = index.shelves.get(sku)
        found = [
            e for e in (shelf.supplies if shelf else ())
            if e.body.get("file") == body.get("file") and e.body.get("location") == location
        ]
        if len(found) > 1:
            detail = f"file {body.get('file')} counts {len(found)} times for {sku}"
            notes.wrong(sku, detail, *(e.fact for e in found))
        elif found and found[0].body.get("quantity") != entry.get("quantity"):
            notes.wrong(sku, f"file {body.get('file')} said {entry.get('quantity')}", found[0].fact)
        elif not found and not _out_of_sight(index, asked, sku):
            notes.wrong(sku, f"stock of file {body.get('file')} was acknowledged and is nowhere")


# ---- I2


def nothing_is_invented(books: Books, notes: Notes) -> None:
    """Every order.placed of a client that kept a journal maps to a request that was sent."""
    index = index_of(books)
    sent = {digest_of(a.client, a.key): a for a in _asked(books, PLACE)}
    clients = {a.client for a in books.journal or ()}
    for story in index.stories.values():
        root, placed = story.root, story.placed
        if root is None or placed is None or (placed.client and placed.client not in clients):
            continue
        notes.saw()
        parts = parts_of(story.id)
        asked = sent.get(parts[1]) if parts else None
        if asked is None:
            notes.wrong(story.id, "nobody sent a request for this order", root.fact)
        elif _was_refused(asked):
            detail = f"its key {asked.key} was answered {asked.status}, and it was placed"
            notes.wrong(story.id, detail, root.fact)


def _was_refused(asked: Asked) -> bool:
    """Answered 4xx, and not for another body than the one that came first."""
    return asked.state == "failed" and len(asked.bodies) < 2 and asked.status not in _PASSING


# ---- I3


def one_order_per_key(books: Books, notes: Notes) -> None:
    """One order per client and key, as its request said; one reply for all tries of a key."""
    index = index_of(books)
    orders: dict[bytes, list[Story]] = {}
    for story in index.stories.values():
        placed = story.of("orders", "order.placed")
        if not placed:
            continue
        notes.saw()
        if len(placed) > 1:
            notes.wrong(story.id, "placed more than once", *(e.fact for e in placed))
        parts = parts_of(story.id)
        if parts:
            orders.setdefault(parts[1], []).append(story)
    for same in orders.values():
        if len(same) > 1:
            roots = [story.root.fact for story in same if story.root]
            notes.wrong(same[0].id, f"{len(same)} orders stand for one key", *roots)
    for asked in _asked(books, PLACE):
        _as_asked(asked, orders.get(digest_of(asked.client, asked.key), []), notes)


def _as_asked(asked: Asked, orders: list[Story], notes: Notes) -> None:
    if len(asked.replies) > 1:
        detail = f"key {asked.key} was answered in {len(asked.replies)} ways"
        notes.wrong(text(_said(asked.replies[0]).get("order_id", asked.key)), detail)
    for story in orders[:1]:
        root, placed = story.root, story.placed
        if root is None or placed is None or root.fact.version == 1:
            continue
        notes.saw()
        if not any(_matches(_said(body), root, placed) for body in asked.bodies):
            notes.wrong(story.id, f"says something else than key {asked.key} asked", root.fact)
        reply = _said(asked.replies[0]) if asked.replies else {}
        told = reply.get("total_minor"), reply.get("currency"), reply.get("order_id")
        if reply and told != (placed.total, placed.currency, story.id):
            notes.wrong(story.id, f"the reply said {told}", root.fact)


def _matches(body: Mapping[str, Any], root: Entry, placed: Placed) -> bool:
    wanted = [
        (line.get("sku"), line.get("quantity"), line.get("kind", "item"))
        for line in rows(body.get("lines"))
    ]
    got = [
        (line.get("sku"), line.get("quantity"), line.get("kind", "item")) for line in placed.lines
    ]
    prices = zip(rows(body.get("lines")), placed.lines, strict=False)
    return (
        wanted == got
        and body.get("currency") == placed.currency
        and all(w.get("unit_minor") in (None, g.get("unit_minor")) for w, g in prices)
        and body.get("expected_total") in (None, placed.total)
        and body.get("order_ref", "") == root.body.get("order_ref", "")
        and text(_said(body.get("customer")).get("email", "")) == placed.email
    )
