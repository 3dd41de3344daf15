"""The schema of an embedded file, and its history.

What cannot be added later is here from the first version: the scope (service and namespace) in
every key, transaction number and epoch in marks, documents, outbox and log rows.

``log_<topic>``: one row per commit and partition. ``at`` is ``partition << 48 | last offset``,
so offsets are the row id and need no index; ``appended_at`` never decreases in a partition and
is indexed by partition. ``body`` is a MessagePack array of messages (``event.Message`` in field
order), zstd-compressed when ``codec`` is 1. ``crc`` is CRC-32 of ``at,count,appended_at,codec``
in decimal, continued over the stored body.
"""

from __future__ import annotations

FORMAT_VERSION = 1
APPLICATION_ID = 0x70656E73  # "pens": tells our files from others'

TABLES = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE topics(name TEXT PRIMARY KEY, partitions INTEGER NOT NULL) WITHOUT ROWID;

CREATE TABLE scopes(
  id INTEGER PRIMARY KEY, service TEXT NOT NULL, namespace TEXT NOT NULL,
  UNIQUE(service, namespace));

CREATE TABLE owners(
  scope INTEGER NOT NULL, lane INTEGER NOT NULL, epoch INTEGER NOT NULL, txn INTEGER NOT NULL,
  positions TEXT NOT NULL, PRIMARY KEY(scope, lane)) WITHOUT ROWID;

CREATE TABLE checkpoints(
  scope INTEGER NOT NULL, txn INTEGER NOT NULL, at INTEGER NOT NULL, positions TEXT NOT NULL,
  PRIMARY KEY(scope, txn)) WITHOUT ROWID;

CREATE TABLE marks(
  scope INTEGER NOT NULL, id BLOB NOT NULL, txn INTEGER NOT NULL, ordinal INTEGER NOT NULL,
  epoch INTEGER NOT NULL, PRIMARY KEY(scope, id)) WITHOUT ROWID;

CREATE TABLE documents(
  scope INTEGER NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL, label TEXT, body BLOB,
  txn INTEGER NOT NULL, epoch INTEGER NOT NULL, PRIMARY KEY(scope, kind, key));
CREATE INDEX documents_label ON documents(scope, kind, label, key) WHERE label IS NOT NULL;

CREATE TABLE waiting(
  scope INTEGER NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL,
  offset INTEGER NOT NULL, key TEXT NOT NULL, state TEXT NOT NULL, due INTEGER NOT NULL,
  attempts INTEGER NOT NULL, deaths INTEGER NOT NULL, kind TEXT NOT NULL,
  appended_at INTEGER NOT NULL, message BLOB NOT NULL, errors BLOB NOT NULL,
  txn INTEGER NOT NULL, epoch INTEGER NOT NULL,
  PRIMARY KEY(scope, topic, partition, offset)) WITHOUT ROWID;

CREATE TABLE outbox(
  id INTEGER PRIMARY KEY, scope INTEGER NOT NULL, destination TEXT NOT NULL,
  is_topic INTEGER NOT NULL, shard INTEGER NOT NULL, key TEXT NOT NULL, name TEXT NOT NULL,
  idempotency_key TEXT NOT NULL, due INTEGER NOT NULL, made_at INTEGER NOT NULL,
  message BLOB NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
  retry_at INTEGER NOT NULL DEFAULT 0, error TEXT NOT NULL DEFAULT '',
  settled_at INTEGER, outcome TEXT NOT NULL DEFAULT '',
  txn INTEGER NOT NULL, epoch INTEGER NOT NULL, settled_txn INTEGER);
CREATE INDEX outbox_open ON outbox(scope, is_topic, destination, id)
  WHERE settled_at IS NULL AND due = 0;
CREATE INDEX outbox_due ON outbox(scope, destination, due, id)
  WHERE settled_at IS NULL AND due > 0;
CREATE INDEX outbox_key ON outbox(scope, key) WHERE is_topic = 0;
"""

CHECKPOINT_PAGES = 4000  # of the write-ahead log (16 MB): the file is brought up to it then

PRAGMAS = (
    "busy_timeout=30000",
    "synchronous=FULL",
    f"wal_autocheckpoint={CHECKPOINT_PAGES}",
    "cache_size=-8192",
    "temp_store=MEMORY",
)


def log_table(topic: str) -> str:
    """The quoted table name of a topic's log."""
    return '"log_' + topic.replace('"', '""') + '"'


# Name, type and place in the primary key of a log's columns, as SQLite understood them.
LOG_COLUMNS = (
    ("at", "INTEGER", 1), ("count", "INTEGER", 0), ("appended_at", "INTEGER", 0),
    ("txn", "INTEGER", 0), ("epoch", "INTEGER", 0), ("schemas", "TEXT", 0),
    ("codec", "INTEGER", 0), ("crc", "INTEGER", 0), ("body", "BLOB", 0),
)  # fmt: skip


def log_ddl(topic: str) -> str:
    """What makes a topic's log."""
    table = log_table(topic)
    index = '"time_' + topic.replace('"', '""') + '"'
    return (
        f"CREATE TABLE IF NOT EXISTS {table}(at INTEGER PRIMARY KEY, count INTEGER NOT NULL,"
        " appended_at INTEGER NOT NULL, txn INTEGER NOT NULL, epoch INTEGER NOT NULL,"
        " schemas TEXT NOT NULL, codec INTEGER NOT NULL, crc INTEGER NOT NULL,"
        " body BLOB NOT NULL);"
        f"CREATE INDEX IF NOT EXISTS {index} ON {table}(at >> 48, appended_at);"
    )
