"""I1 to I5: crimes against orders, each seen by the rule named for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from penstock.sim.audit.books import Books
from penstock.sim.audit.orders.placing import digest_of
from tests.audit.orders_shop import (
    Ended,
    added,
    asked,
    ended_in,
    facts,
    forged,
    judged,
    order_of,
    put,
    saying,
    told,
    with_document,
    with_marks,
    without,
)

Crime = Callable[[Ended], Books]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A shop where everything has ended."""
    return ended_in(tmp_path_factory.mktemp("shop"))


# ---- I1


def an_order_is_lost(shop: Ended) -> Books:
    return without(shop.books, shop.one("order.placed"))


def an_order_is_placed_twice(shop: Ended) -> Books:
    return added(shop.books, forged(shop.one("order.placed"), 40))


def a_cancellation_is_lost(shop: Ended) -> Books:
    return without(shop.books, shop.one("order.cancel_requested", "early"))


def a_load_is_lost(shop: Ended) -> Books:
    return without(shop.books, facts(shop.books, "stock.received", "POT")[0])


def a_load_of_another_quantity(shop: Ended) -> Books:
    return told(shop.books, facts(shop.books, "stock.received", "POT")[0], quantity=61)


# ---- I2


def an_order_nobody_asked_for(shop: Ended) -> Books:
    rows = [a for a in shop.books.journal or () if a.key != "plain"]
    return shop.books._replace(journal=rows)


def an_order_that_was_refused(shop: Ended) -> Books:
    return asked(shop.books, "plain", state="failed", status=422, replies=[])


# ---- I3


def two_orders_for_one_key(shop: Ended) -> Books:
    root = shop.one("order.placed")
    again = order_of(1_767_600_777_000, digest_of("c", "plain"))
    return added(shop.books, forged(root, 40)._replace(key=again))


def other_lines_than_asked_for(shop: Ended) -> Books:
    root = shop.one("order.placed")
    lines = [{**line, "quantity": line["quantity"] + 1} for line in root.said["lines"]]
    return told(shop.books, root, lines=lines)


def two_replies_for_one_key(shop: Ended) -> Books:
    (reply,) = next(a.replies for a in shop.books.journal or () if a.key == "plain")
    return asked(shop.books, "plain", replies=[reply, {**reply, "total_minor": 1}])


def a_reply_with_another_total(shop: Ended) -> Books:
    (reply,) = next(a.replies for a in shop.books.journal or () if a.key == "plain")
    return asked(shop.books, "plain", replies=[{**reply, "total_minor": 1}])


# ---- I4


def an_order_that_never_ends(shop: Ended) -> Books:
    return without(shop.books, shop.one("order.completed"))


def an_order_the_order_service_never_saw(shop: Ended) -> Books:
    books = shop.books
    for fact in facts(books, "", shop.orders["plain"]):
        books = without(books, fact) if fact.topic == "order_states" else books
    return books


def two_ends(shop: Ended) -> Books:
    return added(shop.books, forged(shop.one("order.completed"), 40, "order.rejected"))


def a_step_after_the_end(shop: Ended) -> Books:
    return added(shop.books, forged(shop.one("order.completed"), 40, "order.cancelling"))


def a_parked_payment_that_nobody_sees(shop: Ended) -> Books:
    return without(shop.books, shop.one("order.on_hold", "open"))


def a_document_of_another_state(shop: Ended) -> Books:
    return with_document(shop.books, "order", "order", shop.orders["plain"], state="shipped")


# ---- I5


def a_step_is_left_out(shop: Ended) -> Books:
    return without(shop.books, shop.one("order.confirmed"))


def a_step_is_told_twice(shop: Ended) -> Books:
    step = shop.one("order.shipped")
    return put(shop.books, shop.one("order.completed"), saying(step)._replace(
        id=step.id[::-1], offset=step.offset + 1))  # fmt: skip


def confirmed_without_the_money(shop: Ended) -> Books:
    return without(shop.books, shop.one("payment.captured"))


def completed_without_delivery(shop: Ended) -> Books:
    return without(shop.books, shop.one("shipment.delivered"))


def rejected_for_another_reason(shop: Ended) -> Books:
    return told(shop.books, shop.one("order.rejected", "declined"), reason="out_of_stock")


def cancelled_and_nobody_wished_it(shop: Ended) -> Books:
    return without(shop.books, shop.one("order.cancel_requested", "early"))


def a_step_from_another_state(shop: Ended) -> Books:
    return told(shop.books, shop.one("order.shipped"), previous="processing")


def a_step_that_claims_to_be_new(shop: Ended) -> Books:
    return told(shop.books, shop.one("order.shipped"), resumed=True)


def an_answer_applied_twice(shop: Ended) -> Books:
    return added(shop.books, forged(shop.one("payment.captured"), 40))


def authorised_after_the_close(shop: Ended) -> Books:
    late = forged(shop.one("payment.authorised"), 40)._replace(key=shop.orders["declined"])
    return added(shop.books, late)


def closed_with_the_money_kept(shop: Ended) -> Books:
    close = forged(shop.one("payment.closed", "declined"), 40)
    return added(shop.books, close._replace(key=shop.orders["plain"]))


def released_after_it_was_consumed(shop: Ended) -> Books:
    return added(shop.books, forged(shop.one("inventory.consumed"), 40, "inventory.released"))


def delivered_without_dispatch(shop: Ended) -> Books:
    return without(shop.books, shop.one("shipment.dispatched"))


def asked_to_send_it_twice(shop: Ended) -> Books:
    return added(shop.books, forged(shop.one("fulfillment.requested"), 40))


def cancelled_after_the_scan(shop: Ended) -> Books:
    """The carrier had scanned the parcel before shipping granted the cancellation."""
    order = shop.orders["called back"]
    scan = forged(shop.one("carrier.scanned"), 40, shipment=f"{order}-1", type="handover")
    books = added(shop.books, scan._replace(key=order))
    first = min(books.stores["shipping"].marks, key=lambda mark: (mark.txn, mark.ordinal))
    return with_marks(books, "shipping", lambda m: m._replace(id=scan.id) if m is first else m)


def a_label_counts_as_dispatch(shop: Ended) -> Books:
    sent, label = shop.one("shipment.dispatched"), shop.one("shipment.labelled")
    return put(shop.books, sent, sent._replace(cause=label.cause))


def dispatched_and_nobody_scanned_it(shop: Ended) -> Books:
    books = shop.books
    for scan in facts(books, "carrier.scanned", shop.orders["plain"]):
        books = without(books, scan)
    sent, wanted = shop.one("shipment.dispatched"), shop.one("fulfillment.requested")
    return put(books, sent, sent._replace(cause=wanted.id))


CRIMES: tuple[tuple[str, Crime], ...] = (
    ("I1", an_order_is_lost), ("I1", an_order_is_placed_twice), ("I1", a_cancellation_is_lost),
    ("I1", a_load_is_lost), ("I1", a_load_of_another_quantity),
    ("I2", an_order_nobody_asked_for), ("I2", an_order_that_was_refused),
    ("I3", an_order_is_placed_twice), ("I3", two_orders_for_one_key),
    ("I3", other_lines_than_asked_for), ("I3", two_replies_for_one_key),
    ("I3", a_reply_with_another_total), ("I4", an_order_that_never_ends),
    ("I4", an_order_the_order_service_never_saw), ("I4", two_ends), ("I4", a_step_after_the_end),
    ("I4", a_parked_payment_that_nobody_sees), ("I4", a_document_of_another_state),
    ("I5", an_order_is_placed_twice), ("I5", a_step_is_left_out), ("I5", a_step_is_told_twice),
    ("I5", confirmed_without_the_money), ("I5", completed_without_delivery),
    ("I5", rejected_for_another_reason), ("I5", cancelled_and_nobody_wished_it),
    ("I5", a_step_from_another_state), ("I5", a_step_that_claims_to_be_new),
    ("I5", an_answer_applied_twice), ("I5", authorised_after_the_close),
    ("I5", closed_with_the_money_kept), ("I5", released_after_it_was_consumed),
    ("I5", delivered_without_dispatch), ("I5", asked_to_send_it_twice),
    ("I5", cancelled_after_the_scan), ("I5", a_label_counts_as_dispatch),
    ("I5", dispatched_and_nobody_scanned_it),
)  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "crime"), CRIMES, ids=[f"{rule} {crime.__name__}" for rule, crime in CRIMES]
)
def test_the_rule_sees_it(ended: Ended, rule: str, crime: Crime) -> None:
    _, found = judged(crime(ended))
    assert rule in {violation.rule for violation in found}
    assert all(violation.detail for violation in found)
