"""One transaction of the PostgreSQL store: read with row locks, gathered, written at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from penstock.catalog.model import JOURNAL
from penstock.decision import Ref
from penstock.embedded.rows import message_bytes
from penstock.errors import StaleOwner, Unreachable
from penstock.event import Position, Record, slot_of
from penstock.ports import SHARDS, Advance, Loaded, Outgoing, Saved, Span, Waiting
from penstock.store import postgres_sql as sql
from penstock.store.postgres_session import BEGIN, COMMIT, ROLLBACK, Command, Session, Verb
from penstock.store.postgres_values import (
    Value,
    clean,
    long,
    longs,
    many_bytes,
    number_of,
    short,
    shorts,
    texts,
    truths,
)

_ENCODE = msgspec.json.Encoder().encode
UNSEEN = -1  # the version of a document that was saved without being loaded
ABSENT = 0


def _place(ref: Ref) -> tuple[str, str]:
    return ref.kind, ref.key


class PostgresTx:
    """The ``Tx`` port. Nothing is sent before the first load; what is written goes with the
    commit, in one statement."""

    def __init__(
        self, session: Session, scope: int, token: int, spans: Mapping[int, Sequence[Span]]
    ) -> None:
        self._session, self._scope, self._token, self._spans = session, scope, token, spans
        self.number = 0
        self._moves: dict[int, Advance] = {}
        self._now = 0
        self._begun = False
        self._versions: dict[Ref, int] = {}
        self._saved: dict[Ref, Saved] = {}
        self._marks: list[tuple[bytes, int | None]] = []  # with the lane, where one was named
        self._rows: list[tuple[Outgoing, int]] = []
        self._waiting: dict[Position, Waiting | Record] = {}  # a record: its row goes

    def advance(self, moves: Sequence[Advance], now: int) -> None:
        """Take note of the moves; the epochs are checked where the positions are written."""
        self._moves |= {move.lane: move for move in moves}
        self._now = now

    # Reading -----------------------------------------------------------------------------------

    def load(self, refs: Sequence[Ref], ids: Sequence[bytes] = ()) -> Loaded:
        """Documents by ref, locked until the end, and which ids are marked."""
        own = self._saved
        # No document has a NUL in its key: PostgreSQL knows no such text.
        asked = sorted((r for r in refs if r not in own and "\0" not in r.key), key=_place)
        bodies: dict[Ref, bytes] = {}
        seen: set[bytes] = set()
        if asked or ids:
            self._ask(asked, ids, bodies, seen)
        if own:
            mine = ((ref, own[ref].body) for ref in refs if ref in own)
            bodies |= {ref: body for ref, body in mine if body is not None}
        if self._marks:
            seen |= {id_ for id_, _ in self._marks}.intersection(ids)
        return Loaded(bodies, frozenset(seen))

    def _ask(
        self, refs: list[Ref], ids: Sequence[bytes], bodies: dict[Ref, bytes], seen: set[bytes]
    ) -> None:
        values = {
            "scope": short(self._scope), "kinds": texts([r.kind for r in refs]),
            "keys": texts([r.key for r in refs]), "ids": many_bytes(list(ids)),
        }
        before = [] if self._goes_on() else [*self._attempt(), BEGIN]
        found = self._session.exchange([*before, Command(sql.LOAD, values)])[-1]
        self._begun = True
        versions = self._versions
        versions.update(dict.fromkeys(refs, ABSENT))
        get = found.get_value
        for row in range(found.ntuples):
            place, body = get(row, 0), get(row, 1)
            if place is None:
                seen.add(body or b"")
                continue
            ref = refs[number_of(place) - 1]
            versions[ref] = number_of(get(row, 2))
            if body is not None:
                bodies[ref] = body

    def _goes_on(self) -> bool:
        """Has it begun? A connection that was lost meanwhile would begin again, without locks."""
        if self._begun and not self._session.in_transaction:
            raise Unreachable("the connection was lost in the middle of a transaction")
        return self._begun

    def _attempt(self) -> list[Command | Verb]:
        """What goes before the batch, in a transaction of its own: what is about to be decided."""
        told = [(lane, self._moves[lane].epoch) for lane in sorted(self._spans)]
        if not told:
            return []
        values = {
            "scope": short(self._scope), "token": short(self._token),
            "lanes": shorts([lane for lane, _ in told]),
            "epochs": longs([epoch for _, epoch in told]),
            "spans": texts([_ENCODE(self._spans[lane]).decode() for lane, _ in told]),
        }
        return [BEGIN, Command(sql.ATTEMPT, values), COMMIT]

    # Writing -----------------------------------------------------------------------------------

    def save(self, documents: Sequence[Saved]) -> None:
        """Write documents; a body of None leaves a tombstone that pruning removes."""
        self._saved.update((d.ref, d) for d in documents)

    def mark(self, ids: Sequence[bytes], lanes: Sequence[int] = ()) -> None:
        """Mark events as handled, in order, each under the epoch of its lane."""
        if lanes:
            self._marks += zip(ids, lanes, strict=True)
        else:
            self._marks += [(id_, None) for id_ in ids]

    def send(self, rows: Sequence[Outgoing], now: int) -> set[str]:
        """Every row becomes one of the outbox."""
        self._rows += [(row, now) for row in rows]
        return {row.destination for row in rows}

    def defer(self, put: Sequence[Waiting], drop: Sequence[Record]) -> None:
        """Write and remove waiting rows."""
        self._waiting.update((r.position, r) for r in drop)
        self._waiting.update((w.record.position, w) for w in put)

    # The end -----------------------------------------------------------------------------------

    def commit(self) -> None:
        """Send what was written and commit, in one round trip."""
        if not self._moves:
            written = self._saved or self._marks or self._rows or self._waiting
            assert not written, "a transaction writes under the epoch of a lane"
            if self._goes_on():
                self._session.exchange([COMMIT])
            return
        before = [] if self._goes_on() else [BEGIN]
        found = self._session.exchange([*before, self._command(), COMMIT])[-1]
        self.number = number_of(found.get_value(0, 0))

    def roll_back(self) -> None:
        """Undo it. A connection that is gone has undone it already."""
        if self._session.in_transaction:
            self._session.exchange([ROLLBACK])

    def _command(self) -> Command:
        moves = [self._moves[lane] for lane in sorted(self._moves)]
        epoch = max(m.epoch for m in moves)
        values: dict[str, Value] = {
            "scope": short(self._scope), "epoch": long(epoch), **advancing(moves)
        }
        sections = []
        if self._saved:
            sections.append("documents")
            values |= self._documents()
        if self._marks:
            sections.append("marks")
            values |= self._marked(epoch)
        dropped = [r for r in self._waiting.values() if isinstance(r, Record)]
        if dropped:
            sections.append("dropped")
            values |= {
                "drop_topics": texts([r.topic for r in dropped]),
                "drop_partitions": shorts([r.partition for r in dropped]),
                "drop_offsets": longs([r.offset for r in dropped]),
            }
        waiting = [w for w in self._waiting.values() if isinstance(w, Waiting)]
        if waiting:
            sections.append("waiting")
            values |= waiting_values(waiting)
        if self._rows:
            sections.append("rows")
            values |= row_values(self._rows)
        return Command(sql.write_statement(tuple(sections)), values)

    def _documents(self) -> dict[str, Value]:
        # In the order in which loads lock them: who writes documents that another makes at the
        # same time waits for it, and not in a circle.
        saved = sorted(self._saved.values(), key=lambda d: _place(d.ref))
        known = self._versions
        return {
            "doc_kinds": texts([d.ref.kind for d in saved]),
            "doc_keys": texts([d.ref.key for d in saved]),
            "labels": texts([d.label for d in saved]),
            "bodies": many_bytes([d.body for d in saved]),
            "before": longs([known.get(d.ref, UNSEEN) for d in saved]),
            "wanted": long(len(saved)),
        }

    def _marked(self, epoch: int) -> dict[str, Value]:
        epochs = {lane: move.epoch for lane, move in self._moves.items()}
        return {
            "marks": many_bytes([id_ for id_, _ in self._marks]),
            "mark_epochs": longs(
                [epoch if lane is None else epochs.get(lane, epoch) for _, lane in self._marks]
            ),
        }


def advancing(moves: Sequence[Advance]) -> dict[str, Value]:
    """The arguments of ``advance``, lanes in their order."""
    if not moves:
        raise StaleOwner("no lane was advanced")
    return {
        "lanes": shorts([m.lane for m in moves]),
        "epochs": longs([m.epoch for m in moves]),
        "positions": texts([_ENCODE(m.positions).decode() for m in moves]),
    }


def row_values(rows: Sequence[tuple[Outgoing, int]]) -> dict[str, Value]:
    """Outbox rows as arrays."""
    sent = [row for row, _ in rows]
    return {
        "now": long(rows[-1][1]),
        "destinations": texts([r.destination for r in sent]),
        "is_topics": truths([r.is_topic for r in sent]),
        "shards": shorts([_shard(r) for r in sent]),
        "row_keys": texts([clean(r.message.key) for r in sent]),
        "names": texts([r.name for r in sent]),
        "idems": texts([r.idempotency_key for r in sent]),
        "dues": longs([r.due for r in sent]),
        "messages": many_bytes([message_bytes(r.message) for r in sent]),
    }


def _shard(row: Outgoing) -> int:
    """A key's shard. The journal's entries have one, so that one courier carries them in the
    order of their numbers, whatever they are about."""
    if row.is_topic and row.destination == JOURNAL:
        return 0
    return slot_of(row.message.key) % SHARDS


def waiting_values(waiting: Sequence[Waiting]) -> dict[str, Value]:
    """Waiting rows as arrays."""
    records = [w.record for w in waiting]
    return {
        "topics": texts([r.topic for r in records]),
        "partitions": shorts([r.partition for r in records]),
        "offsets": longs([r.offset for r in records]),
        "wait_keys": texts([clean(r.message.key) for r in records]),
        "states": texts([w.state for w in waiting]),
        "wait_dues": longs([w.due for w in waiting]),
        "attempts": shorts([w.attempts for w in waiting]),
        "deaths": shorts([w.deaths for w in waiting]),
        "wait_kinds": texts([clean(w.kind) for w in waiting]),
        "appended": longs([r.appended_at for r in records]),
        "wait_messages": many_bytes([message_bytes(r.message) for r in records]),
        "errors": texts([_ENCODE(_story(w.errors)).decode() for w in waiting]),
    }


def _story(errors: Sequence[tuple[int, str]]) -> list[Any]:
    return [(at, clean(said)) for at, said in errors]
