"""A door on loopback that keeps the door's promises to an importer, and may be told to fail.

It answers what the contract of the door says: 202, the same again under the same key, 422 for
another body, and whatever it is told to answer first.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

Answer = tuple[int, dict[str, str], Any]


class LoopbackDoor:
    """What the door remembers: calls by client and key, and pieces on hand by SKU."""

    def __init__(self, *, sandbox: bool = True, page_rows: int = 1000) -> None:
        self.sandbox, self.page_rows = sandbox, page_rows
        self.placed: dict[str, dict[str, Any]] = {}
        self.pieces: dict[str, int] = {}
        self.clients: set[str] = set()
        self.calls = 0
        self.first: dict[str, list[Answer]] = {}  # per key: answers before the true one
        self.url = ""
        self._bodies: dict[tuple[str, str], bytes] = {}
        self._lock = threading.Lock()

    def get(self, target: str) -> Answer:
        """The answer to a GET."""
        parts = urlsplit(target)
        if parts.path == "/status":
            return 200, {}, {"sandbox": self.sandbox}
        after = parse_qs(parts.query).get("after", [""])[0]
        skus = sorted(sku for sku in self.pieces if sku > after)
        page = skus[: self.page_rows]
        rows = [{"sku": sku, "on_hand": self.pieces[sku]} for sku in page]
        return 200, {}, {"stock": rows, "next": page[-1] if len(skus) > len(page) else None}

    def post(self, path: str, client: str, key: str, body: bytes) -> Answer:
        """The answer to a POST; one lock stands for the door's group commit."""
        with self._lock:
            self.calls += 1
            if self.first.get(key):
                return self.first[key].pop(0)
            kept = self._bodies.setdefault((client, key), body)
            if kept != body:
                return 422, {}, {"code": "idempotency_key_reused", "detail": "Another body."}
            fresh = kept is body
            if fresh:
                self._accept(path, client, key, msgspec.json.decode(body))
            if path == "/stock":
                return 202, {}, self._loaded(len(msgspec.json.decode(body)["entries"]), fresh)
            return 202, {} if fresh else {"Idempotent-Replayed": "true"}, {"order_id": key}

    def _loaded(self, entries: int, fresh: bool) -> dict[str, int]:
        return {"accepted": entries * fresh, "repeated": entries * (not fresh)}

    def _accept(self, path: str, client: str, key: str, body: dict[str, Any]) -> None:
        self.clients.add(client)
        if path == "/stock":
            for entry in body["entries"]:
                self.pieces[entry["sku"]] = self.pieces.get(entry["sku"], 0) + entry["quantity"]
        else:
            self.placed[key] = body


def _handler(door: LoopbackDoor) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one segment an answer

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            self._answer(*door.get(self.path))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            client, key = self.headers["Penstock-Client"], self.headers["Idempotency-Key"]
            self._answer(*door.post(self.path, client, key, body))

        def _answer(self, status: int, headers: dict[str, str], said: Any) -> None:
            content = msgspec.json.encode(said)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

    return Handler


@contextmanager
def listening(door: LoopbackDoor) -> Iterator[LoopbackDoor]:
    """The door, reachable at its ``url`` until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(door))
    server.daemon_threads = True
    door.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield door
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
