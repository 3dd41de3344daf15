"""I6 to I9: crimes against money, each seen by the rule named for it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from penstock.sim.audit.books import Books
from tests.audit.orders_shop import (
    Ended,
    added,
    deeds,
    ended_in,
    forged,
    judged,
    told,
    with_deed,
    with_document,
    with_ledger,
    without,
)

Crime = Callable[[Ended], Books]
PAYMENTS = "payments"


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A shop where everything has ended."""
    return ended_in(tmp_path_factory.mktemp("shop"))


def _deed(shop: Ended, operation: str, name: str = "plain", **fields: object) -> Books:
    """The deed as it was, and as it must not be."""
    old = deeds(shop.books, PAYMENTS, operation, shop.orders[name])[0]
    return with_deed(shop.books, PAYMENTS, old, old._replace(**fields))


def _no_deed(shop: Ended, operation: str, name: str = "plain") -> Books:
    old = deeds(shop.books, PAYMENTS, operation, shop.orders[name])[0]
    return with_deed(shop.books, PAYMENTS, old)


def _again(shop: Ended, operation: str, name: str = "plain", **fields: object) -> Books:
    old = deeds(shop.books, PAYMENTS, operation, shop.orders[name])[0]
    more = old._replace(seq=old.seq + 9000, key=f"{old.key}:again", id="again", **fields)
    return with_deed(shop.books, PAYMENTS, None, more)


def _call(shop: Ended, operation: str, **fields: object) -> Books:
    calls = [
        c._replace(**fields)
        if (c.order, c.operation) == (shop.orders["plain"], operation) else c
        for c in shop.books.ledgers[PAYMENTS].calls
    ]
    return with_ledger(shop.books, PAYMENTS, calls=calls)


# ---- I6


def charged_twice(shop: Ended) -> Books:
    return _again(shop, "capture")


def set_aside_twice(shop: Ended) -> Books:
    return _again(shop, "authorise")


def charged_for_a_second_group(shop: Ended) -> Books:
    return _again(shop, "capture", part="2")


def charged_more_than_the_total(shop: Ended) -> Books:
    return _deed(shop, "capture", amount=1_000_000)


def charged_in_another_currency(shop: Ended) -> Books:
    return _deed(shop, "capture", currency="USD")


def asked_under_a_key_of_the_moment(shop: Ended) -> Books:
    return _call(shop, "capture", key="capture:4711")


def one_key_for_two_calls(shop: Ended) -> Books:
    return _call(shop, "capture", outcome="mismatched")


def asked_for_more_than_is_set_aside(shop: Ended) -> Books:
    return _call(shop, "capture", amount=1_000_000)


# ---- I7


def charged_for_no_order(shop: Ended) -> Books:
    return _again(shop, "capture", order="ord_nobody")


def given_back_more_than_taken(shop: Ended) -> Books:
    return _again(shop, "refund", "called back")


def asked_back_more_than_was_taken(shop: Ended) -> Books:
    order = shop.orders["called back"]
    calls = [
        c._replace(amount=99_999, outcome="refused")
        if (c.order, c.operation) == (order, "refund") else c
        for c in shop.books.ledgers[PAYMENTS].calls
    ]
    return with_ledger(shop.books, PAYMENTS, calls=calls)


def told_of_more_than_was_taken(shop: Ended) -> Books:
    return told(shop.books, shop.one("payment.refunded", "called back"), amount_minor=99_999)


def told_of_a_charge_that_was_none(shop: Ended) -> Books:
    return _no_deed(shop, "capture")


def told_of_another_amount(shop: Ended) -> Books:
    return told(shop.books, shop.one("payment.captured"), amount_minor=1)


def told_of_another_payment(shop: Ended) -> Books:
    return told(shop.books, shop.one("payment.captured"), payment="pay_another")


def charged_and_nobody_knows(shop: Ended) -> Books:
    return without(shop.books, shop.one("payment.captured"))


def given_back_and_nobody_knows(shop: Ended) -> Books:
    return without(shop.books, shop.one("payment.refunded", "called back"))


def declined_and_set_aside_all_the_same(shop: Ended) -> Books:
    return _again(shop, "authorise", order=shop.orders["declined"])


# ---- I8


def lines_that_do_not_add_up(shop: Ended) -> Books:
    return told(shop.books, shop.one("order.placed"), total_minor=1)


def a_line_with_money_of_its_own(shop: Ended) -> Books:
    root = shop.one("order.placed")
    first, *more = root.said["lines"]
    first = {**first, "net_minor": first["net_minor"] - 1}
    return told(shop.books, root, lines=[first, *more])


def half_a_cent(shop: Ended) -> Books:
    return told(shop.books, shop.one("payment.captured"), amount_minor=1300.5)


def a_document_that_counted_twice(shop: Ended) -> Books:
    order = shop.orders["plain"]
    return with_document(shop.books, "order", "order", order, captured_minor=2600)


def the_provider_has_less(shop: Ended) -> Books:
    return _deed(shop, "capture", amount=1299)


def completed_for_less_than_was_due(shop: Ended) -> Books:
    books = told(shop.books, shop.one("payment.captured"), amount_minor=1)
    old = deeds(books, PAYMENTS, "capture", shop.orders["plain"])[0]
    return with_deed(books, PAYMENTS, old, old._replace(amount=1))


# ---- I9


def cancelled_and_the_money_kept(shop: Ended) -> Books:
    return _no_deed(shop, "refund", "called back")


def abandoned_and_the_money_kept(shop: Ended) -> Books:
    return _no_deed(shop, "refund", "abandoned")


def rejected_and_the_money_set_aside(shop: Ended) -> Books:
    return _no_deed(shop, "void", "uncaptured")


def rejected_and_charged(shop: Ended) -> Books:
    plain = deeds(shop.books, PAYMENTS, "capture", shop.orders["plain"])[0]
    order = shop.orders["short"]
    deed = plain._replace(order=order, key=f"capture:{order}:1")
    return with_deed(shop.books, PAYMENTS, None, deed)


CRIMES: tuple[tuple[str, Crime], ...] = (
    ("I6", charged_twice), ("I6", set_aside_twice), ("I6", charged_for_a_second_group),
    ("I6", charged_more_than_the_total), ("I6", charged_in_another_currency),
    ("I6", asked_for_more_than_is_set_aside), ("I7", asked_back_more_than_was_taken),
    ("I6", asked_under_a_key_of_the_moment), ("I6", one_key_for_two_calls),
    ("I7", charged_for_no_order), ("I7", given_back_more_than_taken),
    ("I7", told_of_more_than_was_taken), ("I7", told_of_a_charge_that_was_none),
    ("I7", told_of_another_amount), ("I7", told_of_another_payment),
    ("I7", charged_and_nobody_knows), ("I7", given_back_and_nobody_knows),
    ("I7", declined_and_set_aside_all_the_same), ("I8", lines_that_do_not_add_up),
    ("I8", a_line_with_money_of_its_own), ("I8", half_a_cent),
    ("I8", a_document_that_counted_twice), ("I8", the_provider_has_less),
    ("I8", completed_for_less_than_was_due), ("I9", cancelled_and_the_money_kept),
    ("I9", abandoned_and_the_money_kept), ("I9", rejected_and_the_money_set_aside),
    ("I9", rejected_and_charged),
)  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "crime"), CRIMES, ids=[f"{rule} {crime.__name__}" for rule, crime in CRIMES]
)
def test_the_rule_sees_it(ended: Ended, rule: str, crime: Crime) -> None:
    _, found = judged(crime(ended))
    assert rule in {violation.rule for violation in found}
    assert all(violation.detail for violation in found)


def test_a_version_1_order_has_a_flat_total(ended: Ended) -> None:
    """Its lines have no money of their own, and its currency was pounds."""
    root = ended.one("order.placed")
    lines = [{"sku": "POT", "quantity": 2, "unit_minor": 500}]
    old = {"order_ref": "old", "address": {"country": "UK"}, "lines": lines, "total": 1300,
           "placed_at": 1}  # fmt: skip
    books = without(ended.books, root)
    books = added(books, forged(root, 1)._replace(version=1, value=msgspec.json.encode(old)))
    _, found = judged(books)
    assert not [v for v in found if v.rule == "I8"]
