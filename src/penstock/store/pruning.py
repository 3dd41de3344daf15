"""Keeping a store finite: checkpoints of all positions, and what may be forgotten behind them.

A mark may go once no log still holds the record it answers for: dedupe reaches exactly as far
back as replay does. A checkpoint ties a transaction number to the positions then; when every
position of a checkpoint lies at or before the first retained offset, everything handled up to
that transaction is out of any log's reach.

The checkpoints themselves are bounded: past their number, the one goes whose neighbours lie
closest together for their age. So the newest lie a round apart, those of a year ago days, and
whatever the retention, marks outlive their records by about a hundredth of it and no more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import apsw

from penstock.embedded.file import File

PRUNE_ROWS_MAX = 5000
CHECKPOINTS_MAX = 1000
_THIN = """
DELETE FROM checkpoints WHERE scope = ?1 AND txn IN (
  SELECT txn FROM (
    SELECT txn, at, lag(at) OVER ages AS older, lead(at) OVER ages AS newer
    FROM checkpoints WHERE scope = ?1 WINDOW ages AS (ORDER BY txn))
  WHERE older IS NOT NULL AND newer IS NOT NULL
  ORDER BY (newer - older) / (?2 - at + 1.0)
  LIMIT max(0, (SELECT count(*) FROM checkpoints WHERE scope = ?1) - ?3))"""
_TRANSACTIONS = "SELECT max(txn) FROM owners WHERE scope = ?"


def prune(
    file: File, scope: int, floors: Mapping[tuple[str, int], int], now: int, keep: frozenset[bytes]
) -> int:
    """One bounded round; returns the rows dropped. ``floors``: the first offsets that matter;
    ``keep``: marks of older records that a log holds still."""
    with file.write():
        horizon = _horizon(file, scope, floors)
        _checkpoint(file, scope, now)
        if horizon is None:
            return 0
        return _drop(file, scope, horizon, keep)


def _checkpoint(file: File, scope: int, now: int) -> None:
    positions = {
        str(lane): json.loads(text)
        for lane, text in file.run(
            "SELECT lane, positions FROM owners WHERE scope = ? AND lane >= 0", (scope,)
        )
    }
    txn = file.run(_TRANSACTIONS, (scope,))[0][0]
    if txn is not None:
        file.run(
            "INSERT OR IGNORE INTO checkpoints(scope, txn, at, positions) VALUES(?, ?, ?, ?)",
            (scope, txn, now, json.dumps(positions)),
        )
    file.run(_THIN, (scope, now, CHECKPOINTS_MAX))


def _horizon(
    file: File, scope: int, floors: Mapping[tuple[str, int], int]
) -> tuple[int, int] | None:
    """The newest checkpoint (txn, at) whose positions all lie at or before ``floors``."""
    found = file.stream(
        "SELECT txn, at, positions FROM checkpoints WHERE scope = ? ORDER BY txn DESC", (scope,)
    )
    for txn, at, text in found:
        lanes = json.loads(text)
        if lanes and all(
            offset <= floors.get((topic, int(lane)), 0)
            for lane, topics in lanes.items()
            for topic, offset in topics.items()
        ):
            return txn, at
    return None


def _drop(file: File, scope: int, horizon: tuple[int, int], keep: frozenset[bytes]) -> int:
    txn, at = horizon
    file.run("DELETE FROM checkpoints WHERE scope = ? AND txn < ?", (scope, txn))
    # Ids begin with the root's append time, which is never later than the handling: everything
    # marked up to the checkpoint sorts before its time, so this reads from the front only.
    kept = apsw.carray(tuple(keep) or (b"",))
    before = file.db.total_changes()
    file.run(
        "DELETE FROM marks WHERE scope = ?1 AND id IN (SELECT id FROM marks WHERE scope = ?1"
        " AND id < ?2 AND txn <= ?3 AND id NOT IN carray(?5) ORDER BY id LIMIT ?4)",
        (scope, (at + 1).to_bytes(6, "big"), txn, PRUNE_ROWS_MAX, kept),
    )
    # The newest outbox row stays, so that its id is never given again.
    file.run(
        "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE scope = ?1 AND txn <= ?2"
        " AND settled_txn <= ?2 AND id < (SELECT max(id) FROM outbox) ORDER BY id LIMIT ?3)",
        (scope, txn, PRUNE_ROWS_MAX),
    )
    file.run(
        "DELETE FROM documents WHERE scope = ?1 AND body IS NULL AND txn <= ?2",
        (scope, txn),
    )
    return file.db.total_changes() - before
