"""Where the cluster's figures are measured: a broker and a database, left as they were found.

Topics and groups have a prefix of their own, tables a schema of their own, and all of them go at
the end. Without addresses the bench starts servers for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from uuid import uuid4

import psycopg
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from msgspec import Struct
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from penstock import assemble
from penstock.catalog.model import KafkaSettings
from penstock.errors import Problem, Usage
from penstock.sim.servers.kafka import Cluster as Broker
from penstock.sim.servers.postgres import Postgres
from penstock.sim.servers.process import Absent, NotStarted

ANSWER_SECONDS = 10.0


class Place(Struct, frozen=True):
    """A corner of the ground: topics and groups under one prefix, tables in one schema."""

    servers: str
    prefix: str
    postgres: str  # its search path names the schema

    @property
    def cluster(self) -> assemble.Cluster:
        """What a house needs to know to live here."""
        kafka = KafkaSettings(servers=self.servers, prefix=self.prefix)
        return assemble.Cluster(kafka=kafka, postgres=self.postgres)


class Ground:
    """A broker and a database that answer."""

    def __init__(self, servers: str, postgres: str) -> None:
        self.servers, self._postgres = servers, postgres
        self._name = f"penstock_bench_{uuid4().hex[:8]}"
        self._schemas: list[str] = []
        self._check()

    def _check(self) -> None:
        """Raises ``Usage`` where one of them does not answer."""
        try:
            self.admin().list_topics(timeout=ANSWER_SECONDS)
        except KafkaException as error:
            raise Usage(
                "no_broker", f"No Kafka broker answers at {self.servers}: {error.args[0].str()}.",
                "Check --kafka (or PENSTOCK_KAFKA), or leave it out: then the bench starts one.",
            ) from None
        try:
            self._connected().close()
        except psycopg.Error as error:
            raise Usage(
                "no_database", f"PostgreSQL does not answer: {error}".strip(),
                "Check --postgres (or PENSTOCK_POSTGRES), or leave it out: then the bench starts "
                "one.",
            ) from None

    def admin(self) -> AdminClient:
        """For topics and groups."""
        return AdminClient({"bootstrap.servers": self.servers, "log_level": 0})

    def _connected(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(self._postgres, autocommit=True)

    def place(self, name: str) -> Place:
        """An empty corner of this ground, with its schema."""
        schema = f"{self._name}_{name}_{uuid4().hex[:4]}"
        with self._connected() as connection:
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        self._schemas.append(schema)
        given = str(conninfo_to_dict(self._postgres).get("options") or "")
        options = f"{given} -csearch_path={schema}".strip()
        prefix = f"{schema.replace('_', '-')}."
        return Place(self.servers, prefix, make_conninfo(self._postgres, options=options))

    def make_topics(self, *names: str, partitions: int) -> None:
        """Topics with the settings of the broker, as somebody without penstock makes them."""
        admin = self.admin()  # it must outlive its answers
        made = admin.create_topics([NewTopic(name, partitions) for name in names])
        for answer in made.values():
            answer.result(ANSWER_SECONDS)

    def clear(self) -> None:
        """Remove everything that was made here. May repeat."""
        with self._connected() as connection:
            for schema in self._schemas:
                connection.execute(
                    sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema))
                )
        self._schemas = []
        admin, own = self.admin(), self._name.replace("_", "-")
        topics = [t for t in admin.list_topics(timeout=ANSWER_SECONDS).topics if own in t]
        if topics:
            for gone in admin.delete_topics(topics).values():
                gone.result(ANSWER_SECONDS)
        listed = admin.list_consumer_groups().result(ANSWER_SECONDS)
        groups = [g.group_id for g in listed.valid if own in g.group_id]
        if groups:
            for left in admin.delete_consumer_groups(groups).values():
                with suppress(KafkaException):  # a member that was killed is still counted
                    left.result(ANSWER_SECONDS)


@contextmanager
def ground(kafka: str, postgres: str, say: Callable[[str], None]) -> Iterator[Ground]:
    """The servers named, or ones started for the bench. Raises ``Problem`` where they cannot be
    had."""
    with ExitStack() as stack:
        try:
            if not kafka:
                say("starting a Kafka broker")
                kafka = stack.enter_context(Broker(quick=False)).bootstrap
            if not postgres:
                say("starting a PostgreSQL server")
                postgres = stack.enter_context(Postgres()).create("penstock_bench")
        except (Absent, NotStarted) as missing:
            raise Problem(
                "no_servers", f"The bench cannot start what it needs: {missing}.",
                "Install that, or name running servers with --kafka and --postgres.",
            ) from None
        found = Ground(kafka, postgres)
        stack.callback(found.clear)
        yield found
