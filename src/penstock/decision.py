"""What a service is and what it may answer.

A service is a pure function: ``decide(states, event, context)`` reads no clock, calls nobody and
returns one of four values. ``Done`` writes states, events and asks in one transaction; the other
three write nothing of the service's own.

    Done(states, events, asks)   handled
    Retry(reason, after)         try again later; counted, bounded, then parked
    Hold(dependency, until)      wait for something named; not counted
    Park(kind, reason)           set aside in the dead letters
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Raw, Struct

from penstock.event import Event


class Ref(Struct, frozen=True, gc=False, order=True):
    """Kind and key of a state: the address of one document of one service."""

    kind: str
    key: str


State = Any  # an instance of the Struct that the service declares for the ref's kind
States = Mapping[Ref, State | None]


class Emit(Struct, frozen=True, gc=False):
    """An event the service wants published. ``key`` defaults to the handled event's key."""

    topic: str
    data: Any
    key: str | None = None


class Ask(Struct, frozen=True, gc=False):
    """A call the service wants made, carried out by the courier.

    ``name`` tells the service its own asks apart when the Answer comes. ``idempotency_key``
    defaults to the row's derived id (hex). ``due`` (ms) is for the built-in gateway ``clock``
    alone, which answers when it is reached and does nothing else.
    """

    gateway: str
    name: str
    request: Any = None
    idempotency_key: str | None = None
    due: int = 0


class Done(Struct, frozen=True, gc=False):
    """The event is handled: these states, events and asks commit with its mark.

    A state of ``None`` deletes the document.
    """

    states: dict[Ref, State | None] = {}
    events: tuple[Emit, ...] = ()
    asks: tuple[Ask, ...] = ()


class Retry(Struct, frozen=True, gc=False):
    """Try again; ``after_seconds`` overrides the service's retry policy."""

    reason: str
    after_seconds: float | None = None


class Hold(Struct, frozen=True, gc=False):
    """Wait for ``dependency`` until the time ``until`` (ms); costs no attempt."""

    dependency: str
    until: int


class Park(Struct, frozen=True, gc=False):
    """Set the record aside. ``kind`` is a short stable word, ``reason`` a sentence."""

    kind: str
    reason: str


Decision = Done | Retry | Hold | Park
IGNORE = Done()


class Context(Struct, frozen=True, gc=False):
    """All a decide may know beside states and event. ``now`` is the input's append time."""

    now: int
    service: str
    version: str = ""
    replay_id: str = ""
    trace: str = ""


class Answer(Struct, frozen=True, kw_only=True, gc=False):
    """The outcome of an ask, a record of type ``answer`` on the service's own answers topic.

    ``outcome`` is ``ok``, ``refused`` (the gateway said no, for good) or ``expired`` (the buffer
    policy ran out before a definite outcome). ``body`` is the gateway's JSON as it came.
    """

    ask: str
    name: str
    gateway: str
    outcome: str
    idempotency_key: str
    body: Raw = Raw(b"null")
    reason: str = ""
    calls: int = 1


class Wake(Struct, frozen=True, kw_only=True, gc=False):
    """The clock's answer, a record of type ``wake`` on the service's own answers topic."""

    ask: str
    name: str
    due: int
    request: Raw = Raw(b"null")


class Parked(Struct, frozen=True, kw_only=True, gc=False):
    """A dead letter, type ``dead.parked`` on ``<service>.dead``: the original and its story."""

    service: str
    service_version: str
    topic: str
    partition: int
    offset: int
    appended_at: int
    event_id: str
    type: str
    schema_version: int
    key: str
    kind: str
    reason: str
    owner: str
    trace: str
    value: bytes
    attempts: tuple[Attempt, ...]


class Attempt(Struct, frozen=True, kw_only=True, gc=False):
    """One try of a record: when (ms) and what went wrong."""

    at: int
    error: str


class Unparked(Struct, frozen=True, kw_only=True, gc=False):
    """A parked record left the dead letters: type ``dead.retried`` or ``dead.discarded``.

    It goes to ``<service>.dead`` and, when discarded, to ``<service>.answers`` as well, so that
    the service can compensate in a decision of its own. ``request_seq`` is the number of the
    journal's entry that asked for it; 0 where that has none.
    """

    service: str
    topic: str
    partition: int
    offset: int
    event_id: str
    type: str
    key: str
    kind: str
    reason: str
    actor: str
    request_seq: int = 0


def no_refs(event: Event, own: State | None) -> tuple[Ref, ...]:
    """The default of ``Service.needs``: the event's own document is enough."""
    return ()


class Service(Struct, frozen=True, kw_only=True):
    """A service as a value: pure functions and the types they speak.

    ``kind`` is the kind of the event's own document (``Ref(kind, event.key)``), always loaded.
    ``states`` maps every kind to its Struct. ``reads`` maps a topic to the event types read
    from it; others are passed over by their header. ``needs`` names further refs; ``labels``
    gives a short indexed word per document kind (an order's state), so lists can filter by it.
    """

    name: str
    kind: str
    states: dict[str, type]
    reads: dict[str, tuple[str, ...]]
    decide: Callable[[States, Event, Context], Decision]
    needs: Callable[[Event, Any], tuple[Ref, ...]] = no_refs
    labels: dict[str, Callable[[Any], str | None]] = {}
    version: str = "1"
