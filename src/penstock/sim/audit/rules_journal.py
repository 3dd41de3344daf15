"""Rules about the audited journal: an unbroken chain, and no act without its entry.

The link is read a second time here, from docs/formats.md: the value begins with ``seq``, ``prev``
and ``hash``, and the hash is SHA-256 of the bytes with its own digits as zeros.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec

from penstock.sim.audit.books import Ask, Books, Fact, Notes, Rule
from penstock.sim.audit.index import DISCARDED, JOURNAL, LEFT, RETRIED, Index, index_of

ZEROS = "0" * 64
WITNESSES = ("checkpoint-file", "checkpoint-url")
ASKED = {"deadletter.retry_requested": RETRIED, "deadletter.discard_requested": DISCARDED}
NOTED = {RETRIED: "deadletter.retried", DISCARDED: "deadletter.discarded"}
PLACE = ("service", "topic", "partition", "offset")
_BEGINS = re.compile(
    rb'^\{"seq":(\d{1,18}),"prev":"([0-9a-f]{64})","hash":"([0-9a-f]{64})"'
)


class Linked(NamedTuple):
    """An entry with its link."""

    fact: Fact
    seq: int
    prev: str
    hash: str

    @property
    def fits(self) -> bool:
        """Is its hash that of its bytes?"""
        old, new = f'"hash":"{self.hash}"'.encode(), f'"hash":"{ZEROS}"'.encode()
        return sha256(self.fact.value.replace(old, new, 1)).hexdigest() == self.hash


def link(fact: Fact) -> Linked | None:
    """The entry in a record; None where it has no link."""
    found = _BEGINS.match(fact.value)
    if found is None or not int(found[1]):
        return None
    return Linked(fact, int(found[1]), found[2].decode(), found[3].decode())


def chain_unbroken(books: Books, notes: Notes) -> None:
    """I38: numbers without a gap, each entry after the one before it, up to the store's head."""
    index = index_of(books)
    notes.saw(books.partitions.get(JOURNAL, 0), "partitions")
    entries: dict[int, Linked] = {}
    for lane in range(books.partitions.get(JOURNAL, 0)):
        _lane(index, index.lanes.get((JOURNAL, lane), []), entries, notes)
    for seq in sorted(entries):
        _follows(index, entries, seq, notes)
    _ends(books, index, entries, notes)


def _lane(
    index: Index, facts: list[Fact], entries: dict[int, Linked], notes: Notes
) -> None:
    """One partition: hashes fit, numbers rise, nothing lies there that did not come by the gate."""
    last = 0
    for fact in facts:
        entry = link(fact)
        if entry is None:
            if last and fact.type:
                notes.wrong(fact.key, "a record without a link behind linked entries", fact)
            continue
        notes.saw(kind="entries")
        known = entries.get(entry.seq)
        if known is not None and known.hash == entry.hash and known.fact.id == fact.id:
            continue  # a courier's repeat
        if known is not None:
            notes.wrong(fact.key, f"two entries have the number {entry.seq}", known.fact, fact)
            continue
        if not entry.fits:
            notes.wrong(fact.key, f"entry {entry.seq}: its hash is not that of its bytes", fact)
        if entry.seq < last:
            notes.wrong(fact.key, f"entry {entry.seq} lies behind entry {last}", fact)
        last = max(last, entry.seq)
        entries[entry.seq] = entry


def _follows(index: Index, entries: Mapping[int, Linked], seq: int, notes: Notes) -> None:
    entry = entries[seq]
    before = entries.get(seq - 1)
    if seq > 1 and before is None:
        if JOURNAL not in index.trimmed and not index.books.young(entry.fact.appended_at):
            notes.wrong(entry.fact.key, f"entry {seq - 1} is missing", entry.fact)
    elif entry.prev != (before.hash if before is not None else ZEROS):
        notes.wrong(entry.fact.key, f"entry {seq} does not follow entry {seq - 1}", entry.fact)


def _ends(
    books: Books, index: Index, entries: Mapping[int, Linked], notes: Notes
) -> None:
    """The store's head is the last entry, and every witness was told of the chain there is."""
    store = books.stores.get(JOURNAL)
    if store is None:
        return
    heads = [d.said for d in store.documents if (d.kind, d.key) == ("head", JOURNAL) and d.body]
    last, carried = max(entries, default=0), _under_way(store.asks)
    for head in heads:
        notes.saw(kind="heads")
        _agrees(entries, head, "the store's head", notes, carried)
    if last > max((head["seq"] for head in heads), default=0) and not books.until:
        notes.wrong(JOURNAL, f"the store's head does not know of entry {last}")
    for ask in store.asks:
        if ask.destination in WITNESSES and not ask.is_topic:
            notes.saw(kind="checkpoints")
            _agrees(entries, msgspec.json.decode(ask.value), "a checkpoint", notes, carried)


def _under_way(asks: Any) -> frozenset[int]:
    """The numbers of entries that no courier has carried yet."""
    found = set()
    for ask in asks:
        if ask.is_topic and ask.destination == JOURNAL and ask.settled_at is None:
            begins = _BEGINS.match(ask.value)
            found |= {int(begins[1])} if begins else set()
    return frozenset(found)


def _agrees(
    entries: Mapping[int, Linked], said: Mapping[str, Any], who: str, notes: Notes,
    carried: frozenset[int],
) -> None:  # fmt: skip
    entry = entries.get(said["seq"])
    if entry is None:
        if said["seq"] not in carried:
            notes.wrong(JOURNAL, f"{who} is entry {said['seq']}, which is not in the journal")
    elif entry.hash != said["hash"]:
        notes.wrong(JOURNAL, f"{who} names another entry {said['seq']}", entry.fact)


def acts_have_entries(books: Books, notes: Notes) -> None:
    """I39: a dead letter left for an entry that asked for exactly this, and its end is noted."""
    index = index_of(books)
    notes.saw(books.partitions.get(JOURNAL, 0), "partitions")
    noted = {(f.cause, f.type): f for f in books.topics.get(JOURNAL, ()) if f.cause}
    for service, fact, said in _left(index):
        notes.saw(kind="acts")
        _was_asked(index, service, fact, said, notes)
        _is_noted(index, fact, said, noted, notes)


def _left(index: Index) -> Iterator[tuple[str, Fact, Mapping[str, Any]]]:
    for service in index.books.stores:
        for letters in index.letters(service).values():
            for letter in letters:
                if letter.fact.type in LEFT and not index.books.young(letter.fact.appended_at):
                    yield service, letter.fact, letter.said


def _was_asked(
    index: Index, service: str, fact: Fact, said: Mapping[str, Any], notes: Notes
) -> None:
    asked = next((f for f in index.all_of(fact.cause) if f.topic == JOURNAL), None)
    if asked is None:
        if JOURNAL not in index.trimmed:
            notes.wrong(fact.key, f"{service}: {fact.type} without an entry that asks for it", fact)
        return
    wish = asked.said
    same = all(wish.get(name) == said.get(name) for name in (*PLACE[1:], "actor", "reason"))
    if ASKED.get(asked.type) != fact.type or wish.get("service") != service or not same:
        notes.wrong(fact.key, f"{service}: {fact.type}, and its entry asks for something else",
                    asked, fact)  # fmt: skip
    elif (wish.get("seq") or 0) != (said.get("request_seq") or 0):
        notes.wrong(fact.key, f"{service}: {fact.type} names another number than its entry has",
                    asked, fact)  # fmt: skip


def _is_noted(
    index: Index, fact: Fact, said: Mapping[str, Any], noted: Mapping[tuple[bytes, str], Fact],
    notes: Notes,
) -> None:  # fmt: skip
    """What the journal's service has handled it has noted, or its row is on the way."""
    if fact.id not in index.marks.get(JOURNAL, {}):
        return
    entry = noted.get((fact.id, NOTED[fact.type]))
    if entry is not None:
        told = entry.said
        if any(told.get(name) != said.get(name) for name in (*PLACE, "actor", "request_seq")):
            detail = "the journal notes something else than what was done"
            notes.wrong(fact.key, detail, entry, fact)
    elif not (_open_row(index.books.stores[JOURNAL].asks, fact.id) or _given_up(index, fact)):
        notes.wrong(fact.key, f"{fact.type} was handled by the journal and is not in it", fact)


def _given_up(index: Index, fact: Fact) -> bool:
    """Was the news parked at the journal's own service, and discarded? That has its entry."""
    letters = index.letters(JOURNAL)
    return any(
        letter.fact.type == DISCARDED
        for copy in index.all_of(fact.id) for letter in letters.get(copy[:3], ())
    )


def _open_row(asks: Any, cause: bytes) -> bool:
    found: Iterator[Ask] = (a for a in asks if a.is_topic and a.destination == JOURNAL)
    return any(a.cause == cause and a.settled_at is None for a in found)


RULES = (
    Rule("I38", "the journal's chain is unbroken, and head and checkpoints agree with it",
         chain_unbroken),
    Rule("I39", "no dead letter leaves without an entry that asked for it, and none unnoted",
         acts_have_entries),
)  # fmt: skip
