"""A whole flow in one thread: workers, couriers, gate, gateways and a clock turned by hand.

``Rig`` runs any Flow with its Catalog on one of the pairs. On nothing: memory log and in-memory
stores, where every topic leaves by outbox and courier. On a home folder: the embedded pair, where
a service's topics are appended in its own commit. On servers: PostgreSQL with Kafka, or with the
memory log. ``run`` turns everybody until nothing moves; time passes only in ``wait`` and in a slow
call.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import psycopg

from penstock import assemble
from penstock.catalog.model import JOURNAL, Catalog, GatewayEntry
from penstock.contracts.wire import Book
from penstock.decision import Ref, Service
from penstock.embedded.file import File
from penstock.engine.courier import Courier
from penstock.engine.intake import Gate, Wanted
from penstock.engine.slots import NoSlots, Slots
from penstock.engine.unit import Unit, door_service, unit_of
from penstock.engine.worker import Worker
from penstock.entry import REQUESTED
from penstock.event import Message, Record, root_id
from penstock.flow import Call, Flow, Intake, Reply, Row, Scan
from penstock.log.embedded import EmbeddedLog
from penstock.ops.scribe import Scribe
from penstock.ports import Gateway, Log, Ok, Outcome, Refused, Unavailable, Unknown
from penstock.ports import Request as Asked
from penstock.store.sqlite import SqliteStore
from tests.flows.ground import Ground, HandClock, HandTimed, HastyClock, Servers, real_now

TURNS_MAX = 5000
REST_SECONDS = 60  # until servers have told everything, on a busy machine
LOOK_SECONDS = 0.02


class Scripted:
    """A gateway that follows a script per key and keeps a ledger of what it did.

    A step is ``ok``, ``refused``, ``unavailable``, ``unavailable:SECONDS`` (Retry-After),
    ``unknown`` (done, but the answer is lost), ``lost`` (not done, no answer), ``crash`` (an
    exception) or ``slow:MILLISECONDS``; where the script ends, all is ok. The same idempotency
    key does a deed once and is answered alike ever after.
    """

    def __init__(
        self, scripts: Mapping[str, Sequence[str]] | None = None, clock: HandClock | None = None
    ) -> None:
        self._scripts = {key: deque(steps) for key, steps in (scripts or {}).items()}
        self._clock = clock or HandClock()
        self.calls: list[Asked] = []
        self.effects: dict[str, bytes] = {}
        self.deeds: Counter[str] = Counter()

    def call(self, request: Asked) -> Outcome:
        """Play the next step of the request's key."""
        self.calls.append(request)
        script = self._scripts.get(request.key)
        step, _, number = (script.popleft() if script else "ok").partition(":")
        if step == "crash":
            raise ConnectionError("the line went dead")
        if step == "unavailable":
            return Unavailable("closed for lunch", float(number) if number else None)
        if step == "lost":
            return Unknown("no answer")
        if step == "refused":
            return Refused("not for you", b'{"refused":true}')
        if step == "slow":
            self._clock.pass_(int(number))
        done = self._do(request)
        return Unknown("the answer was lost") if step == "unknown" else done

    def _do(self, request: Asked) -> Ok:
        key = request.idempotency_key
        if key not in self.effects:
            self.deeds[key] += 1
            self.effects[key] = b'{"number":%d}' % (len(self.effects) + 1)
        return Ok(self.effects[key])

    def keys(self) -> list[str]:
        """The keys that were called, in order."""
        return [call.key for call in self.calls]


def scripted(settings: Mapping[str, Any]) -> Scripted:
    """The factory that a catalog names."""
    return Scripted(settings.get("scripts"))


class HandPool:
    """The courier's ``Pool``: calls rest until ``work`` runs them, the latest first if asked."""

    def __init__(self) -> None:
        self.resting: list[tuple[str, Callable[[], None]]] = []
        self.most = 0

    def submit(self, gateway: str, work: Callable[[], None]) -> None:
        """Keep a call for later."""
        self.resting.append((gateway, work))
        self.most = max(self.most, len(self.resting))

    def work(self, count: int | None = None, *, latest_first: bool = False) -> int:
        """Run resting calls; returns how many."""
        chosen = self.resting[:count] if count is not None else self.resting[:]
        del self.resting[: len(chosen)]
        for _, call in reversed(chosen) if latest_first else chosen:
            call()
        return len(chosen)


class Rig:
    """A flow with everything that runs it; see the module."""

    def __init__(
        self, flow: Flow, catalog: Catalog, ground: Ground = None,
        gateways: Mapping[str, Gateway] | None = None, clock: HandClock | None = None,
        shared: Iterable[str] = (),
    ) -> None:
        self.flow, self.catalog = flow, catalog
        self.servers = ground if isinstance(ground, Servers) else None
        self.home = home = None if isinstance(ground, Servers) else ground
        self._news = threading.Event()
        if self.servers is not None:
            self.servers.rigs.append(self)
        self.clock, self.book = clock or HandClock(), Book(flow.contracts)
        self.house = assemble.House(
            home=home or Path(), catalog=catalog, flow=flow, book=self.book
        )
        self._shared = frozenset({JOURNAL, *shared})
        self.gateways: dict[str, Gateway] = {n: Scripted() for n in catalog.gateways}
        self.gateways |= dict(gateways or {})
        self.log: Log = self.new_log()
        self.log.ensure(assemble.specs(catalog))
        self.stores: dict[str, Any] = {}
        self.workers: dict[str, Worker] = {}
        self.couriers: dict[str, Courier] = {}
        self.pools: dict[str, HandPool] = {}
        self._appended: Counter[tuple[str, str]] = Counter()
        self.units = {s.name: unit_of(s, catalog, self.book) for s in self._services()}
        for name in self.units:
            self.stores[name] = self.new_store(name)
            self.start(name)
        self.gate = self._gate() if flow.door else None

    # Parts -------------------------------------------------------------------------------------

    def _services(self) -> list[Service]:
        """The flow's, and the door as a service that decides nothing: it may need a courier."""
        found = list(self.flow.services)
        if self.flow.door:
            found.append(door_service(self.flow.door, self.flow.door_states))
        return found

    def new_log(self) -> Log:
        """A log of one's own on the same topics (the memory log is one for all)."""
        if self.servers is not None and self.servers.kafka:
            log = self.servers.cluster.log(
                assemble.specs(self.catalog), lambda topics: self._news.set()
            )
            return log if isinstance(self.clock, HastyClock) else HandTimed(log, self.clock)
        if self.home is None:
            return assemble.make_memory_log(self.house)
        return EmbeddedLog(self.home, assemble.specs(self.catalog), self._shared)

    def own_topics(self, service: str) -> list[str]:
        """The topics that the service alone produces."""
        return assemble.own_topics(self.catalog, service)

    def new_store(self, service: str) -> Any:
        """The service's store on a connection of its own; in memory there is one."""
        if self.servers is not None:
            return self.servers.cluster.store(service)
        if self.home is None:
            made = self.stores.get(service)
            return made or assemble.make_memory_store(self.house, service, direct=False)
        file = File(self.home / f"{service}.db", shared=service in self._shared)
        return SqliteStore(file, service, direct=self.own_topics(service))

    def new_worker(self, service: str, slots: Slots | None = None) -> Worker:
        """One more member of a service, with a store of its own."""
        unit = self.units[service]
        log = self.log if self.home is None else self.new_log()
        return Worker(unit, log, self.new_store(service), slots or NoSlots(unit.lanes))

    def new_courier(self, service: str, pool: HandPool) -> Courier:
        """A courier of a service: of its gateways, and of the topics its store does not append."""
        unit = self.units[service]
        found: dict[str, tuple[GatewayEntry, Gateway]] = {
            name: (self.catalog.gateways[name], self.gateways[name])
            for name in unit.entry.asks if name in self.catalog.gateways
        }
        written = {*unit.entry.writes, unit.answers, unit.dead} & self.catalog.topics.keys()
        store = self.stores[service]
        carried = sorted(written - set(getattr(store, "direct", ())))
        courier = Courier(unit, self.log, store, found, pool, carried)
        courier.shards = frozenset(range(store.features.shards))
        return courier

    def start(self, service: str) -> None:
        """Start a service's worker and courier from what is stored, as after a crash."""
        old = self.workers.pop(service, None)
        if old is not None:
            old.leave()
        unit = self.units[service]
        if unit.reads:
            slots = NoSlots(unit.lanes)
            self.workers[service] = Worker(unit, self.log, self.stores[service], slots)
        self.pools[service] = HandPool()
        self.couriers[service] = self.new_courier(service, self.pools[service])

    def _gate(self) -> Gate:
        flow = self.flow
        return Gate(
            flow.door, flow.door_states, flow.door_labels, self.book, self.stores[flow.door],
            self.clock,
        )

    def close(self) -> None:
        """Leave every group, and let go of servers."""
        for worker in self.workers.values():
            worker.leave()
        if self.servers is not None:
            for store in self.stores.values():
                store.close()
            if self.servers.kafka:
                self.log.close()  # type: ignore[attr-defined]

    def commits(self, service: str) -> int:
        """How many there were so far; on a database those of all services."""
        if self.servers is None:
            return int(self.stores[service].file.commits)
        with psycopg.connect(self.servers.dsn) as connection:
            row = connection.execute("SELECT last_value FROM penstock.txns").fetchone()
        assert row is not None
        return int(row[0])

    # Time and turns ----------------------------------------------------------------------------

    def turn(self) -> int:
        """One step of everybody; returns how much moved."""
        now, moved = self.clock.now(), 0
        if self.gate is not None:
            moved += self.gate.step()
        for worker in self.workers.values():
            moved += worker.step(now).records
        for name, courier in self.couriers.items():
            carried = courier.step(now)
            moved += carried.settled + carried.called + self.pools[name].work()
        return moved

    def run(self) -> Rig:
        """Turn until nothing moves at this time, and whoever reads has read it all."""
        idle, turns = 0, 0
        until = real_now() + REST_SECONDS * 1000
        while turns < TURNS_MAX if self.log.features.at_once else real_now() < until:
            turns += 1
            idle = 0 if self.turn() else idle + 1
            if self.log.features.at_once:
                if idle > 2:
                    return self
            elif idle:
                if not self.behind():
                    return self
                self._news.wait(LOOK_SECONDS)
                self._news.clear()
        raise AssertionError(f"the flow does not come to rest: {self.behind()}")

    def behind(self) -> list[str]:
        """Where readers have not come to the end of what they read; not of those that stand still
        for a reason."""
        read = {topic for worker in self.workers.values() for topic in worker.unit.reads}
        ends = {topic: self.log.extent(topic) for topic in sorted(read)}
        found = []
        for name, worker in self.workers.items():
            if worker.stopped or worker.trouble:
                continue
            rows = {int(row.key): row.body for row in self.rows(name, "positions")}
            for topic in worker.unit.reads:
                for lane, extent in enumerate(ends[topic]):
                    at = rows.get(lane, {}).get(topic, extent.first)
                    if at < extent.next:
                        found.append(f"{name} is at {at} of {topic}[{lane}]@{extent.next}")
        return found

    def wait(self, milliseconds: int, times: int = 1) -> Rig:
        """Let time pass and run, as often as said."""
        for _ in range(times):
            self.clock.pass_(milliseconds)
            self.run()
        return self

    # In and out --------------------------------------------------------------------------------

    def message(self, key: str, fact: Any, topic: str = "") -> Message:
        """A sealed fact from outside, with an id of its own."""
        self._appended[topic, key] += 1
        type_, version, value = self.book.seal(fact)
        now = self.clock.now()
        id_ = root_id(now, topic, key, str(self._appended[topic, key]))
        return Message(key, value, id_, type_, version, now, b"", "", "outside")

    def append(self, topic: str, *facts: tuple[str, Any]) -> list[Message]:
        """Append facts (key, value) as their producer would."""
        messages = [self.message(key, fact, topic) for key, fact in facts]
        self.log.append(topic, messages, self.clock.now())
        return messages

    def operate(self, type_: str, record: Record, service: str, reason: str = "because") -> None:
        """An operator's request about a parked record: an entry of the journal where its service
        runs, else as it was before there was a chain (services obey those, too)."""
        wish = REQUESTED[type_](
            service=service, topic=record.topic, partition=record.partition,
            offset=record.offset, key=record.message.key, reason=reason, actor="pat",
        )
        if JOURNAL in self.units:
            store = self.new_store(JOURNAL)
            Scribe(self.catalog, self.book, store, self.clock).write(wish)
            return
        kind, version, value = self.book.seal_as(type_, wish)
        self._appended[JOURNAL, type_] += 1
        now = self.clock.now()
        id_ = root_id(now, type_, str(self._appended[JOURNAL, type_]))
        message = Message(wish.key, value, id_, kind, version, now, b"", "", "pat")
        self.log.append(JOURNAL, [message], now)

    def request(self, route: str, body: Any = None, **call: Any) -> Reply:
        """One request at the door, decided in a group of its own."""
        return self.requests(route, [Call(client="c", now=self.clock.now(), body=body, **call)])[0]

    def requests(self, route: str, calls: Iterable[Call]) -> list[Reply]:
        """Requests at the door as one group."""
        assert self.gate is not None
        intake = next(r.does for r in self.flow.routes if r.name == route)
        assert isinstance(intake, Intake)
        replies: list[Reply] = []
        for call in calls:
            refusal = self.gate.submit(Wanted(intake, call, replies.append))
            assert refusal is None
        self.gate.step()
        return replies

    def records(self, topic: str) -> list[Record]:
        """Everything a topic holds, partition by partition."""
        found = []
        for partition, extent in enumerate(self.log.extent(topic)):
            if extent.next > extent.first:
                size = extent.next - extent.first
                found += self.log.read(topic, partition, extent.first, size)
        return found

    def facts(self, topic: str) -> dict[str, list[Any]]:
        """The opened facts of a topic by key, in order."""
        found: dict[str, list[Any]] = defaultdict(list)
        for record in self.records(topic):
            m = record.message
            found[m.key].append(self.book.open(m.type, m.version, m.value))
        return dict(found)

    def types(self, topic: str, key: str) -> list[str]:
        """The event types of one key, in order."""
        return [r.message.type for r in self.records(topic) if r.message.key == key]

    def states(self, service: str) -> dict[Ref, Any]:
        """Every document of a service, decoded."""
        types = self.units[service].service.states
        found: dict[Ref, Any] = {}
        for kind, type_ in types.items():
            for row in self.rows(service, "documents", kind):
                found[Ref(kind, row.key)] = msgspec.json.decode(row.body, type=type_)
        return found

    def rows(self, service: str, table: Any, kind: str = "") -> list[Row]:
        """Rows of a scan, as many as there may be."""
        what = Scan(service=service, table=table, kind=kind, limit=100_000)
        return self.stores[service].scan(what)

    def waiting(self, service: str) -> list[tuple[str, str, int]]:
        """Waiting and parked records as (key, state, attempts), in the order of their places."""
        rows = (row.body for row in self.rows(service, "waiting"))
        return [(w.record.message.key, w.state, w.attempts) for w in rows]

    def unit(self, service: str) -> Unit:
        """A service ready to run."""
        return self.units[service]
