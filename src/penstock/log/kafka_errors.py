"""What a Kafka client says, sorted: ours (a bug), the world's (asked again), the caller's.

The one table of it is here. Whatever it does not name is the world's: it is asked again and its
name is told, which is wrong at most in being patient.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from penstock.errors import Corrupt, NotFound, Problem, StorageFull, Unreachable

_E = KafkaError

FULL = frozenset({_E.KAFKA_STORAGE_ERROR, _E.THROTTLING_QUOTA_EXCEEDED})
DAMAGED = frozenset({_E._BAD_MSG, _E._BAD_COMPRESSION, _E.INVALID_MSG})
OURS = frozenset(
    {
        _E._INVALID_ARG, _E._STATE, _E._CONFLICT, _E._NOT_IMPLEMENTED, _E.INVALID_REQUEST,
        _E.INVALID_TIMESTAMP, _E.INVALID_REQUIRED_ACKS, _E.UNSUPPORTED_FOR_MESSAGE_FORMAT,
        _E.INVALID_TXN_STATE,
    }
)  # fmt: skip
ABSENT = frozenset(
    {_E.UNKNOWN_TOPIC_OR_PART, _E._UNKNOWN_TOPIC, _E._UNKNOWN_PARTITION, _E.UNKNOWN_TOPIC_ID}
)
LOGIN = frozenset(
    {
        _E._AUTHENTICATION, _E.SASL_AUTHENTICATION_FAILED, _E.UNSUPPORTED_SASL_MECHANISM,
        _E.ILLEGAL_SASL_STATE, _E._SSL,
    }
)  # fmt: skip
# code: (our code, what to do next)
CALLERS: dict[int, tuple[str, str]] = {
    **dict.fromkeys(LOGIN, (
        "kafka_login",
        "Look at security.protocol, sasl.* and ssl.* in the catalog's [kafka.client].",
    )),
    _E.TOPIC_AUTHORIZATION_FAILED: (
        "kafka_topic_denied", "Allow this user READ, WRITE and DESCRIBE on the topic.",
    ),
    _E.GROUP_AUTHORIZATION_FAILED: (
        "kafka_group_denied", "Allow this user READ and DESCRIBE on the group.",
    ),
    _E.CLUSTER_AUTHORIZATION_FAILED: (
        "kafka_cluster_denied",
        "Allow this user IDEMPOTENT_WRITE on the cluster, and CREATE for `penstock topics apply`.",
    ),
    _E.MSG_SIZE_TOO_LARGE: (
        "record_too_large", "Raise the topic's max.message.bytes: `penstock topics plan` shows it.",
    ),
    _E.RECORD_LIST_TOO_LARGE: (
        "record_too_large", "Raise the topic's max.message.bytes: `penstock topics plan` shows it.",
    ),
    _E.POLICY_VIOLATION: (
        "kafka_policy", "Change the catalog, or ask who runs the cluster about its policy.",
    ),
    _E.INVALID_REPLICATION_FACTOR: (
        "kafka_replication", "Set `replication` in [kafka] to at most the number of brokers.",
    ),
    _E.INVALID_CONFIG: (
        "kafka_config", "Change the catalog: the cluster refuses a setting of the topic.",
    ),
    _E.TOPIC_EXCEPTION: (
        "kafka_topic_name", "Use letters, digits, dots, dashes and underscores, at most 249.",
    ),
    _E.INVALID_GROUP_ID: ("kafka_group", "Change `prefix` in [kafka]."),
}  # fmt: skip


def sorted_out(error: KafkaError, doing: str, topic: str = "") -> Exception:
    """The exception to raise for a client's error while ``doing`` something."""
    code, said = _cause(error), f"{doing}: {error.str()} ({error.name()})"
    if code in CALLERS:
        ours, fix = CALLERS[code]
        return Problem(ours, f"Kafka refused {said}.", fix)
    if code in ABSENT:
        return absent(topic, doing)
    if code in FULL:
        return StorageFull(f"Kafka has no room for {said}")
    if code in DAMAGED:
        return Corrupt(f"Kafka gave bytes that are no records for {said}")
    if code in OURS:
        return AssertionError(f"Kafka was asked wrongly for {said}")
    return Unreachable(f"Kafka does not answer {said}")


def _cause(error: KafkaError) -> int:
    """The code that an error comes of: one that stops a producer for good, lest there be a gap,
    hides it and tells its words."""
    code, said = error.code(), error.str()
    if code in (_E._GAPLESS_GUARANTEE, _E._FATAL):
        named = (*CALLERS, *ABSENT, *FULL)
        return next((known for known in named if _E(known).str() in said), code)
    return code


def absent(topic: str, doing: str) -> NotFound:
    """A topic that the cluster does not have (or does not show to this user)."""
    return NotFound(
        "topic_absent", f"Kafka has no topic {topic or '(unnamed)'} ({doing}).",
        "Run `penstock topics plan`, then `penstock topics apply`.",
    )


def raised(problem: KafkaException, doing: str, topic: str = "") -> Exception:
    """As ``sorted_out``, for an exception of the client library."""
    error = problem.args[0]
    if isinstance(error, KafkaError):
        return sorted_out(error, doing, topic)
    return Unreachable(f"Kafka does not answer {doing}: {error}")


class Ear:
    """Hears what a client says of its connections and prints nothing of it.

    ``refusal`` is why the cluster does not let us in; ``silent`` says that no broker can be
    reached now.
    """

    def __init__(self) -> None:
        self.refusal: KafkaError | None = None
        self.silent = False
        self.said: deque[str] = deque(maxlen=20)

    def error(self, error: KafkaError) -> None:
        """The client's ``error_cb``."""
        code = error.code()
        if code in LOGIN:
            self.refusal = error
        elif code == _E._ALL_BROKERS_DOWN:
            self.silent = True
        self.said.append(error.str())

    def log(self, level: int, text: str, *values: Any) -> None:
        """The client's ``logger``: the latest lines are kept for whoever asks why."""
        self.said.append(text % values if values else text)

    def heard(self) -> None:
        """Something answered."""
        self.silent, self.refusal = False, None

    def check(self, doing: str) -> None:
        """Raises the caller's ``Problem`` where the cluster does not let us in."""
        if self.refusal is not None:
            raise sorted_out(self.refusal, doing)

    def unanswered(self, doing: str) -> Exception:
        """What to raise when the time for ``doing`` is up."""
        if self.refusal is not None:
            return sorted_out(self.refusal, doing)
        last = f" ({self.said[-1]})" if self.said else ""
        return Unreachable(f"Kafka does not answer {doing}{last}")
