"""What several rules look things up by, made once for each ``Books``."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cached_property
from typing import Any, NamedTuple

import msgspec

from penstock.sim.audit.books import Ask, Books, Fact, Held, Mark

JOURNAL = "journal"
REQUESTS = frozenset(("deadletter.retry_requested", "deadletter.discard_requested"))
PARKED, RETRIED, DISCARDED = "dead.parked", "dead.retried", "dead.discarded"
LEFT = (RETRIED, DISCARDED)
ANSWERS = ("answer", "wake")
WORKER, COURIER, DOOR = "worker", "courier", "door"
COURIER_LANE, SHARD_LANES = -1, range(-73, -10)  # the first shard's, and those of the other 63
Place = tuple[str, int, int]

_LETTER = msgspec.json.Decoder(dict[str, Any])
_CHECKPOINT = msgspec.json.Decoder(dict[str, dict[str, int]])


def hand_of(lane: int) -> str:
    """Who owns a lane."""
    if lane >= 0:
        return WORKER
    return COURIER if lane == COURIER_LANE or lane in SHARD_LANES else DOOR


class Letter(NamedTuple):
    """An event about a dead letter, and the place of the record it is about."""

    fact: Fact
    said: Mapping[str, Any]
    place: Place


class Walk(NamedTuple):
    """What lies below a service's positions.

    ``missing`` are records that are neither handled, held, discarded nor passed over for their
    type; ``lanes`` says in which lane an event was handled.
    """

    taken: int
    missing: list[Fact]
    lanes: dict[bytes, int]


class Written(NamedTuple):
    """The transactions of a service: the epoch of each, what has another epoch than the rest of
    its transaction, and an example of every epoch."""

    epochs: dict[int, int]
    doubtful: list[tuple[Fact | str, int, int, int]]
    examples: dict[int, tuple[int, Fact | str]]  # the latest, with its transaction

    def take(self, rows: Iterable[tuple[Fact | str, int, int]]) -> None:
        """Rows of what, transaction and epoch."""
        epochs, examples = self.epochs, self.examples
        for what, txn, epoch in rows:
            if epochs.setdefault(txn, epoch) != epoch:
                self.doubtful.append((what, txn, epochs[txn], epoch))
            if epoch not in examples or examples[epoch][0] < txn:
                examples[epoch] = txn, what


class Index:
    """Look-ups over ``books``; each is made when it is first wanted."""

    def __init__(self, books: Books) -> None:
        self.books = books
        self._walks: dict[str, Walk] = {}

    # Records ---------------------------------------------------------------------------------

    @cached_property
    def lanes(self) -> dict[tuple[str, int], list[Fact]]:
        """The records of each topic and partition, in offset order."""
        found: dict[tuple[str, int], list[Fact]] = {}
        for facts in self.books.topics.values():
            for fact in facts:
                found.setdefault(fact[:2], []).append(fact)
        return found

    @cached_property
    def _ids(self) -> tuple[dict[bytes, Fact], dict[bytes, list[Fact]]]:
        firsts: dict[bytes, Fact] = {}
        copies: dict[bytes, list[Fact]] = {}
        for facts in self.books.topics.values():
            for fact in facts:
                id_ = fact.id
                if id_ in firsts:
                    copies.setdefault(id_, []).append(fact)
                elif id_:
                    firsts[id_] = fact
        return firsts, copies

    @property
    def by_id(self) -> dict[bytes, Fact]:
        """The first copy of every event."""
        return self._ids[0]

    @property
    def copies(self) -> dict[bytes, list[Fact]]:
        """The later copies of events that lie there more than once."""
        return self._ids[1]

    def all_of(self, id_: bytes) -> list[Fact]:
        """Every copy of an event, in the order they are listed."""
        first = self.by_id.get(id_)
        return [] if first is None else [first, *self.copies.get(id_, ())]

    def at(self, place: Place) -> Fact | None:
        """The record at a place, if it is listed."""
        facts = self.lanes.get(place[:2])
        if not facts:
            return None
        n = bisect_left(facts, place[2], key=lambda fact: fact.offset)
        if n < len(facts) and facts[n].offset == place[2]:
            return facts[n]
        return next((fact for fact in facts if fact.offset == place[2]), None)

    @cached_property
    def answers(self) -> dict[tuple[str, bytes], Fact]:
        """The first answer or wake of each ask, by its topic and the ask's id."""
        found: dict[tuple[str, bytes], Fact] = {}
        for topic, facts in self.books.topics.items():
            if topic.endswith(".answers"):
                for fact in facts:
                    if fact.type in ANSWERS:
                        found.setdefault((topic, fact.cause), fact)
        return found

    @cached_property
    def children(self) -> dict[bytes, int]:
        """How many events each event brought about, over all services."""
        found: dict[bytes, int] = {}
        for facts in self.books.topics.values():
            for fact in facts:
                if fact.cause:
                    found[fact.cause] = found.get(fact.cause, 0) + 1
        return found

    @cached_property
    def trimmed(self) -> frozenset[str]:
        """Topics of which records are gone or unreadable: not every copy can be found."""
        books = self.books
        short = {topic for (topic, _), first in books.first.items() if first > 0}
        begun = {topic for (topic, _), facts in self.lanes.items() if facts[0].offset > 0}
        listed = {topic for topic, _ in self.lanes}
        whole = listed - begun  # what was retained away is listed all the same
        return frozenset(short - whole) | {topic for topic, *_ in books.unread}

    @cached_property
    def ends(self) -> dict[tuple[str, int], int]:
        """The offset after the last record of each topic and partition."""
        found = {lane: facts[-1].offset + 1 for lane, facts in self.lanes.items()}
        for topic, partition, _first, last in self.books.unread:
            found[topic, partition] = max(found.get((topic, partition), 0), last + 1)
        return found

    @cached_property
    def latest(self) -> int:
        """The latest time that a record was appended, or anything was asked or settled."""
        times = [facts[-1].appended_at for facts in self.lanes.values()]
        for store in self.books.stores.values():
            times += [ask.made_at for ask in store.asks[-1:]]
            times += [ask.settled_at for ask in store.asks if ask.settled_at is not None]
        return max(times, default=0)

    # What services wrote ---------------------------------------------------------------------

    @cached_property
    def marks(self) -> dict[str, dict[bytes, Mark]]:
        """Each service's marks by event."""
        return {s: {m.id: m for m in b.marks} for s, b in self.books.stores.items()}

    @cached_property
    def held(self) -> dict[str, dict[Place, Held]]:
        """Each service's waiting and parked records by place."""
        return {
            service: {held[:3]: held for held in store.held}
            for service, store in self.books.stores.items()
        }

    @cached_property
    def asks(self) -> dict[str, dict[bytes, Ask]]:
        """Each service's outbox rows by the event they carry."""
        return {s: {a.event: a for a in b.asks} for s, b in self.books.stores.items()}

    @cached_property
    def answer_rows(self) -> dict[str, frozenset[bytes]]:
        """The asks of each service whose answer is a row of its outbox."""
        return {
            service: frozenset(a.cause for a in store.asks if a.is_topic and a.type in ANSWERS)
            for service, store in self.books.stores.items()
        }

    @cached_property
    def positions(self) -> dict[str, dict[tuple[str, int], int]]:
        """Each service's next offset by topic and partition."""
        return {
            service: {
                (topic, owner.lane): offset
                for owner in store.owners if owner.lane >= 0
                for topic, offset in owner.positions.items()
            }
            for service, store in self.books.stores.items()
        }  # fmt: skip

    def reached(self, service: str, hand: str) -> int:
        """The highest epoch of a service's workers, couriers or doors; 0 where it has none."""
        store = self.books.stores.get(service)
        owners = store.owners if store is not None else ()
        return max((o.epoch for o in owners if hand_of(o.lane) == hand), default=0)

    def by(self, fact: Fact, service: str) -> str:
        """Whose transaction made a record of a service's own topic."""
        if fact.type in ANSWERS and fact.topic == f"{service}.answers":
            return COURIER
        return WORKER if fact.cause else DOOR

    def in_line(self, fact: Fact) -> bool:
        """Is the order in which rows were numbered that in which records of this key were made?

        A file has one writer at a time. In a database the lane of a key has one, and a record that
        one key's event made for another key goes beside the other's own.
        """
        if fact.origin is None:
            return True
        cause = self.by_id.get(fact.cause)
        return fact.type in ANSWERS or (cause is not None and cause.key == fact.key)

    def reads(self, service: str, topic: str) -> frozenset[str]:
        """The types of a topic that a service handles; on the journal also operators' requests."""
        types = self.books.reads.get(service, {}).get(topic, frozenset())
        return types | REQUESTS if topic == JOURNAL else types

    @cached_property
    def last_txn(self) -> dict[str, int]:
        """Each service's latest transaction."""
        return {
            service: max((owner.txn for owner in store.owners), default=0)
            for service, store in self.books.stores.items()
        }

    @cached_property
    def committed(self) -> dict[str, list[Fact]]:
        """What each service appended in its own commits, and is old enough to be judged."""
        found: dict[str, list[Fact]] = {service: [] for service in self.books.stores}
        until = self.books.until
        for topic, facts in self.books.topics.items():
            service = self.books.producers.get(topic, "")
            if service in found:
                found[service] += [
                    f for f in facts if f.epoch and (until is None or f.appended_at < until)
                ]
        return found

    @cached_property
    def carried(self) -> dict[str, list[Fact]]:
        """What couriers carried of each service and says what made it, old enough to be judged."""
        found: dict[str, list[Fact]] = {service: [] for service in self.books.stores}
        for topic, facts in self.books.topics.items():
            service = self.books.producers.get(topic, "")
            if service in found:
                young = self.books.young
                found[service] += [f for f in facts if f.origin and not young(f.appended_at)]
        return found

    @cached_property
    def written(self) -> dict[str, Written]:
        """All that each service's transactions wrote, by transaction and epoch."""
        found = {}
        for service, store in self.books.stores.items():
            written = found[service] = Written({}, [], {})
            for name, rows in (
                ("documents", store.documents), ("waiting", store.held), ("outbox", store.asks),
            ):
                written.take((name, row.txn, row.epoch) for row in rows)
            written.take((fact, fact.txn, fact.epoch) for fact in self.committed[service])
            written.take((f, *f.origin) for f in self.carried[service] if f.origin)
        return found

    def walk(self, service: str) -> Walk:
        """One walk over the retained records below a service's positions."""
        if service not in self._walks:
            self._walks[service] = self._walk(service)
        return self._walks[service]

    def _walk(self, service: str) -> Walk:
        marks, held, letters = self.marks[service], self.held[service], self.letters(service)
        lost: list[Fact] = []
        lanes: dict[bytes, int] = {}
        taken = 0
        for (topic, lane), position in self.positions[service].items():
            start, types = self.books.first.get((topic, lane), 0), self.reads(service, topic)
            for fact in self.lanes.get((topic, lane), ()):
                offset, id_, type_ = fact.offset, fact.id, fact.type
                if not start <= offset < position:
                    continue
                taken += 1
                if id_ in marks:
                    if type_ in types or not type_:
                        lanes[id_] = lane
                elif not type_ or type_ in types or len(id_) != 16:
                    place = fact[:3]
                    told = letters.get(place)
                    if place not in held and not (told and told[-1].fact.type == DISCARDED):
                        lost.append(fact)
        return Walk(taken, lost, lanes)

    # What is gone ----------------------------------------------------------------------------

    def gaps(self, service: str) -> bool:
        """May a record that the service read be gone from its log, or be unreadable?"""
        return any(topic in self.trimmed for topic, _ in self.positions.get(service, ()))

    def forgets(self, service: str) -> bool:
        """May an event that the service made be gone from its log?"""
        return service in self._forgetful

    @cached_property
    def _forgetful(self) -> frozenset[str]:
        return frozenset(self.books.producers.get(topic, "") for topic in self.trimmed)

    @cached_property
    def pruned(self) -> dict[str, int]:
        """The last transaction of each service of which marks, settled rows and deleted documents
        may be gone: that of its oldest checkpoint, once all its positions are out of reach."""
        return {service: self._pruned(service) for service in self.books.stores}

    def _pruned(self, service: str) -> int:
        checkpoints = self.books.stores[service].checkpoints
        if not checkpoints:
            return 0
        places = self.oldest_positions(service).items()
        reach = all(at <= self._reach(topic, lane) for (topic, lane), at in places)
        return checkpoints[0][0] if reach else 0

    def oldest_positions(self, service: str) -> dict[tuple[str, int], int]:
        """The positions at a service's oldest checkpoint; a broken one says nothing."""
        for _txn, _at, text in self.books.stores[service].checkpoints[:1]:
            with suppress(msgspec.MsgspecError, ValueError):
                lanes = _CHECKPOINT.decode(text)
                return {(t, int(n)): at for n, topics in lanes.items() for t, at in topics.items()}
        return {}

    def _reach(self, topic: str, lane: int) -> int:
        """The first offset that is young, or gone: marks before it are kept one by one, for as
        long as a record of theirs lies there, and not with their whole transaction."""
        first = self.books.first.get((topic, lane), 0)
        end = self.ends.get((topic, lane), first)
        age, now = self.books.retention.get(topic), self.books.now
        if topic == JOURNAL or (age is not None and now is None):
            return end
        if age is None or now is None:
            return first
        bound = now - int(age * 1000)
        young = (f.offset for f in self.lanes.get((topic, lane), ()) if f.appended_at >= bound)
        return max(first, next(young, end))

    # Dead letters ----------------------------------------------------------------------------

    def letters(self, service: str) -> dict[Place, list[Letter]]:
        """What the dead letter topic says of each place, first copies in order."""
        return self._letters.get(f"{service}.dead", {})

    @cached_property
    def _letters(self) -> dict[str, dict[Place, list[Letter]]]:
        found: dict[str, dict[Place, list[Letter]]] = {}
        for topic, facts in self.books.topics.items():
            if topic.endswith(".dead"):
                places = found.setdefault(topic, {})
                for fact in facts:
                    is_first = self.by_id.get(fact.id) is fact
                    if not is_first or fact.type not in (PARKED, *LEFT):
                        continue
                    letter = self.letter_of(fact)
                    if letter is not None:
                        places.setdefault(letter.place, []).append(letter)
        return found

    def letter_of(self, fact: Fact) -> Letter | None:
        """What a record says of a dead letter; None where it does not."""
        try:
            said = _LETTER.decode(fact.value)
            place = (said["topic"], said["partition"], said["offset"])
        except (msgspec.MsgspecError, ValueError, KeyError):
            return None
        kinds = zip(place, (str, int, int), strict=True)
        if not all(isinstance(part, kind) for part, kind in kinds):
            return None
        return Letter(fact, said, self._then(fact, place))

    def _then(self, fact: Fact, place: Place) -> Place:
        """A place that a record names, as it was counted before the house moved."""
        moved, here = self.books.moved, self.books.moved.get(fact[:2])
        if here is not None and fact.offset < here.first + here.copied:
            return place  # it was written there
        about = moved.get(place[:2])
        return place if about is None else (*place[:2], place[2] + about.first)

    def offsets_of(self, fact: Fact) -> tuple[int, ...]:
        """What a record's offset may have been when an id was made of it."""
        moved = self.books.moved.get(fact[:2])
        return (fact.offset,) if moved is None else (fact.offset, fact.offset - moved.first)

    @cached_property
    def refused(self) -> frozenset[Place]:
        """Places of records that no service could open: they may hold anything."""
        found = {
            letter.place
            for places in self._letters.values() for letters in places.values()
            for letter in letters
            if letter.said.get("kind") in ("malformed", "unknown_schema")
        }  # fmt: skip
        for store in self.books.stores.values():
            found |= {h[:3] for h in store.held if h.kind in ("malformed", "unknown_schema")}
        return frozenset(found)


_made: list[Index] = []


def index_of(books: Books) -> Index:
    """The look-ups of these books, made once."""
    if not _made or _made[0].books is not books:
        _made[:] = [Index(books)]
    return _made[0]


def forget_index() -> None:
    """Let go of the last books."""
    _made.clear()
