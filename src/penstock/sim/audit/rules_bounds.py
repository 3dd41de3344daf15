"""Rules about values, bounds and rest: schemas, sizes, and whether everything came to an end."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from penstock.sim.audit.books import Ask, Books, Held, Notes, Rule
from penstock.sim.audit.decode import VALUE_BYTES_MAX
from penstock.sim.audit.index import Index, index_of
from penstock.sim.audit.rules_dead import is_parked
from penstock.sim.audit.shapes import Check, Unusable, shape_of

WAITING_MAX = 10_000 + 2_000 + 1_024  # the cap, one batch taken just below it, one row more
ERRORS_MAX, ERROR_CHARS_MAX = 20, 1000
CHECKPOINTS_MAX = 1001
CLOCK = "clock"
SLACK_MS = 1000  # what falls due in the last second of a record's life may not have come round


def values_fit(books: Books, notes: Notes) -> None:
    """I36: every value is what the schema it names says; what nobody could open is excused."""
    contracts, refused = books.contracts or {}, index_of(books).refused
    checks: dict[str, Check | str] = {}
    for facts in books.topics.values():
        for fact in facts:
            if not fact.type or fact[:3] in refused:
                continue
            notes.saw()
            name = f"{fact.type}/{fact.version}"
            check = checks.get(name)
            if check is None:
                check = checks[name] = _check(contracts, name)
            why = fact.unread or (check if isinstance(check, str) else _why(check, fact.value))
            if why:
                notes.wrong(fact.key, f"{name}: {why}", fact)


def _check(contracts: Any, name: str) -> Check | str:
    if name not in contracts:
        return "there is no snapshot of this schema"
    try:
        return shape_of(contracts[name])
    except Unusable as error:
        return f"the snapshot cannot be used: {error}"


def _why(check: Check, value: bytes) -> str:
    try:
        return check(msgspec.json.decode(value))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        return f"it is no JSON: {error}"[:200]


def bounded(books: Books, notes: Notes) -> None:
    """I44: values, waiting records, errors and checkpoints stay within their bounds."""
    refused = index_of(books).refused
    for facts in books.topics.values():
        notes.saw(len(facts), "values")
        for fact in facts:
            if len(fact.value) > VALUE_BYTES_MAX and fact[:3] not in refused:
                notes.wrong(fact.key, f"a value of {len(fact.value)} bytes", fact)
    for service, store in books.stores.items():
        notes.saw(len(store.held), "held")
        lanes = Counter(held.partition for held in store.held)
        for lane, count in lanes.items():
            if count > WAITING_MAX:
                notes.wrong(service, f"{count} records wait in lane {lane}", f"{service} waiting")
        for held in store.held:
            _story(service, held, notes)
        if len(store.checkpoints) > CHECKPOINTS_MAX:
            detail = f"{len(store.checkpoints)} checkpoints"
            notes.wrong(service, detail, f"{service} checkpoints")


def _story(service: str, held: Held, notes: Notes) -> None:
    longest = max((len(text) for _at, text in held.errors), default=0)
    if len(held.errors) > ERRORS_MAX + 1 or longest > 2 * ERROR_CHARS_MAX:
        place = f"{held.topic}[{held.partition}]@{held.offset}"
        notes.wrong(held.key, f"{service} keeps {len(held.errors)} errors of it", place)


def at_rest(books: Books, notes: Notes) -> None:
    """I45: at rest no position lags, no row is open, nothing that waits is due."""
    index = index_of(books)
    for service, store in books.stores.items():
        _positions(index, service, notes)
        notes.saw(len(store.asks), "rows")
        for ask in store.asks:
            if ask.settled_at is None and not _to_come(index, ask):
                row = f"{service} outbox {ask.id}"
                detail = f"{service} still wants {ask.name or ask.type} of {ask.destination}"
                notes.wrong(ask.key, detail, row)
        _waiting(index, service, notes)


def _to_come(index: Index, ask: Ask) -> bool:
    """A timer whose time has not come."""
    return ask.destination == CLOCK and ask.due > index.latest - SLACK_MS


def _positions(index: Index, service: str, notes: Notes) -> None:
    books = index.books
    positions = index.positions[service]
    topics = {topic for topic, _ in positions} | set(books.reads.get(service, ()))
    for topic in topics & books.topics.keys():
        for lane in range(books.partitions.get(topic, 0)):
            notes.saw(kind="positions")
            end = index.ends.get((topic, lane), books.first.get((topic, lane), 0))
            position = positions.get((topic, lane), 0)
            if position < end:
                where = f"{topic}[{lane}]"
                detail = f"{service} is at {position} of {where}, which ends at {end}"
                notes.wrong(service, detail, f"{where}@{position}..{end - 1}")


def _waiting(index: Index, service: str, notes: Notes) -> None:
    """Whatever waits stands behind a parked record of its key, or its time has not come."""
    parked: set[tuple[str, str]] = set()
    for held in index.books.stores[service].held:
        notes.saw(kind="held")
        if is_parked(held):
            if held.state == "parked":
                parked.add((held.topic, held.key))
        elif (held.topic, held.key) not in parked and held.due <= index.latest - SLACK_MS:
            place = f"{held.topic}[{held.partition}]@{held.offset}"
            notes.wrong(held.key, f"{service} has not come back to it", place)


RULES = (
    Rule("I36", "every value fits the schema it names", values_fit, ("contracts",)),
    Rule("I44", "rows, values, waiting records and their errors are bounded", bounded),
    Rule("I45", "at rest nothing is open, due or unread", at_rest, ("rest",)),
)  # fmt: skip
