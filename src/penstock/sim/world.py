"""One simulated run: the real engine in one thread, under an injected clock, dice and scheduler.

A world holds the flow's services as processes, its clients, and the outside. ``run`` plays the
workload while faults strike, then calms down: the faults stop, everything is started again, people
retry what was parked, time leaps, and all orders must come to their end. Everything that varies is
drawn from the case's dice, so a case is a run.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from hashlib import blake2b
from heapq import heappop, heappush
from typing import Any

from msgspec.structs import replace

from penstock import assemble
from penstock.catalog.model import (
    JOURNAL,
    Breaker,
    Catalog,
    GatewayEntry,
    RetryPolicy,
    ServiceEntry,
)
from penstock.decision import Decision, Service, States
from penstock.engine import cuts
from penstock.engine.slots import NoSlots
from penstock.engine.unit import Unit, door_service, unit_of
from penstock.errors import StorageFull
from penstock.event import Event
from penstock.flow import Row, Scan
from penstock.ports import Gateway, Store
from penstock.sim.case import Case, Knobs, dice, pick
from penstock.sim.clients import Clients
from penstock.sim.faults import Faults, drawn
from penstock.sim.members import Died, Door, Member, Process
from penstock.sim.operators import Operator
from penstock.sim.outside import Outside, Played
from penstock.sim.parts import EmbeddedParts, MemoryParts
from penstock.sim.weather import Weather

START = 1_767_600_000_000
TURNS_MAX = 60_000
STALL_TURNS = 40
DOWN_MS = 800
STEP_MS = 2
LEAPS_MS = (120_000, 90_000_000)  # past every retry, past every deadline
CALMS_MAX = 12


class Restless(Exception):
    """The world does not come to rest, or a process breaks: what is wrong, in a sentence."""


class World:
    """One run of a case; see the module."""

    def __init__(self, case: Case, house: assemble.House) -> None:
        self.case, self.flow, self.book = case, house.flow, house.book
        self.roll = dice(case, "schedule").random
        self.knobs = knobs_of_case(case, house.catalog)
        self.catalog = shaped(house.catalog, self.knobs)
        self.house = replace(house, catalog=self.catalog)
        self.specs = assemble.specs(self.catalog)
        play = importlib.import_module(self.flow.sim)
        self.faults = Faults(case, self.knobs.faults, play.FAULTS)
        self.now, self.turns, self.handled = START, 0, 0
        self.progress = self.visits_made = 0
        self.trace = blake2b(digest_size=16)
        self._timers: list[tuple[int, float, int, Callable[[], None]]] = []
        self._count = 0
        self._current: Process | None = None
        self.broken: set[bytes] = set()
        # Records that kill whoever decides them, and how often they did since the last retry.
        self.deaths: dict[tuple[str, bytes], int] = {}
        kind = EmbeddedParts if case.slow else MemoryParts
        self.parts: Any = kind(self.house, self.knobs.direct, self.faults, self.seconds)
        outside_roll = dice(case, "outside").random
        self.played: Played = play.Outside(
            lambda fault: self.faults.fires(f"outside:{fault}"), outside_roll
        )
        self.outside = Outside(self, tuple(self.catalog.gateways))
        self.gateways: dict[str, tuple[GatewayEntry, Gateway]] = {
            name: (entry, self.outside.lines[name]) for name, entry in self.catalog.gateways.items()
        }
        self._readers: dict[str, Store] = {}
        self._decoders = assemble.decoders(self.flow)
        self.units = {s.name: self._unit(s) for s in self.flow.services}
        self.door_unit = self._unit(door_service(self.flow.door, self.flow.door_states))
        self.slots = {name: NoSlots(unit.lanes) for name, unit in self.units.items()}
        self.processes: list[Process] = []
        self.door: Door | None = None
        self.clients = Clients(self, play.ID_FIELD)
        self._visits = play.visits(dice(case, "workload").random, case.orders)
        self.faults.calm = True  # until everybody is there
        self.operator, self.weather = Operator(self), Weather(self)
        self._start_all()
        self.faults.calm = False

    # Set-up ------------------------------------------------------------------------------------

    def _unit(self, service: Service) -> Unit:
        unit = unit_of(service, self.catalog, self.book)
        return replace(unit, service=replace(service, decide=self._faulty(service)))

    def _faulty(self, service: Service) -> Callable[..., Decision]:
        """The service's decide, with the faults that strike in it."""
        decide, faults, fires, name = service.decide, self.faults, self.faults.fires, service.name
        watched = faults.on("deadly") or faults.on("raises") or faults.on("broken")

        def decide_or_fail(states: States, event: Event, context: Any) -> Decision:
            if faults.calm:
                return decide(states, event, context)
            if fires("deadly:decide"):
                self.deaths.setdefault((name, event.id), 0)
            if (name, event.id) in self.deaths:
                self.deaths[name, event.id] += 1
                raise Died
            if fires("broken:decide"):
                self.broken.add(event.id)
            if event.id in self.broken:
                raise ValueError("simulated: this record cannot be decided")
            if fires("raises:decide"):
                raise RuntimeError("simulated: an error that passes")
            return decide(states, event, context)

        return decide_or_fail if watched else decide

    def _start_all(self) -> None:
        for name in self.units:
            for _ in range(self.knobs.workers.get(name, 1)):
                self.start(name)
        self.start(self.flow.door)

    def start(self, service: str) -> Process:
        """A new process of a service."""
        process: Process
        if service == self.flow.door:
            process = self.door = Door(self, service)
        else:
            self._count += 1
            unit, slots = self.units[service], self.slots[service]
            process = Member(self, service, self._count, unit, slots)
        if self.faults.fires("skew:jump"):
            process.clock.skew_ms = int((self.roll() - 0.5) * 4000)
        self.processes.append(process)
        return process

    def seconds(self) -> float:
        """Simulated seconds, for what measures time by a monotonic clock."""
        return self.now / 1000

    # Looking -----------------------------------------------------------------------------------

    def reader(self, service: str) -> Store:
        """A store to read from."""
        if service not in self._readers:
            self._readers[service] = self.parts.store(service)
        return self._readers[service]

    def scan(self, what: Scan) -> list[Row]:
        """A scan with document bodies decoded."""
        rows = self.reader(what.service).scan(what)
        if what.table != "documents":
            return rows
        decode = self._decoders[what.service, what.kind]
        return [replace(row, body=decode(row.body)) for row in rows]

    def reading(self, service: str) -> Callable[[str], Mapping[int, int] | None]:
        """A declared reader's positions by lane, as a keeper wants them."""

        def positions(topic: str) -> Mapping[int, int] | None:
            what = Scan(service=service, table="positions", limit=5000)
            rows = self.reader(service).scan(what)
            return {int(row.key): row.body.get(topic, 0) for row in rows} if rows else None

        return positions

    # Time and turns ----------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """What happened becomes part of the trace."""
        self.trace.update(f"{self.now} {text}\n".encode())

    def at(self, when: int, what: Callable[[], None]) -> None:
        """Let something happen at a time."""
        self._count += 1
        heappush(self._timers, (when, self.roll(), self._count, what))

    def pause(self) -> int:
        """When a process that has work gets its turn on a busy machine: meanwhile work piles up."""
        return self.now + int(self.roll() * self.knobs.pace_ms)

    def tell(self, topics: Iterable[str], teller: Process) -> None:
        """Wake the readers of topics; some wake-ups are lost."""
        heard = set(topics)
        for process in self.processes:
            new = heard & process.ears
            if new and process is not teller and not self.faults.fires("wakes:tell"):
                process.hear(new)

    def step(self) -> bool:
        """Turn one process that has a reason, or let time pass; False when nothing is left."""
        timers = self._timers
        while timers and timers[0][0] <= self.now:
            heappop(timers)[3]()
        ready = [p for p in self.processes if p.wake_at <= self.now and not p.busy]
        if not ready:
            waits = [p.wake_at for p in self.processes if not p.busy]
            if timers:
                waits.append(timers[0][0])
            if not waits:
                return False
            self.now = max(self.now + 1, min(waits))
            return True
        process = ready[int(self.roll() * len(ready))] if len(ready) > 1 else ready[0]
        self._turn(process)
        self.now += int(self.roll() * STEP_MS)
        return True

    def _turn(self, process: Process) -> None:
        self.turns += 1
        self.during(process, lambda: self._count_turn(process))
        if self.turns > TURNS_MAX:
            raise Restless(f"no rest after {TURNS_MAX} turns")

    def _count_turn(self, process: Process) -> None:
        did = process.turn()
        self.note(f"{process.name} {did}")
        self.progress += did
        if process.doomed:
            self.kill(process)

    def during(self, process: Process, what: Callable[[], object]) -> None:
        """Let a process do something; it may die of it."""
        before, self._current = self._current, process
        process.busy = True
        try:
            what()
        except Died:
            self.note(f"{process.name} died")
            self.kill(process)
        finally:
            process.busy = False
            self._current = before

    def aside(self, what: Callable[[], object]) -> None:
        """Let somebody act who is no process of the world: no fault of a process strikes there."""
        before, self._current = self._current, None
        try:
            what()
        finally:
            self._current = before

    # What a process may meet ---------------------------------------------------------------------

    def passed(self, point: str) -> None:
        """A process passes a cut point: it may die here, or stand still for a while."""
        process = self._current
        if process is None or self.faults.calm:
            return
        if self.faults.fires(KILLS[point]):
            raise Died
        if point in STALLS and not process.stalled and self.faults.fires(STALLS[point]):
            self._stall(process)

    def _stall(self, process: Process) -> None:
        """Others go on while it stands still; often they take over what it has in its hands."""
        self.note(f"{process.name} stands still")
        process.stalled = True
        if process is not self.door and self.roll() < 0.7:
            process.crash()
            process.doomed = True
            self.at(self.now, lambda: self.restart(process.service))
        for _ in range(1 + int(self.roll() * STALL_TURNS)):
            self.step()
        process.stalled = False
        self._current = process
        self.note(f"{process.name} goes on")

    def kill(self, process: Process) -> None:
        """The process is gone; the crew starts another after a while."""
        self.end(process)
        if process.doomed:
            return  # it has a successor already
        down = 1 + int(self.roll() * DOWN_MS)
        service = process.service
        self.at(self.now + down, lambda: self.restart(service))

    def end(self, process: Process) -> None:
        """The process is no more, however it ended."""
        process.alive = False
        self.processes.remove(process)
        if isinstance(process, Member):
            self.handled += process.worker.counts.handled
        process.crash()
        if process is self.door:
            self.door = None
        self.parts.gone(process.log, process.store)

    def restart(self, service: str) -> None:
        """One more process of a service; on a full disk it is tried again later."""
        try:
            self.start(service)
        except StorageFull:
            self.note(f"{service} finds no room to start")
            self.at(self.now + DOWN_MS, lambda: self.restart(service))
        else:
            self.note(f"{service} starts")

    # The run -------------------------------------------------------------------------------------

    def run(self) -> World:
        """Play the workload under faults, then calm down; raises ``Restless``."""
        strikes = self.faults.on("kill") or self.faults.on("stall")
        with _hooked(self.passed) if strikes else nullcontext():
            for visit in self._visits_kept():
                self.visits_made += 1
                self.clients.expect(visit)
            self.operator.begin()
            self.weather.begin()
            self._drive()
            self._calm_down()
            for process in list(self.processes):
                self.end(process)
        return self

    def close(self) -> None:
        """Close whatever is still open, however the run ended."""
        for process in self.processes:
            self.parts.gone(process.log, process.store)
        self.parts.gone(self.operator.log, self.operator.store, *self._readers.values())
        self.processes, self._readers = [], {}

    def _visits_kept(self) -> Sequence[Any]:
        keep = self.case.keep
        return self._visits if keep is None else [self._visits[n] for n in keep]

    def _drive(self) -> None:
        """Until every client has its answer, and some time more."""
        last = max((v.after for v in self._visits_kept()), default=0)
        until = START + last + 1500
        while self.now < until or (self.clients.open and self.now < until + 60_000):
            self.step()

    def _calm_down(self) -> None:
        self.note("calm")
        self.faults.calm = True
        self.broken.clear()
        for process in self.processes:
            process.clock.skew_ms = 0
        self._mend()
        for visit in self.played.calm():
            self.clients.expect(visit)
        self._rest()
        for leap in LEAPS_MS:
            self.now += leap
            self._rest()
        for turn in range(CALMS_MAX):
            before = self.progress
            acted = self._mend() + self.operator.clear(turn)
            self.now += LEAPS_MS[0]
            self._rest()
            if not acted and self.progress == before:
                return
        raise Restless(f"parked records keep coming back after {CALMS_MAX} rounds of retries")

    def _mend(self) -> int:
        """Start again whatever stopped itself."""
        stopped = [
            p for p in self.processes if isinstance(p, Member) and p.worker.stopped
        ]
        for process in stopped:
            self.end(process)
            self.start(process.service)
        return len(stopped)

    def _rest(self) -> None:
        """Turn until nothing is left to do at this time."""
        for process in self.processes:
            process.poll()
        while self._timers or self.clients.open or not all(p.quiet for p in self.processes):
            self.step()


class _Hook:
    """Stands at one cut point of the engine while a world runs."""

    def __init__(self, point: str, passed: Callable[[str], None]) -> None:
        self._point, self._passed = point, passed

    def fall(self) -> None:
        self._passed(self._point)


@contextmanager
def _hooked(passed: Callable[[str], None]) -> Iterator[None]:
    """The world hears of every cut point that is passed."""
    cuts.install({point: [_Hook(point, passed)] for point in cuts.POINTS})
    try:
        yield
    finally:
        cuts.uninstall()


KILLS = {point: f"kill:{point}" for point in cuts.POINTS}
STALLS = {
    point: f"stall:{point}"
    for point in ("worker.receive", "worker.open", "courier.send", "courier.called",
                  "intake.reply")
}  # fmt: skip


# Knobs -------------------------------------------------------------------------------------------

BATCHES = (1, 5, 20, 100, 500, 500)
WORKERS = (1, 1, 1, 2, 3)


def knobs_of_case(case: Case, catalog: Catalog) -> Knobs:
    """The capacities and faults of a run: the case's own, or drawn; tiny ones on purpose."""
    if case.knobs is not None:
        return case.knobs
    faults = drawn(case)
    roll = dice(case, "knobs").random
    services = [s.name for s in catalog.services.values() if s.handler]
    topics = [t.name for t in catalog.topics.values() if t.producer in catalog.services]
    many = "rebalance" in faults
    return Knobs(
        partitions=pick(roll, (1, 2, 4)),
        batch={name: pick(roll, BATCHES) for name in services},
        workers={name: pick(roll, WORKERS) if many else 1 for name in services},
        direct=tuple(t for t in topics if roll() < 0.5),
        faults=dict(faults),
        retention_seconds=pick(roll, (1.0, 3.0)) if "retention" in faults else 0.0,
        attempts=pick(roll, (2, 3, 5)),
        latency_ms=pick(roll, (2, 20, 100, 500)),
        pace_ms=pick(roll, (5, 200, 400, 400, 800, 800, 800)),
    )


def shaped(catalog: Catalog, knobs: Knobs) -> Catalog:
    """The catalog with the run's capacities."""
    topics = {
        name: replace(
            t, partitions=knobs.partitions,
            retention_seconds=(
                None if name == JOURNAL else knobs.retention_seconds or t.retention_seconds
            ),
        )
        for name, t in catalog.topics.items()
    }
    services = {name: _shaped(s, knobs) for name, s in catalog.services.items()}
    gateways = {
        name: replace(
            g, rate=100_000.0, max_in_flight=4, breaker=Breaker(failures=4, open_seconds=0.5)
        )
        for name, g in catalog.gateways.items()
    }
    return replace(catalog, topics=topics, services=services, gateways=gateways)


def _shaped(service: ServiceEntry, knobs: Knobs) -> ServiceEntry:
    retry = RetryPolicy(attempts=knobs.attempts, first_delay_seconds=0.1, max_delay_seconds=1.0)
    return replace(service, retry=retry, workers=2)
