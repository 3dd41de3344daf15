"""Asks a broker for offsets and gives each question up long before most are answered: in a process
of its own, which a client that frees memory twice would end."""

from __future__ import annotations

import sys
from contextlib import suppress

from penstock.catalog.model import KafkaSettings
from penstock.errors import Unreachable
from penstock.log import kafka_reader
from penstock.log.kafka import KafkaLog
from penstock.ports import TopicSpec

LATE_SECONDS = 0.0005  # half of it at least is what an answer takes
LOGS, ASKS = 60, 25


def main(servers: str, prefix: str) -> int:
    """Ask; how many questions were given up."""
    kafka_reader.ANSWER_SECONDS = LATE_SECONDS
    kafka_reader.RETRY_SECONDS = 0.001
    letters = TopicSpec(name="letters", partitions=4)
    given_up = 0
    for _ in range(LOGS):
        log = KafkaLog(KafkaSettings(servers=servers, prefix=prefix), [letters], seconds=0.05)
        for _ in range(ASKS):
            before = given_up
            given_up += 1
            with suppress(Unreachable):
                log.extent("letters")
                given_up = before
        log.close()
    return given_up


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
