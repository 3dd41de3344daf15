"""The person on call in a simulated world: retries what is parked, discards what comes back.

Each wish is an entry of the journal, written by a gate of the person's own, as the command line
does: it commits to the journal's store in a process that is none of the service's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.catalog.model import JOURNAL
from penstock.engine.batch import is_parked
from penstock.entry import DISCARD_REQUESTED, REQUESTED, RETRY_REQUESTED
from penstock.errors import StorageFull
from penstock.event import Message
from penstock.flow import Scan
from penstock.ops.scribe import NotWritten, Scribe
from penstock.ports import Store, Waiting
from penstock.sim.members import SkewedClock

if TYPE_CHECKING:
    from penstock.sim.world import World

LOOK_MS = 400
ACTOR = "sim"


class Operator:
    """Writes requests to the journal, and a stranger's records beside them."""

    def __init__(self, world: World) -> None:
        self._world, self._asked = world, 0
        self.log = world.parts.log()
        self.store: Store = world.parts.store(JOURNAL)
        self._scribe = Scribe(
            world.catalog, world.book, self.store, SkewedClock(world), self._heard
        )
        self._retried: set[tuple[str, str, int, int]] = set()

    def begin(self) -> None:
        """Look at the dead letters again and again while faults strike."""
        if self._world.faults.on("operator"):
            self._world.at(self._world.now + LOOK_MS, self._look)

    def _look(self) -> None:
        faults = self._world.faults
        for service, row in self._parked():
            if faults.fires("operator:retry"):
                self._ask(RETRY_REQUESTED, service, row)
            elif faults.fires("operator:discard"):
                self._ask(DISCARD_REQUESTED, service, row)
        if faults.fires("foreign:append"):
            self._foreign()
        if faults.on("operator"):
            self._world.at(self._world.now + LOOK_MS, self._look)

    def clear(self, turn: int) -> int:
        """Retry everything that is parked; what was retried before is discarded, or left."""
        asked = 0
        for service, row in self._parked():
            r = row.record
            place = service, r.topic, r.partition, r.offset
            if place not in self._retried:
                self._retried.add(place)
                self._ask(RETRY_REQUESTED, service, row)
                asked += 1
            elif self._world.roll() < 0.5 and turn < 8:
                self._ask(DISCARD_REQUESTED, service, row)
                asked += 1
        return asked

    def _parked(self) -> list[tuple[str, Waiting]]:
        found = []
        for service in self._world.units:
            what = Scan(service=service, table="waiting", limit=10_000)
            rows = self._world.reader(service).scan(what)
            found += [(service, row.body) for row in rows if is_parked(row.body)]
        return found

    def _ask(self, type_: str, service: str, row: Waiting) -> None:
        world, r = self._world, row.record
        wish = REQUESTED[type_](
            service=service, topic=r.topic, partition=r.partition, offset=r.offset,
            key=r.message.key, reason="simulated", actor=ACTOR,
        )
        if (service, r.message.id) in world.deaths:
            world.deaths[service, r.message.id] = 0
        world.note(f"{type_} {service} {r.topic} {r.partition} {r.offset}")
        try:
            world.aside(lambda: self._scribe.write(wish))
        except NotWritten:
            return  # the person sees that it failed, and will look again

    def _foreign(self) -> None:
        """A record that some other program wrote, without an envelope."""
        self._asked += 1
        try:
            self.log.append(
                JOURNAL, [Message(f"foreign-{self._asked}", b"not of ours")], self._world.now
            )
        except StorageFull:
            return
        self._heard({JOURNAL})

    def _heard(self, topics: set[str]) -> None:
        for process in self._world.processes:
            process.hear(topics)
