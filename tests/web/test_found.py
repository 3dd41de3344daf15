"""What fuzzing found at the door, each as the case it was: the shipped flow over a fresh home."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from penstock import assemble
from penstock.flows.orders.routes import (
    ORDER_EXAMPLE,
    PRICES_EXAMPLE,
    PROVIDER_EXAMPLE,
    SCAN_EXAMPLE,
    STOCK_EXAMPLE,
)
from tests.web.live import live
from tests.web.test_intake import problem

KEY = {"Idempotency-Key": "k"}
TOO_EARLY, TOO_LATE = "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"
CARRIAGE, PRICE = ORDER_EXAMPLE["lines"][1], PRICES_EXAMPLE["prices"][0]
ENTRY = STOCK_EXAMPLE["entries"][0]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of the shipped flow; what one case broke, the next one sees."""
    house = assemble.open_house(tmp_path_factory.mktemp("shop") / "home")
    assemble.prepare(house)
    with live(assemble.make_site(house, "127.0.0.1", 0)) as client:
        yield client


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("/orders?limit=" + "9" * 5000, "limit"),  # more digits than Python reads: it was a 500
        ("/orders?limit=many", "limit"),
        ("/orders?limit=0", "limit"),
        ("/stock?limit=1001", "limit"),
        ("/prices?limit=", "limit"),
        ("/orders?state=lost", "state"),
    ],
)
def test_a_parameter_of_another_type_is_refused(
    shop: httpx.Client, query: str, field: str
) -> None:
    said = problem(shop.get(query), 422, "invalid_value", field)
    assert said["fix"].startswith(f"{field} takes: ")


def test_the_states_to_filter_by_are_named(shop: httpx.Client) -> None:
    assert "completed" in shop.get("/orders?state=lost").json()["fix"]
    assert shop.get("/orders?state=completed&limit=1").status_code == 200


def test_a_value_without_a_name_is_refused(shop: httpx.Client) -> None:
    problem(shop.get("/orders?=x"), 400, "query_invalid")


def test_a_field_without_a_letter_is_named(shop: httpx.Client) -> None:
    reply = shop.post("/orders", json={**ORDER_EXAMPLE, "": 1}, headers=KEY)
    problem(reply, 422, "unknown_field", '""')


@pytest.mark.parametrize("time", [TOO_EARLY, TOO_LATE])
@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", "/orders", {**ORDER_EXAMPLE, "placed_at": ...}, "placed_at"),
        ("PUT", "/prices", {"prices": [PRICE, {**PRICE, "valid_from": ...}]},
         "prices[1].valid_from"),
        ("POST", "/stock", {"file": "f", "entries": [{**ENTRY, "as_of": ...}]},
         "entries[0].as_of"),
        ("POST", "/webhooks/carrier", {**SCAN_EXAMPLE, "at": ...}, "at"),
    ],
)  # fmt: skip
def test_a_time_that_no_calendar_holds_is_refused(
    shop: httpx.Client, method: str, path: str, body: Any, field: str, time: str
) -> None:
    """It was taken, and whatever showed it was a 500 from then on."""
    reply = shop.request(method, path, json=put(body, time), headers=KEY)
    problem(reply, 422, "time_out_of_range", field)
    assert shop.get("/prices").status_code == shop.get("/orders").status_code == 200


def put(body: Any, value: Any) -> Any:
    """The body with the value where it is left open."""
    if isinstance(body, dict):
        return {name: put(part, value) for name, part in body.items()}
    if isinstance(body, list):
        return [put(part, value) for part in body]
    return value if body is ... else body


@pytest.mark.parametrize("at", [10**20, -(10**20), 2**63, 253_402_300_800_000])
def test_so_is_one_in_milliseconds(shop: httpx.Client, at: int) -> None:
    reply = shop.post("/webhooks/carrier", json={**SCAN_EXAMPLE, "at": at})
    problem(reply, 422, "time_out_of_range", "at")


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999Z"])
def test_the_first_and_the_last_moment_are_shown(shop: httpx.Client, time: str) -> None:
    body = {"prices": [{**PRICE, "sku": time, "valid_from": time}]}
    assert shop.put("/prices", json=body).status_code == 200
    shown = {price["valid_from"][:19] for price in shop.get("/prices").json()["prices"]}
    assert time[:19] in shown


# `$` alone lets a newline through: a SKU, a currency or a key with one passed as if it had none.
LINES: dict[str, tuple[str, Any, str]] = {
    "sku": ("/orders", {**ORDER_EXAMPLE, "lines": [{**CARRIAGE, "sku": ...}]}, "lines[0].sku"),
    "currency": ("/orders", {**ORDER_EXAMPLE, "currency": ...}, "currency"),
    "email": ("/orders", {**ORDER_EXAMPLE, "customer": {"email": ...}}, "customer.email"),
    "reference": ("/webhooks/carrier", {**SCAN_EXAMPLE, "reference": ...}, "reference"),
    "order": ("/webhooks/payments", {**PROVIDER_EXAMPLE, "order": ...}, "order"),
    "file": ("/stock", {**STOCK_EXAMPLE, "file": ...}, "file"),
}
GOOD = {"currency": "GBP", "email": "ada@example.com", "reference": "ord_0/ord_0-1"}


@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize("end", ["\n", "\0", "\u202e", "\x9b31m"])
def test_a_name_holds_nothing_that_commands_a_terminal(
    shop: httpx.Client, name: str, end: str
) -> None:
    path, body, field = LINES[name]
    reply = shop.post(path, json=put(body, GOOD.get(name, "name") + end), headers=KEY)
    problem(reply, 422, "invalid_value", field)


def test_a_long_text_may_have_lines_and_any_script(shop: httpx.Client) -> None:
    text = "first line\nsecond: שלום, \u200fसाड़ी, 👩\u200d🔧"
    lines = [{**CARRIAGE, "description": text}]
    body = {**ORDER_EXAMPLE, "lines": lines, "expected_total": None}
    reply = shop.post("/orders", json=body, headers={"Idempotency-Key": "script"})
    assert reply.status_code == 202
    assert shop.get(reply.json()["href"]).json()["lines"][0]["description"] == text


def test_the_place_of_stock_has_no_slash(shop: httpx.Client) -> None:
    """Two entries of two files had one name: the second one was taken for the first."""
    entry = {"sku": "s", "location": "a/b", "quantity": 1}
    reply = shop.post("/stock", json={"file": "f", "entries": [entry]})
    problem(reply, 422, "invalid_value", "entries[0].location")
    for file in ("f", "f/s"):
        sku = {"f": "s", "f/s": "a"}[file]
        entry = {"sku": sku, "location": "b", "quantity": 1}
        reply = shop.post("/stock", json={"file": file, "entries": [entry]})
        assert reply.json() == {"accepted": 1, "repeated": 0}


def test_a_whole_number_is_written_without_a_fraction(shop: httpx.Client) -> None:
    lines = [{**CARRIAGE, "unit_minor": 395.0}]
    reply = shop.post("/orders", json={**ORDER_EXAMPLE, "lines": lines}, headers=KEY)
    problem(reply, 422, "invalid_value", "lines[0].unit_minor")


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "identity, gzip"])
def test_a_compressed_body_is_not_taken(shop: httpx.Client, encoding: str) -> None:
    headers = {**KEY, "Content-Encoding": encoding}
    reply = shop.post("/orders", json=ORDER_EXAMPLE, headers=headers)
    problem(reply, 415, "encoded_body", "Content-Encoding")
    headers = {"Idempotency-Key": "plain", "Content-Encoding": "Identity"}
    assert shop.post("/orders", json=ORDER_EXAMPLE, headers=headers).status_code == 202


def test_a_form_is_not_taken_however_large_its_text(shop: httpx.Client) -> None:
    reply = shop.post("/orders", data={"text": "x" * 200_000}, files={"file": b""}, headers=KEY)
    problem(reply, 415, "not_json_type", "Content-Type")


@pytest.mark.parametrize("path", ["/orders", "/prices", "/orders/x/cancel", "/healthz"])
def test_options_tell_all_that_a_path_takes(shop: httpx.Client, path: str) -> None:
    """The framework answered for its own routes alone, and left the others out."""
    asked, tried = shop.options(path), shop.delete(path)
    problem(asked, 405, "method_not_allowed")
    assert asked.headers["allow"] == tried.headers["allow"]
    problem(shop.options("/nowhere"), 404, "not_found")
