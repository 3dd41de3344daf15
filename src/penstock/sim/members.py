"""The processes of a simulated world: each service's members, and the door.

A process is what a kill ends: a worker with its courier and keeper, or the gate. It turns as
``engine.runner`` does, without sleeping: what it heard, what falls due and a slow poll of
everything decide when it is turned again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Set
from typing import TYPE_CHECKING, Any

from penstock.engine.courier import Courier
from penstock.engine.intake import Gate
from penstock.engine.keeper import Keeper
from penstock.engine.slots import Slots
from penstock.engine.unit import Unit
from penstock.engine.worker import Worker
from penstock.ports import Log, Store

if TYPE_CHECKING:
    from penstock.sim.world import World

POLL_MS = 2000
FULL_MS = 50  # after a full disk
NEVER = 1 << 62


class Died(BaseException):
    """The process was killed here: nothing of it goes on, not even a handler of errors."""


class SkewedClock:
    """A process's own idea of the time (the ``Clock`` port)."""

    def __init__(self, world: World) -> None:
        self._world, self.skew_ms = world, 0

    def now(self) -> int:
        """Milliseconds since the epoch, as this process has it."""
        return self._world.now + self.skew_ms


class Process(ABC):
    """What is common: a name, a clock, and whether it has a reason to be turned."""

    def __init__(self, world: World, name: str, service: str) -> None:
        self.world, self.name, self.clock = world, name, SkewedClock(world)
        self.service = service
        self.log: Log = world.parts.log()
        self.store: Store = world.parts.store(service)
        self.alive, self.busy = True, False
        self.ears: Set[str] = frozenset()  # topics whose wake-ups it hears
        self.stalled = self.doomed = False  # stands still; has a successor and ends after this
        self.wake_at = 0  # simulated time at which it is turned next

    @abstractmethod
    def turn(self) -> int:
        """One turn; returns how much moved."""

    def rest(self, until: int) -> None:
        """Wait for ``until``; a busy machine lets a process wait in any case, and work piles up."""
        self.wake_at = max(until, self.world.pause())

    def react(self) -> None:
        """Something is to do: be turned soon."""
        self.wake_at = min(self.wake_at, self.world.pause())

    @abstractmethod
    def hear(self, topics: Set[str]) -> None:
        """A wake-up that names topics."""

    @abstractmethod
    def poll(self) -> None:
        """Look at everything at the next turn."""

    @property
    @abstractmethod
    def quiet(self) -> bool:
        """Is there nothing to do before the next look at everything?"""

    @abstractmethod
    def crash(self) -> None:
        """What others see at once when the process is gone."""


class Member(Process):
    """One process of a service."""

    def __init__(self, world: World, service: str, number: int, unit: Unit, slots: Slots) -> None:
        super().__init__(world, f"{service}-{number}", service)
        self.number, self.unit, self.ears = number, unit, unit.reads.keys()
        self._batch = world.knobs.batch.get(service, unit.entry.batch)
        self.worker = Worker(unit, self.log, self.store, slots, self._batch)
        self._carries: frozenset[str] = frozenset()
        self.courier = self._courier()
        self.keeper = self._keeper() if world.knobs.retention_seconds else None
        self._hot: set[str] | None = None
        self._asked: set[str] | None = None
        self._courier_at = self._look_at_all = self._worker_at = 0

    def _courier(self) -> Courier:
        world, unit = self.world, self.unit
        gateways = {n: world.gateways[n] for n in unit.entry.asks if n in world.gateways}
        written = {*unit.entry.writes, unit.answers, unit.dead} & world.catalog.topics.keys()
        carried = sorted(written - world.parts.direct(unit.name))
        self._carries = frozenset((*carried, *unit.entry.asks))
        pool = world.outside.pool(self)
        return Courier(unit, self.log, self.store, gateways, pool, carried, self.poke_courier)

    def _keeper(self) -> Keeper:
        world, entry = self.world, self.unit.entry
        specs = world.specs
        topics = [s for s in specs if s.owner_file == self.service]
        reads = [s for s in specs if s.name in entry.reads]
        followed = {s.name: [world.reading(r) for r in world.catalog.readers(s.name)]
                    for s in topics}  # fmt: skip
        return Keeper(self.log, self.store, topics, reads, followed, every_seconds=1.0)

    def poke_courier(self) -> None:
        """Something came back from a gateway."""
        self._courier_at = 0
        self.react()

    def hear(self, topics: Set[str]) -> None:
        """Something new lies in these topics."""
        new = topics & self.unit.reads.keys()
        if new:
            self.react()
            if self._hot is not None:
                self._hot |= new

    def turn(self) -> int:
        """Worker, courier and keeper, one step each where there is a reason for it."""
        world, now = self.world, self.clock.now()
        if world.now >= self._look_at_all:
            self.poll()
        did = 0
        if self._hot or self._hot is None or world.now >= self._worker_at:
            did = self._work(now)
            if world.faults.fires("kill:between"):
                raise Died
        if world.now >= self._courier_at and 0 in self.worker.lanes:
            did += self._carry(now)
        if self.keeper is not None and world.faults.fires("retention:turn"):
            self.keeper.step(now)
        self.rest(self._due_at())
        return did

    def _due_at(self) -> int:
        if self._hot or self._hot is None:
            return 0
        if 0 in self.worker.lanes:
            return min(self._look_at_all, self._worker_at, self._courier_at)
        return min(self._look_at_all, self._worker_at)

    def _work(self, now: int) -> int:
        hot = self._hot
        moved = self.worker.step(now, hot)
        own = moved.wrote & self.unit.reads.keys()
        again = moved.records >= self._batch  # fewer than it might take: that was all there is
        self._hot = (None if hot is None else hot | own) if again else set(own)
        self._worker_at = self._due(moved.next_due)
        if moved.blocked:
            self._hot, self._worker_at = set(), self.world.now + FULL_MS
            self._look_at_all = self._worker_at
        if moved.wrote:
            asked = moved.wrote & self._carries
            if asked:
                self._courier_at = 0
                self._asked = None if self._asked is None else self._asked | asked
            self.world.tell(moved.wrote, self)
        return moved.records

    def _carry(self, now: int) -> int:
        asked, self._asked = self._asked, set()
        carried = self.courier.step(now, asked)
        if carried.wrote:
            self.world.tell(carried.wrote, self)
            self.hear(carried.wrote)
            if carried.wrote & self._carries:
                self._asked |= carried.wrote & self._carries
        soon = self._due(carried.next_due)
        if carried.blocked:
            self._asked, soon = None, self.world.now + FULL_MS
        self._courier_at = 0 if self._asked else min(self._look_at_all, soon)
        return carried.settled + carried.called

    def _due(self, at: int | None) -> int:
        """When something of this process's time falls due, in simulated time."""
        return NEVER if at is None else max(self.world.now + 1, at - self.clock.skew_ms)

    def poll(self) -> None:
        """Look at everything at the next turn."""
        self._hot, self._asked, self._courier_at, self.wake_at = None, None, 0, 0
        self._look_at_all = self.world.now + POLL_MS

    @property
    def quiet(self) -> bool:
        """Is there nothing to do before the next look at everything?"""
        return self._hot is not None and self.wake_at >= self._look_at_all

    def crash(self) -> None:
        """Others gain its lanes, as when the death of a process frees its locks."""
        lane: Any = self.worker._lane
        members = getattr(lane, "members", None)
        (members or lane).crash()


class Door(Process):
    """The process of the gate."""

    def __init__(self, world: World, service: str) -> None:
        super().__init__(world, service, service)
        flow = world.flow
        self.gate = Gate(
            flow.door, flow.door_states, flow.door_labels, world.book, self.store, self.clock,
            tell=lambda topics: world.tell(frozenset(topics), self),
        )
        self.courier = self._courier()
        self.keeper = self._keeper() if world.knobs.retention_seconds else None
        self._courier_at = 0

    def _courier(self) -> Courier | None:
        world, unit = self.world, self.world.door_unit
        carried = sorted(set(unit.entry.writes) - world.parts.direct(self.service))
        if not carried:
            return None
        pool = world.outside.pool(self)
        return Courier(unit, self.log, self.store, {}, pool, carried, self.poke_courier)

    def _keeper(self) -> Keeper:
        world = self.world
        topics = [s for s in world.specs if s.owner_file == self.service]
        followed = {s.name: [world.reading(r) for r in world.catalog.readers(s.name)]
                    for s in topics}  # fmt: skip
        return Keeper(self.log, self.store, topics, [], followed, every_seconds=1.0)

    def poke_courier(self) -> None:
        """Never called: the door asks nobody."""

    def turn(self) -> int:
        """One group, then the rows it left for a courier."""
        did = self.gate.step()
        if did:
            self._courier_at = 0
        if self.courier is not None and self.world.now >= self._courier_at:
            carried = self.courier.step(self.clock.now())
            if carried.wrote:
                self.world.tell(carried.wrote, self)
            did += carried.settled
            if not carried.settled:
                self._courier_at = self.world.now + POLL_MS
        if self.keeper is not None and self.world.faults.fires("retention:turn"):
            self.keeper.step(self.clock.now())
        self.rest(0 if did else self.world.now + POLL_MS)
        return did

    def hear(self, topics: Set[str]) -> None:
        """Nothing: a door reads no topic."""

    def poll(self) -> None:
        """Look at everything at the next turn."""
        self._courier_at = self.wake_at = 0

    @property
    def quiet(self) -> bool:
        """Is there nothing to do before the next look at everything?"""
        return self.wake_at > self.world.now + POLL_MS // 2

    def crash(self) -> None:
        """Nobody else does a door's work."""

