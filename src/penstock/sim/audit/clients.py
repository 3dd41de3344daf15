"""The client journal: what a client sent and what it was told (docs/formats.md)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from penstock.sim.audit.books import Asked
from penstock.sim.audit.opening import Unfit


class Sent(msgspec.Struct):
    """A try, as it was written down before it went out."""

    sent: int
    at: int
    client: str
    method: str
    path: str
    key: str = ""
    body: Any = None


class Answered(msgspec.Struct):
    """The reply to a try."""

    answered: int
    at: int
    status: int
    reply: Any = None


class Lost(msgspec.Struct):
    """A try without a reply."""

    lost: int
    at: int
    error: str = ""


_KINDS: dict[str, type[Sent | Answered | Lost]] = {
    "sent": Sent, "answered": Answered, "lost": Lost,
}  # fmt: skip


class _Request:
    """All tries of one request."""

    def __init__(self, first: Sent) -> None:
        self.first = first
        self.bodies: list[Any] = []
        self.replies: list[Any] = []
        self.status = 0
        self.state = "unknown"

    def tried(self, body: Any) -> None:
        if body not in self.bodies:
            self.bodies.append(body)

    def told(self, status: int, reply: Any) -> None:
        """A 2xx settles it for good, a 4xx until a 2xx comes; anything else leaves it open."""
        if 200 <= status < 300:
            if reply not in self.replies:
                self.replies.append(reply)
            if self.state != "acked":
                self.state, self.status = "acked", status
        elif self.state != "acked" and 400 <= status < 500:
            self.state, self.status = "failed", status
        elif self.state == "unknown":
            self.status = status

    def lost(self) -> None:
        """Whether it was done is as open as before."""

    def asked(self) -> Asked:
        first = self.first
        return Asked(
            first.client, first.key, first.method, first.path, self.bodies, self.state,
            self.status, self.replies, first.at,
        )  # fmt: skip


def read_journal(paths: Iterable[Path]) -> list[Asked]:
    """The requests of all these journals, tries of one taken together, in the order of their
    first try. Raises ``Unfit`` naming file and line."""
    requests: dict[tuple[str, ...], _Request] = {}
    for number, path in enumerate(paths):
        _read_one(path, number, requests)
    return sorted((r.asked() for r in requests.values()), key=lambda asked: asked.sent_at)


def _read_one(path: Path, number: int, requests: dict[tuple[str, ...], _Request]) -> None:
    tries: dict[int, _Request] = {}
    for n, raw in _lines(path):
        try:
            line = _line(raw)
            if isinstance(line, Sent):
                tries[line.sent] = _sent(line, number, tries, requests)
            elif isinstance(line, Answered):
                tries[line.answered].told(line.status, line.reply)
            else:
                tries[line.lost].lost()
        except KeyError as error:
            raise _unfit(path, n, f"no try {error} was sent before") from None
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise _unfit(path, n, str(error)) from None


def _lines(path: Path) -> list[tuple[int, bytes]]:
    """The whole lines of a journal; what follows the last line end was cut while it was written,
    unless it is a whole line itself."""
    try:
        *whole, rest = path.read_bytes().split(b"\n")
    except OSError as error:
        raise Unfit(f"the journal {path} cannot be read: {error.strerror}.") from None
    numbered = list(enumerate(whole, 1))
    try:
        _line(rest)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return numbered
    return [*numbered, (len(numbered) + 1, rest)]


def _unfit(path: Path, line: int, why: str) -> Unfit:
    return Unfit(
        f"{path}:{line}: no line of a client journal: {why}.",
        "docs/formats.md says how a journal is written.",
    )


def _line(raw: bytes) -> Sent | Answered | Lost:
    found = msgspec.json.decode(raw)
    if not isinstance(found, dict):
        raise ValueError("it is no object")
    for name, kind in _KINDS.items():
        if name in found:
            return msgspec.convert(found, kind)
    raise ValueError("it is neither sent, answered nor lost")


def _sent(
    line: Sent, file: int, tries: dict[int, _Request], requests: dict[tuple[str, ...], _Request]
) -> _Request:
    if line.sent in tries:
        raise ValueError(f"try {line.sent} was sent twice")
    # Without a key two requests are two, however alike.
    alone = "" if line.key else f"{file}/{line.sent}"
    place = (line.client, line.method, line.path, line.key, alone)
    request = requests.setdefault(place, _Request(line))
    request.tried(line.body)
    return request
