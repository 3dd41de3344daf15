"""Shipping: one parcel, and the race between a cancellation and the carrier's scan."""

from __future__ import annotations

from penstock.decision import IGNORE, Done, Park
from penstock.flows.orders import events as said
from tests.flows.given import Given, answer, asked
from tests.flows.given import said as told
from tests.flows.orders.shop import ADDRESS, service

REQUESTED = said.FulfillmentRequested(
    group="1", address=ADDRESS, pieces=(said.Piece(line=1, sku="POT", quantity=2),)
)
LABEL = answer("label", label="L-1", tracking="T-1", carrier="Van")
CANCEL = said.FulfillmentCancelRequested(reason="cancelled")
VOIDED = answer("void_label", state="voided")
NOT_VOIDED = answer("void_label", "refused", reason="handed over")


def scan(type_: str, shipment: str = "o-1-1") -> said.CarrierScanned:
    return said.CarrierScanned(scan=f"s-{type_}", shipment=shipment, type=type_, at=7)


def parcel(*facts: object) -> Given:
    given = service("shipping")
    for fact in facts:
        assert isinstance(when(given, fact), Done)
    return given


def when(given: Given, fact: object):  # type: ignore[no-untyped-def]
    return given.when(fact, type_="answer" if type(fact).__name__ == "Answer" else "")


def names(decision: object) -> list[str]:
    return [type(fact).__name__ for fact in told(decision)]  # type: ignore[arg-type]


def test_a_request_asks_for_a_label() -> None:
    decision = when(parcel(), REQUESTED)
    assert asked(decision) == ["carrier label label:o-1-1"]
    assert decision.asks[0].request["lines"] == [{"sku": "POT", "quantity": 2}]
    assert decision.asks[0].request["address"].city == "London"


def test_a_label_is_no_dispatch() -> None:
    given = parcel(REQUESTED)
    assert names(when(given, LABEL)) == ["ShipmentLabelled"]
    (sent,) = told(when(given, scan("handover")))
    assert (sent.tracking, sent.carrier, sent.dispatched_at) == ("T-1", "Van", 7)
    assert sent.pieces == REQUESTED.pieces
    assert names(when(given, scan("delivered"))) == ["ShipmentDelivered"]


def test_cancel_before_the_label_answers_voids_it_then() -> None:
    given = parcel(REQUESTED, CANCEL)
    assert asked(when(given, LABEL)) == ["carrier void_label void-label:o-1-1"]
    assert told(when(given, VOIDED)) == [
        said.FulfillmentCancelled(shipment="o-1-1", reason="cancelled")
    ]


def test_cancel_after_the_label_voids_it_now() -> None:
    assert asked(when(parcel(REQUESTED, LABEL), CANCEL)) == [
        "carrier void_label void-label:o-1-1"
    ]


def test_the_scan_wins_over_a_cancellation() -> None:
    given = parcel(REQUESTED, LABEL, CANCEL, CANCEL)
    refused, sent = told(when(given, scan("handover")))
    assert (refused.requests, refused.reason) == (2, "dispatched")
    assert isinstance(sent, said.ShipmentDispatched)
    assert when(given, VOIDED) is IGNORE
    assert when(given, NOT_VOIDED) is IGNORE


def test_a_label_that_cannot_be_voided_refuses_the_cancellation() -> None:
    given = parcel(REQUESTED, LABEL, CANCEL)
    assert names(when(given, NOT_VOIDED)) == ["FulfillmentCancelRefused"]
    assert given.own().state == "labelled"


def test_too_late_to_cancel() -> None:
    given = parcel(REQUESTED, LABEL, scan("handover"))
    assert names(when(given, CANCEL)) == ["FulfillmentCancelRefused"]
    when(given, scan("delivered"))
    assert told(when(given, CANCEL))[0].reason == "delivered"


def test_a_delivery_proves_the_handover() -> None:
    given = parcel(REQUESTED)
    assert names(when(given, scan("delivered"))) == ["ShipmentDispatched", "ShipmentDelivered"]
    assert when(given, scan("handover")) is IGNORE
    assert names(when(given, LABEL)) == []


def test_a_delivery_while_cancelling_tells_all_three() -> None:
    assert names(when(parcel(REQUESTED, LABEL, CANCEL), scan("delivered"))) == [
        "FulfillmentCancelRefused", "ShipmentDispatched", "ShipmentDelivered",
    ]


def test_a_cancelled_parcel_that_moves_is_told() -> None:
    given = parcel(REQUESTED, LABEL, CANCEL, VOIDED)
    (moved,) = told(when(given, scan("handover")))
    assert moved.reason == "handover_after_cancel"
    assert given.own().state == "cancelled"


def test_a_scan_of_a_parcel_never_made_is_told_and_moves_nothing() -> None:
    given = parcel(REQUESTED, LABEL)
    assert names(when(given, scan("handover", "o-1-7"))) == ["ShipmentException"]
    assert given.own().state == "labelled"


def test_no_label_ends_it() -> None:
    (stopped,) = told(when(parcel(REQUESTED), answer("label", "refused", reason="address")))
    assert stopped.reason == "undeliverable"
    (stopped,) = told(when(parcel(REQUESTED, CANCEL), answer("label", "refused")))
    assert stopped.reason == "cancelled"


def test_facts_ahead_of_the_request_are_kept() -> None:
    given = parcel(scan("handover"))
    assert names(when(given, REQUESTED)) == ["ShipmentDispatched"]


def test_an_expired_call_needs_a_person() -> None:
    assert isinstance(when(parcel(REQUESTED), answer("label", "expired")), Park)


def test_noise_on_an_unknown_parcel_is_bounded() -> None:
    given = parcel(*[scan("handover")] * 16)
    assert isinstance(when(given, scan("handover")), Park)


def test_everything_twice_changes_nothing() -> None:
    facts = (REQUESTED, LABEL, scan("handover"), scan("delivered"))
    given = parcel(*facts)
    for fact in facts:
        decision = when(given, fact)
        assert isinstance(decision, Done)
        assert not decision.events
        assert not decision.asks
