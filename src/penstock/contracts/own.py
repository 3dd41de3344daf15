"""The engine's own contracts: what it writes to answers, dead letters and the journal.

They are contracts like any flow's, with snapshots in ``own_snapshots`` beside this file, because
their records are retained and replayed like all others. ``Answer.body`` and
``Wake.request`` hold any JSON as it came: Avro has no such type, so their schema says bytes with
the mark ``"json": "any"``.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from penstock.contracts.contract import Contract, Model, Older
from penstock.decision import Answer, Parked, Unparked, Wake
from penstock.entry import Discarded, DiscardRequested, Retried, RetryRequested


class Request(Struct, frozen=True, kw_only=True, gc=False):
    """Version 1 of what an operator wants: before the entries of the journal were linked."""

    service: str
    topic: str
    partition: int
    offset: int
    key: str
    reason: str
    actor: str


class UnparkedOnce(Struct, frozen=True, kw_only=True, gc=False):
    """Version 1 of what tells that a parked record left: without the number of the request."""

    service: str
    topic: str
    partition: int
    offset: int
    event_id: str
    type: str
    key: str
    kind: str
    reason: str
    actor: str


def _into(model: Model) -> Any:
    """The upcast that keeps every field, and leaves new ones at what they are without."""
    return lambda old: model(**{name: getattr(old, name) for name in old.__struct_fields__})


def _once(old: Model, new: Model) -> tuple[Older, ...]:
    return (Older(1, old, _into(new)),)


OWN: tuple[Contract, ...] = (
    Contract(type="answer", version=1, model=Answer, about="The outcome of an ask."),
    Contract(type="wake", version=1, model=Wake, about="The clock's answer."),
    Contract(type="dead.parked", version=1, model=Parked, about="A record was parked."),
    Contract(
        type="dead.retried", version=2, model=Unparked, older=_once(UnparkedOnce, Unparked),
        about="It was retried.",
    ),
    Contract(
        type="dead.discarded", version=2, model=Unparked, older=_once(UnparkedOnce, Unparked),
        about="It was discarded.",
    ),
    Contract(
        type="deadletter.retry_requested",
        version=2,
        model=RetryRequested,
        older=_once(Request, RetryRequested),
        about="An operator wants a parked record retried.",
    ),
    Contract(
        type="deadletter.discard_requested",
        version=2,
        model=DiscardRequested,
        older=_once(Request, DiscardRequested),
        about="An operator wants a parked record discarded.",
    ),
    Contract(
        type="deadletter.retried", version=1, model=Retried,
        about="A parked record was released for another try.",
    ),
    Contract(
        type="deadletter.discarded", version=1, model=Discarded,
        about="A parked record was given up.",
    ),
)
