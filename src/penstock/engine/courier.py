"""The courier: carry rows out. Append to topics, call gateways, tell the clock's time.

A row is closed, and its answer appended, only after the deed; a death in between repeats the
deed with the same id or idempotency key. One courier a shard, by epoch. It never touches state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from queue import Empty, SimpleQueue
from typing import Protocol

from msgspec import Raw, Struct

from penstock.catalog.model import CLOCK, GatewayEntry
from penstock.decision import Answer, Wake
from penstock.engine.cuts import cut
from penstock.engine.desk import Desk
from penstock.engine.unit import Unit
from penstock.errors import Contended, Problem, StaleOwner, StorageFull, Unreachable
from penstock.event import Message, child_id
from penstock.limits import COURIER_ROWS_MAX
from penstock.ports import (
    Due,
    Gateway,
    Log,
    Ok,
    Outcome,
    Refused,
    Request,
    Settled,
    Store,
    Unavailable,
    Unknown,
    courier_lane,
)

REFUSED_PAUSE_MS = 5000  # before a topic that refused a row is tried again


class Pool(Protocol):
    """Threads owned by the crew: ``submit`` runs ``work`` soon, in some thread."""

    def submit(self, gateway: str, work: Callable[[], None]) -> None:
        """Run ``work`` in one of the gateway's threads."""


class Carried(Struct, frozen=True, kw_only=True):
    """What one courier turn did. ``next_due`` (ms) is when to look again at the latest;
    ``blocked`` says that the disk, the broker or the database refused."""

    settled: int = 0
    called: int = 0
    wrote: frozenset[str] = frozenset()
    next_due: int | None = None
    blocked: bool = False


class Courier:
    """One service's courier: steps, never blocks on a gateway. ``shards`` are those it carries,
    level-triggered: whoever runs it says so before each step."""

    def __init__(
        self,
        unit: Unit,
        log: Log,
        store: Store,
        gateways: Mapping[str, tuple[GatewayEntry, Gateway]],
        pool: Pool,
        topics: Sequence[str] = (),
        woken: Callable[[], None] = lambda: None,
    ) -> None:
        self.unit, self._log, self._store, self._pool = unit, log, store, pool
        self._gateways = {name: gateway for name, (_, gateway) in gateways.items()}
        self.desks = {name: Desk(entry) for name, (entry, _) in gateways.items()}
        self._topics = tuple(topics)
        self._finished: SimpleQueue[tuple[str, Due, Outcome]] = SimpleQueue()
        self._woken = woken
        self.shards: frozenset[int] = frozenset((0,))
        self.trouble = ""  # why nothing is carried
        self._epochs: dict[int, int] = {}  # by shard
        self._more: set[str] = set()  # destinations with more rows than one look took
        self._refused: dict[str, tuple[int, str]] = {}  # topic -> when to try again, and why
        self._few: dict[str, int] = {}  # topic -> rows of one look, after one was refused

    def step(self, now: int, asked: Set[str] | None = None) -> Carried:
        """One bounded turn: look, carry, close; at most one commit and one append a topic.

        ``asked`` names the destinations that are known to have something new; None looks at all.
        """
        try:
            done = self._turn(now, asked)
            self.trouble = "; ".join(why for _, why in self._refused.values())
            return done
        except (StaleOwner, Contended):
            self._forget()
            return Carried(settled=1)
        except (StorageFull, Unreachable) as error:
            # The deeds are done but not closed; they are repeated with the same keys later.
            self._forget()
            self.trouble = str(error)
            return Carried(blocked=True)

    def _turn(self, now: int, asked: Set[str] | None) -> Carried:
        if self._epochs.keys() != self.shards:
            self._take_over(now)
            asked = None
        if not self.shards:
            return Carried()
        settled = self._collect(now)
        settled += self._clock(now)
        carried: set[str] = set()
        for topic in self._topics:
            if asked is not None and topic not in asked and topic not in self._more:
                continue
            rows = self._carry_topic(topic, now)
            settled += rows
            carried |= {topic} if rows else set()
        called = self._call_gateways(now, asked)
        settled += self._collect(now) if called else []
        for desk in self.desks.values():
            settled += [
                self._closed(row, "expired", b"null", desk.last_error, row.attempts, now)
                for row in desk.overdue(now)
            ]
        return self._settle(settled, called, carried, now)

    def _take_over(self, now: int) -> None:
        """Claim what is new. The desks start again: rows of a shard that went are another's."""
        for desk in self.desks.values():
            desk.forget()
        self._epochs = {s: e for s, e in self._epochs.items() if s in self.shards}
        lanes = {courier_lane(s): s for s in sorted(self.shards - self._epochs.keys())}
        if lanes:
            claims = self._store.claim(list(lanes), now)
            self._epochs |= {lanes[claim.lane]: claim.epoch for claim in claims}

    def _forget(self) -> None:
        self._epochs = {}  # claimed again, and then everything is looked at
        for desk in self.desks.values():
            desk.forget()

    def _settle(
        self, settled: list[Settled], called: int, carried: set[str], now: int
    ) -> Carried:
        if settled:
            cut("courier.called")
            self._store.settle(self._epochs, settled, self.unit.answers, now)
            cut("courier.settled")
            closed = {s.id for s in settled if not s.retry_at}
            for desk in self.desks.values():
                desk.close(closed)
        wrote = {self.unit.answers} if any(s.answer for s in settled) else set()
        waits = [d.next_due(now) for d in self.desks.values()]
        next_due = min((w for w in waits if w is not None), default=None)
        return Carried(
            settled=len(settled), called=called, next_due=next_due,
            wrote=frozenset(wrote | carried),
        )

    # Topics ------------------------------------------------------------------------------------

    def _carry_topic(self, topic: str, now: int) -> list[Settled]:
        """Append a destination's rows in id order. A crash before closing appends them again;
        the marks of the readers absorb it. A topic that refuses a row holds its own rows only."""
        if now < self._refused.get(topic, (0, ""))[0]:
            return []
        limit = self._few.get(topic, COURIER_ROWS_MAX)
        rows = self._store.due(topic, now, (), limit, is_topic=True, shards=self.shards)
        (self._more.add if len(rows) == limit else self._more.discard)(topic)
        if not rows:
            self._refused.pop(topic, None)  # it went with its shard
            return []
        cut("courier.send")
        origins = [row.origin for row in rows]
        try:
            self._log.append(topic, [row.message for row in rows], now, origins)
        except Problem as problem:
            self._refuse(topic, len(rows), problem, now)
            return []
        self._accept(topic)
        cut("courier.sent")
        return [Settled(row.id, "sent", attempts=1, shard=row.shard) for row in rows]

    def _refuse(self, topic: str, rows: int, problem: Problem, now: int) -> None:
        """One of these rows cannot go for now. Those before it are carried one by one: in a batch
        each attempt would append them again."""
        self._few[topic] = 1
        self._more.add(topic)
        self._refused[topic] = now + REFUSED_PAUSE_MS if rows == 1 else now, str(problem)

    def _accept(self, topic: str) -> None:
        self._refused.pop(topic, None)
        limit = 2 * self._few.pop(topic, COURIER_ROWS_MAX)
        if limit < COURIER_ROWS_MAX:
            self._few[topic] = limit

    # The clock ---------------------------------------------------------------------------------

    def _clock(self, now: int) -> list[Settled]:
        if CLOCK not in self.unit.entry.asks:
            return []
        rows = self._store.due(CLOCK, now, (), COURIER_ROWS_MAX, shards=self.shards)
        return [
            Settled(row.id, "ok", self._wake(row, now), attempts=1, shard=row.shard)
            for row in rows
        ]

    def _wake(self, row: Due, now: int) -> Message:
        wake = Wake(
            ask=row.message.id.hex(), name=row.name, due=row.due, request=Raw(row.message.value)
        )
        return self._reply(row, "wake", wake, now)

    def _reply(self, row: Due, type_: str, body: Answer | Wake, now: int) -> Message:
        m = row.message
        kind, version, value = self.unit.book.seal_as(type_, body)
        id_ = child_id(m.id, self.unit.name, "answer", 0)
        return Message(
            m.key, value, id_, kind, version, now, m.id, m.trace, row.destination, m.notes
        )

    # Gateways ----------------------------------------------------------------------------------

    def _call_gateways(self, now: int, asked: Set[str] | None) -> int:
        called = 0
        for name, desk in self.desks.items():
            if desk.wants_rows() and (asked is None or name in asked or name in self._more):
                room = desk.room()
                rows = self._store.due(name, now, desk.known, room, shards=self.shards)
                (self._more.add if len(rows) == room else self._more.discard)(name)
                desk.add(rows)
            for row in desk.ready(now):
                self._call(name, desk, row)
                called += 1
        return called

    def _call(self, name: str, desk: Desk, row: Due) -> None:
        request = Request(
            name=row.name, key=row.message.key, idempotency_key=row.idempotency_key,
            body=row.message.value, attempt=row.attempts + 1,
            timeout_seconds=desk.entry.timeout_seconds, trace=row.message.trace,
        )
        gateway = self._gateways[name]

        def work() -> None:
            try:
                outcome = gateway.call(request)
            except Exception as error:
                outcome = Unknown(f"{type(error).__name__}: {error}")
            self._finished.put((name, row, outcome))
            if not desk.entry.inline:
                self._woken()

        if desk.entry.inline:
            work()
        else:
            self._pool.submit(name, work)

    def _collect(self, now: int) -> list[Settled]:
        settled: list[Settled] = []
        while len(settled) < COURIER_ROWS_MAX:
            try:
                name, row, outcome = self._finished.get_nowait()
            except Empty:
                return settled
            settled += self._conclude(self.desks[name], row, outcome, now)
        return settled

    def _conclude(self, desk: Desk, row: Due, outcome: Outcome, now: int) -> Iterable[Settled]:
        """What a call's outcome means for its row; a row forgotten meanwhile is called again."""
        if not desk.finish(row, outcome, now):
            return
        attempts = row.attempts + 1
        if isinstance(outcome, Ok):
            yield self._closed(row, "ok", outcome.body, "", attempts, now)
        elif isinstance(outcome, Refused):
            yield self._closed(row, "refused", outcome.body, outcome.reason, attempts, now)
        elif now - row.made_at > desk.entry.buffer_seconds * 1000:
            desk.give_up(row)
            yield self._closed(row, "expired", b"null", outcome.reason, attempts, now)
        else:
            retry_at = now + int(_delay(desk.entry, outcome, attempts) * 1000)
            desk.later(row, attempts, retry_at)
            yield Settled(row.id, "", None, retry_at, attempts, outcome.reason, row.shard)

    def _closed(
        self, row: Due, outcome: str, body: bytes, reason: str, attempts: int, now: int
    ) -> Settled:
        answer = Answer(
            ask=row.message.id.hex(), name=row.name, gateway=row.destination, outcome=outcome,
            idempotency_key=row.idempotency_key, body=Raw(body or b"null"), reason=reason,
            calls=attempts,
        )
        message = self._reply(row, "answer", answer, now)
        return Settled(row.id, outcome, message, 0, attempts, reason, row.shard)


def _delay(entry: GatewayEntry, outcome: Unavailable | Unknown, attempts: int) -> float:
    after = outcome.after_seconds if isinstance(outcome, Unavailable) else None
    return max(after or 0.0, entry.retry.delay_seconds(attempts), 0.001)


