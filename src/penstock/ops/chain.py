"""Is the journal whole? A pure judgement over its records, the store's head and checkpoints.

Records come in the order of their numbers, as far as each partition holds its own in order: so
the judge keeps a window of hashes and the gaps it met, never the journal. What it finds:

    edited      the hash is not that of the bytes, or the envelope says otherwise than the entry
    deleted     a number is missing between others
    swapped     an entry lies behind a later one of its partition, or in another's partition
    forked      one number, two entries (the same one twice is a courier's repeat, and no flaw)
    rewritten   an entry does not follow the one before it, or is not what a witness saw
    cut         the store's head, or a checkpoint, is beyond the last entry
    unknown     an entry is beyond the store's head
    foreign     a record without a link among those that have one
    unreadable  the log itself refuses to give records
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import msgspec
from msgspec import Struct

from penstock.entry import UNLINKED, Head, Link, link_of
from penstock.event import Record, partition_of
from penstock.flow import place

WINDOW = 20_000  # numbers whose hashes are kept: couriers repeat up to some thousand rows
FOREIGN = "a record without a link, later than linked ones: it came by another way in"
FLAWS_MAX = 1000  # told of in full; more of them are counted

Kind = Literal[
    "edited", "deleted", "swapped", "forked", "rewritten", "cut", "unknown", "foreign",
    "unreadable",
]  # fmt: skip


class Flaw(Struct, frozen=True, kw_only=True):
    """One thing that is wrong: the entry's number (0: it has none), where, and a sentence."""

    kind: Kind
    seq: int
    at: str
    said: str


class Checkpoint(Struct, frozen=True):
    """What a witness outside keeps: the head of the chain as it was once."""

    seq: int
    hash: str
    at: int = 0


class Verdict(Struct, frozen=True, kw_only=True):
    """What was looked at, and all that is wrong with it."""

    entries: int
    repeats: int
    before_chain: int
    last: Head
    flaws: tuple[Flaw, ...]
    more_flaws: int = 0
    checkpoints: int = 0


class _Told(Struct, frozen=True):
    """What entry and envelope both say."""

    act: str = ""
    key: str = ""


_told = msgspec.json.Decoder(_Told).decode


def in_order(partitions: Iterable[Iterable[Record]]) -> Iterator[Record]:
    """The records of all partitions by their numbers, one record of each in memory. A record
    without a link goes with the one before it."""

    def keyed(records: Iterable[Record], n: int) -> Iterator[tuple[int, int, int, Record]]:
        last = 0
        for record in records:
            link = link_of(record.message.value)
            last = max(last, link.seq) if link else last
            yield last, n, record.offset, record

    merged = heapq.merge(*(keyed(p, n) for n, p in enumerate(partitions)), key=lambda k: k[:3])
    return (record for *_, record in merged)


class Judge:
    """Sees the records one by one. ``head`` is the store's as it was before they were read,
    ``later`` as it was afterwards; entries between the two came meanwhile."""

    def __init__(self, partitions: int, checkpoints: Iterable[Checkpoint] = ()) -> None:
        self._partitions = partitions
        self._checkpoints: dict[int, set[str]] = {}
        for c in checkpoints:
            self._checkpoints.setdefault(c.seq, set()).add(c.hash)
        self.flaws: list[Flaw] = []
        self.entries = self.repeats = self.before_chain = self.more = 0
        self.last = Head()
        self._began_at: int | None = None
        self._ends: dict[int, int] = {}  # partition -> the highest number seen there
        self._hashes: dict[int, str] = {}
        self._wanted: dict[int, str] = {}  # number -> what its successor says its hash is
        self._gaps: list[tuple[int, int]] = []
        self._unlinked_at: list[tuple[int, str]] = []  # the latest of them by time

    def flaw(self, kind: Kind, seq: int, at: str, said: str) -> None:
        """Something is wrong."""
        if len(self.flaws) >= FLAWS_MAX:
            self.more += 1
        else:
            self.flaws.append(Flaw(kind=kind, seq=seq, at=at, said=said))

    def see(self, record: Record) -> None:
        """Take in the next record."""
        at = place(record.position)
        link = link_of(record.message.value)
        if link is None:
            self._unlinked(record, at)
            return
        if self._began_at is None:
            self._began_at = record.appended_at
        if not link.fits:
            self.flaw("edited", link.seq, at, f"entry {link.seq} was edited: its hash is not that "
                      "of its bytes")  # fmt: skip
            if link.seq != self.last.seq + 1:
                return  # whose number may be the edit: what is missing is told of anyway
        self._hold_against_envelope(record, link, at)
        if not self._is_repeat(link, at):
            self._place(record, link, at)

    def _unlinked(self, record: Record, at: str) -> None:
        if record.partition in self._ends:
            self.flaw("foreign", 0, at, FOREIGN)
            return
        # Older than the chain, or in a partition that has no entry yet: its time tells, once it
        # is known when the chain began.
        self.before_chain += 1
        heapq.heappush(self._unlinked_at, (record.appended_at, at))
        if len(self._unlinked_at) > FLAWS_MAX:
            heapq.heappop(self._unlinked_at)

    def _hold_against_envelope(self, record: Record, link: Link, at: str) -> None:
        m = record.message
        try:
            told = _told(m.value)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            self.flaw("edited", link.seq, at, f"entry {link.seq} is no JSON of an entry")
            return
        for name, inside, outside in (("type", told.act, m.type), ("key", told.key, m.key)):
            if inside != outside:
                self.flaw("edited", link.seq, at, f"entry {link.seq} says {inside!r:.80}, the "
                          f"{name} of its record {outside!r:.80}")  # fmt: skip

    def _is_repeat(self, link: Link, at: str) -> bool:
        """Was this number seen before? The same entry again is a courier's repeat."""
        known = self._hashes.get(link.seq)
        if known is None:
            return False
        if known == link.hash:
            self.repeats += 1
        else:
            self.flaw("forked", link.seq, at, f"there are two different entries {link.seq}")
        return True

    def _place(self, record: Record, link: Link, at: str) -> None:
        self.entries += 1
        seq, lane = link.seq, record.partition
        end = self._ends.get(lane, 0)
        if seq < end:
            self.flaw("swapped", seq, at, f"entry {seq} lies behind entry {end}, which is later")
        self._ends[lane] = max(end, seq)
        if partition_of(record.message.key, self._partitions) != lane:
            self.flaw("swapped", seq, at, f"entry {seq} lies in a partition that its key is not of")
        if seq > self.last.seq + 1:
            self._gaps.append((self.last.seq + 1, seq - 1))
            if len(self._gaps) > FLAWS_MAX:
                self._missing(*self._gaps.pop(0))
        elif seq <= self.last.seq:
            self._fill(seq)
        self._follow(link, at)
        if seq > self.last.seq:
            self.last = Head(seq, link.hash, record.appended_at)
        if len(self._hashes) > 2 * WINDOW:
            self._forget(self.last.seq - WINDOW)

    def _fill(self, seq: int) -> None:
        for n, (first, last) in enumerate(self._gaps):
            if first <= seq <= last:
                rest = [(first, seq - 1), (seq + 1, last)]
                self._gaps[n : n + 1] = [(a, b) for a, b in rest if a <= b]
                return

    def _follow(self, link: Link, at: str) -> None:
        """Does it follow its predecessor, and its successor it, and is it what witnesses saw?"""
        seq = link.seq
        before = UNLINKED if seq == 1 else self._hashes.get(seq - 1)
        if before is not None and before != link.prev:
            self.flaw("rewritten", seq, at, f"entry {seq} does not follow entry {seq - 1}: it "
                      "names another hash")  # fmt: skip
        if self._wanted.get(seq, link.hash) != link.hash:
            self.flaw("rewritten", seq, at, f"entry {seq} is not the one that entry {seq + 1} "
                      "follows")  # fmt: skip
        if any(seen != link.hash for seen in self._checkpoints.get(seq, ())):
            self.flaw("rewritten", seq, at, f"entry {seq} is not the one that a checkpoint saw")
        self._hashes[seq] = link.hash
        self._wanted[seq - 1] = link.prev

    def _forget(self, before: int) -> None:
        for kept in (self._hashes, self._wanted):
            for seq in [seq for seq in kept if seq < before]:
                del kept[seq]

    def verdict(self, head: Head | None, later: Head | None) -> Verdict:
        """All that is wrong, now that every record was seen."""
        for appended_at, at in self._unlinked_at:
            if self._began_at is not None and appended_at > self._began_at:
                self.before_chain -= 1
                self.flaw("foreign", 0, at, FOREIGN)
        for first, last in self._gaps:
            self._missing(first, last if head is None else min(last, head.seq))
        self._hold_against_head(head or Head(), later or Head())
        beyond = [seq for seq in sorted(self._checkpoints) if seq > self.last.seq]
        for seq in beyond:
            self.flaw("cut", seq, "checkpoint", f"a checkpoint saw entry {seq}; the journal ends "
                      f"with {self.last.seq}")  # fmt: skip
        return Verdict(
            entries=self.entries, repeats=self.repeats, before_chain=self.before_chain,
            last=self.last, flaws=tuple(self.flaws), more_flaws=self.more,
            checkpoints=sum(map(len, self._checkpoints.values())),
        )

    def _missing(self, first: int, last: int) -> None:
        if first > last:
            return  # it came while we looked: other partitions may have been read before
        said = f"entry {first} is missing" if first == last else (
            f"entries {first} to {last} are missing"
        )
        self.flaw("deleted", first, "between entries", said)

    def _hold_against_head(self, head: Head, later: Head) -> None:
        last = self.last.seq
        if last < head.seq:
            self.flaw("cut", head.seq, "head", f"the store's head is entry {head.seq}; the journal "
                      f"ends with {last}")  # fmt: skip
        elif last > later.seq:
            self.flaw("unknown", last, "head", f"the journal ends with entry {last}; the store "
                      f"knows of {later.seq}")  # fmt: skip
        for known in {head.seq: head, later.seq: later}.values():
            if self._hashes.get(known.seq, known.hash) != known.hash:
                self.flaw("rewritten", known.seq, "head", f"entry {known.seq} is not the one that "
                          "the store's head names")  # fmt: skip


def judge(
    partitions: Iterable[Iterable[Record]], count: int, head: Head | None,
    checkpoints: Iterable[Checkpoint] = (), later: Callable[[], Head | None] | None = None,
) -> Verdict:  # fmt: skip
    """The verdict over a journal of ``count`` partitions. ``later`` reads the head again."""
    found = Judge(count, checkpoints)
    for record in in_order(partitions):
        found.see(record)
    return found.verdict(head, later() if later else head)
