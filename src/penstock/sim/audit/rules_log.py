"""Rules about logs as logs: order, places, offsets, bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from penstock.sim.audit.books import Ask, Books, Fact, Mark, Notes, Rule
from penstock.sim.audit.decode import ordinal_of, slot_of
from penstock.sim.audit.index import ANSWERS, Index, index_of

ANSWER = "answer"


def order_kept(books: Books, notes: Notes) -> None:
    """I16: in a partition by transaction; of one key also within it, and by the outbox's order."""
    index = index_of(books)
    for (topic, partition), facts in index.lanes.items():
        notes.saw(len(facts))
        _by_transaction(f"{topic}[{partition}]", facts, notes)
        service = books.producers.get(topic, "")
        if service in books.stores:
            _by_key(index, service, facts, notes)


def _by_transaction(lane: str, facts: Sequence[Fact], notes: Notes) -> None:
    """Commits and couriers number apart where no file holds both."""
    latest: dict[bool, Fact] = {}
    for fact in facts:
        committed = fact.epoch > 0
        before = latest.get(committed)
        if before is not None and fact.txn < before.txn:
            detail = f"transaction {fact.txn} lies behind transaction {before.txn}"
            notes.wrong(lane, detail, before, fact)
        latest[committed] = fact


def _by_key(index: Index, service: str, facts: Sequence[Fact], notes: Notes) -> None:
    marks, asks = index.marks[service], index.asks[service]
    firsts, latest = index.by_id, dict[tuple[str, bool], Fact]()
    rows: dict[tuple[str, bool], tuple[int, Fact]] = {}
    calls: dict[tuple[str, str], tuple[int, Fact]] = {}
    for fact in facts:
        if firsts.get(fact.id) is not fact:
            continue
        key, line = fact.key, (fact.key, fact.type in ANSWERS)
        before, is_in_line = latest.get(line), index.in_line(fact)
        if before is not None and fact.cause:
            _after(service, marks, before, fact, is_in_line, notes)
        if is_in_line:
            latest[line] = fact
        if not fact.epoch and is_in_line:
            _ascending(rows, line, asks.get(fact.id), fact, notes, "carried before row")
        if fact.type == ANSWER:
            # Calls of one key and gateway go one after the other, so their answers do.
            ask = asks.get(fact.cause)
            _ascending(calls, (key, fact.source), ask, fact, notes, "answered before ask")


def _after(
    service: str, marks: dict[bytes, Mark], before: Fact, fact: Fact, is_in_line: bool,
    notes: Notes,
) -> None:  # fmt: skip
    """Of one key what a later transaction made lies later; within one, see ``_within``."""
    first, then = before.made, fact.made
    if first is None or then is None:
        return
    if first[0] == then[0]:
        _within(service, marks, before, fact, notes)
    elif fact.origin and before.origin and is_in_line and then[0] < first[0]:
        detail = f"made in transaction {then[0]}, behind what {first[0]} made"
        notes.wrong(fact.key, detail, before, fact)


def _within(service: str, marks: dict[bytes, Mark], before: Fact, fact: Fact, notes: Notes) -> None:
    """Two events of one key and transaction: by the order of handling, then as decide gave them."""
    first, second = marks.get(before.cause), marks.get(fact.cause)
    if first is None or second is None or first.txn != fact.txn or second.txn != fact.txn:
        return
    if first.ordinal != second.ordinal:
        wrong = first.ordinal > second.ordinal
    else:
        wrong = _ordinal(service, before) > _ordinal(service, fact)
    if wrong:
        notes.wrong(fact.key, "two events of one transaction changed places", before, fact)


def _ordinal(service: str, fact: Fact) -> int:
    found = ordinal_of(fact.id, fact.cause, service, fact.type, 4096)
    return -1 if found is None else found


def _ascending(
    latest: dict[Any, tuple[int, Fact]], key: Any, row: Ask | None, fact: Fact, notes: Notes,
    detail: str,
) -> None:  # fmt: skip
    if row is None:
        return
    known = latest.get(key)
    if known is not None and known[0] > row.id:
        notes.wrong(fact.key, f"row {known[0]} was {detail} {row.id}", known[1], fact)
    latest[key] = (row.id, fact)


def partition_of_key(books: Books, notes: Notes) -> None:
    """I17: every record lies in its key's partition."""
    for topic, facts in books.topics.items():
        count = books.partitions.get(topic, 1)
        if count < 1 or count & (count - 1):
            notes.wrong(topic, f"{count} partitions are no power of two")
            continue
        notes.saw(len(facts))
        for fact in facts:
            if slot_of(fact.key) % count != fact.partition and not _is_keyless(fact):
                right = slot_of(fact.key) % count
                notes.wrong(fact.key, f"the key belongs to partition {right}", fact)


def _is_keyless(fact: Fact) -> bool:
    """Somebody else wrote it without a key, or with one that is no text: it may lie anywhere."""
    return not fact.id and (not fact.key or "penstock-key" in (fact.notes or ()))


def offsets(books: Books, notes: Notes) -> None:
    """I18: each record's offset is the one after its neighbour's, its time not before it; where
    the log promises less of either, the offsets rise."""
    unread = {(t, p, first): last for t, p, first, last in books.unread}
    for (topic, partition), facts in index_of(books).lanes.items():
        lane = f"{topic}[{partition}]"
        notes.saw(len(facts))
        expected = _skipped(unread, topic, partition, books.first.get((topic, partition), 0))
        if facts[0].offset > expected and books.is_dense:
            notes.wrong(lane, f"the offsets from {expected} on are missing", facts[0])
        expected, latest = facts[0].offset, 0
        for fact in facts:
            if fact.offset != expected:
                expected = _skipped(unread, topic, partition, expected)
            if fact.offset < expected or (books.is_dense and fact.offset != expected):
                notes.wrong(lane, f"offset {expected} was to come", fact)
            if fact.appended_at < latest and books.is_steady:
                notes.wrong(lane, "it was appended before the record ahead of it", fact)
            expected, latest = fact.offset + 1, fact.appended_at


def _skipped(unread: dict[tuple[str, int, int], int], topic: str, partition: int, at: int) -> int:
    """The next offset behind rows that do not decode: they are told of elsewhere."""
    while (topic, partition, at) in unread:
        at = unread.pop((topic, partition, at)) + 1
    return at


def same_bytes(books: Books, notes: Notes) -> None:
    """I19: what there is to see was seen by the reader, row by row."""


RULES = (
    Rule("I16", "events of one key stand in the order in which they were committed", order_kept),
    Rule("I17", "a record lies in the partition of its key", partition_of_key),
    Rule("I18", "offsets have no gap and no double, append times never decrease", offsets),
    Rule("I19", "one offset, the same bytes: checksums, a second reader, a compared copy",
         same_bytes, ("files",)),
)  # fmt: skip
