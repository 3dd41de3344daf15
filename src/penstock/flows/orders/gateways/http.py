"""One keyed JSON call over HTTP, judged by what may have happened at the other end.

Nothing was sent: Unavailable. Sent, and no whole answer within the time: Unknown. The whole call,
from connect to the last byte, is bound by one deadline, whatever the other side drips; libraries
bound each read, and ``call`` promises the sum.
"""

from __future__ import annotations

import re
import select
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httptools
import msgspec
from msgspec import Struct

from penstock.contracts.strict import Unreadable, strict_json
from penstock.errors import Problem
from penstock.limits import IDEMPOTENCY_KEY_CHARS_MAX, TEXT_CHARS_MAX
from penstock.ports import Ok, Outcome, Refused, Request, Unavailable, Unknown

RESPONSE_BYTES_MAX = 1 << 20
IDLE_CONNECTIONS_MAX = 64
CHUNK_BYTES = 1 << 16
RETRY_AFTER_SECONDS_MAX = 3600.0

REFUSALS = frozenset({400, 402, 409, 422})
_TOKEN = re.compile(r"[\x21-\x7e]+")  # what may stand in a header: no space, no line break


class Address(Struct, frozen=True, kw_only=True):
    """Where a gateway is, from its ``url`` setting."""

    host: str
    port: int
    prefix: str
    tls: bool

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class Answer(Struct, frozen=True, kw_only=True):
    """A whole HTTP response; ``keep`` when the connection may be used again."""

    status: int
    body: bytes
    keep: bool = False
    retry_after: str = ""
    date: str = ""  # the other side's clock when it answered


class _Response:
    """Collects one response from httptools' callbacks."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.body, self.size = bytearray(), 0
        self.headers: dict[bytes, str] = {}
        self.complete = self.keep = False

    def on_message_begin(self) -> None:
        if self.complete:
            raise ValueError("a second answer to one call")

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value.decode("latin-1").strip()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = self.parser.get_status_code() >= 200  # 1xx only announces the answer
        self.keep = self.parser.should_keep_alive()  # the parser knows it here only

    def feed(self, received: bytes) -> None:
        """Parse more bytes. Raises ``ValueError`` for too many, or for no HTTP."""
        self.size += len(received)
        if self.size > RESPONSE_BYTES_MAX:
            raise ValueError(f"the answer is longer than {RESPONSE_BYTES_MAX} bytes")
        try:
            self.parser.feed_data(received)
        except httptools.HttpParserError as error:
            raise ValueError(f"no HTTP: {error}") from error

    def answer(self) -> Answer:
        """The response once it is complete."""
        return Answer(
            status=self.parser.get_status_code(),
            body=bytes(self.body),
            keep=self.keep,
            retry_after=self.headers.get(b"retry-after", ""),
            date=self.headers.get(b"date", ""),
        )


def address_of(settings: Mapping[str, Any]) -> Address:
    """The ``url`` setting taken apart. Raises ``Problem`` when it is missing or malformed."""
    url = settings.get("url")
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        if not parts.hostname or parts.query or parts.username:
            raise ValueError("no plain address")
    except (ValueError, KeyError):
        raise Problem(
            "bad_setting",
            f"url is {url!r}, which is no address of a gateway.",
            "Set it to http://HOST:PORT or https://HOST.",
            field="url",
        ) from None
    return Address(
        host=parts.hostname, port=port, prefix=parts.path.rstrip("/"), tls=parts.scheme == "https"
    )


class Caller:
    """A pool of connections to one address. Used from several threads at once."""

    def __init__(self, address: Address, clock: Callable[[], float] = time.monotonic) -> None:
        self._address, self._clock = address, clock
        self._tls = ssl.create_default_context() if address.tls else None
        self._idle: list[socket.socket] = []  # append and pop are atomic: no lock needed

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()

    def post(self, path: str, request: Request) -> Outcome:
        """POST the request's body; one of the four outcomes, within ``timeout_seconds``."""
        deadline = self._clock() + request.timeout_seconds
        head = self._head(path, request)
        if head is None:
            return Refused("the idempotency key cannot be sent in a header")
        try:
            connection = self._connect(deadline)
        except OSError as error:
            return Unavailable(_text("cannot connect", error))
        try:
            connection.settimeout(self._left(deadline))
            connection.sendall(head + request.body)
            answer = self._receive(connection, deadline)
        except (OSError, ValueError) as error:
            connection.close()
            return Unknown(_text("no whole answer", error))
        except BaseException:
            connection.close()
            raise
        self._give_back(connection, answer)
        return judge(answer)

    def _head(self, path: str, request: Request) -> bytes | None:
        key = request.idempotency_key
        if len(key) > IDEMPOTENCY_KEY_CHARS_MAX or not _TOKEN.fullmatch(key):
            return None
        lines = [
            f"POST {self._address.prefix}{path} HTTP/1.1",
            f"Host: {self._address.authority}",
            "Content-Type: application/json",
            f"Content-Length: {len(request.body)}",
            f"Idempotency-Key: {key}",
        ]
        if _TOKEN.fullmatch(request.trace):
            lines.append(f"traceparent: {request.trace}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")

    def _left(self, deadline: float) -> float:
        left = deadline - self._clock()
        if left <= 0:
            raise TimeoutError("timed out")
        return left

    def _connect(self, deadline: float) -> socket.socket:
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if is_quiet(connection):
                return connection
            connection.close()
        where = (self._address.host, self._address.port)
        connection = socket.create_connection(where, self._left(deadline))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is None:
            return connection
        return self._tls.wrap_socket(connection, server_hostname=self._address.host)

    def _receive(self, connection: socket.socket, deadline: float) -> Answer:
        response = _Response()
        while not response.complete:
            connection.settimeout(self._left(deadline))
            received = connection.recv(CHUNK_BYTES)
            if not received:  # also where a body has no length: its end looks like a cut
                raise ConnectionError("the connection was cut")
            response.feed(received)
        return response.answer()

    def _give_back(self, connection: socket.socket, answer: Answer) -> None:
        if answer.keep and len(self._idle) < IDLE_CONNECTIONS_MAX:
            self._idle.append(connection)
        else:
            connection.close()


def is_quiet(connection: socket.socket) -> bool:
    """May an idle connection be used again? Readable while idle means closed by the other side."""
    poll = select.poll()  # select() knows no descriptors above 1023
    poll.register(connection, select.POLLIN)
    return not poll.poll(0)


def judge(answer: Answer) -> Outcome:
    """What a whole response means for the call.

    The statuses of a wrong address or a missing permission hold the call instead of refusing it:
    an order must not fail because a setting of ours is wrong.
    """
    if 200 <= answer.status < 300:
        return _succeeded(answer)
    if answer.status in REFUSALS:
        return _refused(answer)
    if answer.status == 503 or answer.status < 500:
        return Unavailable(f"HTTP {answer.status}", retry_after_seconds(answer))
    return Unknown(f"HTTP {answer.status}")


def _succeeded(answer: Answer) -> Outcome:
    try:
        strict_json(answer.body, dict[str, msgspec.Raw], limit_bytes=RESPONSE_BYTES_MAX)
    except Unreadable:
        return Unknown(f"HTTP {answer.status} without a JSON object")
    return Ok(answer.body)


def _refused(answer: Answer) -> Outcome:
    try:
        body = strict_json(answer.body, dict[str, Any], limit_bytes=RESPONSE_BYTES_MAX)
    except Unreadable:
        return Unknown(f"HTTP {answer.status} without a JSON object")
    reason = body.get("code") or body.get("reason") or f"HTTP {answer.status}"
    return Refused(str(reason)[:TEXT_CHARS_MAX], answer.body)


def retry_after_seconds(answer: Answer) -> float | None:
    """What ``Retry-After`` asks for, 0 to an hour; a date is read by the sender's own clock."""
    value = answer.retry_after
    try:
        wait = float(int(value)) if value.isdecimal() else _moment(value) - _moment(answer.date)
    except (ValueError, TypeError, OverflowError):
        return None
    return min(RETRY_AFTER_SECONDS_MAX, max(0.0, wait))


def _moment(date: str) -> float:
    return parsedate_to_datetime(date).timestamp()


def _text(what: str, error: Exception) -> str:
    return f"{what}: {error or type(error).__name__}"[:TEXT_CHARS_MAX]
