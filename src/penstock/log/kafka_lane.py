"""A worker's lane on Kafka: one client takes part in the group, another fetches.

The first says which partition numbers are ours. The second reads them from the positions that
the worker names, which are the store's. One thread polls both and fills the buffers; ``take``
only looks into them, so it never waits for a broker, and a slow batch never costs the lane its
membership.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Condition, Event, Thread
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as Raw

from penstock.errors import Corrupt, Problem, Unreachable
from penstock.event import Record
from penstock.limits import POLL_SECONDS
from penstock.log.kafka_buffers import Buffers, Place
from penstock.log.kafka_clients import Clients
from penstock.log.kafka_errors import CALLERS, Ear, absent, sorted_out
from penstock.log.kafka_member import Member
from penstock.log.kafka_reader import Ends
from penstock.ports import Extent, Lane, Positions, Taken

IDLE_SECONDS = 0.02  # how long a fetch waits before the thread looks at its orders
PIECE = 200  # records made at a time: the worker waits so long for the interpreter at most
LOOK_SECONDS = 5.0  # how often the topics' partition counts are looked at
LOOK_WAIT_SECONDS = 2.0
ABSENT_SECONDS = 5.0  # a topic made a moment ago may not be known everywhere
CLOSE_SECONDS = 5.0
NOTE_SECONDS = 5.0
FETCHING = {
    "queued.min.messages": 20_000, "queued.max.messages.kbytes": 32_768,
    "fetch.queue.backoff.ms": 20,  # the usual second is a second without a record
}  # fmt: skip
_E = KafkaError
Opened = Callable[[str, Sequence[Raw]], list[Record]]


class KafkaLane(Lane):
    """One member of a group (the ``Lane`` port). ``names`` maps topics to their names in Kafka,
    ``counts`` to how many partitions they are declared with."""

    def __init__(
        self, clients: Clients, ends: Ends, group: str, names: Mapping[str, str],
        counts: Mapping[str, int], open_: Opened, arrived: Callable[[Iterable[str]], None],
    ) -> None:  # fmt: skip
        self._clients, self._ends, self._group = clients, ends, group
        self._names, self._counts = names, counts
        self._topics = {name: topic for topic, name in names.items()}
        self._open, self._arrived = open_, arrived
        self._changed = Condition()  # guards all that follows
        self._buffers = Buffers()
        self._generation, self._assigned = 0, frozenset[int]()
        self._held: frozenset[int] = frozenset()
        self._lost: list[Place] = []
        self._told: set[str] = set()
        self._failure: Exception | None = None
        self._silent = ""
        self._turn, self._noted_at = 0, 0.0
        self._over, self._quiet = Event(), False
        self._ear = Ear()
        self._member: Member | None = None
        self._thread = Thread(target=self._run, name=f"lane-{group}", daemon=True)
        self._thread.start()

    # What the worker calls -------------------------------------------------------------------

    def take(self, limit: int, positions: Positions, topics: Iterable[str] | None = None) -> Taken:
        """Buffered records of the assigned lanes; never waits for a broker."""
        now = time.monotonic()
        found: list[Record] = []
        outside: dict[Place, Extent] = {}
        with self._changed:
            if self._failure is not None:
                raise self._failure
            wanted = self._names if topics is None else {*topics} & self._names.keys()
            self._told.difference_update(wanted)
            for place in self._places(wanted, positions):
                buffer = self._buffers.ask(place, positions[place], now)
                if buffer is None:
                    continue
                if buffer.outside is not None:
                    outside[place] = buffer.outside
                elif len(found) < limit:
                    found += buffer.give(limit - len(found))
            self._changed.notify()
            if self._silent and not found:
                raise Unreachable(self._silent)
            return Taken(
                generation=self._generation, assigned=self._assigned, records=found,
                outside=outside,
            )

    def _places(self, wanted: Iterable[str], positions: Positions) -> list[Place]:
        lanes = sorted(self._assigned - self._held)
        places = [(t, n) for t in wanted for n in lanes if (t, n) in positions]
        self._turn += 1
        shift = self._turn % len(places) if places else 0
        return places[shift:] + places[:shift]

    def hold(self, lanes: frozenset[int]) -> None:
        """Give nothing of these lanes; what was fetched of them goes when others need room."""
        self._held = lanes

    def note(self, positions: Positions) -> None:
        """Commit the positions to Kafka now and then, for tools that look at groups there."""
        now = time.monotonic()
        member = self._member
        if member is not None and now >= self._noted_at + NOTE_SECONDS:
            self._noted_at = now
            member.note({(self._names[t], p): o for (t, p), o in positions.items()})

    def leave(self) -> None:
        """Leave the group, at once where a broker answers. May repeat."""
        self._stop()

    def crash(self) -> None:
        """Die without a word; the group finds out when the member's session is over."""
        self._quiet = True
        self._stop()

    def _stop(self) -> None:
        self._over.set()
        with self._changed:
            self._assign(frozenset())
            self._changed.notify()
        self._thread.join(CLOSE_SECONDS)

    # The thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._member = member = Member(
                self._clients, self._group, list(self._topics), self._rebalanced
            )
            watch = _Watch(self._names, self._counts, self._ends)
            while not self._over.is_set():
                self._fetch(member, watch)
        except Exception as wrong:  # told to whoever takes: this thread has nobody to raise to
            self._fail(wrong)
        finally:
            if self._member is not None:
                self._member.crash() if self._quiet else self._member.leave()

    def _fetch(self, member: Member, watch: _Watch) -> None:
        """Poll both clients, until it is over or the fetching one has stopped for good."""
        fetcher = self._clients.fetcher(self._ear, **FETCHING)
        with self._changed:
            self._buffers.fetch_again()
        try:
            self._poll(member, fetcher, watch)
        except KafkaException as problem:
            self._ear.said.append(str(problem))
            self._over.wait(POLL_SECONDS)
        except Unreachable as error:  # of who tells what values are: all is fetched again
            with self._changed:
                self._silent = str(error)
            self._over.wait(POLL_SECONDS)
        finally:
            fetcher.close()

    def _poll(self, member: Member, fetcher: Consumer, watch: _Watch) -> None:
        while not self._over.is_set():
            wrong = member.poll()
            if isinstance(wrong, Unreachable):
                with self._changed:
                    self._silent = str(wrong)
            elif wrong is not None:
                self._fail(wrong)
            self._look(member, watch)
            full = self._order(fetcher)
            if full:
                with self._changed:
                    self._changed.wait(IDLE_SECONDS)
                continue
            first = fetcher.poll(IDLE_SECONDS)
            if first is not None:
                self._keep([first, *fetcher.consume(PIECE, 0)], self._ends)

    def _fail(self, wrong: Exception) -> None:
        with self._changed:
            self._failure = wrong

    def _look(self, member: Member, watch: _Watch) -> None:
        """Every few seconds: are the topics what they were, and does anybody answer?"""
        if not watch.due(self._ear.silent or member.ear.silent):
            return
        try:
            wrong = watch.look()
        except Unreachable as error:
            with self._changed:
                self._silent = str(error)
            return
        except Problem as problem:
            self._fail(problem)
            return
        self._ear.heard()
        member.ear.heard()
        with self._changed:
            self._silent, self._failure = "", wrong

    def _rebalanced(self, places: frozenset[Place]) -> None:
        """The group's news: a lane is ours when its partition of every topic is."""
        shares = defaultdict(set)
        for name, partition in places:
            shares[name].add(partition)
        common = [shares[name] for name in self._topics]
        with self._changed:
            self._assign(frozenset(set.intersection(*common)) if common else frozenset())
        self._tell(self._names)

    def _assign(self, assigned: frozenset[int]) -> None:
        assigned = frozenset() if self._over.is_set() else assigned
        if assigned == self._assigned:
            return
        known = {**self._buffers.of, **self._buffers.moves}
        gone = [place for place in known if place[1] not in assigned]
        self._buffers.drop(gone)
        self._lost += gone
        self._generation += 1
        self._assigned = assigned

    def _order(self, fetcher: Consumer) -> bool:
        """Do what was asked for since the last look; whether fetching must wait."""
        now = time.monotonic()
        with self._changed:
            full = self._buffers.full
            if full:
                idle = self._buffers.unasked()
                self._buffers.drop(idle)
                self._lost += idle
            lost, self._lost = self._lost, []
            moves = self._buffers.begin(now)
        if lost or moves:
            self._reassign(fetcher, {*lost, *moves}, moves)
        return full and not moves

    def _reassign(
        self, fetcher: Consumer, gone: Iterable[Place], moves: Mapping[Place, int]
    ) -> None:
        """From here on the fetcher returns nothing of an earlier place of these partitions: what
        it has queued is of another version, and this thread is the only one that asks it."""
        had = {(p.topic, p.partition) for p in fetcher.assignment()}
        old = [(self._names[t], p) for t, p in gone if (self._names[t], p) in had]
        if old:
            fetcher.incremental_unassign([TopicPartition(*place) for place in old])
        if moves:
            fetcher.incremental_assign(
                [TopicPartition(self._names[t], p, offset) for (t, p), offset in moves.items()]
            )

    def _keep(self, raws: Sequence[Raw], ends: Ends) -> None:
        fresh: set[str] = set()
        for (name, partition), good in self._sorted(raws, ends).items():
            place = self._topics[name], partition
            records = self._open(place[0], good)
            size = sum([len(r.message.value) for r in records])
            with self._changed:
                buffer = self._buffers.of.get(place)
                if buffer is not None and place not in self._buffers.moves:
                    assert records[0].offset >= buffer.next, "an older fetch came through"
                    buffer.put(records, size)
                    fresh.add(place[0])
        if fresh:
            self._ear.heard()
            self._tell(fresh)

    def _sorted(self, raws: Sequence[Raw], ends: Ends) -> dict[tuple[Any, Any], list[Raw]]:
        """The records of each partition; what is no record is dealt with."""
        found: dict[tuple[Any, Any], list[Raw]] = {}
        for raw in raws:
            if raw.error() is not None:
                self._refused(raw, ends)
                continue
            place = raw.topic(), raw.partition()
            if place in found:
                found[place].append(raw)
            else:
                found[place] = [raw]
        return found

    def _tell(self, topics: Iterable[str]) -> None:
        """Wake the worker, once until it looks."""
        with self._changed:
            news = set(topics) - self._told
            self._told |= news
            self._silent = ""
        if news:
            self._arrived(news)

    def _refused(self, raw: Raw, ends: Ends) -> None:
        """Deal with an event that is no record."""
        error = raw.error()
        assert error is not None
        code, name, partition = error.code(), raw.topic(), raw.partition()
        if code in (_E._AUTO_OFFSET_RESET, _E.OFFSET_OUT_OF_RANGE) and name in self._topics:
            self._outside((self._topics[name], partition or 0), ends)
        elif code in CALLERS:
            self._fail(sorted_out(error, f"a fetch of {name}", name or ""))

    def _outside(self, place: Place, ends: Ends) -> None:
        """The log does not hold a position: say so, or ask again where it does after all."""
        try:
            (extent,) = ends.extents(self._names[place[0]], [place[1]])
        except Unreachable:
            extent = None
        with self._changed:
            buffer = self._buffers.of.get(place)
            if buffer is None or place in self._buffers.moves:
                return
            if extent is None or extent.first <= buffer.next <= extent.next:
                self._buffers.moves[place] = buffer.next
            elif buffer.count:
                # What was fetched before is sound: it is handled first, then asked again.
                buffer.next = buffer.records[-1].offset + 1
            else:
                buffer.outside = extent
        self._tell([place[0]])


class _Watch:
    """Looks now and then whether the topics still have the partitions they are declared with."""

    def __init__(self, names: Mapping[str, str], counts: Mapping[str, int], ends: Ends) -> None:
        self._names, self._counts, self._ends = names, counts, ends
        self._next, self._absent_since = 0.0, 0.0

    def due(self, silent: bool) -> bool:
        """Whether to look now: sooner while nobody answers."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + (POLL_SECONDS if silent or self._absent_since else LOOK_SECONDS)
        return True

    def look(self) -> Exception | None:
        """What is wrong with the topics. Raises ``Unreachable``, ``Problem``."""
        found = self._ends.counts(self._names.values(), LOOK_WAIT_SECONDS)
        for topic, name in self._names.items():
            if name not in found:
                now = time.monotonic()
                self._absent_since = self._absent_since or now
                if now > self._absent_since + ABSENT_SECONDS:
                    return absent(name, "a join")
                return None
            if found[name] != self._counts[topic]:
                return Corrupt(
                    f"topic {name} has {found[name]} partitions, not {self._counts[topic]}: "
                    "somebody changed that, and keys may have moved to other partitions. Nothing "
                    "is read, so that nothing is skipped or overtaken; docs/reference/kafka.md, "
                    "Partitions, says how to go on"
                )
        self._absent_since = 0.0
        return None

