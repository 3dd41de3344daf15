"""What a catalog need not say: answers, dead letters, the journal, and who reads them."""

from __future__ import annotations

import msgspec

from penstock.catalog.model import JOURNAL, Catalog, ServiceEntry, Topic, answers_of, dead_of


def with_implied(catalog: Catalog, owner: str | None) -> Catalog:
    """The catalog with every implied topic and reading; declared ones are left as they are."""
    topics = dict(catalog.topics)
    counts = [t.partitions for t in topics.values()]
    lanes = max(counts, default=4)
    platform = owner or next(iter(catalog.teams), "")
    topics.setdefault(
        JOURNAL,
        Topic(
            name=JOURNAL, owner=platform, producer="any", key="the subject's key",
            partitions=lanes, class_="critical", about="What operators asked for and why.",
        ),
    )
    services = {name: _reading(s) for name, s in catalog.services.items()}
    for service in services.values():
        if service.handler:
            for name, about in (
                (answers_of(service.name), "Outcomes of asks, and wakes."),
                (dead_of(service.name), "Parked records."),
            ):
                topics.setdefault(name, _own(service, name, about, lanes))
    return msgspec.structs.replace(catalog, topics=topics, services=services)


def _own(service: ServiceEntry, name: str, about: str, partitions: int) -> Topic:
    return Topic(
        name=name, owner=service.owner, producer=service.name, key="as the record",
        partitions=partitions, class_="internal", about=f"{about} Of {service.name}.",
    )


def _reading(service: ServiceEntry) -> ServiceEntry:
    if not service.handler:
        return service
    reads = [*service.reads]
    for name in (answers_of(service.name), JOURNAL):
        if name not in reads:
            reads.append(name)
    return msgspec.structs.replace(service, reads=tuple(reads))
