"""The declared world as one frozen value. ``load`` reads it from TOML; nothing else makes one."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from penstock.limits import PARTITIONS_DEFAULT, PARTITIONS_MAX

JOURNAL = "journal"
CLOCK = "clock"
UNCOUNTED = 1_000_000  # attempts of what another bound ends first
CHECKPOINT_FILE, CHECKPOINT_URL = "checkpoint-file", "checkpoint-url"
WITNESSES = (CHECKPOINT_FILE, CHECKPOINT_URL)  # the built-in gateways of the journal
JOURNAL_HANDLER = "penstock.ops.journal:service"  # called with the catalog
PLATFORM = frozenset({JOURNAL})  # services that no catalog declares and no flow brings
LOCAL = "local"  # who calls without saying who: the user of this machine
EVERY_TEAM = "*"


def answers_of(service: str) -> str:
    """The topic of a service's answers."""
    return f"{service}.answers"


def dead_of(service: str) -> str:
    """The topic of a service's dead letters."""
    return f"{service}.dead"


def is_count(partitions: int) -> bool:
    """Whether a topic may have so many partitions: a power of two, up to the limit."""
    return 0 < partitions <= PARTITIONS_MAX and partitions & (partitions - 1) == 0


class Platform(Struct, frozen=True, kw_only=True):
    """Penstock's own part: ``owner`` is the team the journal belongs to."""

    owner: str


class Holiday(Struct, frozen=True, kw_only=True, rename={"from_": "from"}):
    """Days that a person is away, from midnight to midnight in the person's own zone. ``from``
    and ``to`` are dates, both included; without ``to`` it is one day."""

    from_: str
    to: str = ""


class Person(Struct, frozen=True, kw_only=True):
    """Somebody with a name: ``address`` is where they are woken, ``zone`` an IANA zone, ``roles``
    the roles they hold, by team (``*``: in every one)."""

    name: str
    address: str = ""
    zone: str = "UTC"
    roles: dict[str, tuple[str, ...]] = {}
    holidays: tuple[Holiday, ...] = ()
    about: str = ""


class Override(Struct, frozen=True, kw_only=True, rename={"from_": "from"}):
    """``person`` is on call from ``from`` until before ``to``, whoever's turn it is. Both are
    local times of the rotation's zone."""

    from_: str
    to: str
    person: str


class Rotation(Struct, frozen=True, kw_only=True):
    """Who is on call: ``members`` take turns of ``period_days``. The first one's turn begins at
    ``first_handover``, a local time of ``zone``; every further handover is at that time of day."""

    members: tuple[str, ...]
    first_handover: str
    zone: str = "UTC"
    period_days: int = 7
    overrides: tuple[Override, ...] = ()


class Team(Struct, frozen=True, kw_only=True):
    """An owner: ``contacts`` are addresses; ``rotation`` says who is woken, or ``on_call``, where
    that never changes: people, or addresses."""

    name: str
    contacts: tuple[str, ...]
    on_call: tuple[str, ...] = ()
    rotation: Rotation | None = None
    about: str = ""


class Topic(Struct, frozen=True, kw_only=True, rename={"class_": "class"}):
    """A topic: one owning team, one producing service.

    ``accepts`` is the ``type/version`` of what others write to it without our headers. ``wire``
    and ``replication`` (None: the cluster's) matter on Kafka only.
    """

    name: str
    owner: str
    producer: str
    key: str
    partitions: int = PARTITIONS_DEFAULT
    retention_seconds: float | None = None
    retention_bytes: int | None = None
    class_: Literal["critical", "standard", "internal"] = "standard"
    accepts: str = ""
    wire: Literal["json", "avro"] = "json"
    replication: int | None = None
    about: str = ""

    @property
    def accepted(self) -> tuple[str, int] | None:
        """Type and version of ``accepts``."""
        type_, _, version = self.accepts.rpartition("/")
        return (type_, int(version)) if type_ and version.isdecimal() else None


class RetryPolicy(Struct, frozen=True, kw_only=True):
    """Attempts of one record in one service; delays grow by ``factor`` up to the maximum.

    A gateway's calls are bounded by its ``buffer_seconds`` instead of a number of attempts.
    """

    attempts: int = 5
    first_delay_seconds: float = 1.0
    factor: float = 2.0
    max_delay_seconds: float = 60.0

    def delay_seconds(self, attempt: int) -> float:
        """The wait after the ``attempt``-th failure (1 is the first)."""
        try:
            delay = self.first_delay_seconds * self.factor ** (attempt - 1)
        except OverflowError:  # a factor of 2 is past the largest float after 1,024 attempts
            return self.max_delay_seconds
        return min(self.max_delay_seconds, delay)

    def worst_case_seconds(self) -> float:
        """The total delay before a record that always fails is parked."""
        total, steps = 0.0, self.attempts - 1
        for attempt in range(1, steps + 1):
            delay = self.delay_seconds(attempt)
            if self.factor == 1 or delay >= self.max_delay_seconds:
                return total + (steps - attempt + 1) * delay  # it grows no further
            total += delay
        return total

    def attempts_within(self, seconds: float) -> int:
        """How often something is tried where time is the bound."""
        attempt, left = 1, seconds
        while attempt < self.attempts and left > 0:
            delay = self.delay_seconds(attempt)
            if self.factor == 1 or delay >= self.max_delay_seconds:
                return min(self.attempts, attempt + int(left // delay))
            attempt, left = attempt + 1, left - delay
        return attempt


class Slo(Struct, frozen=True, kw_only=True):
    """``objective`` (0 to 1) of records handled within ``latency_seconds``."""

    latency_seconds: float
    objective: float


class ServiceEntry(Struct, frozen=True, kw_only=True):
    """A service as declared. ``handler`` is ``package.module:NAME`` of a ``Service`` value.

    The door has no handler: its routes come with the flow. ``reads`` and ``writes`` name
    topics; answers and dead letters are implied. ``asks`` names gateways.
    """

    name: str
    owner: str
    handler: str = ""
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()
    retry: RetryPolicy = RetryPolicy()
    after_park: Literal["halt", "continue"] = "halt"
    workers: int = 1
    batch: int = 500
    slo: Slo | None = None
    about: str = ""


class Breaker(Struct, frozen=True, kw_only=True):
    """Opens after ``failures`` in a row, tries one call again after ``open_seconds``."""

    failures: int = 5
    open_seconds: float = 5.0


class Sandbox(Struct, frozen=True, kw_only=True):
    """The process that stands for a gateway on one machine: ``python -m module *args``.

    ``sets`` gives the gateway's settings their values once it listens; ``{host}`` and ``{port}``
    are filled in.
    """

    module: str
    args: tuple[str, ...] = ()
    sets: dict[str, str] = {}
    about: str = ""


class GatewayEntry(Struct, frozen=True, kw_only=True):
    """An outside system. ``handler`` is ``package.module:factory``; the factory takes
    ``settings`` (a mapping) and returns a Gateway. ``rate`` is calls a second."""

    name: str
    owner: str
    handler: str
    rate: float = 1000.0
    max_in_flight: int = 16
    timeout_seconds: float = 5.0
    breaker: Breaker = Breaker()
    retry: RetryPolicy = RetryPolicy(attempts=UNCOUNTED, first_delay_seconds=0.2)
    buffer_seconds: float = 86_400.0
    inline: bool = False
    settings: dict[str, Any] = {}
    sandbox: Sandbox | None = None
    about: str = ""


class Stage(Struct, frozen=True, kw_only=True):
    """A step of the business with its recovery targets."""

    name: str
    services: tuple[str, ...]
    rto_seconds: float
    rpo_seconds: float
    about: str = ""


class Client(Struct, frozen=True, kw_only=True):
    """A caller of the door and what it may do beyond a plain call (until tokens come).

    Who names no client calls itself ``local``. ``may`` lists some of ``Catalog.permissions``.
    """

    name: str
    may: tuple[str, ...] = ()


class KafkaSettings(Struct, frozen=True, kw_only=True):
    """A Kafka cluster: ``servers`` to begin with, ``prefix`` of every topic's and group's name,
    ``client`` what is passed through to the client library (TLS, SASL; ``${NAME}`` in it is a
    variable of the environment). ``registry`` is the URL of a schema registry for topics in
    Avro's binary form."""

    servers: str
    prefix: str = ""
    replication: int = 1
    min_insync: int | None = None
    client: dict[str, Any] = {}
    registry: str = ""


class PostgresSettings(Struct, frozen=True, kw_only=True):
    """A PostgreSQL database, as a connection string."""

    dsn: str


class JournalSettings(Struct, frozen=True, kw_only=True):
    """Where the journal's head is kept outside the host: a file, a webhook, both or (by default)
    nowhere. It goes there after so many entries, and so long after the latest one."""

    checkpoint_file: str = ""
    checkpoint_url: str = ""
    checkpoint_every: int = 100
    checkpoint_seconds: float = 60.0


class Catalog(Struct, frozen=True, kw_only=True):
    """The whole declared world. ``flow`` is the dotted path of the Flow value, ``settings`` the
    flow's own free settings, ``contracts`` the folder of schema snapshots, ``permissions`` what
    the flow's routes may want of a client."""

    name: str
    flow: str
    platform: Platform | None = None
    people: dict[str, Person] = {}
    teams: dict[str, Team]
    topics: dict[str, Topic]
    services: dict[str, ServiceEntry]
    gateways: dict[str, GatewayEntry] = {}
    stages: dict[str, Stage] = {}
    permissions: tuple[str, ...] = ()
    clients: dict[str, Client] = {}
    settings: dict[str, Any] = {}
    contracts: str = ""
    kafka: KafkaSettings | None = None
    postgres: PostgresSettings | None = None
    journal: JournalSettings = JournalSettings()

    def lane_count(self, service: str) -> int:
        """Partitions of every topic the service reads (all are equal by ``check``)."""
        entry = self.services[service]
        return max((self.topics[t].partitions for t in entry.reads), default=1)

    def readers(self, topic: str) -> tuple[str, ...]:
        """Services that read ``topic``, in catalog order."""
        return tuple(s.name for s in self.services.values() if topic in s.reads)
