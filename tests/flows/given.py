"""Given, when, then for services and for the door; and a bus that runs services together.

``Given`` feeds a history through one service's decide with its documents in a dict and shows the
next Decision. ``Bus`` runs several services on literals: topics are lists, gateways answer by
functions, and the order in which topics, keys and gateways get their turn is chosen by a seed.
Within one topic the order stays; between topics there is none.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from penstock.contracts.contract import Contract
from penstock.contracts.wire import Book
from penstock.decision import (
    Answer,
    Ask,
    Context,
    Decision,
    Done,
    Park,
    Parked,
    Ref,
    Service,
    Unparked,
    Wake,
)
from penstock.event import Event, child_id, root_id

NOW = 1_767_600_000_000  # a Monday morning


class Given:
    """One service and its documents."""

    def __init__(self, service: Service, book: Book, key: str = "o-1") -> None:
        self.service, self.book, self.key = service, book, key
        self.states: dict[Ref, Any] = {}
        self.now = NOW
        self._count = 0

    def event(self, fact: Any, key: str | None = None, type_: str = "") -> Event:
        """A fact as an event that was appended now."""
        self._count += 1
        type_ = type_ or self.book.seal(fact)[0]
        id_ = root_id(self.now, str(self._count))
        return Event(
            id=id_, type=type_, version=1, key=key or self.key, at=self.now, data=fact,
            appended_at=self.now,
        )

    def given(self, *facts: Any, key: str | None = None) -> Given:
        """A history: every fact is handled, whatever comes of it."""
        for fact in facts:
            assert isinstance(self.when(fact, key=key), Done), f"{fact} was not handled"
        return self

    def when(self, fact: Any, key: str | None = None, type_: str = "") -> Decision:
        """The decision about one fact; a Done is written to the documents."""
        event = fact if isinstance(fact, Event) else self.event(fact, key, type_)
        return handle(self.service, self.states, event, event.appended_at)

    def own(self, key: str | None = None) -> Any:
        """The service's own document of a key."""
        return self.states.get(Ref(self.service.kind, key or self.key))


def handle(
    service: Service, states: dict[Ref, Any], event: Event, now: int
) -> Decision:
    """One decide as the engine does it: its own document, its needs, writes within them only."""
    own = Ref(service.kind, event.key)
    refs = (own, *service.needs(event, states.get(own)))
    known = {ref: states.get(ref) for ref in refs}
    decision = service.decide(known, event, Context(now=now, service=service.name))
    if isinstance(decision, Done):
        for ref, state in decision.states.items():
            assert ref in known, f"{service.name} wrote {ref} without having named it"
            assert isinstance(state, service.states[ref.kind])
            states[ref] = stored(state)
        for ask in decision.asks:
            msgspec.json.encode(ask.request)
    return decision


def stored(state: Any) -> Any:
    """A document as it comes back from a store."""
    return msgspec.json.decode(msgspec.json.encode(state), type=type(state))


def answer(name: str, outcome: str = "ok", key: str = "", **body: Any) -> Answer:
    """The outcome of an ask."""
    return Answer(
        ask="00", name=name, gateway="", outcome=outcome, idempotency_key=key,
        body=Raw(msgspec.json.encode(body)), reason=str(body.get("reason", "")),
    )


def wake(name: str, due: int = NOW) -> Wake:
    """The clock's answer."""
    return Wake(ask="00", name=name, due=due)


def said(decision: Decision) -> list[Any]:
    """The facts a decision publishes."""
    assert isinstance(decision, Done), decision
    return [emit.data for emit in decision.events]


def asked(decision: Decision) -> list[str]:
    """The asks of a decision as ``gateway name key``."""
    assert isinstance(decision, Done), decision
    return [f"{a.gateway} {a.name} {a.idempotency_key or ''}".strip() for a in decision.asks]


class Outcome(Struct, frozen=True):
    """What a gateway of the bus answers; ``arrivals`` are what it tells the door by webhook."""

    outcome: str = "ok"
    body: Mapping[str, Any] = {}
    arrivals: tuple[tuple[str, Any], ...] = ()  # key and fact
    webhook_first: bool = False


Gateway = Callable[[Ask, str], Outcome]


class Seen(Struct, frozen=True):
    """One handled event: the own document before and after it, and the decision."""

    service: str
    before: Any
    event: Event
    after: Any
    decision: Decision


class Bus:
    """All services of a flow in one world without processes."""

    def __init__(
        self, services: Iterable[Service], contracts: Iterable[Contract],
        gateways: Mapping[str, Gateway], seed: int,
    ) -> None:
        self.services = {service.name: service for service in services}
        self.book = Book(contracts)
        self.gateways = dict(gateways)
        self.dice = random.Random(seed)
        self.topics: dict[str, list[Event]] = {}
        self.next: dict[tuple[str, str], int] = {}
        self.states: dict[str, dict[Ref, Any]] = {name: {} for name in self.services}
        self.open: dict[tuple[str, str, str], list[tuple[Ask, Event]]] = {}
        self.wakes: list[tuple[str, Ask, Event]] = []
        self.waiting: dict[tuple[str, str, str], list[Event]] = {}  # behind a parked head
        self.parks: list[tuple[str, Event, Park]] = []
        self.history: list[Seen] = []
        self.now = NOW
        self._roots = 0

    # ---- putting things in

    def arrive(self, topic: str, key: str, fact: Any) -> None:
        """Something from outside, appended to a topic of the door."""
        self._roots += 1
        self._append(topic, key, fact, root_id(self.now, topic, str(self._roots)), b"")

    def _append(
        self, topic: str, key: str, fact: Any, id_: bytes, cause: bytes, type_: str = ""
    ) -> None:
        self.now += 1
        if not type_:
            type_, version, value = self.book.seal(fact)
            fact = self.book.opener(type_, version)(value)  # as it comes back from a log
        event = Event(
            id=id_, type=type_, version=1, key=key, at=self.now, data=fact, cause=cause,
            topic=topic, appended_at=self.now,
        )
        self.topics.setdefault(topic, []).append(event)

    # ---- running

    def run(self, turns: int = 5000) -> None:
        """Turns in an order of the seed's choice, until nothing is left to do."""
        for _ in range(turns):
            choices = self._readable() + self._callable()
            if not choices:
                return
            self.dice.choice(choices)()
        raise AssertionError("the services never come to rest")

    def steps(self, count: int) -> None:
        """At most so many turns."""
        for _ in range(count):
            choices = self._readable() + self._callable()
            if choices:
                self.dice.choice(choices)()

    def pass_time(self) -> None:
        """Every wake asked for becomes due."""
        wakes, self.wakes = self.wakes, []
        for service, ask, event in wakes:
            self.now = max(self.now, ask.due)
            fact = Wake(ask="00", name=ask.name, due=ask.due)
            id_ = child_id(event.id, service, f"wake:{ask.name}", 0)
            self._append(f"{service}.answers", event.key, fact, id_, event.id, "wake")

    def _readable(self) -> list[Callable[[], None]]:
        return [
            lambda service=service, topic=topic: self._read(service, topic)  # type: ignore[misc]
            for service in self.services.values()
            for topic in service.reads
            if self.next.get((service.name, topic), 0) < len(self.topics.get(topic, ()))
        ]

    def _callable(self) -> list[Callable[[], None]]:
        return [lambda place=place: self._call(place) for place in self.open]  # type: ignore[misc]

    def _read(self, service: Service, topic: str) -> None:
        place = (service.name, topic)
        event = self.topics[topic][self.next.get(place, 0)]
        self.next[place] = self.next.get(place, 0) + 1
        if event.type not in service.reads[topic]:
            return
        behind = self.waiting.get((service.name, topic, event.key))
        if behind is not None:
            behind.append(event)
        else:
            self._handle(service, event)

    def _handle(self, service: Service, event: Event) -> None:
        states, own = self.states[service.name], Ref(service.kind, event.key)
        before = states.get(own)
        decision = handle(service, states, event, event.appended_at)
        self.history.append(Seen(service.name, before, event, states.get(own), decision))
        if isinstance(decision, Done):
            self._publish(service, event, decision)
        else:
            assert isinstance(decision, Park), decision
            self._park(service, event, decision)

    def _publish(self, service: Service, event: Event, done: Done) -> None:
        for number, emit in enumerate(done.events):
            id_ = child_id(event.id, service.name, type(emit.data).__name__, number)
            self._append(emit.topic, emit.key or event.key, emit.data, id_, event.id)
        for ask in done.asks:
            if ask.gateway == "clock":
                self.wakes.append((service.name, ask, event))
            else:
                place = (service.name, ask.gateway, event.key)
                self.open.setdefault(place, []).append((ask, event))

    def _call(self, place: tuple[str, str, str]) -> None:
        service, gateway, key = place
        ask, event = self.open[place].pop(0)
        if not self.open[place]:
            del self.open[place]
        came = self.gateways[gateway](ask, key)
        if came.webhook_first:
            self._tell(came)
            self.steps(self.dice.randrange(6))
        self._answer(service, ask, event, came)
        if not came.webhook_first:
            self._tell(came)

    def _tell(self, came: Outcome) -> None:
        for key, fact in came.arrivals:
            self.arrive("arrivals", key, fact)

    def _answer(self, service: str, ask: Ask, event: Event, came: Outcome) -> None:
        fact = Answer(
            ask="00", name=ask.name, gateway=ask.gateway, outcome=came.outcome,
            idempotency_key=ask.idempotency_key or "", body=Raw(msgspec.json.encode(came.body)),
        )
        id_ = child_id(event.id, service, f"answer:{ask.name}", 0)
        self._append(f"{service}.answers", event.key, fact, id_, event.id, "answer")

    # ---- dead letters

    def _park(self, service: Service, event: Event, park: Park) -> None:
        self.waiting[(service.name, event.topic, event.key)] = [event]
        self.parks.append((service.name, event, park))
        fact = Parked(
            service=service.name, service_version="1", topic=event.topic, partition=0, offset=0,
            appended_at=event.appended_at, event_id=event.id.hex(), type=event.type,
            schema_version=1, key=event.key, kind=park.kind, reason=park.reason, owner="",
            trace="", value=b"", attempts=(),
        )
        id_ = child_id(event.id, service.name, "dead.parked", len(self.parks))
        self._append(f"{service.name}.dead", event.key, fact, id_, event.id, "dead.parked")

    def decide_parked(self, retry: bool) -> None:
        """An operator retries or discards every parked record; those behind it follow."""
        for (name, topic, key), events in list(self.waiting.items()):
            del self.waiting[(name, topic, key)]
            head, park = events[0], self.parks[-1][2]
            fact = Unparked(
                service=name, topic=topic, partition=0, offset=0, event_id=head.id.hex(),
                type=head.type, key=key, kind=park.kind, reason="looked at", actor="ops",
            )
            word = "dead.retried" if retry else "dead.discarded"
            id_ = child_id(head.id, name, word, len(self.parks))
            self._append(f"{name}.dead", key, fact, id_, head.id, word)
            if not retry:
                self._append(f"{name}.answers", key, fact, id_, head.id, word)
            for event in events if retry else events[1:]:
                self._handle(self.services[name], event)
