"""A service ready to run: its value, its catalog entry, its codecs, as one frozen value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from penstock.catalog.model import JOURNAL, Catalog, ServiceEntry, answers_of, dead_of
from penstock.contracts.wire import Book
from penstock.decision import Context, Decision, Ref, Service, States
from penstock.errors import Malformed
from penstock.event import Event, Message, Record, child_id
from penstock.limits import VALUE_BYTES_MAX
from penstock.ports import Outgoing

ENCODE: Callable[[Any], bytes] = msgspec.json.Encoder().encode
RETRY_REQUESTED = "deadletter.retry_requested"
DISCARD_REQUESTED = "deadletter.discard_requested"
OUT_OF_ORDER = "out_of_order"  # the note of a record that was set aside and comes back
REQUESTS = frozenset((RETRY_REQUESTED, DISCARD_REQUESTED))


class Unit(Struct, frozen=True, kw_only=True):
    """What worker and courier know of their service."""

    name: str
    service: Service
    entry: ServiceEntry
    book: Book
    answers: str
    dead: str
    reads: dict[str, frozenset[str]]
    decoders: dict[str, Callable[[bytes], Any]]
    topic_index: dict[str, int]
    lanes: int


def unit_of(service: Service, catalog: Catalog, book: Book) -> Unit:
    """Join a Service value with what the catalog declares of it."""
    entry = catalog.services[service.name]
    reads = {t: frozenset(service.reads.get(t, ())) for t in entry.reads}
    if JOURNAL in reads:
        reads[JOURNAL] |= REQUESTS
    decoders: dict[str, Callable[[bytes], Any]] = {
        kind: msgspec.json.Decoder(cls).decode for kind, cls in service.states.items()
    }
    return Unit(
        name=service.name, service=service, entry=entry, book=book,
        answers=answers_of(service.name), dead=dead_of(service.name), reads=reads,
        decoders=decoders,
        topic_index={t: i for i, t in enumerate(sorted(reads))},
        lanes=catalog.lane_count(service.name),
    )


def open_record(unit: Unit, record: Record) -> Event | None:
    """The event in a record; None for a type this service does not read.

    Raises ``Malformed`` and ``UnknownSchema``. A type that is not read is passed over by its
    header, unopened: its value may be anything.
    """
    m = record.message
    if m.type not in unit.reads[record.topic]:
        if m.type and len(m.id) == 16:
            return None
        raise Malformed("the record has no event type or id in its headers")
    if len(m.id) != 16:
        raise Malformed(f"the event id has {len(m.id)} bytes, not 16")
    if len(m.value) > VALUE_BYTES_MAX:
        raise Malformed(f"the value has {len(m.value)} bytes, more than {VALUE_BYTES_MAX}")
    data = unit.book.opener(m.type, m.version)(m.value)
    return Event(
        m.id, m.type, m.version, m.key, m.at, data, m.cause, m.trace, m.notes,
        record.topic, record.appended_at,
    )


def door_service(door: str, states: dict[str, type]) -> Service:
    """The door as a service that reads nothing: its rows may need a courier like any other's."""

    def decide(states: States, event: Event, context: Context) -> Decision:
        raise AssertionError("a door decides nothing")

    return Service(name=door, kind="", states=states, reads={}, decide=decide)


def out_of_order(event: Event) -> Event:
    """What was set aside comes after its successors, and says so to its decide and its events."""
    return replace(event, notes={**(event.notes or {}), OUT_OF_ORDER: "true"})


def own_ref(unit: Unit, event: Event) -> Ref:
    """The ref of the event's own document."""
    return Ref(unit.service.kind, event.key)


def published(
    unit: Unit, cause: Event, topic: str, key: str, sealed: tuple[str, int, bytes], ordinal: int
) -> Outgoing:
    """The row that publishes a sealed event, its id derived from its cause."""
    type_, version, value = sealed
    id_ = child_id(cause.id, unit.name, type_, ordinal)
    message = Message(
        key, value, id_, type_, version, cause.appended_at, cause.id, cause.trace,
        unit.name, cause.notes,  # type: ignore[arg-type]
    )
    return Outgoing(topic, True, message)
