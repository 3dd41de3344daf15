"""The broker of compose.yaml without its container: the same settings, by the image's own rule that
``KAFKA_A_B`` is ``a.b``, with this machine's ports and folders."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from penstock.sim.servers.asking import answers
from penstock.sim.servers.kafka import ANSWER_SECONDS, KafkaNode
from penstock.sim.servers.process import give_back

OF_THE_SHELL = ("KAFKA_HEAP_OPTS",)  # read by Kafka's start script, no setting of the broker


def properties(environment: Mapping[str, str]) -> dict[str, str]:
    """What the image writes into its settings."""
    return {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in environment.items()
        if name.startswith("KAFKA_") and name not in OF_THE_SHELL
    }


class ComposedNode(KafkaNode):
    """One node with the settings of compose.yaml."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        super().__init__(1, folder)
        self._environment = environment

    def _here(self, value: str) -> str:
        ports = dict(zip(("9092", "19092", "29093"), map(str, self.ports), strict=False))
        value = re.sub(r"//(localhost|kafka)?:", f"//{self.host}:", value)
        value = value.replace("@kafka:", f"@{self.host}:")
        return re.sub(r"(?<=:)\d+$|(?<=:)\d+(?=,)", lambda m: ports.get(m[0], m[0]), value)

    def listeners(self) -> dict[str, str]:
        """All settings: ours are none but the folder."""
        given = properties(self._environment)
        return {name: self._here(value) for name, value in given.items()}


@contextmanager
def composed(environment: Mapping[str, str], folder: Path) -> Iterator[str]:
    """``host:port`` of the running broker."""
    node = ComposedNode(environment, folder)
    heap = environment["KAFKA_HEAP_OPTS"].split()
    node.prepare({}, environment["CLUSTER_ID"], (), heap)
    node.start()
    try:
        node.process.until(lambda: answers(node.address, 1), ANSWER_SECONDS)
        yield node.address
    finally:
        node.process.kill()
        give_back(node.ports)
