"""Many calls of the door at once: bounded, paced, and repeated under the same key.

A call without an answer has an unknown outcome, so it is sent again under its key and never given
up silently: when nothing answers for ``patience_seconds`` the whole sending stops, and running it
again finishes the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import httpx
import msgspec
from msgspec import Struct

from penstock.errors import Problem

IN_FLIGHT_MAX = 32
PATIENCE_SECONDS = 120.0
DELAY_FIRST_SECONDS, DELAY_MAX_SECONDS = 0.1, 30.0
FAULTS_MAX = 5  # answers of 500 to one call before it counts as refused
TEXT_CHARS_MAX = 300


class Call(Protocol):
    """One call to send: ``key`` makes it safe to send twice."""

    @property
    def name(self) -> str:
        """What the caller knows it by."""

    @property
    def path(self) -> str:
        """Where it goes."""

    @property
    def key(self) -> str:
        """Its Idempotency-Key."""

    @property
    def body(self) -> bytes:
        """Its JSON body."""


class Answered(Struct, frozen=True):
    """What became of one call: ``outcome`` is placed, already_placed, different_content or
    refused; ``detail`` is the server's own sentence where it refused, ``reply`` its body."""

    name: str
    outcome: str
    detail: str = ""
    reply: bytes = b""


class Silent(Problem):
    """The server stopped answering; what was not acknowledged may be sent again."""


class Sending(Struct, frozen=True, kw_only=True):
    """How fast and how long: ``rate`` in calls a second, 0 for as fast as possible."""

    in_flight: int = IN_FLIGHT_MAX
    rate: float = 0.0
    patience_seconds: float = PATIENCE_SECONDS


async def send(
    calls: Iterable[Call],
    client: httpx.AsyncClient,
    sending: Sending,
    told: Callable[[Answered], None],
) -> None:
    """Send every call, telling each answer as it comes; raises ``Silent``."""
    queue = iter(calls)
    pace = _Pace(sending.rate)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(sending.in_flight):
                group.create_task(_sender(queue, client, sending, pace, told))
    except* Silent as silent:
        raise silent.exceptions[0] from None


async def _sender(
    queue: Iterator[Call],
    client: httpx.AsyncClient,
    sending: Sending,
    pace: _Pace,
    told: Callable[[Answered], None],
) -> None:
    for call in queue:  # shared: each sender takes the next one
        await pace.turn()
        told(await answer(call, client, sending.patience_seconds))


class _Pace:
    """Turns at an even rate, shared by all senders."""

    def __init__(self, rate: float) -> None:
        self._gap_seconds = 1 / rate if rate > 0 else 0.0
        self._next_at = 0.0

    async def turn(self) -> None:
        """Return when it is the caller's turn."""
        if not self._gap_seconds:
            return
        now = asyncio.get_running_loop().time()
        due = max(now, self._next_at)
        self._next_at = due + self._gap_seconds
        await asyncio.sleep(due - now)


async def answer(call: Call, client: httpx.AsyncClient, patience_seconds: float) -> Answered:
    """Send one call until it is answered for good; raises ``Silent``."""
    headers = {"Idempotency-Key": call.key, "Content-Type": "application/json"}
    clock = asyncio.get_running_loop().time
    last, faults, delay = clock() + patience_seconds, 0, DELAY_FIRST_SECONDS
    while True:
        try:
            reply = await client.post(call.path, content=call.body, headers=headers)
        except httpx.TransportError as lost:
            wait, why = delay, f"{type(lost).__name__}: {lost}"
        else:
            faults += reply.status_code == 409 or 500 <= reply.status_code != 503
            if not _again(reply) or faults >= FAULTS_MAX:
                return verdict(call.name, reply)
            wait, why = _retry_after(reply, delay), _sentence(reply)
        if clock() + wait > last:
            raise Silent("server_silent", f"No answer for {call.name}: {why[:TEXT_CHARS_MAX]}.")
        await asyncio.sleep(wait)
        delay = min(delay * 2, DELAY_MAX_SECONDS)


def _again(reply: httpx.Response) -> bool:
    """Whether the same call may fare better later (409: its key is in flight elsewhere)."""
    return reply.status_code in (409, 429) or reply.status_code >= 500


def _retry_after(reply: httpx.Response, delay: float) -> float:
    said = reply.headers.get("Retry-After", "")
    if said.isascii() and said.isdigit() and len(said) < 6:
        return min(float(said), DELAY_MAX_SECONDS)
    return delay


def verdict(name: str, reply: httpx.Response) -> Answered:
    """What a final reply means for the call of that name."""
    if reply.is_success:
        again = reply.headers.get("Idempotent-Replayed", "").lower() == "true"
        return Answered(name, "already_placed" if again else "placed", reply=reply.content)
    if problem(reply).get("code") == "idempotency_key_reused":
        return Answered(name, "different_content", _sentence(reply))
    return Answered(name, "refused", _sentence(reply))


def problem(reply: httpx.Response) -> dict[str, Any]:
    """The RFC 9457 body of a refusal; empty where there is none."""
    try:
        return msgspec.json.decode(reply.content, type=dict[str, Any])
    except msgspec.DecodeError:
        return {}


def _sentence(reply: httpx.Response) -> str:
    said = problem(reply)
    parts = [said.get("detail") or said.get("title"), said.get("field"), said.get("fix")]
    text = " ".join(str(part) for part in parts if part) or reply.reason_phrase
    return f"{reply.status_code} {text}"[:TEXT_CHARS_MAX]
