"""The inventory service: what is there, and for whom it is kept.

Two kinds of documents: ``stock`` per SKU and ``reservation`` per order. An order of many SKUs
names its stock through ``needs``; a load or a count is keyed by SKU, has no reservation, and
names its one stock document the same way. A reservation has no clock: it ends by a verdict of
payment or shipping only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from penstock.decision import (
    IGNORE,
    Context,
    Decision,
    Done,
    Emit,
    Park,
    Ref,
    Service,
    State,
    States,
)
from penstock.event import Event
from penstock.flows.orders.events import (
    InventoryConsumed,
    InventoryRejected,
    InventoryReleased,
    InventoryReserved,
    OrderPlaced,
    Piece,
    Shortage,
    StockCounted,
    StockMoved,
    StockReceived,
)
from penstock.flows.orders.lifecycle import NEW, OUT_OF_STOCK

KIND = "reservation"
STOCK = "stock"
RECENT_MAX = 50  # movements kept per location, to be applied again after a late count


class Movement(NamedTuple):
    """A change of what lies on a shelf: when (ms) and by how much."""

    at: int
    change: int


class Shelf(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """One SKU at one location. ``known_since`` is the age of the oldest movement still held."""

    location: str
    on_hand: int = 0
    recent: tuple[Movement, ...] = ()
    known_since: int = 0
    counted_at: int = 0


class Stock(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """One SKU: what lies on its shelves, and how much of that is kept for orders."""

    reserved: int = 0
    shelves: tuple[Shelf, ...] = ()

    @property
    def on_hand(self) -> int:
        """Pieces in the house, the reserved ones included."""
        return sum(shelf.on_hand for shelf in self.shelves)

    @property
    def available(self) -> int:
        """Pieces that may still be promised; none where a count found less than was reserved."""
        return max(0, self.on_hand - self.reserved)


class Reservation(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """What is kept for one order."""

    state: str = NEW
    pieces: tuple[Piece, ...] = ()


Moved = tuple[Stock, tuple[StockMoved, ...]]

# ---- which documents


def _skus(pieces: tuple[Piece, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(piece.sku for piece in pieces))


def _pieces_of(placed: OrderPlaced) -> tuple[Piece, ...]:
    return tuple(
        Piece(line=line.line, sku=line.sku, quantity=line.quantity)
        for line in placed.lines
        if line.kind != "carriage"
    )


def needs(event: Event, own: State | None) -> tuple[Ref, ...]:
    """The stock this event may move."""
    if event.type in _BY_SKU:
        return (Ref(STOCK, event.key),)
    if event.type == "order.placed":
        pieces = () if own else _pieces_of(event.data)
    else:
        pieces = own.pieces if own and own.state == "reserved" else ()
    return tuple(Ref(STOCK, sku) for sku in _skus(pieces))


# ---- shelves


def _shelf(stock: Stock, location: str) -> Shelf:
    for shelf in stock.shelves:
        if shelf.location == location:
            return shelf
    return Shelf(location=location)


def _with_shelf(stock: Stock, shelf: Shelf) -> Stock:
    others = [other for other in stock.shelves if other.location != shelf.location]
    ordered = sorted([*others, shelf], key=lambda one: one.location)
    return replace(stock, shelves=tuple(ordered))


def _moved_shelf(shelf: Shelf, movement: Movement) -> Shelf:
    recent = (*shelf.recent, movement)
    dropped = recent[:-RECENT_MAX]
    return replace(
        shelf, on_hand=shelf.on_hand + movement.change, recent=recent[-RECENT_MAX:],
        known_since=dropped[-1].at if dropped else shelf.known_since,
    )


def _movement(kind: str, change: int, stock: Stock, order: str, location: str) -> StockMoved:
    return StockMoved(
        kind=kind, quantity=change, on_hand=stock.on_hand, reserved=stock.reserved, order=order,
        location=location,
    )


def _receive(stock: Stock, event: Event, now: int) -> Moved:
    got: StockReceived = event.data
    shelf = _moved_shelf(_shelf(stock, got.location), Movement(now, got.quantity))
    after = _with_shelf(stock, shelf)
    return after, (_movement("receive", got.quantity, after, "", got.location),)


def _count(stock: Stock, event: Event, now: int) -> Moved | Park:
    """Absolute as of its time: what moved later is applied again, never below nothing."""
    counted: StockCounted = event.data
    shelf = _shelf(stock, counted.location)
    if counted.as_of < shelf.counted_at:
        return stock, ()  # a younger count is known already
    if counted.as_of < shelf.known_since:
        return Park("count_too_old", f"movements since {counted.as_of} are no longer all held")
    later = tuple(move for move in shelf.recent if move.at > counted.as_of)
    on_hand = max(0, counted.quantity + sum(move.change for move in later))
    after = _with_shelf(
        stock, replace(shelf, on_hand=on_hand, recent=later, counted_at=counted.as_of)
    )
    change = on_hand - shelf.on_hand
    return after, (_movement("count", change, after, "", counted.location),)


def _ship(stock: Stock, quantity: int, order: str, now: int) -> Moved:
    """Taken from the shelves in turn; a reservation that leaves is no longer reserved."""
    stock, moves = replace(stock, reserved=max(0, stock.reserved - quantity)), []
    for shelf in stock.shelves:
        taken = min(quantity, shelf.on_hand)
        if taken:
            quantity -= taken
            stock = _with_shelf(stock, _moved_shelf(shelf, Movement(now, -taken)))
            moves.append(_movement("ship", -taken, stock, order, shelf.location))
    return stock, tuple(moves)


def _reserve(stock: Stock, quantity: int, order: str, now: int) -> Moved:
    after = replace(stock, reserved=stock.reserved + quantity)
    return after, (_movement("reserve", quantity, after, order, ""),)


def _release(stock: Stock, quantity: int, order: str, now: int) -> Moved:
    after = replace(stock, reserved=max(0, stock.reserved - quantity))
    return after, (_movement("release", -quantity, after, order, ""),)


# ---- decisions


def _stock(states: States, sku: str) -> Stock:
    return states.get(Ref(STOCK, sku)) or Stock()


def _moves(sku: str, moved: Moved) -> list[Emit]:
    return [Emit("stock", movement, sku) for movement in moved[1]]


def _decide_arrival(states: States, event: Event, context: Context) -> Decision:
    moved = _BY_SKU[event.type](_stock(states, event.key), event, context.now)
    if isinstance(moved, Park):
        return moved
    return Done({Ref(STOCK, event.key): moved[0]}, tuple(_moves(event.key, moved)))


def _totals(pieces: tuple[Piece, ...]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for piece in pieces:
        totals[piece.sku] = totals.get(piece.sku, 0) + piece.quantity
    return totals


def _move_all(
    states: States, event: Event, context: Context, after: Reservation, said: Emit,
    move: Callable[[Stock, int, str, int], Moved],
) -> Done:
    """One verdict on an order moves all its pieces, or none."""
    written: dict[Ref, State | None] = {Ref(KIND, event.key): after}
    events = [said]
    for sku, quantity in _totals(after.pieces).items():
        moved = move(_stock(states, sku), quantity, event.key, context.now)
        written[Ref(STOCK, sku)] = moved[0]
        events += _moves(sku, moved)
    return Done(written, tuple(events))


def _placed(states: States, event: Event, context: Context) -> Decision:
    if states.get(Ref(KIND, event.key)):
        return IGNORE  # known, or its payment closed before: reserves nothing
    placed: OrderPlaced = event.data
    pieces = _pieces_of(placed)
    short = tuple(
        Shortage(sku=sku, wanted=wanted, available=_stock(states, sku).available)
        for sku, wanted in _totals(pieces).items()
        if wanted > _stock(states, sku).available
    )
    if short:
        said = Emit("inventory", InventoryRejected(reason=OUT_OF_STOCK, short=short))
        return Done({Ref(KIND, event.key): Reservation(state="rejected")}, (said,))
    kept = InventoryReserved(
        pieces=pieces, amount_minor=_worth(placed), currency=placed.currency
    )
    after = Reservation(state="reserved", pieces=pieces)
    return _move_all(states, event, context, after, Emit("inventory", kept), _reserve)


def _worth(placed: OrderPlaced) -> int:
    return sum(line.gross_minor for line in placed.lines)


def _freed(states: States, event: Event, context: Context) -> Decision:
    own = states.get(Ref(KIND, event.key))
    if own is None:
        return Done({Ref(KIND, event.key): Reservation(state="released")})
    if own.state != "reserved":
        return IGNORE
    said = Emit("inventory", InventoryReleased(pieces=own.pieces, reason=event.data.reason))
    return _move_all(states, event, context, replace(own, state="released"), said, _release)


def _consumed(states: States, event: Event, context: Context) -> Decision:
    own = states.get(Ref(KIND, event.key))
    if own is None or own.state != "reserved":
        return IGNORE
    said = Emit("inventory", InventoryConsumed(pieces=own.pieces, shipment=event.data.shipment))
    return _move_all(states, event, context, replace(own, state="consumed"), said, _ship)


_BY_SKU: dict[str, Callable[[Stock, Event, int], Moved | Park]] = {
    "stock.received": _receive,
    "stock.counted": _count,
}

_DECIDES: dict[str, Callable[[States, Event, Context], Decision]] = {
    "stock.received": _decide_arrival,
    "stock.counted": _decide_arrival,
    "order.placed": _placed,
    "payment.closed": _freed,
    "fulfillment.cancelled": _freed,
    "shipment.dispatched": _consumed,
}


def decide(states: States, event: Event, context: Context) -> Decision:
    """What this event does to stock and reservations."""
    return _DECIDES[event.type](states, event, context)


SERVICE = Service(
    name="inventory",
    kind=KIND,
    states={KIND: Reservation, STOCK: Stock},
    reads={
        "orders": ("order.placed",),
        "arrivals": ("stock.received", "stock.counted"),
        "payments": ("payment.closed",),
        "shipments": ("shipment.dispatched", "fulfillment.cancelled"),
    },
    decide=decide,
    needs=needs,
)
