"""Hostile bytes at the live entrances: each is answered or parked, and everything goes on."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from penstock import assemble
from penstock.event import Message, root_id
from penstock.flows.orders.routes import ORDER_EXAMPLE
from penstock.limits import BODY_BYTES_MAX, VALUE_BYTES_MAX
from penstock.sim.audit.files import books_of
from penstock.web.requests import BODY_SECONDS_MAX
from tests.crash.rig import Client, Shop, open_shop, select
from tests.support import eventually

ANSWER_SECONDS = 5.0  # for whatever is not slow by itself


@pytest.fixture(scope="module")
def shop_and_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shop, Client]]:
    """One shop for all of it: what one attack broke, the next one sees."""
    with open_shop(tmp_path_factory.mktemp("shop")) as both:
        both[1].stock("TEAPOT", 1000)
        yield both


def order(**changes: Any) -> bytes:
    """The example of an order with other fields."""
    return json.dumps({**ORDER_EXAMPLE, **changes}).encode()


def line(**changes: Any) -> bytes:
    """The example of an order with another first line."""
    lines: list[dict[str, Any]] = ORDER_EXAMPLE["lines"]
    return order(lines=[{**lines[0], **changes}, *lines[1:]])


GOOD = order()
# What is sent, and the status and the words that the answer must have.
HOSTILE: dict[str, tuple[bytes, int, str]] = {
    "nothing": (b"", 400, "empty"),
    "no JSON": (b"{,}", 400, "JSON"),
    "cut short": (GOOD[:-5], 400, ""),
    "two values": (GOOD + b"{}", 400, ""),
    "a list": (b"[]", 422, ""),
    "a byte order mark": (b"\xef\xbb\xbf" + GOOD, 400, ""),
    "UTF-16": (GOOD.decode().encode("utf-16"), 400, ""),
    "no UTF-8": (GOOD.replace(b"London", b"L\xff\xfen"), 400, "UTF-8"),
    "half a surrogate": (GOOD.replace(b"London", b"\\ud800"), 400, ""),
    "NaN": (GOOD.replace(b"1250", b"NaN"), 400, ""),
    "infinity": (GOOD.replace(b"1250", b"1e999"), 400, ""),
    "a fraction": (line(unit_minor=12.5), 422, "unit_minor"),
    "negative": (line(unit_minor=-1), 422, "unit_minor"),
    "none of it": (line(quantity=0), 422, "quantity"),
    "too many": (line(quantity=10**9), 422, "quantity"),
    "overflowing": (line(unit_minor=2**63), 422, "unit_minor"),
    "endless digits": (GOOD.replace(b"1250", b"9" * 5000), 400, "unit_minor"),
    "a field twice": (GOOD[:-1] + b', "currency": "EUR"}', 400, "currency"),
    "a field unknown": (order(price=1), 422, "price"),
    "deep": (b'{"lines":' + b"[" * 50_000 + b"]" * 50_000 + b"}", 400, "deep"),
    "huge": (order(order_ref="x" * BODY_BYTES_MAX), 413, str(BODY_BYTES_MAX)),
    "many lines": (order(lines=[{"sku": "a", "quantity": 1}] * 5000), 422, "lines"),
    "a card number": (order(order_ref="4111 1111 1111 1111"), 422, "order_ref"),
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_hostile_order_is_answered_with_its_reason(
    shop_and_client: tuple[Shop, Client], attack: str
) -> None:
    shop, client = shop_and_client
    body, status, words = HOSTILE[attack]
    began = time.monotonic()
    reply = httpx.post(
        f"{shop.url}/orders", content=body, timeout=20, trust_env=False,
        headers={"Idempotency-Key": f"hostile-{attack}", "Content-Type": "application/json"},
    )  # fmt: skip
    assert time.monotonic() - began < ANSWER_SECONDS
    is_problem(reply, status, words)
    assert client.get("/healthz").status_code == 200


def is_problem(reply: httpx.Response, status: int, words: str) -> None:
    """It is an RFC 9457 problem with that status, and it says these words."""
    assert reply.status_code == status, reply.text[:500]
    assert reply.headers["content-type"] == "application/problem+json"
    said = reply.json()
    assert said["status"] == status
    assert said["code"]
    assert words.lower() in json.dumps(said).lower(), said
    assert len(reply.content) < 4000, "the answer repeats the attack"


@pytest.mark.parametrize(
    ("header", "value", "status", "field"),
    [
        ("Idempotency-Key", "", 400, "Idempotency-Key"),
        ("Idempotency-Key", "k" * 5000, 400, "Idempotency-Key"),
        ("Idempotency-Key", "caf\u00e9", 400, "Idempotency-Key"),
        ("Content-Type", "text/plain", 415, "Content-Type"),
        ("Content-Type", "application/json-seq", 415, "Content-Type"),
        ("Host", "evil.example", 421, "Host"),
        ("Origin", "https://evil.example", 403, "Origin"),
        ("Penstock-Client", "../../etc", 400, "Penstock-Client"),
    ],
)
def test_a_hostile_header_is_named(
    shop_and_client: tuple[Shop, Client], header: str, value: str, status: int, field: str
) -> None:
    shop, _ = shop_and_client
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json", header: value}
    raw = [(name.encode(), said.encode()) for name, said in headers.items()]
    reply = httpx.post(f"{shop.url}/orders", content=GOOD, headers=raw, trust_env=False)
    is_problem(reply, status, field)


def talk(shop: Shop, *parts: bytes) -> bytes:
    """What the server answers to raw bytes, until it hangs up or is done."""
    with closing(socket.create_connection(("127.0.0.1", shop.port), timeout=20)) as line_:
        for part in parts:
            line_.sendall(part)
        answer = b""
        while b"\r\n0\r\n" not in answer and b'"}' not in answer and (got := line_.recv(65536)):
            answer += got
        return answer


HEAD = (
    b"POST /orders HTTP/1.1\r\nHost: 127.0.0.1\r\nIdempotency-Key: %s\r\n"
    b"Content-Type: application/json\r\n"
)


def test_chunks_without_a_length_are_bounded(shop_and_client: tuple[Shop, Client]) -> None:
    shop, client = shop_and_client
    head = HEAD % b"chunks" + b"Transfer-Encoding: chunked\r\n\r\n"
    chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    answer = talk(shop, head, *[chunk] * (BODY_BYTES_MAX // 0x8000 + 1))
    assert answer.startswith(b"HTTP/1.1 413 ")
    small = b"%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD)
    assert talk(shop, HEAD % b"small", b"Transfer-Encoding: chunked\r\n\r\n", small).startswith(
        b"HTTP/1.1 202 "
    )
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100 + b"\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /orders HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -5\r\n\r\n",
        HEAD % b"two" + b"Content-Length: 5\r\nContent-Length: 50\r\n\r\n{}",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    ],
    ids=["TLS", "version", "negative length", "two lengths", "long path"],
)
def test_what_is_no_http_harms_nobody(shop_and_client: tuple[Shop, Client], raw: bytes) -> None:
    shop, client = shop_and_client
    try:
        answer = talk(shop, raw)
    except ConnectionError:
        answer = b""  # it hung up while we still talked
    assert answer[:12] in (b"", b"HTTP/1.1 400", b"HTTP/1.1 421", b"HTTP/1.1 431")
    assert client.get("/healthz").status_code == 200


def test_slow_bodies_are_given_up_and_hold_nobody_up(
    shop_and_client: tuple[Shop, Client],
) -> None:
    shop, client = shop_and_client
    began = time.monotonic()
    lines = [socket.create_connection(("127.0.0.1", shop.port), timeout=30) for _ in range(50)]
    try:
        for n, slow in enumerate(lines):
            slow.sendall(HEAD % b"slow-%d" % n + b"Content-Length: 100\r\n\r\n{")
        client.order("TEAPOT")
        assert time.monotonic() - began < ANSWER_SECONDS
        for slow in lines:
            assert slow.recv(65536).startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - began < BODY_SECONDS_MAX + ANSWER_SECONDS
    finally:
        for slow in lines:
            slow.close()


# Records -----------------------------------------------------------------------------------------

PLACED = "order.placed"
RECORDS: dict[str, tuple[str, int, bytes]] = {
    "garbage": (PLACED, 2, b"\xff\x00{garbage"),
    "another shape": (PLACED, 2, b'{"lines": "none"}'),
    "deep": (PLACED, 2, b'{"lines":' + b"[" * 100_000),
    "huge": (PLACED, 2, b'"' + b"a" * (VALUE_BYTES_MAX - 2) + b'"'),
    "too large": (PLACED, 2, b" " * (VALUE_BYTES_MAX + 1)),
    "empty": (PLACED, 2, b""),
    "an older shape that lies": (PLACED, 1, b'{"total": "much"}'),
    "no type": ("", 0, b"{}"),
    "an impossible version": (PLACED, -7, b"{}"),
}

UNREAD = {"an unread type": "order.exploded", "an impossible type": "../order placed"}


def append(shop: Shop, key: str, type_: str, version: int, value: bytes) -> None:
    """A record straight into the log of ``orders``, past the door."""
    log = assemble.make_log(assemble.open_house(shop.home))
    now = time.time_ns() // 1_000_000
    id_ = root_id(now, "test", key)
    log.append("orders", [Message(key, value, id_, type_, version, now, source="test")], now)
    log.close()


def kept(shop: Shop, service: str, key: str) -> list[bytes]:
    """The bytes of a key's parked records."""
    sql = "SELECT message FROM waiting WHERE state = 'parked' AND key = ?"
    rows = select(shop.home / f"{service}.db", sql, key)
    return [msgspec.msgpack.decode(message)[1] for (message,) in rows]


def test_hostile_records_are_parked_and_the_partition_moves_on(tmp_path: Path) -> None:
    with open_shop(tmp_path) as (shop, client):
        client.stock("TEAPOT", 100)
        before = shop.pids()
        for key, (type_, version, value) in RECORDS.items():
            append(shop, key, type_, version, value)
        for key, type_ in UNREAD.items():
            append(shop, key, type_, 1, b"\xff")
        placed = set(client.mixed("TEAPOT", 10))
        for key, (_, _, value) in RECORDS.items():
            eventually(lambda k=key: kept(shop, "payment", k), what=f"{key} is parked")
            assert kept(shop, "payment", key) == [value], key
        assert not any(kept(shop, "payment", key) for key in UNREAD)
        eventually(lambda: placed <= final(client), 30, what="every order ends")
        letters = client.get("/deadletters?service=payment").json()["deadletters"]
        assert {letter["key"] for letter in letters} == RECORDS.keys()
        assert client.get("/").status_code == 200
        assert shop.pids() == before, "somebody died of it"
        assert shop.stop() == 0
        assert not books_of(shop.home).flaws


def final(client: Client) -> set[str]:
    """Orders that have ended."""
    return {o["order_id"] for o in client.get("/orders").json()["orders"] if o["final"]}


def test_an_unknown_schema_holds_its_lane_only_and_says_so(tmp_path: Path) -> None:
    with open_shop(tmp_path) as (shop, client):
        client.stock("TEAPOT", 100)
        append(shop, "tomorrow", PLACED, 3, b'{"of": "tomorrow"}')
        eventually(lambda: "order.placed/3 is not known here" in client.get("/status").text)
        (held,) = [f for f in books_of(shop.home).topics["orders"] if f.key == "tomorrow"]
        orders = {client.order("TEAPOT") for _ in range(20)}
        others = {
            f.key for f in books_of(shop.home).topics["orders"]
            if f.key in orders and f.partition != held.partition
        }  # fmt: skip
        assert others
        eventually(lambda: others <= completed(client), 20, what="the other lanes flow")
        assert completed(client) <= others


def completed(client: Client) -> set[str]:
    """Orders that are completed."""
    return {o["order_id"] for o in client.get("/orders?state=completed").json()["orders"]}


def test_after_all_that_orders_still_end_right(shop_and_client: tuple[Shop, Client]) -> None:
    shop, client = shop_and_client
    orders = {client.order("TEAPOT") for _ in range(10)}
    eventually(lambda: orders <= completed(client), 20, what="all complete")
    assert shop.said().count(" ended (") == 0, "somebody died of it"
