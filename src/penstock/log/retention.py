"""Retention of an embedded topic: what its age and size bounds allow, freed page by page."""

from __future__ import annotations

from collections.abc import Mapping

from penstock.embedded.file import File
from penstock.embedded.schema import log_table
from penstock.limits import OFFSET_BITS, OFFSET_MAX
from penstock.ports import TopicSpec

RETAIN_ROWS_MAX = 500  # rows of one partition dropped in one transaction
VACUUM_PAGES_MAX = 2000


def retain(file: File, spec: TopicSpec, floors: Mapping[int, int], now: int) -> int:
    """Drop rows past the bounds; returns the records dropped."""
    table, dropped = log_table(spec.name), 0
    with file.write():
        excess = _excess_bytes(file, table, spec)
        for partition in range(spec.partitions):
            floor = floors.get(partition, OFFSET_MAX)
            last, count, freed = _cut(file, table, spec, partition, floor, excess, now)
            excess -= freed
            if last is not None:
                file.run(
                    f"DELETE FROM {table} WHERE at >= ? AND at <= ?",
                    (partition << OFFSET_BITS, last),
                )
                dropped += count
    if dropped:
        file.run(f"PRAGMA incremental_vacuum({VACUUM_PAGES_MAX})")
    return dropped


def _excess_bytes(file: File, table: str, spec: TopicSpec) -> int:
    if spec.retention_bytes is None:
        return 0
    return int(
        file.run(f"SELECT coalesce(sum(length(body) + 60), 0) FROM {table}")[0][0]
        - spec.retention_bytes
    )


def _cut(
    file: File, table: str, spec: TopicSpec, partition: int, floor: int, excess: int, now: int
) -> tuple[int | None, int, int]:
    """The last row id to drop, its records and bytes: oldest first, while a bound asks for it,
    before the floor, and never the newest row."""
    horizon = now - spec.retention_seconds * 1000 if spec.retention_seconds is not None else None
    low, high = partition << OFFSET_BITS, partition << OFFSET_BITS | OFFSET_MAX
    last, records, freed = None, 0, 0
    found = file.run(
        f"SELECT at, count, appended_at, length(body) + 60 FROM {table} WHERE at >= ?1"
        f" AND at < (SELECT max(at) FROM {table} WHERE at >= ?1 AND at <= ?2)"
        " ORDER BY at LIMIT ?3",
        (low, high, RETAIN_ROWS_MAX),
    )
    for at, count, appended_at, size in found:
        too_old = horizon is not None and appended_at < horizon
        if at & OFFSET_MAX >= floor or not (too_old or excess - freed > 0):
            break
        last, records, freed = at, records + count, freed + size
    return last, records, freed
