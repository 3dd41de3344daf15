"""Home and cluster held against each other: record by record, row by row, state by state."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from hashlib import blake2b
from typing import Any

import msgspec
from msgspec.structs import replace

from penstock.errors import CheckFailed, Conflict, OutsideLog
from penstock.event import Message, Record
from penstock.moving import move as moves
from penstock.moving.home import pieces
from penstock.moving.move import Move
from penstock.moving.way import TABLES, Moving

Row = dict[str, Any]
_LOWEST_128 = (1 << 128) - 1


def verify(moving: Moving) -> list[Row]:
    """A row for each topic and table that was compared. Raises ``Conflict`` where the
    cluster is in use by now."""
    found = moving.at("verified")
    touched = moving.touched(found, moving.ledger.latest())
    if touched:
        raise Conflict("in_use", f"The cluster works already: {touched}.",
                       "penstock audit judges it from here on.")  # fmt: skip
    rows = [_compare_topic(moving, found, topic) for topic in moving.topics]
    home, ledger = moving.home, moving.ledger
    for service in home.services:
        for table in TABLES:
            ordered = table == "outbox"
            here = digest(ledger.kept(home.rows(service, table, found)), ordered=ordered)
            there = digest(ledger.rows(service, table), ordered=ordered)
            rows.append(row_of(table, service, here[0], there[0], equal=here == there))
    return rows


def judge(moving: Moving, rows: Iterable[Row]) -> None:
    """Note that the move was verified. Raises ``CheckFailed`` where something was not equal."""
    found = moving.at("verified")
    wrong = [f"{row['what']} {row['name']}" for row in rows if not row["equal"]]
    if wrong:
        raise CheckFailed(
            "not_equal", f"Home and cluster differ in {', '.join(wrong)}.",
            "Start nothing there. penstock migrate return; then begin anew, under another prefix "
            "where topics differ.",
        )
    moves.mark(moving.house.home, found, "verified")


def same(here: Message, there: Message) -> bool:
    """Are they the same message? A value that lay in Avro may come back spelled otherwise."""
    if here == there:
        return True
    try:
        return json.loads(here.value) == json.loads(there.value) and here == replace(
            there, value=here.value
        )
    except ValueError:
        return False


def _compare_topic(moving: Moving, move: Move, topic: str) -> Row:
    """All that both hold: by the same bounds Kafka may have dropped since the switch what the home
    has still, and drops more while it is read."""
    alike = here_count = there_count = 0
    is_whole = True
    for partition, (first, end) in enumerate(
        zip(move.firsts[topic], moving.log.extent(topic), strict=True)
    ):
        at = low = 0
        for piece in pieces(moving.home.records(topic, partition, first)):
            at = piece[0].record.offset - first
            low, copies = _read(moving, topic, partition, max(at, low), at + len(piece))
            kept = piece[max(0, low - at) :]
            at += len(piece)
            here_count, there_count = here_count + len(kept), there_count + len(copies)
            alike += sum(_alike(c.record, k, first) for c, k in zip(kept, copies, strict=False))
        is_whole &= at == end.next
    equal = is_whole and alike == here_count == there_count
    return row_of("topic", topic, here_count, there_count, equal=equal)


def _alike(here: Record, there: Record, first: int) -> bool:
    place_and_time = here.offset - first, here.appended_at
    return place_and_time == (there.offset, there.appended_at) and same(here.message, there.message)


def _read(
    moving: Moving, topic: str, partition: int, start: int, end: int
) -> tuple[int, list[Record]]:
    """The records of a piece that are there still, however few the broker gives at a time, and
    where they begin."""
    found: list[Record] = []
    while start + len(found) < end:
        try:
            more = moving.log.read(topic, partition, start + len(found), end - start - len(found))
        except OutsideLog as dropped:
            if dropped.first <= start:
                break  # so many are not there at all
            start, found = dropped.first, []
            continue
        if not more:
            break
        found += more
    return start, found


def row_of(what: str, name: str, here: int, there: int, *, equal: bool | None = None) -> Row:
    """What was counted, and whether it is equal (where that is more than the numbers)."""
    same_ = here == there if equal is None else equal
    return {"what": what, "name": name, "home": here, "cluster": there, "equal": same_}


def digest(rows: Iterable[tuple[Any, ...]], *, ordered: bool = False) -> tuple[int, int]:
    """How many rows, and a number that is the same for the same rows: in any order, or in this
    one only."""
    count = total = 0
    for row in rows:
        cells = [_plain(cell) for cell in row]
        said = msgspec.json.encode([count, *cells] if ordered else cells, order="sorted")
        count += 1
        total += int.from_bytes(blake2b(said, digest_size=16).digest(), "big")
    return count, total & _LOWEST_128


def _plain(cell: Any) -> Any:
    """A cell as both sides can say it: what one keeps as JSON's text the other reads as values."""
    if isinstance(cell, str) and cell[:1] in ("{", "["):
        with suppress(ValueError):
            return json.loads(cell)
    return cell
