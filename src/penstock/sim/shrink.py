"""Make a failing case small, and write it down as a test that stands alone.

The firings of the failing run are taken as they were, by site and visit. Then whatever can go
without the rule ceasing to be broken goes: visits, firings, tight capacities. Every try is a whole
run, so what is left is true and not guessed.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from msgspec.structs import asdict, replace

from penstock.sim.case import Case, Knobs
from penstock.sim.run import Outcome

TRIES_MAX = 400
SIZES = (1, 2, 4, 8, 16)  # orders of a smaller run
SEEDS_EACH = 40  # seeds tried of each size
WRAP_CHARS = 84
PLAIN: dict[str, Any] = {
    "partitions": 1, "batch": {}, "workers": {}, "direct": (), "retention_seconds": 0.0,
    "attempts": 5, "latency_ms": 2, "pace_ms": 2,
}  # fmt: skip
Item = TypeVar("Item")
Breaks = Callable[[Case], bool]


def pinned(outcome: Outcome, knobs: Knobs) -> Case:
    """The case of an outcome with everything that was drawn written out."""
    keep = tuple(range(outcome.visits)) if outcome.case.keep is None else outcome.case.keep
    return replace(outcome.case, knobs=knobs, fires=outcome.firings, keep=keep)


def smaller(case: Case, knobs: Knobs, breaks: Breaks) -> Case:
    """A case of fewer orders that breaks the same: other seeds under the same faults and capacities
    are tried, the smallest first. Firings are told by their number, so leaving orders out of a
    large run moves all that come later; a small run found anew has little to leave out.
    """
    for orders in (n for n in SIZES if n < case.orders):
        for n in range(SEEDS_EACH):
            tried = replace(case, seed=case.seed * SEEDS_EACH + n, orders=orders, knobs=knobs)
            if breaks(tried):
                return tried
    return case


def shrink(case: Case, breaks: Breaks, tries: int = TRIES_MAX) -> Case:
    """The smallest case found that still ``breaks``; ``case`` itself must, and be pinned."""
    budget = _Budget(breaks, tries)
    before = None
    while case != before and budget.left > 0:
        before = case
        case = _fewer_visits(case, budget)
        case = _fewer_fires(case, budget)
        case = _plainer(case, budget)
    return case


class _Budget:
    """How often a case may still be run."""

    def __init__(self, breaks: Breaks, tries: int) -> None:
        self._breaks, self.left = breaks, tries

    def breaks(self, case: Case) -> bool:
        if self.left <= 0:
            return False
        self.left -= 1
        return self._breaks(case)


def _fewer_visits(case: Case, budget: _Budget) -> Case:
    kept = _minimal(case.keep or (), lambda k: budget.breaks(replace(case, keep=tuple(k))))
    return replace(case, keep=tuple(kept))


def _fewer_fires(case: Case, budget: _Budget) -> Case:
    fires = _minimal(case.fires or (), lambda f: budget.breaks(replace(case, fires=tuple(f))))
    return replace(case, fires=tuple(fires))


def _minimal(items: Sequence[Item], breaks: Callable[[list[Item]], bool]) -> list[Item]:
    """Delta debugging: leave out chunks, halves first, single ones at last."""
    left, chunk = list(items), max(1, len(items) // 2)
    while left:
        at, went = 0, False
        while at < len(left):
            fewer = left[:at] + left[at + chunk :]
            if breaks(fewer):
                left, went = fewer, True
            else:
                at += chunk
        if chunk == 1 and not went:
            break
        chunk = max(1, chunk // 2)
    return left


def _plainer(case: Case, budget: _Budget) -> Case:
    """One capacity after the other at its usual value."""
    knobs = case.knobs or Knobs()
    used = {site.partition(":")[0] for site, _ in case.fires or ()}
    plain = {
        **PLAIN, "faults": {k: rate for k, rate in knobs.faults.items() if k in used},
    }
    for name, value in plain.items():
        simpler = replace(knobs, **{name: value})
        if simpler != knobs and budget.breaks(replace(case, knobs=simpler)):
            knobs = simpler
    return replace(case, knobs=knobs)


def written(value: object, indent: int = 0) -> str:
    """A case as Python that makes it again."""
    pad = " " * (indent + 4)
    if isinstance(value, Case | Knobs):
        default = Case(seed=0) if isinstance(value, Case) else Knobs()
        fields = [
            f"{pad}{name}={written(field, indent + 4)},\n" for name, field in asdict(value).items()
            if name == "seed" or field != getattr(default, name)
        ]
        return f"{type(value).__name__}(\n{''.join(fields)}{' ' * indent})"
    if isinstance(value, tuple | dict) and len(repr(value)) > WRAP_CHARS - indent:
        opened, closed = ("(", ")") if isinstance(value, tuple) else ("{", "}")
        parts = value.items() if isinstance(value, dict) else ((None, v) for v in value)
        text = ", ".join(repr(v) if k is None else f"{k!r}: {v!r}" for k, v in parts)
        lines = textwrap.wrap(f"{text},", WRAP_CHARS, break_long_words=False)
        body = "".join(f"{pad}{line}\n" for line in lines)
        return f"{opened}\n{body}{' ' * indent}{closed}"
    return repr(value)


def regression(case: Case, rule: str, detail: str, catalog: str = "") -> str:
    """A stand-alone test of a case: it fails for as long as the rule is broken."""
    house = f"house_of(Path({catalog!r}))" if catalog else "house_of()"
    path = "from pathlib import Path\n\n" if catalog else ""
    said = " ".join(detail.split())[:200].replace('"""', "'''").replace("\\", "/")
    return (
        f'"""Seed {case.seed} of the simulator broke {rule}. Kept so that it stays mended.\n\n'
        f"It said: {said}\n\"\"\"\n\n{path}"
        "from penstock.sim.case import Case, Knobs\n"
        "from penstock.sim.run import house_of, simulate\n\n"
        f"CASE = {written(case)}\n\n\n"
        f"def test_seed_{case.seed}_{rule.lower()}() -> None:\n"
        f"    found = simulate(CASE, {house}).violations\n"
        "    assert not found, found[:3]\n"
    )
