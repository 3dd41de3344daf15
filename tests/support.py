"""What many tests need: waiting for a condition with a deadline, and a free port."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import TypeVar

Seen = TypeVar("Seen")

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.002, 0.1


def eventually(condition: Callable[[], Seen], seconds: float = 10.0, *, what: str = "") -> Seen:
    """The first truthy answer of ``condition``, asked again and again until the deadline.

    Returns as soon as the condition holds, so a generous deadline costs nothing. An
    ``AssertionError`` of the condition means not yet; the last one is shown when time is up.
    """
    deadline, pause = time.monotonic() + seconds, _FIRST_PAUSE_SECONDS
    never = threading.Event()
    while True:
        seen, last = _ask(condition)
        if seen:
            return seen
        if time.monotonic() >= deadline:
            said = f"; it last answered {seen!r}" if last is None else ""
            raise AssertionError(f"not within {seconds:g} s: {what or condition}{said}") from last
        never.wait(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)


def _ask(condition: Callable[[], Seen]) -> tuple[Seen | None, AssertionError | None]:
    try:
        return condition(), None
    except AssertionError as not_yet:
        return None, not_yet


def unused_port() -> int:
    """A loopback TCP port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
