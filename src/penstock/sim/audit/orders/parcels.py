"""I13 and I14: nothing leaves before it is paid and reserved, and as many pieces as were ordered.

What came before what is read off ids and marks, never off a clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from penstock.sim.audit.books import Books, Call, Deed, Notes
from penstock.sim.audit.orders.stories import Entry, Orders, Story, index_of, number, rows, text

CARRIER = "carrier"
_OBJECT = msgspec.json.Decoder(dict[str, Any]).decode
Pieces = dict[tuple[int, str], int]  # by line and SKU


# ---- I13


def paid_and_reserved_first(books: Books, notes: Notes) -> None:
    """Reserved, then captured, then asked for, then dispatched: by cause and order of handling."""
    index = index_of(books)
    for story in index.stories.values():
        if not index.whole(story):
            continue
        for captured in story.of("payments", "payment.captured"):
            if captured.body.get("kept", True):
                notes.saw()
                _reserved_first(index, story, captured, notes)
        for wanted in story.of("fulfillment", "fulfillment.requested"):
            notes.saw()
            _paid_first(index, story, wanted, notes)
        for sent in story.of("shipments", "shipment.dispatched"):
            notes.saw()
            _wanted_first(index, story, sent, notes)


def _came_first(index: Orders, service: str, first: Entry, then: bytes) -> bool:
    """Did the service handle this fact before, or as, the event it decided then?

    Marks go with the records they are of, so of a record that is gone nothing is known.
    """
    decided, seen = index.handled(service, then), index.handled(service, first.fact.id)
    if decided is None or (seen is None and index.is_gone(first.fact)):
        return True
    return seen is not None and seen <= decided


def _reserved_first(index: Orders, story: Story, captured: Entry, notes: Notes) -> None:
    reserved = story.of("inventory", "inventory.reserved")
    if not reserved:
        if not index.young(captured):
            notes.wrong(story.id, "its money was kept and nothing is reserved", captured.fact)
    elif not _came_first(index, "payment", reserved[0], captured.fact.cause):
        notes.wrong(story.id, "its money was kept before it was reserved", captured.fact,
                    reserved[0].fact)  # fmt: skip


def _paid_first(index: Orders, story: Story, wanted: Entry, notes: Notes) -> None:
    paid = [
        e for e in story.of("payments", "payment.captured")
        if e.body.get("group") == wanted.body.get("group") and e.body.get("kept", True)
    ]
    if any(e.fact.cause == wanted.fact.cause for e in paid):
        return
    if not index.young(wanted):
        notes.wrong(story.id, "fulfillment was asked for by no capture", wanted.fact)


def _wanted_first(index: Orders, story: Story, sent: Entry, notes: Notes) -> None:
    wanted = story.of("fulfillment", "fulfillment.requested")
    if not wanted:
        if not index.young(sent):
            notes.wrong(story.id, "it was dispatched and nobody asked for it", sent.fact)
    elif not any(_came_first(index, "shipping", e, sent.fact.cause) for e in wanted):
        notes.wrong(story.id, "it was dispatched before it was asked for", sent.fact,
                    wanted[0].fact)  # fmt: skip


# ---- I14


def quantities_add_up(books: Books, notes: Notes) -> None:
    """Per line over all parcels: shipped within reserved within ordered; one label a parcel."""
    index = index_of(books)
    for story in index.stories.values():
        if not index.whole(story):
            continue
        _lines(index, story, notes)
        if CARRIER in books.ledgers:
            _labels(index, story, notes)


def _pieces(entries: Iterable[Entry]) -> Pieces:
    found: Pieces = {}
    for entry in entries:
        for piece in rows(entry.body.get("pieces")):
            place = number(piece.get("line")), text(piece.get("sku"))
            found[place] = found.get(place, 0) + number(piece.get("quantity"))
    return found


def _lines(index: Orders, story: Story, notes: Notes) -> None:
    placed = story.placed
    assert placed is not None, "a whole story has its order.placed"
    notes.saw(len(placed.goods))
    ordered = {(line, sku): quantity for line, (sku, quantity) in placed.goods.items()}
    reserved = _pieces(story.of("inventory", "inventory.reserved"))
    wanted = _pieces(story.of("fulfillment", "fulfillment.requested"))
    sent = story.of("shipments", "shipment.dispatched")
    shipped = _pieces(e for e in sent if not index.young(e))  # the request may lie beyond
    _within(story, "reserved", reserved, "ordered", ordered, notes)
    _within(story, "shipped", shipped, "asked for", wanted, notes)
    if reserved:
        _within(story, "asked for", wanted, "reserved", reserved, notes)
    if story.end == "completed" and shipped != ordered and index.settled(story):
        notes.wrong(story.id, "it is completed and not all of it was shipped",
                    *(e.fact for e in sent))  # fmt: skip


def _within(
    story: Story, what: str, some: Pieces, of: str, all_: Pieces, notes: Notes
) -> None:
    for place, quantity in some.items():
        if quantity > all_.get(place, 0):
            line, sku = place
            detail = f"line {line}: {quantity} of {sku} {what}, {all_.get(place, 0)} {of}"
            facts = [e.fact for e in (*story.of("orders")[:1], *story.of("shipments"))]
            notes.wrong(story.id, detail, *facts)


def _deed(deed: Deed) -> str:
    return f"{CARRIER} effect {deed.seq}"


def _labels(index: Orders, story: Story, notes: Notes) -> None:
    labels = story.done(CARRIER, "label")
    notes.saw(len(labels))
    _one_label_each(index, story, labels, notes)
    _labels_are_told(index, story, labels, notes)
    for call in story.calls.get(CARRIER, ()):
        _asked_as_it_should(story, call, notes)
    if story.end and index.settled(story):
        _live_labels(story, labels, notes)


def _one_label_each(
    index: Orders, story: Story, labels: Sequence[Deed], notes: Notes
) -> None:
    for part, count in Counter(d.part for d in labels).items():
        if count > 1:
            same = [_deed(d) for d in labels if d.part == part]
            notes.wrong(story.id, f"{count} labels for the parcel {part}", *same)
    wanted = story.of("fulfillment", "fulfillment.requested")
    late = [d for d in labels if not index.books.young(d.at)]
    if late and not wanted:
        notes.wrong(story.id, "a label, and nobody asked for a parcel", *map(_deed, late))


def _labels_are_told(
    index: Orders, story: Story, labels: Sequence[Deed], notes: Notes
) -> None:
    known = {d.part: d for d in labels}
    for told in story.of("shipments", "shipment.labelled"):
        deed = known.get(str(told.body.get("shipment")))
        if (deed is None or deed.id != told.body.get("label")) and not index.young(told):
            notes.wrong(story.id, "a label was told that the carrier never made", told.fact)


def _asked_as_it_should(story: Story, call: Call, notes: Notes) -> None:
    if call.outcome == "malformed":
        return
    word = {"label": "label", "void_label": "void-label"}.get(call.operation, call.operation)
    place = f"{CARRIER} call {call.seq}"
    if call.key != f"{word}:{call.part}":
        detail = f"{call.operation} of {call.part} was asked under the key {call.key}"
        notes.wrong(story.id, detail, place)
    if call.outcome == "mismatched":
        notes.wrong(story.id, f"the key {call.key} stands for two calls", place)
    if call.operation == "label":
        asked: Counter[str] = Counter()
        for line in rows(_request(call).get("lines")):
            asked[text(line.get("sku"))] += number(line.get("quantity"))
        wanted: Counter[str] = Counter()
        for (_, sku), quantity in _pieces(
            story.of("fulfillment", "fulfillment.requested")
        ).items():
            wanted[sku] += quantity
        if wanted and asked != wanted:
            notes.wrong(story.id, f"the label of {call.part} says other pieces", place)


def _request(call: Call) -> dict[str, Any]:
    try:
        return _OBJECT(call.request)
    except msgspec.MsgspecError:
        return {}


def _live_labels(story: Story, labels: Sequence[Deed], notes: Notes) -> None:
    """Who is dispatched has a label that was not taken back; who ended otherwise has none."""
    voided = {d.part for d in story.done(CARRIER, "void_label")}
    live = {d.part for d in labels} - voided
    sent = {str(e.body.get("shipment")) for e in story.of("shipments", "shipment.dispatched")}
    stray = bool(story.of("shipments", "shipment.exception"))
    if live != sent and not stray:
        detail = f"{story.end} with labels for {sorted(live)}, dispatched were {sorted(sent)}"
        notes.wrong(story.id, detail, *map(_deed, labels))
