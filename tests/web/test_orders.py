"""The shipped flow through the live door: one key, one event, however many ask at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import apsw
import httpx

from penstock.flows.orders.routes import ORDER_EXAMPLE
from tests.web.live import in_a_loop, shop

CALLS, CONNECTIONS = 1000, 64
URL = "/orders"
KEY = {"Idempotency-Key": "the-one"}


async def _all_at_once(base_url: str, count: int = CALLS) -> list[httpx.Response]:
    limits = httpx.Limits(max_connections=CONNECTIONS)
    async with httpx.AsyncClient(
        base_url=base_url, limits=limits, timeout=60, trust_env=False
    ) as door:
        calls = (door.post(URL, json=ORDER_EXAMPLE, headers=KEY) for _ in range(count))
        return await asyncio.gather(*calls)


def test_a_thousand_calls_with_one_key_make_one_order(home: Path) -> None:
    with shop(home) as door:
        replies = in_a_loop(lambda: _all_at_once(str(door.base_url)))
        assert Counter(reply.status_code for reply in replies) == {202: CALLS}
        assert len({reply.json()["order_id"] for reply in replies}) == 1
        fresh = [r for r in replies if "idempotent-replayed" not in r.headers]
        assert len(fresh) == 1
        said = door.get("/status").json()
        (topic,) = [t for t in said["topics"] if t["topic"] == "orders"]
        assert topic["records"] == 1
        assert said["intake"]["requests"] == CALLS
        assert said["intake"]["groups"] < CALLS, "requests share commits"


def test_two_doors_on_one_home_take_turns_and_make_one_order(home: Path) -> None:
    with shop(home) as first, shop(home) as second:
        urls = [str(door.base_url) for door in (first, second)]

        async def both() -> list[httpx.Response]:
            halves = await asyncio.gather(*(_all_at_once(url, 100) for url in urls))
            return [reply for half in halves for reply in half]

        replies = in_a_loop(both)
        assert Counter(reply.status_code for reply in replies) == {202: 200}
        assert len({reply.json()["order_id"] for reply in replies}) == 1
        (topic,) = [t for t in first.get("/status").json()["topics"] if t["topic"] == "orders"]
        assert topic["records"] == 1


def test_a_second_call_waits_a_second_for_the_first_and_no_longer(home: Path) -> None:
    async def twice(base_url: str) -> list[httpx.Response]:
        writer = apsw.Connection(str(home / "door.db"))
        writer.execute("BEGIN IMMEDIATE")  # nothing can be made durable until this ends
        async with httpx.AsyncClient(base_url=base_url, timeout=60, trust_env=False) as door:
            calls = {
                asyncio.create_task(door.post(URL, json=ORDER_EXAMPLE, headers=KEY))
                for _ in range(2)
            }
            done, waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            writer.execute("ROLLBACK")
            writer.close()
            return [call.result() for call in done] + [await call for call in waiting]

    with shop(home) as door:
        second, first = in_a_loop(lambda: twice(str(door.base_url)))
        assert (second.status_code, second.json()["code"]) == (409, "key_in_flight")
        assert second.headers["retry-after"] == "1"
        assert first.status_code == 202
        again = door.post(URL, json=ORDER_EXAMPLE, headers=KEY)
        assert again.json() == first.json()


def test_another_body_under_the_key_is_refused(home: Path) -> None:
    with shop(home) as door:
        assert door.post(URL, json=ORDER_EXAMPLE, headers=KEY).status_code == 202
        reply = door.post(URL, json={**ORDER_EXAMPLE, "order_ref": "x"}, headers=KEY)
        assert (reply.status_code, reply.json()["code"]) == (422, "idempotency_key_reused")
        other = door.post(URL, json=ORDER_EXAMPLE, headers={**KEY, "Penstock-Client": "importer"})
        assert other.status_code == 202
        assert "idempotent-replayed" not in other.headers


def test_an_accepted_order_is_there_at_once_and_after_a_restart(home: Path) -> None:
    with shop(home) as door:
        placed = door.post(URL, json=ORDER_EXAMPLE, headers=KEY)
        order = placed.headers["location"]
        assert door.get(order).json()["state"] == "received"
    with shop(home) as door:
        assert door.get(order).json()["state"] == "received"
        again = door.post(URL, json=ORDER_EXAMPLE, headers=KEY)
        assert again.json() == placed.json()


def test_bad_lines_are_named(home: Path) -> None:
    wrong = {**ORDER_EXAMPLE, "lines": [{**ORDER_EXAMPLE["lines"][0], "quantity": 0}]}
    with shop(home) as door:
        reply = door.post(URL, json=wrong, headers=KEY)
    assert reply.status_code == 422
    assert reply.json()["errors"][0]["field"] == "lines[0].quantity"


def test_supplied_prices_need_their_permission(home: Path) -> None:
    with shop(home) as door:
        nobody = {**KEY, "Penstock-Client": "passer-by"}
        reply = door.post(URL, json=ORDER_EXAMPLE, headers=nobody)
    assert reply.status_code == 403
    assert reply.json()["errors"][0]["field"] == "lines[0].unit_minor"


def test_the_page_of_an_empty_home_says_what_to_do(home: Path) -> None:
    with shop(home) as door:
        text = door.get("/").text
        assert "No orders yet. Try: ./penstock orders place" in text
        placed = door.post(URL, json=ORDER_EXAMPLE, headers=KEY).json()
        detail = door.get(f"/ui/order/{placed['order_id']}")
        assert detail.status_code == 200
        assert "28.95 GBP" in detail.text
