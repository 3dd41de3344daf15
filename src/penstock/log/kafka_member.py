"""Taking part in a Kafka group for its assignment alone: what is assigned is paused at once.

The newer protocol (KIP-848) is tried first, with the broker's ``range`` assignor; a broker that
does not know it is asked by the older one with the client's. Both give a member the same
partition numbers of all topics it reads, where their counts are equal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from confluent_kafka import (
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from penstock.errors import Unreachable
from penstock.log.kafka_clients import Clients
from penstock.log.kafka_errors import ABSENT, CALLERS, Ear, sorted_out

_E = KafkaError
UNSUPPORTED = frozenset({_E.UNSUPPORTED_VERSION, _E._UNSUPPORTED_FEATURE})
_UNKNOWN = "not supported"  # a fatal error hides the code that it came of, and tells its words
REJOIN_SECONDS = 1.0
Place = tuple[str, int]


class Member:
    """One member; all of it runs in the lane's thread, ``note`` apart."""

    def __init__(
        self, clients: Clients, group: str, names: Sequence[str],
        changed: Callable[[frozenset[Place]], None],
    ) -> None:  # fmt: skip
        self._clients, self._group, self._names, self._changed = clients, group, names, changed
        self.ear = Ear()
        self._classic, self._join_at = False, 0.0
        self._assigned: frozenset[Place] = frozenset()
        self._client: Consumer | None = self._join()

    def _join(self) -> Consumer:
        self._join_at = time.monotonic() + REJOIN_SECONDS
        client = self._clients.member(self.ear, self._group, classic=self._classic)
        client.subscribe(
            list(self._names), on_assign=self._on_assign, on_revoke=self._on_revoke,
            on_lost=self._on_revoke,
        )
        return client

    def poll(self) -> Exception | None:
        """Let the group's news in; what is wrong where the caller must know: a ``Problem``, or
        ``Unreachable`` until it is let in."""
        if self._client is None and time.monotonic() >= self._join_at:
            self._client = self._join()
        error = self._heard()
        if error is None:
            return None
        code, fatal = error.code(), error.fatal() or error.code() == _E._FATAL
        if not self._classic and (code in UNSUPPORTED or (fatal and _UNKNOWN in error.str())):
            self._classic = True
            self._begin_again()
            self._join_at = 0.0
            return None
        if fatal:  # fenced, or thrown out: a member of another name may come back
            self._begin_again()
        if code in CALLERS or code in ABSENT:
            return sorted_out(error, f"a join of group {self._group}", error_topic(error))
        if fatal:
            return Unreachable(f"Kafka has this member out of group {self._group}: {error.str()}")
        return None

    def _heard(self) -> KafkaError | None:
        if self._client is None:
            return None
        try:
            told: Message | None = self._client.poll(0)
        except KafkaException as problem:  # how the client tells that it has stopped for good
            found: KafkaError = problem.args[0]
            return found
        return told.error() if told is not None else None

    def _begin_again(self) -> None:
        """At the next poll, but not again and again: what threw us out may do it for hours."""
        self.crash()
        self._told(frozenset())
        self.ear = Ear()

    def _told(self, assigned: frozenset[Place]) -> None:
        self._assigned = assigned
        self._changed(assigned)

    def _on_assign(self, client: Consumer, given: list[TopicPartition]) -> None:
        places = [TopicPartition(p.topic, p.partition, OFFSET_END) for p in given]
        if self._classic:
            client.assign(places)
        else:
            client.incremental_assign(places)
        # Nothing is read here: the lane's other client does, from the positions of the store.
        client.pause(places)
        self.ear.heard()
        self._told(self._assigned | {(p.topic, p.partition) for p in given})

    def _on_revoke(self, client: Consumer, given: list[TopicPartition]) -> None:
        """Given up at once: the store's epochs, not this, keep a late commit out."""
        self._told(self._assigned - {(p.topic, p.partition) for p in given})
        if self._classic:
            client.unassign()
        else:
            client.incremental_unassign(given)

    def note(self, positions: Mapping[Place, int]) -> None:
        """Commit positions of assigned partitions, without waiting or asking how it went."""
        places = [
            TopicPartition(*place, offset) for place, offset in positions.items()
            if place in self._assigned
        ]
        client = self._client
        if places and client is not None:
            try:
                client.commit(offsets=places, asynchronous=True)
            except (KafkaException, RuntimeError):
                return  # a hint: the next one may get through

    def leave(self) -> None:
        """Tell the group; others get the partitions at once."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def crash(self) -> None:
        """Go without a word: the group finds out when the session is over."""
        self._client = None


def error_topic(error: KafkaError) -> str:
    """The topic an error speaks of, as far as it says so."""
    said = error.str()
    return said.partition(":")[0].rpartition(" ")[2] if ":" in said else ""
