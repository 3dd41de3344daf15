-- What the processes say of themselves, a row each, rewritten every half second. What is a day
-- old goes with the next report.
CREATE TABLE reports(
  name text COLLATE "C" PRIMARY KEY, seen_at timestamptz NOT NULL, body bytea NOT NULL
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
