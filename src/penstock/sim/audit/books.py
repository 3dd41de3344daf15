"""What an audit looks at, as values: the journal, the logs, the stores, the ledgers.

A reader (``files`` for a home folder, the simulator for its own world) fills ``Books``; the rules
read it and nothing else. Times are milliseconds since 1970 UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

_JSON = msgspec.json.Decoder()
LIVE = "live"  # the namespace of real work


class Fact(NamedTuple):
    """One record of a log, its row's transaction number and epoch beside it.

    ``epoch`` 0: no commit appended it, a courier carried it, or somebody else. ``origin``: the
    transaction and epoch that made a carried one, as far as its log keeps that. ``unread``: why
    its value could not be read and lies here as it lay there.
    """

    topic: str
    partition: int
    offset: int
    appended_at: int
    txn: int
    epoch: int
    key: str
    value: bytes
    id: bytes
    type: str
    version: int
    at: int
    cause: bytes
    trace: str
    source: str
    notes: Mapping[str, str] | None = None
    origin: tuple[int, int] | None = None
    unread: str = ""

    @property
    def made(self) -> tuple[int, int] | None:
        """Transaction and epoch of the decision that made it, where they are known."""
        return (self.txn, self.epoch) if self.epoch else self.origin

    @property
    def content(self) -> tuple[object, ...]:
        """All but its place and whose it is: copies have the same."""
        return self[6:16]

    @property
    def place(self) -> str:
        """Where it lies, as people write it: ``payments[2]@17``."""
        return f"{self.topic}[{self.partition}]@{self.offset}"

    @property
    def said(self) -> Any:
        """The value as JSON; raises ``msgspec.DecodeError`` for what is none."""
        return _JSON.decode(self.value)


class Owner(NamedTuple):
    """A lane of a service: from 0 on a worker's, below those of couriers and doors, which have
    no positions (``index.hand_of``)."""

    lane: int
    epoch: int
    txn: int
    positions: Mapping[str, int]


class Mark(NamedTuple):
    """An event was handled, as the ``ordinal``-th of a transaction."""

    id: bytes
    txn: int
    ordinal: int
    epoch: int


class Document(NamedTuple):
    """A state; ``body`` None is a deleted one."""

    kind: str
    key: str
    label: str | None
    body: bytes | None
    txn: int
    epoch: int

    @property
    def said(self) -> Any:
        """The body as JSON."""
        return None if self.body is None else _JSON.decode(self.body)


class Held(NamedTuple):
    """A record that waits or is parked; ``message`` is its Fact without a place of its own."""

    topic: str
    partition: int
    offset: int
    key: str
    state: str
    due: int
    attempts: int
    deaths: int
    kind: str
    appended_at: int
    id: bytes
    type: str
    value: bytes
    errors: Sequence[tuple[int, str]]
    txn: int
    epoch: int


class Ask(NamedTuple):
    """An outbox row: a call wanted, a wake, or an event for a topic in another file.

    ``event`` is the id of its message, ``cause`` of what it came from. Open while ``settled_at``
    is None.
    """

    id: int
    destination: str
    is_topic: bool
    key: str
    name: str
    idempotency_key: str
    due: int
    made_at: int
    event: bytes
    cause: bytes
    type: str
    value: bytes
    attempts: int
    retry_at: int
    error: str
    settled_at: int | None
    outcome: str
    txn: int
    epoch: int
    settled_txn: int | None
    trace: str = ""


class StoreBook(NamedTuple):
    """One service's own tables, in the namespace of real work."""

    service: str
    owners: Sequence[Owner] = ()
    marks: Sequence[Mark] = ()
    documents: Sequence[Document] = ()
    held: Sequence[Held] = ()
    asks: Sequence[Ask] = ()
    checkpoints: Sequence[tuple[int, int, str]] = ()  # txn, at, positions as JSON


class Deed(NamedTuple):
    """Something a gateway did, once per key (a row of ``effects``)."""

    seq: int
    at: int
    key: str
    operation: str
    order: str
    part: str
    id: str
    reference: str
    amount: int | None
    currency: str


class Call(NamedTuple):
    """A call as a gateway got it (a row of ``calls``)."""

    seq: int
    at: int
    key: str
    operation: str
    order: str
    part: str
    amount: int | None
    outcome: str
    request: str


class Mail(NamedTuple):
    """A mail as it was caught."""

    seq: int
    at: int
    key: str
    order: str
    kind: str
    subject: str
    text: str


class Ledger(NamedTuple):
    """What one gateway wrote down itself."""

    gateway: str
    deeds: Sequence[Deed] = ()
    calls: Sequence[Call] = ()
    mails: Sequence[Mail] = ()


class Asked(NamedTuple):
    """One request of a client's journal, all its tries taken together.

    ``state`` is ``acked`` (a 2xx came), ``failed`` (a 4xx came, never a 2xx) or ``unknown``.
    ``replies`` are the different bodies of its 2xx replies: more than one is a broken promise.
    """

    client: str
    key: str
    method: str
    path: str
    bodies: Sequence[Any]
    state: str
    status: int
    replies: Sequence[Any]
    sent_at: int


class Flaw(NamedTuple):
    """What was wrong with the files themselves, seen while they were read."""

    rule: str
    key: str
    detail: str
    records: tuple[str, ...] = ()


class Moved(NamedTuple):
    """Of a partition that came from a home folder: the offset there of its first record here, and
    how many came."""

    first: int
    copied: int


def as_bytes(fact: Fact, value: bytes) -> bool:
    """Are these the record's bytes?"""
    return value == fact.value


class Books(NamedTuple):
    """Everything one audit looks at.

    ``topics``: every record by topic, partition by partition in offset order. ``partitions``: the
    count of each topic. ``first``: the first retained offset by topic and partition; earlier
    records, if any are listed, were retained away since. ``producers``: the service that writes a
    topic. ``reads``: the types a service reads, by topic. ``journal`` None: no client kept one.
    ``until``: what was appended at or after this time may still be under way; None: the system
    stands still and everything must have ended. ``examined`` counts what the reader checked
    itself, by rule (checksums, offsets).

    ``unread``: topic, partition, first and last offset of rows that do not decode. ``contracts``:
    the Avro schema of each ``type/version``; None: no snapshots were given. ``retention``: how
    long (seconds) a topic keeps records, where that is known. ``buffers``: how long (seconds) an
    ask of a gateway may go without a definite outcome; a day where it is not said. ``now``: when
    the books were read, by which records may have come of age; None: nobody knows. ``continues``:
    the services that let the records of a key pass one that is parked. ``accepts``: topics that
    take records of others. ``moved``: of a house that came from a home folder; all places are
    then told as they were counted there, so that what retention took before is known to be gone,
    and only letters made since name others. ``same``: is a value that is kept elsewhere that of
    a record? ``is_dense``: the log gives offsets without a gap; ``is_steady``: its clock never
    goes back.
    """

    topics: Mapping[str, Sequence[Fact]]
    partitions: Mapping[str, int]
    first: Mapping[tuple[str, int], int]
    producers: Mapping[str, str]
    reads: Mapping[str, Mapping[str, frozenset[str]]]
    stores: Mapping[str, StoreBook]
    ledgers: Mapping[str, Ledger]
    journal: Sequence[Asked] | None = None
    until: int | None = None
    flaws: Sequence[Flaw] = ()
    examined: Mapping[str, int] = {}
    unread: Sequence[tuple[str, int, int, int]] = ()
    contracts: Mapping[str, Any] | None = None
    retention: Mapping[str, float] = {}
    buffers: Mapping[str, float] = {}
    now: int | None = None
    continues: frozenset[str] = frozenset()
    accepts: frozenset[str] = frozenset()
    moved: Mapping[tuple[str, int], Moved] = {}
    same: Callable[[Fact, bytes], bool] = as_bytes
    is_dense: bool = True
    is_steady: bool = True

    def young(self, at: int) -> bool:
        """May what happened at this time still be under way?"""
        return self.until is not None and at >= self.until


class Violation(NamedTuple):
    """A broken rule: which, about which order (or SKU, lane, file), and the exact records."""

    rule: str
    key: str
    detail: str
    records: tuple[str, ...] = ()


class Notes:
    """What one rule saw and what it found wrong."""

    def __init__(self, rule: str) -> None:
        self.rule, self.examined = rule, 0
        self.violations: list[Violation] = []
        self.kinds: dict[str, int] = {}

    def saw(self, count: int = 1, kind: str = "") -> None:
        """So many things were examined, counted by kind as well where one is named."""
        self.examined += count
        if kind:
            self.kinds[kind] = self.kinds.get(kind, 0) + count

    def wrong(self, key: str, detail: str, *records: Fact | str) -> None:
        """A violation, with the records (or what else) it is seen in."""
        places = tuple(r if isinstance(r, str) else r.place for r in records)
        self.violations.append(Violation(self.rule, key, detail, places))


class Rule(NamedTuple):
    """An invariant: its id, one line for people, and its check.

    ``needs`` names sources it cannot do without: ``journal``, ``contracts``, ``rest`` (the system
    stands still: ``until`` is None), ``files`` (the bytes of stored rows were seen), or a ledger
    by its gateway. Where one was not given the rule is not asked at all. A rule that was asked and
    examined nothing fails, so each counts every real thing it looked at to be sure, not only those
    that were interesting.
    """

    id: str
    about: str
    check: Callable[[Books, Notes], None]
    needs: tuple[str, ...] = ()
