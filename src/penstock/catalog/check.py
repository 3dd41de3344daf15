"""The rules a catalog must hold, each a named predicate over the whole value; pure.

They are run on a catalog with its implied topics (``implied.with_implied``). A rule speaks only
where it alone sees the trouble: an unknown name is told of once, by the rule that looks it up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from string import Formatter

from penstock.catalog import staffing
from penstock.catalog.flaw import Flaw, Keys, near, shown
from penstock.catalog.model import (
    CLOCK,
    JOURNAL,
    JOURNAL_HANDLER,
    UNCOUNTED,
    Catalog,
    GatewayEntry,
    RetryPolicy,
    ServiceEntry,
    Topic,
    answers_of,
    dead_of,
    is_count,
)
from penstock.catalog.predicates import Flaws, above_zero, all_known, known, within
from penstock.limits import BATCH_RECORDS_MAX, PARTITIONS_MAX

NAME_CHARS_MAX = 64
WORKERS_MAX = 64
IN_FLIGHT_MAX = 1000
SANDBOX_GIVES = ("host", "port")

_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_TOPIC_NAME = re.compile(r"[a-z][a-z0-9_-]*(\.[a-z][a-z0-9_-]*)*")
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_REFERENCE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*/[1-9][0-9]{0,8}")
_SERVER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}")
_PREFIX = re.compile(r"[A-Za-z0-9._-]{0,100}")
_DOTTED = re.compile(rf"{_MODULE.pattern}:{_MODULE.pattern}")


def check(catalog: Catalog) -> list[Flaw]:
    """Everything that breaks a rule, in the order of the rules."""
    return [flaw for rule in RULES for flaw in rule(catalog)]


# Names -----------------------------------------------------------------------------------------


def names_are_plain(c: Catalog) -> Flaws:
    """Names become parts of file names, of topics and of addresses."""
    tables: Mapping[str, Iterable[str]] = {
        "people": c.people, "teams": c.teams, "topics": c.topics, "services": c.services,
        "gateways": c.gateways, "stages": c.stages,
    }  # fmt: skip
    yield from _plain(("name",), c.name, _NAME)
    for table, names in tables.items():
        for name in names:
            yield from _plain((table, name), name, _TOPIC_NAME if table == "topics" else _NAME)


def _plain(path: Keys, name: str, pattern: re.Pattern[str]) -> Flaws:
    if not pattern.fullmatch(name) or len(name) > NAME_CHARS_MAX:
        yield Flaw(
            path, f"{shown(name)} cannot be a name.",
            f"Use up to {NAME_CHARS_MAX} lower-case letters, digits, _ and -.",
        )  # fmt: skip


def names_are_free(c: Catalog) -> Flaws:
    """The clock is built in, and so is the service that writes the journal."""
    if CLOCK in c.gateways:
        yield Flaw(("gateways", CLOCK), "the clock is built in.", "Remove the table.")
    if JOURNAL in c.services and c.services[JOURNAL].handler != JOURNAL_HANDLER:
        yield Flaw(("services", JOURNAL), "the journal's service is built in.", "Rename it.")


# Owners ----------------------------------------------------------------------------------------


def owners_exist(c: Catalog) -> Flaws:
    """Everything has one owning team, and it is declared."""
    rows: Mapping[str, Mapping[str, Topic | ServiceEntry | GatewayEntry]] = {
        "topics": c.topics, "services": c.services, "gateways": c.gateways,
    }  # fmt: skip
    for table, found in rows.items():
        for name, row in found.items():
            yield from known((table, name, "owner"), row.owner, c.teams, "team")


def the_journal_is_owned(c: Catalog) -> Flaws:
    """The journal is the platform's own topic."""
    path = ("platform", "owner")
    if c.platform is not None:
        yield from known(path, c.platform.owner, c.teams, "team")
    elif not (JOURNAL in c.topics and c.topics[JOURNAL].owner):
        yield Flaw(path, "is missing.", "Name the team that the journal belongs to.")


# Topics ----------------------------------------------------------------------------------------


def producers_exist(c: Catalog) -> Flaws:
    """One producing service a topic; that of the journal is the platform's."""
    for name, topic in c.topics.items():
        path = ("topics", name, "producer")
        if name == JOURNAL and topic.producer != JOURNAL:
            yield Flaw(path, f"must be {JOURNAL}: a service of the platform writes it.")
        elif name != JOURNAL:
            yield from known(path, topic.producer, c.services, "service")


def the_journal_is_whole(c: Catalog) -> Flaws:
    """Nothing of the journal goes, and its bytes are what was hashed; its witnesses are named
    in a way that reaches them."""
    topic, said = c.topics.get(JOURNAL), c.journal
    for key in ("retention_seconds", "retention_bytes"):
        if topic is not None and getattr(topic, key) is not None:
            yield Flaw(("topics", JOURNAL, key), "the journal is kept whole.", "Remove it.")
    if topic is not None and topic.wire != "json":
        yield Flaw(("topics", JOURNAL, "wire"), "must be json: its hashes are of those bytes.")
    if said.checkpoint_url and not said.checkpoint_url.startswith(("http://", "https://")):
        text = f"{shown(said.checkpoint_url)} is no address."
        yield Flaw(("journal", "checkpoint_url"), text, "Write https://host/path.")
    if said.checkpoint_file and not said.checkpoint_file.startswith("/"):
        text = f"{shown(said.checkpoint_file)} is no full path."
        yield Flaw(("journal", "checkpoint_file"), text, "Begin it with a slash.")
    yield from within(("journal", "checkpoint_every"), said.checkpoint_every, 1)
    yield from within(("journal", "checkpoint_seconds"), said.checkpoint_seconds, 1, 86_400)


def producers_write(c: Catalog) -> Flaws:
    """Who produces a topic lists it, and nobody else does. (The journal's is built in.)"""
    for name, topic in c.topics.items():
        entry = c.services.get(topic.producer)
        if entry and name != JOURNAL and name not in (*entry.writes, *_own(entry.name)):
            text = f"{entry.name} does not list {name} under writes."
            hint = "List it there, or name the service that does."
            yield Flaw(("topics", name, "producer"), text, hint)
    for service in c.services.values():
        for number, name in enumerate(service.writes):
            yield from _writes_its_own(c, service, name, number)


def _writes_its_own(c: Catalog, service: ServiceEntry, name: str, number: int) -> Flaws:
    topic, is_own = c.topics.get(name), name == service.name == JOURNAL
    if topic and topic.producer in c.services and topic.producer != service.name and not is_own:
        yield Flaw(
            ("services", service.name, "writes", str(number)),
            f"{name} is produced by {topic.producer}.",
            "A topic has one producing service.",
        )


def _own(service: str) -> tuple[str, str]:
    return answers_of(service), dead_of(service)


def own_topics_are_own(c: Catalog) -> Flaws:
    """A service's answers and dead letters are written by its own engine."""
    for service in c.services:
        for name in _own(service):
            if name in c.topics and c.topics[name].producer != service:
                yield Flaw(("topics", name, "producer"), f"must be {service}, whose topic it is.")


def partitions_fit(c: Catalog) -> Flaws:
    """Powers of two: a count can double, and Kafka's own clients agree where a key lies."""
    for name, topic in c.topics.items():
        if not is_count(topic.partitions):
            text = f"must be a power of two up to {PARTITIONS_MAX}, and is {topic.partitions}."
            yield Flaw(("topics", name, "partitions"), text)


def retention_keeps_something(c: Catalog) -> Flaws:
    """No bound keeps everything; a bound of nothing would keep nothing."""
    for name, topic in c.topics.items():
        path = ("topics", name)
        yield from above_zero((*path, "retention_seconds"), topic.retention_seconds)
        yield from above_zero((*path, "retention_bytes"), topic.retention_bytes)


def foreign_schemas_are_named(c: Catalog) -> Flaws:
    """What a topic accepts from others is one event type in one version."""
    for name, topic in c.topics.items():
        if topic.accepts and not _REFERENCE.fullmatch(topic.accepts):
            text = f"{shown(topic.accepts)} names no type and version."
            yield Flaw(("topics", name, "accepts"), text, "Write it as order.placed/1.")


# Kafka and PostgreSQL --------------------------------------------------------------------------


def the_cluster_can_be_found(c: Catalog) -> Flaws:
    """A broker to begin with, as many replicas as are wanted in step, names that Kafka takes."""
    if c.postgres is not None and not c.postgres.dsn.strip():
        yield Flaw(("postgres", "dsn"), "is empty.", "Write postgresql://user@host/database.")
    for name, topic in c.topics.items():
        if topic.replication is not None:
            yield from within(("topics", name, "replication"), topic.replication, 1)
    kafka = c.kafka
    if kafka is None:
        return
    if not all(_SERVER.fullmatch(part.strip()) for part in kafka.servers.split(",")):
        text = f"{shown(kafka.servers)} is no list of brokers."
        yield Flaw(("kafka", "servers"), text, "Write host:port, several with commas between.")
    if not _PREFIX.fullmatch(kafka.prefix):
        text = f"{shown(kafka.prefix)} cannot begin a name in Kafka."
        yield Flaw(("kafka", "prefix"), text, "Use letters, digits, dots, dashes, underscores.")
    yield from within(("kafka", "replication"), kafka.replication, 1)
    if kafka.min_insync is not None:
        yield from within(("kafka", "min_insync"), kafka.min_insync, 1, kafka.replication)
    if kafka.registry and not kafka.registry.startswith(("http://", "https://")):
        text = f"{shown(kafka.registry)} is no address of a registry."
        yield Flaw(("kafka", "registry"), text, "Write http://host:port.")


# Services --------------------------------------------------------------------------------------


def services_name_what_exists(c: Catalog) -> Flaws:
    """Reads and writes are topics, asks are gateways or the clock."""
    gateways = {*c.gateways, CLOCK}
    for name, s in c.services.items():
        path = ("services", name)
        yield from all_known((*path, "reads"), s.reads, c.topics, "topic")
        yield from all_known((*path, "writes"), s.writes, c.topics, "topic")
        yield from all_known((*path, "asks"), s.asks, gateways, "gateway")


def lanes_are_equal(c: Catalog) -> Flaws:
    """A lane is one partition number across all the topics a service reads."""
    told = False
    for name, service in c.services.items():
        counts = {t: c.topics[t].partitions for t in service.reads if t in c.topics}
        fitting = {t: n for t, n in counts.items() if is_count(n)}
        if len(set(fitting.values())) > 1 and not (told and name == JOURNAL):
            told = True
            said = ", ".join(f"{t} {n}" for t, n in fitting.items())
            yield Flaw(
                ("services", name, "reads"), f"their partition counts differ: {said}.",
                "All topics one service reads need the same count; every service reads the "
                "journal.",
            )  # fmt: skip


def the_door_only_writes(c: Catalog) -> Flaws:
    """A service without a handler decides calls, not records."""
    for name, service in c.services.items():
        for key, said in (("reads", service.reads), ("asks", service.asks)):
            if said and not service.handler:
                text = f"{name} has no handler, so it {key} nothing."
                yield Flaw(("services", name, key), text, "Add a handler, or remove them.")


def paths_are_dotted(c: Catalog) -> Flaws:
    """What names a value of the program is package.module:NAME."""
    paths: dict[Keys, str] = {("flow",): c.flow}
    paths |= {("services", n, "handler"): s.handler for n, s in c.services.items() if s.handler}
    paths |= {("gateways", n, "handler"): g.handler for n, g in c.gateways.items()}
    for path, text in paths.items():
        if not _DOTTED.fullmatch(text):
            yield Flaw(path, f"{shown(text)} is no dotted path.", "Write package.module:NAME.")
    for name, gateway in c.gateways.items():
        if gateway.sandbox and not _MODULE.fullmatch(gateway.sandbox.module):
            text = f"{shown(gateway.sandbox.module)} is no module."
            yield Flaw(("gateways", name, "sandbox", "module"), text, "Write package.module.")


def services_are_bounded(c: Catalog) -> Flaws:
    """Workers, batches, attempts and objectives lie where the engine can keep them."""
    for name, s in c.services.items():
        path = ("services", name)
        yield from within((*path, "workers"), s.workers, 1, WORKERS_MAX)
        yield from within((*path, "batch"), s.batch, 1, BATCH_RECORDS_MAX)
        yield from _bounded((*path, "retry"), s.retry)
        if s.slo:
            yield from above_zero((*path, "slo", "latency_seconds"), s.slo.latency_seconds)
            if not 0 < s.slo.objective < 1:
                text = f"must lie between 0 and 1, and is {s.slo.objective:g}."
                yield Flaw((*path, "slo", "objective"), text, "0.99 means 99 of 100 records.")


def _bounded(path: Keys, retry: RetryPolicy) -> Flaws:
    """Attempts are counted from one, and delays never shrink."""
    yield from within((*path, "attempts"), retry.attempts, 1, UNCOUNTED)
    yield from above_zero((*path, "first_delay_seconds"), retry.first_delay_seconds)
    yield from within((*path, "factor"), retry.factor, 1)
    longest = (*path, "max_delay_seconds")
    yield from within(longest, retry.max_delay_seconds, max(0, retry.first_delay_seconds))


# Gateways --------------------------------------------------------------------------------------


def gateways_are_bounded(c: Catalog) -> Flaws:
    """Rates, calls in flight, times and the breaker."""
    for name, g in c.gateways.items():
        path = ("gateways", name)
        yield from above_zero((*path, "rate"), g.rate)
        yield from within((*path, "max_in_flight"), g.max_in_flight, 1, IN_FLIGHT_MAX)
        yield from above_zero((*path, "timeout_seconds"), g.timeout_seconds)
        yield from within((*path, "breaker", "failures"), g.breaker.failures, 1)
        yield from above_zero((*path, "breaker", "open_seconds"), g.breaker.open_seconds)
        yield from _bounded((*path, "retry"), g.retry)
        if g.retry.attempts < UNCOUNTED:
            text = "calls are not counted: buffer_seconds is their bound."
            yield Flaw((*path, "retry", "attempts"), text, "Leave it out.")


def buffers_outlast_timeouts(c: Catalog) -> Flaws:
    """A row must live longer than one call may take."""
    for name, g in c.gateways.items():
        if g.buffer_seconds <= g.timeout_seconds:
            text = f"must be above timeout_seconds ({g.timeout_seconds:g})"
            path = ("gateways", name, "buffer_seconds")
            yield Flaw(path, f"{text}, and is {g.buffer_seconds:g}.")


def placeholders_are_filled(c: Catalog) -> Flaws:
    """A ``{word}`` in a gateway's settings is one that some sandbox sets."""
    boxes = [g.sandbox for g in c.gateways.values() if g.sandbox]
    given = {name for box in boxes for name in box.sets}
    for name, gateway in c.gateways.items():
        texts = {k: v for k, v in gateway.settings.items() if isinstance(v, str)}
        yield from _filled(("gateways", name, "settings"), texts, given)
        if gateway.sandbox:
            path = ("gateways", name, "sandbox", "sets")
            yield from _filled(path, gateway.sandbox.sets, SANDBOX_GIVES)


def _filled(path: Keys, texts: Mapping[str, str], given: Collection[str]) -> Flaws:
    for key, text in texts.items():
        try:
            words = [w for _, w, _, _ in Formatter().parse(text) if w is not None]
        except ValueError as error:
            yield Flaw((*path, key), f"{error}.", "Write {{ and }} for braces.")
            continue
        for word in words:
            if word not in given:
                yield Flaw((*path, key), f"nothing sets {{{word}}}.", near(word, given))


# Stages and clients ----------------------------------------------------------------------------


def stages_name_services(c: Catalog) -> Flaws:
    """A stage is made of services and has targets."""
    for name, stage in c.stages.items():
        path = ("stages", name)
        if not stage.services:
            yield Flaw((*path, "services"), "is empty.", "Name the services it consists of.")
        yield from all_known((*path, "services"), stage.services, c.services, "service")
        yield from above_zero((*path, "rto_seconds"), stage.rto_seconds)
        yield from within((*path, "rpo_seconds"), stage.rpo_seconds, 0)


def permissions_are_known(c: Catalog) -> Flaws:
    """A client may hold what is declared, so that a misspelt permission is no silent refusal."""
    for name, client in c.clients.items():
        path = ("clients", name, "may")
        yield from all_known(path, client.may, c.permissions, "permission")


RULES: tuple[Callable[[Catalog], Flaws], ...] = (
    names_are_plain,
    names_are_free,
    owners_exist,
    the_journal_is_owned,
    *staffing.RULES,
    producers_exist,
    the_journal_is_whole,
    producers_write,
    own_topics_are_own,
    partitions_fit,
    retention_keeps_something,
    foreign_schemas_are_named,
    the_cluster_can_be_found,
    services_name_what_exists,
    lanes_are_equal,
    the_door_only_writes,
    paths_are_dotted,
    services_are_bounded,
    gateways_are_bounded,
    buffers_outlast_timeouts,
    placeholders_are_filled,
    stages_name_services,
    permissions_are_known,
)
