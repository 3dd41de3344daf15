"""What is let in, and what is refused by name: every entrance of a route that writes."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from penstock.flow import Scan
from penstock.limits import BODY_BYTES_MAX, BULK_BYTES_MAX
from penstock.web import requests
from tests.web.live import live
from tests.web.small import Library

BOOK = {"title": "Faust"}
JSON = {"content-type": "application/json"}


def post(door: httpx.Client, content: Any, /, **headers: str) -> httpx.Response:
    """A POST of raw bytes with a key."""
    given = {"idempotency-key": "k", **JSON, **{k.replace("_", "-"): v for k, v in headers.items()}}
    return door.post("/books", content=content, headers={k: v for k, v in given.items() if v})


def problem(reply: httpx.Response, status: int, code: str, field: str = "") -> dict[str, Any]:
    """The reply's problem, checked against what RFC 9457 and our API promise."""
    said: dict[str, Any] = reply.json()
    assert reply.headers["content-type"] == "application/problem+json"
    assert (reply.status_code, said["status"], said["code"]) == (status, status, code), said
    assert said["type"] == f"urn:penstock:problem:{code}"
    assert said["title"]
    assert said["detail"]
    assert [error["field"] for error in said.get("errors", [])] == ([field] if field else [])
    return said


def test_what_was_answered_is_durable_and_an_event(door: httpx.Client, library: Library) -> None:
    reply = door.post("/books", json=BOOK, headers={"Idempotency-Key": "b-1"})
    assert reply.status_code == 202
    assert reply.headers["location"] == "/books/b-1"
    assert reply.json()["title"] == "Faust"
    rows = library.store.scan(Scan(service="door", kind="book", key="b-1"))
    assert len(rows) == 1
    extents = library.site.log.extent("books")
    assert sum(extent.next for extent in extents) == 1


def test_a_repeat_is_replayed_and_another_body_refused(door: httpx.Client) -> None:
    first = post(door, b'{"title": "Faust"}')
    again = post(door, b'{"title": "Faust"}')
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
    problem(post(door, b'{"title": "Medea"}'), 422, "idempotency_key_reused")


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        (b"", 400, "body_missing", ""),
        (b"{", 400, "not_json", ""),
        (b"\xff{}", 400, "not_utf8", ""),
        (b'{"title": "a", "title": "b"}', 400, "duplicate_key", "title"),
        (b'{"title": "a", "pages": [{"number": NaN}]}', 400, "number_not_finite",
         "pages[0].number"),
        (b'{"title": "a", "pages": [{"number": 1e999}]}', 400, "number_not_finite",
         "pages[0].number"),
        (b"[" * 100_000, 400, "too_deep", ""),
        (b'{"title": "\\ud800"}', 400, "lone_surrogate", ""),
        (b"{}", 422, "missing_field", "title"),
        (b'{"title": ""}', 422, "invalid_value", "title"),
        (b'{"title": "a", "pages": [{"number": 1}, {"number": -1}]}', 422, "invalid_value",
         "pages[1].number"),
        (b'{"title": "a", "price": 1}', 422, "unknown_field", "price"),
        (b"[]", 422, "invalid_value", ""),
    ],
)  # fmt: skip
def test_bad_bodies_are_refused_naming_the_field(
    door: httpx.Client, body: bytes, status: int, code: str, field: str
) -> None:
    problem(post(door, body), status, code, field)
    assert door.get("/books").json()["books"] == []


@pytest.mark.parametrize(
    ("key", "code"),
    [
        ("", "idempotency_key_missing"),
        ("x" * 256, "idempotency_key_too_long"),
        ("schlüssel".encode(), "idempotency_key_invalid"),
        (b"a\tb", "idempotency_key_invalid"),
    ],
)
def test_bad_keys_are_refused(door: httpx.Client, key: str | bytes, code: str) -> None:
    raw = key.encode() if isinstance(key, str) else key
    headers = [(b"content-type", b"application/json"), *([(b"idempotency-key", raw)] * bool(raw))]
    reply = door.post("/books", json=BOOK, headers=headers)
    problem(reply, 400, code, "Idempotency-Key")


def test_two_keys_are_no_key(door: httpx.Client) -> None:
    headers = [("idempotency-key", "a"), ("Idempotency-Key", "b")]
    problem(door.post("/books", json=BOOK, headers=headers), 400, "header_twice", "idempotency-key")


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded"])
def test_other_content_types_are_refused(door: httpx.Client, kind: str) -> None:
    reply = post(door, b'{"title": "a"}', content_type=kind)
    problem(reply, 415, "not_json_type", "Content-Type")


def test_json_may_say_its_charset(door: httpx.Client) -> None:
    kind = "application/json; charset=utf-8"
    assert post(door, b'{"title": "a"}', content_type=kind).status_code == 202


def test_a_body_over_the_limit_is_refused_while_it_is_read(door: httpx.Client) -> None:
    problem(post(door, b" " * (BODY_BYTES_MAX + 1)), 413, "too_large")

    def endless() -> Iterator[bytes]:
        for _ in range(BODY_BYTES_MAX // 65_536 + 2):
            yield b" " * 65_536

    problem(post(door, endless()), 413, "too_large")
    assert post(door, b'{"title": "a"}' + b" " * (BODY_BYTES_MAX - 14)).status_code == 202


def test_bulk_routes_take_more_from_those_who_may(door: httpx.Client) -> None:
    books = [{"title": "x" * 100}] * (BODY_BYTES_MAX // 50)
    refused = door.put("/shelf", json={"books": books})
    problem(refused, 403, "permission_missing")
    filled = door.put("/shelf", json={"books": books}, headers={"Penstock-Client": "filler"})
    assert filled.json() == {"taken": len(books)}
    huge = door.put("/shelf", content=b" " * (BULK_BYTES_MAX + 1),
                    headers={"Penstock-Client": "filler", **JSON})  # fmt: skip
    problem(huge, 413, "too_large")


def test_a_body_that_does_not_come_is_given_up(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "BODY_SECONDS_MAX", 0.2)
    with live(library.site) as door, socket.create_connection(
        (door.base_url.host, door.base_url.port), timeout=10
    ) as line:
        line.sendall(
            b"POST /books HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: k\r\n"
            b"Content-Type: application/json\r\nContent-Length: 10\r\n\r\n{"
        )
        said = b"".join(iter(lambda: line.recv(4096), b""))
    assert said.startswith(b"HTTP/1.1 408")
    assert b"body_too_slow" in said


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "-x"])
def test_ill_client_names_are_refused(door: httpx.Client, name: str) -> None:
    reply = door.post("/bug", headers={"Penstock-Client": name})
    problem(reply, 400, "client_invalid", "Penstock-Client")


def test_unknown_query_parameters_are_named(door: httpx.Client) -> None:
    problem(door.get("/books?befor=x"), 400, "unknown_parameter", "befor")
    problem(door.get("/books?after=x&after=y"), 400, "parameter_twice", "after")
    problem(door.get("/books?after=%ff"), 400, "query_invalid")


def test_a_route_without_a_body_takes_none_or_an_empty_object(door: httpx.Client) -> None:
    post(door, b'{"title": "a"}')
    assert door.post("/books/k/touch").json() == {"touched": 1, "found": 1, "may": []}
    assert door.post("/books/k/touch", json={}).json()["touched"] == 2
    problem(door.post("/books/k/touch", json={"x": 1}), 400, "body_not_expected")
    problem(door.post("/books/none/touch"), 404, "book_unknown", "id")


def test_the_client_s_permissions_reach_the_decision(door: httpx.Client) -> None:
    post(door, b'{"title": "a"}')
    reply = door.post("/books/k/touch", headers={"Penstock-Client": "filler"})
    assert reply.json()["may"] == ["fill"]


def test_paths_and_methods(door: httpx.Client) -> None:
    problem(door.get("/nowhere"), 404, "not_found")
    refused = door.get("/shelf")
    problem(refused, 405, "method_not_allowed")
    assert refused.headers["allow"] == "PUT"
    assert door.delete("/books").headers["allow"] == "GET, HEAD, POST"
    problem(door.get("/books/none"), 404, "book_unknown", "id")
    assert door.head("/books").status_code == 200


def test_a_bug_costs_its_own_request_only(door: httpx.Client) -> None:
    problem(door.post("/bug"), 500, "internal_error")
    assert post(door, b'{"title": "a"}').status_code == 202


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", ""])
def test_a_rebound_name_is_not_answered(door: httpx.Client, host: str) -> None:
    problem(door.get("/books", headers={"Host": host}), 421, "host_unknown", "Host")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:1", "[::1]:8080"])
def test_names_of_this_machine_are_answered(door: httpx.Client, host: str) -> None:
    assert door.get("/healthz", headers={"Host": host}).status_code == 200


def test_a_name_that_it_was_given_is_answered(tmp_path: Path) -> None:
    library = Library(tmp_path, host="0.0.0.0", names=("Shop.example", "web"))
    with live(library.site) as client:
        for host, status in (("shop.example", 200), ("web:8080", 200), ("evil.example", 421)):
            assert client.get("/health/live", headers={"Host": host}).status_code == status


def test_pages_of_other_origins_may_not_write(door: httpx.Client) -> None:
    other = door.post("/books", json=BOOK, headers={"Origin": "http://evil.example"})
    problem(other, 403, "other_origin", "Origin")
    cross = door.post("/books", json=BOOK, headers={"Sec-Fetch-Site": "cross-site"})
    problem(cross, 403, "other_origin", "Origin")
    same = f"http://{door.base_url.host}:{door.base_url.port}"
    headers = {"Origin": same, "Sec-Fetch-Site": "same-origin", "Idempotency-Key": "k"}
    assert door.post("/books", json=BOOK, headers=headers).status_code == 202


def test_a_trace_is_accepted_or_made(door: httpx.Client, library: Library) -> None:
    given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    for key, trace in (("a", given), ("b", "nonsense"), ("c", "")):
        post(door, b'{"title": "a"}', idempotency_key=key, traceparent=trace)
    records = [r for p in range(4) for r in library.site.log.read("books", p, 0, 10)]
    traces = {r.message.key: r.message.trace for r in records}
    assert traces["a"] == given
    assert all(len(trace) == 55 and trace.startswith("00-") for trace in traces.values())
    assert len(set(traces.values())) == 3
    assert all(not r.message.notes for r in records)


def test_a_door_without_a_gate_reads_only(library: Library) -> None:
    with live(replace(library.site, gate=None)) as door:
        problem(post(door, b'{"title": "a"}'), 503, "read_only")
        assert door.get("/books").status_code == 200
