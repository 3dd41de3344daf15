"""The broker and the database that homes on a cluster share: named ones, or some of our own.

Every home has a prefix and a schema to itself, so that homes do not meet, and nothing else on
named servers is touched. Those of our own may be harmed as well.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
from confluent_kafka.admin import AdminClient
from msgspec import Struct
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from penstock.assemble import cluster_of, contracts_folder, owner_file
from penstock.catalog.load import load_catalog
from penstock.errors import Usage
from penstock.sim.audit.cluster import Where
from penstock.sim.servers.kafka import Cluster
from penstock.sim.servers.postgres import Postgres

ANSWER_SECONDS = 30.0
# A dead member's lanes are free when its session is over: that is the broker's to say, and 45 s
# where nobody has said otherwise.
SESSION_SECONDS = 60.0
# With servers of our own: calls that wait for a broker or a database are under way, and each is
# given up on after ten seconds.
CALLS_SECONDS = 30.0
_SECTION = re.compile(r"\s*\[\[?\s*([^\]\s]+)\s*\]")
_PLACE = re.compile(r"\s*(servers|prefix)\s*=")


class Share(Struct, frozen=True, kw_only=True):
    """What one home has of the servers: topics and groups under a prefix, tables in a schema."""

    kafka: str
    postgres: str
    prefix: str
    own: bool = True  # the servers are ours: a catalog's settings for others do not count

    @property
    def schema(self) -> str:
        """Where its tables lie."""
        return self.prefix.rstrip("-").replace("-", "_")

    @property
    def dsn(self) -> str:
        """The connection string that finds the schema."""
        given = conninfo_to_dict(self.postgres).get("options") or ""
        return make_conninfo(self.postgres, options=f"{given} -c search_path={self.schema}".strip())

    def catalog(self, text: str) -> str:
        """A catalog's text with this cluster in it, and no other."""
        lines = [*self._kept(text.splitlines())]
        place = [f"servers = {_quoted(self.kafka)}", f"prefix = {_quoted(self.prefix)}"]
        if "[kafka]" in lines:
            at = lines.index("[kafka]") + 1
            lines[at:at] = place
        else:
            lines += ["", "[kafka]", *place]
        return "\n".join([*lines, "", "[postgres]", f"dsn = {_quoted(self.dsn)}", ""])

    def _kept(self, lines: list[str]) -> Iterator[str]:
        section = ""
        for line in lines:
            found = _SECTION.match(line)
            section = found[1] if found else section
            ours = section == "kafka" or section.startswith("kafka.")
            if section == "postgres" or (ours and (self.own or _is_place(section, line))):
                continue
            yield line.strip() if found and section == "kafka" else line


def _is_place(section: str, line: str) -> bool:
    return section == "kafka" and _PLACE.match(line) is not None


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


class Servers:
    """A broker and a database. Without addresses they are our own, started here."""

    def __init__(self, kafka: str = "", postgres: str = "") -> None:
        if bool(kafka) != bool(postgres):
            raise Usage(
                "half_a_cluster", "A cluster is a broker and a database.",
                "Name both, by --kafka and --postgres, or neither and say --cluster.",
            )  # fmt: skip
        self.own = not kafka
        self._kafka, self._postgres = kafka, postgres
        self._stack = contextlib.ExitStack()
        self.broker: Cluster | None = None
        self.database: Postgres | None = None

    def __enter__(self) -> Self:
        if self.own:
            try:
                self.database = self._stack.enter_context(Postgres())
                self.broker = self._stack.enter_context(Cluster())
            except BaseException:
                self._stack.close()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._stack.close()

    @property
    def extra_seconds(self) -> float:
        """How much longer than in a home folder a death may be felt."""
        return CALLS_SECONDS if self.own else SESSION_SECONDS

    @property
    def kafka(self) -> str:
        """``host:port`` of the broker."""
        return self.broker.bootstrap if self.broker is not None else self._kafka

    @property
    def postgres(self) -> str:
        """The database's connection string, without a schema."""
        return self.database.dsn() if self.database is not None else self._postgres

    def share(self) -> Share:
        """A place for one home; ``clear`` removes what it left."""
        prefix = f"crash-{secrets.token_hex(5)}-"
        return Share(kafka=self.kafka, postgres=self.postgres, prefix=prefix, own=self.own)

    def clear(self, catalog: Path) -> None:
        """Remove the topics, the groups and the schema of a home with this catalog. Those of our
        own servers go with them."""
        cluster = None if self.own else cluster_of(load_catalog(catalog))
        if cluster is None:
            return
        admin = AdminClient(cluster.client_settings())
        prefix = cluster.kafka.prefix
        known = admin.list_topics(timeout=ANSWER_SECONDS).topics
        groups = admin.list_consumer_groups(request_timeout=ANSWER_SECONDS).result()
        under_way: list[Any] = []
        if topics := [name for name in known if name.startswith(prefix)]:
            under_way += admin.delete_topics(topics).values()
        if gone := [g.group_id for g in groups.valid if g.group_id.startswith(prefix)]:
            under_way += admin.delete_consumer_groups(gone).values()
        for each in under_way:
            each.exception(ANSWER_SECONDS)
        with psycopg.connect(cluster.postgres, autocommit=True) as connection:
            name = sql.Identifier(cluster.schema)
            connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(name))


def where_of(catalog: Path) -> Where:
    """What the auditor must know of a home's cluster, by the home's own catalog."""
    declared = load_catalog(catalog)
    cluster = cluster_of(declared, contracts_folder(declared, catalog))
    assert cluster is not None, "the catalog was given a cluster"
    topics = declared.topics
    return Where(
        cluster.client_settings(), cluster.kafka.prefix,
        {topic: owner_file(declared, topic) for topic in topics}, cluster.postgres,
        cluster.schema, frozenset(n for n, t in topics.items() if t.wire == "avro"),
        {n: ref for n, t in topics.items() if (ref := t.accepted) is not None},
        cluster.kafka.registry,
    )  # fmt: skip
