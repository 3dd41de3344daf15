"""The catching mail server: takes every message, keeps it, delivers none.

A second message with a key that was caught before is kept and flagged as a duplicate: mail has no
keys of its own, so this is where a second mail to a customer would be seen.
"""

from __future__ import annotations

import asyncio
import email
import email.policy
import hashlib
import time
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import msgspec
from aiosmtpd.smtp import SMTP, Envelope, Session

from penstock.errors import NotFound, StorageFull
from penstock.flows.orders.sandbox import faults
from penstock.flows.orders.sandbox.desk import Script
from penstock.flows.orders.sandbox.faults import Trouble
from penstock.flows.orders.sandbox.ledger import Call, Fault, Ledger, Mail

MESSAGE_BYTES_MAX = 1 << 20
LEDGER = "mail.sqlite"
FAULTS = "faults.json"
_ANSWERS = {
    "refuse": "554 5.7.1 refused by the sandbox",
    "greylist": "451 4.7.1 greylisted, try again later",
}


class Mailbox:
    """The handler of one mail server: one call of the ledger per message offered."""

    def __init__(self, ledger: Ledger, home: Path) -> None:
        self._ledger, self._control = ledger, home / FAULTS

    def server(self) -> SMTP:
        """The protocol of one connection."""
        return SMTP(self, data_size_limit=MESSAGE_BYTES_MAX, hostname="sandbox", timeout=300)

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Envelope) -> str:
        """Answer a message that was sent whole; on the disk before the 250."""
        mail = parse(envelope.content or b"", envelope.rcpt_tos)
        try:
            self._read_control()
            met = self._trouble(mail)
            if met.fault == "slow":
                await asyncio.sleep(met.seconds)
            answer = _ANSWERS.get(met.fault)
            self._keep(mail, met, answer)
        except StorageFull as error:
            return f"452 4.3.1 the ledger cannot be written: {error}"
        except msgspec.DecodeError as error:
            return f"451 4.3.5 {FAULTS} cannot be read: {error}"
        if met.fault == "cut_after" and isinstance(server.transport, asyncio.WriteTransport):
            server.transport.abort()
        return answer or "250 2.0.0 caught"

    async def handle_exception(self, error: Exception) -> str:
        """Answer to a fault of our own: come back later, nothing was promised."""
        return f"451 4.3.0 {type(error).__name__}"

    def _trouble(self, mail: Mail) -> Trouble:
        return faults.take_scripted(self._ledger, "send", mail.order, mail.kind, False)

    def _keep(self, mail: Mail, met: Trouble, answer: str | None) -> None:
        again = bool(mail.key and self._ledger.rows(Mail, "key = ?", (mail.key,)))
        outcome = {"refuse": "refused", "greylist": "unavailable"}.get(met.fault, "done")
        call = Call(
            at=mail.at,
            key=mail.key,
            operation="send",
            order=mail.order,
            part=mail.kind,
            outcome="repeated" if again and not answer else outcome,
            status=int(answer[:3]) if answer else (0 if met.fault == "cut_after" else 250),
            fault=met.fault,
        )
        with self._ledger.write():
            self._ledger.add(call)
            if answer is None:
                self._ledger.add(msgspec.structs.replace(mail, duplicate=again))

    def _read_control(self) -> None:
        """Take over the control file when it changed; a restart does not start it afresh.

        Raises ``DecodeError`` for a file that is no script: the person who wrote it will look at
        the answer.
        """
        raw = self._control.read_bytes() if self._control.exists() else b""
        digest = hashlib.sha256(raw).hexdigest()
        if digest == self._ledger.note("faults.json"):
            return
        script = msgspec.json.decode(raw or b"[]", type=list[MailScript])
        with self._ledger.write():
            self._ledger.clear_faults()
            self._ledger.note("faults.json", digest)
            for row in script:
                self._ledger.add(Fault(**msgspec.structs.asdict(row)))


class MailScript(Script, frozen=True, kw_only=True):
    """One row of the control file; ``method`` is the kind of mail."""

    operation: str = "send"
    fault: str

    def __post_init__(self) -> None:
        """Refuse a fault that a mail server does not have."""
        if self.fault not in faults.MAIL:
            raise ValueError(f"unknown fault {self.fault}; known: {sorted(faults.MAIL)}")


def parse(content: bytes | str, recipients: list[str]) -> Mail:
    """A message as the ledger keeps it."""
    raw = content if isinstance(content, bytes) else content.encode()
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage), "the default policy makes EmailMessage"
    return Mail(
        at=time.time_ns() // 1_000_000,
        key=_header(message, "X-Penstock-Key"),
        order=_header(message, "X-Penstock-Order"),
        kind=_header(message, "X-Penstock-Kind"),
        to=", ".join(recipients),
        subject=_header(message, "Subject"),
        text=_text(message),
        duplicate=False,
    )


def _header(message: EmailMessage, name: str) -> str:
    return str(message.get(name, "")).strip()


def _text(message: EmailMessage) -> str:
    part = message.get_body(("plain",))
    content: Any = part.get_content() if part else ""
    return str(content).replace("\r\n", "\n").removesuffix("\n")


def read_mails(home: Path) -> list[Mail]:
    """The latest 1,000 messages caught in a mail server's home, the oldest first.

    Empty where no mail server ran yet. May be called while it runs.
    """
    try:
        ledger = Ledger(home / LEDGER, readonly=True)
    except NotFound:
        return []
    try:
        return ledger.rows(Mail, "seq > (SELECT coalesce(max(seq), 0) - 1000 FROM mails)")
    finally:
        ledger.close()
