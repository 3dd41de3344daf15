"""The way to the outside: calls that take time, get lost, and come back or do not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from penstock.flow import Visit
from penstock.ports import Outcome, Request, Unavailable, Unknown

if TYPE_CHECKING:
    from penstock.sim.members import Process
    from penstock.sim.world import World

SLOW_MS = 3000
LATE_MS = 1500
LATER_SECONDS = 0.5


class Played(Protocol):
    """A flow's outside world, as its ``sim`` module brings it (``Outside`` there)."""

    def call(self, gateway: str, request: Request, now: int) -> tuple[Outcome, list[Visit]]:
        """Carry out a call; what the gateway sends on its own comes with it."""

    def calm(self) -> list[Visit]:
        """What still has to come when the faults are over."""

    def cancelled(self, visit: Visit) -> bool:
        """Will a visit never be made after all?"""

    def ledgers(self) -> dict[str, dict[str, list[tuple[Any, ...]]]]:
        """What the gateways wrote down."""


class Line:
    """The line to one gateway (the ``Gateway`` port)."""

    def __init__(self, world: World, name: str) -> None:
        self._world, self._name = world, name

    def call(self, request: Request) -> Outcome:
        """Carry out the call, or let one of the faults have it."""
        fires = self._world.faults.fires
        if fires("lost:call"):
            return Unknown("simulated: no answer")
        if fires("unavailable:call"):
            return Unavailable("simulated: closed")
        if fires("unavailable:later"):
            return Unavailable("simulated: too many calls", LATER_SECONDS)
        if fires("crash:call"):
            raise ConnectionError("simulated: the line went dead")
        if fires("late:call"):
            late = self._world.now + 1 + int(self._world.roll() * LATE_MS)
            self._world.at(late, lambda: self._late(request))
            return Unknown("simulated: given up, still under way")
        outcome = self._carry(request)
        if fires("unknown:call"):
            return Unknown("simulated: the answer was lost")
        return outcome

    def _late(self, request: Request) -> None:
        self._carry(request)

    def _carry(self, request: Request) -> Outcome:
        world = self._world
        outcome, sent = world.played.call(self._name, request, world.now)
        for visit in sent:
            world.clients.expect(visit)
        return outcome


class Pool:
    """The courier's ``Pool``: a call ends some time later, whether its process lives or not."""

    def __init__(self, world: World) -> None:
        self._world = world

    def submit(self, gateway: str, work: Callable[[], None]) -> None:
        """Let the call take its time."""
        world = self._world
        takes = 1 + int(world.roll() * world.knobs.latency_ms)
        if world.faults.fires("slow:call"):
            takes += SLOW_MS
        world.at(world.now + takes, work)


class Outside:
    """What processes are given of it."""

    def __init__(self, world: World, names: Sequence[str]) -> None:
        self._pool = Pool(world)
        self.lines = {name: Line(world, name) for name in names}

    def pool(self, process: Process) -> Pool:
        """The threads that a process's calls run in."""
        return self._pool
