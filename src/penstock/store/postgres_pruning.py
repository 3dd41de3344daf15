"""Keeping the PostgreSQL store finite, by the same rule as ``store.pruning``.

Here transactions of several lanes are under way at once, and a number that was taken may still be
on its way. A checkpoint holds all lanes of its scope for the length of one statement: numbers are
taken while a lane is held, so every lower one is committed by then, or never will be.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from penstock.errors import Contended
from penstock.store.postgres_session import Session, Statement
from penstock.store.postgres_values import long, many_bytes, number_of, raw, short
from penstock.store.pruning import CHECKPOINTS_MAX, PRUNE_ROWS_MAX

READERLESS_MS = 3_600_000  # how long a scope that reads nothing keeps its settled rows
INTAKE_LANES = -1000  # from here down: lanes of doors, of which each start has one of its own
_LANES = msgspec.json.Decoder(dict[str, dict[str, int]])

_CHECKPOINT = Statement("""
WITH held AS MATERIALIZED (
  SELECT lane, txn, positions FROM owners WHERE scope = $scope ORDER BY lane FOR SHARE)
INSERT INTO checkpoints(scope, txn, at, positions)
SELECT $scope, max(txn), $now,
  coalesce(jsonb_object_agg(lane::text, positions) FILTER (WHERE lane >= 0), '{}')
FROM held HAVING count(*) > 0
ON CONFLICT DO NOTHING""")
_THIN = Statement("""
DELETE FROM checkpoints WHERE scope = $scope AND txn IN (
  SELECT txn FROM (
    SELECT txn, at, lag(at) OVER ages AS older, lead(at) OVER ages AS newer
    FROM checkpoints WHERE scope = $scope WINDOW ages AS (ORDER BY txn)) AS aged
  WHERE older IS NOT NULL AND newer IS NOT NULL
  ORDER BY (newer - older) / ($now - at + 1.0)
  LIMIT greatest(0, (SELECT count(*) FROM checkpoints WHERE scope = $scope) - $most))""")
_CHECKPOINTS = Statement(
    "SELECT txn, at, positions::text FROM checkpoints WHERE scope = $scope ORDER BY txn DESC"
)
_OLDER_CHECKPOINTS = Statement("DELETE FROM checkpoints WHERE scope = $scope AND txn < $txn")
# Ids begin with the root's append time, which is never later than the handling: everything marked
# up to the checkpoint sorts before its time, so this reads from the front only.
_MARKS = Statement("""
DELETE FROM marks WHERE scope = $scope AND id IN (
  SELECT id FROM marks WHERE scope = $scope AND id < $until AND txn <= $txn AND id <> ALL($keep)
  ORDER BY id LIMIT $most)""")
# Up to the first row of a later transaction, for ids and numbers are taken at the same time; what
# lies behind it goes in a later round. Without that, each round would read all that is kept.
_ROWS = Statement("""
DELETE FROM outbox WHERE scope = $scope AND id IN (
  SELECT id FROM outbox WHERE scope = $scope AND txn <= $txn AND settled_txn <= $txn
    AND id < coalesce((SELECT id FROM outbox WHERE scope = $scope AND txn > $txn
                       ORDER BY id LIMIT 1), 9223372036854775807)
  ORDER BY id LIMIT $most)""")
# Asked twice: while the deletion waits for a row's writer, the document may come to life again.
_TOMBSTONES = Statement("""
DELETE FROM documents WHERE scope = $scope AND body IS NULL AND txn <= $txn AND (kind, key) IN (
  SELECT kind, key FROM documents WHERE scope = $scope AND body IS NULL AND txn <= $txn
  LIMIT $most)""")
_OWNERS = Statement(
    "DELETE FROM owners WHERE scope = $scope AND lane <= $doors AND txn < $txn"
)


def prune(
    session: Session, scope: int, floors: Mapping[tuple[str, int], int], now: int,
    keep: frozenset[bytes],
) -> int:  # fmt: skip
    """One bounded round; returns the rows dropped. Whoever is in its way goes first: then it
    drops nothing and is called again."""
    try:
        horizon = _horizon(session, scope, floors, now)
        session.run(_CHECKPOINT, scope=short(scope), now=long(now))
        session.run(_THIN, scope=short(scope), now=long(now), most=long(CHECKPOINTS_MAX))
        return _drop(session, scope, horizon, keep) if horizon else 0
    except Contended:
        return 0


def _horizon(
    session: Session, scope: int, floors: Mapping[tuple[str, int], int], now: int
) -> tuple[int, int] | None:
    """The newest checkpoint (txn, at) whose positions all lie at or before ``floors``. Where
    nothing is read (a door), there are no marks, and no log that anything must wait for."""
    found = session.run(_CHECKPOINTS, scope=short(scope))
    for n in range(found.ntuples):
        lanes = _LANES.decode(found.get_value(n, 2) or b"{}")
        txn, at = number_of(found.get_value(n, 0)), number_of(found.get_value(n, 1))
        if not lanes and at > now - READERLESS_MS:
            continue
        if all(
            offset <= floors.get((topic, int(lane)), 0)
            for lane, topics in lanes.items()
            for topic, offset in topics.items()
        ):
            return txn, at
    return None


def _drop(session: Session, scope: int, horizon: tuple[int, int], keep: frozenset[bytes]) -> int:
    txn, at = horizon
    until = (at + 1).to_bytes(6, "big")
    of, number, most = short(scope), long(txn), long(PRUNE_ROWS_MAX)
    done = [
        session.run(_OLDER_CHECKPOINTS, scope=of, txn=number),
        session.run(
            _MARKS, scope=of, txn=number, until=raw(until), keep=many_bytes(sorted(keep)),
            most=most,
        ),
        session.run(_ROWS, scope=of, txn=number, most=most),
        session.run(_TOMBSTONES, scope=of, txn=number, most=most),
        session.run(_OWNERS, scope=of, txn=number, doors=short(INTAKE_LANES)),
    ]
    dropped = [each.command_tuples or 0 for each in done]
    return sum(dropped[1:4])
