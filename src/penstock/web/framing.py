"""HTTP's framing: what is no HTTP gets a problem as everything else, and a head is bounded.

The application bounds bodies, but it is asked only once a head is whole: until then a connection
that sends no end of headers, or none at all, would cost memory and a socket for ever.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from penstock.flow import Reply
from penstock.limits import HEAD_BYTES_MAX, HEAD_SECONDS_MAX
from penstock.web.problems import fault_reply, rendered

_NO_HTTP = fault_reply(
    400, "not_http", "This is no HTTP/1.1 request.",
    fix="Mind the request line, the lengths and characters that no header takes.",
)
_TOO_LONG = fault_reply(
    431, "head_too_large", f"The request line and headers have more than {HEAD_BYTES_MAX} bytes.",
    fix="Send fewer or shorter headers.",
)
_TOO_SLOW = fault_reply(
    408, "head_too_slow", f"The headers were not here within {HEAD_SECONDS_MAX:g} seconds."
)


class Framing(HttpToolsProtocol):
    """One connection, from its first byte on."""

    _timer: asyncio.TimerHandle | None = None
    _in_head = True
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody is there; whoever has nothing to say is let go."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """They are gone."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, piece: bytes) -> None:
        """Bytes came; of a head that is not whole yet, only so many are taken."""
        super().data_received(piece)
        if not self._in_head or self.transport.is_closing():
            return
        self._head_bytes += len(piece)
        if self._head_bytes > HEAD_BYTES_MAX:
            self._refuse(_TOO_LONG)
        elif self._timer is None:  # most heads come in one piece, and cost no timer
            self._await_head()

    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Its head is whole: from here on the application bounds it."""
        self._in_head, self._head_bytes = False, 0
        self._stop_timer()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Called where the parser gave up."""
        self._refuse(_NO_HTTP)

    def _await_head(self) -> None:
        self._timer = self.loop.call_later(HEAD_SECONDS_MAX, self._give_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        if self._head_bytes:
            self._refuse(_TOO_SLOW)
        else:
            self.transport.close()

    def _refuse(self, reply: Reply) -> None:
        """Say what is wrong and hang up: where the next request begins, nobody knows."""
        if not self.transport.is_closing():
            self.transport.write(_whole(reply))
            self.transport.close()


def _whole(reply: Reply) -> bytes:
    status, headers, content = rendered(reply)
    lines: list[Any] = [STATUS_LINE[status]]
    lines += [b"%s: %s\r\n" % pair for pair in (*headers, (b"connection", b"close"))]
    return b"".join((*lines, b"\r\n", content))
