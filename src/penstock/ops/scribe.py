"""Whoever writes entries: a web, a command. Nothing is done before its entry is durable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from penstock.catalog.model import JOURNAL, Catalog
from penstock.contracts.wire import Book
from penstock.engine.intake import Gate, Wanted
from penstock.entry import Entry
from penstock.errors import Inconclusive, Problem
from penstock.flow import Call, Fault, Reply
from penstock.ops.journal import Kept, intake, service, witnessing_of
from penstock.ports import Clock, Store

AWAY_CODE = "store_unreachable"  # of the gate: a commit that nobody heard the end of

Written = TypeVar("Written", bound=Entry)


class NotWritten(Problem):
    """The journal took no entry, so nothing may be done."""


class Unsure(Inconclusive):
    """Nobody knows whether the journal took the entry: what it announces must not be done here,
    and whoever obeys entries may."""


class Scribe:
    """The way into the journal, for one thread at a time. Any number of processes may have one:
    the end of the chain is one document, and the store lets one at a time move it."""

    def __init__(
        self, catalog: Catalog, book: Book, store: Store, clock: Clock,
        tell: Callable[[set[str]], None] = lambda topics: None,
    ) -> None:  # fmt: skip
        asks, states = frozenset(catalog.services[JOURNAL].asks), service(catalog).states
        self._clock, self._intake = clock, intake(witnessing_of(catalog))
        self._gate = Gate(JOURNAL, states, {}, book, store, clock, tell, asks=asks)

    def write(self, entry: Written) -> Written:
        """The entry as it stands in the journal, durable. Raises ``NotWritten``, or ``Unsure``:
        what it announces must not be done then."""
        return cast(Written, self.write_all((entry,))[0])

    def write_all(self, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
        """Several, one after the other, in one transaction."""
        call = Call(client=entries[0].actor, now=self._clock.now(), body=entries)
        replies: list[Reply] = []
        for deliver, reply in self._gate.commit([Wanted(self._intake, call, replies.append)]):
            deliver(reply)
        (reply,) = replies
        if reply.status != 201:
            raise _refused(reply.body)
        return cast(Kept, reply.body).entries


def _refused(body: Any) -> Problem:
    fault = cast(Fault, body)
    if fault.code == AWAY_CODE:
        return Unsure(
            "journal_unknown",
            "The database does not answer: it is not known whether the journal took the entry.",
            "Look: penstock journal log. To ask for the same again does no harm.",
        )
    return NotWritten(
        "not_journaled", f"The journal took no entry, so nothing was done: {fault.detail}",
        "Repeat it when that is mended; see: penstock status",
    )
