"""The raw references on Kafka: loops over confluent-kafka and psycopg, without an engine.

``copy``: consume(1000), decode, change, encode, produce, commit now and then. ``tally``: consume,
decode, one set-based statement (what was seen, the sum per key, the outbox, the position), produce.
The producers are set as penstock's is.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any

import msgspec
import psycopg
from confluent_kafka import Consumer, Message, Producer

from penstock.bench.child import Meter, Parent, settle_memory
from penstock.bench.records import BATCH, COPY_BATCH

WAIT_SECONDS = 0.05
FLUSH_SECONDS = 60.0
READING = {
    "auto.offset.reset": "earliest", "enable.auto.commit": False, "fetch.wait.max.ms": 50,
    "queued.min.messages": 100_000, "log_level": 2,
}  # fmt: skip
WRITING = {
    "acks": "all", "enable.idempotence": True, "linger.ms": 5, "compression.type": "lz4",
    "batch.size": 1 << 20, "queue.buffering.max.messages": 1_000_000, "log_level": 2,
}  # fmt: skip


class _Copied(msgspec.Struct, gc=False):
    """A record that may be changed; the bytes are those of an ``Item``."""

    event_id: str
    order_id: str
    customer: str
    sku: str
    qty: int
    total: int
    pad: str


_DECODE = msgspec.json.Decoder(_Copied).decode
_ENCODE = msgspec.json.Encoder().encode


def _taken(reader: Consumer, batch: int) -> list[Message]:
    found = reader.consume(batch, WAIT_SECONDS)
    for raw in found:
        assert raw.error() is None, str(raw.error())
    return found


def _reader(servers: str, group: str, source: str) -> Consumer:
    reader = Consumer({**READING, "bootstrap.servers": servers, "group.id": group})
    reader.subscribe([source])
    return reader


def _send(writer: Producer, target: str, value: bytes, key: bytes | None, headers: Any) -> None:
    while True:
        try:
            if headers is None:
                writer.produce(target, value, key)
            else:
                writer.produce(target, value, key, headers=headers)
            return
        except BufferError:
            writer.poll(0.01)


def copy(
    parent: Parent, *, servers: str, group: str, source: str, target: str, count: int,
    careful: bool,
) -> None:  # fmt: skip
    """Read, change, write. The ``careful`` loop does the work that penstock does: it passes the
    headers on, so that the records it writes are as large, and commits when they are durable. The
    other one does neither: a death loses what was on its way."""
    with closing(_reader(servers, group, source)) as reader:
        writer, meter = Producer({**WRITING, "bootstrap.servers": servers}), Meter()
        done = since = 0
        settle_memory()
        while done < count:
            raws = _taken(reader, COPY_BATCH)
            if raws and not done:
                meter.begin()
            for raw in raws:
                item = _DECODE(raw.value() or b"")
                item.qty += 1
                passed = raw.headers() if careful else None
                _send(writer, target, _ENCODE(item), raw.key(), passed)
            writer.poll(0)
            done += len(raws)
            since += len(raws)
            if since >= COPY_BATCH or (careful and raws):
                if careful:
                    _flush(writer)
                reader.commit(asynchronous=True)
                since = 0
        _flush(writer)
        parent.tell(**meter.report())
        parent.wait()


def _flush(writer: Producer) -> None:
    assert writer.flush(FLUSH_SECONDS) == 0, "not everything was written"


TABLES = """
CREATE TABLE raw_seen(id bytea PRIMARY KEY);
CREATE TABLE raw_tally(key text PRIMARY KEY, qty bigint NOT NULL, seen bigint NOT NULL);
CREATE TABLE raw_outbox(
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, key text NOT NULL, value bytea NOT NULL);
CREATE TABLE raw_positions(partition int PRIMARY KEY, next bigint NOT NULL, sent bigint NOT NULL);
"""
# `sent` rows of the outbox are known to lie in the topic: those before the latest batch's.
STATEMENT = """
WITH m AS (
  SELECT * FROM unnest(%s::bytea[], %s::text[], %s::bigint[], %s::bytea[]) WITH ORDINALITY
    AS m(id, key, qty, value, place)),
n AS (INSERT INTO raw_seen SELECT id FROM m ON CONFLICT DO NOTHING RETURNING id),
f AS (SELECT m.* FROM m JOIN n USING (id)),
s AS (
  INSERT INTO raw_tally SELECT key, sum(qty), count(*) FROM f GROUP BY key
  ON CONFLICT (key) DO UPDATE
  SET qty = raw_tally.qty + excluded.qty, seen = raw_tally.seen + excluded.seen),
o AS (INSERT INTO raw_outbox(key, value) SELECT key, value FROM f ORDER BY place)
INSERT INTO raw_positions
SELECT p, next, %s
FROM unnest(%s::int[], %s::bigint[]) AS v(p, next)
ON CONFLICT (partition) DO UPDATE SET next = excluded.next, sent = excluded.sent
"""
# Plans by index, as penstock has them, whatever the tables held when a plan was made.
SETTINGS = ("jit", "enable_seqscan", "enable_hashjoin", "enable_mergejoin")


def tally(
    parent: Parent, *, servers: str, postgres: str, group: str, source: str, target: str, count: int
) -> None:
    """Read, write everything in one statement, send it on. The acknowledgements of a batch come
    while the next one is read and written, so that nothing waits for them."""
    with (
        closing(_reader(servers, group, source)) as reader,
        psycopg.connect(postgres, autocommit=True, prepare_threshold=0) as db,
    ):
        for setting in SETTINGS:
            db.execute("SELECT set_config(%s, 'off', false)", (setting,))
        db.execute(TABLES, prepare=False)
        writer, meter, done = Producer({**WRITING, "bootstrap.servers": servers}), Meter(), 0
        settle_memory()
        sent = latest = 0
        while done < count:
            raws = _taken(reader, BATCH)
            if raws and not done:
                meter.begin()
            if raws:
                values = _write(db, raws, sent)
                _flush(writer)
                sent, latest = sent + latest, len(raws)
                for raw, value in zip(raws, values, strict=True):
                    _send(writer, target, value, raw.key(), None)
                writer.poll(0)
                reader.commit(asynchronous=True)
                done += len(raws)
        _flush(writer)
        parent.tell(**meter.report())
        parent.wait()


def _write(db: psycopg.Connection[Any], raws: list[Message], sent: int) -> list[bytes]:
    """The one statement of a batch; what is to be sent."""
    ids, keys, quantities, values = [], [], [], []
    ends: dict[int | None, int] = {}
    for raw in raws:
        item = _DECODE(raw.value() or b"")
        ids.append(bytes.fromhex(item.event_id))
        keys.append(item.order_id)
        quantities.append(item.qty)
        item.qty += 1
        values.append(_ENCODE(item))
        ends[raw.partition()] = (raw.offset() or 0) + 1
    given = (ids, keys, quantities, values, sent, list(ends), list(ends.values()))
    db.execute(STATEMENT, given, binary=True)
    return values
