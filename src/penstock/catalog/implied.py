"""What a catalog need not say: answers, dead letters, the journal, who reads them, who is local.

Every service with a handler has ``<service>.answers`` (outcomes of its asks, wakes, discards) and
``<service>.dead``; it reads its own answers, and the journal, where operators' requests lie. The
platform's own service ``journal`` writes that topic, and reads all dead letters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec

from penstock.catalog.model import (
    CHECKPOINT_FILE,
    CHECKPOINT_URL,
    CLOCK,
    EVERY_TEAM,
    JOURNAL,
    JOURNAL_HANDLER,
    LOCAL,
    PLATFORM,
    Catalog,
    GatewayEntry,
    Person,
    ServiceEntry,
    Topic,
    answers_of,
    dead_of,
    is_count,
)
from penstock.catalog.roles import ADMIN
from penstock.limits import PARTITIONS_DEFAULT


def with_implied(catalog: Catalog) -> Catalog:
    """The catalog with every implied topic, service, gateway and reading; declared ones are left
    as they are."""
    topics, gateways = dict(catalog.topics), dict(catalog.gateways)
    handlers = [s for s in catalog.services.values() if s.handler]
    topics.setdefault(JOURNAL, _journal(catalog, _usual(catalog, handlers)))
    for service in handlers:
        for topic in _own(service, _usual(catalog, [service]), _longest(catalog, service)):
            topics.setdefault(topic.name, topic)
    keeping = _keeping(catalog, topics[JOURNAL], handlers)
    for topic in _own(keeping, topics[JOURNAL].partitions, None):
        topics.setdefault(topic.name, topic)
    gateways = {**_witnesses(catalog, keeping.owner), **gateways}
    asks = (CLOCK, *_witnesses(catalog, "")) if _witnesses(catalog, "") else ()
    services = {name: _reading(s) for name, s in catalog.services.items()}
    services.setdefault(JOURNAL, _reading(msgspec.structs.replace(keeping, asks=asks)))
    people = {LOCAL: _local(), **catalog.people}
    return msgspec.structs.replace(
        catalog, topics=topics, services=services, gateways=gateways, people=people
    )


def _keeping(
    catalog: Catalog, journal: Topic, handlers: Iterable[ServiceEntry]
) -> ServiceEntry:
    """The platform's service that writes the journal."""
    names = (*(s.name for s in handlers if s.name not in PLATFORM), JOURNAL)
    return ServiceEntry(
        name=JOURNAL, owner=journal.owner, handler=JOURNAL_HANDLER,
        reads=tuple(map(dead_of, names)), writes=(JOURNAL,),
        about="Keeps the journal: links every entry, notes what became of dead letters.",
    )  # fmt: skip


def _witnesses(catalog: Catalog, owner: str) -> dict[str, GatewayEntry]:
    """The gateways that keep the journal's head outside."""
    said, found = catalog.journal, {}
    for name, kind, setting, where in (
        (CHECKPOINT_FILE, "file", "path", said.checkpoint_file),
        (CHECKPOINT_URL, "url", "url", said.checkpoint_url),
    ):
        if where:
            found[name] = GatewayEntry(
                name=name, owner=owner, handler=f"penstock.ops.witness:{kind}_witness",
                max_in_flight=1, settings={setting: where},
                about=f"Keeps the journal's head outside: a {setting}.",
            )
    return found


def _local() -> Person:
    """Who may read the home folder may do everything anyway: so the user of this machine may."""
    return Person(name=LOCAL, roles={EVERY_TEAM: (ADMIN,)}, about="The user of this machine.")


def _usual(catalog: Catalog, services: Iterable[ServiceEntry]) -> int:
    """The partition count most of these services' topics have."""
    read = (catalog.topics.get(name) for s in services for name in s.reads)
    counts = Counter(topic.partitions for topic in read if topic and is_count(topic.partitions))
    return counts.most_common(1)[0][0] if counts else PARTITIONS_DEFAULT


def _longest(catalog: Catalog, service: ServiceEntry) -> float | None:
    """How long the service's inputs are kept; None where one is kept for ever. Its answers and
    dead letters are kept as long: marks reach as far back as the oldest record that is read."""
    ages = [catalog.topics[t].retention_seconds for t in service.reads if t in catalog.topics]
    return max((age for age in ages if age is not None), default=None) if all(ages) else None


def _journal(catalog: Catalog, partitions: int) -> Topic:
    return Topic(
        name=JOURNAL, producer=JOURNAL,
        owner=catalog.platform.owner if catalog.platform else "",
        key="what it is about", partitions=partitions, class_="internal",
        about="Who wanted what, why, and what came of it; each entry linked to the one before.",
    )  # fmt: skip


def _own(
    service: ServiceEntry, partitions: int, retention_seconds: float | None
) -> Iterator[Topic]:
    """The topics a service has for being one."""
    for name, key, about in (
        (answers_of(service.name), "asking key", "Outcomes of asks, and wakes"),
        (dead_of(service.name), "as the record", "Parked records"),
    ):
        yield Topic(
            name=name, owner=service.owner, producer=service.name, key=key,
            partitions=partitions, retention_seconds=retention_seconds, class_="internal",
            about=f"{about} of {service.name}.",
        )  # fmt: skip


def _reading(service: ServiceEntry) -> ServiceEntry:
    if not service.handler:
        return service
    more = [t for t in (answers_of(service.name), JOURNAL) if t not in service.reads]
    return msgspec.structs.replace(service, reads=(*service.reads, *more))
