"""A schema registry for tests: what Confluent's answers to the questions penstock asks."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class Registry:
    """Schemas by subject, ids counted from 1; ``refuse`` lists subjects that take nothing new.
    ``away``: for now it answers 503. ``page``: something else stands in its place."""

    def __init__(self) -> None:
        self.subjects: dict[str, list[int]] = {}
        self.schemas: list[str] = []
        self.refuse: set[str] = set()
        self.asked: list[str] = []
        self.away, self.page = False, b""
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                size = int(self.headers["content-length"])
                self._answer(*registry.register(self.path, json.loads(self.rfile.read(size))))

            def do_GET(self) -> None:
                self._answer(*registry.find(self.path))

            def _answer(self, code: int, body: dict[str, Any]) -> None:
                raw = registry.page or json.dumps(body).encode()
                self.send_response(503 if registry.away else code)
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def register(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """``POST /subjects/S/versions``."""
        self.asked.append(path)
        subject = path.split("/")[2]
        if subject in self.refuse:
            return 409, {"error_code": 409, "message": "incompatible with an earlier schema"}
        return 200, {"id": self.add(subject, body["schema"])}

    def add(self, subject: str, schema: str) -> int:
        """Somebody registers a schema."""
        if schema not in self.schemas:
            self.schemas.append(schema)
        id_ = self.schemas.index(schema) + 1
        if id_ not in self.subjects.setdefault(subject, []):
            self.subjects[subject].append(id_)
        return id_

    def find(self, path: str) -> tuple[int, dict[str, Any]]:
        """``GET /schemas/ids/N``."""
        self.asked.append(path)
        id_ = int(path.rpartition("/")[2])
        if not 0 < id_ <= len(self.schemas):
            return 404, {"error_code": 40403, "message": "schema not found"}
        return 200, {"schema": self.schemas[id_ - 1]}

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._server.shutdown()
        self._server.server_close()
