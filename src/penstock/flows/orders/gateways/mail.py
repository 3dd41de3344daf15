"""The client of the mail server: one message per key, over SMTP.

Mail knows no keys, so a lost answer means the message may be sent twice. The key travels as
``X-Penstock-Key`` and makes the Message-ID, by which servers and readers can tell a repeat.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import smtplib
import time
from collections.abc import Callable, Mapping
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import formatdate
from typing import Any
from unicodedata import category

import msgspec
from msgspec import Struct

from penstock.errors import Problem
from penstock.flows.orders.gateways.http import is_quiet
from penstock.limits import IDEMPOTENCY_KEY_CHARS_MAX, TEXT_CHARS_MAX
from penstock.ports import Gateway, Ok, Outcome, Refused, Request, Unavailable, Unknown

SENDER = "orders@penstock.invalid"
IDLE_CONNECTIONS_MAX = 16
# One plain ASCII address: no display name, no quoting, no comma, and no line break.
ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9.-]{1,253}")
KEY = re.compile(r"[\x21-\x7e]+")
LINE_BREAKING = frozenset({"Cc", "Zl", "Zp"})  # controls, line and paragraph separators
POLICY = SMTP_POLICY.clone(max_line_length=998)  # a key is one word: folding would encode it


class Send(Struct, frozen=True, kw_only=True):
    """The body of the one operation, ``send``."""

    to: str
    subject: str
    text: str
    order: str
    kind: str
    key: str = ""


class Mail:
    """One mail server; used from several threads at once."""

    def __init__(
        self, host: str, port: int, sender: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._host, self._port, self._sender, self._clock = host, port, sender, clock
        self._idle: list[smtplib.SMTP] = []  # append and pop are atomic: no lock needed

    def call(self, request: Request) -> Outcome:
        """Send one message. A repeat of an unknown outcome may reach the customer twice."""
        if request.name != "send":
            return Refused(f"mail has no operation {request.name}")
        try:
            send = msgspec.json.decode(request.body, type=Send)
            message = compose(send, request.idempotency_key, self._sender)
        except (msgspec.DecodeError, ValueError) as error:
            return Refused(str(error)[:TEXT_CHARS_MAX])
        deadline = self._clock() + request.timeout_seconds
        try:
            server = self._connect(deadline)
        except (OSError, smtplib.SMTPException) as error:
            return Unavailable(_text("cannot connect", error))
        return self._converse(server, send.to, message.as_bytes(policy=POLICY), deadline)

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()

    def _connect(self, deadline: float) -> smtplib.SMTP:
        while self._idle:
            try:
                server = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if server.sock and is_quiet(server.sock):
                return server
            server.close()
        server = smtplib.SMTP(
            self._host, self._port, "penstock", max(0.001, deadline - self._clock())
        )
        try:
            server.ehlo_or_helo_if_needed()
        except BaseException:
            server.close()
            raise
        return server

    def _converse(self, server: smtplib.SMTP, to: str, message: bytes, deadline: float) -> Outcome:
        """Envelope, then the message; only once it is on its way can the outcome be unknown."""
        try:
            for command in (lambda: server.mail(self._sender), lambda: server.rcpt(to)):
                outcome = _judge(*self._say(server, command, deadline))
                if not isinstance(outcome, Ok):
                    return self._give_up(server, outcome)
        except (OSError, smtplib.SMTPException) as error:
            return self._give_up(server, Unavailable(_text("before the message", error)))
        try:
            outcome = _judge(*self._say(server, lambda: server.data(message), deadline))
        except smtplib.SMTPDataError as error:  # DATA itself was answered: nothing was sent
            return self._give_up(server, _judge(error.smtp_code, error.smtp_error))
        except (OSError, smtplib.SMTPException) as error:
            return self._give_up(server, Unknown(_text("no answer to the message", error)))
        if not isinstance(outcome, Ok) or len(self._idle) >= IDLE_CONNECTIONS_MAX:
            return self._give_up(server, outcome)
        self._idle.append(server)
        return outcome

    def _say(
        self, server: smtplib.SMTP, command: Callable[[], tuple[int, bytes]], deadline: float
    ) -> tuple[int, bytes]:
        left = deadline - self._clock()
        if left <= 0 or server.sock is None:
            raise TimeoutError("timed out")
        server.sock.settimeout(left)
        return command()

    def _give_up(self, server: smtplib.SMTP, outcome: Outcome) -> Outcome:
        with contextlib.suppress(OSError):  # the outcome is known; the goodbye is a courtesy
            server.close()
        return outcome


def compose(send: Send, key: str, sender: str) -> EmailMessage:
    """The message of a request. Raises ``ValueError`` where a field could forge a header."""
    if not KEY.fullmatch(key) or len(key) > IDEMPOTENCY_KEY_CHARS_MAX:
        raise ValueError("the idempotency key cannot be sent in a header")
    if not ADDRESS.fullmatch(send.to):
        raise ValueError("to is not one plain mail address")
    for name, value in (("subject", send.subject), ("order", send.order), ("kind", send.kind)):
        if any(category(letter) in LINE_BREAKING for letter in value):
            raise ValueError(f"{name} holds a control character or a line break")
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, send.to, send.subject
    message["Date"] = formatdate(usegmt=True)
    message["Message-ID"] = message_id(key, sender)
    message["X-Penstock-Key"] = key
    message["X-Penstock-Order"], message["X-Penstock-Kind"] = send.order, send.kind
    message.set_content(send.text)
    return message


def message_id(key: str, sender: str) -> str:
    """The Message-ID that follows from the key: a repeat has the same."""
    return f"<{hashlib.sha256(key.encode()).hexdigest()[:32]}@{sender.rpartition('@')[2]}>"


def gateway(settings: Mapping[str, Any]) -> Gateway:
    """The mail server at ``host`` and ``port``, mailing as ``sender``. Raises ``Problem``."""
    host, port = settings.get("host", "127.0.0.1"), str(settings.get("port"))
    sender = settings.get("sender", SENDER)
    if not isinstance(host, str) or not host:
        raise _bad("host", host, "a host name")
    if not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise _bad("port", settings.get("port"), "a number from 1 to 65535")
    if not isinstance(sender, str) or not ADDRESS.fullmatch(sender):
        raise _bad("sender", sender, "one plain mail address")
    return Mail(host, int(port), sender)


def _bad(name: str, value: object, wanted: str) -> Problem:
    return Problem("bad_setting", f"{name} is {value!r}.", f"Set it to {wanted}.", field=name)


def _judge(code: int, text: bytes | str) -> Outcome:
    words = text if isinstance(text, str) else text.decode("utf-8", "replace")
    said = f"{code} {words}"[:TEXT_CHARS_MAX]
    if 200 <= code < 300:
        return Ok(msgspec.json.encode({"answer": said}))
    if 500 <= code < 600:
        return Refused(said)
    # 4xx, and smtplib's -1 for an answer that is none
    return Unavailable(said) if 400 <= code < 500 else Unknown(said)


def _text(what: str, error: Exception) -> str:
    return f"{what}: {error or type(error).__name__}"[:TEXT_CHARS_MAX]
