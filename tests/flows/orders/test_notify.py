"""Notify: told once, about the right things, where there is an address."""

from __future__ import annotations

import pytest

from penstock.decision import IGNORE, Done, Park
from penstock.flows.orders import events as said
from tests.flows.given import Given, answer, asked
from tests.flows.given import said as told
from tests.flows.orders.shop import ADA, service

RECEIVED = said.OrderReceived(order_ref="web-1", customer=ADA, currency="GBP", total_minor=1300)
SHIPPED = said.OrderShipped(shipment="o-1-1", carrier="Van", tracking="T-1")


def mailbox() -> Given:
    return service("notify").given(RECEIVED)


@pytest.mark.parametrize(
    ("step", "key", "text"),
    [
        (said.OrderConfirmed(), "confirmed", "13.00 GBP"),
        (SHIPPED, "dispatched:o-1-1", "T-1"),
        (said.OrderRejected(reason="out_of_stock"), "rejected", "not have enough"),
        (said.OrderCancelled(), "cancelled", "cancelled"),
        (said.OrderRefunded(refund="r1", amount_minor=50, currency="GBP"), "refunded:r1", "0.50"),
    ],
)
def test_what_is_mailed(step: object, key: str, text: str) -> None:
    given = mailbox()
    decision = given.when(step)
    assert asked(decision) == [f"mail send mail:o-1:{key}"]
    assert isinstance(decision, Done)
    request = decision.asks[0].request
    assert request["to"] == "ada@example.com"
    assert "web-1" in request["subject"]
    assert text in request["text"]
    assert given.when(step) is IGNORE


def test_a_second_parcel_gets_its_own_mail() -> None:
    given = mailbox().given(SHIPPED)
    other = said.OrderShipped(shipment="o-1-2")
    assert asked(given.when(other)) == ["mail send mail:o-1:dispatched:o-1-2"]


def test_a_guest_without_an_address_gets_nothing() -> None:
    given = service("notify")
    assert given.when(said.OrderReceived()) is IGNORE
    assert given.when(said.OrderConfirmed()) is IGNORE


def test_what_was_sent_is_told_once() -> None:
    given = mailbox().given(SHIPPED)
    sent = answer("send", key="mail:o-1:dispatched:o-1-1")
    (note,) = told(given.when(sent, type_="answer"))
    assert (note.kind, note.subject, note.to) == ("dispatched", "o-1-1", "ada@example.com")
    assert given.when(sent, type_="answer") is IGNORE


def test_a_refused_mail_is_kept_as_refused() -> None:
    given = mailbox().given(SHIPPED)
    refused = answer("send", "refused", key="mail:o-1:dispatched:o-1-1")
    assert told(given.when(refused, type_="answer")) == []
    assert given.own().mails[0].state == "refused"


def test_a_mail_server_gone_for_good_needs_a_person() -> None:
    assert isinstance(mailbox().when(answer("send", "expired"), type_="answer"), Park)
