"""Whether a broker answers: asked from here, or as a process of its own from another host."""

from __future__ import annotations

import sys

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

ASKED_SECONDS = 2.0


def answers(address: str, nodes: int) -> bool:
    """Whether this broker answers and knows of so many nodes."""
    client = AdminClient({"bootstrap.servers": address, "log_level": 0})
    try:
        return len(client.list_topics(timeout=ASKED_SECONDS).brokers) >= nodes
    except KafkaException:
        return False


def main(address: str, nodes: str) -> int:
    """Exit code 0 when it does."""
    return 0 if answers(address, int(nodes)) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
