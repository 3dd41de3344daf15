-- What people read. Only the columns named here are promised; the tables may change.

CREATE VIEW documents_json AS
SELECT s.service, s.namespace, d.kind, d.key, d.label, as_json(d.body) AS body, d.txn, d.epoch
FROM documents d JOIN scopes s ON s.id = d.scope WHERE d.body IS NOT NULL;

CREATE VIEW outbox_log AS
SELECT o.id, s.service, s.namespace, o.destination, o.is_topic, o.key, o.name, o.idempotency_key,
  as_time(o.made_at) AS made_at, as_time(nullif(o.due, 0)) AS due_at, o.attempts,
  as_time(nullif(o.retry_at, 0)) AS retry_at, as_time(o.settled_at) AS settled_at,
  CASE WHEN o.settled_at IS NULL THEN 'open' ELSE o.outcome END AS outcome, o.error,
  o.txn, o.epoch
FROM outbox o JOIN scopes s ON s.id = o.scope;

CREATE VIEW waiting_now AS
SELECT s.service, s.namespace, w.topic, w.partition, w."offset", w.key, w.state, w.kind,
  as_time(nullif(w.due, 0)) AS due_at, w.attempts, w.deaths,
  as_time(w.appended_at) AS appended_at, w.errors -> -1 ->> 1 AS last_error, w.errors
FROM waiting w JOIN scopes s ON s.id = w.scope;

CREATE VIEW lanes AS
SELECT s.service, s.namespace, o.lane,
  CASE WHEN o.lane >= 0 THEN 'worker' WHEN o.lane = -1 OR o.lane BETWEEN -73 AND -11
    THEN 'courier' ELSE 'intake' END AS owner,
  o.epoch, o.txn, p.topic, p.position::bigint AS position
FROM owners o JOIN scopes s ON s.id = o.scope
LEFT JOIN LATERAL jsonb_each_text(o.positions) AS p(topic, position) ON true;

CREATE VIEW couriers_now AS
SELECT s.service, s.namespace, c.name, c.seen_at
FROM couriers c JOIN scopes s ON s.id = c.scope;
