-- The tables of the embedded files (penstock/embedded/schema.py), for any number of services in
-- one schema. Every key begins with the scope: a service in a namespace. Times are milliseconds
-- since 1970; the views show them as timestamptz.
--
-- Text keys have the collation C: their order is that of their bytes, as everywhere in penstock,
-- and no upgrade of the system's locales can break an index.

CREATE TABLE scopes(
  id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  service text COLLATE "C" NOT NULL,
  namespace text COLLATE "C" NOT NULL,
  UNIQUE (service, namespace));

-- Numbers of transactions. One is taken in the commit's own statement, under the row locks of all
-- it touches: of two transactions that touch one document, the later has the higher number.
CREATE SEQUENCE txns;

-- A row per lane, rewritten by every batch. It stays in its page (fillfactor) and no index knows
-- what changes in it, so old versions go as the page is visited; the vacuum has little to do, and
-- its usual threshold, a share of the table, would be reached every few seconds.
CREATE TABLE owners(
  scope integer NOT NULL, lane integer NOT NULL, epoch bigint NOT NULL, txn bigint NOT NULL,
  positions jsonb NOT NULL,
  PRIMARY KEY (scope, lane)
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 100000);

-- What an owner was about to decide: true as long as the lane's number is still `txn`.
CREATE TABLE attempts(
  scope integer NOT NULL, lane integer NOT NULL, txn bigint NOT NULL, token integer NOT NULL,
  spans text NOT NULL,
  PRIMARY KEY (scope, lane)
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 100000);

CREATE TABLE checkpoints(
  scope integer NOT NULL, txn bigint NOT NULL, at bigint NOT NULL, positions jsonb NOT NULL,
  PRIMARY KEY (scope, txn));

-- Written once, read by id, dropped from the front.
CREATE TABLE marks(
  scope integer NOT NULL, id bytea NOT NULL, txn bigint NOT NULL, ordinal integer NOT NULL,
  epoch bigint NOT NULL,
  PRIMARY KEY (scope, id)
) WITH (autovacuum_vacuum_insert_scale_factor = 0.1, autovacuum_vacuum_scale_factor = 0.05);

-- `before` is the number of the transaction that wrote the version this one replaced: 0 where
-- there was none, -1 where the writer had not looked.
CREATE TABLE documents(
  scope integer NOT NULL, kind text COLLATE "C" NOT NULL, key text COLLATE "C" NOT NULL,
  label text COLLATE "C", body bytea, txn bigint NOT NULL, epoch bigint NOT NULL,
  before bigint NOT NULL,
  PRIMARY KEY (scope, kind, key)
) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.05,
        autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX documents_label ON documents(scope, kind, label, key) WHERE label IS NOT NULL;
CREATE INDEX documents_gone ON documents(scope, txn) WHERE body IS NULL;

CREATE TABLE waiting(
  scope integer NOT NULL, topic text COLLATE "C" NOT NULL, partition integer NOT NULL,
  "offset" bigint NOT NULL, key text COLLATE "C" NOT NULL, state text COLLATE "C" NOT NULL,
  due bigint NOT NULL, attempts integer NOT NULL, deaths integer NOT NULL, kind text NOT NULL,
  appended_at bigint NOT NULL, message bytea NOT NULL, errors json NOT NULL, txn bigint NOT NULL,
  epoch bigint NOT NULL,
  PRIMARY KEY (scope, topic, partition, "offset")
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 500);

-- A row is written, and once more when it is settled. The second version finds room beside the
-- first (fillfactor) instead of touching another page; the vacuum comes at a fiftieth, because
-- a courier's look passes over what is dead in the partial indexes until it has come.
CREATE TABLE outbox(
  id bigint GENERATED ALWAYS AS IDENTITY, scope integer NOT NULL,
  destination text COLLATE "C" NOT NULL, is_topic boolean NOT NULL, shard integer NOT NULL,
  key text COLLATE "C" NOT NULL, name text NOT NULL, idempotency_key text NOT NULL,
  due bigint NOT NULL, made_at bigint NOT NULL, message bytea NOT NULL,
  attempts integer NOT NULL DEFAULT 0, retry_at bigint NOT NULL DEFAULT 0,
  error text NOT NULL DEFAULT '', settled_at bigint, outcome text NOT NULL DEFAULT '',
  txn bigint NOT NULL, epoch bigint NOT NULL, settled_txn bigint,
  PRIMARY KEY (scope, id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_insert_scale_factor = 0.1, autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX outbox_open ON outbox(scope, is_topic, destination, id)
  WHERE settled_at IS NULL AND due = 0;
CREATE INDEX outbox_due ON outbox(scope, destination, due, id)
  WHERE settled_at IS NULL AND due > 0;
CREATE INDEX outbox_key ON outbox(scope, key) WHERE NOT is_topic;

-- Who carries: a courier writes the time of the database into its row once a second.
CREATE TABLE couriers(
  scope integer NOT NULL, name text COLLATE "C" NOT NULL, seen_at timestamptz NOT NULL,
  PRIMARY KEY (scope, name)
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
