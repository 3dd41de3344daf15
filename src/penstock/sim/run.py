"""Many cases: simulated one by one, spread over the cores, added up.

A case that breaks a rule is an outcome with violations, never an exception: also where a process
broke (``step``: our bug) or the world did not come to rest (I45).
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from penstock import assemble
from penstock.errors import Problem
from penstock.limits import DEATHS_MAX
from penstock.sim.audit.books import Violation
from penstock.sim.audit.report import audit
from penstock.sim.case import Case
from penstock.sim.judge import books_of, rules_of
from penstock.sim.world import Restless, World

LIVENESS = "I45"
BOUNDS = "I44"
BROKEN = "step"  # the rule of a process that raised what it must not: our bug
CHUNK = 4  # cases handed to a core at a time
COLLECT_EVERY = 25  # cases between two collections: a world that is over is one large circle
MEMORY = Path("/dev/shm")  # where a sync costs nothing; else the usual temporary folder


class Outcome(Struct, frozen=True, kw_only=True):
    """What one case came to. ``fired`` and ``visited`` count faults by site."""

    case: Case
    handled: int
    turns: int
    trace: str
    violations: tuple[Violation, ...] = ()
    firings: tuple[tuple[str, int], ...] = ()
    visited: dict[str, int] = {}
    examined: dict[str, int] = {}
    visits: int = 0


class Tally(Struct, kw_only=True):
    """The sum of many outcomes. ``trace`` tells one batch of runs from another."""

    seeds: int = 0
    orders: int = 0
    handled: int = 0
    turns: int = 0
    trace: str = ""
    fired: dict[str, int] = {}
    visited: dict[str, int] = {}
    examined: dict[str, int] = {}
    violations: list[dict[str, object]] = []

    def add(self, outcome: Outcome) -> None:
        """One more."""
        self.seeds += 1
        self.orders += outcome.case.orders
        self.handled += outcome.handled
        self.turns += outcome.turns
        self.trace = blake2b(f"{self.trace}{outcome.trace}".encode(), digest_size=16).hexdigest()
        fired = Counter(site for site, _ in outcome.firings)
        self.fired = dict(Counter(self.fired) + fired)
        self.visited = dict(Counter(self.visited) + Counter(outcome.visited))
        self.examined = dict(Counter(self.examined) + Counter(outcome.examined))
        for v in outcome.violations:
            self.violations = [
                *self.violations,
                {"seed": outcome.case.seed, "rule": v.rule, "key": v.key, "detail": v.detail,
                 "records": list(v.records)},
            ]  # fmt: skip


def house_of(catalog_path: Path | None = None) -> assemble.House:
    """The house of a flow that can be simulated. Raises ``Problem``."""
    house = assemble.open_house(Path(os.devnull), catalog_path)
    if not house.flow.sim:
        raise Problem(
            "no_simulation", f"the flow {house.flow.name} brings nothing to simulate.",
            "Give its Flow value a `sim`: docs/guides/simulate.md says what belongs there.",
        )
    return house


def simulate(case: Case, house: assemble.House | None = None) -> Outcome:
    """Run one case and judge it."""
    house = house or house_of()
    if not case.slow:
        return _simulate(case, house)
    root = MEMORY if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="penstock-sim-", dir=root))
    try:
        return _simulate(case, replace(house, home=folder / "home"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _simulate(case: Case, house: assemble.House) -> Outcome:
    world = World(case, house)
    try:
        return _judged(world, _played(world))
    finally:
        world.close()


def _played(world: World) -> tuple[Violation, ...]:
    """Play it to its end; what breaks on the way is a violation."""
    broken: tuple[Violation, ...] = ()
    try:
        world.run()
    except Restless as error:
        broken = (Violation(LIVENESS, "", str(error)),)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        said = f"{type(error).__name__}: {error} ({where.name}, line {where.lineno})"
        broken = (Violation(BROKEN, "", said),)
    return broken + tuple(
        Violation(BOUNDS, id_.hex(), f"it ended {n} processes of {service}, {DEATHS_MAX} at most")
        for (service, id_), n in world.deaths.items() if n > DEATHS_MAX
    )


def _judged(world: World, broken: tuple[Violation, ...]) -> Outcome:
    house, case = world.house, world.case
    report = audit(books_of(world), rules_of(house.flow.audit))
    found = tuple(v for rule in report.rules for v in rule.violations)
    return Outcome(
        case=case, handled=world.handled, turns=world.turns, trace=world.trace.hexdigest(),
        violations=broken + found, firings=tuple(world.faults.fired),
        visited=dict(world.faults.visited), visits=world.visits_made,
        examined={rule.id: rule.examined for rule in report.rules},
    )


class _Core:
    """One process of many: one house for all its cases, and no collector in the way of one."""

    def __init__(self, catalog_path: Path | None) -> None:
        self._house, self._cases = house_of(catalog_path), 0
        gc.freeze()

    def simulate(self, case: Case) -> Outcome:
        self._cases += 1
        gc.disable()
        try:
            return simulate(case, self._house)
        finally:
            gc.enable()
            if self._cases % COLLECT_EVERY == 0:
                gc.collect()


_core: _Core | None = None


def _begin(catalog_path: Path | None) -> None:
    global _core
    _core = _Core(catalog_path)


def _one(case: Case) -> Outcome:
    assert _core is not None, "a process begins with its house"
    return _core.simulate(case)


def simulate_all(
    cases: Sequence[Case], catalog_path: Path | None = None, cores: int | None = None
) -> Iterator[Outcome]:
    """Outcomes in the order of the cases, made on all cores."""
    count = min(cores or os.cpu_count() or 1, len(cases))
    if count <= 1:
        core = _Core(catalog_path)
        yield from map(core.simulate, cases)
        gc.unfreeze()
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(count, _begin, (catalog_path,)) as pool:
        chunk = max(1, min(CHUNK, len(cases) // count))
        yield from pool.imap(_one, cases, chunk)
