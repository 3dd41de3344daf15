"""The PostgreSQL store: documents, marks, positions, waiting rows and outbox of many services.

One database and one schema hold them all; every key begins with the scope, a service in a
namespace. A store has one connection per thread, made when it is first needed. A batch costs
three statements: what is about to be decided, what it needs, what it writes.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress

import msgspec

from penstock.catalog.model import CLOCK
from penstock.embedded.rows import message_bytes
from penstock.errors import Contended, Unreachable
from penstock.event import slot_of
from penstock.flow import Row, Scan
from penstock.limits import TEXT_CHARS_MAX
from penstock.ports import (
    SHARDS,
    Advance,
    Claim,
    Due,
    Features,
    Settled,
    Span,
    Tx,
    courier_lane,
)
from penstock.store import migrate
from penstock.store import postgres_sql as sql
from penstock.store.postgres_pruning import prune
from penstock.store.postgres_scans import due_of, scan
from penstock.store.postgres_session import Command, Session
from penstock.store.postgres_tx import PostgresTx, advancing
from penstock.store.postgres_values import (
    Value,
    clean,
    long,
    longs,
    many_bytes,
    number_of,
    short,
    shorts,
    text,
    texts,
    truth,
)

LIVING = 0x70656E73  # "pens": the advisory locks of living stores
CLAIMS_MAX = 5  # a claim that met another one in a circle is done again
_POSITIONS = msgspec.json.Decoder(dict[str, int])
_SPANS = msgspec.json.Decoder(tuple[Span, ...])


class PostgresStore:
    """The ``Store`` port for one service. May be used by several threads."""

    features = Features(torn_tail=False, shards=SHARDS, attempts=True)

    def __init__(self, where: str, service: str, namespace: str = "live") -> None:
        self.service, self.namespace, self._where = service, namespace, where
        self.scope = 0  # until it is known
        self.token = secrets.randbelow(1 << 31)
        self._threads = threading.local()
        self._sessions: list[Session] = []
        self._lock = threading.Lock()
        self._gone = 0  # statements of sessions that were closed

    @property
    def statements(self) -> int:
        """Statements sent so far by all threads; BEGIN, COMMIT and ROLLBACK, which travel with
        them, and what is sent once a connection, are not counted."""
        with self._lock:
            return self._gone + sum(session.statements for session in self._sessions)

    def close(self) -> None:
        """Close the connections of all threads; what comes later connects again."""
        with self._lock:
            for session in self._sessions:
                session.close()

    def session(self) -> Session:
        """This thread's connection, ready. Raises ``Unreachable``, and ``Conflict`` where the
        schema is not there or newer than this penstock."""
        session: Session | None = getattr(self._threads, "session", None)
        if session is None:
            session = self._threads.session = self._new_session()
        if not session.connected:
            self._connect(session)
        return session

    def _new_session(self) -> Session:
        session = Session(self._where, f"penstock {self.service}/{self.namespace}")
        with self._lock:
            # Threads come and go: what one has left behind is closed when the next one comes.
            for old in [s for s in self._sessions if not s.thread.is_alive()]:
                old.close()
                self._gone += old.statements
                self._sessions.remove(old)
            self._sessions.append(session)
        return session

    def _connect(self, session: Session) -> None:
        session.connect()
        counted = session.statements
        try:
            migrate.check(session)
            session.run(sql.LIVE, living=short(LIVING), token=short(self.token))
            if not self.scope:
                self.scope = self._find_scope(session)
        except BaseException:
            session.drop()
            raise
        session.statements = counted

    def _find_scope(self, session: Session) -> int:
        names = {"service": text(self.service), "namespace": text(self.namespace)}
        found = session.run(sql.SCOPE, **names)
        if not found.ntuples:
            session.run(sql.NEW_SCOPE, **names)
            found = session.run(sql.SCOPE, **names)
        return number_of(found.get_value(0, 0))

    # Owners ------------------------------------------------------------------------------------

    def claim(self, lanes: Sequence[int], now: int) -> list[Claim]:
        """Mint epochs, in a statement of its own."""
        for _ in range(CLAIMS_MAX - 1):
            with suppress(Contended):
                return self._claim(lanes)
        return self._claim(lanes)

    def _claim(self, lanes: Sequence[int]) -> list[Claim]:
        session = self.session()
        found = session.run(
            sql.CLAIM, scope=short(self.scope), lanes=shorts(lanes), token=short(self.token),
            living=short(LIVING),
        )
        get = found.get_value
        return [
            Claim(
                lane=number_of(get(n, 0)), epoch=number_of(get(n, 1)),
                positions=_POSITIONS.decode(get(n, 2) or b"{}"),
                attempted=_SPANS.decode(get(n, 3) or b"[]"),
            )
            for n in range(found.ntuples)
        ]

    def begin(self, spans: Mapping[int, Sequence[Span]] = {}) -> AbstractContextManager[Tx]:
        """A write transaction, which the database learns of at the first load or at its end."""
        return self._begin(spans)

    @contextmanager
    def _begin(self, spans: Mapping[int, Sequence[Span]]) -> Iterator[Tx]:
        session = self.session()
        tx = PostgresTx(session, self.scope, self.token, spans)
        try:
            yield tx
            tx.commit()
        except BaseException:
            with suppress(Unreachable):  # then it is rolled back by that
                tx.roll_back()
            raise

    # Rows --------------------------------------------------------------------------------------

    def due(
        self, destination: str, now: int, known: Collection[int], limit: int, *,
        is_topic: bool = False, shards: Collection[int] | None = None,
    ) -> list[Due]:  # fmt: skip
        """Unsettled rows; the clock's in due order, others in id order."""
        session = self.session()
        values: dict[str, Value] = {
            "scope": short(self.scope), "destination": text(destination), "limit": long(limit)
        }
        is_clock = destination == CLOCK and not is_topic
        has_shards = shards is not None and len(shards) < SHARDS
        if is_clock:
            values["now"] = long(now)
        else:
            values["is_topic"] = truth(is_topic)
            if known:
                values["known"] = longs(list(known))
        if shards is not None and has_shards:
            values["shards"] = shorts(sorted(shards))
        statement = sql.due_statement(is_clock, bool(known) and not is_clock, has_shards)
        found = session.exchange([Command(statement, values)])[0]
        return [due_of(found.get_value, n) for n in range(found.ntuples)]

    def settle(
        self, epochs: Mapping[int, int], rows: Sequence[Settled], answers_to: str, now: int
    ) -> None:
        """Close rows and append their answers, each under the epoch of its shard's courier."""
        if not rows:
            return
        shards = sorted({r.shard for r in rows}, key=courier_lane)
        moves = [Advance(courier_lane(s), epochs[s], {}) for s in shards]
        answered = [(r.id, r.answer) for r in rows if r.answer is not None and not r.retry_at]
        session = self.session()
        session.run(
            sql.SETTLE, scope=short(self.scope), now=long(now), answers_to=text(answers_to),
            epoch=long(max(m.epoch for m in moves)),
            ids=longs([r.id for r in rows]),
            outcomes=texts(["" if r.retry_at else r.outcome for r in rows]),
            attempts=shorts([r.attempts for r in rows]),
            errors=texts([clean(r.error[:TEXT_CHARS_MAX]) for r in rows]),
            retries=longs([r.retry_at for r in rows]),
            answered=longs([id_ for id_, _ in answered]),
            shards=shorts([slot_of(m.key) % SHARDS for _, m in answered]),
            keys=texts([clean(m.key) for _, m in answered]),
            messages=many_bytes([message_bytes(m) for _, m in answered]),
            **advancing(moves),
        )

    # Reading and forgetting --------------------------------------------------------------------

    def scan(self, what: Scan) -> list[Row]:
        """Read for people and recovery."""
        return scan(self.session(), self.scope, what)

    def prune(
        self, floors: Mapping[tuple[str, int], int], now: int, keep: frozenset[bytes] = frozenset()
    ) -> int:
        """Checkpoint, and drop what lies wholly before ``floors``, but no mark in ``keep``."""
        return prune(self.session(), self.scope, floors, now, keep)
