"""Cycle after cycle: send, harm, wait for every end, audit."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from penstock.assemble.processes import COURIERS
from penstock.flow import Errand
from penstock.sim.crash.client import Placed, Placing
from penstock.sim.crash.ends import Ends, rest
from penstock.sim.crash.faults import FAULTS, Scene, Tally, Wrong
from penstock.sim.crash.judge import Judge
from penstock.sim.crash.outcome import ACCEPTED, LIVENESS, Outcome, Violation
from penstock.sim.crash.plan import KILL, RANDOM, TERM, Cycle, HomePlan, cast_of, plan
from penstock.sim.crash.servers import Servers
from penstock.sim.crash.stage import CATALOG, Declared, Stage, lanes_on_cluster, staged
from penstock.sim.crash.subject import Ended
from penstock.sim.crash.waiting import Late

ERRANDS = 4  # a cycle begins with so many; a fault that waits to be met brings more
MORE_ERRANDS = 2
END_SECONDS = 30.0  # with the faults over, everything has ended by then
AUDIT_PAUSE_SECONDS = 0.1
AT_REST_SECONDS = 5.0
Say = Callable[[str], None]


class Wanted(Struct, frozen=True, kw_only=True):
    """What to run, where, and how patiently."""

    seed: int
    cycles: int
    faults: tuple[str, ...]
    folder: Path
    keep: bool = False
    end_seconds: float = END_SECONDS


class Broken(Exception):
    """A promise was broken: the run ends here, and its home is kept."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        self.violations = list(violations)
        super().__init__(f"{len(self.violations)} violations")


class Run:
    """One run of the harness over homes drawn from its seed."""

    def __init__(
        self, declared: Declared, wanted: Wanted, say: Say, servers: Servers | None = None
    ) -> None:
        self._declared, self._wanted, self._say = declared, wanted, say
        self._servers = servers
        extra = servers.extra_seconds if servers is not None else 0.0
        self._end_seconds = wanted.end_seconds + extra
        self._judge = Judge(declared.flow, declared.catalog, declared.path)
        self._number = 0  # of the next errand
        self.outcome = Outcome(
            noun=declared.workload.NOUN, seed=wanted.seed, tally=Tally(kills=Counter()),
            rules=Counter(), asked=Counter(),
        )  # fmt: skip

    def run(self) -> Outcome:
        """All homes, up to the first broken promise."""
        wanted, declared = self._wanted, self._declared
        courier = COURIERS if self._servers is not None else ""
        cast = cast_of(declared.catalog, declared.flow.door, courier)
        for home in plan(wanted.seed, wanted.cycles, cast, wanted.faults):
            folder = wanted.folder / f"home-{home.number:04d}"
            try:
                self._home(home, folder)
            except Broken as broken:
                self.outcome.violations, self.outcome.kept = broken.violations, str(folder)
                return self.outcome
            if not wanted.keep:
                if self._servers is not None:
                    self._servers.clear(folder / CATALOG)
                shutil.rmtree(folder)
        return self.outcome

    def _home(self, home: HomePlan, folder: Path) -> None:
        self.outcome.homes += 1
        with staged(self._declared, home, folder, self._servers) as stage:
            examined: Counter[str] = Counter()
            for cycle in home.cycles:
                examined = self._cycle(stage, home, cycle)
            self.outcome.rules.update(examined)

    # One cycle -----------------------------------------------------------------------------------

    def _cycle(self, stage: Stage, home: HomePlan, cycle: Cycle) -> Counter[str]:
        """Send, harm, wait for every end, audit; what each rule examined. Raises ``Broken``."""
        began, placing = time.monotonic(), Placing([])

        def send(count: int) -> None:
            placing.more(stage.client.begin(self._errands(count)))

        send(ERRANDS)
        try:
            self._strike(stage, home, cycle, lambda: send(MORE_ERRANDS))
            healed = time.monotonic()
            placed = placing.result()
            self._all_accepted(placed, cycle)
            self._all_end(stage, placed, cycle)
        except (Late, Ended, Wrong) as why:
            raise Broken([Violation(rule=LIVENESS, key="", detail=str(why),
                                    cycle=cycle.number)]) from why  # fmt: skip
        ended = time.monotonic()
        examined = self._audit(stage, cycle)
        self._count(ended - healed)
        self._say(
            f"  cycle {cycle.number}: {cycle}; ended after {ended - began:.1f} s, audited in "
            f"{time.monotonic() - ended:.1f} s"
        )
        return examined

    def _errands(self, count: int) -> list[Errand]:
        first, self._number = self._number, self._number + count
        self.outcome.errands += count
        return [self._declared.workload.errand(n) for n in range(first, first + count)]

    def _strike(
        self, stage: Stage, home: HomePlan, cycle: Cycle, send_more: Callable[[], None]
    ) -> None:
        if cycle.point != RANDOM and cycle.fault in (KILL, TERM):
            self.outcome.asked[cycle.point] += 1
        scene = Scene(
            subject=stage.subject, client=stage.client, arms=stage.arms, doubled=home.doubled,
            tally=self.outcome.tally, send_more=send_more, servers=self._servers,
            lanes_of=lanes_on_cluster(stage.catalog) if self._servers is not None else None,
        )  # fmt: skip
        FAULTS[cycle.fault](scene, cycle)

    def _count(self, seconds: float) -> None:
        self.outcome.cycles += 1
        self.outcome.slowest_seconds = max(self.outcome.slowest_seconds, seconds)

    # Promises ------------------------------------------------------------------------------------

    def _all_accepted(self, placed: Sequence[Placed], cycle: Cycle) -> None:
        refused = [
            Violation(rule=ACCEPTED, key=p.errand.visits[0].key, cycle=cycle.number,
                      detail=f"it was refused with {p.status}: {p.reply}")
            for p in placed if not 200 <= p.status < 300
        ]  # fmt: skip
        if refused:
            raise Broken(refused)

    def _all_end(self, stage: Stage, placed: Sequence[Placed], cycle: Cycle) -> None:
        ends = Ends(self._declared.workload, stage.client, placed)
        open_ = ends.within(self._end_seconds)
        if open_:
            raise Broken([
                Violation(rule=LIVENESS, key=id_, detail=detail, cycle=cycle.number)
                for id_, detail in open_.items()
            ])  # fmt: skip

    def _audit(self, stage: Stage, cycle: Cycle) -> Counter[str]:
        """The auditor finds nothing, at the latest when the last mail is out. What it finds of a
        system at rest stays: that is looked at for a moment longer and not to the bound."""
        began, pause = time.monotonic(), AUDIT_PAUSE_SECONDS
        rest(stage.client, self._end_seconds)
        while True:
            examined, found = self._judge.judge(stage.home, stage.journal, stage.where)
            if not found:
                return examined
            moves = any(violation.rule == LIVENESS for violation in found)
            patience = self._end_seconds if moves else AT_REST_SECONDS
            if time.monotonic() - began > patience:
                raise Broken([replace(v, cycle=cycle.number) for v in found])
            time.sleep(pause)
            pause *= 2
