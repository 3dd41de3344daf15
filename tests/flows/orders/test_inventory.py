"""Inventory: stock per SKU, a reservation per order, nothing lost and nothing below zero."""

from __future__ import annotations

import pytest

from penstock.decision import IGNORE, Done, Park, Ref
from penstock.flows.orders import events as said
from penstock.flows.orders.inventory import RECENT_MAX, Stock
from tests.flows.given import Given
from tests.flows.given import said as told
from tests.flows.orders.shop import POST, line, placed, service

CLOSED = said.PaymentClosed(group="1", reason="declined")
STOPPED = said.FulfillmentCancelled(shipment="o-1-1", reason="cancelled")
SENT = said.ShipmentDispatched(shipment="o-1-1", pieces=(), dispatched_at=7)


def house(**stock: int) -> Given:
    given = service("inventory")
    for sku, quantity in stock.items():
        given.given(received(quantity), key=sku)
    return given


def received(quantity: int, location: str = "main") -> said.StockReceived:
    return said.StockReceived(file="f", location=location, quantity=quantity)


def counted(quantity: int, as_of: int, location: str = "main") -> said.StockCounted:
    return said.StockCounted(file="c", location=location, quantity=quantity, as_of=as_of)


def stock(given: Given, sku: str = "POT") -> tuple[int, int, int]:
    found = given.states[Ref("stock", sku)]
    assert isinstance(found, Stock)
    return found.on_hand, found.reserved, found.available


def test_an_order_reserves_its_pieces() -> None:
    given = house(POT=10)
    reserved, moved = told(given.when(placed()))
    assert reserved.pieces == (said.Piece(line=1, sku="POT", quantity=2),)
    assert (reserved.amount_minor, reserved.currency) == (1300, "GBP")
    assert (moved.kind, moved.quantity, moved.order) == ("reserve", 2, "o-1")
    assert stock(given) == (10, 2, 8)


def test_one_short_line_rejects_the_whole_order_and_writes_no_stock() -> None:
    given = house(POT=10, MUG=1)
    decision = given.when(placed(line("POT"), line("MUG", 2)))
    assert told(decision) == [
        said.InventoryRejected(
            reason="out_of_stock", short=(said.Shortage(sku="MUG", wanted=2, available=1),)
        )
    ]
    assert isinstance(decision, Done)
    assert list(decision.states) == [Ref("reservation", "o-1")]


def test_two_lines_of_one_sku_count_together() -> None:
    given = house(POT=3)
    assert told(given.when(placed(line("POT", 2), line("POT", 2))))[0].reason == "out_of_stock"


def test_a_gift_is_reserved_too() -> None:
    given = house(POT=1)
    assert told(given.when(placed(line("POT", unit=0), POST)))[0].pieces[0].sku == "POT"


def test_carriage_alone_is_reserved_with_no_lines() -> None:
    (reserved,) = told(house().when(placed(POST)))
    assert reserved.pieces == ()
    assert reserved.amount_minor == 300


@pytest.mark.parametrize("verdict", [CLOSED, STOPPED])
def test_a_verdict_releases(verdict: object) -> None:
    given = house(POT=10).given(placed())
    released, moved = told(given.when(verdict))
    assert released.pieces[0].quantity == 2
    assert moved.quantity == -2
    assert stock(given) == (10, 0, 10)
    assert given.when(verdict) is IGNORE


def test_a_payment_closed_before_the_order_is_known_reserves_nothing() -> None:
    given = house(POT=10).given(CLOSED)
    assert given.when(placed()) is IGNORE
    assert stock(given) == (10, 0, 10)


def test_a_dispatch_consumes() -> None:
    given = house(POT=10).given(placed())
    consumed, moved = told(given.when(SENT))
    assert consumed.shipment == "o-1-1"
    assert (moved.kind, moved.quantity, moved.location) == ("ship", -2, "main")
    assert stock(given) == (8, 0, 8)
    assert given.when(CLOSED) is IGNORE
    assert given.when(SENT) is IGNORE


def test_shipping_takes_from_the_shelves_in_turn() -> None:
    given = house()
    given.given(received(1, "a"), received(5, "b"), key="POT")
    given.given(placed())
    moves = [m for m in told(given.when(SENT)) if isinstance(m, said.StockMoved)]
    assert [(m.location, m.quantity) for m in moves] == [("a", -1), ("b", -1)]


def test_a_count_is_absolute_and_later_movements_are_applied_again() -> None:
    given = house(POT=10)
    counted_at = given.now
    given.now += 1000
    given.given(placed(), SENT)
    (moved,) = told(given.when(counted(7, counted_at), key="POT"))
    assert (moved.kind, moved.quantity, moved.on_hand) == ("count", -3, 5)
    assert stock(given) == (5, 0, 5)


def test_a_count_touches_its_location_only() -> None:
    given = house()
    given.given(received(5, "a"), received(5, "b"), key="POT")
    given.given(counted(1, given.now + 1, "a"), key="POT")
    assert stock(given) == (6, 0, 6)


def test_counts_never_go_below_nothing() -> None:
    given = house(POT=10)
    counted_at = given.now
    given.now += 1000
    given.given(placed(), SENT)
    given.given(counted(1, counted_at), key="POT")
    assert stock(given) == (0, 0, 0)


def test_less_counted_than_reserved_promises_nothing_more() -> None:
    given = house(POT=10).given(placed())
    given.given(counted(1, given.now + 1), key="POT")
    assert stock(given) == (1, 2, 0)
    assert told(given.when(placed(line("POT")), key="o-2"))[0].reason == "out_of_stock"


def test_an_older_count_after_a_younger_one_changes_nothing() -> None:
    given = house(POT=10)
    given.given(counted(7, given.now + 10), counted(3, given.now + 5), key="POT")
    assert stock(given) == (7, 0, 7)


def test_a_count_from_before_what_is_remembered_is_parked() -> None:
    given = house()
    for _ in range(RECENT_MAX + 5):
        given.now += 10
        given.given(received(1), key="POT")
    decision = given.when(counted(3, given.now - 10_000), key="POT")
    assert isinstance(decision, Park)
    assert decision.kind == "count_too_old"


def test_two_orders_for_the_last_piece() -> None:
    given = house(POT=1)
    assert isinstance(told(given.when(placed(line("POT")), key="o-1"))[0], said.InventoryReserved)
    assert isinstance(told(given.when(placed(line("POT")), key="o-2"))[0], said.InventoryRejected)


def test_an_order_known_already_reserves_once() -> None:
    given = house(POT=10).given(placed())
    assert given.when(placed()) is IGNORE
