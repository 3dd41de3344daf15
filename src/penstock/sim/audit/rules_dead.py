"""Rules about dead letters: every parked record is accounted for until it has left."""

from __future__ import annotations

from binascii import Error as NotBase64
from binascii import a2b_base64
from collections.abc import Iterator, Sequence
from typing import Any

from penstock.sim.audit.books import Books, Fact, Held, Notes, Rule
from penstock.sim.audit.index import LEFT, PARKED, RETRIED, Index, Letter, Place, index_of


def _settled_places(index: Index, service: str) -> Iterator[tuple[Place, list[Letter]]]:
    """The places whose story is not being written just now."""
    for place, letters in index.letters(service).items():
        if not any(index.books.young(letter.fact.appended_at) for letter in letters):
            yield place, letters


def is_parked(held: Held) -> bool:
    """Is the record in the dead letters, and not on its way out of them?"""
    return held.state == "parked" or (held.state == "aside" and held.due == 0)


def accounted(books: Books, notes: Notes) -> None:
    """I29: parked = open + retried + discarded; each letter says all that a person needs."""
    index = index_of(books)
    for service, store in books.stores.items():
        notes.saw(index.walk(service).taken, "taken")
        told = index.letters(service)
        for place, letters in _settled_places(index, service):
            notes.saw(len(letters), "letters")
            _alternate(index, service, place, letters, notes)
            for letter in letters:
                if letter.fact.type == PARKED:
                    _complete(index, service, letter, notes)
        trimmed = f"{service}.dead" in index.trimmed
        for held in store.held:
            notes.saw(kind="held")
            known = trimmed or held[:3] in told or not is_parked(held)
            if not known and not _row_open(index, service, held):
                notes.wrong(held.key, f"{service} parked it without a dead letter", _at(held))


def _at(held: Held) -> str:
    return f"{held.topic}[{held.partition}]@{held.offset}"


def _row_open(index: Index, service: str, held: Held) -> bool:
    """Is the letter still in the outbox?"""
    return any(
        ask.is_topic and ask.type == PARKED and ask.txn == held.txn and ask.key == held.key
        for ask in index.books.stores[service].asks
    )


def _alternate(
    index: Index, service: str, place: Place, letters: Sequence[Letter], notes: Notes
) -> None:
    """Parked, left, parked again; and a record is held exactly while it is parked."""
    facts = [letter.fact for letter in letters]
    inside = facts[0].type != PARKED and f"{service}.dead" in index.trimmed
    for fact in facts:
        if (fact.type == PARKED) == inside:
            detail = "parked while it was parked" if inside else "it left without being parked"
            notes.wrong(fact.key, f"{service}: {detail}", *facts)
            return
        inside = fact.type == PARKED
    held = index.held[service].get(place)
    open_ = held is not None and is_parked(held)
    if inside != open_ and not _rows_under_way(index, service, facts[-1].key):
        state = "is in no list of parked records" if inside else "is parked still"
        notes.wrong(facts[-1].key, f"{service}: the letters end with {facts[-1].type}, it {state}",
                    *facts)  # fmt: skip


def _rows_under_way(index: Index, service: str, key: str) -> bool:
    """May a later letter of the key be in the outbox still?"""
    return index.books.until is not None and any(
        ask.key == key and ask.settled_at is None and ask.destination == f"{service}.dead"
        for ask in index.books.stores[service].asks
    )


def _complete(index: Index, service: str, letter: Letter, notes: Notes) -> None:
    said, fact = letter.said, letter.fact
    lacking = [name for name in ("owner", "kind", "reason", "service_version") if name not in said]
    if lacking or not said["owner"]:
        notes.wrong(fact.key, f"a letter without {', '.join(lacking) or 'owner'}", fact)
        return
    if said.get("service") != service or said.get("key") != fact.key:
        notes.wrong(fact.key, f"a letter of {said.get('service')} about {said.get('key')}", fact)
    if said["kind"] == "attempts_exhausted" and not said.get("attempts"):
        notes.wrong(fact.key, "attempts were exhausted, and none is told", fact)
    _same_record(index, letter, notes)


def _same_record(index: Index, letter: Letter, notes: Notes) -> None:
    """Coordinates and bytes of the letter are those of the record."""
    record, said = index.at(letter.place), letter.said
    if record is None:
        if letter.place[0] not in index.trimmed:
            notes.wrong(letter.fact.key, "it is about a record that is nowhere", letter.fact)
        return
    told = (said.get("event_id"), said.get("type"), said.get("schema_version"),
            said.get("appended_at"), said.get("trace"))  # fmt: skip
    real = record.id.hex(), record.type, record.version, record.appended_at, record.trace
    value = _bytes(said.get("value"))
    if told != real or value is None or not index.books.same(record, value):
        notes.wrong(record.key, "the letter does not hold the record's own bytes", letter.fact,
                    record)  # fmt: skip


def _bytes(text: Any) -> bytes | None:
    try:
        return a2b_base64(text, strict_mode=True) if text else b""
    except (NotBase64, TypeError, ValueError):
        return None


def same_commit(books: Books, notes: Notes) -> None:
    """I30: the letter, the row that holds the key back and the passed position are one commit."""
    index = index_of(books)
    for service in books.stores:
        positions, asks = index.positions[service], index.asks[service]
        notes.saw(len(positions), "positions")
        for place, letters in _settled_places(index, service):
            parked = [letter.fact for letter in letters if letter.fact.type == PARKED]
            notes.saw(len(parked), "letters")
            for fact in parked:
                if place[2] >= positions.get(place[:2], 0) and not _charged(index, service, place):
                    notes.wrong(fact.key, f"{service} parked it ahead of its position", fact)
            held = index.held[service].get(place)
            if parked and held is not None and letters[-1].fact is parked[-1] and is_parked(held):
                _one_commit(service, held, parked[-1], asks, notes)


def _charged(index: Index, service: str, place: Place) -> bool:
    """One that killed its process waits, and may be parked, before the position reaches it."""
    held = index.held[service].get(place)
    return held is not None and held.kind == "process_death"


def _one_commit(service: str, held: Held, fact: Fact, asks: Any, notes: Notes) -> None:
    row = asks.get(fact.id)
    made = fact.made
    txn = made[0] if made is not None else row.txn if row is not None else held.txn
    if txn != held.txn:
        detail = f"{service} held it in transaction {held.txn} and told of it in {txn}"
        notes.wrong(fact.key, detail, fact)


def leaving_ends(books: Books, notes: Notes) -> None:
    """I31: what was retried ends or is parked again, each time for one request of a person."""
    index = index_of(books)
    for service in books.stores:
        notes.saw(len(index.letters(service)) + len(index.positions[service]), "places")
        for place, letters in _settled_places(index, service):
            left = [letter.fact for letter in letters if letter.fact.type in LEFT]
            notes.saw(len(left), "left")
            for n, fact in enumerate(left):
                if any(fact.cause == other.cause for other in left[:n]):
                    notes.wrong(fact.key, "it left twice on one request", fact)
            if letters[-1].fact.type in LEFT:
                _ended(index, service, place, letters[-1], notes)


def _ended(index: Index, service: str, place: Place, letter: Letter, notes: Notes) -> None:
    """After the last retry or discard: handled, or (retried only) held for another try."""
    id_ = _hex(letter.said.get("event_id"))
    record = index.at(place)
    held = place in index.held[service]
    topic, partition, offset = place
    if offset < index.books.first.get((topic, partition), 0):
        record = None  # retained away, and with it what told that it was handled
    if letter.fact.type == RETRIED:
        done = held or id_ in index.marks[service] or record is None
    else:
        done = not held and (len(id_) != 16 or id_ in index.marks[service] or record is None)
    if not done:
        detail = f"{service}: {letter.fact.type}, and it neither ended nor waits"
        notes.wrong(letter.fact.key, detail, letter.fact)


def _hex(text: Any) -> bytes:
    try:
        return bytes.fromhex(text)
    except (TypeError, ValueError):
        return b""


RULES = (
    Rule("I29", "parked is open, retried or discarded; letters hold the record's bytes and story",
         accounted),
    Rule("I30", "a dead letter is committed with the position that passes its record",
         same_commit),
    Rule("I31", "a retried record ends or is parked again; it leaves once a request",
         leaving_ends),
)  # fmt: skip
