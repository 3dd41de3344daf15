"""The person on call in a simulated world: retries what is parked, discards what comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.catalog.model import JOURNAL
from penstock.decision import Request
from penstock.engine.batch import is_parked
from penstock.engine.unit import DISCARD_REQUESTED, RETRY_REQUESTED
from penstock.errors import StorageFull
from penstock.event import Message, root_id
from penstock.flow import Scan
from penstock.ports import Waiting

if TYPE_CHECKING:
    from penstock.sim.world import World

LOOK_MS = 400
ACTOR = "sim"


class Operator:
    """Writes requests to the journal, as the command line does."""

    def __init__(self, world: World) -> None:
        self._world, self._asked = world, 0
        self.log = world.parts.log()
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
        wish = Request(
            service=service, topic=r.topic, partition=r.partition, offset=r.offset,
            key=r.message.key, reason="simulated", actor=ACTOR,
        )
        kind, version, value = world.book.seal_as(type_, wish)
        self._asked += 1
        if (service, r.message.id) in world.deaths:
            world.deaths[service, r.message.id] = 0
        id_ = root_id(world.now, ACTOR, type_, str(self._asked))
        world.note(f"{type_} {service} {r.topic} {r.partition} {r.offset}")
        self._append(Message(wish.key, value, id_, kind, version, world.now, b"", "", ACTOR))

    def _foreign(self) -> None:
        """A record that some other program wrote, without an envelope."""
        self._append(Message(f"foreign-{self._asked}", b"not of ours"))

    def _append(self, message: Message) -> None:
        try:
            self.log.append(JOURNAL, [message], self._world.now)
        except StorageFull:
            return  # the person sees that it failed, and will look again
        for process in self._world.processes:
            process.hear({JOURNAL})
