"""Wake-ups name topics and readers; losing one costs latency and nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from penstock.engine.wakes import Wakes, run_folder

READERS = {"steps": ("tally", "audit"), "sums": ("audit",), "tally.answers": ("tally",)}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short folder: socket addresses have little room."""
    with TemporaryDirectory(prefix="pw") as name:
        yield Path(name)


def test_the_readers_of_what_was_written_are_woken_and_nobody_else(folder: Path) -> None:
    writer, tally, audit = (Wakes(folder, name, READERS) for name in ("source", "tally", "audit"))
    writer.tell({"sums"})
    assert (tally.wait(0), audit.wait(5)) == (set(), {"sums"})
    writer.tell({"steps", "tally.answers"})
    assert (tally.wait(5), audit.wait(5)) == ({"steps", "tally.answers"}, {"steps"})
    writer.tell({"nobody.reads.this"})
    assert (tally.wait(0), audit.wait(0)) == (set(), set())
    for one in (writer, tally, audit):
        one.close()


def test_a_process_wakes_itself_and_hears_all_at_once(folder: Path) -> None:
    tally = Wakes(folder, "tally", READERS)
    tally.poke()
    assert tally.wait(5) == set()
    tally.tell({"steps"})
    tally.tell({"tally.answers"})
    assert tally.wait(5) == {"steps", "tally.answers"}
    tally.close()


def test_the_dead_and_the_deaf_cost_the_writer_nothing(folder: Path) -> None:
    writer, deaf = Wakes(folder, "source", READERS), Wakes(folder, "tally", READERS)
    for _ in range(5000):
        writer.tell({"steps"})
    assert deaf.wait(0) == {"steps"}
    address = folder / f"tally.{os.getpid()}"
    deaf._socket.close()
    writer.tell({"steps"})
    assert not address.exists()
    writer.tell({"steps"})
    writer.close()


def test_the_run_folder_is_short_private_and_one_per_home(tmp_path: Path) -> None:
    deep = tmp_path / ("deep" * 30)
    deep.mkdir()
    folder = run_folder(deep)
    assert len(str(folder)) < 80
    assert folder == run_folder(deep)
    assert folder != run_folder(tmp_path)
    assert folder.stat().st_mode & 0o077 == 0
