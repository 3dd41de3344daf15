"""A store of dictionaries: what a log costs is measured over it, for it costs next to nothing.

It keeps what every store keeps, passes the suite of the stores, and ends with its process.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from threading import RLock
from typing import NamedTuple, TypeVar

from msgspec.structs import replace

from penstock.catalog.model import CLOCK
from penstock.decision import Ref
from penstock.errors import StaleOwner
from penstock.event import Origin, Position, Record
from penstock.flow import Row, Scan
from penstock.ports import (
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

PRUNE_ROWS_MAX = 5000
CHECKPOINTS_MAX = 1000
Key = TypeVar("Key")
Value = TypeVar("Value")
Where = tuple[bool, str, bool]  # is it a topic, its name, is it a timer


class Owner(NamedTuple):
    """A lane's epoch, its positions, and the last transaction that moved it."""

    epoch: int
    positions: dict[str, int]
    txn: int


class Closed(NamedTuple):
    """A call that is over."""

    row: Due
    at: int
    outcome: str
    error: str
    txn: int


class Tables:
    """All rows of one service in one namespace."""

    def __init__(self) -> None:
        self.lock = RLock()  # held by whoever writes, from the begin to the end
        self.owners: dict[int, Owner] = {}
        self.documents: dict[Ref, tuple[Saved, int]] = {}
        self.marks: dict[bytes, int] = {}
        self.waiting: dict[Position, tuple[Waiting, int]] = {}
        self.open: dict[Where, dict[int, Due]] = {}
        self.places: dict[int, Where] = {}
        self.closed: dict[int, Closed] = {}
        self.checkpoints: deque[tuple[int, dict[int, dict[str, int]]]] = deque(
            maxlen=CHECKPOINTS_MAX
        )
        self.txn = self.latest = 0  # the last transaction's number, the last row's id

    def check(self, moves: Collection[Advance]) -> None:
        """Raises ``StaleOwner``."""
        for move in moves:
            owner = self.owners.get(move.lane)
            if owner is None or owner.epoch != move.epoch:
                raise StaleOwner(f"lane {move.lane} was claimed by another owner")

    def put(self, rows: Sequence[tuple[Outgoing, int]], origin: Origin) -> None:
        """Rows of a transaction, each with the time it was made at."""
        for row, now in rows:
            self.latest = id_ = self.latest + 1
            where = self.places[id_] = row.is_topic, row.destination, row.due > 0
            self.open.setdefault(where, {})[id_] = Due(
                id=id_, destination=row.destination, is_topic=row.is_topic, message=row.message,
                name=row.name, idempotency_key=row.idempotency_key, due=row.due, attempts=0,
                retry_at=0, made_at=now, origin=origin,
            )


class MemoryTx:
    """The ``Tx`` port: gathered, checked again and kept at the end."""

    def __init__(self, tables: Tables) -> None:
        self._tables, self.number = tables, 0
        self._moves: dict[int, Advance] = {}
        self._saved: dict[Ref, Saved] = {}
        self._marks: dict[bytes, int] = {}
        self._rows: list[tuple[Outgoing, int]] = []
        self._waiting: dict[Position, Waiting | None] = {}

    def advance(self, moves: Sequence[Advance], now: int) -> None:
        """Check the epochs, take note of the positions."""
        self._tables.check(moves)
        self._moves |= {move.lane: move for move in moves}
        self.number = self._tables.txn + 1

    def load(self, refs: Sequence[Ref], ids: Sequence[bytes] = ()) -> Loaded:
        """Documents by ref, and which ids are marked."""
        marks, own = self._tables.marks, self._marks
        seen = frozenset(id_ for id_ in ids if id_ in marks or id_ in own)
        bodies = {}
        for ref in refs:
            found = self._saved.get(ref) or self._tables.documents.get(ref, (None, 0))[0]
            if found is not None and found.body is not None:
                bodies[ref] = found.body
        return Loaded(bodies, seen)

    def save(self, documents: Sequence[Saved]) -> None:
        """Write documents."""
        self._saved.update((d.ref, d) for d in documents)

    def mark(self, ids: Sequence[bytes], lanes: Sequence[int] = ()) -> None:
        """Mark events as handled, in order."""
        new = dict.fromkeys(ids, self.number)
        repeated = self._tables.marks.keys() & new or self._marks.keys() & new
        assert not repeated, "an event is marked already"
        assert len(new) == len(ids), "an event is marked twice"
        self._marks |= new

    def send(self, rows: Sequence[Outgoing], now: int) -> set[str]:
        """Every row becomes one of the outbox."""
        self._rows += [(row, now) for row in rows]
        return {row.destination for row in rows}

    def defer(self, put: Sequence[Waiting], drop: Sequence[Record]) -> None:
        """Write and remove waiting rows."""
        self._waiting.update((r.position, None) for r in drop)
        self._waiting.update((w.record.position, w) for w in put)

    def commit(self) -> None:
        """Keep all of it."""
        tables, moves = self._tables, self._moves
        tables.check(moves.values())
        if not moves:
            return
        tables.txn = txn = self.number
        for move in moves.values():
            owner = tables.owners[move.lane]
            positions = {**owner.positions, **move.positions}
            tables.owners[move.lane] = Owner(owner.epoch, positions, txn)
        for ref, saved in self._saved.items():
            if saved.body is None:
                tables.documents.pop(ref, None)
            else:
                tables.documents[ref] = saved, txn
        tables.marks.update(self._marks)
        tables.put(self._rows, Origin(txn, max(move.epoch for move in moves.values())))
        for position, waiting in self._waiting.items():
            tables.waiting.pop(position, None)
            if waiting is not None:
                tables.waiting[position] = waiting, txn


class MemoryStore:
    """The ``Store`` port over dictionaries; handles of one process share ``Tables``."""

    features = Features(survives_restart=False, several_processes=False, torn_tail=False)

    def __init__(self, tables: Tables | None = None) -> None:
        self._tables = tables or Tables()

    def claim(self, lanes: Sequence[int], now: int) -> list[Claim]:
        """Mint epochs."""
        owners, claims = self._tables.owners, []
        with self._tables.lock:
            for lane in lanes:
                epoch, positions, txn = owners.get(lane, Owner(0, {}, 0))
                owners[lane] = Owner(epoch + 1, positions, txn)
                claims.append(Claim(lane=lane, epoch=epoch + 1, positions=dict(positions)))
        return claims

    def begin(self, spans: Mapping[int, Sequence[Span]] = {}) -> AbstractContextManager[Tx]:
        """A write transaction."""
        return self._begin()

    @contextmanager
    def _begin(self) -> Iterator[Tx]:
        with self._tables.lock:
            tx = MemoryTx(self._tables)
            yield tx
            tx.commit()

    def due(
        self, destination: str, now: int, known: Collection[int], limit: int, *,
        is_topic: bool = False, shards: Collection[int] | None = None,
    ) -> list[Due]:  # fmt: skip
        """Unsettled rows; the clock's in due order, others in id order."""
        timed = destination == CLOCK and not is_topic
        with self._tables.lock:
            rows = self._tables.open.get((is_topic, destination, timed), {})
            if timed:
                found = sorted(rows.values(), key=lambda row: (row.due, row.id))
                return [row for row in found if row.due <= now][:limit]
            if not known:
                return list(islice(rows.values(), limit))
            return list(islice((r for id_, r in rows.items() if id_ not in known), limit))

    def settle(
        self, epochs: Mapping[int, int], rows: Sequence[Settled], answers_to: str, now: int
    ) -> None:
        """Close rows and append their answers under the courier's epoch."""
        if not rows:
            return
        moves = [Advance(courier_lane(s), epochs[s], {}) for s in {row.shard for row in rows}]
        with self._begin() as tx:
            tx.advance(moves, now)
            ended = [row.answer for row in rows if self._end(row, now, tx.number)]
            tx.send([Outgoing(answers_to, True, m) for m in ended if m is not None], now)

    def _end(self, settled: Settled, now: int, txn: int) -> bool:
        """Close a row, or note that it was tried. Is it over now, and was it not before?"""
        tables = self._tables
        where = tables.places.get(settled.id)
        if where is None:
            return False
        if settled.retry_at:
            tried = tables.open[where][settled.id]
            tables.open[where][settled.id] = replace(
                tried, attempts=settled.attempts, retry_at=settled.retry_at
            )
            return False
        del tables.places[settled.id]
        row = tables.open[where].pop(settled.id)
        if not row.is_topic:
            row = replace(row, attempts=settled.attempts, retry_at=0)
            end = Closed(row, now, settled.outcome, settled.error, txn)
            tables.closed[settled.id] = end
        return True

    def scan(self, what: Scan) -> list[Row]:
        """Read for people and recovery."""
        with self._tables.lock:
            return SCANS[what.table](self._tables, what)

    def prune(
        self, floors: Mapping[tuple[str, int], int], now: int, keep: frozenset[bytes] = frozenset()
    ) -> int:
        """Record a checkpoint, drop what lies wholly before ``floors``."""
        with self._tables.lock:
            return _prune(self._tables, floors, keep)


# Forgetting --------------------------------------------------------------------------------------


def _prune(
    tables: Tables, floors: Mapping[tuple[str, int], int], keep: frozenset[bytes]
) -> int:
    horizon = _horizon(tables, floors)
    lanes = {lane: owner.positions for lane, owner in tables.owners.items() if lane >= 0}
    tables.checkpoints.append((tables.txn, lanes))
    gone = [m for m, txn in _until(tables.marks, horizon, lambda txn: txn) if m not in keep]
    over = [id_ for id_, _ in _until(tables.closed, horizon, lambda closed: closed.txn)]
    for id_ in gone:
        del tables.marks[id_]
    for number in over:
        del tables.closed[number]
    return len(gone) + len(over)


def _until(
    table: Mapping[Key, Value], horizon: int, txn_of: Callable[[Value], int]
) -> Iterator[tuple[Key, Value]]:
    """The first rows, for they lie in the order of their transactions."""
    for key, value in islice(table.items(), PRUNE_ROWS_MAX):
        if txn_of(value) > horizon:
            return
        yield key, value


def _horizon(tables: Tables, floors: Mapping[tuple[str, int], int]) -> int:
    """The newest checkpoint whose positions all lie at or before ``floors``; 0 for none."""
    for txn, lanes in reversed(tables.checkpoints):
        places = [(t, lane, o) for lane, topics in lanes.items() for t, o in topics.items()]
        if lanes and all(o <= floors.get((t, lane), 0) for t, lane, o in places):
            return txn
    return 0


# Reading -----------------------------------------------------------------------------------------


def _documents(tables: Tables, what: Scan) -> list[Row]:
    rows = [
        Row(kind=ref.kind, key=ref.key, label=saved.label, body=saved.body, txn=txn)
        for ref, (saved, txn) in tables.documents.items()
        if ref.kind == what.kind and what.key in (None, ref.key)
        if what.label in (None, saved.label)
    ]
    rows.sort(key=lambda row: row.key, reverse=what.newest_first)
    if what.after:
        first, after = what.newest_first, what.after
        rows = [row for row in rows if (row.key < after if first else row.key > after)]
    return rows[: what.limit]


def _labels(tables: Tables, what: Scan) -> list[Row]:
    kept = [saved for ref, (saved, _) in tables.documents.items() if ref.kind == what.kind]
    found = sorted(Counter(saved.label for saved in kept if saved.label is not None).items())
    return [Row(key=x, kind=what.kind, label=x, count=n) for x, n in found[: what.limit]]


def _asks(tables: Tables, what: Scan) -> list[Row]:
    every = [Closed(row, 0, "", "", 0) for rows in tables.open.values() for row in rows.values()]
    if what.key is None:
        after = int(what.after or 0)
        found = [closed for closed in every if closed.row.id > after]
    else:
        every += tables.closed.values()
        found = [c for c in every if c.row.message.key == what.key and not c.row.is_topic]
    found.sort(key=lambda closed: closed.row.id)
    return [_ask(closed) for closed in found[: what.limit]]


def _ask(closed: Closed) -> Row:
    row = closed.row
    body = {
        "id": row.id, "ask": row.message.id.hex(), "gateway": row.destination, "name": row.name,
        "idempotency_key": row.idempotency_key, "made_at": row.made_at, "due": row.due,
        "attempts": row.attempts, "settled_at": closed.at or None, "outcome": closed.outcome,
        "error": closed.error, "cause": row.message.cause.hex(), "is_topic": row.is_topic,
    }
    label, txn = closed.outcome or "open", row.origin.txn
    return Row(key=row.message.key, kind=row.destination, label=label, body=body, txn=txn)


def _waiting(tables: Tables, what: Scan) -> list[Row]:
    after: tuple[str, int, int] | None = None
    if what.after:
        topic, partition, offset = what.after.rsplit("/", 2)
        after = topic, int(partition), int(offset)
    found = [
        Row(key=w.record.message.key, kind=w.kind, label=w.state, body=w, txn=txn)
        for position, (w, txn) in sorted(tables.waiting.items(), key=lambda item: item[0])
        if after is None or position > after
        if what.key in (None, w.record.message.key) and what.label in (None, w.state)
    ]
    return found[: what.limit]


def _positions(tables: Tables, what: Scan) -> list[Row]:
    lanes = sorted((n, owner) for n, owner in tables.owners.items() if n >= 0)[: what.limit]
    return [Row(key=str(n), count=o.epoch, body=o.positions, txn=o.txn) for n, o in lanes]


SCANS: dict[str, Callable[[Tables, Scan], list[Row]]] = {
    "documents": _documents, "labels": _labels, "asks": _asks, "waiting": _waiting,
    "positions": _positions,
}
