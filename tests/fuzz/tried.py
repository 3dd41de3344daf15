"""What came of it: a value, or the error that was allowed to leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def tried(allowed: tuple[type[Exception], ...], work: Callable[..., Any], *given: Any) -> Any:
    """``(value, None)`` or ``(None, error)``; any other exception leaves."""
    try:
        return work(*given), None
    except allowed as error:
        return None, error
