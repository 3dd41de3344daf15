"""Runs the application on uvicorn until told to stop; then drains."""

from __future__ import annotations

import gc
import signal
import socket
import sys
from collections.abc import Callable

import uvicorn

from penstock.errors import Conflict
from penstock.limits import DRAIN_SECONDS_MAX
from penstock.web.app import make_app
from penstock.web.framing import Framing
from penstock.web.site import Site

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 30


class Server(uvicorn.Server):
    """Serves a site; calls ``ready`` when it listens."""

    def __init__(self, site: Site, ready: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                make_app(site), loop="uvloop", http=Framing, ws="none", lifespan="on",
                backlog=BACKLOG, timeout_keep_alive=KEEP_ALIVE_SECONDS, access_log=False,
                server_header=False, log_level="warning", proxy_headers=False,
                timeout_graceful_shutdown=int(DRAIN_SECONDS_MAX) - 5,
            )
        )
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then tell."""
        await super().startup(sockets)
        if self.started:
            self._ready()


def listening(host: str, port: int) -> socket.socket:
    """A bound socket; port 0 takes any free one. Raises ``Conflict`` where it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise Conflict(
            "port_taken", f"Port {port} on {host} cannot be used: {error.strerror}.",
            "Choose another with --port, or --port 0 for any free one.",
        ) from None
    bound.set_inheritable(False)
    return bound


def url_of(bound: socket.socket) -> str:
    """Where people find a bound socket."""
    host, port = bound.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(site: Site, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT, then finish what was begun. Raises ``Conflict``."""
    bound = listening(host, port)
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises the signal again when it has drained: that is a clean end.
        signal.signal(number, lambda *_: sys.exit(0))

    def started() -> None:
        settle()
        ready(url_of(bound))

    Server(site, started).run([bound])


def settle() -> None:
    """What exists after the start lives for good: full collections no longer look at it.

    They were the tail: without this the slowest requests in a hundred take seven times as long.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 1000)
