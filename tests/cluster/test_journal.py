"""The journal on a broker and a database: carried in order, verified, and tampered with."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from confluent_kafka import OFFSET_END, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from msgspec.structs import replace

from penstock import assemble
from penstock.ops.reading import checkpoints_in, head_of, verified
from tests.cluster.stage import Stage, catalog_at
from tests.ops.homes import write
from tests.support import eventually

COUNT = 30
SECONDS = 20.0


class Written(NamedTuple):
    """A house on servers with entries in its journal, which a courier carried."""

    stage: Stage
    house: assemble.House
    kept: Path
    kafka: str
    dsn: str
    topic: str

    def verify(self, *words: str) -> tuple[int, dict[str, Any]]:
        """What the command says."""
        done = self.stage.run("journal", "verify", "-o", "json", *words)
        assert done.returncode in (0, 6), done.stderr
        return done.returncode, json.loads(done.stdout)

    def kinds(self, *words: str) -> set[str]:
        """The kinds of the flaws."""
        return {flaw["kind"] for flaw in self.verify(*words)[1]["flaws"]}


def seen_by(kept: Path) -> set[int]:
    """What the witness was told; some of it twice, for two couriers may carry a row."""
    return {checkpoint.seq for checkpoint in checkpoints_in([kept])}


@contextmanager
def courier(stage: Stage, *names: str) -> Iterator[None]:
    """A courier's process."""
    running = subprocess.Popen(stage.argv("courier", *names), stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        running.terminate()
        running.wait(SECONDS)


@pytest.fixture
def written(tmp_path: Path, kafka: str, dsn: str, prefix: str) -> Written:
    """The house."""
    catalog, kept = catalog_at(tmp_path, kafka, dsn, prefix), tmp_path / "kept"
    with catalog.open("a") as more:
        more.write(f'\n[journal]\ncheckpoint_file = "{kept}"\ncheckpoint_every = 10\n')
    stage = Stage(tmp_path / "home", catalog)
    house = assemble.open_house(stage.home, catalog)
    assemble.prepare(house, make=True)
    with courier(stage, "journal"), courier(stage, "journal"):
        write(house, COUNT)
        eventually(lambda: kept.exists() and seen_by(kept) == {10, 20, 30}, SECONDS)
        found = Written(stage, house, kept, kafka, dsn, f"{prefix}journal")
        said = found.verify()
    assert (said[0], said[1]["entries"], said[1]["flaws"]) == (0, COUNT, [])
    assert said[1]["checkpoints"] == 3
    return found


def test_entries_that_no_courier_carried_are_waited_for(written: Written) -> None:
    write(written.house, 2)
    done = written.stage.run("journal", "verify")
    assert done.returncode == 7
    assert f"Entry {COUNT + 1}" in done.stderr
    with courier(written.stage, "journal"):
        eventually(lambda: written.stage.run("journal", "verify").returncode == 0, SECONDS)


def test_entries_that_come_while_one_looks_are_no_flaw(written: Written) -> None:
    """Acknowledged entries are in the database first; whoever verifies knows which to expect."""
    log, store = assemble.open_log(written.house), assemble.open_store(written.house, "journal")
    head = head_of(store)
    write(written.house, 3)
    verdict = verified(log, store, head, checkpoints_in([written.kept]))
    log.close()
    assert (verdict.flaws, verdict.last.seq) == ((), COUNT)


def test_a_record_of_somebody_else_is_foreign(written: Written) -> None:
    producer = Producer({"bootstrap.servers": written.kafka})
    producer.produce(written.topic, b'{"service":"order"}', b"key-0")
    assert producer.flush(SECONDS) == 0
    assert written.kinds() == {"foreign"}


def test_an_entry_that_is_repeated_is_no_flaw_and_a_changed_one_is(written: Written) -> None:
    log = assemble.open_log(written.house)
    extents = log.extent("journal")
    lane = next(p for p, e in enumerate(extents) if e.next - e.first > 2)
    old = log.read("journal", lane, 0, 10)[0].message
    before = written.verify()[1]["repeats"]
    log.append("journal", [old], 0)
    code, said = written.verify()
    assert (code, said["repeats"]) == (0, before + 1)
    bad = replace(old, value=old.value.replace(b"mended", b"bribed"))
    log.append("journal", [bad], 0)
    log.close()
    assert written.kinds() == {"edited"}


def test_records_deleted_by_the_broker_are_missed(written: Written) -> None:
    admin = AdminClient({"bootstrap.servers": written.kafka})
    gone = admin.delete_records([TopicPartition(written.topic, 0, OFFSET_END)])
    for future in gone.values():
        future.result(SECONDS)
    found = written.kinds()
    assert "deleted" in found
    assert found <= {"deleted", "cut"}  # the last entry may have been one of them


def test_a_head_that_vanished_is_missed(written: Written) -> None:
    with psycopg.connect(written.dsn) as db:
        gone = db.execute("DELETE FROM penstock.documents WHERE kind = 'head'")
        assert gone.rowcount == 1
    assert written.kinds() == {"unknown"}


def test_a_checkpoint_of_another_chain_is_seen(written: Written) -> None:
    lines = [json.loads(line) for line in written.kept.read_text().splitlines()]
    lines[0]["hash"] = "f" * 64
    written.kept.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert written.kinds() == {"rewritten"}
