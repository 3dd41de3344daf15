"""The engine's own contracts: what it writes to answers, dead letters and the journal.

They are contracts like any flow's, with snapshots in ``own_snapshots`` beside this file, because
their records are retained and replayed like all others. ``Answer.body`` and
``Wake.request`` hold any JSON as it came: Avro has no such type, so their schema says bytes with
the mark ``"json": "any"``.
"""

from __future__ import annotations

from penstock.contracts.contract import Contract
from penstock.decision import Answer, Parked, Request, Unparked, Wake

OWN: tuple[Contract, ...] = (
    Contract(type="answer", version=1, model=Answer, about="The outcome of an ask."),
    Contract(type="wake", version=1, model=Wake, about="The clock's answer."),
    Contract(type="dead.parked", version=1, model=Parked, about="A record was parked."),
    Contract(type="dead.retried", version=1, model=Unparked, about="It was retried."),
    Contract(type="dead.discarded", version=1, model=Unparked, about="It was discarded."),
    Contract(
        type="deadletter.retry_requested",
        version=1,
        model=Request,
        about="An operator wants a parked record retried.",
    ),
    Contract(
        type="deadletter.discard_requested",
        version=1,
        model=Request,
        about="An operator wants a parked record discarded.",
    ),
)
