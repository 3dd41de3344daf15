"""How much of penstock is pure: ``python -m tests.tidy.share``. Reported, not gated."""

from __future__ import annotations

from typing import NamedTuple

from tests.tidy.tree import Module, source
from tests.tidy.zones import is_pure


class Share(NamedTuple):
    """Lines that are neither blank nor comment only."""

    pure: int
    all: int

    @property
    def ratio(self) -> float:
        """Pure lines of all lines, 0 to 1."""
        return self.pure / max(1, self.all)


def code_lines(module: Module) -> int:
    """Lines of one module that say something."""
    stripped = (line.strip() for line in module.text.splitlines())
    return sum(1 for line in stripped if line and not line.startswith("#"))


def measure() -> Share:
    """The share over the whole package."""
    lines = {module: code_lines(module) for module in source()}
    return Share(sum(n for module, n in lines.items() if is_pure(module)), sum(lines.values()))


if __name__ == "__main__":
    share = measure()
    print(f"pure: {share.pure} of {share.all} lines, {share.ratio:.0%}")
