"""Retention of an embedded topic: what its age and size bounds allow, freed page by page."""

from __future__ import annotations

from collections.abc import Mapping
from heapq import merge

from penstock.embedded.file import File
from penstock.embedded.schema import log_table
from penstock.limits import OFFSET_BITS, OFFSET_MAX
from penstock.ports import TopicSpec

RETAIN_ROWS_MAX = 500  # rows of one partition dropped in one transaction
VACUUM_PAGES_MAX = 2000
SPARE_PAGES = 64  # free pages that are kept: the next commits take them
_Oldest = tuple[int, int, int, int]  # appended-at, row id, records, bytes


def retain(file: File, spec: TopicSpec, floors: Mapping[int, int], now: int) -> int:
    """Drop rows past the bounds, the oldest of all partitions first; returns the records."""
    table = log_table(spec.name)
    with file.write():
        gone = _past_bounds(file, table, spec, floors, now)
        file.run_many(f"DELETE FROM {table} WHERE at = ?", [(row[1],) for row in gone])
        # In the same transaction, for a shared file is written by who has the turn only. Pages
        # that pruning left free, or an earlier round for their number, go as well.
        if file.run("PRAGMA freelist_count")[0][0] > SPARE_PAGES:
            file.run(f"PRAGMA incremental_vacuum({VACUUM_PAGES_MAX})")
    return sum(row[2] for row in gone)


def _past_bounds(
    file: File, table: str, spec: TopicSpec, floors: Mapping[int, int], now: int
) -> list[_Oldest]:
    """While a bound asks for it, oldest first. In a partition append times never decrease, so
    the rows of each partition that go are its first ones."""
    age, excess = spec.retention_seconds, _excess_bytes(file, table, spec)
    gone: list[_Oldest] = []
    for row in merge(
        *(_droppable(file, table, p, floors.get(p, OFFSET_MAX)) for p in range(spec.partitions))
    ):
        too_old = age is not None and row[0] < now - age * 1000
        if not (too_old or excess > 0):
            break
        gone.append(row)
        excess -= row[3]
    return gone


def _droppable(file: File, table: str, partition: int, floor: int) -> list[_Oldest]:
    """Rows wholly before ``floor``, never the newest of the partition."""
    low, high = partition << OFFSET_BITS, partition << OFFSET_BITS | OFFSET_MAX
    return file.run(
        f"SELECT appended_at, at, count, length(body) + 60 FROM {table} WHERE at >= ?1"
        f" AND at < min(?3, (SELECT max(at) FROM {table} WHERE at >= ?1 AND at <= ?2))"
        " ORDER BY at LIMIT ?4",
        (low, high, low | floor, RETAIN_ROWS_MAX),
    )


def _excess_bytes(file: File, table: str, spec: TopicSpec) -> int:
    if spec.retention_bytes is None:
        return 0
    return int(
        file.run(f"SELECT coalesce(sum(length(body) + 60), 0) FROM {table}")[0][0]
        - spec.retention_bytes
    )
