"""Every bound of the system, with its unit last and its reason beside it."""

from __future__ import annotations

SLOTS = 4096  # keys hash to slots, slots to partitions: a count can double without a new hash
PARTITIONS_DEFAULT = 4
PARTITIONS_MAX = 1024  # power of two; the attempt slot keeps 12 bits for the partition

ROW_RECORDS_MAX = 1024  # records in one log row
ROW_BYTES_MAX = 1 << 20  # bytes of one log row before compression
COMPRESS_FROM_RECORDS = 4  # a shorter batch gains nothing from zstd
OFFSET_BITS = 48  # a log row's id is partition << 48 | last offset
OFFSET_MAX = (1 << OFFSET_BITS) - 1

BATCH_RECORDS_MAX = 2000  # one worker turn; a row is never split, so the bound is soft by one row
BATCH_BYTES_MAX = 16 << 20
COURIER_ROWS_MAX = 1000  # one courier turn
INTAKE_GROUP_MAX = 1000  # requests in one group commit
INTAKE_QUEUE_MAX = 10_000  # waiting requests before the door answers 503

WAITING_PER_LANE_MAX = 10_000  # waiting rows before the lane is held
DECIDE_WINDOW_KEYS = 200  # distinct keys looked at by the stop rule
DECIDE_WINDOW_RATIO = 0.5  # above this share of failing keys the service stops
DEATHS_MAX = 3  # process deaths charged to a record before it is parked
PASSES_MAX = 64  # passes over one batch; more is a bug of `needs`

HEAD_BYTES_MAX = 64 << 10  # one request line with its headers, as far as it came in pieces
HEAD_SECONDS_MAX = 10.0  # a connection whose request's head takes longer is let go
BODY_BYTES_MAX = 256 << 10  # one request body
BULK_BYTES_MAX = 8 << 20  # one bulk request body (stock, prices)
VALUE_BYTES_MAX = 8 << 20  # one record's value
DEPTH_MAX = 32  # nesting of JSON at an entrance
DIGITS_MAX = 30  # digits of one JSON number at an entrance
KEY_CHARS_MAX = 255
STORED_KEY_BYTES_MAX = 1024  # key, label: a row of a PostgreSQL index holds 2,704 bytes of both
IDEMPOTENCY_KEY_CHARS_MAX = 255
PAGE_ROWS_MAX = 1000
TEXT_CHARS_MAX = 1000  # error texts kept in rows and dead letters
ATTEMPTS_KEPT_MAX = 20  # attempts kept in a dead letter, the first and the latest

SCHEMA_WAIT_SECONDS = 30.0  # an unknown but well-formed schema holds the lane this long
JOIN_WAIT_SECONDS = 1.0  # a second request with a key in flight waits this long for the first
POLL_SECONDS = 0.25  # the net under lost wake-ups
CARRY_POLL_SECONDS = 0.05  # on a cluster nobody wakes a courier of another machine
ROLL_SECONDS = 1.0  # how often a courier says that it lives
KAFKA_SECONDS_MAX = 10.0  # how long one call of the log waits for an answer of a broker
LOOK_SECONDS_MAX = 3.0  # and how long where a person waits for a page
LIVENESS_SECONDS = 0.2  # how often members look for the death of others
TRANSACTION_SECONDS_MAX = 30.0  # a process stopped inside a transaction longer is killed
DRAIN_SECONDS_MAX = 30.0

assert PARTITIONS_MAX <= SLOTS, "a partition without a slot would never get a key"
assert PARTITIONS_MAX <= 1 << 12, "the attempt slot keeps 12 bits for the partition"
assert ROW_RECORDS_MAX <= BATCH_RECORDS_MAX, "a batch must be able to take one whole row"
assert VALUE_BYTES_MAX <= BATCH_BYTES_MAX, "a batch must be able to take one whole value"
assert 4 * KEY_CHARS_MAX <= STORED_KEY_BYTES_MAX, "what the door accepts must be storable"
assert BODY_BYTES_MAX <= VALUE_BYTES_MAX, "an accepted request must fit into a record"
assert CARRY_POLL_SECONDS <= POLL_SECONDS, "the lively courier looks more often"
assert POLL_SECONDS < TRANSACTION_SECONDS_MAX < 3600, "the crew must see a stuck process"
