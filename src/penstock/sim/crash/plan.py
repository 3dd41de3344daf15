"""What is done to whom, drawn from a seed: the same seed is the same plan.

Members, points and faults come from decks that are dealt to their end before they are shuffled
again, so that a few dozen cycles meet every one of them, and no long run misses a rare pair.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Generic, TypeVar

from msgspec import Struct

from penstock.catalog.model import CLOCK, PLATFORM, Catalog, answers_of, dead_of
from penstock.engine.cuts import IN_TRANSACTION, POINTS

Card = TypeVar("Card")

KILL, STOP, TERM, FULL, PARENT = "kill", "stop", "term", "full", "parent"
BROKER, DATABASE = "broker", "database"
# How many cycles of a score bring each fault. Half of the drains end in a death of their own.
SHARES = {KILL: 12, STOP: 3, TERM: 2, FULL: 2, PARENT: 1, BROKER: 1, DATABASE: 1}
SERVERS = (BROKER, DATABASE)  # who dies by these is no process of penstock
AT_HOME = tuple(fault for fault in SHARES if fault not in SERVERS)
ON_CLUSTER = tuple(fault for fault in SHARES if fault != FULL)  # nothing is kept in the home there
RANDOM = ""  # no point: at whatever moment
RANDOM_SHARE = 4  # one kill in so many is at a random moment
DRAIN = "crew.drain"
CARRYING = ("courier.send", "courier.sent")  # passed where a courier carries topics
HOME_CYCLES = 25  # then a fresh home, so that audits of everything in it stay short
SLEEPERS_SHARE = 2  # standstills that others can take over come so many times more
TWICE_SHARE = 0.25  # of the cycles are made worse
PASSES_MAX = 3
DELAY_SECONDS_MAX = 0.4


class Cast(Struct, frozen=True, kw_only=True):
    """Who runs in a home, by the parts they play."""

    door: str
    services: tuple[str, ...]
    asking: tuple[str, ...]  # services that call gateways
    outside: tuple[str, ...]  # members that stand for the gateways
    writes: dict[str, tuple[str, ...]]  # the topics of each service that a courier can carry
    courier: str = ""  # the member that carries for all, where workers do not

    @property
    def members(self) -> tuple[str, ...]:
        """Everybody who can be killed."""
        courier = (self.courier,) if self.courier else ()
        return (*self.services, *courier, self.door, *self.outside)


def cast_of(catalog: Catalog, door: str, courier: str = "") -> Cast:
    """The cast that a catalog declares; on a cluster with a ``courier``. The platform's own
    services have too little to do for a fault at a certain point to strike."""
    services = [s for s in catalog.services.values() if s.handler and s.name not in PLATFORM]
    return Cast(
        door=door,
        services=tuple(s.name for s in services),
        asking=tuple(s.name for s in services if set(s.asks) - {CLOCK}),
        outside=tuple(
            f"sandbox-{g.name}" for g in catalog.gateways.values() if g.sandbox is not None
        ),
        writes={
            s.name: tuple(
                t for t in s.writes
                if t in catalog.topics and t not in (answers_of(s.name), dead_of(s.name))
            )
            for s in services
        },
        courier=courier,
    )  # fmt: skip


class Cycle(Struct, frozen=True, kw_only=True):
    """One cycle: a fault, and at whom, where and when it strikes.

    ``point`` empty is a random moment, ``delay_seconds`` after the errands began. ``twice`` makes
    it worse: another one (``other``) dies as well, also on the full disk; the parent is told a
    second time, or dies again while it starts.
    """

    number: int
    fault: str
    member: str = ""
    point: str = RANDOM
    passes: int = 1
    delay_seconds: float = 0.0
    twice: bool = False
    other: str = ""  # a second victim

    def __str__(self) -> str:
        place = f" {self.member} at {self.point or 'any moment'}" if self.member else ""
        return f"{self.fault}{place}{', made worse' if self.twice else ''}"


class HomePlan(Struct, frozen=True, kw_only=True):
    """One home: which service has a second worker, which topics couriers carry, its cycles."""

    number: int
    doubled: str
    carried: tuple[str, ...]
    cycles: tuple[Cycle, ...]


class Deck(Generic[Card]):
    """Cards dealt in a random order, each once before any of them again."""

    def __init__(self, cards: Sequence[Card], dice: Random) -> None:
        self._cards, self._dice = tuple(cards), dice
        self._left: list[Card] = []

    def deal(self) -> Card:
        """The next card."""
        if not self._left:
            self._left = list(self._cards)
            self._dice.shuffle(self._left)
        return self._left.pop()


def plan(seed: int, cycles: int, cast: Cast, faults: Sequence[str]) -> Iterator[HomePlan]:
    """All homes of a run."""
    drawing = _Drawing(seed, cast, faults)
    for number, first in enumerate(range(0, cycles, HOME_CYCLES)):
        last = min(first + HOME_CYCLES, cycles)
        yield drawing.home(number, range(first, last))


class _Drawing:
    def __init__(self, seed: int, cast: Cast, faults: Sequence[str]) -> None:
        self._seed, self._cast = seed, cast
        self._faults = self._deck("fault", [f for f in faults for _ in range(SHARES[f])])
        self._kills = self._deck("kill", [True] * (RANDOM_SHARE - 1) + [False])
        points = [p for p in POINTS if p != DRAIN and self._who(p)]
        self._points = self._deck("point", points)
        awake = [p for p in points if p.startswith("worker.") and p not in IN_TRANSACTION]
        self._stops = self._deck("stop", [*points, *awake * SLEEPERS_SHARE])
        self._members = self._deck("member", cast.members)
        self._doubled = self._deck("doubled", cast.asking or cast.services)
        self._drained = self._deck("drain", [True, False])
        self._of_point = {p: self._deck(f"member at {p}", self._who(p)) for p in points}
        self._chance = Random(f"{seed}/chance")

    def _deck(self, concern: str, cards: Sequence[Card]) -> Deck[Card]:
        return Deck(cards, Random(f"{self._seed}/{concern}"))

    def _who(self, point: str) -> tuple[str, ...]:
        """Who passes a point."""
        if point.startswith("intake."):
            return (self._cast.door,)
        if self._cast.courier and point.startswith("courier."):
            return (self._cast.courier,)
        if point in CARRYING:
            return self._able()
        return self._cast.asking if point.startswith("courier.") else self._cast.services

    def _able(self) -> tuple[str, ...]:
        return tuple(s for s in self._cast.services if self._cast.writes[s])

    def home(self, number: int, cycles: range) -> HomePlan:
        """One home with the cycles of these numbers."""
        carried = self._carried()
        doubled = self._doubled.deal()
        made = tuple(self._cycle(n, doubled, carried) for n in cycles)
        topics = [t for s in carried for t in self._cast.writes[s]]
        return HomePlan(number=number, doubled=doubled, carried=tuple(topics), cycles=made)

    def _carried(self) -> tuple[str, ...]:
        """About half of the services, and one at least, hand their topics to their couriers. On a
        cluster there is nothing to choose."""
        able = () if self._cast.courier else self._able()
        return tuple(self._chance.sample(able, max(1, len(able) // 2))) if able else ()

    def _cycle(self, number: int, doubled: str, carried: Sequence[str]) -> Cycle:
        fault, chance = self._faults.deal(), self._chance
        draw = {KILL: self._kill, STOP: self._stop, TERM: self._term}.get(fault)
        member, point = draw(doubled, carried) if draw else ("", RANDOM)
        worse = chance.random() < TWICE_SHARE and fault != STOP and point != DRAIN
        return Cycle(
            number=number, fault=fault, member=member, point=point,
            passes=1 if point == DRAIN else chance.randint(1, PASSES_MAX),
            twice=worse, other=self._members.deal(),
            delay_seconds=chance.uniform(0, DELAY_SECONDS_MAX),
        )  # fmt: skip

    def _kill(self, doubled: str, carried: Sequence[str]) -> tuple[str, str]:
        if not self._kills.deal():
            return self._members.deal(), RANDOM
        point = self._points.deal()
        return self._member_at(point, carried), point

    def _stop(self, doubled: str, carried: Sequence[str]) -> tuple[str, str]:
        """Outside a transaction the one with a second worker sleeps, and loses lanes to others; on
        a cluster inside one as well, for nobody there is stopped by another's."""
        point = self._stops.deal()
        blocks = point in IN_TRANSACTION and not self._cast.courier
        if blocks or not point.startswith("worker."):
            return self._member_at(point, carried), point
        return doubled, point

    def _term(self, doubled: str, carried: Sequence[str]) -> tuple[str, str]:
        if not self._drained.deal():
            return "", RANDOM
        return self._chance.choice(self._cast.services), DRAIN

    def _member_at(self, point: str, carried: Sequence[str]) -> str:
        if point in CARRYING and not self._cast.courier:
            return self._chance.choice(carried)
        return self._of_point[point].deal()
