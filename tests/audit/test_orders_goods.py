"""I10 to I15: crimes against stock, parcels and mails, each seen by the rule named for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from penstock.sim.audit.books import Books, Fact
from tests.audit.orders_shop import (
    Ended,
    added,
    deeds,
    ended_in,
    facts,
    forged,
    judged,
    put,
    told,
    with_deed,
    with_document,
    with_ledger,
    with_marks,
    without,
)

Crime = Callable[[Ended], Books]
DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A shop where everything has ended."""
    return ended_in(tmp_path_factory.mktemp("shop"))


def _move(shop: Ended, kind: str, name: str = "plain") -> Fact:
    return next(
        f for f in facts(shop.books, "stock.moved", "POT")
        if f.said["kind"] == kind and f.said["order"] in ("", shop.orders[name])
    )


def _last_move(shop: Ended) -> Fact:
    return facts(shop.books, "stock.moved", "POT")[-1]


# ---- I10


def more_shipped_than_there_was(shop: Ended) -> Books:
    return told(shop.books, _move(shop, "ship"), on_hand=-1)


def more_promised_than_there_is(shop: Ended) -> Books:
    return told(shop.books, _move(shop, "reserve"), reserved=61)


# ---- I11


def a_movement_is_lost(shop: Ended) -> Books:
    return without(shop.books, _move(shop, "ship"))


def a_movement_moves_more_than_it_says(shop: Ended) -> Books:
    move = _move(shop, "reserve")
    return told(shop.books, move, reserved=move.said["reserved"] + 1)


def a_load_came_in_twice(shop: Ended) -> Books:
    move = _move(shop, "receive")
    last = _last_move(shop).said
    more = forged(move, 9000, on_hand=last["on_hand"] + 60, reserved=last["reserved"])
    return added(shop.books, more)


def a_load_never_came_in(shop: Ended) -> Books:
    load = facts(shop.books, "stock.received", "POT")[0]
    return added(shop.books, forged(load, 40, file="lost"))


def another_load_came_in(shop: Ended) -> Books:
    return told(shop.books, facts(shop.books, "stock.received", "POT")[0], quantity=61)


def kept_back_for_nobody(shop: Ended) -> Books:
    return without(shop.books, shop.one("inventory.reserved"))


def a_document_that_forgot_a_piece(shop: Ended) -> Books:
    shelf = {"location": "main", "on_hand": 1}
    return with_document(shop.books, "inventory", "stock", "POT", shelves=[shelf])


def pieces_reserved_that_nobody_has(shop: Ended) -> Books:
    return with_document(shop.books, "inventory", "stock", "POT", reserved=3)


# ---- I12


def a_reservation_that_never_ends(shop: Ended) -> Books:
    return without(shop.books, shop.one("inventory.consumed"))


def a_reservation_that_ends_twice(shop: Ended) -> Books:
    return added(shop.books, forged(shop.one("inventory.consumed"), 40))


def released_because_it_was_dispatched(shop: Ended) -> Books:
    old = shop.one("inventory.consumed")
    return put(shop.books, old, old._replace(type="inventory.released"))


def consumed_by_another_order(shop: Ended) -> Books:
    old, other = shop.one("inventory.consumed"), shop.one("shipment.dispatched", "second")
    return put(shop.books, old, old._replace(cause=other.id))


def a_clock_of_its_own(shop: Ended) -> Books:
    ask = next(a for a in shop.books.stores["payment"].asks if a.destination == "clock")
    inventory = shop.books.stores["inventory"]._replace(asks=[ask])
    return shop.books._replace(stores={**shop.books.stores, "inventory": inventory})


def kept_for_days(shop: Ended) -> Books:
    """An order that nobody pays for, and nobody gives up."""
    books, order = shop.books, shop.orders["uncaptured"]
    for type_ in ("order.rejected", "payment.closed", "inventory.released"):
        books = without(books, shop.one(type_, "uncaptured"))
    late = forged(shop.one("order.placed", "second"), 90)
    late = late._replace(key="later", appended_at=late.appended_at + 3 * DAY_MS)
    assert any(f.key == order for f in books.topics["inventory"])
    return added(books, late)


# ---- I13


def sent_before_it_was_asked_for(shop: Ended) -> Books:
    wanted = shop.one("fulfillment.requested")
    return with_marks(
        shop.books, "shipping",
        lambda m: m._replace(txn=m.txn + 10_000) if m.id == wanted.id else m,
    )  # fmt: skip


def sent_and_nobody_asked_for_it(shop: Ended) -> Books:
    return without(shop.books, shop.one("fulfillment.requested"))


def asked_for_before_the_capture(shop: Ended) -> Books:
    old = shop.one("fulfillment.requested")
    return put(shop.books, old, old._replace(cause=shop.one("payment.authorised").cause))


def captured_before_it_was_reserved(shop: Ended) -> Books:
    reserved = shop.one("inventory.reserved")
    return with_marks(
        shop.books, "payment",
        lambda m: m._replace(txn=m.txn + 10_000) if m.id == reserved.id else m,
    )  # fmt: skip


def captured_and_nothing_reserved(shop: Ended) -> Books:
    return without(shop.books, shop.one("inventory.reserved", "alone"))


# ---- I14


def _pieces(fact: Fact, more: int) -> list[dict[str, Any]]:
    return [{**piece, "quantity": piece["quantity"] + more} for piece in fact.said["pieces"]]


def more_shipped_than_ordered(shop: Ended) -> Books:
    sent = shop.one("shipment.dispatched")
    return told(shop.books, sent, pieces=_pieces(sent, 1))


def less_shipped_than_ordered(shop: Ended) -> Books:
    sent = shop.one("shipment.dispatched", "mixed")
    return told(shop.books, sent, pieces=sent.said["pieces"][1:])


def more_reserved_than_ordered(shop: Ended) -> Books:
    kept = shop.one("inventory.reserved")
    return told(shop.books, kept, pieces=_pieces(kept, 1))


def two_labels_for_a_parcel(shop: Ended) -> Books:
    label = deeds(shop.books, "carrier", "label", shop.orders["plain"])[0]
    again = label._replace(seq=9000, key="label:again", id="again")
    return with_deed(shop.books, "carrier", None, again)


def a_label_nobody_asked_for(shop: Ended) -> Books:
    label = deeds(shop.books, "carrier", "label", shop.orders["plain"])[0]
    order = shop.orders["short"]
    more = label._replace(seq=9000, key=f"label:{order}-1", order=order, part=f"{order}-1")
    return with_deed(shop.books, "carrier", None, more)


def a_label_that_was_never_made(shop: Ended) -> Books:
    label = deeds(shop.books, "carrier", "label", shop.orders["plain"])[0]
    return with_deed(shop.books, "carrier", label)


def a_parcel_sent_with_a_voided_label(shop: Ended) -> Books:
    void = deeds(shop.books, "carrier", "void_label", shop.orders["called back"])[0]
    order = shop.orders["plain"]
    more = void._replace(seq=9000, key=f"void-label:{order}-1", order=order, part=f"{order}-1")
    return with_deed(shop.books, "carrier", None, more)


def _label_call(shop: Ended, **fields: object) -> Books:
    calls = [
        c._replace(**fields) if c.key == f"label:{shop.orders['plain']}-1" else c
        for c in shop.books.ledgers["carrier"].calls
    ]
    return with_ledger(shop.books, "carrier", calls=calls)


def a_label_with_other_pieces(shop: Ended) -> Books:
    lines = [{"sku": "POT", "quantity": 9}]
    return _label_call(shop, request=msgspec.json.encode({"lines": lines}).decode())


def a_label_under_another_key(shop: Ended) -> Books:
    return _label_call(shop, key="label:4711")


def a_label_key_for_two_calls(shop: Ended) -> Books:
    return _label_call(shop, outcome="mismatched")


# ---- I15


def _mails(shop: Ended, change: Callable[[Any], list[Any]]) -> Books:
    """The mails of the plain order changed: each to what stands for it."""
    order = shop.orders["plain"]
    mails = [
        new for m in shop.books.ledgers["mail"].mails
        for new in (change(m) if m.order == order else [m])
    ]
    return with_ledger(shop.books, "mail", mails=mails)


def one_key_for_two_mails(shop: Ended) -> Books:
    return _mails(shop, lambda m: [m, m._replace(seq=m.seq + 9000, text="something else")])


def mailed_twice_under_two_keys(shop: Ended) -> Books:
    return _mails(shop, lambda m: [m, m._replace(seq=m.seq + 9000, key=f"{m.key}:2")])


def never_mailed(shop: Ended) -> Books:
    return _mails(shop, lambda m: [])


def mailed_for_no_reason(shop: Ended) -> Books:
    order = shop.orders["plain"]
    return _mails(
        shop, lambda m: [m, m._replace(seq=9000, kind="rejected", key=f"mail:{order}:rejected")]
    )


def noted_twice(shop: Ended) -> Books:
    return added(shop.books, forged(shop.one("notification.sent"), 40))


def never_noted(shop: Ended) -> Books:
    return without(shop.books, shop.one("notification.sent"))


def woken_twice(shop: Ended) -> Books:
    return added(shop.books, forged(shop.one("wake"), 40))


CRIMES: tuple[tuple[str, Crime], ...] = (
    ("I10", more_shipped_than_there_was), ("I10", more_promised_than_there_is),
    ("I11", a_movement_is_lost), ("I11", a_movement_moves_more_than_it_says),
    ("I11", a_load_came_in_twice), ("I11", a_load_never_came_in), ("I11", another_load_came_in),
    ("I11", kept_back_for_nobody), ("I11", a_document_that_forgot_a_piece),
    ("I11", pieces_reserved_that_nobody_has), ("I12", a_reservation_that_never_ends),
    ("I12", a_reservation_that_ends_twice), ("I12", released_because_it_was_dispatched),
    ("I12", consumed_by_another_order), ("I12", a_clock_of_its_own), ("I12", kept_for_days),
    ("I13", sent_before_it_was_asked_for), ("I13", sent_and_nobody_asked_for_it),
    ("I13", asked_for_before_the_capture), ("I13", captured_before_it_was_reserved),
    ("I13", captured_and_nothing_reserved), ("I14", more_shipped_than_ordered),
    ("I14", less_shipped_than_ordered), ("I14", more_reserved_than_ordered),
    ("I14", two_labels_for_a_parcel), ("I14", a_label_nobody_asked_for),
    ("I14", a_label_that_was_never_made), ("I14", a_parcel_sent_with_a_voided_label),
    ("I14", a_label_with_other_pieces), ("I14", a_label_under_another_key),
    ("I14", a_label_key_for_two_calls), ("I15", one_key_for_two_mails),
    ("I15", mailed_twice_under_two_keys), ("I15", never_mailed), ("I15", mailed_for_no_reason),
    ("I15", noted_twice), ("I15", never_noted), ("I15", woken_twice),
)  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "crime"), CRIMES, ids=[f"{rule} {crime.__name__}" for rule, crime in CRIMES]
)
def test_the_rule_sees_it(ended: Ended, rule: str, crime: Crime) -> None:
    _, found = judged(crime(ended))
    assert rule in {violation.rule for violation in found}
    assert all(violation.detail for violation in found)
