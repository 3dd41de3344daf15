"""What the rules of a catalog are made of: a name that is known, a number within bounds."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator

from penstock.catalog.flaw import Flaw, Keys, near, shown

Flaws = Iterator[Flaw]


def known(path: Keys, name: str, choices: Collection[str], what: str) -> Flaws:
    """A name that somebody declared."""
    if name not in choices:
        yield Flaw(path, f"there is no {what} {shown(name)}.", near(name, choices))


def all_known(path: Keys, names: Iterable[str], choices: Collection[str], what: str) -> Flaws:
    """Names that somebody declared, each once."""
    seen: set[str] = set()
    for number, name in enumerate(names):
        here = (*path, str(number))
        yield from known(here, name, choices, what)
        if name in seen:
            yield Flaw(here, f"{shown(name)} is there twice.", "Keep one.")
        seen.add(name)


def within(path: Keys, value: float, low: float, high: float = math.inf) -> Flaws:
    """A number from ``low`` to ``high``, both allowed."""
    if value < low:
        yield Flaw(path, f"must be at least {low:g}, and is {shown(value)}.")
    elif value > high:
        yield Flaw(path, f"must be at most {high:g}, and is {shown(value)}.")


def above_zero(path: Keys, value: float | None) -> Flaws:
    """A number that is more than nothing, where there is one."""
    if value is not None and value <= 0:
        yield Flaw(path, f"must be above 0, and is {shown(value)}.")
