"""Runs of both sides of the figures on Kafka, each judged by what it left behind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import psycopg
from msgspec import Struct

from penstock import assemble
from penstock.bench import kafka_ours, records
from penstock.bench.child import Child
from penstock.bench.ground import Ground
from penstock.bench.tailing import Found, Tail, tailing

RAW = "penstock.bench.kafka_raw"
OURS = kafka_ours.HERE
APPEND_RECORDS = 10_000
_EVENT_ID = msgspec.json.Decoder(records.Item)


class Side(Struct, frozen=True, kw_only=True):
    """One run of one side: records or orders a second, what its processes spent on each, their
    memory together, and the statements that a batch cost."""

    rate: float
    cpu_us: float
    pss_mb: float
    statements: float = 0.0


def side(
    count: int, reports: Sequence[Mapping[str, Any]], ended: float = 0.0, began: float = 0.0
) -> Side:
    """What the processes of a side said, together. The run began with the first batch, and ended
    with the last of them where ``ended`` does not say."""
    began = began or min(said["began"] for said in reports)
    ended = ended or max(said["ended"] for said in reports)
    batches = sum(said.get("batches", 0) for said in reports)
    return Side(
        rate=count / max(1e-6, ended - began),
        cpu_us=sum(said["cpu_seconds"] for said in reports) / count * 1e6,
        pss_mb=sum(said["pss_mb"] for said in reports),
        statements=sum(said.get("statements", 0) for said in reports) / max(1, batches),
    )


@contextmanager
def child(work: str, **given: Any) -> Iterator[Child]:
    """A process of its own that is gone afterwards."""
    made = Child(work, **given)
    try:
        yield made
    finally:
        made.end()


def once(found: Sequence[Found], count: int, who: str) -> None:
    """Is every record there, and once?"""
    ids = {_EVENT_ID.decode(record.value).event_id for record in found}
    assert len(ids) == count, f"{who}: {len(ids)} of {count} records came through"
    assert len(found) == count, f"{who}: {len(found)} records of {count} events"


class Lot:
    """So many records in a topic, for one round of both sides."""

    def __init__(self, ground: Ground, folder: Path, name: str, count: int) -> None:
        self.ground, self.folder, self.count = ground, folder, count
        self.place = ground.place(name)
        self.house = kafka_ours.house_of(kafka_ours.RECORDS, folder, self.place)
        assemble.prepare(self.house, make=True)
        self.source = self.place.prefix + records.SOURCE
        self.raw_target = self.place.prefix + "raw"
        ground.make_topics(self.raw_target, partitions=records.PARTITIONS)
        log, made = assemble.open_log(self.house), records.messages(count)
        for start in range(0, count, APPEND_RECORDS):
            log.append(records.SOURCE, made[start : start + APPEND_RECORDS], 0)
        log.close()

    @property
    def given(self) -> dict[str, Any]:
        """What a process of ours must know."""
        place = msgspec.to_builtins(self.place)
        return {"flow": kafka_ours.RECORDS, "folder": str(self.folder), "place": place}

    def tail(self, topic: str) -> Any:
        """A topic from here on."""
        return tailing(self.place.servers, topic, records.PARTITIONS)

    # The raw loops -------------------------------------------------------------------------------

    def raw(self, work: str, **more: Any) -> Side:
        """A raw loop, checked."""
        group = f"{self.place.prefix}raw-{uuid4().hex[:8]}"
        with self.tail(self.raw_target) as tail, child(
            f"{RAW}:{work}", servers=self.place.servers, group=group, source=self.source,
            target=self.raw_target, count=self.count, **more,
        ) as loop:
            said = loop.said()
            once(list(tail.records()), self.count, f"the raw loop {work}")
            return side(self.count, [said])

    # Ours ----------------------------------------------------------------------------------------

    def copied(self, *, sqlite: bool) -> Side:
        """Worker and courier in one process, the store in memory: dictionaries, or SQLite's."""
        with self.tail(f"{self.place.prefix}copied") as tail, child(
            f"{OURS}:copy", sqlite=sqlite, **self.given
        ) as pair:
            return self._judged("copy", tail, [pair])

    def tallied(self) -> Side:
        """Worker and courier as a cluster runs them."""
        with self.tail(f"{self.place.prefix}tallied") as tail, ExitStack() as stack:
            couriers = stack.enter_context(
                child(f"{OURS}:carry", services=["tally"], **self.given)
            )
            couriers.said()
            worker = stack.enter_context(child(f"{OURS}:work", service="tally", **self.given))
            return self._judged("tally", tail, [worker, couriers])

    def _judged(self, who: str, tail: Tail, children: Sequence[Child]) -> Side:
        ready = children[0].said()
        assert ready == {"ready": who}, f"{who} said {ready}"
        tail.wait(self.count)
        reports = [each.stop() for each in children]
        found = list(tail.records())
        once(found, self.count, who)
        worker = reports[0]
        counted = worker["handled"], worker["duplicates"], worker["wrong"]
        assert counted == (self.count, 0, ""), f"{who} handled {counted} of {self.count}"
        # The worker is first; the couriers' clock began when they were ready.
        return side(self.count, reports, max(f.at for f in found), worker["began"])

    def effect(self, table: str) -> None:
        """Does the database say that every record had its one effect?"""
        with psycopg.connect(self.place.postgres) as connection:
            row = connection.execute(
                f"SELECT coalesce(sum(qty), 0), coalesce(sum(seen), 0) FROM {table}".encode()
            ).fetchone()
        assert row is not None
        found, wanted = (int(row[0]), int(row[1])), (records.quantity(self.count), self.count)
        assert found == wanted, f"{table}: {found} instead of {wanted}"


def copying(lot: Lot) -> tuple[Side, Side, Side, Side]:
    """The careful raw loop, the careless one, and ours over each store."""
    careful, careless = lot.raw("copy", careful=True), lot.raw("copy", careful=False)
    return careful, careless, lot.copied(sqlite=False), lot.copied(sqlite=True)


def tallying(lot: Lot) -> tuple[Side, Side]:
    """The loop with one statement a batch, and ours, their effects counted."""
    raw = lot.raw("tally", postgres=lot.place.postgres)
    lot.effect("raw_tally")
    ours = lot.tallied()
    lot.effect("tally_tally")
    return raw, ours


def warm(ground: Ground, folder: Path, count: int, times: int) -> None:
    """Let the broker compile what it needs: one just started is several times slower."""
    lot = Lot(ground, folder, "warm", count)
    for _ in range(times):
        lot.raw("copy", careful=True)


