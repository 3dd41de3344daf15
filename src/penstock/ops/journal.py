"""The journal as a service: the one writer of the platform's own topic.

Its store holds the end of the chain. An entry enters by a gate, as requests do at the door: one
transaction loads the head, links the entry, saves the head and emits the record. So it is durable
and linked before anything obeys it. What came of a wish is an entry too: the service reads the
dead letters of all services and notes there how they ended.

Where the catalog names a witness, the head goes there every so many entries, and some time after
the latest one.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import cast

from msgspec import Struct

from penstock.catalog.model import CLOCK, JOURNAL, WITNESSES, Catalog, dead_of
from penstock.decision import (
    IGNORE,
    Ask,
    Context,
    Decision,
    Done,
    Emit,
    Ref,
    Service,
    State,
    States,
    Unparked,
)
from penstock.entry import Discarded, Entry, Head, Retried, end_of, linked
from penstock.event import Event
from penstock.flow import Accepted, Call, Intake, Reply

HEAD = Ref("head", JOURNAL)
WITNESSED = Ref("witnessed", JOURNAL)
DEAD_RETRIED, DEAD_DISCARDED = "dead.retried", "dead.discarded"
CHECKPOINT = "checkpoint"  # the name of the asks


class Witnessed(Struct, frozen=True, gc=False):
    """How far the witnesses were told of the chain; ``armed``: a wake is on its way."""

    seq: int = 0
    armed: bool = False


class Witnessing(Struct, frozen=True, kw_only=True):
    """Who is told of the chain's head, after how many entries and how long (ms)."""

    gateways: tuple[str, ...] = ()
    every: int = 1
    after_ms: int = 0


def witnessing_of(catalog: Catalog) -> Witnessing:
    """What the catalog says of witnesses."""
    said = catalog.journal
    return Witnessing(
        gateways=tuple(name for name in WITNESSES if name in catalog.gateways),
        every=said.checkpoint_every, after_ms=int(said.checkpoint_seconds * 1000),
    )


def service(catalog: Catalog) -> Service:
    """The journal's service in this catalog."""
    dead = [dead_of(s.name) for s in catalog.services.values() if s.handler]
    return Service(
        name=JOURNAL, kind=WITNESSED.kind,
        states={HEAD.kind: Head, WITNESSED.kind: Witnessed},
        reads={
            **dict.fromkeys(dead, (DEAD_RETRIED, DEAD_DISCARDED)),
            f"{JOURNAL}.answers": ("wake",),
        },
        needs=lambda event, own: (HEAD, WITNESSED),
        decide=partial(_decide, witnessing_of(catalog)),
    )


def _decide(witnessing: Witnessing, states: States, event: Event, context: Context) -> Decision:
    if event.type == "wake":
        return _told(witnessing, _head(states), _witnessed(states, armed=False))
    if event.type in (DEAD_RETRIED, DEAD_DISCARDED):
        entry = noted(event.type, event.data)
        return append(witnessing, states, (entry,), context.now)
    return IGNORE  # a discarded record of its own, or an answer of a witness


def noted(type_: str, said: Unparked) -> Entry:
    """What became of a parked record, as an entry."""
    made = Retried if type_ == DEAD_RETRIED else Discarded
    return made(
        actor=said.actor, key=said.key, reason=said.reason, service=said.service,
        topic=said.topic, partition=said.partition, offset=said.offset, event_id=said.event_id,
        kind=said.kind, request_seq=said.request_seq,
    )


def append(
    witnessing: Witnessing, states: Mapping[Ref, State | None], entries: tuple[Entry, ...],
    now: int,
) -> Done:  # fmt: skip
    """The entries linked to the chain's end, and the witnesses told where it is time."""
    head, events = _head(states), []
    for entry in entries:
        entry = linked(entry, head, now)
        events.append(Emit(JOURNAL, entry, entry.key))
        head = end_of(entry)
    told = _witnessed(states)
    if not witnessing.gateways:
        return Done(states={HEAD: head}, events=tuple(events))
    if head.seq - told.seq >= witnessing.every:
        asked = _told(witnessing, head, told)
    elif told.armed:
        asked = Done()
    else:
        wake = Ask(CLOCK, CHECKPOINT, due=max(1, now + witnessing.after_ms))
        asked = Done(states={WITNESSED: Witnessed(told.seq, True)}, asks=(wake,))
    return Done(states={HEAD: head, **asked.states}, events=tuple(events), asks=asked.asks)


def _told(witnessing: Witnessing, head: Head, told: Witnessed) -> Done:
    """Every witness is asked to keep the head, where it moved since."""
    if head.seq <= told.seq:
        return Done(states={WITNESSED: told})
    asks = tuple(
        Ask(name, CHECKPOINT, head, f"checkpoint-{head.seq}-{head.hash[:16]}-{name}")
        for name in witnessing.gateways
    )
    return Done(states={WITNESSED: Witnessed(head.seq, told.armed)}, asks=asks)


def _head(states: Mapping[Ref, State | None]) -> Head:
    return cast(Head | None, states.get(HEAD)) or Head()


def _witnessed(states: Mapping[Ref, State | None], *, armed: bool | None = None) -> Witnessed:
    found = cast(Witnessed | None, states.get(WITNESSED)) or Witnessed()
    return found if armed is None else Witnessed(found.seq, armed)


class Kept(Struct, frozen=True):
    """What the gate answers: the entries as they stand in the journal now."""

    entries: tuple[Entry, ...]


def intake(witnessing: Witnessing) -> Intake:
    """The gate's way in: the call's body is the entries."""

    def decide(states: States, call: Call) -> Accepted:
        done = append(witnessing, states, call.body, call.now)
        kept = Kept(tuple(emit.data for emit in done.events))
        first, last = kept.entries[0], kept.entries[-1]
        return Accepted(
            reply=Reply(status=201, body=kept), done=done,
            root=(str(first.seq), last.hash), key=first.key,
        )  # fmt: skip

    return Intake(needs=lambda call: (HEAD, WITNESSED), decide=decide)
