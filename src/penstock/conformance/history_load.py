"""A load that leaves a history: members that append, take, commit, carry, read, leave and die.

``record`` runs it over any backend that an ``Opener`` opens, in threads or in processes that are
killed and started again, and then drains it, so that whatever is missing is missing for good.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from threading import Event
from typing import NamedTuple

from penstock.conformance.history import Op, Recorder, load
from penstock.conformance.history_ports import RecordedLog, RecordedStore, Recording
from penstock.conformance.logs import NOTICES
from penstock.conformance.scenario import NOW, PATIENCE_SECONDS, PROCESSES, message, together
from penstock.conformance.stores import ANSWERS, FOLDED, SERVICE
from penstock.errors import Contended, StaleOwner, StorageFull, Unreachable
from penstock.event import Message, Record, child_id, root_id
from penstock.ports import (
    Advance,
    Claim,
    Lane,
    Log,
    Outgoing,
    Settled,
    Store,
    Taken,
    TopicSpec,
    courier_lane,
)

CARRIED = "carried"  # written by couriers, out of the outbox
LOAD_TOPICS = (
    TopicSpec(name=NOTICES.name, partitions=4),
    TopicSpec(name=ANSWERS, partitions=4, owner_file=SERVICE),
    TopicSpec(name=FOLDED, partitions=4, owner_file=SERVICE),
    TopicSpec(name=CARRIED, partitions=4),
)
DIRECT = frozenset({ANSWERS, FOLDED})
READS = (NOTICES.name, ANSWERS)
_LANES = range(4)
_KEYS = 24
DRAIN_SECONDS_MAX, JOIN_SECONDS_MAX, LOOK_SECONDS = 60.0, 5.0, 0.01
_TAKE_MAX, _READ_MAX, _CARRY_MAX = 40, 60, 20


class Backend(NamedTuple):
    """A log with ``LOAD_TOPICS`` and the store of ``SERVICE``, opened for one thread.

    ``direct`` topics are appended by the store, in its commits. ``fresh``: see ``Recorder``.
    ``close`` lets go of connections.
    """

    log: Log
    store: Store
    direct: frozenset[str] = DIRECT
    fresh: bool = True
    close: Callable[[], None] = lambda: None


Opener = Callable[[], Backend]


class _Undone(Exception):
    """A member changed its mind inside a transaction."""


def said(message: Message) -> str:
    """A message's value: here it is different in each attempt, where the id is not."""
    return message.value.decode()


class Member:
    """One client: a producer, a worker, a courier and a reader in one, as the dice say."""

    def __init__(self, backend: Backend, recorder: Recorder, dice: Random) -> None:
        self._recorder, self._dice = recorder, dice
        recording = Recording(recorder, LOAD_TOPICS, said)
        self._log = RecordedLog(backend.log, recording)
        self._store = RecordedStore(backend.store, recording, SERVICE, backend.direct)
        self._lane: Lane = self._log.join(SERVICE, READS)
        self._never = Event()
        self._claims: dict[int, Claim] = {}
        self._positions: dict[tuple[str, int], int] = {}
        self._courier: dict[int, int] = {}  # epoch by shard
        self._made = 0
        self._sent: list[Message] = []

    def step(self) -> None:
        """One thing or another."""
        acts = (self.append, self.turn, self.carry, self.look, self.rejoin, self.steal)
        (act,) = self._dice.choices(acts, (30, 45, 10, 10, 2, 3))
        act()

    def _fresh(self, stem: str) -> str:
        self._made += 1
        return f"{stem}.{self._recorder.process}.{self._made}"

    def _key(self) -> str:
        return f"k{self._dice.randrange(_KEYS)}"

    def append(self) -> None:
        """Some messages to the topic of several producers; now and then some once more."""
        if self._sent and self._dice.random() < 0.1:
            messages = self._dice.sample(self._sent, min(3, len(self._sent)))
        else:
            messages = [self._message() for _ in range(self._dice.randint(1, 6))]
        with suppress(StorageFull, Unreachable):
            self._log.append(NOTICES.name, messages, NOW)
            self._sent = (self._sent + messages)[-50:]

    def _message(self) -> Message:
        value = self._fresh("n")
        return message(self._key(), value, id=root_id(NOW, value))

    def turn(self) -> bool:
        """Take and commit; whether there was anything to handle."""
        taken = self._lane.take(self._dice.randint(1, _TAKE_MAX), self._positions)
        self._own(taken)
        records = [r for r in taken.records if r.partition in self._claims]
        if records:
            try:
                self._commit(records)
            except (StaleOwner, Unreachable):
                self._forget(list(self._claims))
            except (Contended, _Undone):
                pass  # nothing was written: the same records are taken again
        elif not self._log.features.at_once:
            self._never.wait(LOOK_SECONDS)  # what was appended comes in a moment
        return bool(records)

    def join_in(self) -> None:
        """Where a log takes its time to share out lanes, wait for some, though not for ever:
        others may have them all."""
        until = time.monotonic() + JOIN_SECONDS_MAX
        while not (self._log.features.at_once or self._claims) and time.monotonic() < until:
            self.turn()

    def _own(self, taken: Taken) -> None:
        self._forget(self._claims.keys() - taken.assigned)
        new = sorted(taken.assigned - self._claims.keys())
        for claim in self._store.claim(new, NOW) if new else ():
            self._claims[claim.lane] = claim
            for topic in READS:
                first = self._log.extent(topic)[claim.lane].first
                self._positions[topic, claim.lane] = claim.positions.get(topic, first)

    def _forget(self, lanes: Iterable[int]) -> None:
        for lane in list(lanes):
            del self._claims[lane]
            for topic in READS:
                del self._positions[topic, lane]

    def _commit(self, records: Sequence[Record]) -> None:
        """Marks, what follows from each record, and the positions, in one transaction."""
        ends = {(r.topic, r.partition): r.offset + 1 for r in records}
        moved = self._positions | ends
        if self._dice.random() < 0.05:
            self.steal()  # perhaps a lane of this very commit
        with self._store.begin() as tx:
            lanes = sorted({r.partition for r in records})
            tx.advance([self._move(lane, moved) for lane in lanes], NOW)
            seen = tx.load([], [r.message.id for r in records]).seen
            fresh = {r.message.id: r for r in records if r.message.id not in seen}
            tx.mark(list(fresh))
            tx.send([row for record in fresh.values() for row in self._rows(record)], NOW)
            if self._dice.random() < 0.1:
                raise _Undone
        self._positions = moved

    def _move(self, lane: int, positions: dict[tuple[str, int], int]) -> Advance:
        places = {topic: positions[topic, lane] for topic in READS}
        return Advance(lane, self._claims[lane].epoch, places)

    def _rows(self, record: Record) -> list[Outgoing]:
        topics = [FOLDED]
        if record.topic == NOTICES.name:
            topics += [topic for topic in (ANSWERS, CARRIED) if self._dice.random() < 0.3]
        return [self._row(record, topic) for topic in topics]

    def _row(self, record: Record, topic: str) -> Outgoing:
        id_ = child_id(record.message.id, SERVICE, topic, 0)
        return Outgoing(topic, True, message(self._key(), self._fresh(topic[0]), id=id_))

    def carry(self) -> bool:
        """Append what waits in the outbox, then close its rows; whether there was any."""
        topics = {FOLDED, ANSWERS, CARRIED}
        due = [
            row for topic in sorted(topics)
            for row in self._store.due(topic, NOW, (), _CARRY_MAX, is_topic=True)
        ]
        if not due:
            return False
        if not self._courier:
            lanes = {courier_lane(shard): shard for shard in range(self._store.features.shards)}
            claims = self._store.claim(list(lanes), NOW)
            self._courier = {lanes[claim.lane]: claim.epoch for claim in claims}
        done = []
        for row in due:
            with suppress(StorageFull, Unreachable):  # the row stays open, for another time
                self._log.append(row.destination, [row.message], NOW)
                done.append(Settled(row.id, "sent", shard=row.shard))
        try:
            self._store.settle(self._courier, done, ANSWERS, NOW)
        except (StaleOwner, Contended, Unreachable):
            self._courier = {}  # another one carries: claim again before the next time
        return True

    def look(self) -> None:
        """Read some partition from anywhere."""
        topic = self._dice.choice(LOAD_TOPICS).name
        partition = self._dice.choice(_LANES)
        first, next_ = self._log.extent(topic)[partition]
        start = self._dice.randint(first, next_)
        self._log.read(topic, partition, start, self._dice.randint(1, _READ_MAX))

    def rejoin(self) -> None:
        """Leave the group, with lanes in hand, and come back as a new member."""
        self._lane.leave()
        self._forget(list(self._claims))
        self._lane = self._log.join(SERVICE, READS)
        self.join_in()

    def steal(self) -> None:
        """Claim a lane that another member reads, as one that believes it has died would."""
        lane = self._dice.choice(_LANES)
        self._store.claim([lane], NOW)

    def leave(self) -> None:
        """Leave for good."""
        self._lane.leave()

    def drain(self) -> None:
        """Carry and handle all there is, then read every partition from its beginning."""
        until = time.monotonic() + DRAIN_SECONDS_MAX
        while any([self.turn(), self.carry()]) or self._behind():
            assert time.monotonic() < until, f"it was not drained in {DRAIN_SECONDS_MAX:g} s"
        for spec in LOAD_TOPICS:
            for partition, (first, next_) in enumerate(self._log.extent(spec.name)):
                start = first
                while start < next_:
                    start = self._log.read(spec.name, partition, start, 1000)[-1].offset + 1
                self._log.read(spec.name, partition, start, 1000)


    def _behind(self) -> bool:
        """Has a log that tells of records, and of the death of members, only soon after more to
        tell?"""
        if self._log.features.at_once:
            return False
        return any(
            self._positions.get((topic, lane), -1) < extent.next
            for topic in READS for lane, extent in enumerate(self._log.extent(topic))
        )


def live(opener: Opener, folder: Path, name: str, seed: str, steps: int) -> None:
    """One member's life, written to ``<name>.jsonl`` in the folder."""
    backend = opener()
    recorder = Recorder(folder / f"{name}.jsonl", name, fresh=backend.fresh)
    member = Member(backend, recorder, Random(seed))
    member.join_in()
    for _ in range(steps):
        member.step()
    member.leave()
    backend.close()
    recorder.close()


def drain(opener: Opener, folder: Path) -> None:
    """The last member: handles what is left and reads everything."""
    backend = opener()
    recorder = Recorder(folder / "last.jsonl", "last", fresh=backend.fresh)
    member = Member(backend, recorder, Random(0))
    member.drain()
    member.leave()
    backend.close()
    recorder.close()


def record(
    opener: Opener, folder: Path, seed: int, *, members: int = 3, steps: int = 300,
    kills: int = 0, apart: bool = True,
) -> list[Op]:
    """The history of a load: ``members`` of ``steps`` steps each, as threads or, where they are
    ``apart``, as processes of which ``kills`` are killed at any moment and started again.

    ``opener`` is called once in each of them; for processes it can be pickled.
    """
    if apart:
        _processes(opener, folder, seed, members, steps, kills)
    else:
        names = [f"m{n}" for n in range(members)]
        together(*(partial(live, opener, folder, n, f"{seed}/{n}", steps) for n in names))
    drain(opener, folder)
    return load(folder)


def _processes(
    opener: Opener, folder: Path, seed: int, members: int, steps: int, kills: int
) -> None:
    dice = Random(seed)
    lives = [0] * members

    def start(number: int) -> BaseProcess:
        lives[number] += 1
        name = f"m{number}-{lives[number]}"
        process = PROCESSES.Process(
            target=live, args=(opener, folder, name, f"{seed}/{name}", steps)
        )
        process.start()
        return process

    running = [start(n) for n in range(members)]
    try:
        for _ in range(kills):
            victim = dice.randrange(members)
            running[victim].join(dice.uniform(0.3, 1.2))
            running[victim].kill()
            running[victim].join()
            running[victim] = start(victim)
        for process in running:
            process.join(PATIENCE_SECONDS + steps / 10)
            assert process.exitcode == 0, f"a member ended with {process.exitcode}"
    finally:
        for process in running:
            process.kill()
            process.join()
