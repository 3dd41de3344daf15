"""The rules a catalog must hold, as an ordered list of named predicates; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches

from msgspec import Struct

from penstock.catalog.model import CLOCK, JOURNAL, Catalog
from penstock.limits import PARTITIONS_MAX

PERMISSIONS = ("supplied_prices", "load_stock", "load_prices")
ANY = "any"


class Finding(Struct, frozen=True):
    """A broken rule: the key's path, what is wrong, what to do."""

    path: tuple[str, ...]
    message: str
    hint: str = ""
    names: str = ""  # the unknown name, where that is what is wrong


def check(catalog: Catalog) -> list[Finding]:
    """Every broken rule, in the order of the rules."""
    return [finding for rule in RULES for finding in rule(catalog)]


def _known(
    path: tuple[str, ...], named: Iterable[str], known: Iterable[str], what: str
) -> Iterator[Finding]:
    """Each name must be among the known ones; the nearest one is suggested."""
    choices = tuple(known)
    for name in named:
        if name not in choices:
            near = get_close_matches(name, choices, 1)
            hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(choices)}."
            yield Finding(path, f"{name or 'nobody'} is no {what}.", hint, name)


def owners_exist(c: Catalog) -> Iterator[Finding]:
    """Every topic, service and gateway has one owning team that is declared."""
    for table, rows in (("topics", c.topics), ("services", c.services), ("gateways", c.gateways)):
        for name, row in rows.items():
            yield from _known((table, name, "owner"), [row.owner], c.teams, "team")


def teams_can_be_reached(c: Catalog) -> Iterator[Finding]:
    """A team has somebody to call."""
    for name, team in c.teams.items():
        if not team.contacts:
            yield Finding(("teams", name, "contacts"), "is empty.", "Name an address.")
        if not team.on_call:
            yield Finding(("teams", name, "on_call"), "is empty.", "Name who is woken.")


def producers_exist(c: Catalog) -> Iterator[Finding]:
    """One producing service per topic; only the journal has several."""
    for name, topic in c.topics.items():
        path = ("topics", name, "producer")
        if name == JOURNAL:
            if topic.producer != ANY:
                yield Finding(path, "must be any: everybody writes to the journal.")
        else:
            yield from _known(path, [topic.producer], c.services, "service")


def partitions_fit(c: Catalog) -> Iterator[Finding]:
    """Counts are powers of two, so that a count can double and Kafka's clients agree."""
    for name, topic in c.topics.items():
        n = topic.partitions
        if n < 1 or n & (n - 1) or n > PARTITIONS_MAX:
            yield Finding(
                ("topics", name, "partitions"), f"{n} is no power of two up to {PARTITIONS_MAX}."
            )


def retention_is_positive(c: Catalog) -> Iterator[Finding]:
    """A bound of nothing would drop everything."""
    for name, t in c.topics.items():
        for key in ("retention_seconds", "retention_bytes"):
            value = getattr(t, key)
            if value is not None and value <= 0:
                yield Finding(("topics", name, key), "must be above 0.", "Leave it out to keep all.")


def services_name_what_exists(c: Catalog) -> Iterator[Finding]:
    """Reads and writes are topics, asks are gateways (or the clock)."""
    for name, s in c.services.items():
        yield from _known(("services", name, "reads"), s.reads, c.topics, "topic")
        yield from _known(("services", name, "writes"), s.writes, c.topics, "topic")
        yield from _known(("services", name, "asks"), s.asks, (*c.gateways, CLOCK), "gateway")


def writers_are_producers(c: Catalog) -> Iterator[Finding]:
    """A service writes the topics it produces, all of them and no other."""
    for name, s in c.services.items():
        for topic in s.writes:
            declared = c.topics.get(topic)
            if declared and declared.producer not in (name, ANY):
                yield Finding(
                    ("services", name, "writes"),
                    f"{topic} is produced by {declared.producer}.",
                    "A topic has one producing service.",
                )


def lanes_are_equal(c: Catalog) -> Iterator[Finding]:
    """A lane is one partition number across all topics a service reads."""
    for name, s in c.services.items():
        counts = {t: c.topics[t].partitions for t in s.reads if t in c.topics}
        if len(set(counts.values())) > 1:
            said = ", ".join(f"{t} {n}" for t, n in counts.items())
            yield Finding(
                ("services", name, "reads"), f"have unequal partition counts: {said}.",
                "Give all topics of one service the same count.",
            )


def handlers_are_paths(c: Catalog) -> Iterator[Finding]:
    """A handler is package.module:NAME."""
    handlers: list[tuple[tuple[str, ...], str]] = [
        (("services", n, "handler"), s.handler) for n, s in c.services.items()
    ]
    handlers += [(("gateways", n, "handler"), g.handler) for n, g in c.gateways.items()]
    handlers.append((("flow",), c.flow))
    for path, handler in handlers:
        module, colon, name = handler.partition(":")
        if handler and not (module and colon and name.isidentifier()):
            yield Finding(path, f"{handler!r} is no dotted path.", "Write package.module:NAME.")


def retries_are_bounded(c: Catalog) -> Iterator[Finding]:
    """Attempts are counted from one, delays grow."""
    for name, s in c.services.items():
        path = ("services", name, "retry")
        if s.retry.attempts < 1:
            yield Finding((*path, "attempts"), "must be at least 1.")
        if s.retry.first_delay_seconds <= 0:
            yield Finding((*path, "first_delay_seconds"), "must be above 0.")
        if s.retry.factor < 1:
            yield Finding((*path, "factor"), "must be at least 1.")


def numbers_are_positive(c: Catalog) -> Iterator[Finding]:
    """Workers, batches, rates and times above zero."""
    for name, s in c.services.items():
        for key in ("workers", "batch"):
            if getattr(s, key) < 1:
                yield Finding(("services", name, key), "must be at least 1.")
        if s.slo and not 0 < s.slo.objective < 1:
            yield Finding(("services", name, "slo", "objective"), "must lie between 0 and 1.")
    for name, g in c.gateways.items():
        for key in ("rate", "max_in_flight", "timeout_seconds", "buffer_seconds"):
            if getattr(g, key) <= 0:
                yield Finding(("gateways", name, key), "must be above 0.")
        if g.breaker.failures < 1 or g.breaker.open_seconds <= 0:
            yield Finding(("gateways", name, "breaker"), "needs failures and open_seconds above 0.")


def buffers_outlast_timeouts(c: Catalog) -> Iterator[Finding]:
    """A row must outlive at least one call."""
    for name, g in c.gateways.items():
        if g.timeout_seconds >= g.buffer_seconds:
            yield Finding(
                ("gateways", name, "buffer_seconds"), "is not above timeout_seconds.",
                "Rows wait for the gateway that long.",
            )


def stages_name_services(c: Catalog) -> Iterator[Finding]:
    """A stage is made of services and has targets."""
    for name, stage in c.stages.items():
        yield from _known(("stages", name, "services"), stage.services, c.services, "service")
        if stage.rto_seconds <= 0 or stage.rpo_seconds < 0:
            yield Finding(("stages", name), "needs rto_seconds above 0 and rpo_seconds from 0 on.")


def permissions_are_known(c: Catalog) -> Iterator[Finding]:
    """Clients may hold known permissions only."""
    for name, client in c.clients.items():
        yield from _known(("clients", name, "may"), client.may, PERMISSIONS, "permission")


RULES: tuple[Callable[[Catalog], Iterator[Finding]], ...] = (
    owners_exist,
    teams_can_be_reached,
    producers_exist,
    partitions_fit,
    retention_is_positive,
    services_name_what_exists,
    writers_are_producers,
    lanes_are_equal,
    handlers_are_paths,
    retries_are_bounded,
    numbers_are_positive,
    buffers_outlast_timeouts,
    stages_name_services,
    permissions_are_known,
)
