"""The pair for more than one machine: Kafka's log and PostgreSQL's store.

``PENSTOCK_KAFKA`` and ``PENSTOCK_POSTGRES``, or the catalog's tables of these names, choose it.
Nothing here is imported before it is needed: the embedded pair starts without these clients.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from penstock.catalog.model import Catalog, KafkaSettings
from penstock.contracts.snapshot import OWN_FOLDER, load
from penstock.errors import Conflict, Usage
from penstock.flow import Flow
from penstock.limits import KAFKA_SECONDS_MAX
from penstock.ports import TopicSpec

if TYPE_CHECKING:
    from penstock.log.kafka import KafkaLog
    from penstock.log.kafka_avro import AvroWire
    from penstock.store.postgres import PostgresStore
    from penstock.store.postgres_copy import PostgresCopy
    from penstock.store.postgres_reading import PostgresReader
    from penstock.store.postgres_reports import PostgresReports
    from penstock.store.postgres_roll import PostgresRoll

KAFKA_VARIABLE = "PENSTOCK_KAFKA"
POSTGRES_VARIABLE = "PENSTOCK_POSTGRES"


def nobody_listens(topics: Iterable[str]) -> None:
    """The default of ``arrived``: whoever wants records looks by itself."""


class Cluster(Struct, frozen=True, kw_only=True):
    """Where the broker and the database are."""

    kafka: KafkaSettings
    postgres: str  # a connection string: it may hold a password, so it is never printed
    contracts: Path | None = None  # the folder of schema snapshots, for topics in Avro

    def client_settings(self) -> dict[str, Any]:
        """What a Kafka client of anybody's is given to reach this broker."""
        from penstock.log.kafka_clients import client_settings

        return client_settings(self.kafka)

    @property
    def schema(self) -> str:
        """The database's schema that all lies in."""
        from penstock.store.postgres_session import schema_of

        return schema_of(self.postgres)

    def log(
        self, specs: Sequence[TopicSpec],
        arrived: Callable[[Iterable[str]], None] = nobody_listens,
        seconds: float = KAFKA_SECONDS_MAX,
    ) -> KafkaLog:  # fmt: skip
        """A log of one's own; ``arrived`` is told from a thread which topics have news. A broker
        that is away is waited for so many ``seconds``."""
        from penstock.log.kafka import KafkaLog

        avro = any(spec.wire == "avro" for spec in specs)
        return KafkaLog(self.kafka, specs, arrived, self._wire() if avro else None, seconds)

    def _wire(self) -> AvroWire:
        from penstock.log.kafka_avro import AvroWire

        found = {**load(OWN_FOLDER), **(load(self.contracts) if self.contracts else {})}
        return AvroWire(found, self.kafka.registry)

    def store(self, service: str) -> PostgresStore:
        """A service's store; it connects when it is first used."""
        from penstock.store.postgres import PostgresStore

        return PostgresStore(self.postgres, service)

    def reader(self) -> PostgresReader:
        """The rows of all services over one connection, for any thread."""
        from penstock.store.postgres_reading import PostgresReader

        return PostgresReader(self.postgres)

    def copying(self) -> PostgresCopy:
        """A connection that puts in rows of another store as they are."""
        from penstock.store.postgres_copy import PostgresCopy

        return PostgresCopy(self.postgres)

    @property
    def postgres_shown(self) -> str:
        """The database as it may be shown to people."""
        from penstock.store.postgres_session import shown

        return shown(self.postgres)

    def roll(self, service: str, name: str) -> PostgresRoll:
        """The roll of a service's couriers."""
        from penstock.store.postgres_roll import PostgresRoll

        return PostgresRoll(self.postgres, service, name)

    def reports(self) -> PostgresReports:
        """What the processes say of themselves."""
        from penstock.store.postgres_reports import PostgresReports

        return PostgresReports(self.postgres)

    def make(self, specs: Sequence[TopicSpec], flow: Flow) -> None:
        """Bring the database up to this version, and make the topics that are missing."""
        from penstock.store import migrate

        migrate.apply(self.postgres, flow)
        log = self.log(specs)
        try:
            log.ensure(specs)
        finally:
            log.close()

    def refuse_moving(self) -> None:
        """Raises ``Conflict`` where a house is being moved here and was not switched yet, or went
        back to its home."""
        from penstock.store.postgres_copy import is_kept

        if is_kept(self.postgres):
            raise Conflict(
                "moving", "A house is being moved to this cluster, and was not switched yet.",
                "Where its home is: penstock migrate switch. After a return, work goes on there.",
            )

    def check(self) -> None:
        """Refuse a database that is not of this version. Raises ``Conflict``."""
        from penstock.store import migrate

        pending = migrate.pending(self.postgres)
        if pending:
            raise Conflict(
                "database_behind",
                f"The database lacks {len(pending)} migrations: {', '.join(pending)}.",
                "Run `penstock db migrate` once; it may run while others work.",
            )


def cluster_of(catalog: Catalog, contracts: Path | None = None) -> Cluster | None:
    """The cluster this house runs on, None for the embedded pair. Raises ``Usage``."""
    servers, dsn = os.environ.get(KAFKA_VARIABLE, ""), os.environ.get(POSTGRES_VARIABLE, "")
    kafka = catalog.kafka
    if servers:
        kafka = KafkaSettings(servers=servers) if kafka is None else replace(kafka, servers=servers)
    if not dsn and catalog.postgres is not None:
        dsn = catalog.postgres.dsn
    if kafka is None and not dsn:
        return None
    if kafka is None or not dsn:
        lacking = "a broker (--kafka)" if kafka is None else "a database (--postgres)"
        raise Usage(
            "half_a_cluster", f"The cluster lacks {lacking}.",
            f"Name both, by option, by {KAFKA_VARIABLE} and {POSTGRES_VARIABLE}, or in the "
            "catalog; or neither, and everything stays in the home folder.",
        )
    return Cluster(kafka=kafka, postgres=dsn, contracts=contracts)
