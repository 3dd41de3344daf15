"""What happens to processes from time to time: drains, members coming and going, clocks jumping."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.engine.cuts import cut
from penstock.sim.members import Member

if TYPE_CHECKING:
    from penstock.sim.world import World

LOOK_MS = 100
MEMBERS_MAX = 3
JUMP_MS = 600_000


class Weather:
    """Looks every now and then, and lets what fires happen."""

    def __init__(self, world: World) -> None:
        self._world = world

    def begin(self) -> None:
        """Start looking."""
        self._world.at(self._world.now + LOOK_MS, self._look)

    def _look(self) -> None:
        world, fires = self._world, self._world.faults.fires
        if world.faults.calm:
            return
        members = [p for p in world.processes if isinstance(p, Member) and not p.busy]
        if members:
            member = members[int(world.roll() * len(members))]
            among = sum(other.service == member.service for other in members)
            if fires("restart:turn"):
                self._drain(member, again=True)
            elif fires("rebalance:join") and among < MEMBERS_MAX:
                world.restart(member.service)
            elif fires("rebalance:leave") and among > 1:
                self._drain(member, again=False)
            if fires("skew:jump"):
                member.clock.skew_ms = int((world.roll() - 0.5) * 2 * JUMP_MS)
        world.at(world.now + LOOK_MS, self._look)

    def _drain(self, member: Member, *, again: bool) -> None:
        """Leave in order, as on SIGTERM; a kill may still meet it there."""
        world = self._world
        world.note(f"{member.name} drains")
        world.during(member, lambda: _leave(member))
        if member in world.processes:
            world.end(member)
            if again:
                world.restart(member.service)


def _leave(member: Member) -> None:
    cut("crew.drain")
    member.worker.leave()
