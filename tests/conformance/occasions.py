"""Histories made step by step, in which one mistake of a store is sure to meet its occasion.

Each is a function of two clients. It ends the same way whatever the store does, so a sound store
leaves a clean history of it, and a broken one its anomaly: nothing is left to chance or to time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from penstock.conformance.history import Op, Recorder, load
from penstock.conformance.history_load import LOAD_TOPICS, Backend, said
from penstock.conformance.history_ports import RecordedLog, RecordedStore, Recording
from penstock.conformance.logs import NOTICES
from penstock.conformance.scenario import NOW, message
from penstock.conformance.stores import SERVICE
from penstock.errors import StaleOwner
from penstock.event import Record, root_id
from penstock.ports import Advance, Lane
from tests.support import eventually

TOPIC, SECONDS, LIMIT = NOTICES.name, 30, 100


class Client:
    """A producer, an owner of lanes and a reader, each of whose steps is told to it."""

    def __init__(self, backend: Backend, folder: Path, name: str) -> None:
        self._backend = backend
        self._recorder = Recorder(folder / f"{name}.jsonl", name, fresh=backend.fresh)
        recording = Recording(self._recorder, LOAD_TOPICS, said)
        self._log = RecordedLog(backend.log, recording)
        self._store = RecordedStore(backend.store, recording, SERVICE, backend.direct)
        self._lane: Lane | None = None
        self.epochs: dict[int, int] = {}

    def append(self, value: str) -> None:
        """One message; the same value is the same message."""
        self._log.append(TOPIC, [message("k", value, id=root_id(NOW, value))], NOW)

    def claim(self, lane: int) -> None:
        """Own a lane from now on."""
        (claim,) = self._store.claim([lane], NOW)
        self.epochs[lane] = claim.epoch

    def take(self, count: int) -> list[Record]:
        """So many records of all lanes, each of which is claimed when its first one comes."""
        self._lane = self._lane or self._log.join(SERVICE, (TOPIC,))
        lane, found = self._lane, dict[tuple[str, int, int], Record]()

        def all_there() -> bool:
            assigned = lane.take(0, {}).assigned
            taken = lane.take(LIMIT, {(TOPIC, n): 0 for n in assigned})
            found.update((r.position, r) for r in taken.records)
            return len(found) >= count

        eventually(all_there, SECONDS, what=f"{count} records are taken")
        records = [found[place] for place in sorted(found)]
        for n in sorted({r.partition for r in records} - self.epochs.keys()):
            self.claim(n)
        return records

    def commit(self, record: Record) -> None:
        """Handle it, if it was not, and pass it. Raises ``StaleOwner``."""
        lane, id_ = record.partition, record.message.id
        with self._store.begin() as tx:
            passed = {TOPIC: record.offset + 1}
            tx.advance([Advance(lane, self.epochs[lane], passed)], NOW)
            if id_ not in tx.load([], [id_]).seen:
                tx.mark([id_])

    def close(self) -> None:
        """Read everything once more, and go."""
        for n, (first, next_) in enumerate(self._log.extent(TOPIC)):
            if first < next_:
                self._log.read(TOPIC, n, first, LIMIT)
        if self._lane is not None:
            self._lane.leave()
        self._backend.close()
        self._recorder.close()


Occasion = Callable[[Client, Client], None]


def it_commits_after_another_claimed(first: Client, second: Client) -> None:
    """An owner that slept: when it wakes up, its lane is somebody else's."""
    first.append("n1")
    (record,) = first.take(1)
    second.claim(record.partition)
    with suppress(StaleOwner):
        first.commit(record)


def a_message_comes_twice(first: Client, second: Client) -> None:
    """A producer that did not hear of its append repeats it."""
    for client in (first, second):
        client.append("n1")
    for record in first.take(2):
        first.commit(record)


def a_commit_is_asked_for_again(first: Client, second: Client) -> None:
    """An owner commits and hears that it is done; the next one goes on from there."""
    first.append("n1")
    (record,) = first.take(1)
    first.commit(record)
    second.claim(record.partition)


@contextmanager
def _clients(opener: Callable[[], Backend], folder: Path) -> Iterator[tuple[Client, Client]]:
    first, second = (Client(opener(), folder, name) for name in ("first", "second"))
    try:
        yield first, second
    finally:
        second.close()
        first.close()


def recorded(occasion: Occasion, opener: Callable[[], Backend], folder: Path) -> list[Op]:
    """The history that two clients of a backend leave."""
    with _clients(opener, folder) as (first, second):
        occasion(first, second)
    return load(folder)
