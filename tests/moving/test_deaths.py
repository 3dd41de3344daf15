"""Every step is killed in its middle, a process sleeps through it: nothing is lost or double."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import closing

import apsw
import psycopg
import pytest

from penstock.embedded.fence import fence, is_fenced, unfence, waited_for
from penstock.embedded.file import File
from penstock.errors import Conflict
from penstock.sim.crash.subject import is_stopped
from tests.moving.library import LOANS, Library, ask
from tests.support import eventually

SECONDS = 60.0
DEATHS = {
    "copy": (
        ("penstock.log.kafka_writer:Appender._flush", 2, "before"),
        ("penstock.log.kafka:KafkaLog.append", 3, "after"),
        ("penstock.moving.move:write", 1, "after"),
    ),
    "fence": (
        ("penstock.log.kafka_writer:Appender._flush", 1, "before"),
        ("penstock.moving.steps:_set_moved", 1, "after"),
        ("penstock.moving.steps:fence_file", 2, "after"),
        ("penstock.moving.move:mark", 1, "before"),
    ),
    "switch": (
        ("penstock.store.postgres_copy:Copying.put", 9, "before"),
        ("penstock.store.postgres_copy:PostgresCopy.finish", 1, "before"),
        ("penstock.store.postgres_copy:PostgresCopy.finish", 1, "after"),
    ),
    "return": (
        ("penstock.moving.steps:_withdraw", 1, "after"),
        ("penstock.moving.steps:unfence_file", 2, "after"),
    ),
}


def dies(library: Library, step: str, where: str, passes: int, when: str) -> None:
    """Run a step until it is killed there."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.moving.dying", where, str(passes), when,
         *library.words("migrate", step)],
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, (where, done.stdout, done.stderr)


def test_every_step_may_die_anywhere(library: Library) -> None:
    rig = library.busy()
    for number, death in enumerate(DEATHS["copy"], 3):
        dies(library, "copy", *death)
        ask(rig, f"m{number}")  # the home works on meanwhile
        rig.run()
    library.migrate("copy")
    ask(rig, "m1")
    rig.run().close()
    for step in ("fence", "switch"):
        for death in DEATHS[step]:
            dies(library, step, *death)
        library.migrate(step)
    assert library.differences() == []
    for death in DEATHS["return"]:
        dies(library, "return", *death)
    library.return_()
    rig = library.at_home()
    ask(rig, "m2")
    rig.run().close()
    library.migrate("copy", "fence", "switch")
    assert library.differences() == []
    there = library.on_cluster().run()
    there.wait(60_000, 3)
    assert set(library.deposits.deeds.values()) == {1}
    assert {f"deposit:{name}" for name in LOANS} <= library.deposits.deeds.keys()


def test_a_worker_that_slept_through_the_fence_writes_nothing(library: Library) -> None:
    """Its lanes are its own, its records taken; it wakes when all is over, and ends."""
    rig = library.busy()
    rig.close()
    home = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
    alone = library.folder / "alone.toml"
    library.catalog_file()
    alone.write_text(library.catalog_file().read_text().partition("\n[kafka]\n")[0])
    worker = subprocess.Popen(
        [sys.executable, "-m", "penstock", "--home", str(library.home), "--catalog", str(alone),
         "worker", "lending"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=home,
    )  # fmt: skip
    try:
        assert worker.stdout is not None
        assert json.loads(worker.stdout.readline())["service"] == "lending"
        with closing(File(library.home / "lending.db")) as file:
            eventually(lambda: _sleeps(worker, file), SECONDS, what="it sleeps, in no transaction")
            rig = library.at_home()
            rig.workers.pop("lending").leave()  # the one that sleeps is to have its lanes
            ask(rig, "l9")  # what it would do next
            rig.run().close()
            library.migrate("copy", "fence", "switch")
            before = file.run("SELECT max(txn), count(*) FROM marks")
            worker.send_signal(signal.SIGCONT)
            _, complaint = worker.communicate(timeout=SECONDS)
            assert worker.returncode == 5, complaint
            assert "moved to Kafka" in complaint
            assert file.run("SELECT max(txn), count(*) FROM marks") == before
        assert library.differences() == []
    finally:
        worker.kill()
        worker.communicate()


def _sleeps(worker: subprocess.Popen[str], file: File) -> bool:
    """Put to sleep, and not while it holds the file."""
    worker.send_signal(signal.SIGSTOP)
    eventually(lambda: is_stopped(worker.pid), what="it stands still")
    file.run("PRAGMA busy_timeout=100")
    try:
        with file.write():
            return True
    except apsw.BusyError:
        worker.send_signal(signal.SIGCONT)
        return False


def test_a_file_within_its_fence_takes_nothing(library: Library) -> None:
    rig = library.busy()
    rig.close()
    with closing(File(library.home / "lending.db")) as file:
        epochs = file.run("SELECT sum(epoch), count(*) FROM owners")[0]
        for _ in range(2):
            fence(file, "it's gone")
        assert is_fenced(file)
        assert file.run("SELECT sum(epoch) FROM owners")[0][0] == sum(epochs), "raised once"
        for statement in (
            "UPDATE owners SET txn = 0", "DELETE FROM marks", "DELETE FROM log_loans",
            "INSERT INTO scopes(service, namespace) VALUES('x', 'y')",
            "INSERT OR IGNORE INTO topics SELECT * FROM topics", "REPLACE INTO owners"
            " SELECT * FROM owners",
        ):  # fmt: skip
            with pytest.raises(Conflict, match="it's gone"), file.write():
                file.run(statement)
        for _ in range(2):
            unfence(file)
        with file.write():
            file.run("UPDATE owners SET txn = txn")


def test_a_process_in_the_middle_of_a_write_is_named(library: Library) -> None:
    library.busy().close()
    path = library.home / "lending.db"
    with closing(File(path)) as asleep, closing(File(path)) as file:
        file.run("PRAGMA busy_timeout=50")
        refused = pytest.raises(Conflict, match="stands still in the middle")
        with asleep.write(), refused, waited_for(path):
            fence(file, "gone")
        fence(file, "gone")


def test_the_cluster_keeps_others_out_until_the_switch(library: Library) -> None:
    library.busy().close()
    library.migrate("copy")
    with psycopg.connect(library.servers.dsn) as connection:
        with pytest.raises(psycopg.Error, match="being moved"):
            connection.execute("UPDATE penstock.owners SET epoch = 9")
        connection.rollback()
    library.migrate("fence", "switch")
    with psycopg.connect(library.servers.dsn) as connection:
        connection.execute("UPDATE penstock.owners SET epoch = epoch")
