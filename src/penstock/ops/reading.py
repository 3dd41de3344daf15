"""The journal as others read it: its records in order, its head, and what witnesses kept.

Nothing here takes part in a group or writes: it works beside everything that runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from penstock.catalog.model import JOURNAL
from penstock.entry import Head, link_of
from penstock.errors import Corrupt, OutsideLog, Usage
from penstock.event import Record
from penstock.flow import Row, Scan
from penstock.ops.chain import Checkpoint, Flaw, Judge, Verdict, in_order
from penstock.ops.journal import HEAD
from penstock.ports import Due, Extent, Log

PAGE_RECORDS = 500
PROBES_MAX = 100_000  # offsets that cannot be read, one after the other, before we stop there
OPEN_ROWS_MAX = 1000

Unreadable = Callable[[int, int, int, str], None]  # partition, first and last offset, why


class Looking(Protocol):
    """The part of a store that is looked at."""

    def scan(self, what: Scan) -> list[Row]:
        """Rows for people."""

    def due(
        self, destination: str, now: int, known: Sequence[int], limit: int, *, is_topic: bool
    ) -> list[Due]:
        """Rows that no courier has carried yet."""


def head_of(store: Looking) -> Head | None:
    """The end of the chain as the journal's store has it; None before the first entry."""
    what = Scan(service=JOURNAL, kind=HEAD.kind, key=HEAD.key)
    for row in store.scan(what):
        return msgspec.json.decode(row.body, type=Head)
    return None


def on_the_way(store: Looking, head: Head | None) -> int:
    """The first entry up to ``head`` that no courier has carried to the topic; 0: all are there."""
    for row in store.due(JOURNAL, 0, (), OPEN_ROWS_MAX, is_topic=True):
        link = link_of(row.message.value)
        if link is not None and head is not None and link.seq <= head.seq:
            return link.seq
    return 0


def records(
    log: Log, partition: int, held: Extent, unreadable: Unreadable
) -> Iterator[Record]:
    """The records of a partition from the first to before ``next``, page by page. What cannot be
    read is told of and passed."""
    at, limit, bad, why = held.first, PAGE_RECORDS, -1, ""
    while at < held.next:
        try:
            found = [r for r in log.read(JOURNAL, partition, at, limit) if r.offset < held.next]
        except (Corrupt, OutsideLog) as error:
            if limit == 1:  # the record itself, and not one further on in its page
                bad, why = (bad, why) if bad >= 0 else (at, str(error))
                at += 1
                if at - bad > PROBES_MAX:
                    break
            limit = 1
            continue
        if not found:
            break
        if bad >= 0:
            unreadable(partition, bad, found[0].offset - 1, why)
        at, limit, bad = found[-1].offset + 1, PAGE_RECORDS, -1
        yield from found
    if bad >= 0:
        unreadable(partition, bad, at - 1, why)


def all_records(log: Log, since: int | None = None) -> Iterator[Record]:
    """Every record of the journal in the order of the entries, from a time (ms) on. Raises
    ``Corrupt`` where one cannot be read."""

    def refuse(partition: int, first: int, last: int, why: str) -> None:
        raise Corrupt(f"{why} (penstock journal verify says what else is wrong)")

    extents = log.extent(JOURNAL, since)
    yield from in_order(records(log, p, held, refuse) for p, held in enumerate(extents))


def verified(
    log: Log, store: Looking, head: Head | None, checkpoints: Iterable[Checkpoint]
) -> Verdict:
    """The journal as it is now, judged. ``head`` was the store's when all up to it was seen to be
    carried: that must be in the log. Checkpoints are older."""
    extents = log.extent(JOURNAL)
    judge = Judge(len(extents), checkpoints)

    def unreadable(partition: int, first: int, last: int, why: str) -> None:
        many = f" to {last}" if last > first else ""
        judge.flaw("unreadable", 0, f"{JOURNAL}[{partition}]@{first}{many}", why)

    for record in in_order(records(log, p, e, unreadable) for p, e in enumerate(extents)):
        judge.see(record)
    return judge.verdict(head, head_of(store))


def checkpoints_in(paths: Iterable[Path]) -> list[Checkpoint]:
    """What witnesses kept in files, a line of JSON each. A line that was cut while it was written
    counts as not written. Raises ``Usage``."""
    return [c for path in paths for c in _lines(path)]


def _lines(path: Path) -> Iterator[Checkpoint]:
    try:
        whole, _, _cut = path.read_bytes().rpartition(b"\n")
    except OSError as error:
        raise Usage("no_checkpoints", f"{path} cannot be read: {error.strerror}.") from None
    for number, line in enumerate(whole.split(b"\n"), 1):
        if not line:
            continue
        try:
            yield msgspec.json.decode(line, type=Checkpoint)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            if line.startswith(b"{") and not line.endswith(b"}"):
                continue
            raise Usage(
                "bad_checkpoint", f"{path}:{number}: {error}.",
                'A checkpoint is a line like {"seq":7,"hash":"…","at":0}.',
            ) from None


__all__ = [
    "Checkpoint", "Flaw", "Looking", "Verdict", "all_records", "checkpoints_in", "head_of",
    "on_the_way", "records", "verified",
]  # fmt: skip
