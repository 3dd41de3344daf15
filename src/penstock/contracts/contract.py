"""A contract as a value: an event type, its current class, and the way up from older ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

Model = type[Any]  # a Struct class; an alias, because a field below is called ``type``


class Older(Struct, frozen=True):
    """A version that may still be retained: its class, and the step to the next version."""

    version: int
    model: Model
    upcast: Callable[[Any], Any]


class Contract(Struct, frozen=True, kw_only=True):
    """Event ``type`` at ``version``. ``older`` is ordered, oldest first, without gaps."""

    type: str
    version: int
    model: Model
    older: tuple[Older, ...] = ()
    about: str = ""
