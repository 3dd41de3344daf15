"""A house on its way: its home, the broker and the database, and the move that joins them."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from msgspec.structs import replace

from penstock import assemble
from penstock.assemble import Cluster, House
from penstock.errors import Conflict, NotFound, Usage
from penstock.moving import move as moves
from penstock.moving.home import Home
from penstock.moving.move import Move

TABLES = ("owners", "checkpoints", "marks", "documents", "waiting", "outbox")


def cluster_of(house: House) -> Cluster:
    """Where the house moves to. Raises ``Usage``, ``NotFound``."""
    if not (house.home / "home.json").exists():
        raise NotFound("no_home", f"There is no home {house.home}.", "Name one with --home.")
    if house.cluster is None:
        raise Usage(
            "no_cluster", "Nothing says where to move to.",
            "Name --kafka and --postgres, or put both into the catalog.",
        )
    return house.cluster


class Moving:
    """A house on its way; what it needs is opened when it is first used."""

    def __init__(self, house: House) -> None:
        self.house, self.cluster = house, cluster_of(house)
        self.home = Home(house)
        self.topics = list(house.catalog.topics)
        self.log = self.cluster.log(assemble.specs(house.catalog))
        self._ledger: Any = None

    def close(self) -> None:
        """Let go of everything."""
        self.home.close()
        self.log.close()
        if self._ledger is not None:
            self._ledger.close()

    @property
    def ledger(self) -> Any:
        """The database, as who puts rows in."""
        if self._ledger is None:
            self._ledger = self.cluster.copying()
        return self._ledger

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One step at a time: two copies at once would write every record twice. Raises
        ``Conflict``."""
        self.house.run.mkdir(mode=0o700, exist_ok=True)
        with open(self.house.run / "move.lock", "wb") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict(
                    "step_under_way", "Another penstock migrate works on this home.",
                    "Wait for it, or end it: every step may be broken off.",
                ) from None
            yield

    def move(self) -> Move | None:
        """The move that was begun here, for the topics of this catalog. One that was begun for
        others, and went no further than copying, counts for nothing. Raises ``Conflict``."""
        found = moves.read(self.house.home)
        if found is None or found.prefix == self.cluster.kafka.prefix:
            return found
        if "fenced" in found.done:
            raise Conflict(
                "another_move", f"This home moves to topics with the prefix {found.prefix!r}.",
                "Use the catalog it was begun with, or: penstock migrate return",
            )
        return None

    def at(self, step: moves.Step) -> Move:
        """The move, where the step before this one is done. Raises ``Conflict``."""
        if self.move() is None:
            raise Conflict("not_copied", "No move to this cluster was begun here.",
                           "First: penstock migrate copy")  # fmt: skip
        return moves.after(self.house.home, step)

    def begun(self) -> Move:
        """The move, begun now where it was not: what is older than these offsets stays behind."""
        found, kafka = self.move(), self.cluster.kafka
        if found is None:
            old = moves.read(self.house.home)
            found = Move(
                id=old.id if old else moves.new_id(), kafka=kafka.servers, prefix=kafka.prefix,
                database=self.cluster.postgres_shown, firsts={},
            )
        found = replace(found, firsts={topic: self._firsts(topic, found) for topic in self.topics})
        moves.write(self.house.home, found)
        return found

    def _firsts(self, topic: str, move: Move) -> list[int]:
        """Where each partition's copy begins: as it did, or, of one that has no records there yet,
        where the home's begins now."""
        here, known = self.home.extents(topic), move.firsts.get(topic, [])
        return [
            known[n] if have and n < len(known) else extent.first
            for n, (extent, have) in enumerate(zip(here, self.there(topic), strict=True))
        ]

    def there(self, topic: str) -> list[int]:
        """How many records of a topic came to Kafka, by partition."""
        try:
            return [extent.next for extent in self.log.extent(topic)]
        except NotFound:
            return [0] * self.house.catalog.topics[topic].partitions

    def state(self, move: Move | None) -> str:
        """Where the move stands in the database; empty where it never came there."""
        return str(self.ledger.state(move.id)) if move is not None else ""

    def touched(self, move: Move, latest: int) -> str:
        """What was written on the cluster since the switch, in a topic or in a transaction of a
        number up to ``latest``; empty where nothing was."""
        if latest != move.txn:
            return f"transactions after {move.txn} were committed"
        for topic, ends in move.ends.items():
            if [extent.next for extent in self.log.extent(topic)] != ends:
                return f"{topic} has records that did not come from the home"
        return ""
