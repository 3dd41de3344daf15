"""Which faults meet a run: classes switched per seed (swarm), sites visited, firings counted.

A site is a named place where a fault may strike. Every visit draws; a firing is known by its site
and the number of the visit, so that a shrunk case can name the firings it needs and no others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from penstock.engine.cuts import POINTS
from penstock.sim.case import Case, dice

CLASSES = {
    "kill": "a process dies at a cut point or between two turns",
    "stall": "a process stands still with work in its hands while others go on",
    "deadly": "a process dies while it decides a record",
    "raises": "a decide raises an error, for a while",
    "broken": "some records cannot be decided until the service is mended",
    "full": "the disk is full, before or after the work was done",
    "restart": "a process is told to drain and starts again",
    "rebalance": "members join and leave",
    "unknown": "a gateway acts and its answer is lost",
    "late": "a call is given up and reaches the gateway afterwards",
    "lost": "a call is lost before it reaches the gateway",
    "unavailable": "a gateway is closed, or asks to come back later",
    "crash": "a gateway's client raises",
    "slow": "a gateway takes seconds",
    "twice": "a client or a gateway sends the same request twice",
    "reply": "a reply is lost on its way to the client",
    "other_body": "a client uses its key for another body",
    "wakes": "wake-ups between processes are lost",
    "skew": "the clocks of processes differ, and jump",
    "retention": "old records are dropped early",
    "operator": "a person retries and discards parked records in mid-flight",
    "foreign": "a record without an envelope lies in a log",
    "outside": "the faults that the flow's own outside world knows",
}
LIKELY = 0.55  # that a class is on
RATES = (0.005, 0.02, 0.05, 0.12)
# Some sites are passed far more often than others: by what a class's rate is divided there.
RARER = {"kill": 20, "stall": 12, "deadly": 12, "full": 10, "rebalance": 8, "restart": 8}

# Every site with its class. Cut points come from the engine's own table.
SITES: dict[str, str] = {
    **{f"kill:{point}": "kill" for point in POINTS},
    "kill:between": "kill",
    "stall:worker.receive": "stall",
    "stall:worker.open": "stall",
    "stall:courier.send": "stall",
    "stall:courier.called": "stall",
    "stall:intake.reply": "stall",
    "deadly:decide": "deadly",
    "raises:decide": "raises",
    "broken:decide": "broken",
    "full:begin": "full",
    "full:commit": "full",
    "full:settle": "full",
    "full:claim": "full",
    "full:append": "full",
    "full:appended": "full",
    "restart:turn": "restart",
    "rebalance:join": "rebalance",
    "rebalance:leave": "rebalance",
    "unknown:call": "unknown",
    "late:call": "late",
    "lost:call": "lost",
    "unavailable:call": "unavailable",
    "unavailable:later": "unavailable",
    "crash:call": "crash",
    "slow:call": "slow",
    "twice:visit": "twice",
    "reply:visit": "reply",
    "other_body:visit": "other_body",
    "wakes:tell": "wakes",
    "skew:jump": "skew",
    "retention:turn": "retention",
    "operator:retry": "operator",
    "operator:discard": "operator",
    "foreign:append": "foreign",
}


def drawn(case: Case) -> dict[str, float]:
    """The classes that are on for a seed, each with its rate: swarm testing."""
    roll = dice(case, "swarm").random
    found = {}
    for name in CLASSES:
        on, rate = roll() < LIKELY, RATES[int(roll() * len(RATES))]
        if on:
            found[name] = rate
    return found


class Faults:
    """The faults of one run: asked at every site, silent once ``calm``."""

    def __init__(
        self, case: Case, rates: Mapping[str, float], own: Iterable[str] = ()
    ) -> None:
        self._only = None if case.fires is None else frozenset(case.fires)
        self._rolls = {name: dice(case, f"fault {name}").random for name in rates}
        self._sites = SITES | {f"outside:{name}": "outside" for name in own}
        self._rates = {
            s: rates.get(kind, 0.0) / RARER.get(kind, 1) for s, kind in self._sites.items()
        }
        self.visited: Counter[str] = Counter()
        self.fired: list[tuple[str, int]] = []
        self.calm = False

    def fires(self, site: str) -> bool:
        """Does a fault strike here, now?"""
        if self.calm:
            return False
        rate = self._rates[site]
        if not rate:
            return False
        visit = self.visited[site] = self.visited[site] + 1
        strikes = self._rolls[self._sites[site]]() < rate
        if self._only is not None:
            strikes = (site, visit) in self._only
        if strikes:
            self.fired.append((site, visit))
        return strikes

    def on(self, kind: str) -> bool:
        """Is a class switched on, and not calmed yet?"""
        return kind in self._rolls and not self.calm
