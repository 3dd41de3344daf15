"""The intake: requests from outside, decided in groups, one durable transaction a group.

``submit`` may be called from an event loop; a committer thread takes whatever piled up during
the last flush as the next group, decides it in order and commits once. A reply is given only
after the commit: what was answered with a 2xx is durable.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from penstock.contracts.wire import Book
from penstock.decision import Ref, State
from penstock.engine.cuts import cut
from penstock.engine.unit import ENCODE, fits, storable
from penstock.errors import Contended, StaleOwner, StorageFull, Unreachable
from penstock.event import Message, root_id
from penstock.flow import Accepted, Call, Fault, Intake, Reply
from penstock.limits import INTAKE_GROUP_MAX, INTAKE_QUEUE_MAX, TRANSACTION_SECONDS_MAX
from penstock.ports import INTAKE_LANE, Advance, Clock, Outgoing, Saved, Store

FULL = Reply(
    status=503,
    body=Fault(
        code="storage_full", title="The disk is full",
        detail="Nothing was accepted; reading still works.",
        fix="Free space where the home folder or the database lies, then repeat with the same "
        "Idempotency-Key.",
    ),
    headers={"retry-after": "2"},
)
AWAY = Reply(
    status=503,
    body=Fault(
        code="store_unreachable", title="The database does not answer",
        detail="It is not known whether the request was accepted.",
        fix="Repeat with the same Idempotency-Key: it is accepted once, whatever happened.",
    ),
    headers={"retry-after": "2"},
)
BUSY = Reply(
    status=503,
    body=Fault(
        code="overloaded", title="Too many requests wait",
        detail=f"More than {INTAKE_QUEUE_MAX} requests wait to be made durable.",
        fix="Repeat with the same Idempotency-Key after a second.",
    ),
    headers={"retry-after": "1"},
)
CLOSING = Reply(
    status=503,
    body=Fault(
        code="draining", title="The door is closing", detail="This instance is shutting down.",
        fix="Repeat with the same Idempotency-Key.",
    ),
    headers={"retry-after": "1"},
)


class Wanted(Struct, frozen=True):
    """One waiting request and who wants its reply."""

    intake: Intake
    call: Call
    deliver: Callable[[Reply], None]


Delivery = list[tuple[Callable[[Reply], None], Reply]]


def deliver_all(replies: Delivery) -> None:
    """Hand every reply to its waiter, in the committer's own thread."""
    for deliver, reply in replies:
        deliver(reply)


class Gate:
    """The door's group commit. ``deliver_group`` gets all replies of a group at once, so that
    an event loop is woken once a group and not once a request."""

    def __init__(
        self,
        service: str,
        states: dict[str, type],
        labels: dict[str, Callable[[Any], str | None]],
        book: Book,
        store: Store,
        clock: Clock,
        tell: Callable[[set[str]], None] = lambda topics: None,
        deliver_group: Callable[[Delivery], None] = deliver_all,
        lane: int = INTAKE_LANE,
    ) -> None:
        self._service, self._labels, self._book = service, labels, book
        self._store, self._clock, self._tell, self._lane = store, clock, tell, lane
        self._decoders: dict[str, Callable[[bytes], Any]] = {
            kind: msgspec.json.Decoder(type_).decode for kind, type_ in states.items()
        }
        self._queue: deque[Wanted] = deque()
        self._arrived = threading.Condition()
        self._closing = False
        self._epoch: int | None = None
        self.deliver_group = deliver_group
        self.groups = self.requests = 0
        self.full = False

    def submit(self, wanted: Wanted) -> Reply | None:
        """Queue a request; a Reply here means it was refused at once."""
        with self._arrived:
            if self._closing:
                return CLOSING
            if len(self._queue) >= INTAKE_QUEUE_MAX:
                return BUSY
            self._queue.append(wanted)
            self._arrived.notify()
        return None

    def close(self) -> None:
        """Refuse what comes from now on; what was queued is still committed."""
        with self._arrived:
            self._closing = True
            self._arrived.notify()

    def run(self, idle: Callable[[], None] = lambda: None, every_seconds: float = 5.0) -> None:
        """The committer's loop; ``idle`` is called between groups when nothing waits."""
        while True:
            with self._arrived:
                if not self._queue and not self._closing:
                    self._arrived.wait(every_seconds)
                if not self._queue and self._closing:
                    return
            if not self.step():
                idle()

    def step(self) -> int:
        """Commit one group, deliver its replies; returns how many."""
        with self._arrived:
            group = [
                self._queue.popleft() for _ in range(min(len(self._queue), INTAKE_GROUP_MAX))
            ]
        if group:
            replies = self.commit(group)
            cut("intake.reply")
            self.deliver_group(replies)
        return len(group)

    def commit(self, group: Sequence[Wanted]) -> Delivery:
        """Decide and commit a group; replies are safe to send on return."""
        try:
            decided = self._commit(group)
        except StorageFull:
            self.full = True
            decided = [FULL] * len(group)
        except Unreachable:
            self._epoch = None  # claiming it again waits for a commit that may be under way
            decided = [AWAY] * len(group)
        self.groups += 1
        self.requests += len(group)
        return [(w.deliver, reply) for w, reply in zip(group, decided, strict=True)]

    def _commit(self, group: Sequence[Wanted]) -> list[Reply]:
        """Again and again, while another owner or another transaction was quicker; but nobody at
        the door waits for ever for a row that somebody stands on."""
        until = self._clock.now() + int(TRANSACTION_SECONDS_MAX * 1000)
        while True:
            try:
                return self._decided(group)
            except StaleOwner:
                self._epoch = None
            except Contended as error:
                if self._clock.now() >= until:
                    raise Unreachable(f"another transaction does not end: {error}") from None

    def _decided(self, group: Sequence[Wanted]) -> list[Reply]:
        now = self._clock.now()
        if self._epoch is None:
            self._epoch = self._store.claim([self._lane], now)[0].epoch
        with self._store.begin() as tx:
            tx.advance([Advance(self._lane, self._epoch, {})], now)
            named = [self._named(w) for w in group]
            refs = list(dict.fromkeys(r for n in named if isinstance(n, tuple) for r in n))
            bodies = tx.load(refs).bodies if refs else {}
            pass_ = _Pass(self._service, self._labels, self._book, self._decoders, bodies)
            replies = [pass_.decide(w, n) for w, n in zip(group, named, strict=True)]
            tx.save(list(pass_.saved.values()))
            wrote = tx.send(pass_.rows, now)
            cut("intake.position")
        self.full = False
        if wrote:
            self._tell(wrote)
        return replies

    def _named(self, wanted: Wanted) -> tuple[Ref, ...] | Exception:
        """What the request needs; a bug in its ``needs`` costs this request only."""
        try:
            refs = tuple(wanted.intake.needs(wanted.call))
            for ref in refs:
                assert ref.kind in self._decoders, f"{self._service} has no states of {ref.kind}"
                storable(ref.key)
            return refs
        except Exception as error:
            return error


class _Pass:
    """One group being decided in order; later requests see what earlier ones wrote."""

    def __init__(
        self,
        service: str,
        labels: dict[str, Callable[[Any], str | None]],
        book: Book,
        decoders: dict[str, Callable[[bytes], Any]],
        bodies: dict[Ref, bytes],
    ) -> None:
        self._service, self._labels, self._book = service, labels, book
        self._decoders, self._bodies = decoders, bodies
        self._written: dict[Ref, State | None] = {}
        self.saved: dict[Ref, Saved] = {}
        self.rows: list[Outgoing] = []

    def decide(self, wanted: Wanted, named: tuple[Ref, ...] | Exception) -> Reply:
        """Decide one request; a bug in its decide costs this request only."""
        try:
            if isinstance(named, Exception):
                raise named
            states = {ref: self._state(ref) for ref in named}
            accepted = wanted.intake.decide(states, wanted.call)
            assert not accepted.done.asks, "a door has no answers: a service asks"
            saved = [self._seal(ref, s, states) for ref, s in accepted.done.states.items()]
            rows = self._publish(wanted.call, accepted)
        except Exception as error:
            return Reply(
                status=500,
                body=Fault(
                    code="internal_error", title="The request could not be decided",
                    detail=f"{type(error).__name__}: {error}"[:500],
                    fix="Nothing was accepted. Report this with the request.",
                ),
            )
        self._written.update(accepted.done.states)
        self.saved.update((s.ref, s) for s in saved)
        self.rows += rows
        return accepted.reply

    def _state(self, ref: Ref) -> State | None:
        """What an earlier request of the group wrote, else what is stored."""
        if ref in self._written:
            return self._written[ref]
        return self._decoders[ref.kind](self._bodies[ref]) if ref in self._bodies else None

    def _seal(self, ref: Ref, state: State | None, states: dict[Ref, State | None]) -> Saved:
        assert ref in states, f"decide wrote {ref}, which its needs did not name"
        labelled = self._labels.get(ref.kind) if state is not None else None
        label = labelled(state) if labelled else None
        storable(label)
        return Saved(ref, None if state is None else ENCODE(state), label)

    def _publish(self, call: Call, accepted: Accepted) -> list[Outgoing]:
        rows = []
        for n, emit in enumerate(accepted.done.events):
            type_, version, value = self._book.seal(emit.data)
            key = accepted.key if emit.key is None else emit.key
            storable(key)
            fits(type_, value)
            id_ = root_id(call.now, self._service, *accepted.root, type_, str(n))
            message = Message(
                key, value, id_, type_, version, call.now, b"", call.trace, self._service
            )
            rows.append(Outgoing(emit.topic, True, message))
        return rows
