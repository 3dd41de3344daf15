"""The order service: facts in any order, every step told once and in order."""

from __future__ import annotations

import itertools

import pytest

from penstock.decision import Decision, Done, Parked, Unparked
from penstock.flows.orders import events as said
from penstock.flows.orders.order import TIMELINE_MAX, Order
from penstock.flows.orders.views import timeline
from tests.flows.given import Given
from tests.flows.given import said as told
from tests.flows.orders.shop import POST, placed, reserved, service

AUTHORISED = said.PaymentAuthorised(group="1", payment="p", amount_minor=1300, currency="GBP")
CAPTURED = said.PaymentCaptured(group="1", payment="p", amount_minor=1300, currency="GBP")
BACK = said.PaymentRefunded(group="1", refund="r1", amount_minor=1300, currency="GBP")
LABELLED = said.ShipmentLabelled(shipment="o-1-1", label="L", carrier="Van", tracking="T")
SENT = said.ShipmentDispatched(
    shipment="o-1-1", pieces=(said.Piece(line=1, sku="POT", quantity=2),), carrier="Van",
    tracking="T", dispatched_at=7,
)
DELIVERED = said.ShipmentDelivered(shipment="o-1-1", delivered_at=9)
CANCEL = said.OrderCancelRequested()
REFUSED = said.FulfillmentCancelRefused(shipment="o-1-1", reason="dispatched")
PARKED = Parked(
    service="payment", service_version="1", topic="arrivals", partition=0, offset=0,
    appended_at=0, event_id="", type="provider.notified", schema_version=1, key="o-1",
    kind="amount_differs", reason="1299", owner="", trace="", value=b"", attempts=(),
)
UNPARKED = Unparked(
    service="payment", topic="arrivals", partition=0, offset=0, event_id="", key="o-1",
    type="provider.notified", kind="amount_differs", reason="looked", actor="ops",
)


def closed(reason: str) -> said.PaymentClosed:
    return said.PaymentClosed(group="1", reason=reason)


def steps(decision: Decision) -> list[str]:
    return [type(fact).__name__.removeprefix("Order") for fact in told(decision)]


def order(*facts: object) -> Given:
    given = service("order")
    for fact in facts:
        assert isinstance(when(given, fact), Done)
    return given


def when(given: Given, fact: object):  # type: ignore[no-untyped-def]
    words = {"Parked": "dead.parked", "Unparked": "dead.retried"}
    return given.when(fact, type_=words.get(type(fact).__name__, ""))


def document(given: Given) -> Order:
    own = given.own()
    assert isinstance(own, Order)
    return own


def test_an_order_is_received_then_processed() -> None:
    given = order()
    (received,) = told(when(given, placed()))
    assert received.customer.email == "ada@example.com"
    assert steps(when(given, AUTHORISED)) == ["Processing"]
    assert steps(when(given, reserved())) == []
    own = document(given)
    assert [(one.ordered, one.reserved) for one in own.lines] == [(2, 2), (1, 0)]
    assert own.authorised_minor == 1300


def test_the_public_document_holds_no_personal_data() -> None:
    text = str(document(order(placed())))
    assert "ada@example.com" not in text
    assert "Square" not in text


FACTS = (placed(), reserved(), AUTHORISED, CAPTURED, LABELLED, SENT, DELIVERED)


def orderings() -> list[tuple[object, ...]]:
    """All orders of facts in which each topic keeps its own."""
    money, parcel = (AUTHORISED, CAPTURED), (LABELLED, SENT, DELIVERED)
    kept = []
    for facts in itertools.permutations(range(len(FACTS))):
        chosen = tuple(FACTS[i] for i in facts)
        places = {id(fact): place for place, fact in enumerate(chosen)}
        if all(
            places[id(a)] < places[id(b)]
            for topic in (money, parcel) for a, b in itertools.pairwise(topic)
        ):
            kept.append(chosen)
    return kept


def test_every_order_between_topics_tells_every_step_once() -> None:
    for facts in orderings():
        given, all_steps = order(), []
        for fact in facts:
            all_steps += steps(when(given, fact))
        assert [s for s in all_steps if s != "Processing"] == [
            "Received", "Confirmed", "Shipped", "Completed"
        ], facts
        own = document(given)
        assert (own.state, own.final) == ("completed", True)
        assert [(o.reserved, o.shipped) for o in own.lines] == [(0, 2), (0, 0)]
        assert own.shipments[0].delivered_at == 9


def test_a_dispatch_seen_before_the_capture_is_kept() -> None:
    given = order(placed(), SENT)
    assert document(given).state == "processing"
    confirmed, shipped = told(when(given, CAPTURED))
    assert (confirmed.previous, shipped.previous) == ("processing", "confirmed")
    assert (shipped.shipment, shipped.tracking) == ("o-1-1", "T")


def test_carriage_alone_completes_when_captured() -> None:
    assert steps(when(order(placed(POST), AUTHORISED), CAPTURED)) == ["Confirmed", "Completed"]


@pytest.mark.parametrize("reason", ["out_of_stock", "declined", "deadline", "abandoned"])
def test_a_closed_payment_rejects(reason: str) -> None:
    given = order(placed(), AUTHORISED)
    (rejected,) = told(when(given, closed(reason)))
    assert (rejected.reason, rejected.previous) == (reason, "processing")
    own = document(given)
    assert (own.state, own.reason, own.final) == ("rejected", reason, True)
    assert [line.cancelled for line in own.lines] == [2, 1]


def test_a_cancellation_is_wished_then_granted() -> None:
    given = order(placed(), AUTHORISED)
    assert steps(when(given, CANCEL)) == ["Cancelling"]
    assert steps(when(given, closed("cancelled"))) == ["Cancelled"]


def test_a_refused_cancellation_goes_back_and_tells_what_it_kept() -> None:
    given = order(placed(), AUTHORISED, CANCEL)
    assert steps(when(given, CAPTURED)) == []
    assert steps(when(given, REFUSED)) == ["Confirmed"]
    assert document(given).state == "confirmed"


def test_back_where_it_was_is_no_new_step() -> None:
    given = order(placed(), CAPTURED, CANCEL)
    (back,) = told(when(given, REFUSED))
    assert (type(back), back.resumed, back.previous) == (said.OrderConfirmed, True, "cancelling")


def test_a_refusal_seen_before_its_wish() -> None:
    given = order(placed(), CAPTURED, REFUSED)
    assert steps(when(given, CANCEL)) == []
    assert document(given).state == "confirmed"


def test_one_refusal_may_answer_several_wishes() -> None:
    given = order(placed(), CAPTURED, CANCEL, CANCEL)
    twice = said.FulfillmentCancelRefused(shipment="o-1-1", reason="x", requests=2)
    assert steps(when(given, twice)) == ["Confirmed"]


def test_a_parked_payment_is_on_hold_until_decided() -> None:
    given = order(placed(), AUTHORISED)
    assert steps(when(given, PARKED)) == ["OnHold"]
    assert steps(when(given, CANCEL)) == []
    assert steps(when(given, UNPARKED)) == ["Cancelling"]


def test_money_that_goes_straight_back_confirms_nothing() -> None:
    taken = said.PaymentCaptured(
        group="1", payment="p", amount_minor=1300, currency="GBP", kept=False
    )
    given = order(placed(), AUTHORISED, CANCEL, taken)
    assert steps(when(given, BACK)) == ["Refunded"]
    assert steps(when(given, closed("cancelled"))) == ["Cancelled"]
    assert (document(given).captured_minor, document(given).refunded_minor) == (1300, 1300)


def test_facts_before_the_order_are_told_with_it() -> None:
    given = order(BACK, closed("cancelled"))
    assert steps(when(given, placed())) == ["Received", "Processing", "Cancelled", "Refunded"]


def test_after_the_end_facts_are_noted_and_nothing_is_told_twice() -> None:
    given = order(placed(), AUTHORISED, closed("declined"))
    assert steps(when(given, CANCEL)) == []
    assert steps(when(given, reserved())) == []
    released = said.InventoryReleased(pieces=reserved().pieces, reason="declined")
    when(given, released)
    assert document(given).lines[0].reserved == 0
    assert steps(when(given, placed())) == []


def test_the_timeline_is_bounded_and_keeps_both_ends() -> None:
    given = order(placed(), *[CANCEL] * 150)
    entries = document(given).timeline
    assert len(entries) == TIMELINE_MAX
    assert entries[0].type == "order.placed"
    assert [m.kind for m in timeline(document(given), {})] == ["fact"] * TIMELINE_MAX
