"""The statements of the PostgreSQL store.

A batch is three: what is about to be decided, what it needs (with row locks), and everything it
writes. The last is put together of the sections that have something to write; PostgreSQL carries
it out as one, and with it the checks that may refuse it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from penstock.store.postgres_session import Statement

Cell = Callable[[int, int], bytes | None]  # row and column of an answer to what they hold

SCOPE = Statement("SELECT id FROM scopes WHERE service = $service AND namespace = $namespace")
NEW_SCOPE = Statement(
    "INSERT INTO scopes(service, namespace) VALUES($service, $namespace)"
    " ON CONFLICT DO NOTHING"
)

# Only the owner's own word counts: one whose lane was claimed anew writes nothing here either.
# It need not outlive the server, and so the batch does not wait for the disk.
ATTEMPT = Statement("""
INSERT INTO attempts(scope, lane, txn, token, spans)
SELECT o.scope, o.lane, o.txn, $token, v.spans
FROM unnest($lanes, $epochs, $spans) AS v(lane, epoch, spans)
JOIN owners o ON o.scope = $scope AND o.lane = v.lane AND o.epoch = v.epoch
WHERE set_config('synchronous_commit', 'off', true) IS NOT NULL
ORDER BY o.lane
ON CONFLICT (scope, lane) DO UPDATE
SET txn = excluded.txn, token = excluded.token, spans = excluded.spans""", kept=True)

# The documents come in the order of kind and key and are locked in it: two batches that share some
# queue, and rarely meet in a circle. Marks need no lock, for the lane has one owner.
#
# A subquery that locks, or has an OFFSET, is not merged into the query around it, so each document
# and each mark is looked up by its key, whatever the statistics said when the plan was made. (Of an
# empty table they said that it is as well read from end to end; a plan is kept, and tables grow.)
LOAD = Statement("""
WITH held AS MATERIALIZED (
  SELECT v.place, d.body, d.txn
  FROM unnest($kinds, $keys) WITH ORDINALITY AS v(kind, key, place)
  CROSS JOIN LATERAL (
    SELECT body, txn FROM documents
    WHERE scope = $scope AND kind = v.kind AND key = v.key FOR NO KEY UPDATE) AS d)
SELECT place, body, txn FROM held
UNION ALL
SELECT NULL, m.id, NULL FROM unnest($ids) AS v(id)
CROSS JOIN LATERAL (SELECT id FROM marks WHERE scope = $scope AND id = v.id OFFSET 0) AS m
""", kept=True)

# The epochs of dead and living owners alike end here. The row lock waits for a commit that is
# under way; what is returned is what came of it. The attempts may be read as they were before,
# but then their number is not the lane's any more.
CLAIM = Statement("""
WITH claimed AS (
  INSERT INTO owners(scope, lane, epoch, txn, positions)
  SELECT $scope, v.lane, 1, nextval('txns'), '{}' FROM unnest($lanes) AS v(lane) ORDER BY v.lane
  ON CONFLICT (scope, lane) DO UPDATE SET epoch = owners.epoch + 1
  RETURNING lane, epoch, positions, txn)
SELECT c.lane, c.epoch, c.positions::text, a.spans
FROM claimed c LEFT JOIN attempts a
  ON a.scope = $scope AND a.lane = c.lane AND a.txn = c.txn AND a.token <> $token
  AND NOT EXISTS (
    SELECT FROM pg_locks l
    WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.classid = $living::bigint::oid
      AND l.objid = a.token::bigint::oid
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))""")
# Held as long as a connection of the store is there: whoever claims sees that its owner lives.
LIVE = Statement("SELECT pg_advisory_lock_shared($living, $token)")

_ADVANCE = "n AS MATERIALIZED (SELECT advance($scope, $lanes, $epochs, $positions) AS txn)"
_NUMBER = "(SELECT txn FROM n)"
_SECTIONS = {
    # A document that is no more as it was loaded keeps its row out of the count, and `expect`
    # refuses the commit. One that was not loaded (before = -1) is written, but by a later number.
    "documents": f"""d AS (
  INSERT INTO documents(scope, kind, key, label, body, txn, epoch, before)
  SELECT $scope, v.kind, v.key, v.label, v.body, {_NUMBER}, $epoch, v.before
  FROM unnest($doc_kinds, $doc_keys, $labels, $bodies, $before)
    AS v(kind, key, label, body, before)
  ON CONFLICT (scope, kind, key) DO UPDATE
  SET label = excluded.label, body = excluded.body, txn = excluded.txn,
      epoch = excluded.epoch, before = excluded.before
  WHERE documents.txn = excluded.before
    OR (excluded.before = -1 AND documents.txn < excluded.txn)
  RETURNING 1)""",
    "marks": f"""m AS (
  INSERT INTO marks(scope, id, txn, ordinal, epoch)
  SELECT $scope, v.id, {_NUMBER}, v.ordinal - 1, v.epoch
  FROM unnest($marks, $mark_epochs) WITH ORDINALITY AS v(id, epoch, ordinal))""",
    "dropped": """g AS (
  DELETE FROM waiting w
  USING unnest($drop_topics, $drop_partitions, $drop_offsets) AS v(topic, partition, place)
  CROSS JOIN LATERAL (
    SELECT ctid FROM waiting
    WHERE scope = $scope AND topic = v.topic AND partition = v.partition
      AND "offset" = v.place FOR UPDATE) AS found
  WHERE w.ctid = found.ctid)""",
    "waiting": f"""w AS (
  INSERT INTO waiting(scope, topic, partition, "offset", key, state, due, attempts, deaths, kind,
    appended_at, message, errors, txn, epoch)
  SELECT $scope, v.topic, v.partition, v.place, v.key, v.state, v.due, v.attempts, v.deaths,
    v.kind, v.appended_at, v.message, v.errors::json, {_NUMBER}, $epoch
  FROM unnest($topics, $partitions, $offsets, $wait_keys, $states, $wait_dues, $attempts,
    $deaths, $wait_kinds, $appended, $wait_messages, $errors)
    AS v(topic, partition, place, key, state, due, attempts, deaths, kind, appended_at, message,
      errors)
  ON CONFLICT (scope, topic, partition, "offset") DO UPDATE
  SET key = excluded.key, state = excluded.state, due = excluded.due,
    attempts = excluded.attempts, deaths = excluded.deaths, kind = excluded.kind,
    appended_at = excluded.appended_at, message = excluded.message, errors = excluded.errors,
    txn = excluded.txn, epoch = excluded.epoch)""",
    "rows": f"""o AS (
  INSERT INTO outbox(scope, destination, is_topic, shard, key, name, idempotency_key, due,
    made_at, message, txn, epoch)
  SELECT $scope, v.destination, v.is_topic, v.shard, v.key, v.name, v.idem, v.due, $now,
    v.message, {_NUMBER}, $epoch
  FROM unnest($destinations, $is_topics, $shards, $row_keys, $names, $idems, $dues, $messages)
    AS v(destination, is_topic, shard, key, name, idem, due, message))""",
}


@lru_cache(maxsize=64)
def write_statement(sections: tuple[str, ...]) -> Statement:
    """The statement that writes these sections, under the epochs of the lanes it advances."""
    parts = ",\n".join([_ADVANCE, *(_SECTIONS[name] for name in sections)])
    checked = ", expect((SELECT count(*) FROM d), $wanted)" if "documents" in sections else ""
    return Statement(f"WITH {parts}\nSELECT n.txn{checked} FROM n", kept=True)


COLUMNS = (
    "id, destination, is_topic, message, name, idempotency_key, due, attempts, retry_at, made_at,"
    " shard, txn, epoch"
)
_OF = f"SELECT {COLUMNS} FROM outbox WHERE scope = $scope AND"


@lru_cache(maxsize=16)
def due_statement(is_clock: bool, has_known: bool, has_shards: bool) -> Statement:
    """Unsettled rows of a destination."""
    only = " AND shard = ANY($shards)" if has_shards else ""
    if is_clock:
        return Statement(
            f"{_OF} NOT is_topic AND destination = $destination AND settled_at IS NULL"
            f" AND due > 0 AND due <= $now{only} ORDER BY due, id LIMIT $limit"
        )
    # Never from the lowest known id on: a transaction that took its ids before may commit after.
    # (A subquery, and not `<> ALL`, for it is looked up by hash.)
    known = " AND id NOT IN (SELECT unnest($known))" if has_known else ""
    return Statement(
        f"{_OF} is_topic = $is_topic AND destination = $destination AND settled_at IS NULL"
        f" AND due = 0{known}{only} ORDER BY id LIMIT $limit"
    )


# A row that was closed meanwhile stays as it is, and its answer is not given twice.
SETTLE = Statement(f"""
WITH {_ADVANCE},
c AS (
  UPDATE outbox o SET attempts = v.attempts, error = v.error, retry_at = v.retry_at,
    outcome = v.outcome,
    settled_at = CASE WHEN v.retry_at = 0 THEN $now END,
    settled_txn = CASE WHEN v.retry_at = 0 THEN {_NUMBER} END
  FROM unnest($ids, $outcomes, $attempts, $errors, $retries)
    AS v(id, outcome, attempts, error, retry_at)
  CROSS JOIN LATERAL (
    SELECT ctid FROM outbox WHERE scope = $scope AND id = v.id OFFSET 0) AS found
  WHERE o.ctid = found.ctid AND o.settled_at IS NULL
  RETURNING o.id),
o AS (
  INSERT INTO outbox(scope, destination, is_topic, shard, key, name, idempotency_key, due,
    made_at, message, txn, epoch)
  SELECT $scope, $answers_to, true, v.shard, v.key, '', '', 0, $now, v.message, {_NUMBER}, $epoch
  FROM unnest($answered, $shards, $keys, $messages) WITH ORDINALITY
    AS v(id, shard, key, message, place)
  JOIN c ON c.id = v.id ORDER BY v.place)
SELECT n.txn FROM n""", kept=True)
