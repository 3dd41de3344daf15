"""Every command of the documents runs, and shows what they say it shows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.reader import Reader, missing
from tests.docs.written import Document, documents

WITH_COMMANDS = [d for d in documents() if any(b.language == "sh" for b in d.blocks)]


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


@pytest.mark.parametrize("document", WITH_COMMANDS, ids=lambda d: d.name)
def test_the_commands_run(document: Document, reader: Reader) -> None:
    blocks = document.blocks
    for block, after in zip(blocks, [*blocks[1:], None], strict=True):
        if block.language == "sh":
            shows = after.text if after and after.language == "text" and not after.gap else None
            reader.do(block, shows, f"{document.name}:{block.line}")


def test_shown_lines_are_looked_for_in_order() -> None:
    said = "a 1\nb  2\nc 3\n"
    assert missing("a …\nb 2\n", said) is None
    assert missing("b 2\na 1\n", said) == "a 1"


def test_no_command_hides_in_a_block_that_is_not_run() -> None:
    for document in documents():
        for block in document.blocks:
            if block.language in ("bash", "shell", "console"):
                pytest.fail(f"{document.name}:{block.line}: write ```sh, so that it is run")


def test_documents_speak_of_commands_that_exist() -> None:
    assert WITH_COMMANDS, os.getcwd()
