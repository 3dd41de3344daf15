"""What a run of the harness found, as a value."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
from msgspec import Struct

from penstock.sim.crash.faults import Tally

ACCEPTED = "accepted"  # a sound request is taken
LIVENESS = "I45"  # with the faults over, everything comes to its end within a bound


class Violation(Struct, frozen=True, kw_only=True):
    """A broken promise: by which rule, about what, seen in which records, in which cycle."""

    rule: str
    key: str
    detail: str
    records: tuple[str, ...] = ()
    cycle: int = 0


class Outcome(Struct, kw_only=True):
    """A whole run. ``rules`` counts what each rule examined; ``never`` says what had to be
    exercised and was not; ``kept`` is the folder of the home that broke a promise."""

    noun: str
    seed: int
    tally: Tally
    cycles: int = 0
    homes: int = 0
    errands: int = 0
    slowest_seconds: float = 0.0
    rules: Counter[str]
    asked: Counter[str]  # cycles that armed a cut point, by point
    violations: list[Violation] = []
    kept: str = ""

    @property
    def never(self) -> list[str]:
        """What was asked for and never happened, in sentences."""
        points = [p for p in self.asked if not self.tally.kills[p]]
        said = [f"the cut point {p} was armed and never passed" for p in points]
        return said + [f"the rule {r} examined nothing" for r, n in self.rules.items() if not n]

    def told(self) -> dict[str, Any]:
        """As JSON shows it."""
        rules = [{"id": id_, "examined": n} for id_, n in sorted(self.rules.items())]
        return {
            "seed": self.seed, "cycles": self.cycles, "homes": self.homes,
            self.noun: self.errands, **self.tally.told(),
            "slowest_seconds": round(self.slowest_seconds, 2), "rules": rules,
            "violations": [msgspec.to_builtins(v) for v in self.violations],
            "never": self.never, "kept": self.kept,
        }  # fmt: skip
