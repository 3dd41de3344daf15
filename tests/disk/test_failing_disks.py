"""Operations that fail, one at a time, in the real files: what must follow does."""

from __future__ import annotations

import os
from pathlib import Path

import apsw
import pytest

from penstock.embedded import file as embedded
from penstock.embedded.file import File
from penstock.errors import Conflict, StorageFull
from penstock.event import Message
from penstock.sim.disk.sweep import Report
from penstock.sim.disk.tape import Fault, Recorder, Tape
from penstock.sim.disk.trouble import Ordeal, endured, faults

SEED = 1


def met(ordeal: Ordeal, kinds: tuple[str, ...], every: int) -> Report:
    chosen = faults(ordeal, kinds, every)
    report = endured(ordeal, chosen)
    assert not report.violations, "\n".join(map(str, report.violations))
    assert report.states >= len(chosen) * 0.95, "hardly a fault struck"
    return report


def test_a_failed_sync_ends_the_process_and_nothing_is_built_on_it(desk: Path) -> None:
    """Every sync of the scenario, those of creating files included."""
    assert met(Ordeal(SEED, desk), ("sync",), 1).states > 50


@pytest.mark.parametrize("kinds", [("full", "short", "write"), ("read", "open")])
def test_what_fails_leaves_nothing_and_the_same_objects_go_on(
    kinds: tuple[str, ...], desk: Path
) -> None:
    met(Ordeal(SEED, desk), kinds, 10)


def test_a_killed_process_leaves_nothing_that_a_power_cut_still_takes(desk: Path) -> None:
    met(Ordeal(SEED, desk), ("kill",), 16)


# The instrument sees -----------------------------------------------------------------------------


def test_a_start_that_trusts_the_page_cache_is_seen_to_lose_commits(
    desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "write_again", lambda *_: None)
    ordeal = Ordeal(SEED, desk)
    report = endured(ordeal, faults(ordeal, ("sync",), 2))
    assert any("lost" in v.said for v in report.violations)


def test_a_full_disk_that_is_taken_for_another_error_is_seen(
    desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "is_full", lambda error: False)
    ordeal = Ordeal(SEED, desk)
    assert endured(ordeal, faults(ordeal, ("full",), 60)).violations


# One file ----------------------------------------------------------------------------------------


def written(file: File, key: str) -> None:
    with file.write():
        file.append("facts", [Message(key, b"x" * 3000)], 1, 1, 1)


def test_a_checkpoint_whose_sync_fails_ends_the_process(desk: Path) -> None:
    """SQLite's own checkpoint at the end of a commit says nothing of it."""
    recorder = Recorder(Tape())
    file = File(desk / "one.db", vfs=recorder.name)
    file.ensure_topic("facts", 1)
    file.checkpoint_pages = 1
    written(file, "before")
    # In a checkpoint the log is synced first, then the file.
    recorder.fault = Fault(what="sync", at=recorder.met["sync"] + 1)
    with pytest.raises(apsw.IOError):
        written(file, "never")
    assert recorder.struck == 1
    assert file.run("SELECT count(*) FROM log_facts") == [(1,)], "a refused commit left something"


def test_a_checkpoint_without_room_is_made_later(desk: Path) -> None:
    recorder = Recorder(Tape())
    file = File(desk / "one.db", vfs=recorder.name)
    file.ensure_topic("facts", 1)
    file.checkpoint_pages = 1
    written(file, "before")
    size = (desk / "one.db").stat().st_size
    recorder.fault = Fault(what="full", at=recorder.met["write"])
    written(file, "meanwhile")
    assert recorder.struck == 1
    assert (desk / "one.db").stat().st_size == size
    written(file, "after")
    assert (desk / "one.db").stat().st_size > size
    assert file.run("SELECT count(*) FROM log_facts") == [(3,)]


def test_a_start_whose_sync_fails_is_told_and_made_again(desk: Path) -> None:
    """The mode of the log is set behind the only row of SQLite's answer."""
    sound = Recorder(Tape())
    made = File(desk / "sound.db", vfs=sound.name)
    syncs = sound.met["sync"]
    made.close()
    assert syncs > 5
    for at in range(syncs):
        path = desk / f"{at}.db"
        recorder = Recorder(Tape(), Fault(what="sync", at=at))
        with pytest.raises(apsw.IOError):
            File(path, vfs=recorder.name)
        file = File(path, vfs=recorder.name)
        assert file.db.pragma("journal_mode") == "wal"
        assert file.db.pragma("auto_vacuum") == 2
        file.close()


def test_a_start_without_room_is_refused_as_a_full_disk(desk: Path) -> None:
    recorder = Recorder(Tape(), Fault(what="full", at=3))
    with pytest.raises(StorageFull):
        File(desk / "one.db", vfs=recorder.name)
    File(desk / "one.db", vfs=recorder.name).close()


def test_a_start_that_fails_leaves_no_lock_open(desk: Path) -> None:
    (desk / "one.db").write_bytes(b"no database " * 1000)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(Conflict):
            File(desk / "one.db", shared=True)
    assert len(os.listdir("/proc/self/fd")) == before
