"""What a move would move, how long that takes, and what stands against it. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from penstock.embedded.schema import log_table
from penstock.errors import Conflict
from penstock.limits import OFFSET_BITS, OFFSET_MAX
from penstock.moving.way import Moving

RATE = 15_000  # records or rows a second: measured on two cores
Row = dict[str, Any]
_COUNTS = {
    "documents": ("documents", "body IS NOT NULL"),
    "marks": ("marks", "true"),
    "waiting": ("waiting", "state = 'waiting'"),
    "parked": ("waiting", "state <> 'waiting'"),
    "open asks": ("outbox", "settled_at IS NULL AND due = 0"),
    "timers": ("outbox", "settled_at IS NULL AND due > 0"),
    "closed asks": ("outbox", "settled_at IS NOT NULL"),
}


def plan(moving: Moving) -> list[Row]:
    """A row a topic, with its partitions, and a row for each kind of a service's rows. Raises
    ``Conflict`` for topics or a database that somebody else has."""
    found = moving.move()
    moving.ledger.refuse_others(found.id if found else "")
    _refuse_counts(moving)
    for reader in moving.house.flow.services:
        if reader.name in moving.home.services:
            _refuse_lost(moving, reader.name, reader.reads)
    rows = []
    for topic in moving.topics:
        there = moving.there(topic)
        if found is None and any(there):
            raise Conflict(
                "not_empty", f"Kafka's topic {topic} holds records already.",
                "Choose another prefix in [kafka]: a move begins with empty topics.",
            )
        rows.append(_topic(moving, topic, there))
    for service in moving.home.services:
        for what, (table, where) in _COUNTS.items():
            count = moving.home.count(service, table, where)
            rows.append({"what": what, "name": service, "count": count, "copied": None})
    return rows


def _refuse_counts(moving: Moving) -> None:
    """A home made with other partition counts cannot be read by this catalog."""
    for topic in moving.topics:
        here = moving.home.partitions(topic)
        declared = moving.house.catalog.topics[topic].partitions
        if here != declared:
            raise Conflict(
                "partition_count",
                f"topic {topic} has {here} partitions in the home, the catalog says {declared}.",
                "Put the count back: keys would move to other partitions.",
            )


def _refuse_lost(moving: Moving, service: str, topics: Iterable[str]) -> None:
    """A lane that stands at a record which is gone stops. It must not begin behind the gap, as it
    would where nobody knows of it."""
    ends = {topic: moving.home.extents(topic) for topic in topics}
    for lane, positions in moving.home.positions(service):
        for topic in ends.keys() & positions.keys():
            at, first = positions[topic], ends[topic][lane].first
            if at < first:
                raise Conflict(
                    "outside_log", f"{service} stands at {topic}[{lane}]@{at}, and the log begins "
                    f"at {first}.", "Records are lost to it: settle that in the home first.",
                )  # fmt: skip


def refuse_late(moving: Moving, now: int) -> None:
    """In the home retention waits for those who read a topic, Kafka's does not: it would drop what
    is unread and older than the bound at once. Raises ``Conflict``."""
    catalog = moving.house.catalog
    for reader in moving.house.flow.services:
        for lane, positions in moving.home.positions(reader.name):
            for topic, at in positions.items():
                known = catalog.topics.get(topic)
                if topic not in reader.reads or known is None or known.retention_seconds is None:
                    continue
                unread = next(moving.home.records(topic, lane, at), [])
                age = (now - unread[0].record.appended_at) / 1000 if unread else 0.0
                if age > known.retention_seconds:
                    raise Conflict(
                        "reader_late", f"{reader.name} has not read {topic}[{lane}]@{at}, which is "
                        f"older than the {known.retention_seconds:.0f} s that Kafka keeps it.",
                        f"Raise retention_seconds of {topic} above {age:.0f} in the catalog, run "
                        "this again, and lower it when the lanes have caught up.",
                    )  # fmt: skip


def _topic(moving: Moving, topic: str, there: list[int]) -> Row:
    partitions = [
        {
            "partition": n, "first": extent.first, "next": extent.next,
            "records": extent.next - extent.first, "bytes": _bytes(moving, topic, n),
            "copied": have,
        }
        for n, (extent, have) in enumerate(zip(moving.home.extents(topic), there, strict=True))
    ]  # fmt: skip
    return {
        "what": "topic", "name": topic, "count": sum(p["records"] for p in partitions),
        "bytes": sum(p["bytes"] for p in partitions), "copied": sum(there),
        "partitions": partitions,
    }


def _bytes(moving: Moving, topic: str, partition: int) -> int:
    low = partition << OFFSET_BITS
    found = moving.home.of(topic).run(
        f"SELECT coalesce(sum(length(body)), 0) FROM {log_table(topic)}"
        " WHERE at BETWEEN ? AND ?", (low, low + OFFSET_MAX),
    )  # fmt: skip
    return int(found[0][0])


def seconds(rows: Iterable[Row]) -> float:
    """How long the copying will take, roughly."""
    return float(sum(row["count"] - (row["copied"] or 0) for row in rows)) / RATE
