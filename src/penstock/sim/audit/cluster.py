"""A cluster as ``Books``: the topics in Kafka, the tables in PostgreSQL, the ledgers in a home.

A cluster is in use, so the order of looking matters, as for a home: first the client journals,
then the tables of all services in one picture of the database, then every topic up to the end it
has after that picture was taken, and last the ledgers. So a record that a store speaks of is in its
topic. What is younger than ``until`` no rule judges.

Every record comes into its topic by a courier, out of an outbox: it counts as carried (``epoch``
0), and its ``origin`` says which transaction made it, and under which epoch.

Of a house that came from a home folder every place is told as it was counted there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from penstock.sim.audit import tables
from penstock.sim.audit.avro import Avro
from penstock.sim.audit.books import Books, Fact, Flaw, Held, Ledger, Moved, as_bytes
from penstock.sim.audit.clients import read_journal
from penstock.sim.audit.files import Reads, ledgers_of
from penstock.sim.audit.opening import Looking, Unfit
from penstock.sim.audit.topics import Topics

__all__ = ["Unfit", "Where", "books_of_cluster", "is_running"]

_Placed = TypeVar("_Placed", Fact, Held)


class Where(NamedTuple):
    """A cluster: settings of a Kafka client, the prefix of its topics, the service that writes
    each topic (or another name for what several write), and a PostgreSQL connection string with
    its schema. ``avro``: topics whose values are not JSON; ``registry``: the address of who knows
    their schemas. ``accepts``: topics that take records of others, and the type and version these
    are of."""

    client: Mapping[str, Any]
    prefix: str
    producers: Mapping[str, str]
    dsn: str
    schema: str = "penstock"
    avro: frozenset[str] = frozenset()
    accepts: Mapping[str, tuple[str, int]] = {}
    registry: str = ""


def books_of_cluster(
    where: Where, home: Path, *, reads: Reads | None = None,
    journal: Path | Iterable[Path] | None = None, until: int | None = None,
    contracts: Mapping[str, Any] | None = None, retention: Mapping[str, float] | None = None,
    buffers: Mapping[str, float] | None = None, now: int | None = None,
    continues: Iterable[str] = (),
) -> Books:  # fmt: skip
    """Everything an audit looks at in a cluster. Raises ``Unfit``. See ``files.books_of``; of
    ``home`` only the sandboxes' ledgers are read, if there are any."""
    avro = _avro(where, contracts)
    paths = [journal] if isinstance(journal, Path) else journal
    asked = None if paths is None else read_journal(paths)
    flaws: list[Flaw] = []
    stores = tables.read_stores(where.dsn, where.schema, flaws)
    topics = Topics(where.client, where.prefix, flaws, where.accepts, avro)
    topics.read(where.producers)
    producers = {t: p for t, p in where.producers.items() if p in stores}
    books = Books(
        topics.facts, topics.partitions, topics.first, producers, reads or {}, stores,
        _ledgers(home, flaws), asked, until, flaws, topics.examined, (), contracts,
        retention or {}, buffers or {}, now, frozenset(continues), frozenset(where.accepts),
        same=as_bytes if avro is None else avro.same, is_dense=False, is_steady=False,
    )  # fmt: skip
    return as_at_home(books, tables.read_moved(where.dsn, where.schema))


def _avro(where: Where, contracts: Mapping[str, Any] | None) -> Avro | None:
    if not where.avro:
        return None
    if contracts is None:
        raise Unfit(
            f"The values of {', '.join(sorted(where.avro))} are Avro, and no contracts were given.",
            "Name their folder with --contracts.",
        )
    return Avro(where.avro, contracts, where.registry, where.accepts)


def as_at_home(books: Books, moved: Mapping[tuple[str, int], Moved]) -> Books:
    """The books with every place as it would have been counted in the home that moved here."""
    if not moved:
        return books
    firsts = {place: there.first for place, there in moved.items()}

    def then(positions: Mapping[str, int], lane: int) -> dict[str, int]:
        return {topic: at + firsts.get((topic, lane), 0) for topic, at in positions.items()}

    def told(text: str) -> str:
        with suppress(ValueError, AttributeError, TypeError):  # a broken one says nothing
            lanes = json.loads(text)
            return json.dumps({lane: then(at, int(lane)) for lane, at in lanes.items()})
        return text

    def shifted(row: _Placed) -> _Placed:
        return row._replace(offset=row.offset + firsts.get(row[:2], 0))

    return books._replace(
        topics={topic: list(map(shifted, facts)) for topic, facts in books.topics.items()},
        first={place: first + firsts.get(place, 0) for place, first in books.first.items()},
        stores={
            name: store._replace(
                owners=[o._replace(positions=then(o.positions, o.lane)) for o in store.owners],
                held=list(map(shifted, store.held)),
                checkpoints=[(txn, at, told(text)) for txn, at, text in store.checkpoints],
            ) for name, store in books.stores.items()
        },
        moved=moved,
    )  # fmt: skip


def is_running(where: Where) -> bool:
    """Has any process reported in the last seconds? Raises ``Unfit``."""
    return tables.is_running(where.dsn, where.schema)


def _ledgers(home: Path, flaws: list[Flaw]) -> dict[str, Ledger]:
    if not home.is_dir():
        return {}
    with Looking() as looking:
        found = ledgers_of(looking, home, flaws)
        looking.finish()
        return found
