"""A service ready to run: its value, its catalog entry, its codecs, as one frozen value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from penstock.catalog.model import JOURNAL, Catalog, ServiceEntry, answers_of, dead_of
from penstock.contracts.strict import Unreadable, strict_value
from penstock.contracts.wire import Book
from penstock.decision import Context, Decision, Ref, Service, States
from penstock.errors import Malformed
from penstock.event import Event, Message, Record, child_id, root_id
from penstock.limits import KEY_CHARS_MAX, STORED_KEY_BYTES_MAX, VALUE_BYTES_MAX
from penstock.ports import Outgoing

ENCODE: Callable[[Any], bytes] = msgspec.json.Encoder().encode
RETRY_REQUESTED = "deadletter.retry_requested"
DISCARD_REQUESTED = "deadletter.discard_requested"
# Notes of a record that somebody else wrote: what CloudEvents calls its id and source, and a key
# that is no text (in hex).
FOREIGN_ID, FOREIGN_SOURCE, KEY_BYTES = "ce_id", "ce_source", "penstock-key"
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
    accepts: dict[str, tuple[str, int]] = {}  # topic -> type and version of what others write


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
        accepts=accepts_of(catalog),
        lanes=catalog.lane_count(service.name),
    )


def accepts_of(catalog: Catalog) -> dict[str, tuple[str, int]]:
    """Topics that take records of others, and the schema such a record is opened with."""
    return {name: ref for name, t in catalog.topics.items() if (ref := t.accepted) is not None}


def keyless(m: Message) -> bool:
    """Did somebody else write it, and without a key that is a text? It belongs to nothing, and may
    lie in any partition."""
    return not (m.type or m.id) and (not m.key or KEY_BYTES in (m.notes or ()))


def admitted(accepts: Mapping[str, tuple[str, int]], record: Record) -> Record:
    """The record, with the envelope it lacks where somebody else wrote it to a topic that takes
    such. Its id is made of the source and the id that its writer gave (a record sent twice is
    then one event), else of its place."""
    m = record.message
    if m.type or m.id or record.topic not in accepts:
        return record
    if keyless(m):
        return record  # parked as malformed
    type_, version = accepts[record.topic]
    notes = dict(m.notes or {})
    source, given = notes.pop(FOREIGN_SOURCE, ""), notes.pop(FOREIGN_ID, "")
    if source and given:
        id_ = root_id(0, "foreign", source, given)
    else:
        id_ = root_id(record.appended_at, *map(str, record.position))
    kept = {name: said for name, said in notes.items() if not name.startswith("ce_")}
    trace = kept.pop("traceparent", m.trace)
    message = replace(
        m, id=id_, type=type_, version=version, at=m.at or record.appended_at, trace=trace,
        source=source, notes=kept or None,
    )
    return replace(record, message=message)


def storable(text: str | None) -> None:
    """Can every store keep the text, if any? Raises ``ValueError`` for one that is no text of
    Unicode, or has a NUL in it."""
    if text is None:
        return
    size = len(text.encode())
    if size > STORED_KEY_BYTES_MAX:
        raise ValueError(f"{text!r:.100} has {size} bytes, more than {STORED_KEY_BYTES_MAX}")
    if "\0" in text:
        raise ValueError(f"{text!r:.100} has a NUL character, which no store keeps")


def _check_key(key: str) -> None:
    try:
        storable(key)
    except ValueError as error:
        raise Malformed(f"no document can have the key: {error}") from None


def _check_entrance(raw: bytes) -> None:
    """A topic that takes records of others is an entrance: what its JSON says twice, or says so
    that readers disagree about it, is refused as at the door."""
    try:
        strict_value(raw, limit_bytes=VALUE_BYTES_MAX)
    except Unreadable as error:
        raise Malformed(str(error)) from None


def open_record(unit: Unit, record: Record) -> Event | None:
    """The event in a record; None for a type this service does not read.

    Raises ``Malformed`` and ``UnknownSchema``. A type that is not read is passed over by its
    header, unopened: its value may be anything.
    """
    m = record.message
    if m.type not in unit.reads[record.topic]:
        if m.type and len(m.id) == 16:
            return None
        if record.topic in unit.accepts and not (m.type or m.id):
            raise Malformed("the record has no key, or one that is no text")
        raise Malformed("the record has no event type or id in its headers")
    if len(m.id) != 16:
        raise Malformed(f"the event id has {len(m.id)} bytes, not 16")
    if (len(m.key) > KEY_CHARS_MAX or "\0" in m.key) and m.type not in REQUESTS:
        _check_key(m.key)  # (operators' requests free what such a record holds)
    if len(m.value) > VALUE_BYTES_MAX:
        raise Malformed(f"the value has {len(m.value)} bytes, more than {VALUE_BYTES_MAX}")
    if record.topic in unit.accepts:
        _check_entrance(m.value)
    data = unit.book.opener(m.type, m.version)(m.value)
    return Event(
        m.id, m.type, m.version, m.key, m.at, data, m.cause, m.trace, m.notes,
        record.topic, record.appended_at,
    )


def fits(type_: str, value: bytes) -> None:
    """Is a sealed event small enough to be read again? Raises ``ValueError``."""
    if len(value) > VALUE_BYTES_MAX:
        raise ValueError(f"{type_} has {len(value)} bytes, more than {VALUE_BYTES_MAX}")


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
    """The row that publishes a sealed event, its id derived from its cause. Raises ``ValueError``
    for one that no reader would open, and not every log takes."""
    type_, version, value = sealed
    fits(type_, value)
    id_ = child_id(cause.id, unit.name, type_, ordinal)
    message = Message(
        key, value, id_, type_, version, cause.appended_at, cause.id, cause.trace,
        unit.name, cause.notes,  # type: ignore[arg-type]
    )
    return Outgoing(topic, True, message)
