"""What each kind of row of a retailer's export becomes."""

from __future__ import annotations

import os
from collections import Counter
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.decision import Ref
from penstock.errors import Usage
from penstock.flow import Call, Row
from penstock.flows.orders import door, importer, inventory, views
from penstock.flows.orders.importer import Plan, Reading, Request, outcomes, plan, stock
from penstock.flows.orders.requests import OrderIn, StockIn, card_field

NOW = 1_800_000_000_000
HEADER = "invoice,stock_code,description,quantity,invoice_date,unit_price,customer_id,country\n"
SAMPLE = files(importer.SAMPLE[0]).joinpath(importer.SAMPLE[1]).read_bytes()

# What must come out of a file: rows, orders, pieces of stock, rows per outcome and per reason.
EXPECTED: dict[str, tuple[int, int, int, dict[str, int], dict[str, int]]] = {
    "sample": (
        1086,
        112,
        84147,
        {"placed": 1027, "merged": 8, "set_aside": 51, "already_placed": 0},
        {
            "credit_note": 34, "manual": 3, "ledger": 3, "malformed": 3, "negative_quantity": 2,
            "conflicting_rows": 2, "positive_on_credit_note": 1, "negative_price": 1,
            "sub_penny_price": 1, "zero_quantity": 1,
        },
    ),
    "whole": (
        14269,
        598,
        426730,
        {"placed": 13760, "merged": 72, "set_aside": 437, "already_placed": 0},
        {"credit_note": 420, "manual": 11, "ledger": 6},
    ),
}  # fmt: skip
FILES = {"sample": SAMPLE}
if os.environ.get("PENSTOCK_TEST_RETAIL_CSV"):
    FILES["whole"] = Path(os.environ["PENSTOCK_TEST_RETAIL_CSV"]).read_bytes()


def export(*rows: str) -> Plan:
    """The plan of a file with those rows."""
    return plan((HEADER + "\n".join(rows) + "\n").encode(), Reading())


def row(**said: str) -> str:
    """A good row, but for what is said."""
    cells = {
        "invoice": "1001", "stock_code": "22423", "description": "CAKESTAND", "quantity": "2",
        "invoice_date": "2010-01-04T10:24:00", "unit_price": "12.75", "customer_id": "12417",
        "country": "Belgium",
    }  # fmt: skip
    return ",".join((cells | said).values())


def body(request: Request) -> dict[str, Any]:
    """What the door is sent."""
    return msgspec.json.decode(request.body, type=dict[str, Any])


def all_placed(made: Plan, outcome: str = "placed") -> dict[str, int]:
    """The rows per outcome when every order ends like that."""
    return outcomes(made, {request.name: outcome for request in made.requests})


@pytest.mark.parametrize("name", FILES)
def test_every_row_of_a_real_export_is_accounted_for(name: str) -> None:
    rows, orders, pieces, became, reasons = EXPECTED[name]
    made = plan(FILES[name], Reading())
    assert (len(made.rows), len(made.requests)) == (rows, orders)
    assert sum(made.pieces.values()) == pieces
    assert all_placed(made) == became
    assert Counter(aside.reason for aside in made.set_aside) == reasons
    again = all_placed(made, "already_placed")
    assert again["already_placed"] == became["placed"] + became["merged"]
    assert sum(again.values()) == sum(became.values()) == rows


@pytest.mark.parametrize("name", FILES)
def test_each_row_has_exactly_one_place(name: str) -> None:
    made = plan(FILES[name], Reading())
    places = [i for request in made.requests for i in request.rows + request.merged]
    places += [aside.row for aside in made.set_aside]
    assert sorted(places) == list(range(len(made.rows)))


@pytest.mark.parametrize("name", FILES)
def test_money_and_pieces_of_the_orders_are_those_of_the_rows(name: str) -> None:
    made = plan(FILES[name], Reading())
    columns = {column: i for i, column in enumerate(made.header)}
    for request in made.requests:
        cells = [made.rows[i].fields for i in request.rows + request.merged]
        lines = body(request)["lines"]
        assert sum(line["unit_minor"] * line["quantity"] for line in lines) == sum(
            int(c[columns["quantity"]]) * Decimal(c[columns["unit_price"]]) * 100 for c in cells
        )
        assert sum(line["quantity"] for line in lines) == sum(
            int(c[columns["quantity"]]) for c in cells
        )


def test_orders_come_oldest_first_although_the_file_is_not_sorted() -> None:
    moments = [body(request)["placed_at"] for request in plan(SAMPLE, Reading()).requests]
    assert moments == sorted(moments)


def test_same_goods_at_one_price_are_one_line_and_quantities_add_up() -> None:
    made = export(row(quantity="2"), row(quantity="3"), row(quantity="2"), row(unit_price="11"))
    (request,) = made.requests
    found = {(line["unit_minor"], line["quantity"]) for line in body(request)["lines"]}
    assert found == {(1275, 7), (1100, 2)}
    assert all_placed(made) == {"placed": 2, "merged": 2, "set_aside": 0, "already_placed": 0}


def test_one_price_written_in_two_ways_is_one_price() -> None:
    (request,) = export(row(unit_price="2.5"), row(unit_price="2.50")).requests
    assert [line["quantity"] for line in body(request)["lines"]] == [4]


def test_an_invoice_is_the_same_content_however_its_rows_lie() -> None:
    rows = [row(), row(stock_code="POST", unit_price="18"), row(stock_code="21212", quantity="24")]
    there, back = export(*rows), export(row(invoice="1002"), *reversed(rows))
    assert there.requests[0].body in [request.body for request in back.requests]


@pytest.mark.parametrize("code", ["POST", "C2"])
def test_carriage_is_a_line_without_stock_and_may_be_alone(code: str) -> None:
    made = export(row(stock_code=code, unit_price="18", quantity="3"))
    assert [line["kind"] for line in body(made.requests[0])["lines"]] == ["carriage"]
    assert made.pieces == {}


def test_a_gift_is_placed_and_needs_stock() -> None:
    made = export(row(unit_price="0"))
    assert body(made.requests[0])["lines"][0]["unit_minor"] == 0
    assert made.pieces == {"22423": 2}


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"invoice": "C1001", "quantity": "-2"}, "credit_note"),
        ({"invoice": "C1001", "quantity": "-1", "stock_code": "M"}, "credit_note"),
        ({"invoice": "C1001", "quantity": "2"}, "positive_on_credit_note"),
        ({"stock_code": "M"}, "manual"),
        ({"stock_code": "D"}, "discount"),
        ({"stock_code": "ADJUST"}, "ledger"),
        ({"quantity": "-2"}, "negative_quantity"),
        ({"quantity": "0"}, "zero_quantity"),
        ({"unit_price": "-0.01"}, "negative_price"),
        ({"unit_price": "0.125"}, "sub_penny_price"),
        ({"unit_price": "123456789012.000000000000001"}, "sub_penny_price"),
        ({"unit_price": "£2.95"}, "malformed"),
        ({"unit_price": "NaN"}, "malformed"),
        ({"unit_price": "1e3"}, "malformed"),
        ({"unit_price": ""}, "malformed"),
        ({"quantity": "2.5"}, "malformed"),
        ({"quantity": "٣"}, "malformed"),
        ({"quantity": "9" * 4000}, "malformed"),
        ({"invoice_date": "2010-02-30T10:24:00"}, "malformed"),
        ({"invoice_date": "0001-01-01T00:00:00"}, "malformed"),
        ({"invoice_date": ""}, "malformed"),
        ({"invoice": ""}, "malformed"),
        ({"stock_code": " "}, "malformed"),
        ({"stock_code": "A/1"}, "malformed"),
        ({"quantity": "1000001"}, "malformed"),
        ({"country": "x" * 101}, "malformed"),
        ({"country": "Belgium,Europe"}, "malformed"),
    ],
)
def test_a_row_that_cannot_be_sold_is_set_aside_and_the_rest_is_placed(
    said: dict[str, str], reason: str
) -> None:
    made = export(row(stock_code="21212"), row(**said))
    assert [(aside.row, aside.reason) for aside in made.set_aside] == [(1, reason)]
    assert [line["sku"] for line in body(made.requests[0])["lines"]] == ["21212"]
    assert made.set_aside[0].detail.startswith(importer.REASONS[reason])


def test_an_invoice_that_contradicts_itself_is_set_aside_whole() -> None:
    made = export(row(), row(customer_id="12418"), row(invoice="1002"))
    assert [aside.reason for aside in made.set_aside] == ["conflicting_rows"] * 2
    assert [request.name for request in made.requests] == ["1002"]


@pytest.mark.parametrize(
    ("local", "moment"),
    [
        ("2010-01-04T10:24:00", "2010-01-04T10:24:00Z"),
        ("2010-07-04 10:24:00", "2010-07-04T09:24:00Z"),
        ("2010-10-31T01:30:00", "2010-10-31T00:30:00Z"),  # comes twice: the first one
        ("2010-07-04T10:24:00+02:00", "2010-07-04T08:24:00Z"),
    ],
)
def test_times_are_local_to_the_shop(local: str, moment: str) -> None:
    assert body(export(row(invoice_date=local)).requests[0])["placed_at"] == moment


def test_a_customer_gets_an_address_that_reaches_nobody_and_a_guest_none() -> None:
    known, guest, odd = export(
        row(), row(invoice="1002", customer_id=""), row(invoice="1003", customer_id="a b@c.com")
    ).requests
    assert body(known)["customer"] == {"id": "12417", "email": "customer-12417@example.invalid"}
    assert body(guest)["customer"] == {}
    assert body(odd)["customer"]["email"].endswith("@example.invalid")
    assert "c.com" not in body(odd)["customer"]["email"]


def test_a_spreadsheet_s_float_is_the_same_customer() -> None:
    (request,) = export(row(), row(stock_code="21212", customer_id="12417.0")).requests
    assert body(request)["customer"]["id"] == "12417"


def test_the_country_belongs_to_the_order() -> None:
    made = export(row(), row(invoice="1002", country="Spain"), row(invoice="1003", country=""))
    found = [body(request)["address"]["country"] for request in made.requests]
    assert found == ["Belgium", "Spain", "Unspecified"]


@pytest.mark.parametrize(("currency", "minor"), [("GBP", 1200), ("JPY", 12), ("KWD", 12000)])
def test_money_is_counted_in_the_currency_s_smallest_coin(currency: str, minor: int) -> None:
    made = plan((HEADER + row(unit_price="12.00")).encode(), Reading(currency=currency))
    assert body(made.requests[0])["lines"][0]["unit_minor"] == minor


def test_the_key_is_source_and_invoice_and_fits_a_header() -> None:
    made = plan((HEADER + row(invoice="A 1+ü")).encode(), Reading(source="shop-2"))
    assert made.requests[0].key == "import:shop-2:A%201%2B%C3%BC"


def test_the_stock_of_one_file_is_one_load() -> None:
    loads = [stock(plan(SAMPLE, Reading())) for _ in range(2)]
    assert loads[0] == loads[1]
    entries = [entry for part in loads[0] for entry in body(part)["entries"]]
    assert sum(entry["quantity"] for entry in entries) == EXPECTED["sample"][2]
    assert len({entry["sku"] for entry in entries}) == len(entries)


@pytest.mark.parametrize(
    ("reading", "code"),
    [
        (Reading(source="a shop"), "bad_source"),
        (Reading(currency="pounds"), "bad_currency"),
        (Reading(zone="Europe/Nowhere"), "unknown_zone"),
        (Reading(zone="../etc/passwd"), "unknown_zone"),
    ],
)
def test_a_reading_that_makes_no_sense_is_refused(reading: Reading, code: str) -> None:
    with pytest.raises(Usage) as refused:
        plan(SAMPLE, reading)
    assert refused.value.code == code


def sample_rows() -> list[dict[str, str]]:
    """The sample's rows as they stand, by column."""
    made = plan(SAMPLE, Reading())
    return [dict(zip(made.header, one.fields, strict=False)) for one in made.rows]


@pytest.mark.parametrize("code", ["POST", "M", "D", "ADJUST", "goods"])
def test_the_sample_holds_every_kind_of_credit_note(code: str) -> None:
    special = {"POST", "M", "D", "ADJUST", "C2"}
    found = [
        row
        for row in sample_rows()
        if row["invoice"].startswith("C") and not row["invoice"].startswith("C9999")
        if row["stock_code"] == code or (code == "goods" and row["stock_code"] not in special)
    ]
    assert found


def test_the_sample_holds_every_other_dirty_kind() -> None:
    rows = [row for row in sample_rows() if not row["invoice"].startswith(("C", "9999"))]
    codes = {row["stock_code"] for row in rows}
    assert {"POST", "C2", "M", "ADJUST"} <= codes
    assert any(Decimal(row["unit_price"]) == 0 for row in rows), "a gift"
    assert any(row["customer_id"] == "" for row in rows), "a guest"
    assert any(row["country"] == "Unspecified" for row in rows), "no country"
    assert max(Counter(tuple(row.values()) for row in rows).values()) > 1, "exact duplicates"
    lands = {(row["customer_id"], row["country"]) for row in rows if row["customer_id"]}
    assert max(Counter(customer for customer, _ in lands).values()) > 1, "two countries"
    prices = {(row["invoice"], row["stock_code"], row["unit_price"]) for row in rows}
    breaks = Counter((invoice, code) for invoice, code, _ in prices)
    assert max(breaks.values()) > 1, "one product at two prices"
    moments = [row["invoice_date"] for row in rows]
    assert moments != sorted(moments), "not sorted"


def test_the_sample_carries_its_notice_and_stays_small() -> None:
    notice = files(importer.SAMPLE[0]).joinpath("NOTICE").read_text()
    for said in ("Chen, D. (2019)", "https://doi.org/10.24432/C5CG6D", "CC BY 4.0", "9999"):
        assert said in notice
    invented = sum("INVENTED" in row["description"] for row in sample_rows())
    assert f"{len(sample_rows()) - invented:,} rows" in notice
    assert f"{invented} rows at the end are invented" in notice
    assert len(SAMPLE) < 200_000


@pytest.mark.parametrize("name", FILES)
def test_the_door_takes_every_order_as_it_is(name: str) -> None:
    made = plan(FILES[name], Reading())
    for request in made.requests:
        taken = msgspec.json.decode(request.body, type=OrderIn)
        assert (taken.order_ref, card_field(taken)) == (request.name, "")
    for part in stock(made):
        msgspec.json.decode(part.body, type=StockIn)


@pytest.mark.parametrize("name", FILES)
def test_the_door_accepts_every_order_and_replays_it(name: str) -> None:
    states: dict[Ref, Any] = {}
    for request in plan(FILES[name], Reading()).requests:
        call = Call(
            client=importer.CLIENT, now=NOW, idempotency_key=request.key,
            body=msgspec.json.decode(request.body, type=OrderIn), digest=str(hash(request.body)),
            may=(door.SUPPLIED_PRICES,),
        )  # fmt: skip
        first = door.place(states, call)
        assert first.reply.status == 202, first.reply.body
        states.update(first.done.states)
        again = door.place(states, call)
        assert again.reply.headers["Idempotent-Replayed"] == "true"
        assert again.done.events == ()


def test_the_door_loads_the_stock_once_and_says_so() -> None:
    states: dict[Ref, Any] = {}
    for known in (False, True):
        for part in stock(plan(SAMPLE, Reading())):
            call = Call(
                client=importer.CLIENT, now=NOW, may=(door.LOAD_STOCK,),
                body=msgspec.json.decode(part.body, type=StockIn),
            )  # fmt: skip
            taken = door.load_stock(states, call)
            assert taken.reply.status == 202
            assert importer.loaded_before(msgspec.json.encode(taken.reply.body)) is known
            states.update(taken.done.states)


def test_a_page_of_stock_is_read_as_the_door_shows_it() -> None:
    shelf = inventory.Shelf(location="main", on_hand=7)
    rows = [Row(key=sku, body=inventory.Stock(shelves=(shelf,))) for sku in ("A", "B", "C")]
    call = Call(client=importer.CLIENT, now=NOW, query={"limit": "2"})
    page = msgspec.json.encode(views.show_stock(call, {"stock": rows}).body)
    found, following = importer.on_hand(page)
    assert found == {"A": 7, "B": 7}
    assert following.endswith("&after=B")
    last = msgspec.json.encode(views.show_stock(call, {"stock": rows[:2]}).body)
    assert importer.on_hand(last) == ({"A": 7, "B": 7}, "")
