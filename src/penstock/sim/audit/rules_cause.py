"""Rules about where events come from: causes, derived ids, what one id stands for."""

from __future__ import annotations

from penstock.sim.audit.books import Ask, Books, Fact, Held, Notes, Rule
from penstock.sim.audit.decode import child_id, ordinal_of, root_id
from penstock.sim.audit.index import (
    ANSWERS,
    DISCARDED,
    DOOR,
    LEFT,
    PARKED,
    Index,
    Letter,
    index_of,
)

TOLD = frozenset((PARKED, *LEFT))
SLACK = 4096  # ordinals to try where siblings may be gone


def every_event_has_a_cause(books: Books, notes: Notes) -> None:
    """I20: derived events from what their service handled, answers from asks, the rest from
    outside; ids, time and trace follow."""
    trace = _Tracing(books, notes)
    for topic, facts in books.topics.items():
        service = books.producers.get(topic, "")
        for fact in facts:
            if fact.id:
                trace.fact(fact, service)
    notes.saw(len(index_of(books).by_id))
    for name, store in books.stores.items():
        asks = [ask for ask in store.asks if not ask.is_topic]
        notes.saw(len(asks), "asks")
        for ask in asks:
            trace.ask(name, ask)


class _Tracing:
    """One walk over everything that has a cause."""

    def __init__(self, books: Books, notes: Notes) -> None:
        self._books, self._notes, self._index = books, notes, index_of(books)
        self._asked: dict[bytes, int] = {}
        self._next: dict[tuple[bytes, str], int] = {}  # siblings mostly lie in order
        for store in books.stores.values():
            for ask in store.asks:
                self._asked[ask.cause] = self._asked.get(ask.cause, 0) + 1

    def fact(self, fact: Fact, service: str) -> None:
        if fact.type in TOLD and fact.topic in (f"{service}.dead", f"{service}.answers"):
            self._letter(fact, service)
        elif not fact.cause:
            self._root(fact, service)
        elif fact.type in ANSWERS and fact.topic == f"{service}.answers":
            self._answer(fact, service)
        else:
            self._child(fact, service)

    def _wrong(self, fact: Fact, detail: str, *more: Fact) -> None:
        self._notes.wrong(fact.key, detail, fact, *more)

    def _root(self, fact: Fact, service: str) -> None:
        if service and fact.source == service:
            if not self._index.reached(service, DOOR) and not self._door_is_gone(fact, service):
                self._wrong(fact, f"{service} takes nothing from outside, so it needs a cause")
        elif service or fact.topic in self._books.accepts:
            return  # a foreign client's: its ids are its own
        if int.from_bytes(fact.id[:6], "big") != fact.at:
            self._wrong(fact, "the id of a first event begins with another time than its own")

    def _door_is_gone(self, fact: Fact, service: str) -> bool:
        """Of many doors, each with a lane of its own, those that ended are forgotten."""
        return fact.origin is not None and fact.origin[0] <= self._index.pruned.get(service, 0)

    def _answer(self, fact: Fact, service: str) -> None:
        ask = self._index.asks.get(service, {}).get(fact.cause)
        if fact.id != child_id(fact.cause, service, "answer", 0):
            self._wrong(fact, "its id does not follow from the ask it answers")
        elif ask is None:
            if not self._index.pruned.get(service) and not self._books.young(fact.appended_at):
                self._wrong(fact, "it answers what was never asked")
        elif fact.trace != ask.trace or fact.source != ask.destination:
            self._wrong(fact, f"it is not of the trace and gateway of its ask, row {ask.id}")

    def _letter(self, fact: Fact, service: str) -> None:
        letter = self._index.letter_of(fact)
        if letter is None:
            self._wrong(fact, "a dead letter that does not say what it is about")
            return
        parent = _parent(self._index, letter)
        if parent is None and letter.place[0] in self._index.trimmed:
            return  # the record had no id, and its time went with it
        type_ = f"{fact.type}:{fact.topic}:{fact.at}"
        offsets = [letter.said["offset"], *self._news(fact)]
        if parent is None or all(
            fact.id != child_id(parent, service, type_, offset) for offset in offsets
        ):
            self._wrong(fact, "its id does not follow from the record it is about")
        cause = parent if fact.type == PARKED else fact.cause
        if fact.cause != cause:
            self._wrong(fact, "its cause is not the record it is about")
        elif fact.type in LEFT and fact.cause not in self._index.by_id:
            self._gone(fact, service)

    def _news(self, fact: Fact) -> list[int]:
        """Where the news of a discard lies that was discarded as well: it is told once more."""
        lane = self._index.lanes.get((fact.topic, fact.partition), ())
        return [
            offset for f in lane if f.type == fact.type == DISCARDED and f.key == fact.key
            for offset in self._index.offsets_of(f)
        ]

    def _child(self, fact: Fact, service: str) -> None:
        made_by = service or fact.source
        if fact.source != made_by:
            self._wrong(fact, f"{fact.source or 'nobody'} wrote it, the topic is of {made_by}")
        below = self._index.children[fact.cause]
        below += SLACK if self._index.forgets(made_by) else 0
        family = (fact.cause, fact.type)
        first = self._next.get(family, 0)
        found = ordinal_of(fact.id, fact.cause, made_by, fact.type, below, first)
        if found is None:
            self._wrong(fact, "its id does not follow from its cause")
            return
        if below > 1:
            self._next[family] = found + 1
        cause = self._index.by_id.get(fact.cause)
        if cause is None:
            self._gone(fact, made_by)
        elif fact.trace != cause.trace:
            self._wrong(fact, "it left the trace of its cause", cause)
        elif cause.topic in self._index.trimmed:
            return  # the copy that was handled may be gone
        elif all(fact.at != copy.appended_at for copy in self._index.all_of(fact.cause)):
            self._wrong(fact, "its time is not when its cause was appended", cause)
        elif self._is_later(cause, fact):
            self._wrong(fact, "its cause was committed after it", cause)

    def _is_later(self, cause: Fact, fact: Fact) -> bool:
        """Where both were committed to one file, or in one database, the numbers tell."""
        first, then = cause.made, fact.made
        if first is None or then is None or first[0] < then[0]:
            return False
        if cause.origin or fact.origin:
            return bool(cause.origin and fact.origin)  # the services share their numbers
        producers = self._books.producers
        return producers.get(cause.topic, "no one's") == producers.get(fact.topic)

    def _gone(self, fact: Fact, service: str) -> None:
        if not self._index.gaps(service) and not self._books.young(fact.appended_at):
            self._wrong(fact, "its cause is nowhere")

    def ask(self, service: str, ask: Ask) -> None:
        row = f"{service} outbox {ask.id}"
        type_ = f"ask:{ask.destination}:{ask.name}"
        below = self._asked[ask.cause] + (SLACK if self._index.pruned[service] else 0)
        if ordinal_of(ask.event, ask.cause, service, type_, below) is None:
            self._notes.wrong(ask.key, "an ask's id does not follow from its cause", row)
            return
        cause = self._index.by_id.get(ask.cause)
        if cause is None:
            if not self._index.gaps(service) and not self._books.young(ask.made_at):
                self._notes.wrong(ask.key, "the cause of an ask is nowhere", row)
        elif cause.trace != ask.trace:
            self._notes.wrong(ask.key, "an ask left the trace of its cause", row, cause)


def _parent(index: Index, letter: Letter) -> bytes | None:
    """The id of the record that a letter is about; one without an id has one made of its place."""
    try:
        named = bytes.fromhex(letter.said["event_id"])
    except (KeyError, TypeError, ValueError):
        return None
    if len(named) == 16:
        return named
    topic, partition, _ = letter.place
    record, offset = index.at(letter.place), letter.said["offset"]
    at = record.appended_at if record is not None else letter.said.get("appended_at")
    if not isinstance(at, int) or not 0 <= at < 1 << 48:
        return None
    return root_id(at, topic, str(partition), str(offset))


def one_id_one_content(books: Books, notes: Notes) -> None:
    """I21: copies are equal, in logs, outboxes and among the held records."""
    index = index_of(books)
    notes.saw(len(index.by_id))
    for id_, more in index.copies.items():
        first = index.by_id[id_]
        for copy in more:
            if copy.topic != first.topic or copy.content != first.content:
                notes.wrong(copy.key, "one id stands for two events", first, copy)
    for service, store in books.stores.items():
        for ask in store.asks:
            fact = index.by_id.get(ask.event) if ask.is_topic else None
            if fact is not None:
                notes.saw()
                if _row_content(ask) != _fact_content(fact) or not books.same(fact, ask.value):
                    row = f"{service} outbox {ask.id}"
                    notes.wrong(ask.key, "the record is not what the outbox says", row, fact)
        for held in store.held:
            _same_as_record(index, service, held, notes)


def _row_content(ask: Ask) -> tuple[object, ...]:
    return ask.destination, ask.key, ask.type, ask.cause, ask.trace


def _fact_content(fact: Fact) -> tuple[object, ...]:
    return fact.topic, fact.key, fact.type, fact.cause, fact.trace


def _same_as_record(index: Index, service: str, held: Held, notes: Notes) -> None:
    fact = index.at(held[:3])
    if fact is None:
        return
    notes.saw()
    kept = held.key, held.id, held.type, held.appended_at
    real = fact.key, fact.id, fact.type, fact.appended_at
    if kept != real or not index.books.same(fact, held.value):
        notes.wrong(fact.key, f"{service} holds other bytes than the log", fact)


RULES = (
    Rule("I20", "every event has a cause; its id, time and trace follow from it",
         every_event_has_a_cause),
    Rule("I21", "one id has one content, wherever it lies", one_id_one_content),
)  # fmt: skip
