"""Waiting for something to come true, with a deadline: the only way the harness waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Seen = TypeVar("Seen")

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.005, 0.1


class NotYet(Exception):
    """A condition's way to say: not yet, and why."""


class Late(Exception):
    """What had to come true within its time did not."""


def eventually(condition: Callable[[], Seen], seconds: float, what: str) -> Seen:
    """The first truthy answer of ``condition``, asked again and again. Raises ``Late``."""
    deadline, pause = time.monotonic() + seconds, FIRST_PAUSE_SECONDS
    while True:
        seen, why = _ask(condition)
        if seen:
            return seen
        if time.monotonic() >= deadline:
            raise Late(f"not within {seconds:g} s: {what}" + (f" ({why})" if why else ""))
        time.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE_SECONDS)


def _ask(condition: Callable[[], Seen]) -> tuple[Seen | None, str]:
    try:
        return condition(), ""
    except NotYet as why:
        return None, str(why)
