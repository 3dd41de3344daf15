"""The pulse of a process that serves no page: is it alive, is it ready?

Two routes, answered by a thread: ``/health/live`` (the loop still turns; a 503 asks for a
restart) and ``/health/ready``. Each says why it is not.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

from penstock.limits import TRANSACTION_SECONDS_MAX

# A turn may wait so long for the database: one that fell silent is waited for again by the report,
# the roll or the keeper, each on a connection of its own. A restart would mend none of that.
STILL_SECONDS = 3 * TRANSACTION_SECONDS_MAX + 10.0
Why = Callable[[], str]


class Turning(Protocol):
    """A loop that says when it began its latest turn (monotonic seconds)."""

    turned_at: float


def still(loops: list[Turning]) -> str:
    """Why the process counts as dead; empty while every loop turns."""
    longest = max((time.monotonic() - loop.turned_at for loop in loops), default=0.0)
    return f"no turn for {longest:.0f} s" if longest > STILL_SECONDS else ""


class Pulse:
    """The two routes, served until the process ends."""

    def __init__(self, host: str, port: int, live: Why, ready: Why) -> None:
        answers = {"/health/live": live, "/health/ready": ready}

        class Handler(BaseHTTPRequestHandler):
            """One probe."""

            def do_GET(self) -> None:
                why = answers.get(self.path)
                said = why() if why else "no such route: /health/live, /health/ready"
                self._answer(404 if why is None else 503 if said else 200, said or "ok")

            def _answer(self, status: int, text: str) -> None:
                body = text.encode() + b"\n"
                self.send_response(status)
                self.send_header("content-type", "text/plain; charset=utf-8")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Probes come all the time: they are not worth a line."""

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True, name="pulse").start()

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()
