"""Every command of the documents runs, and shows what they say it shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from penstock.sim.servers.kafka import Cluster
from tests.docs.reader import Reader, missing
from tests.docs.written import Block, Document, documents

WITH_COMMANDS = [d for d in documents() if any(b.language == "sh" for b in d.blocks)]
FRESH = ("README.md", "docs/tutorial.md")  # they begin with an empty home; the others share one
CLUSTER = (
    "docs/guides/cluster.md", "docs/reference/kafka.md", "docs/reference/postgres.md",
    "docs/runbooks/cluster-unreachable.md",
)  # fmt: skip
MOVE = "docs/guides/to-a-cluster.md"
SITTINGS = {
    **{d.name: [d] for d in WITH_COMMANDS if d.name in FRESH},
    "others": [d for d in WITH_COMMANDS if d.name not in (*FRESH, *CLUSTER, MOVE)],
}


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """A reader whose `up` runs."""
    one = Reader(tmp_path)
    try:
        one.start()
        yield one
    finally:
        said = one.stop()
    assert "Stopped after" in said


@pytest.mark.parametrize("sitting", SITTINGS)
def test_the_commands_run(sitting: str, reader: Reader) -> None:
    work_through(reader, SITTINGS[sitting])


def test_the_commands_run_on_a_cluster(tmp_path: Path, kafka: str, dsn: str) -> None:
    """On topics without a prefix: nobody else's test may use those names."""
    reader = Reader(tmp_path, kafka, dsn)
    try:
        reader.start()
        work_through(reader, [d for d in WITH_COMMANDS if d.name in CLUSTER])
    finally:
        said = reader.stop()
    assert "Stopped after" in said


def test_the_commands_move_a_house(tmp_path: Path, own_kafka: Cluster, dsn: str) -> None:
    """A move wants a broker without topics, and a house that works at home."""
    reader = Reader(tmp_path, own_kafka.bootstrap, dsn, at_home=True)
    try:
        reader.start()
        reader.do(Block("sh", "./penstock import FILE.csv\n", 0, ""), None, "before the move")
        reader.at_home = False
        work_through(reader, [d for d in WITH_COMMANDS if d.name == MOVE])
    finally:
        said = reader.stop()
    assert "Stopped after" in said


def work_through(reader: Reader, read: Iterable[Document]) -> None:
    """Type every block of the documents."""
    for document in read:
        blocks = document.blocks
        for block, after in zip(blocks, [*blocks[1:], None], strict=True):
            if block.language == "sh":
                shown = after is not None and after.language == "text" and not after.gap
                reader.do(block, after.text if after and shown else None, document.name)


def test_shown_lines_are_looked_for_in_order() -> None:
    said = "a 1\nb  2\nc 3\n"
    assert missing("a …\nb 2\n", said) is None
    assert missing("b 2\na 1\n", said) == "a 1"


def test_no_command_hides_in_a_block_that_is_not_run() -> None:
    hidden = [
        f"{document.name}:{block.line}"
        for document in documents()
        for block in document.blocks
        if block.language in ("bash", "shell", "console", "zsh")
    ]
    assert not hidden, f"write ```sh there, so that it is run: {hidden}"
