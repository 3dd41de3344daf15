"""The door: what it lets in, what it says no to, and that twice is once."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given as examples
from hypothesis import strategies as st

from penstock.decision import Ref
from penstock.flow import Accepted, Call, Fault, Intake, Row
from penstock.flows.orders import FLOW, door, requests
from penstock.flows.orders import events as said
from penstock.flows.orders.order import Order
from penstock.flows.orders.pricing import Break, PriceList, Wanted, freeze, money, split
from penstock.flows.orders.routes import ORDER_EXAMPLE, ROUTES
from penstock.flows.orders.views import show_order, show_orders
from tests.flows.given import NOW, stored
from tests.flows.orders.shop import BOOK

ALL = ("supplied_prices", "load_stock", "load_prices")
BY_NAME = {route.name: route for route in ROUTES}


class Door:
    """The door's documents and its clients' calls."""

    def __init__(self) -> None:
        self.states: dict[Ref, Any] = {}
        self.now = NOW

    def call(
        self, name: str, body: Any = None, key: str = "k-1", may: tuple[str, ...] = ALL,
        found: dict[str, list[Row]] | None = None, client: str = "web", **params: str,
    ) -> Accepted:
        """One request, decoded as the web does it; what it accepts is written."""
        route = BY_NAME[name]
        assert isinstance(route.does, Intake)
        given = msgspec.convert(body, route.body) if route.body and body is not None else None
        call = Call(
            client=client, now=self.now, idempotency_key=key, params=params, body=given, may=may,
            digest=str(body), found=found or {},
        )
        refs = route.does.needs(call)
        accepted = route.does.decide({ref: self.states.get(ref) for ref in refs}, call)
        for ref, state in accepted.done.states.items():
            assert isinstance(state, door.DOOR_STATES[ref.kind])
            self.states[ref] = stored(state)
        for emit in accepted.done.events:
            BOOK.seal(emit.data)
        return accepted

    def place(self, body: Any = None, **more: Any) -> Accepted:
        return self.call("place_order", ORDER_EXAMPLE if body is None else body, **more)


def fault(accepted: Accepted) -> Fault:
    assert not accepted.done.states
    assert not accepted.done.events
    assert isinstance(accepted.reply.body, Fault)
    return accepted.reply.body


def order(**changes: Any) -> dict[str, Any]:
    return {k: v for k, v in (ORDER_EXAMPLE | changes).items() if v is not None}


def lines(*wanted: dict[str, Any]) -> dict[str, Any]:
    return order(lines=list(wanted), expected_total=None)


def test_an_order_commits_with_its_key_and_its_first_document() -> None:
    accepted = Door().place()
    assert accepted.reply.status == 202
    reply = accepted.reply.body
    (emit,) = accepted.done.events
    assert (emit.topic, emit.key) == ("orders", reply.order_id)
    assert emit.data.total_minor == reply.total_minor == 2895
    assert set(accepted.done.states) == {
        Ref("request", "web/k-1"), Ref("order", reply.order_id),
    }
    assert accepted.root == ("web", "k-1")


def test_the_same_call_again_is_answered_and_not_placed() -> None:
    shop = Door()
    first = shop.place()
    shop.now += 99_000
    again = shop.place()
    assert again.reply.body == first.reply.body
    assert again.reply.headers["Idempotent-Replayed"] == "true"
    assert not again.done.events


def test_a_key_with_another_body_is_refused() -> None:
    shop = Door()
    shop.place()
    assert fault(shop.place(order(order_ref="other"))).code == "idempotency_key_reused"


def test_a_key_belongs_to_its_client() -> None:
    shop = Door()
    first = shop.place()
    other = shop.place(client="shop")
    assert other.reply.body.order_id != first.reply.body.order_id


def test_order_ids_sort_by_time() -> None:
    shop, ids = Door(), []
    for n in range(50):
        shop.now += n * 1000
        ids.append(shop.place(key=f"k-{99 - n}").reply.body.order_id)
    assert ids == sorted(ids)


def test_prices_come_from_the_price_list() -> None:
    shop = Door()
    entries = [
        {"sku": "TEAPOT", "currency": "GBP", "unit_minor": 1250},
        {"sku": "TEAPOT", "currency": "GBP", "unit_minor": 1100, "minimum_quantity": 12},
        {"sku": "TEAPOT", "currency": "GBP", "unit_minor": 1, "valid_from": "2100-01-01T00:00:00Z"},
    ]
    shop.call("load_prices", {"prices": entries})
    for quantity, total in ((1, 1250), (12, 13_200)):
        body = lines({"sku": "TEAPOT", "quantity": quantity})
        assert shop.place(body, key=f"q{quantity}", may=()).reply.body.total_minor == total


def test_a_missing_price_names_the_line() -> None:
    body = lines(
        {"sku": "A", "quantity": 1, "unit_minor": 1}, {"sku": "B", "quantity": 1},
        {"sku": "C", "quantity": 1},
    )
    said_no = fault(Door().place(body))
    assert (said_no.code, said_no.field) == ("unknown_price", "lines[1].sku")
    assert said_no.extra["fields"] == ["lines[1].sku", "lines[2].sku"]


def test_another_total_gets_the_quote() -> None:
    refused = Door().place(order(expected_total=1))
    assert refused.reply.status == 409
    assert fault(refused).extra["quote"]["total_minor"] == 2895


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({}, "lines[0].unit_minor"),
        ({"lines": [{"sku": "A", "quantity": 1}], "placed_at": "2009-12-01T09:00:00Z"},
         "placed_at"),
        ({"lines": [{"sku": "A", "quantity": 1}], "discount_minor": 5}, "discount_minor"),
    ],
)
def test_prices_of_ones_own_need_a_permission(change: dict[str, Any], field: str) -> None:
    refused = Door().place(order(**change), may=())
    assert refused.reply.status == 403
    assert fault(refused).field == field


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"payment_method": "4111 1111 1111 1111"}, "payment_method"),
        ({"order_ref": "4111-1111-1111-1111"}, "order_ref"),
        ({"address": {"country": "UK", "name": "card 378282246310005 thanks"}}, "address.name"),
        ({"lines": [{"sku": "A", "quantity": 1, "unit_minor": 1,
                     "description": "5555555555554444"}]}, "lines[0].description"),
    ],
)
def test_a_card_number_is_refused_wherever_it_is(change: dict[str, Any], field: str) -> None:
    refused = fault(Door().place(order(**change, expected_total=None)))
    assert (refused.code, refused.field) == ("card_number", field)


@pytest.mark.parametrize("text", ["4111111111111112", "123456789012", "4006381333931"])
def test_other_numbers_are_none(text: str) -> None:
    body = lines({"sku": text, "quantity": 1, "unit_minor": 1})
    assert Door().place(body).reply.status == 202


@pytest.mark.parametrize(
    "change",
    [
        {"currency": "gbp"},
        {"lines": []},
        {"lines": [{"sku": "A", "quantity": 0}]},
        {"lines": [{"sku": "A", "quantity": 1_000_001}]},
        {"lines": [{"sku": "A", "quantity": 1, "unit_minor": 1 << 53}]},
        {"lines": [{"sku": "A", "quantity": 1, "unit_minor": -1}]},
        {"lines": [{"sku": "A", "quantity": 1}] * 1001},
        {"colour": "blue"},
        {"placed_at": "2009-12-01T09:00:00"},
    ],
)
def test_bounds_are_in_the_types(change: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError, match=r"\$|field"):
        msgspec.convert(order(**change), requests.OrderIn)


def test_an_amount_that_overflows_is_refused() -> None:
    body = lines({"sku": "A", "quantity": 1_000_000, "unit_minor": (1 << 53) - 1})
    assert fault(Door().place(body)).code == "amount_too_large"


def test_a_cancellation_is_passed_on_once() -> None:
    shop = Door()
    id_ = shop.place().reply.body.order_id
    first = shop.call("cancel_order", {"reason": "late"}, id=id_)
    assert (first.reply.status, first.reply.body.state) == (202, "cancelling")
    assert first.done.events[0].data.reason == "late"
    again = shop.call("cancel_order", id=id_)
    assert again.reply.status == 202
    assert not again.done.events


def judged(**changes: Any) -> dict[str, list[Row]]:
    return {"order": [Row(key="o", body=Order(**changes))]}


def test_a_cancellation_after_a_refused_one_is_passed_on() -> None:
    shop = Door()
    id_ = shop.place().reply.body.order_id
    shop.call("cancel_order", id=id_)
    found = judged(state="confirmed", asked=1, refused=1)
    assert shop.call("cancel_order", id=id_, found=found).done.events


def test_what_cannot_be_cancelled() -> None:
    shop = Door()
    assert shop.call("cancel_order", id="ord_x").reply.status == 404
    id_ = shop.place().reply.body.order_id
    refused = shop.call("cancel_order", id=id_, found=judged(state="completed", final=True))
    assert refused.reply.status == 409
    assert fault(refused).extra == {"state": "completed"}


STOCK = {"file": "f-1", "entries": [{"sku": "A", "quantity": 5}]}


def test_a_stock_entry_counts_once() -> None:
    shop = Door()
    (emit,) = shop.call("load_stock", STOCK).done.events
    assert (emit.key, emit.data) == (
        "A", said.StockReceived(file="f-1", location="main", quantity=5)
    )
    again = shop.call("load_stock", STOCK)
    assert (again.reply.body.accepted, again.reply.body.repeated) == (0, 1)
    assert not again.done.events


def test_a_stock_entry_with_another_content_loads_nothing() -> None:
    shop = Door()
    shop.call("load_stock", STOCK)
    entries = [{"sku": "B", "quantity": 5}, {"sku": "A", "quantity": 6}]
    refused = fault(shop.call("load_stock", {"file": "f-1", "entries": entries}))
    assert (refused.code, refused.field) == ("stock_entry_differs", "entries[1]")


def test_a_count_is_as_of_now_where_no_time_is_given() -> None:
    entries = [{"sku": "A", "quantity": 5, "kind": "count"}]
    (emit,) = Door().call("load_stock", {"file": "f", "entries": entries}).done.events
    assert emit.data.as_of == NOW


@pytest.mark.parametrize("name", ["load_stock", "load_prices"])
def test_loading_needs_a_permission(name: str) -> None:
    refused = Door().call(name, BY_NAME[name].example, may=())
    assert refused.reply.status == 403
    assert BY_NAME[name].permission == name


def test_the_same_prices_again_change_nothing() -> None:
    shop, example = Door(), BY_NAME["load_prices"].example
    assert shop.call("load_prices", example).done.states
    assert not shop.call("load_prices", example).done.states


def test_a_scan_is_keyed_by_the_order_in_our_reference() -> None:
    shop = Door()
    scan = {"scan": "s-1", "reference": "ord_1/ord_1-1", "type": "handover",
            "at": "2026-01-05T09:30:00Z"}
    (emit,) = shop.call("carrier_webhook", scan).done.events
    assert (emit.topic, emit.key, emit.data.shipment) == ("arrivals", "ord_1", "ord_1-1")
    assert emit.data.at == 1_767_605_400_000
    assert shop.call("carrier_webhook", scan).reply.body.repeated


def test_a_provider_s_word_is_keyed_by_the_order() -> None:
    shop = Door()
    word = BY_NAME["payments_webhook"].example
    (emit,) = shop.call("payments_webhook", word).done.events
    assert (emit.key, emit.data.type, emit.data.amount_minor) == ("ord_0", "authorised", 2895)
    assert shop.call("payments_webhook", word).reply.body.repeated
    other = word | {"id": "evt-2", "type": "payout.paid"}
    assert shop.call("payments_webhook", other).reply.body.ignored


@pytest.mark.parametrize("route", [r for r in ROUTES if r.example], ids=lambda r: r.name)
def test_every_example_works_as_it_is(route: Any) -> None:
    shop = Door()
    if "{id}" in route.path:
        shop.call(route.name, route.example, id=shop.place().reply.body.order_id)
        return
    assert shop.call(route.name, route.example).reply.status in (200, 202)


def test_every_command_stands_on_a_route() -> None:
    for command in FLOW.commands:
        assert command.route in BY_NAME
        for argument in command.arguments:
            assert f"{{{argument}}}" in BY_NAME[command.route].path


def test_a_get_right_after_the_reply_finds_the_door_s_own_document() -> None:
    shop = Door()
    id_ = shop.place().reply.body.order_id
    rows = {"order": [], "door": [Row(key=id_, body=shop.states[Ref("order", id_)])]}
    reply = show_order(Call(client="web", now=NOW, params={"id": id_}), rows)
    assert (reply.status, reply.body.state, reply.body.can["cancel"]) == (200, "received", True)
    unknown = show_order(Call(client="web", now=NOW, params={"id": "x"}), {})
    assert unknown.status == 404


def test_lists_page_and_leave_out_what_is_no_order() -> None:
    rows = [Row(key=f"o-{n}", body=Order(state="received")) for n in range(3)]
    rows.insert(1, Row(key="o-9", body=Order()))
    call = Call(client="web", now=NOW, query={"limit": "2"})
    page = show_orders(call, {"orders": rows}).body
    assert [one.order_id for one in page.orders] == ["o-0"]
    assert page.next == "o-9"


# ---- money


@examples(st.integers(0, 10**12), st.lists(st.integers(0, 10**9), min_size=1, max_size=50))
def test_a_split_loses_nothing_and_is_fair(total: int, weights: list[int]) -> None:
    shares = split(total, weights)
    assert sum(shares) == total
    if sum(weights):
        for share, weight in zip(shares, weights, strict=True):
            assert abs(share - total * weight / sum(weights)) < 1 + 1e-3


def test_lines_freeze_their_share_of_discount_and_tax() -> None:
    wanted = [
        Wanted(sku="A", quantity=1, unit_minor=100, tax_rate_bp=2000),
        Wanted(sku="B", quantity=2, unit_minor=100, tax_rate_bp=2000),
        Wanted(sku="C", quantity=1, unit_minor=1),
    ]
    frozen = freeze(wanted, discount_minor=10)
    assert sum(line.discount_minor for line in frozen) == 10
    assert sum(line.tax_minor for line in frozen) == 58
    assert all(line.gross_minor == line.net_minor + line.tax_minor for line in frozen)


def test_a_price_is_the_largest_break_s_latest() -> None:
    prices = PriceList()
    for minimum, since, unit in ((1, 0, 9), (10, 0, 8), (10, 50, 7), (1, 90, 6)):
        prices = prices.with_break(
            Break(minimum_quantity=minimum, valid_from=since, unit_minor=unit)
        )
    assert [prices.unit_minor(*at) for at in ((1, 10), (10, 10), (10, 60), (1, 99))] == [9, 8, 7, 6]
    assert PriceList().unit_minor(1, 0) is None


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [(5, "GBP", "0.05 GBP"), (-1230, "EUR", "-12.30 EUR"), (7, "JPY", "7 JPY"),
     (1, "KWD", "0.001 KWD")],
)
def test_money_reads_well(minor: int, currency: str, text: str) -> None:
    assert money(minor, currency) == text


# ---- the first version of order.placed


def test_a_stored_version_1_order_is_read_as_version_2() -> None:
    old = {
        "order_ref": "a", "customer_id": "c", "email": "e@x", "total": 1500, "placed_at": 1,
        "address": {"country": "UK"}, "lines": [{"sku": "A", "quantity": 2, "unit_minor": 600}],
    }
    placed = BOOK.opener("order.placed", 1)(msgspec.json.encode(old))
    assert placed.currency == "GBP"
    assert [(x.kind, x.gross_minor) for x in placed.lines] == [("item", 1200), ("carriage", 300)]
    cheap = BOOK.opener("order.placed", 1)(msgspec.json.encode(old | {"total": 1000}))
    assert [(x.discount_minor, x.gross_minor) for x in cheap.lines] == [(200, 1000)]
    assert cheap.total_minor == 1000
