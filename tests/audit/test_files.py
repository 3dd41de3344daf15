"""Files as they lie there: in use, killed, copied, damaged; and nothing is made beside them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from penstock.sim.audit.books import Books
from penstock.sim.audit.files import Unfit, latest, snapshots
from penstock.sim.audit.opening import Changed, Looking
from tests.audit.library_shop import books, broken, judged, leave, lend, live, open_library
from tests.flows.rig import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A library in use, with something behind it."""
    (tmp_path / "home").mkdir()
    rig = open_library(tmp_path / "home")
    live(rig)
    yield rig
    leave(rig)


@pytest.fixture
def home(rig: Rig) -> Path:
    """Where it lies."""
    assert rig.home is not None
    return rig.home


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file with its size and time, but for the scratch that SQLite shares in memory."""
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*") if path.is_file() and not path.name.endswith("-shm")
    }  # fmt: skip


def count(found: Books) -> int:
    """All records."""
    return sum(map(len, found.topics.values()))


def copy(home: Path, folder: Path, *without: str) -> Path:
    """A copy of a home without the files of these endings."""
    shutil.copytree(home, folder, ignore=shutil.ignore_patterns("run", *without))
    return folder


# In use, killed, copied --------------------------------------------------------------------------


def test_a_home_in_use_is_read_as_it_is_now(rig: Rig, home: Path) -> None:
    before = books(home)
    assert judged(before).violations == []
    lend(rig, "more")
    after = books(home)
    assert count(after) > count(before)
    assert judged(after).violations == []


def test_looking_makes_and_changes_no_file(home: Path) -> None:
    before = listing(home)
    books(home)
    assert listing(home) == before


@pytest.mark.parametrize("without", ["-none", "*-shm"])
def test_what_a_kill_left_in_the_wal_is_read(home: Path, tmp_path: Path, without: str) -> None:
    found = copy(home, tmp_path / "killed", without)
    assert (found / "lending.db-wal").stat().st_size > 0
    names = {path.name for path in found.iterdir()}
    before = listing(found)
    assert count(books(found)) == count(books(home))
    assert judged(books(found)).violations == []
    assert {path.name for path in found.iterdir()} == names
    assert listing(found) == before


def test_a_copy_without_wal_is_read_as_it_lies(lived: Path, tmp_path: Path) -> None:
    found = copy(lived, tmp_path / "copy")
    assert not list(found.glob("*-wal"))
    names = {path.name for path in found.iterdir()}
    assert count(books(found)) == count(books(lived)) > 100
    assert {path.name for path in found.iterdir()} == names


def test_a_private_copy_is_gone_afterwards(home: Path, tmp_path: Path) -> None:
    found = copy(home, tmp_path / "copy", "*-shm")
    with Looking() as looking:
        connection = looking.begin(found / "lending.db")
        private = Path(connection.filename).parent
        assert private != found
        assert connection.execute("SELECT count(*) FROM marks").fetchall() != [(0,)]
    assert not private.exists()


def test_a_file_that_somebody_begins_to_write_is_noticed(lived: Path, tmp_path: Path) -> None:
    found = copy(lived, tmp_path / "copy", "*-wal", "*-shm")
    with Looking() as looking:
        looking.begin(found / "lending.db")
        looking.finish()
        writer = apsw.Connection(str(found / "lending.db"))
        writer.execute("CREATE TABLE more(a)")
        with pytest.raises(Changed, match="written while it was read"):
            looking.finish()
        writer.close()


def test_stores_are_seen_before_logs(rig: Rig, home: Path) -> None:
    """What happens between the two looks is in the logs alone, so no record is missing there."""
    with Looking() as looking:
        early = looking.begin(home / "lending.db")
        lend(rig, "between")
        late = looking.begin(home / "lending.db")
        sql = 'SELECT max(txn) FROM "log_loans"'
        assert early.execute(sql).fetchall() < late.execute(sql).fetchall()


def test_what_is_younger_than_the_grace_is_not_judged(rig: Rig, home: Path) -> None:
    rig.wait(60_000)
    lend(rig, "young")
    found = books(home)
    asks = [ask for ask in found.stores["lending"].asks if ask.key != "young"]
    store = found.stores["lending"]._replace(asks=asks)
    found = found._replace(stores={**found.stores, "lending": store})
    assert "I20" in broken(found)
    assert "I20" not in broken(found._replace(until=latest(found) - 1000))


# Damaged -----------------------------------------------------------------------------------------


def damage(lived: Path, folder: Path, file: str, *statements: str) -> Path:
    """A copy of the home with a file changed."""
    home = copy(lived, folder)
    db = apsw.Connection(str(home / file))
    for sql in statements:
        db.execute(sql)
    assert db.total_changes(), "nothing was changed"
    db.close()
    return home


LAST = "(SELECT max(at) FROM log_loans)"
DAMAGES = {
    "a byte of a body": (
        "I19", f"UPDATE log_loans SET body = x'00' || substr(body, 2) WHERE at = {LAST}"),
    "a body cut short": (
        "I19", f"UPDATE log_loans SET body = substr(body, 1, 9) WHERE at = {LAST}"),
    "a codec that is unknown": ("I19", f"UPDATE log_loans SET codec = 7 WHERE at = {LAST}"),
    "a count that lies": ("I19", f"UPDATE log_loans SET count = count + 1 WHERE at = {LAST}"),
    "a text for a body": ("I19", f"UPDATE log_loans SET body = 'text' WHERE at = {LAST}"),
    "a row in a partition that is none": (
        "I17", f"UPDATE log_loans SET at = (9 << 48) | 0 WHERE at = {LAST}"),
    "a row that is gone from the middle": (
        "I18", "DELETE FROM log_loans WHERE at = (SELECT min(at) + 1 FROM log_loans)"),
    "a row that names other schemas": (
        "I36", f"UPDATE log_loans SET schemas = 'loan.ended/1,x/2' WHERE at = {LAST}"),
    "a row of bytes that are none of zstd's": (
        "I19", f"UPDATE log_loans SET codec = 1 WHERE at = {LAST}"),
    "a mark of text": ("I22", "UPDATE marks SET id = hex(id) WHERE ordinal = 0"),
    "a message that does not decode": ("I22", "UPDATE waiting SET message = x'c1'"),
    "errors that do not decode": ("I22", "UPDATE waiting SET errors = x'c1'"),
    "an ask that does not decode": ("I24", "UPDATE outbox SET message = x'93' WHERE id = 1"),
    "positions that do not decode": ("I22", "UPDATE owners SET positions = '[' WHERE lane = 1"),
    "a checkpoint of nonsense": (
        "I27", "INSERT INTO checkpoints SELECT id, 1, x'00', '[' FROM scopes"),
    "a table that is gone": ("I22", "ALTER TABLE marks RENAME TO remarks", "DELETE FROM meta",
                             "INSERT INTO meta VALUES('a', 'b')"),
    "a held record of another key": ("I21", "UPDATE waiting SET key = 'other'"),
    "an ask of another key": ("I21", "UPDATE outbox SET key = 'other' WHERE id = 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_seen_where_it_is(lived: Path, tmp_path: Path, name: str) -> None:
    rule, *statements = DAMAGES[name]
    home = damage(lived, tmp_path / "home", "lending.db", *statements)
    report = judged(books(home))
    seen = {violation.rule for violation in report.violations}
    assert rule in seen
    assert "I46" not in seen


def test_a_file_that_is_none_is_named(lived: Path, tmp_path: Path) -> None:
    home = copy(lived, tmp_path / "home")
    (home / "lending.db").write_bytes(b"no database at all" * 100)
    flaws = [v for v in judged(books(home)).violations if v.rule == "I19"]
    assert [flaw.key for flaw in flaws] == ["lending.db"]


def test_another_program_s_file_is_named(lived: Path, tmp_path: Path) -> None:
    home = copy(lived, tmp_path / "home")
    apsw.Connection(str(home / "other.db")).execute("CREATE TABLE a(b)")
    flaws = [v for v in judged(books(home)).violations if v.rule == "I19"]
    assert [(flaw.key, flaw.detail) for flaw in flaws] == [
        ("other.db", "the file is none of penstock's")
    ]


def test_a_newer_format_is_refused(lived: Path, tmp_path: Path) -> None:
    home = copy(lived, tmp_path / "home")
    apsw.Connection(str(home / "lending.db")).execute("PRAGMA user_version=2")
    with pytest.raises(Unfit, match="format 2; this auditor reads 1"):
        books(home)


def test_every_flipped_bit_of_a_body_is_seen(lived: Path, tmp_path: Path) -> None:
    home = copy(lived, tmp_path / "home")
    db = apsw.Connection(str(home / "lending.db"))
    ((at, body),) = db.execute(f"SELECT at, body FROM log_loans WHERE at = {LAST}").fetchall()
    for n in range(0, len(body), 16):
        flipped = bytearray(body)
        flipped[n] ^= 1 << n % 8
        db.execute("UPDATE log_loans SET body = ? WHERE at = ?", (bytes(flipped), at))
        assert "I19" in broken(books(home))
    db.close()


# Compared ----------------------------------------------------------------------------------------


def test_a_copy_of_an_earlier_time_agrees(rig: Rig, home: Path, tmp_path: Path) -> None:
    earlier = copy(home, tmp_path / "copy")
    lend(rig, "later")
    for one, other in ((home, earlier), (earlier, home)):
        assert judged(books(one, against=other)).violations == []


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE log_loans SET appended_at = appended_at + 1 WHERE at & 3 = 1",
        "DELETE FROM log_loans WHERE at = (SELECT min(at) + 1 FROM log_loans)",
    ],
)
def test_a_copy_that_differs_is_seen(lived: Path, tmp_path: Path, sql: str) -> None:
    other = damage(lived, tmp_path / "other", "lending.db", sql)
    details = {v.detail for v in judged(books(lived, against=other)).violations}
    assert details == {f"{other} holds other bytes"}


def test_a_folder_without_a_home_is_no_copy(lived: Path, tmp_path: Path) -> None:
    with pytest.raises(Unfit, match="no home to compare with"):
        books(lived, against=tmp_path)


# Contracts ---------------------------------------------------------------------------------------


def test_a_folder_of_contracts_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unfit, match="no folder of contracts"):
        snapshots([tmp_path / "none"])
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "v1.avsc").write_text("{")
    with pytest.raises(Unfit, match="cannot be read"):
        snapshots([tmp_path])
