"""The auditor's look at a simulated world: its records, tables, ledgers and journal as Books."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from typing import Any

from penstock import assemble
from penstock.catalog.model import JOURNAL, Catalog
from penstock.engine.unit import REQUESTS
from penstock.flow import Flow
from penstock.sim.audit.books import Books, Call, Deed, Ledger, Mail, Rule, StoreBook
from penstock.sim.audit.platform import RULES, with_journal
from penstock.sim.audit.stores import read_store
from penstock.sim.parts import MemoryParts
from penstock.sim.world import World

Reads = Mapping[str, Mapping[str, frozenset[str]]]


@cache
def rules_of(audit: str) -> tuple[Rule, ...]:
    """The platform's rules, and those of a flow's own ``audit`` module."""
    if not audit:
        return RULES
    own: tuple[Rule, ...] = importlib.import_module(audit).RULES
    return (*RULES, *own)


def reads_of(flow: Flow, catalog: Catalog) -> Reads:
    """Which types each service reads: as the flow's auditor wrote it down, or as declared."""
    if flow.audit:
        known: Reads = importlib.import_module(flow.audit).READS
        return with_journal(known)
    found = {}
    for service in flow.services:
        declared = catalog.services[service.name].reads
        topics = {t: frozenset(service.reads.get(t, ())) for t in declared}
        if JOURNAL in topics:
            topics[JOURNAL] |= REQUESTS
        found[service.name] = topics
    return found


def books_of(world: World) -> Books:
    """Everything that was written down in a world, now that it stands still."""
    if not isinstance(world.parts, MemoryParts):
        return _files(world)
    facts = world.parts.recorded.facts
    log = world.parts.recorded
    return Books(
        topics={topic: sorted(f, key=_place) for topic, f in facts.items()},
        partitions={t.name: t.partitions for t in world.catalog.topics.values()},
        first={
            (topic, p): extent.first
            for topic in facts for p, extent in enumerate(log.extent(topic))
        },
        producers=_producers(world.catalog),
        reads=reads_of(world.flow, world.catalog),
        stores={name: _store(world.parts, name) for name in (*world.units, world.flow.door)},
        ledgers=_ledgers(world),
        journal=world.clients.journal(),
        retention=_retention(world.catalog), buffers=_buffers(world.catalog),
        now=world.now, continues=_continues(world.catalog),
    )


def _retention(catalog: Catalog) -> dict[str, float]:
    kept = {t.name: t.retention_seconds for t in catalog.topics.values()}
    return {name: seconds for name, seconds in kept.items() if seconds is not None}


def _buffers(catalog: Catalog) -> dict[str, float]:
    return {g.name: g.buffer_seconds for g in catalog.gateways.values()}


def _continues(catalog: Catalog) -> frozenset[str]:
    return frozenset(s.name for s in catalog.services.values() if s.after_park == "continue")


def _place(fact: Any) -> tuple[int, int]:
    return fact[1], fact[2]


def _producers(catalog: Catalog) -> dict[str, str]:
    return {t: assemble.owner_file(catalog, t) for t in catalog.topics}


def _store(parts: MemoryParts, service: str) -> StoreBook:
    return read_store(parts.connection(service), service)


def _ledgers(world: World) -> dict[str, Ledger]:
    found = {}
    for name, rows in world.played.ledgers().items():
        found[name] = Ledger(
            name, [Deed(*r) for r in rows.get("deeds", ())],
            [Call(*r) for r in rows.get("calls", ())], [Mail(*r) for r in rows.get("mails", ())],
        )
    return found


def _files(world: World) -> Books:
    from penstock.sim.audit.files import books_of as of_home

    catalog = world.catalog
    books = of_home(
        world.house.home, reads=reads_of(world.flow, catalog), now=world.now,
        retention=_retention(catalog), buffers=_buffers(catalog),
    )
    return books._replace(
        ledgers=_ledgers(world), journal=world.clients.journal(), continues=_continues(catalog)
    )
