"""Clients of a Kafka cluster: the settings of each kind, what a user passed through on top."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any
from uuid import uuid4

from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from penstock.catalog.model import KafkaSettings
from penstock.errors import Usage
from penstock.limits import KAFKA_SECONDS_MAX, VALUE_BYTES_MAX
from penstock.log.kafka_errors import Ear

RECORD_BYTES_MAX = VALUE_BYTES_MAX + (1 << 20)  # a value with its key and headers
# A dead letter has a record's bytes in base64, and its story.
DEAD_BYTES_MAX = RECORD_BYTES_MAX * 4 // 3 + (1 << 20)
_NAMED = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
# What a member with the newer protocol must not say: the broker decides it.
_BROKER_SIDE = ("session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy")
_OURS = (
    "group.id", "group.protocol", "group.remote.assignor", "enable.auto.commit",
    "enable.auto.offset.store", "enable.partition.eof", "auto.offset.reset", "isolation.level",
    "enable.idempotence", "enable.gapless.guarantee", "acks", "message.timeout.ms",
    "delivery.report.only.error", "transactional.id", "bootstrap.servers",
)  # fmt: skip


def client_settings(
    settings: KafkaSettings, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What every client of the cluster is given, the user's own settings filled in.

    Raises ``Usage`` where one names a variable that is not set, or one that penstock relies on.
    """
    given = dict(_flat("", settings.client))
    environment = os.environ if environment is None else environment
    for name in given.keys() & set(_OURS):
        raise Usage(
            "kafka_client", f"[kafka.client] must not set {name}: penstock relies on its own.",
            f"Remove {name}." if name != "bootstrap.servers" else "Use `servers` in [kafka].",
        )
    return {
        "client.id": "penstock", "socket.keepalive.enable": True, "log_level": 3,
        "reconnect.backoff.ms": 50, "reconnect.backoff.max.ms": 1000,
        "allow.auto.create.topics": False, "topic.metadata.refresh.interval.ms": 30_000,
        **{name: _filled(name, value, environment) for name, value in given.items()},
        "bootstrap.servers": settings.servers,
    }  # fmt: skip


def _flat(before: str, table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """TOML makes tables of ``sasl.mechanism = ...``: names with dots again."""
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{before}{name}.", value)
        else:
            yield before + name, value


def _filled(name: str, value: Any, environment: Mapping[str, str]) -> Any:
    if not isinstance(value, str):
        return value

    def variable(found: re.Match[str]) -> str:
        if found[1] not in environment:
            raise Usage(
                "kafka_secret",
                f"[kafka.client] {name} names ${{{found[1]}}}, which is not set.",
                f"Set {found[1]} in the environment of every penstock process.",
            )
        return environment[found[1]]

    return _NAMED.sub(variable, value)


class Clients:
    """Makes clients, each with its ear. ``seconds`` is how long one call waits for an answer."""

    def __init__(self, settings: KafkaSettings, seconds: float = KAFKA_SECONDS_MAX) -> None:
        self._common = client_settings(settings)
        self.prefix, self.seconds = settings.prefix, seconds

    def _made(
        self, kind: Any, ear: Ear, more: Mapping[str, Any], without: Collection[str] = ()
    ) -> Any:
        """A client. Raises ``Usage`` where the library refuses a setting of the user's."""
        common = {name: value for name, value in self._common.items() if name not in without}
        try:
            return kind({**common, **more, "error_cb": ear.error}, logger=ear)
        except KafkaException as problem:
            said = problem.args[0].str() if problem.args else str(problem)
            raise Usage(
                "kafka_client", f"The Kafka client refuses its settings: {said}.",
                "Look at [kafka] and [kafka.client] in the catalog.",
            ) from None

    def producer(self, ear: Ear) -> Producer:
        """One that keeps order, writes once, and never lets a later message pass a failed one."""
        own = {
            "enable.idempotence": True, "enable.gapless.guarantee": True, "acks": "all",
            # A message that times out by itself would leave a hole that later ones close.
            "message.timeout.ms": 0, "delivery.report.only.error": True,
            "queue.buffering.max.messages": 200_000,
        }  # fmt: skip
        usual = {
            "linger.ms": 5, "compression.type": "lz4", "message.max.bytes": DEAD_BYTES_MAX,
        }  # fmt: skip
        made: Producer = self._made(Producer, ear, {**own, **self._unless_said(usual)})
        return made

    def _unless_said(self, usual: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in usual.items() if name not in self._common}

    def fetcher(self, ear: Ear, **more: Any) -> Consumer:
        """One with a manual assignment, member of no group, that stops at what it cannot find."""
        own = {
            "group.id": f"{self.prefix}penstock-reader-{uuid4().hex}",
            "auto.offset.reset": "error", "enable.auto.commit": False,
            "enable.auto.offset.store": False, "isolation.level": "read_committed",
            "fetch.error.backoff.ms": 100,
        }  # fmt: skip
        made: Consumer = self._made(Consumer, ear, {**own, **self._unless_said(more)})
        return made

    def member(self, ear: Ear, group: str, *, classic: bool = False) -> Consumer:
        """One that takes part in a group and reads nothing."""
        own = {
            "group.id": self.prefix + group, "auto.offset.reset": "latest",
            "enable.auto.commit": False, "enable.auto.offset.store": False,
        }  # fmt: skip
        if classic:
            own |= {"group.protocol": "classic", "partition.assignment.strategy": "range"}
        else:
            own |= {"group.protocol": "consumer", "group.remote.assignor": "range"}
        made: Consumer = self._made(Consumer, ear, own, () if classic else _BROKER_SIDE)
        return made

    def admin(self, ear: Ear) -> AdminClient:
        """One that asks about topics and makes them."""
        made: AdminClient = self._made(AdminClient, ear, {})
        return made
