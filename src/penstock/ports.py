"""The outside world as protocols of at most six methods, each with its contract.

Who calls, whether it may repeat, whether it may block, what it raises. A backend is done when it
passes ``penstock.conformance``; what it cannot do is declared in its :class:`Features`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Literal, NamedTuple, Protocol

from msgspec import Struct

from penstock.decision import Ref
from penstock.event import Message, Origin, Record
from penstock.flow import Row, Scan


class Features(Struct, frozen=True, kw_only=True):
    """What a backend can do; the conformance suites read it instead of skipping by hand."""

    survives_restart: bool = True
    several_processes: bool = True
    appends_in_commit: bool = False  # a topic's append can share the store's transaction
    retention: bool = True
    torn_tail: bool = True  # there is a file whose end can be cut
    given_time: bool = True  # appended-at is the caller's ``now``, not the log's own clock
    whole_appends: bool = True  # an append is there whole or not at all, whoever dies
    at_once: bool = True  # a take sees all that was appended and joined before it, not soon after
    shards: int = 1  # couriers that can share a service's rows
    attempts: bool = False  # the store keeps what is about to be decided (else: slots in memory)


class TopicSpec(Struct, frozen=True, kw_only=True):
    """What a log must know of a topic. ``owner_file`` names the producing service; ``wire``,
    ``accepts`` (type and version of what others write) and ``replication`` (None: as usual) are
    for logs that others read and write, and that replicate."""

    name: str
    partitions: int
    owner_file: str = ""
    retention_seconds: float | None = None
    retention_bytes: int | None = None
    wire: Literal["json", "avro"] = "json"
    accepts: tuple[str, int] | None = None
    replication: int | None = None


class Extent(NamedTuple):
    """A partition's retained range: ``first`` offset held, ``next`` offset to be written."""

    first: int
    next: int


class Taken(Struct, frozen=True, kw_only=True):
    """What one ``take`` saw: the lanes assigned now, and records of those asked for.

    ``generation`` changes with every rebalance. A worker compares it, claims what is new, drops
    what is gone: a rebalance arrives as data. ``records`` keep offset order per topic and
    partition. ``outside`` lists partitions whose wanted position the log does not hold.
    """

    generation: int
    assigned: frozenset[int]
    records: Sequence[Record] = ()
    outside: Mapping[tuple[str, int], Extent] = {}


Positions = Mapping[tuple[str, int], int]


class Lane(Protocol):
    """One member of a group reading a service's topics, partition number by partition number."""

    def take(self, limit: int, positions: Positions, topics: Iterable[str] | None = None) -> Taken:
        """Up to ``limit`` records (soft by one log row), from ``positions`` on.

        Only partitions that are assigned, present in ``positions`` and not held are read;
        ``topics`` narrows the look to those that were woken. Called by one thread, again and
        again; never blocks longer than one read. Raises ``Corrupt``, ``Unreachable``.
        """

    def hold(self, lanes: frozenset[int]) -> None:
        """Level-triggered: read nothing of these lanes until told otherwise."""

    def leave(self) -> None:
        """Leave the group; others get the lanes at once. May repeat."""

    def note(self, positions: Positions) -> None:
        """Tell other tools how far this group is. A hint: penstock never reads it back."""


class Log(Protocol):
    """An ordered, partitioned, durable log."""

    features: Features

    def ensure(self, topics: Sequence[TopicSpec]) -> None:
        """Make the topics that are missing. May repeat. Raises ``Conflict`` on another count."""

    def append(
        self, topic: str, messages: Sequence[Message], now: int, origins: Sequence[Origin] = ()
    ) -> None:
        """Append all or raise; durable on return. A repeat appends again: marks absorb it.

        Appended-at is ``now``, or the partition's latest where the clock went back; with
        ``given_time`` off, the log's own time. ``origins`` says of each message which transaction
        made it, where one did. After a failure each partition holds the messages up to some one
        of them, in their order. Raises ``StorageFull``, ``Unreachable``.
        """

    def read(self, topic: str, partition: int, start: int, limit: int) -> list[Record]:
        """Records from ``start`` on, touching no group; empty at the end.

        Returns whole log rows, so it may exceed ``limit`` by one row. Raises ``OutsideLog``
        when ``start`` is before the first retained offset or after the next one, ``Corrupt``.
        """

    def extent(self, topic: str, since: int | None = None) -> list[Extent]:
        """First and next offset of each partition; with ``since`` (ms), ``first`` is the
        earliest offset appended at or after it (``next`` where there is none)."""

    def join(self, group: str, topics: Sequence[str]) -> Lane:
        """Become a member of a group. All topics have equal partition counts."""

    def retain(self, topic: str, floors: Mapping[int, int], now: int) -> int:
        """Drop what the topic's age and size bounds allow, never at or past ``floors`` (the
        lowest position of a declared reader per partition). Bounded work; returns the records
        dropped. The newest row of a partition always stays."""


class Span(Struct, frozen=True, array_like=True, gc=False):
    """Records of one partition, from ``first`` to ``last``."""

    topic: str
    first: int
    last: int


class Claim(Struct, frozen=True, kw_only=True):
    """Ownership of one lane of one service, minted by the store.

    ``attempted`` is what another owner was about to decide and never finished.
    """

    lane: int
    epoch: int
    positions: dict[str, int]  # topic -> next offset to handle
    attempted: tuple[Span, ...] = ()


SHARDS = 64  # a row's shard is its key's slot modulo this; a store's ``shards`` divides it
COURIER_LANE = -1
INTAKE_LANE = -2
_SHARD_LANES = -10


def courier_lane(shard: int) -> int:
    """The lane under whose epoch a courier carries a shard's rows."""
    return COURIER_LANE if shard == 0 else _SHARD_LANES - shard


class Advance(Struct, frozen=True, gc=False):
    """A lane's new position under the epoch it was claimed with."""

    lane: int
    epoch: int
    positions: Mapping[str, int]


class Loaded(NamedTuple):
    """Bodies of the documents asked for (absent ones missing) and the event ids marked."""

    bodies: dict[Ref, bytes]
    seen: frozenset[bytes]


class Saved(Struct, frozen=True, gc=False):
    """A document to write; ``body`` None deletes it."""

    ref: Ref
    body: bytes | None
    label: str | None


class Outgoing(Struct, frozen=True, gc=False):
    """One row: ``destination`` is a topic (``message`` set) or a gateway."""

    destination: str
    is_topic: bool
    message: Message  # for a gateway: key, value = request JSON, id = the ask's id
    name: str = ""
    idempotency_key: str = ""
    due: int = 0


class Waiting(Struct, frozen=True, kw_only=True):
    """A record that waits or is parked, bytes and all.

    ``state``: ``waiting`` (for its time, or behind its key's head), ``parked`` (holds its key
    back), ``aside`` (parked where the catalog says continue). ``due`` is when to try again.
    """

    record: Record
    state: Literal["waiting", "parked", "aside"]
    due: int
    attempts: int
    errors: tuple[tuple[int, str], ...] = ()
    kind: str = ""
    deaths: int = 0


class Tx(Protocol):
    """One transaction of one service. ``advance`` comes first.

    What it writes may be sent only when its context is left: refusals come then at the latest.
    ``number`` is the transaction's number, 0 until it is known (after the commit at the latest);
    of two transactions that touch one document, the later one's is higher.
    """

    number: int

    def advance(self, moves: Sequence[Advance], now: int) -> None:
        """Check the epochs and write the positions.

        Raises ``StaleOwner``; the transaction is then rolled back by its context.
        """

    def load(self, refs: Sequence[Ref], ids: Sequence[bytes] = ()) -> Loaded:
        """The bodies of ``refs`` and which of ``ids`` are marked. One query each."""

    def save(self, documents: Sequence[Saved]) -> None:
        """Write documents in one statement."""

    def mark(self, ids: Sequence[bytes], lanes: Sequence[int] = ()) -> None:
        """Mark events as handled, in handling order. A repeat is our bug and raises.

        ``lanes`` gives the lane of each, whose epoch its mark carries; without it that is the
        highest of the transaction.
        """

    def send(self, rows: Sequence[Outgoing], now: int) -> set[str]:
        """Promise delivery of rows, in order per key. Returns the topics and gateways that
        have something new for a reader or the courier (a hint for wake-ups)."""

    def defer(self, put: Sequence[Waiting], drop: Sequence[Record]) -> None:
        """Write and remove waiting rows, keyed by the record's position."""


class Due(Struct, frozen=True, kw_only=True):
    """An unsettled row for a courier."""

    id: int
    destination: str
    is_topic: bool
    message: Message
    name: str
    idempotency_key: str
    due: int
    attempts: int
    retry_at: int
    made_at: int
    shard: int = 0
    origin: Origin = Origin()


class Settled(Struct, frozen=True, gc=False):
    """What became of a row: closed with ``outcome`` and its answer, or, with ``retry_at`` set,
    tried and to be tried again. ``shard`` is the row's."""

    id: int
    outcome: str
    answer: Message | None = None
    retry_at: int = 0
    attempts: int = 0
    error: str = ""
    shard: int = 0


class Store(Protocol):
    """A service's documents, marks, positions, waiting rows and outbox."""

    features: Features

    def claim(self, lanes: Sequence[int], now: int) -> list[Claim]:
        """Mint a new epoch for each lane (older owners' commits fail from now on). Waits for a
        commit of an older owner that is under way, so the positions are what came of it."""

    def begin(self, spans: Mapping[int, Sequence[Span]] = {}) -> AbstractContextManager[Tx]:
        """A write transaction: commits on leaving, rolls back when an exception passes.

        ``spans`` says per lane what is about to be decided; a store with ``attempts`` keeps it,
        so that the next owner learns of it should this one die. Blocks while another writer
        holds the file. Raises ``StorageFull``, ``StaleOwner``, ``Contended``, ``Unreachable``
        (where the outcome of a commit is unknown: claim again, and see).
        """

    def due(
        self, destination: str, now: int, known: Collection[int], limit: int, *,
        is_topic: bool = False, shards: Collection[int] | None = None,
    ) -> list[Due]:  # fmt: skip
        """Unsettled rows of a gateway (or a topic: the two may share a name) in id order, but
        not those of the ids ``known``; for ``clock`` those due by ``now`` in due order. Rows of
        ``shards``, None for all. Read-only. Ids are no cursor: a lower one may come later, of
        another key."""

    def settle(
        self, epochs: Mapping[int, int], rows: Sequence[Settled], answers_to: str, now: int
    ) -> None:
        """Close rows and append their answers in one transaction, each under the courier's
        epoch of its shard. Raises ``StaleOwner``, ``StorageFull``."""

    def scan(self, what: Scan) -> list[Row]:
        """Read for people and for recovery, bodies undecoded. Never blocks a writer."""

    def prune(
        self, floors: Mapping[tuple[str, int], int], now: int, keep: frozenset[bytes] = frozenset()
    ) -> int:
        """Record a checkpoint of all positions; drop marks and settled rows of transactions
        that lie wholly before ``floors``, but no mark in ``keep``. Bounded; returns rows."""


class Roll(Protocol):
    """Who carries a service's rows: its couriers share the store's shards."""

    def attend(self, now: int) -> frozenset[int]:
        """Say that this courier lives, and learn its shards. Called about once a second; one that
        is silent for some seconds counts as dead. Raises ``Unreachable``."""

    def leave(self) -> None:
        """Leave the roll; others get the shards at their next ``attend``. May repeat."""


class Request(Struct, frozen=True, kw_only=True, gc=False):
    """One gateway call: ``body`` is the ask's request as JSON."""

    name: str
    key: str
    idempotency_key: str
    body: bytes
    attempt: int
    timeout_seconds: float
    trace: str = ""


class Ok(Struct, frozen=True, gc=False):
    """Definite success; ``body`` is the gateway's JSON."""

    body: bytes = b"null"


class Refused(Struct, frozen=True, gc=False):
    """Definite refusal: the same call will never succeed. An outcome, not a failure."""

    reason: str
    body: bytes = b"null"


class Unavailable(Struct, frozen=True, gc=False):
    """Nothing happened there; try again, not before ``after_seconds`` where it said so."""

    reason: str
    after_seconds: float | None = None


class Unknown(Struct, frozen=True, gc=False):
    """It may have happened (a timeout, a cut connection): same key again, never a new one."""

    reason: str


Outcome = Ok | Refused | Unavailable | Unknown


class Gateway(Protocol):
    """One outside system."""

    def call(self, request: Request) -> Outcome:
        """Carry out one call. May be repeated with the same idempotency key; must then return
        the first outcome. Blocks at most ``timeout_seconds``. Raises nothing by contract; an
        exception counts as ``Unknown``. ``inline`` gateways answer at once, without a thread.
        """


class Clock(Protocol):
    """Time as an argument."""

    def now(self) -> int:
        """Milliseconds since 1970-01-01T00:00Z."""


