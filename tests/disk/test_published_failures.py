"""Failures that others published, as cases of ours; each is named by what went wrong there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw
import pytest

from penstock import assemble
from penstock.embedded.file import File, wal_safe
from penstock.engine.intake import Wanted
from penstock.errors import Corrupt, Problem
from penstock.flow import Call, Intake, Reply
from penstock.sim.disk.platter import Platter
from penstock.sim.disk.sweep import left_at
from penstock.sim.disk.tape import Fault, Recorder
from penstock.sim.disk.trouble import Ordeal
from penstock.store.sqlite import SqliteStore
from tests.disk.rig import DiskRig, Library
from tests.flows.library import FLOW
from tests.flows.library.door import Delivery, LoanWish


def started(library: Library) -> DiskRig:
    """A process over the library's files."""
    library.rig = DiskRig(library.home, library.recorder.name, library.clock, library.gateways)
    return library.rig


def wanted(rig: DiskRig, key: str, deliver: Any) -> Wanted:
    """A request for a loan, of a client that does something with the reply."""
    lend = next(r.does for r in FLOW.routes if r.name == "lend")
    assert isinstance(lend, Intake)
    wish = LoanWish(loan=key, member="mia", title="emma")
    call = Call(client="c", now=rig.clock.now(), body=wish, idempotency_key=key, digest=key)
    return Wanted(lend, call, deliver)


# R1: acknowledged before it was flushed ----------------------------------------------------------


def test_r1_a_request_is_answered_when_a_power_cut_cannot_take_it_any_more(desk: Path) -> None:
    """A store that flushed every two minutes lost what it had acknowledged."""
    library = Library(desk / "home")
    rig = started(library)
    assert rig.gate is not None
    cuts: list[dict[str, bytes]] = []

    def deliver(reply: Reply) -> None:
        """The power goes the moment the answer is there, and takes all that was not synced."""
        assert reply.status == 202
        platter = Platter()
        for op in library.tape.ops:
            platter.take(op)
        left = left_at(platter, 1, 1)
        cuts.append({Path(name).name: bytes(content) for name, content in left.files.items()})

    for n in range(5):
        assert rig.gate.submit(wanted(rig, f"l{n}", deliver)) is None
        rig.gate.step()
    assert len(cuts) == 5
    for n, files in enumerate(cuts):
        home = desk / f"after{n}"
        home.mkdir()
        for name, content in files.items():
            (home / name).write_bytes(content)
        file = File(home / "counter.db", shared=True)
        found = file.run("SELECT key FROM documents WHERE kind = 'slip'")
        assert {key for (key,) in found} == {f"c/l{m}" for m in range(n + 1)}
        assert file.run("SELECT sum(count) FROM log_requests") == [(n + 1,)]
        file.close()


# R2: one damaged file, and good data is deleted --------------------------------------------------


def test_r2_a_damaged_row_is_refused_by_name_and_nothing_is_skipped_deleted_or_rewritten(
    desk: Path,
) -> None:
    """One flipped bit made a server drop nearly half of what it had acknowledged."""
    library = Library(desk / "home")
    rig = started(library)
    rig.request("buy", Delivery(title="emma", count=2), idempotency_key="b", digest="b")
    rig.run()
    handled = dict(rig.workers["lending"].positions)
    for key in ("l1", "l2", "l3"):
        wish = LoanWish(loan=key, member="mia", title="emma")
        rig.request("lend", wish, idempotency_key=key, digest=key)
    path = library.home / "counter.db"
    with_body = rig.stores["counter"].file
    with_body.run("PRAGMA wal_checkpoint(TRUNCATE)")
    body = with_body.run("SELECT body FROM log_requests ORDER BY at LIMIT 1")[0][0]
    sound = path.read_bytes()
    at = sound.index(body) + len(body) // 2
    damaged = sound[:at] + bytes([sound[at] ^ 4]) + sound[at + 1 :]
    path.write_bytes(damaged)
    names = sorted(p.name for p in library.home.iterdir())

    library.close()
    rig = started(library)
    worker = rig.workers["lending"]
    for _ in range(5):
        assert worker.step(rig.clock.now()).records in (0, 1)  # one is the claim
    assert "requests[" in worker.trouble["log"]
    assert "checksum differs" in worker.trouble["log"]
    assert dict(worker.positions) == handled, "a damaged row was passed"
    assert {row.key for row in rig.rows("lending", "documents", "loan")} == set()
    assert path.read_bytes() == damaged, "a damaged file was written to"
    assert {p.name for p in library.home.iterdir()} >= set(names) - {"counter.db-wal"}
    # The door's own file: what can be read of it is read, the damaged row never.
    with pytest.raises(Corrupt, match="requests"):
        rig.records("requests")

    library.close()
    path.write_bytes(sound)  # restored from a backup
    rig = started(library)
    rig.run()
    assert {row.key for row in rig.rows("lending", "documents", "loan")} == {"l1", "l2", "l3"}
    library.close()


def test_r2_a_damaged_page_of_documents_stops_its_service_by_name(desk: Path) -> None:
    """What SQLite itself sees is told with the file's name, and the file is left as it is."""
    library = Library(desk / "home")
    rig = started(library)
    rig.request("buy", Delivery(title="emma", count=2), idempotency_key="b", digest="b")
    rig.run()
    file = rig.stores["lending"].file
    file.run("PRAGMA wal_checkpoint(TRUNCATE)")
    offset = file.run("SELECT pgoffset FROM dbstat WHERE name = 'documents'")[0][0]
    path = library.home / "lending.db"
    library.close()
    damaged = bytearray(path.read_bytes())
    damaged[offset] = 0xEE  # no kind of page
    path.write_bytes(damaged)
    store = SqliteStore(File(path), "lending")
    with pytest.raises(Corrupt, match=r"lending\.db is damaged.*restore the file from a backup"):
        store.file.run("SELECT * FROM documents")
    with pytest.raises(Corrupt, match=r"lending\.db is damaged"), store.file.write():
        store.file.run("DELETE FROM documents")
    store.file.close()
    assert path.read_bytes() == bytes(damaged)


# R14: the WAL-reset race, and an fsync that failed and was retried as a success ------------------


@pytest.mark.parametrize("version", ["3.7.0", "3.40.1", "3.44.5", "3.46.0", "3.50.6", "3.51.2"])
def test_r14_a_sqlite_with_the_wal_reset_race_is_refused(version: str) -> None:
    """A checkpoint that met a restart of the log could lose what was in it."""
    assert not wal_safe(version)
    with pytest.raises(Problem, match="WAL-reset race"):
        assemble.refuse_unsafe(version)


def test_r14_this_sqlite_is_free_of_the_race() -> None:
    """Also the one that the environment brings."""
    assert wal_safe(apsw.sqlite_lib_version())


def test_r14_a_failed_sync_is_not_tried_again_and_answers_nobody(desk: Path) -> None:
    """The kernel reports an error once and calls the pages clean: the next sync lies."""
    library = Library(desk / "home")
    rig = started(library)
    assert rig.gate is not None
    replies: list[Reply] = []
    assert rig.gate.submit(wanted(rig, "l1", replies.append)) is None
    rig.gate.step()
    met = library.recorder.met["sync"]
    library.recorder.fault = Fault(what="sync", at=met)
    assert rig.gate.submit(wanted(rig, "l2", replies.append)) is None
    with pytest.raises(apsw.IOError):
        rig.gate.step()
    assert library.recorder.met["sync"] == met + 1
    assert len(replies) == 1

    library.recorder.die()
    library.close()
    library.recorder = Recorder(library.tape)
    rig = started(library)
    reply = rig.request("lend", LoanWish(loan="l2", member="mia", title="emma"),
                        idempotency_key="l2", digest="l2")  # fmt: skip
    assert reply.status == 202
    assert len(rig.records("requests")) == 2, "a repeated request was taken twice"
    library.close()


def test_r14_what_a_failed_sync_left_in_the_cache_is_written_again_before_it_is_relied_on(
    desk: Path,
) -> None:
    """Who starts after it finds the commit whole, builds on it, syncs, and loses both."""
    ordeal = Ordeal(1, desk)
    last = ordeal.twin.met["sync"]
    for at in range(last // 2, last, 4):
        outcome = ordeal.suffer(Fault(what="sync", at=at))
        assert not outcome.wrong, "\n".join(outcome.wrong)
