"""I10 to I12: nothing is promised twice, no piece gets lost, every reservation ends once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from penstock.sim.audit.books import Books, Notes
from penstock.sim.audit.orders.stories import (
    Entry,
    Orders,
    Shelf,
    Story,
    index_of,
    number,
    rows,
    text,
)

DEADLINE_MS = 86_400_000  # in which an order is reserved and paid, or given up
GRACE_MS = 3_600_000
_OF_SHELVES = frozenset({"receive", "count", "ship"})  # change what is on hand
_OF_PROMISES = frozenset({"reserve", "release"})  # change what is reserved
_FOR_ORDERS = frozenset({"reserve", "release", "ship"})
_KINDS = {"inventory.reserved": ("reserve", 1), "inventory.released": ("release", -1),
          "inventory.consumed": ("ship", -1)}  # fmt: skip


def _level(entry: Entry, name: str) -> int:
    return number(entry.body.get(name))


# ---- I10


def nothing_is_oversold(books: Books, notes: Notes) -> None:
    """No SKU is ever below nothing, nor promised beyond what is there unless a count says so."""
    index = index_of(books)
    for shelf in index.shelves.values():
        short = 0  # what a count has taken from under the reservations
        if shelf.moves and index.horizon("stock"):  # that count may be gone
            first = shelf.moves[0]
            short = max(0, _level(first, "reserved") - _level(first, "on_hand"))
        for entry in shelf.moves:
            notes.examined += 1
            on_hand, reserved = _level(entry, "on_hand"), _level(entry, "reserved")
            kind, missing = text(entry.body.get("kind")), max(0, reserved - on_hand)
            if on_hand < 0 or reserved < 0:
                notes.wrong(shelf.sku, f"{on_hand} on hand, {reserved} reserved", entry.fact)
            elif missing and kind != "count" and (missing > short or kind == "reserve"):
                detail = f"{reserved} are promised and {on_hand} are there, after {kind}"
                notes.wrong(shelf.sku, detail, entry.fact)
            short = missing


# ---- I11


def stock_is_conserved(books: Books, notes: Notes) -> None:
    """Every movement follows from the one before and has its reason; the documents agree."""
    index = index_of(books)
    reasons = _Reasons(index)
    kept = _Kept(index)
    for shelf in index.shelves.values():
        notes.saw()
        _adds_up(index, shelf, reasons, notes)
        _supplied(index, shelf, notes)
        _document_agrees(index, shelf, kept, notes)
    reasons.judge(notes)


def _pieces(entry: Entry) -> Counter[str]:
    """The pieces of a fact, by SKU."""
    found: Counter[str] = Counter()
    for piece in rows(entry.body.get("pieces")):
        found[text(piece.get("sku"))] += number(piece.get("quantity"))
    return found


class _Reasons:
    """What reservations say moved, against what moved: by the event both came from."""

    def __init__(self, index: Orders) -> None:
        self.index = index
        self.due: dict[tuple[bytes, str, str], int] = {}
        self.facts: dict[tuple[bytes, str, str], Entry] = {}
        self.moved: Counter[tuple[bytes, str, str]] = Counter()
        for story in index.stories.values():
            for entry in story.of("inventory"):
                if entry.type in _KINDS:
                    self._expect(entry, *_KINDS[entry.type])

    def _expect(self, entry: Entry, kind: str, sign: int) -> None:
        for sku, quantity in _pieces(entry).items():
            place = (entry.fact.cause, sku, kind)
            self.due[place] = sign * quantity
            self.facts[place] = entry

    def judge(self, notes: Notes) -> None:
        """Every piece of every reservation moved, once."""
        notes.saw(len(self.due))
        for place, due in self.due.items():
            entry, (_, sku, kind) = self.facts[place], place
            moved = self.moved[place]
            fewer = kind == "ship" and due < moved <= 0 and _was_lowered(self.index, sku)
            if moved == due or fewer or self._is_young(entry):
                continue
            notes.wrong(sku, f"{entry.type} says {due}, {moved} were moved", entry.fact)

    def _is_young(self, entry: Entry) -> bool:
        early = self.index.horizon("stock")
        return self.index.young(entry) or entry.fact.appended_at < early


def _was_lowered(index: Orders, sku: str) -> bool:
    """Did a count find fewer pieces than there should be? Then less may leave than was kept."""
    shelf = index.shelves.get(sku)
    return shelf is not None and any(
        e.body.get("kind") == "count" and _level(e, "quantity") < 0 for e in shelf.moves
    )


def _adds_up(index: Orders, shelf: Shelf, reasons: _Reasons, notes: Notes) -> None:
    """One after the other, each movement changes what it says and nothing else."""
    before = None if index.horizon("stock") else (0, 0)
    gone: set[bytes] = set()
    lowered = _was_lowered(index, shelf.sku)
    for entry in shelf.moves:
        notes.examined += 1
        body, cause = entry.body, entry.fact.cause
        kind, quantity = text(body.get("kind")), number(body.get("quantity"))
        place = (cause, shelf.sku, kind)
        if kind in _FOR_ORDERS:
            reasons.moved[place] += quantity
            if place not in reasons.due and not index.young(entry) and _all_kept(index, entry):
                notes.wrong(shelf.sku, f"{kind} of {quantity} for no reservation", entry.fact)
        after = number(body.get("on_hand")), number(body.get("reserved"))
        untold = kind == "ship" and place not in reasons.due and index.young(entry)
        if before is not None and not untold:
            on_hand = before[0] + (quantity if kind in _OF_SHELVES else 0)
            freed = reasons.due.get(place, 0) if kind == "ship" and cause not in gone else 0
            reserved = before[1] + freed + (quantity if kind in _OF_PROMISES else 0)
            if after[0] != on_hand or (after[1] != reserved and not lowered):
                detail = f"{kind} of {quantity} led from {before} to {after}, on hand and reserved"
                notes.wrong(shelf.sku, detail, entry.fact)
        gone.add(cause)
        before = after


def _all_kept(index: Orders, entry: Entry) -> bool:
    return entry.fact.appended_at >= index.horizon("inventory")


def _supplied(index: Orders, shelf: Shelf, notes: Notes) -> None:
    """Every load came in once; a count may find that a younger one is known."""
    moves: dict[bytes, list[Entry]] = {}
    for entry in shelf.moves:
        if entry.body.get("kind") in ("receive", "count"):
            moves.setdefault(entry.fact.cause, []).append(entry)
    for supply in shelf.supplies:
        notes.examined += 1
        found = moves.pop(supply.fact.id, [])
        if len(found) > 1:
            notes.wrong(shelf.sku, f"one load moved it {len(found)} times",
                        *(e.fact for e in found))  # fmt: skip
        elif found and supply.type == "stock.received":
            if _said(found[0]) != _said(supply):
                notes.wrong(shelf.sku, "another load came in than was sent", supply.fact,
                            found[0].fact)  # fmt: skip
        elif not found and supply.type == "stock.received" and _must_have_moved(index, supply):
            notes.wrong(shelf.sku, "a load never came in", supply.fact)
    if not index.horizon("arrivals"):
        for left in moves.values():
            if not index.young(left[0]):
                notes.wrong(shelf.sku, f"{left[0].body.get('kind')} of nothing that was sent",
                            *(e.fact for e in left))  # fmt: skip


def _said(entry: Entry) -> tuple[Any, Any]:
    return entry.body.get("quantity"), entry.body.get("location")


def _must_have_moved(index: Orders, supply: Entry) -> bool:
    if index.given_up("inventory", supply.fact) or index.horizon("stock"):
        return False
    return index.books.until is None or (
        index.handled("inventory", supply.fact.id) is not None and not index.young(supply)
    )


class _Kept:
    """Pieces of open reservations by SKU, now or after some transaction: of a house in use the
    log tells more than the documents, which were read before it."""

    def __init__(self, index: Orders) -> None:
        self.is_whole = not index.horizon("inventory")  # else reservations are gone from the log
        self._changes: dict[str, list[tuple[int, int]]] = {}  # SKU -> transaction, pieces
        for story in index.stories.values():
            before: Counter[str] = Counter()
            for entry in story.of("inventory"):
                after = _pieces(entry) if entry.type == "inventory.reserved" else Counter()
                for sku in before.keys() | after.keys():
                    change = _made(entry), after[sku] - before[sku]
                    self._changes.setdefault(sku, []).append(change)
                before = after
        store = index.books.stores.get("inventory")
        open_ = (a.txn for a in store.asks if a.is_topic and a.settled_at is None) if store else ()
        self.carried = min(open_, default=None)  # what was decided from here on may not be told yet

    def at(self, sku: str, txn: int | None) -> int:
        """The pieces kept after a transaction; None: by all that is known."""
        changes = self._changes.get(sku, ())
        return sum(pieces for made, pieces in changes if txn is None or made <= txn)


def _made(entry: Entry) -> int:
    """The transaction of a fact, 0 where that is not known."""
    return (entry.fact.made or (0, 0))[0]


def _open(story: Story) -> Entry | None:
    """The reservation of an order that still keeps pieces."""
    opened = None
    for entry in story.of("inventory"):
        keeps = entry.type == "inventory.reserved" and entry.body.get("pieces")
        opened = entry if keeps else None
    return opened


class _Level(msgspec.Struct, frozen=True):
    on_hand: int = 0


class _Stock(msgspec.Struct, frozen=True):
    reserved: int = 0
    shelves: tuple[_Level, ...] = ()


_STOCK = msgspec.json.Decoder(_Stock).decode


def _document_agrees(index: Orders, shelf: Shelf, kept: _Kept, notes: Notes) -> None:
    document = index.documents("inventory", "stock").get(shelf.sku)
    if document is None or not shelf.moves:
        return
    stock, last = _STOCK(document.body or b"{}"), shelf.moves[-1]
    said = sum(level.on_hand for level in stock.shelves), stock.reserved
    told = _level(last, "on_hand"), _level(last, "reserved")
    if _was_lowered(index, shelf.sku):
        told = told[0], said[1]
    is_live = index.books.until is not None
    if is_live and (index.young(last) or document.txn != _made(last)):
        return
    if is_live and kept.carried is not None and kept.carried <= document.txn:
        return
    open_ = kept.at(shelf.sku, document.txn if is_live else None) if kept.is_whole else said[1]
    if said != told or said[1] != open_:
        detail = f"the document says {said}, the movements {told}, {open_} are reserved"
        notes.wrong(shelf.sku, detail, last.fact)


# ---- I12


def reservations_end_once(books: Books, notes: Notes) -> None:
    """Consumed or released exactly once, by a verdict and by no clock; none stays for nobody."""
    index = index_of(books)
    now = books.until or max((s.last for s in index.stories.values()), default=0)
    _no_clock(index, notes)
    for story in index.stories.values():
        entries: Sequence[Entry] = story.of("inventory")
        reserved = story.of("inventory", "inventory.reserved")
        notes.saw(len(entries))
        ends = [e for e in entries if e.type in ("inventory.released", "inventory.consumed")]
        if len(ends) > max(1, len(reserved)) or len(reserved) > 1:
            notes.wrong(story.id, "reserved or ended more than once", *(e.fact for e in entries))
        _verdicts(index, story, entries, notes)
        opened = _open(story)
        if opened is None:
            continue
        if story.end and index.settled(story):
            notes.wrong(story.id, f"it is {story.end}, its pieces are still kept", opened.fact)
        elif now - opened.fact.appended_at > _patience(story) and _unpaid(index, story):
            notes.wrong(story.id, "its pieces are kept past its deadline", opened.fact)


def _patience(story: Story) -> int:
    root = story.root
    seconds = root.body.get("deadline_seconds") if root else None
    return (DEADLINE_MS if seconds is None else 1000 * number(seconds)) + GRACE_MS


def _unpaid(index: Orders, story: Story) -> bool:
    """Not paid for, nothing under way, and no person's turn."""
    return index.settled(story) and not story.of("payments", "payment.captured")


_VERDICTS = {
    "inventory.reserved": ("order.placed",), "inventory.rejected": ("order.placed",),
    "inventory.released": ("payment.closed", "fulfillment.cancelled"),
    "inventory.consumed": ("shipment.dispatched",),
}


def _verdicts(index: Orders, story: Story, entries: Sequence[Entry], notes: Notes) -> None:
    for entry in entries:
        cause = index.ids.get(entry.fact.cause)
        if cause is not None and cause.type not in _VERDICTS.get(entry.type, (cause.type,)):
            detail = f"{entry.type} because of {cause.type}"
            notes.wrong(story.id, detail, cause.fact, entry.fact)
        elif cause is not None and cause.fact.key != story.id:
            notes.wrong(story.id, f"{entry.type} because of another order", cause.fact, entry.fact)


def _no_clock(index: Orders, notes: Notes) -> None:
    store = index.books.stores.get("inventory")
    for ask in store.asks if store else ():
        if ask.destination == "clock":
            notes.wrong(ask.key, "inventory has asked for a wake: only payment has deadlines",
                        f"inventory outbox {ask.id}")  # fmt: skip
