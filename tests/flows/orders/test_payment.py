"""Payment: given facts about an order, when one more comes, then this decision."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from penstock.decision import IGNORE, Done, Park, Unparked
from penstock.flows.orders import events as said
from penstock.flows.orders.payment import Payment
from tests.flows.given import Given, answer, asked, wake
from tests.flows.given import said as told
from tests.flows.orders.shop import POST, placed, reserved, service

OK = {"id": "pay-1", "amount": 1300, "currency": "GBP"}
AUTHORISED = answer("authorise", **OK)
CAPTURED = answer("capture", **OK | {"id": "cap-1"})
CANCEL = said.OrderCancelRequested()
SHORT = said.InventoryRejected(reason="out_of_stock")
DECLINED = answer("authorise", "refused", state="declined", code="c", reason="no funds")
UNPARKED = Unparked(
    service="payment", topic="payment.answers", partition=0, offset=0, event_id="", key="o-1",
    type="answer", kind="amount_differs", reason="", actor="ops",
)


def payment(*facts: object) -> Given:
    given = service("payment")
    for fact in facts:
        when(given, fact)
    return given


def when(given: Given, fact: object):  # type: ignore[no-untyped-def]
    names = {"Answer": "answer", "Wake": "wake", "Unparked": "dead.discarded"}
    return given.when(fact, type_=names.get(type(fact).__name__, ""))


def state(given: Given) -> Payment:
    own = given.own()
    assert isinstance(own, Payment)
    return own


def notice(type_: str, amount: int = 1300) -> said.ProviderNotified:
    return said.ProviderNotified(
        id="e", type=type_, payment="pay-1", amount_minor=amount, currency="GBP"
    )


def test_an_order_is_authorised_and_gets_a_deadline() -> None:
    decision = when(payment(), placed())
    assert asked(decision) == ["payments authorise authorise:o-1:1", "clock deadline"]
    request = decision.asks[0].request
    assert request == {
        "order": "o-1", "group": "1", "amount": 1300, "currency": "GBP", "method": "tok_ok",
        "customer": "c-1",
    }
    assert decision.asks[1].due - service("payment").now == 86_400_000


def test_the_deadline_can_be_another() -> None:
    given = payment()
    decision = when(given, placed(deadline_seconds=60))
    assert decision.asks[1].due == given.now + 60_000


@pytest.mark.parametrize(
    "facts", list(itertools.permutations((placed(), reserved())))
)
def test_capture_waits_for_stock_and_money_in_either_order(facts: tuple[object, ...]) -> None:
    decision = when(payment(*facts), AUTHORISED)
    assert asked(decision) == ["payments capture capture:o-1:1"]
    assert decision.asks[0].request["payment"] == "pay-1"


def test_reserved_after_authorised_captures_what_is_reserved() -> None:
    given = payment(placed(), AUTHORISED)
    decision = when(given, reserved(900))
    assert decision.asks[0].request["amount"] == 900


def test_never_more_than_authorised_is_captured() -> None:
    decision = when(payment(placed(), AUTHORISED), reserved(9999))
    assert decision.asks[0].request["amount"] == 1300


def test_captured_asks_for_fulfillment_and_forgets_the_address() -> None:
    given = payment(placed(), AUTHORISED, reserved())
    captured, wanted = told(when(given, CAPTURED))
    assert captured == said.PaymentCaptured(
        group="1", payment="pay-1", amount_minor=1300, currency="GBP"
    )
    assert wanted.pieces == reserved().pieces
    assert wanted.address.city == "London"
    assert state(given).address is None


def test_carriage_alone_is_captured_and_nothing_is_sent() -> None:
    kept = said.InventoryReserved(pieces=(), amount_minor=300, currency="GBP")
    money = {"id": "p", "amount": 300, "currency": "GBP"}
    given = payment(placed(POST), answer("authorise", **money), kept)
    assert [type(e) for e in told(when(given, answer("capture", **money)))] == [
        said.PaymentCaptured
    ]
    assert when(given, CANCEL) is IGNORE


def test_a_decline_is_an_outcome() -> None:
    declined, closed = told(when(payment(placed()), DECLINED))
    assert (declined.code, declined.reason) == ("c", "no funds")
    assert closed.reason == "declined"


@pytest.mark.parametrize(
    ("fact", "reason"), [(SHORT, "out_of_stock"), (CANCEL, "cancelled"), (wake("d"), "deadline")]
)
def test_before_the_capture_it_is_given_up_by_a_void(fact: object, reason: str) -> None:
    early = payment(placed())
    assert asked(when(early, fact)) == []  # the authorisation answers first
    assert asked(when(early, AUTHORISED)) == ["payments void void:o-1:1"]
    late = payment(placed(), AUTHORISED)
    assert asked(when(late, fact)) == ["payments void void:o-1:1"]
    for given in (early, late):
        assert told(when(given, answer("void"))) == [said.PaymentClosed(group="1", reason=reason)]


def test_the_first_reason_is_kept() -> None:
    given = payment(placed(), CANCEL, SHORT, wake("deadline"))
    assert told(when(given, DECLINED))[-1].reason == "cancelled"


def test_rejected_before_the_order_is_known_asks_nothing() -> None:
    decision = when(payment(SHORT), placed())
    assert asked(decision) == []
    assert told(decision) == [said.PaymentClosed(group="1", reason="out_of_stock")]


def test_cancel_while_capturing_gives_the_money_back() -> None:
    given = payment(placed(), AUTHORISED, reserved(), CANCEL)
    decision = when(given, CAPTURED)
    assert told(decision)[0].kept is False
    assert asked(decision) == ["payments refund refund:o-1:r1"]
    refunded, closed = told(when(given, answer("refund", state="refunded", amount=1300)))
    assert refunded.amount_minor == 1300
    assert closed.reason == "cancelled"


def test_cancel_after_the_capture_is_forwarded() -> None:
    given = payment(placed(), AUTHORISED, reserved(), CAPTURED)
    assert told(when(given, CANCEL)) == [said.FulfillmentCancelRequested(reason="cancelled")]
    assert state(given).state == "captured"


def test_a_cancelled_parcel_is_refunded() -> None:
    given = payment(placed(), AUTHORISED, reserved(), CAPTURED)
    stopped = said.FulfillmentCancelled(shipment="o-1-1", reason="cancelled")
    assert asked(when(given, stopped)) == ["payments refund refund:o-1:r1"]
    assert told(when(given, notice("refunded")))[-1].reason == "cancelled"
    assert when(given, answer("refund", amount=1300, currency="GBP")) is IGNORE


def test_a_failed_capture_is_voided() -> None:
    given = payment(placed(), AUTHORISED, reserved())
    assert asked(when(given, answer("capture", "refused"))) == ["payments void void:o-1:1"]
    assert told(when(given, answer("void")))[0].reason == "capture_failed"


def test_a_void_of_nothing_left_closes() -> None:
    given = payment(placed(), AUTHORISED, CANCEL)
    assert told(when(given, answer("void", "refused", state="expired")))[0].reason == "cancelled"


@pytest.mark.parametrize("late", [AUTHORISED, notice("authorised")])
def test_late_authorised_is_voided(late: object) -> None:
    given = payment(placed(), DECLINED)
    assert asked(when(given, late)) == ["payments void void:o-1:1"]
    assert when(given, late) is IGNORE
    assert when(given, answer("void")) is IGNORE


def test_late_captured_is_refunded_at_once_and_once() -> None:
    given = payment(
        placed(), AUTHORISED, reserved(), answer("capture", "refused"), answer("void")
    )
    assert asked(when(given, notice("captured"))) == ["payments refund refund:o-1:r1"]
    assert when(given, CAPTURED) is IGNORE
    back = told(when(given, answer("refund", amount=1300)))
    assert back == [said.PaymentRefunded(group="1", refund="r1", amount_minor=1300,
                                         currency="GBP")]
    assert state(given).state == "closed"


def test_every_webhook_may_come_before_and_after_the_answer() -> None:
    given = payment(placed(), notice("authorised"))
    assert when(given, AUTHORISED) is IGNORE
    when(given, reserved())
    when(given, notice("captured"))
    for again in (CAPTURED, notice("captured"), notice("authorised"), AUTHORISED):
        assert when(given, again) is IGNORE


@pytest.mark.parametrize("known", [(), (AUTHORISED,)])
def test_another_amount_is_parked(known: tuple[object, ...]) -> None:
    decision = when(payment(placed(), *known), notice("authorised", 1299))
    assert isinstance(decision, Park)
    assert decision.kind == "amount_differs"
    assert "12.99 GBP, expected 13.00 GBP" in decision.reason


def test_another_currency_is_parked() -> None:
    wrong = answer("authorise", id="p", amount=1300, currency="USD")
    assert isinstance(when(payment(placed()), wrong), Park)


@pytest.mark.parametrize(
    ("facts", "fact", "kind"),
    [
        ((), answer("authorise", "expired"), "gateway_expired"),
        ((AUTHORISED,), CAPTURED, "not_asked"),
        ((AUTHORISED, CANCEL), answer("void", "refused", state="captured"), "void_refused"),
        ((AUTHORISED, reserved(), CANCEL, CAPTURED), answer("refund", "refused"),
         "refund_refused"),
    ],
)
def test_what_a_person_must_look_at_is_parked(
    facts: tuple[object, ...], fact: object, kind: str
) -> None:
    decision = when(payment(placed(), *facts), fact)
    assert isinstance(decision, Park)
    assert decision.kind == kind


def test_a_malformed_answer_is_parked() -> None:
    broken = msgspec.structs.replace(AUTHORISED, body=msgspec.Raw(b'{"amount": "much"}'))
    assert isinstance(when(payment(placed()), broken), Park)


@pytest.mark.parametrize(
    ("facts", "asks"),
    [
        ((), ["void:o-1:1"]),
        ((AUTHORISED,), ["void:o-1:1"]),
        ((AUTHORISED, reserved()), ["void:o-1:1", "refund:o-1:r1"]),
        ((AUTHORISED, CANCEL), ["void:o-1:1"]),
    ],
)
def test_a_discard_before_the_capture_abandons(
    facts: tuple[object, ...], asks: list[str]
) -> None:
    decision = when(payment(placed(), *facts), UNPARKED)
    reason = "cancelled" if CANCEL in facts else "abandoned"
    assert told(decision) == [said.PaymentClosed(group="1", reason=reason)]
    assert [ask.idempotency_key for ask in decision.asks] == asks


def test_a_discard_after_the_capture_changes_nothing() -> None:
    assert when(payment(placed(), AUTHORISED, reserved(), CAPTURED), UNPARKED) is IGNORE


def test_money_taken_unseen_before_an_abandon_is_accounted_for() -> None:
    given = payment(placed(), AUTHORISED, reserved(), UNPARKED)
    captured, refunded = told(when(given, answer("refund", amount=1300)))
    assert (captured.amount_minor, captured.kept) == (1300, False)
    assert refunded.amount_minor == 1300


def test_a_void_is_asked_for_in_the_same_words_whatever_is_known_by_then() -> None:
    """Found by the simulator: two bodies under one key, of which a provider refuses the second."""
    (asked,) = when(payment(placed()), UNPARKED).asks
    assert when(payment(placed(), UNPARKED), AUTHORISED).asks == (asked,)


def test_a_refund_whose_answer_was_discarded_is_asked_for_again_in_the_same_words() -> None:
    """Found by the simulator: the money was back, and nobody could tell."""
    back = (placed(), AUTHORISED, reserved(), CANCEL, CAPTURED)
    first = payment(*back[:-1])
    (asked,) = when(first, CAPTURED).asks
    closing = when(payment(*back), UNPARKED)
    assert told(closing) == [said.PaymentClosed(group="1", reason="cancelled")]
    assert closing.asks == (asked,)
    given = payment(*back, UNPARKED)
    assert when(given, UNPARKED).asks == (asked,)
    (refunded,) = told(when(given, answer("refund", amount=1300)))
    assert refunded.amount_minor == 1300
    assert when(payment(*back, UNPARKED, answer("refund", amount=1300)), UNPARKED) is IGNORE


def test_a_discarded_order_record_ends_the_order() -> None:
    lost = msgspec.structs.replace(UNPARKED, type="order.placed", topic="orders")
    assert told(when(payment(), lost))[0].reason == "abandoned"


def test_noise_on_an_unknown_order_is_bounded() -> None:
    given = payment(*[notice("captured")] * 16)
    assert isinstance(when(given, notice("captured")), Park)
    assert len(state(given).ahead) == 16


def test_duplicates_of_everything_change_nothing() -> None:
    facts = (placed(), AUTHORISED, reserved(), CAPTURED)
    given = payment(*facts)
    for fact in (*facts, SHORT, wake("deadline"), DECLINED, answer("void")):
        decision = when(given, fact)
        assert isinstance(decision, Done)
        assert not decision.events
        assert not decision.asks
