"""What is no HTTP, and heads that do not end: answered as a problem, and cut off."""

from __future__ import annotations

import json
import socket
from typing import Any

import httpx
import pytest

from penstock.limits import HEAD_BYTES_MAX
from penstock.web import framing
from tests.web.live import live
from tests.web.small import Library

HEAD = b"POST /books HTTP/1.1\r\nHost: localhost\r\n"


def talk(door: httpx.Client, *pieces: bytes) -> bytes:
    """All that comes back until the server hangs up."""
    where = (str(door.base_url.host), int(door.base_url.port or 0))
    with socket.create_connection(where, timeout=20) as line:
        try:
            for piece in pieces:
                line.sendall(piece)
        except ConnectionError:
            pass  # it hung up while we still talked; its answer is here all the same
        return b"".join(iter(lambda: line.recv(65536), b""))


def problem(answer: bytes) -> dict[str, Any]:
    """The answer's problem document; the connection is announced to close."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert b"content-type: application/problem+json" in lines, answer[:300]
    assert b"content-length: %d" % len(body) in lines
    assert b"connection: close" in lines
    said: dict[str, Any] = json.loads(body)
    assert head.split()[1] == b"%d" % said["status"]
    return said


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100 + b"\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        HEAD + b"Content-Length: -5\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 50\r\n\r\n{}",
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n{}\r\n",
        HEAD + b"Idempotency-Key: a\0b\r\n\r\n",
        HEAD + b"Idempotency-Key: a\nX: b\r\n\r\n",
        HEAD + b"Bad Name: a\r\n\r\n",
    ],
    ids=["TLS", "version", "path", "connect", "negative length", "two lengths", "length and chunks",
         "chunk", "NUL", "line feed", "header name"],
)  # fmt: skip
def test_what_is_no_http_is_told_so(door: httpx.Client, raw: bytes) -> None:
    said = problem(talk(door, raw))
    assert said["status"] == 400
    assert said["code"]
    assert door.get("/healthz").status_code == 200


@pytest.mark.parametrize("row", [b"X-More: of the same\r\n", b"x"], ids=["headers", "one header"])
def test_a_head_without_end_is_cut_off(door: httpx.Client, row: bytes) -> None:
    # One byte more than is taken: what lies unread when a server hangs up costs its last words.
    rows = (HEAD + b"X: " + row * HEAD_BYTES_MAX)[: HEAD_BYTES_MAX + 1]
    said = problem(talk(door, *(rows[n : n + 8192] for n in range(0, len(rows), 8192))))
    assert (said["status"], said["code"]) == (431, "head_too_large")
    assert str(HEAD_BYTES_MAX) in said["detail"]
    assert door.get("/healthz").status_code == 200


def test_a_head_that_does_not_come_is_given_up(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(framing, "HEAD_SECONDS_MAX", 0.2)
    with live(library.site) as door:
        said = problem(talk(door, HEAD))
        assert (said["status"], said["code"]) == (408, "head_too_slow")
        assert talk(door) == b"", "who says nothing is let go without a word"
        second = HEAD + b"Idempotency-Key: k\r\nContent-Type: application/json\r\n"
        whole = second + b'Content-Length: 14\r\n\r\n{"title": "a"}'
        answers = talk(door, whole, HEAD)
        assert answers.startswith(b"HTTP/1.1 202")
        assert b"head_too_slow" in answers, "a second request on a line that is kept"


def test_a_long_head_is_taken(door: httpx.Client) -> None:
    headers = {f"X-{n}": "y" * 1000 for n in range(50)}
    assert door.get("/healthz", headers=headers).status_code == 200
