"""``penstock journal verify`` on a real home that somebody tampered with, checksums and all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.cli.main import run
from penstock.entry import Entry, Head, end_of, linked
from tests.ops.homes import change, make, opened, put, rows, seq_of, verify, wish, write

COUNT = 20


class Written:
    """A home with some entries in its journal."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.entries: list[Entry] = write(make(home), COUNT)


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """The home."""
    return Written(tmp_path / "home")


def kinds(said: dict[str, Any]) -> list[tuple[str, int]]:
    """Kinds and numbers of the flaws."""
    return [(flaw["kind"], flaw["seq"]) for flaw in said["flaws"]]


def test_an_honest_home_is_whole(written: Written, capsys: Any) -> None:
    code, said = verify(written.home, capsys)
    assert (code, said["entries"], said["flaws"]) == (0, COUNT, [])
    assert run(["--home", str(written.home), "journal", "verify"]) == 0
    told = capsys.readouterr().err
    assert f"Entries 1 to {COUNT} are whole" in told
    assert "No checkpoint was looked at" in told


def test_edited_bytes(written: Written, capsys: Any) -> None:
    with opened(written.home) as db:
        (row,) = [row for row in rows(db) if seq_of(row) == 7]
        put(db, change(row, lambda value: value.replace(b"mended", b"bribed")))
    code, said = verify(written.home, capsys)
    assert (code, kinds(said)) == (6, [("edited", 7)])
    assert said["flaws"][0]["at"] == f"journal[{row.at >> 48}]@{row.at & ((1 << 48) - 1)}"
    assert run(["--home", str(written.home), "journal", "verify"]) == 6
    assert "docs/runbooks/journal-broken.md" in capsys.readouterr().err


def test_edited_bytes_and_a_checksum_that_does_not_fit(written: Written, capsys: Any) -> None:
    with opened(written.home) as db:
        (row,) = [row for row in rows(db) if seq_of(row) == 7]
        new = change(row, lambda value: value.replace(b"mended", b"bribed"))
        db.execute("UPDATE log_journal SET body = ? WHERE at = ?", (new.body, row.at))
    code, said = verify(written.home, capsys)
    assert (code, kinds(said)) == (6, [("unreadable", 0), ("deleted", 7)])
    assert "checksum" in said["flaws"][0]["said"]


def test_a_deleted_row(written: Written, capsys: Any) -> None:
    with opened(written.home) as db:
        found = rows(db)
        row = found[len(found) // 2]
        db.execute("DELETE FROM log_journal WHERE at = ?", (row.at,))
    code, said = verify(written.home, capsys)
    assert code == 6
    assert ("deleted", seq_of(row)) in kinds(said)


def test_two_entries_swapped(written: Written, capsys: Any) -> None:
    with opened(written.home) as db:
        lanes: dict[int, list[Any]] = {}
        for row in rows(db):
            lanes.setdefault(row.at >> 48, []).append(row)
        first, second = next(lane for lane in lanes.values() if len(lane) > 1)[:2]
        put(db, first._replace(body=second.body))
        put(db, second._replace(body=first.body))
    code, said = verify(written.home, capsys)
    assert (code, kinds(said)) == (6, [("swapped", seq_of(first))])


def test_a_cut_tail(written: Written, capsys: Any) -> None:
    with opened(written.home) as db:
        for row in rows(db):
            if seq_of(row) > COUNT - 3:
                db.execute("DELETE FROM log_journal WHERE at = ?", (row.at,))
    code, said = verify(written.home, capsys)
    assert (code, kinds(said)) == (6, [("cut", COUNT)])


def cut_whole(home: Path, entries: list[Entry]) -> None:
    """Cut the tail, and put the head back to where it was then."""
    with opened(home) as db:
        for row in rows(db):
            if seq_of(row) > len(entries):
                db.execute("DELETE FROM log_journal WHERE at = ?", (row.at,))
        head = msgspec.json.encode(end_of(entries[-1]))
        db.execute("UPDATE documents SET body = ? WHERE kind = 'head'", (head,))


def test_a_tail_that_was_cut_with_its_head_needs_a_checkpoint(
    written: Written, tmp_path: Path, capsys: Any
) -> None:
    last = written.entries[-1]
    cut_whole(written.home, written.entries[:-3])
    assert verify(written.home, capsys)[0] == 0
    kept = tmp_path / "kept"
    kept.write_text(json.dumps({"seq": last.seq, "hash": last.hash}) + "\n" + '{"seq": 1')
    code, said = verify(written.home, capsys, "--checkpoints", str(kept))
    assert (code, kinds(said)) == (6, [("cut", COUNT)])


def test_a_chain_written_anew_needs_a_checkpoint(
    written: Written, tmp_path: Path, capsys: Any
) -> None:
    forged: dict[int, Entry] = {}
    head = Head()
    for entry in written.entries:
        new = linked(wish(entry.seq - 1, "bribed" if entry.seq == 5 else "mended"), head, entry.at)
        forged[new.seq], head = new, end_of(new)
    with opened(written.home) as db:
        for row in rows(db):
            value = msgspec.json.encode(forged[seq_of(row)])
            put(db, change(row, lambda _, value=value: value))  # type: ignore[misc]
        db.execute(
            "UPDATE documents SET body = ? WHERE kind = 'head'", (msgspec.json.encode(head),)
        )
    assert verify(written.home, capsys)[0] == 0
    kept = tmp_path / "kept"
    tenth = written.entries[9]
    kept.write_text(json.dumps({"seq": 10, "hash": tenth.hash, "at": tenth.at}) + "\n")
    code, said = verify(written.home, capsys, "--checkpoints", str(kept))
    assert (code, kinds(said)) == (6, [("rewritten", 10)])


def test_a_checkpoint_that_is_none_is_refused(
    written: Written, tmp_path: Path, capsys: Any
) -> None:
    kept = tmp_path / "kept"
    kept.write_text("nonsense\n")
    assert verify(written.home, capsys, "--checkpoints", str(kept))[0] == 2
    assert verify(written.home, capsys, "--checkpoints", str(tmp_path / "none"))[0] == 2


def test_a_home_without_a_journal_is_said_to_have_none(tmp_path: Path, capsys: Any) -> None:
    assert run(["--home", str(tmp_path / "none"), "journal", "verify"]) == 3
    assert run(["--home", str(tmp_path / "none"), "journal", "log"]) == 3
    make(tmp_path / "home")
    assert run(["--home", str(tmp_path / "home"), "journal", "verify"]) == 0
    assert "no entries" in capsys.readouterr().err
