"""The SQLite store: one service's documents, marks, positions, waiting rows and outbox.

Its file may also hold the topics the service produces; those named in ``direct`` are appended in
the service's own commit, all others leave by an outbox row and the courier.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import apsw
import msgspec

from penstock.catalog.model import CLOCK
from penstock.decision import Ref
from penstock.embedded.file import File
from penstock.embedded.rows import message_bytes, message_of
from penstock.errors import StaleOwner
from penstock.event import Message, Origin, Record, slot_of
from penstock.flow import Row, Scan
from penstock.limits import TEXT_CHARS_MAX
from penstock.ports import (
    SHARDS,
    Advance,
    Claim,
    Due,
    Features,
    Loaded,
    Outgoing,
    Saved,
    Settled,
    Span,
    Tx,
    Waiting,
    courier_lane,
)
from penstock.store.pruning import prune

_ERRORS = msgspec.msgpack.Decoder(tuple[tuple[int, str], ...])

_NUMBER = """
UPDATE owners SET txn = (SELECT max(txn) + 1 FROM owners), positions = ?
WHERE scope = ? AND lane = ? AND epoch = ? RETURNING txn"""
_ADVANCE = """
UPDATE owners SET txn = ?, positions = ? WHERE scope = ? AND lane = ? AND epoch = ?
RETURNING lane"""
_CLAIM = """
INSERT INTO owners(scope, lane, epoch, txn, positions)
SELECT ?1, value, 1, (SELECT coalesce(max(txn), 0) + 1 FROM owners), '{}'
FROM json_each(?2) WHERE true
ON CONFLICT(scope, lane) DO UPDATE SET epoch = epoch + 1
RETURNING lane, epoch, positions"""
_SAVE = """
INSERT INTO documents(scope, kind, key, label, body, txn, epoch) VALUES(?, ?, ?, ?, ?, ?, ?)
ON CONFLICT(scope, kind, key) DO UPDATE SET
  label = excluded.label, body = excluded.body, txn = excluded.txn, epoch = excluded.epoch"""
_WAIT = "INSERT OR REPLACE INTO waiting VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_UNWAIT = """
DELETE FROM waiting WHERE scope = ? AND topic = ? AND partition = ? AND offset = ?"""
_SEND = """
INSERT INTO outbox(scope, destination, is_topic, shard, key, name, idempotency_key, due, made_at,
                   message, txn, epoch) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_CLOSE = """
UPDATE outbox SET settled_at = ?, outcome = ?, attempts = ?, error = ?, retry_at = ?,
  settled_txn = ? WHERE id = ? AND settled_at IS NULL RETURNING id"""
_CLOSE_ALIKE = _CLOSE.replace("id = ?", "id IN carray(?)")
_DUE = (
    "id, destination, is_topic, message, name, idempotency_key, due, attempts, retry_at, made_at,"
    " txn, epoch"
)


class SqliteTx:
    """One open transaction of a :class:`SqliteStore` (the ``Tx`` port)."""

    def __init__(self, file: File, scope: int, direct: frozenset[str]) -> None:
        self._file, self._scope, self._direct = file, scope, direct
        self.number = self._epoch = 0
        self._epochs: dict[int, int] = {}

    def advance(self, moves: Sequence[Advance], now: int) -> None:
        """Check the epochs, write the positions, number the transaction."""
        first, *others = moves
        where = self._scope, first.lane, first.epoch
        numbered = self._file.run(_NUMBER, (_text(first.positions), *where))
        txn = numbered[0][0] if numbered else 0
        rows = [(txn, _text(m.positions), self._scope, m.lane, m.epoch) for m in others]
        done = self._file.run_many(_ADVANCE, rows) if numbered and rows else []
        if not numbered or len(done) != len(others):
            raise StaleOwner(f"a lane of {[m.lane for m in moves]} was claimed by another owner")
        self.number, self._epochs = txn, {m.lane: m.epoch for m in moves}
        self._epoch = max(self._epochs.values())

    def load(self, refs: Sequence[Ref], ids: Sequence[bytes] = ()) -> Loaded:
        """Documents by ref, and which ids are marked."""
        seen: frozenset[bytes] = frozenset()
        if ids:
            found = self._file.run(
                "SELECT id FROM marks WHERE scope = ? AND id IN carray(?)",
                (self._scope, apsw.carray(tuple(ids))),
            )
            seen = frozenset(row[0] for row in found)
        return Loaded(self._documents(refs) if refs else {}, seen)

    def _documents(self, refs: Sequence[Ref]) -> dict[Ref, bytes]:
        kinds: dict[str, list[str]] = {}
        for ref in refs:
            kinds.setdefault(ref.kind, []).append(ref.key)
        one = (
            "SELECT kind, key, body FROM documents WHERE scope = ? AND kind = ?"
            " AND key IN carray(?) AND body IS NOT NULL"
        )
        values: list[Any] = []
        for kind, keys in kinds.items():
            values += (self._scope, kind, apsw.carray(tuple(keys)))
        found = self._file.run(" UNION ALL ".join([one] * len(kinds)), values)
        return {Ref(kind, key): body for kind, key, body in found}

    def save(self, documents: Sequence[Saved]) -> None:
        """Write documents; a body of None leaves a tombstone that pruning removes."""
        if documents:
            tail = self.number, self._epoch
            self._file.run_many(
                _SAVE,
                [(self._scope, d.ref.kind, d.ref.key, d.label, d.body, *tail) for d in documents],
            )

    def mark(self, ids: Sequence[bytes], lanes: Sequence[int] = ()) -> None:
        """Mark events as handled, in order, each under the epoch of its lane."""
        if ids:
            scope, txn, known = self._scope, self.number, self._epochs
            epochs = [known.get(lane, self._epoch) for lane in lanes] or [self._epoch] * len(ids)
            self._file.run_many(
                "INSERT INTO marks(scope, id, txn, ordinal, epoch) VALUES(?, ?, ?, ?, ?)",
                [(scope, id_, txn, n, epochs[n]) for n, id_ in enumerate(ids)],
            )

    def send(self, rows: Sequence[Outgoing], now: int) -> set[str]:
        """Append to own topics in this transaction; everything else becomes an outbox row."""
        topics: dict[str, list[Message]] = {}
        kept: list[tuple[Any, ...]] = []
        tail = self.number, self._epoch
        for row in rows:
            if row.is_topic and row.destination in self._direct:
                topics.setdefault(row.destination, []).append(row.message)
            else:
                kept.append(self._outbox_row(row, now, tail))
        for topic, messages in topics.items():
            self._file.append(topic, messages, now, *tail)
        if kept:
            self._file.run_many(_SEND, kept)
        return {row.destination for row in rows}

    def _outbox_row(self, row: Outgoing, now: int, tail: tuple[int, int]) -> tuple[Any, ...]:
        shard = slot_of(row.message.key) % SHARDS
        body = message_bytes(row.message)
        head = self._scope, row.destination, row.is_topic, shard, row.message.key
        return (*head, row.name, row.idempotency_key, row.due, now, body, *tail)

    def defer(self, put: Sequence[Waiting], drop: Sequence[Record]) -> None:
        """Write and remove waiting rows."""
        if drop:
            self._file.run_many(
                _UNWAIT, [(self._scope, r.topic, r.partition, r.offset) for r in drop]
            )
        if put:
            tail = self.number, self._epoch
            self._file.run_many(_WAIT, [(*waiting_row(self._scope, w), *tail) for w in put])


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def waiting_row(scope: int, w: Waiting) -> tuple[Any, ...]:
    """A waiting row's columns without transaction number and epoch."""
    r = w.record
    head = scope, r.topic, r.partition, r.offset, r.message.key, w.state, w.due
    story = msgspec.msgpack.encode(w.errors)
    body = message_bytes(r.message)
    return (*head, w.attempts, w.deaths, w.kind, r.appended_at, body, story)


class SqliteStore:
    """The ``Store`` port over one embedded file (or an in-memory one)."""

    def __init__(
        self, file: File, service: str, namespace: str = "live", direct: Iterable[str] = ()
    ) -> None:
        self.file, self.service, self.namespace = file, service, namespace
        self.direct = frozenset(direct)
        durable = file.path is not None
        self.features = Features(
            survives_restart=durable, several_processes=durable, torn_tail=durable,
            appends_in_commit=bool(self.direct),
        )
        self.scope = self._scope()

    def _scope(self) -> int:
        find = "SELECT id FROM scopes WHERE service = ? AND namespace = ?"
        found = self.file.run(find, (self.service, self.namespace))
        if not found and self.file.readonly:
            return -1
        if not found:
            with self.file.write():
                self.file.run(
                    "INSERT OR IGNORE INTO scopes(service, namespace) VALUES(?, ?)",
                    (self.service, self.namespace),
                )
            found = self.file.run(find, (self.service, self.namespace))
        return int(found[0][0])

    def claim(self, lanes: Sequence[int], now: int) -> list[Claim]:
        """Mint epochs; one short transaction."""
        with self.file.write():
            found = self.file.run(_CLAIM, (self.scope, json.dumps(list(lanes))))
        return [Claim(lane=n, epoch=e, positions=json.loads(p)) for n, e, p in found]

    def begin(self, spans: Mapping[int, Sequence[Span]] = {}) -> AbstractContextManager[Tx]:
        """A write transaction; what is decided in it, the slots tell (``engine.slots``)."""
        return self._begin()

    @contextmanager
    def _begin(self) -> Any:
        with self.file.write():
            yield SqliteTx(self.file, self.scope, self.direct)

    def due(
        self, destination: str, now: int, known: Collection[int], limit: int, *,
        is_topic: bool = False, shards: Collection[int] | None = None,
    ) -> list[Due]:  # fmt: skip
        """Unsettled rows; the clock's in due order, others in id order."""
        values: tuple[Any, ...]
        if destination == CLOCK and not is_topic:
            where, values = "due > 0 AND due <= ? ORDER BY due, id", (now,)
        else:
            where, values = "due = 0", ()
            if known:
                # From the lowest id on, or each look would pass over all that is known.
                where += " AND id > ? AND id NOT IN carray(?)"
                values = min(known) - 1, apsw.carray(array("q", known))
            where += " ORDER BY id"
        found = self.file.run(
            f"SELECT {_DUE} FROM outbox WHERE scope = ? AND is_topic = ? AND destination = ?"
            f" AND settled_at IS NULL AND {where} LIMIT ?",
            (self.scope, is_topic, destination, *values, limit),
        )
        return [_due(row) for row in found]

    def settle(
        self, epochs: Mapping[int, int], rows: Sequence[Settled], answers_to: str, now: int
    ) -> None:
        """Close rows and append their answers under the courier's epoch (of its one shard)."""
        if not rows:
            return
        with self.file.write():
            tx = SqliteTx(self.file, self.scope, self.direct)
            shards = {r.shard for r in rows}
            tx.advance([Advance(courier_lane(s), epochs[s], {}) for s in sorted(shards)], now)
            changed = self._close([_closing(r, now, tx.number) for r in rows])
            closed = {id_ for (id_,) in changed} - {r.id for r in rows if r.retry_at}
            answers = [r.answer for r in rows if r.answer is not None and r.id in closed]
            tx.send([Outgoing(answers_to, True, m) for m in answers], now)

    def _close(self, endings: list[tuple[Any, ...]]) -> list[Any]:
        """The ids that were open. Rows that end alike, as those of a topic do, go in one run of
        the statement: a third of what a run for each costs."""
        if len({ending[:-1] for ending in endings}) > 1:
            return self.file.run_many(_CLOSE, endings)
        ids = apsw.carray(array("q", [ending[-1] for ending in endings]))
        return self.file.run(_CLOSE_ALIKE, (*endings[0][:-1], ids))

    def scan(self, what: Scan) -> list[Row]:
        """Read for people and recovery; an absent service has no rows."""
        if self.scope < 0:
            self.scope = self._scope()
        return _SCANS[what.table](self.file, self.scope, what)

    def prune(
        self, floors: Mapping[tuple[str, int], int], now: int, keep: frozenset[bytes] = frozenset()
    ) -> int:
        """Checkpoint, and drop what lies wholly before ``floors``, but no mark in ``keep``."""
        return prune(self.file, self.scope, floors, now, keep)


def _closing(r: Settled, now: int, txn: int) -> tuple[Any, ...]:
    """The row's columns: closed now, or open still and to be tried again."""
    at, by = (None, None) if r.retry_at else (now, txn)
    outcome = "" if r.retry_at else r.outcome
    return at, outcome, r.attempts, r.error[:TEXT_CHARS_MAX], r.retry_at, by, r.id


def _due(row: Sequence[Any]) -> Due:
    id_, destination, is_topic, message, name, key, due, attempts, retry_at, made_at = row[:10]
    return Due(
        id=id_, destination=destination, is_topic=bool(is_topic), message=message_of(message),
        name=name, idempotency_key=key, due=due, attempts=attempts, retry_at=retry_at,
        made_at=made_at, origin=Origin(*row[10:12]),
    )


def _scan_documents(file: File, scope: int, what: Scan) -> list[Row]:
    where, values = ["scope = ?", "kind = ?", "body IS NOT NULL"], [scope, what.kind]
    if what.key is not None:
        where.append("key = ?")
        values.append(what.key)
    if what.label is not None:
        where.append("label = ?")
        values.append(what.label)
    if what.after:
        where.append("key < ?" if what.newest_first else "key > ?")
        values.append(what.after)
    order = "DESC" if what.newest_first else "ASC"
    found = file.run(
        f"SELECT kind, key, label, body, txn FROM documents WHERE {' AND '.join(where)}"
        f" ORDER BY key {order} LIMIT ?",
        (*values, what.limit),
    )
    return [Row(kind=k, key=key, label=lb, body=b, txn=t) for k, key, lb, b, t in found]


def _scan_labels(file: File, scope: int, what: Scan) -> list[Row]:
    found = file.run(
        "SELECT label, count(*) FROM documents WHERE scope = ? AND kind = ?"
        " AND label IS NOT NULL GROUP BY label ORDER BY label LIMIT ?",
        (scope, what.kind, what.limit),
    )
    return [Row(key=label, kind=what.kind, label=label, count=n) for label, n in found]


def _scan_asks(file: File, scope: int, what: Scan) -> list[Row]:
    if what.key is None:
        where, values = "settled_at IS NULL AND id > ?", [scope, int(what.after or 0)]
    else:
        where, values = "key = ? AND is_topic = 0", [scope, what.key]  # type: ignore[list-item]
    found = file.run(
        f"SELECT {_DUE}, settled_at, outcome, error, key FROM outbox WHERE scope = ?"
        f" AND {where} ORDER BY id LIMIT ?",
        (*values, what.limit),
    )
    return [_ask_row(row) for row in found]


def _ask_row(row: Sequence[Any]) -> Row:
    due, (settled_at, outcome, error, key) = _due(row), row[12:]
    body = {
        "id": due.id, "ask": due.message.id.hex(), "gateway": due.destination, "name": due.name,
        "idempotency_key": due.idempotency_key, "made_at": due.made_at, "due": due.due,
        "attempts": due.attempts, "settled_at": settled_at, "outcome": outcome, "error": error,
        "cause": due.message.cause.hex(), "is_topic": due.is_topic,
    }
    label, txn = outcome or "open", due.origin.txn
    return Row(key=key, kind=due.destination, label=label, body=body, txn=txn)


def _scan_waiting(file: File, scope: int, what: Scan) -> list[Row]:
    where, values = ["scope = ?"], [scope]
    for column, wanted in (("key", what.key), ("state", what.label)):
        if wanted is not None:
            where.append(f"{column} = ?")
            values.append(wanted)  # type: ignore[arg-type]
    if what.after:
        topic, partition, offset = what.after.rsplit("/", 2)
        where.append("(topic, partition, offset) > (?, ?, ?)")
        values += [topic, int(partition), int(offset)]  # type: ignore[list-item]
    found = file.run(
        "SELECT topic, partition, offset, key, state, due, attempts, deaths, kind, appended_at,"
        f" message, errors, txn FROM waiting WHERE {' AND '.join(where)}"
        " ORDER BY topic, partition, offset LIMIT ?",
        (*values, what.limit),
    )
    return [_waiting_of(row) for row in found]


def _waiting_of(row: Sequence[Any]) -> Row:
    topic, partition, offset, key, state, due, attempts, deaths, kind = row[:9]
    appended_at, message, errors, txn = row[9:]
    body = Waiting(
        record=Record(topic, partition, offset, appended_at, message_of(message)), state=state,
        due=due, attempts=attempts, deaths=deaths, kind=kind, errors=_ERRORS.decode(errors),
    )
    return Row(key=key, kind=kind, label=state, body=body, txn=txn)


def _scan_positions(file: File, scope: int, what: Scan) -> list[Row]:
    found = file.run(
        "SELECT lane, epoch, positions, txn FROM owners WHERE scope = ? AND lane >= 0"
        " ORDER BY lane LIMIT ?",
        (scope, what.limit),
    )
    return [Row(key=str(n), count=e, body=json.loads(p), txn=t) for n, e, p, t in found]


_SCANS = {
    "positions": _scan_positions,
    "documents": _scan_documents,
    "labels": _scan_labels,
    "asks": _scan_asks,
    "waiting": _scan_waiting,
}
