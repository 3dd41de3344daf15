"""Times as people and other programs read them."""

from __future__ import annotations

from datetime import UTC, datetime

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def moment(at: int) -> str:
    """Milliseconds as RFC 3339 in UTC; empty for none."""
    if not at:
        return ""
    made = datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds")
    return made.replace("+00:00", "Z")


def span(seconds: float) -> str:
    """A duration in its largest whole unit: ``3 min``."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return "0 s"
