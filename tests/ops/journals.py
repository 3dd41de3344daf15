"""Journals as tests need them: entries linked by the product, records where its log puts them."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from penstock.entry import Entry, Head, RetryRequested, end_of, linked
from penstock.event import Message, Record, partition_of

NOW = 1_767_600_000_000
PARTITIONS = 4


def wish(number: int) -> RetryRequested:
    """An entry about some key."""
    return RetryRequested(
        actor="pat", key=f"key-{number}", reason="mended", service="tally", topic="facts",
        partition=0, offset=number,
    )  # fmt: skip


def chain(count: int, head: Head | None = None) -> list[Entry]:
    """So many entries, each after the one before."""
    found: list[Entry] = []
    for number in range(count):
        after = end_of(found[-1]) if found else head or Head()
        found.append(linked(wish(number), after, NOW + number))
    return found


def message(entry: Entry) -> Message:
    """What the gate emits of an entry."""
    return Message(
        entry.key, msgspec.json.encode(entry), entry.hash[:16].encode(), entry.act, 2, entry.at,
        source="journal",
    )  # fmt: skip


def laid(messages: Iterable[Message], start: int = 0) -> list[list[Record]]:
    """Records by partition, as a log would have them."""
    found: list[list[Record]] = [[] for _ in range(PARTITIONS)]
    for number, m in enumerate(messages):
        lane = found[partition_of(m.key, PARTITIONS)]
        offset = lane[-1].offset + 1 if lane else start
        n = partition_of(m.key, PARTITIONS)
        lane.append(Record("journal", n, offset, NOW + number, m))
    return found


def edited(record: Record, old: bytes, new: bytes) -> Record:
    """The record with other bytes."""
    assert old in record.message.value
    return replace(
        record, message=replace(record.message, value=record.message.value.replace(old, new))
    )
