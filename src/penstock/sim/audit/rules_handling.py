"""How a service went through what it reads: in the order of each key, and each answer once."""

from __future__ import annotations

from penstock.sim.audit.books import Books, Fact, Mark, Notes, Rule
from penstock.sim.audit.index import Index, index_of

JOURNAL = "journal"  # its requests free keys, so they pass what is held
ANSWERS = frozenset({"answer", "wake"})


def handled_in_order(books: Books, notes: Notes) -> None:
    """I16: of one key and topic a later record is handled later, whatever waited or was parked.

    Where a service lets others pass a parked record (``Books.continues``), that one may come
    after them.
    """
    index = index_of(books)
    for service, topics in books.reads.items():
        marks = index.marks.get(service)
        if not marks:
            continue
        passed = _set_aside(index, service) if service in books.continues else frozenset()
        for (topic, _), facts in index.lanes.items():
            types = topics.get(topic)
            if types and topic != JOURNAL:
                kept = [f for f in facts if f.type in types and f.id not in passed]
                notes.saw(len(kept))
                _in_order(service, index, kept, marks, notes)


def _set_aside(index: Index, service: str) -> frozenset[bytes]:
    return frozenset(
        bytes.fromhex(letter.said.get("event_id", ""))
        for letters in index.letters(service).values() for letter in letters
    )


def _in_order(
    service: str, index: Index, facts: list[Fact], marks: dict[bytes, Mark], notes: Notes
) -> None:
    latest: dict[str, tuple[int, int, Fact]] = {}
    for fact in facts:
        mark = marks.get(fact.id)
        if mark is None or index.by_id.get(fact.id) is not fact:
            continue
        before = latest.get(fact.key)
        if before is not None and (mark.txn, mark.ordinal) < before[:2]:
            notes.wrong(fact.key, f"{service} handled a later record first", fact, before[2])
        else:
            latest[fact.key] = mark.txn, mark.ordinal, fact


def answered_once(books: Books, notes: Notes) -> None:
    """I26: an ask has one answer, a timer one wake; and no event is put into two rows."""
    for topic, facts in books.topics.items():
        if topic.endswith(".answers"):
            firsts: dict[bytes, Fact] = {}
            for fact in facts:
                if fact.type not in ANSWERS:
                    continue
                notes.saw(kind="answers")
                first = firsts.setdefault(fact.cause, fact)
                if first.id != fact.id:
                    notes.wrong(fact.key, "one ask was answered twice", first, fact)
    for service, store in books.stores.items():
        rows: dict[bytes, int] = {}
        for ask in store.asks:
            notes.saw(kind="rows")
            if ask.event and rows.setdefault(ask.event, ask.id) != ask.id:
                notes.wrong(ask.key, f"{service} made one row twice",
                            f"{service} outbox {rows[ask.event]}",
                            f"{service} outbox {ask.id}")  # fmt: skip


RULES = (
    Rule("I16", "records of one key are handled in their order", handled_in_order),
    Rule("I26", "an ask is answered once", answered_once),
)
