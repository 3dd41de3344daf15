"""The pure middle of a worker's turn: a batch of records becomes writes.

``Batch`` knows the records, the documents loaded so far and the keys that are held. Each record
ends as exactly one of: done (or a duplicate, or passed over), waiting, parked. The cases of one
record, in order:

    its key is held, in its lane  -> behind: a waiting row, if it has none yet
    it could not be opened        -> parked, bytes and all
    its id is marked              -> duplicate: nothing, and its waiting row goes
    an operator's request         -> its parked record is released or discarded
    its needs name unloaded refs  -> this and all later records of its key: one more pass
    decide says Done              -> states, rows, mark
    Retry, or decide raised       -> waiting, counted; at the bound parked
    Hold                          -> waiting, not counted
    Park                          -> parked
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from penstock.catalog.model import CLOCK
from penstock.decision import (
    Ask,
    Attempt,
    Context,
    Decision,
    Done,
    Hold,
    Park,
    Parked,
    Ref,
    Retry,
    State,
    Unparked,
    no_refs,
)
from penstock.engine.backlog import Backlog, Held, order_of
from penstock.engine.unit import (
    ENCODE,
    REQUESTS,
    RETRY_REQUESTED,
    Unit,
    keyless,
    own_ref,
    published,
    storable,
)
from penstock.errors import Malformed, UnknownSchema
from penstock.event import Event, Message, Position, Record, child_id, root_id
from penstock.limits import ATTEMPTS_KEPT_MAX, TEXT_CHARS_MAX
from penstock.ports import Outgoing, Saved, Waiting

Errors = tuple[tuple[int, str], ...]
DISCARDED = "dead.discarded"
LATEST = (1 << 62) - 1  # ms; what a store can keep


class Entry(Struct, frozen=True, gc=False):
    """A record of the batch: opened (``event``) or not (``fault``); ``row`` where it waited."""

    record: Record
    event: Event | None
    row: Waiting | None = None
    fault: tuple[str, str] | None = None  # kind and reason

    @property
    def held(self) -> Held:
        """The order it is part of."""
        return order_of(self.record)

    @property
    def passes(self) -> bool:
        """Does it go past a held key? Operators' requests free keys, so none may hold them; a
        record set aside has left its order already, one without a key is in none."""
        if keyless(self.record.message) or (self.row and self.row.state == "aside"):
            return True
        return self.event is not None and self.event.type in REQUESTS


class Counts(Struct):
    """What became of the records of a batch."""

    handled: int = 0
    duplicates: int = 0
    behind: int = 0
    retried: int = 0
    held: int = 0
    parked: int = 0
    passes: int = 0


class Batch:
    """One batch being decided; filled pass by pass, then written by the worker."""

    def __init__(self, unit: Unit, backlog: Backlog, now: int, held: set[Held]) -> None:
        self.unit, self.now = unit, now
        self._kind, self._decides = unit.service.kind, unit.service.decide
        # None where the own document is all a service needs: nothing is asked per record then.
        self._needs = None if unit.service.needs is no_refs else unit.service.needs
        self._version, self._labels = unit.service.version, unit.service.labels
        self._backlog, self._held = backlog, held
        self._states: dict[Ref, State | None] = {}
        self._unreadable: dict[Ref, str] = {}  # stored documents that do not decode
        self._unparked: set[Position] = set()
        self._seen: set[bytes] = set()
        self._asked: set[str] = set()  # keys whose own document changed in this batch
        self.saved: dict[Ref, Saved] = {}
        self.marks: dict[bytes, int] = {}  # id -> the lane of its record, in handling order
        self.rows: list[Outgoing] = []
        self.put: dict[Position, Waiting] = {}
        self.drop: list[Record] = []
        self.failing: dict[str, bool] = {}  # key -> did it fail in decide
        self.counts = Counts()

    # What has to be loaded ---------------------------------------------------------------

    def owns(self, entries: Iterable[Entry]) -> list[Ref]:
        """The own documents not loaded yet."""
        kind, known = self._kind, self._states
        refs = {Ref(kind, e.event.key): None for e in entries if e.event is not None}
        return [ref for ref in refs if ref not in known and ref not in self._unreadable]

    def _is_new(self, ref: Ref) -> bool:
        return ref not in self._states and ref not in self._unreadable

    def ids(self, entries: Iterable[Entry]) -> list[bytes]:
        """Events to look up among the marks: those of the batch, and parked ones that a request
        names, for a copy of theirs may have been handled meanwhile."""
        found = []
        for e in entries:
            if e.event is not None:
                found.append(e.event.id)
                if e.event.type in REQUESTS:
                    row = self._wished(e.event)
                    found += [row.record.message.id] if row else []
        return found

    def needed(self, entries: Iterable[Entry], *, guess: bool = False) -> list[Ref]:
        """Refs that ``needs`` names and that are not loaded; a raising ``needs`` names none.
        ``guess`` asks it as if there were no own documents: what it names comes with them."""
        needs, states, kind = self._needs, self._states, self._kind
        refs: dict[Ref, None] = {}
        if needs is None:
            return []
        for e in entries:
            event = e.event
            if event is None or event.type in REQUESTS:
                continue
            try:
                named = needs(event, None if guess else states[Ref(kind, event.key)])
                new = [ref for ref in named if ref not in states and ref not in refs]
                if new:
                    refs.update((ref, None) for ref in self._checked(new) if self._is_new(ref))
            except Exception:
                continue  # it fails again, and is counted, when its turn comes
        return list(refs)

    def _checked(self, refs: Sequence[Ref]) -> Sequence[Ref]:
        """What a store can look up; anything else is the failure of the record that named it."""
        for ref in refs:
            assert ref.kind in self.unit.decoders, f"{self.unit.name} has no states of {ref.kind}"
            storable(ref.key)
        return refs

    def loaded(self, refs: Sequence[Ref], bodies: dict[Ref, bytes]) -> None:
        """Take in what the store found; absent documents are None. One that does not decode
        fails the records that need it, and no other."""
        decoders = self.unit.decoders
        for ref in refs:
            body = bodies.get(ref)
            try:
                self._states[ref] = None if body is None else decoders[ref.kind](body)
            except Exception as error:
                self._unreadable[ref] = f"the stored {ref.kind} {ref.key} is unreadable: {error}"

    def seen(self, ids: frozenset[bytes]) -> None:
        """Events that are marked already."""
        self._seen |= ids

    # One pass ------------------------------------------------------------------------------

    def decide(
        self, entries: Sequence[Entry], charge: Callable[[Record], None]
    ) -> list[Entry]:
        """Decide in order; returns what needs one more load, in order.

        ``charge`` is told each record before its decide, so that a death can be charged to it.
        """
        self.counts.passes += 1
        later: list[Entry] = []
        postponed: set[str] = set()
        held, seen = self._held, self._seen
        for entry in entries:
            event = entry.event
            if held and entry.held in held and not entry.passes:
                self._stay_behind(entry)
            elif event is None:
                self.park(entry, *(entry.fault or ("malformed", "")), ())
            elif event.id in seen:
                self._pass_duplicate(entry)
            elif event.type in REQUESTS:
                self._obey(entry, event)
            elif event.key in postponed or self._lacks_refs(event):
                postponed.add(event.key)
                later.append(entry)
            else:
                charge(entry.record)
                self._decide_one(entry, event)
        return later

    def _lacks_refs(self, event: Event) -> bool:
        """Do the needs, asked again where the own document changed, name unloaded refs?"""
        if self._needs is None or event.key not in self._asked:
            return False
        try:
            named = self._needs(event, self._states[own_ref(self.unit, event)])
            new = [ref for ref in named if ref not in self._states]
            return any(self._is_new(ref) for ref in self._checked(new))
        except Exception:
            return False

    def _decide_one(self, entry: Entry, event: Event) -> None:
        now = event.appended_at if event.type != "wake" else event.data.due
        context = Context(now, self.unit.name, self._version, "", event.trace)
        try:
            own = Ref(self._kind, event.key)
            states = {own: self._state(own)}
            if self._needs is not None:
                for ref in self._needs(event, states[own]):
                    states[ref] = self._state(ref)
            decision = self._decides(states, event, context)
            if type(decision) is Done:
                self._done(entry, event, decision, states)
                return
        except Exception as error:
            self._failed(entry, f"{type(error).__name__}: {error}", None)
            return
        self._refused(entry, decision)

    def _state(self, ref: Ref) -> State | None:
        if ref in self._unreadable:
            raise ValueError(self._unreadable[ref])
        return self._states[ref]

    def _refused(self, entry: Entry, decision: Decision) -> None:
        match decision:
            case Retry(reason=str() as reason, after_seconds=float() | int() | None as after):
                self._failed(entry, reason, after)
            case Hold(dependency=str() as dependency, until=int() as until):
                self._hold(entry, dependency, until)
            case Park(kind=str() as kind, reason=str() as reason):
                self.failing[entry.record.message.key] = True
                self.park(entry, kind, reason, _story(entry, self.now, reason))
            case _:
                said = f"decide answered {decision!r:.200}, which is no Decision"
                self._failed(entry, f"TypeError: {said}", None)

    def _hold(self, entry: Entry, dependency: str, until: int) -> None:
        """Not counted. A decide that counts from its record's append time names a time long
        past when it lags; it is asked again after the policy's first delay, not at once."""
        self.counts.held += 1
        soonest = self.now + int(self.unit.entry.retry.first_delay_seconds * 1000)
        errors = _story(entry, self.now, f"holds for {dependency}")
        self._wait(entry, until if until > self.now else soonest, errors, charged=0)

    # The ends of a record ------------------------------------------------------------------

    def _done(
        self, entry: Entry, event: Event, done: Done, states: dict[Ref, State | None]
    ) -> None:
        """Everything is sealed before anything is kept: a value that cannot be encoded is this
        record's failure, not the batch's."""
        saved = {ref: self._sealed(ref, state, states) for ref, state in done.states.items()}
        if done.events or done.asks:
            self.rows += self._rows(event, done)
        self.saved.update(saved)
        self._states.update(done.states)
        if self._needs is not None:
            self._asked.update(ref.key for ref in saved if ref.kind == self._kind)
        self._finish(entry, event.id)
        self.failing.setdefault(event.key, False)
        self.counts.handled += 1

    def _sealed(self, ref: Ref, state: State | None, states: dict[Ref, State | None]) -> Saved:
        if ref not in states:
            raise AssertionError(f"decide wrote {ref}, which its needs did not name")
        if state is None:
            return Saved(ref, None, None)
        if ref.kind not in self._labels:
            return Saved(ref, ENCODE(state), None)
        label = self._labels[ref.kind](state)
        storable(label)
        return Saved(ref, ENCODE(state), label)

    def _rows(self, event: Event, done: Done) -> list[Outgoing]:
        unit, rows = self.unit, []
        for n, emit in enumerate(done.events):
            key = emit.key
            if key is None:
                key = event.key
            else:
                storable(key)
            if emit.topic not in unit.entry.writes:
                raise ValueError(f"{unit.name} does not write {emit.topic} by the catalog")
            rows.append(published(unit, event, emit.topic, key, unit.book.seal(emit.data), n))
        if done.asks:
            rows += [self._ask(event, ask, n) for n, ask in enumerate(done.asks)]
        return rows

    def _ask(self, event: Event, ask: Ask, ordinal: int) -> Outgoing:
        if ask.gateway not in self.unit.entry.asks:
            raise ValueError(f"{self.unit.name} does not ask {ask.gateway} by the catalog")
        if (ask.gateway == CLOCK) != (0 < ask.due <= LATEST):
            raise ValueError("a due time is what the clock needs, and no other gateway takes")
        id_ = child_id(event.id, self.unit.name, f"ask:{ask.gateway}:{ask.name}", ordinal)
        message = Message(
            event.key, ENCODE(ask.request), id_, "ask", 1, event.appended_at, event.id,
            event.trace, self.unit.name, event.notes,  # type: ignore[arg-type]
        )
        key = ask.idempotency_key or id_.hex()
        storable(key + ask.name)
        return Outgoing(ask.gateway, False, message, ask.name, key, ask.due)

    def _finish(self, entry: Entry, id_: bytes) -> None:
        self.marks[id_] = entry.record.partition
        self._seen.add(id_)
        if entry.row is not None:
            self.drop.append(entry.record)

    def _pass_duplicate(self, entry: Entry) -> None:
        self.counts.duplicates += 1
        if entry.row is not None:
            self.drop.append(entry.record)

    def _stay_behind(self, entry: Entry) -> None:
        """Keep the record behind its key's head; one that waits already keeps its row."""
        event = entry.event
        if event is not None and event.id in self._seen:
            self._pass_duplicate(entry)
        elif entry.row is None:
            self.counts.behind += 1
            w = Waiting(record=entry.record, state="waiting", due=0, attempts=0)
            self.put[entry.record.position] = w

    def _failed(self, entry: Entry, error: str, after_seconds: float | None) -> None:
        policy = self.unit.entry.retry
        self.failing[entry.record.message.key] = True
        errors = _story(entry, self.now, error)
        attempt = (entry.row.attempts if entry.row else 0) + 1
        if attempt >= policy.attempts:
            self.park(entry, "attempts_exhausted", error, errors, charged=1)
            return
        self.counts.retried += 1
        own = policy.delay_seconds(attempt)
        wait = after_seconds if after_seconds is not None and 0 <= after_seconds < 1e9 else own
        self._wait(entry, self.now + int(wait * 1000), errors, charged=1)

    def _wait(self, entry: Entry, due: int, errors: Errors, charged: int) -> None:
        row = entry.row
        aside = row is not None and row.state == "aside"
        self.put[entry.record.position] = Waiting(
            record=entry.record, state="aside" if aside else "waiting",
            due=min(max(due, 1), LATEST), attempts=(row.attempts if row else 0) + charged,
            errors=errors, deaths=row.deaths if row else 0,
        )
        if not aside:
            self._held.add(entry.held)

    def park(
        self, entry: Entry, kind: str, reason: str, errors: Errors, charged: int = 0
    ) -> None:
        """Set the record aside: a row that holds its key back, and a dead letter."""
        self.counts.parked += 1
        halts = self.unit.entry.after_park == "halt" and not keyless(entry.record.message)
        self.put[entry.record.position] = Waiting(
            record=entry.record, state="parked" if halts else "aside", due=0, errors=errors,
            attempts=(entry.row.attempts if entry.row else 0) + charged, kind=kind,
        )
        if halts:
            self._held.add(entry.held)
        self.rows.append(self._dead_letter(entry, kind, reason, errors))

    def _dead_letter(self, entry: Entry, kind: str, reason: str, errors: Errors) -> Outgoing:
        r, m = entry.record, entry.record.message
        letter = Parked(
            service=self.unit.name, service_version=self.unit.service.version, topic=r.topic,
            partition=r.partition, offset=r.offset, appended_at=r.appended_at,
            event_id=m.id.hex(), type=m.type, schema_version=m.version, key=m.key, kind=kind,
            reason=reason[:TEXT_CHARS_MAX], owner=self.unit.entry.owner, trace=m.trace,
            value=m.value, attempts=tuple(Attempt(at=at, error=e) for at, e in errors),
        )
        return self._about(entry.record, self.unit.dead, "dead.parked", letter, self.now)

    def _about(
        self, record: Record, topic: str, type_: str, about: Any, at: int, cause: bytes = b""
    ) -> Outgoing:
        """A row that tells of a record's parking; its id holds the time, for it may recur."""
        m, named = record.message, bytes.fromhex(about.event_id)
        parent = named if len(named) == 16 else _origin(record)
        id_ = child_id(parent, self.unit.name, f"{type_}:{topic}:{at}", record.offset)
        kind, version, value = self.unit.book.seal_as(type_, about)
        message = Message(
            m.key, value, id_, kind, version, at, cause or parent, m.trace, self.unit.name
        )
        return Outgoing(topic, True, message)

    def last_error(self) -> str:
        """The latest error of this batch, for people."""
        stories = [w.errors[-1][1] for w in self.put.values() if w.errors]
        return stories[-1] if stories else "none"

    # Operators -----------------------------------------------------------------------------

    def _obey(self, entry: Entry, event: Event) -> None:
        """A request on the journal: release or discard the parked record it names."""
        self._finish(entry, event.id)
        self.counts.handled += 1
        row = self._wished(event)
        if row is None or row.record.position in self._unparked:
            return
        self._unparked.add(row.record.position)
        retry = event.type == RETRY_REQUESTED
        if retry:
            state = "waiting" if row.state == "parked" else "aside"
            self.put[row.record.position] = Waiting(
                record=row.record, state=state,  # type: ignore[arg-type]
                due=self.now, attempts=0, errors=row.errors, kind="",
            )
        else:
            self._discard(row)
        self._tell_unparked(row, event, "dead.retried" if retry else DISCARDED)

    def _wished(self, event: Event) -> Waiting | None:
        """The parked record that a request names, if it is one of ours. The key is held against
        it, too: places move with a house that goes to a cluster, and a request may be older."""
        wish = event.data
        if wish.service != self.unit.name:
            return None
        row = self._backlog.find(Position(wish.topic, wish.partition, wish.offset))
        is_meant = row is not None and row.record.message.key == wish.key and is_parked(row)
        return row if is_meant else None

    def _discard(self, row: Waiting) -> None:
        self.drop.append(row.record)
        id_ = row.record.message.id
        if len(id_) == 16 and id_ not in self._seen:
            self.marks[id_] = row.record.partition
            self._seen.add(id_)

    def _tell_unparked(self, row: Waiting, event: Event, type_: str) -> None:
        wish, at, dead = event.data, event.appended_at, self.unit.dead
        said = self._unparked_of(row, wish)
        self.rows.append(self._about(row.record, dead, type_, said, at, event.id))
        if type_ == DISCARDED and self.unit.answers in self.unit.reads:
            answers, told = self.unit.answers, self._first_discarded(row, said)
            self.rows.append(self._about(row.record, answers, type_, told, at, event.id))

    def _unparked_of(self, row: Waiting, wish: Any) -> Unparked:
        r, m = row.record, row.record.message
        return Unparked(
            service=self.unit.name, topic=r.topic, partition=r.partition, offset=r.offset,
            event_id=m.id.hex(), type=m.type, key=m.key, kind=row.kind, reason=wish.reason,
            actor=wish.actor,
        )

    def _first_discarded(self, row: Waiting, said: Unparked) -> Unparked:
        """Where the news of a discard was parked and is discarded as well, the service is told of
        the first one again: what it has to compensate for is still that."""
        m = row.record.message
        if m.type != DISCARDED or row.record.topic != self.unit.answers:
            return said
        try:
            first: Unparked = self.unit.book.open(m.type, m.version, m.value)
        except (Malformed, UnknownSchema):
            return said
        return replace(first, reason=said.reason, actor=said.actor)


def is_parked(row: Waiting) -> bool:
    """Is the row set aside (and not waiting for its time)?"""
    return row.state == "parked" or (row.state == "aside" and not row.due)


def _origin(record: Record) -> bytes:
    """An id for a record that has none: its place."""
    place = record.topic, str(record.partition), str(record.offset)
    return root_id(record.appended_at, *place)


def _story(entry: Entry, now: int, error: str) -> Errors:
    """The attempts so far and this one, the first and the latest kept."""
    errors = (entry.row.errors if entry.row else ()) + ((now, error[:TEXT_CHARS_MAX]),)
    if len(errors) <= ATTEMPTS_KEPT_MAX:
        return errors
    return errors[:1] + errors[-(ATTEMPTS_KEPT_MAX - 1) :]
