"""The steps of a move, each safe to run twice and after a kill anywhere.

    plan    what would be moved, and what stands against it; changes nothing
    copy    records into Kafka while the home works on; what is there is not written again
    fence   the home works no more: drained, marked as moved, every epoch raised; then the rest
    switch  states, marks, positions, waiting rows and outboxes into PostgreSQL
    verify  record by record and row by row, both hold the same
    return  back to the home, as long as nothing was done on the cluster
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from typing import Any

import msgspec

from penstock import assemble
from penstock.assemble import Cluster, House
from penstock.embedded.file import File
from penstock.engine.runner import write_whole
from penstock.errors import CheckFailed, Conflict, NotFound, Usage
from penstock.limits import DRAIN_SECONDS_MAX
from penstock.moving import move as moves
from penstock.moving.home import Copied, Home
from penstock.moving.move import Move
from penstock.ports import COURIER_LANE, INTAKE_LANE

PIECE = 1000  # records of one append
RATE = 15_000  # records a second, for the estimate: measured on two cores
TABLES = ("owners", "checkpoints", "marks", "documents", "waiting", "outbox")
LOCK_PAUSE_SECONDS = 0.2
Row = dict[str, Any]
Say = Callable[[str], None]


def cluster_of(house: House) -> Cluster:
    """Where the house moves to. Raises ``Usage``, ``NotFound``."""
    if not (house.home / "home.json").exists():
        raise NotFound("no_home", f"There is no home {house.home}.", "Name one with --home.")
    if house.cluster is None:
        raise Usage(
            "no_cluster", "Nothing says where to move to.",
            "Name --kafka and --postgres, or put both into the catalog.",
        )
    return house.cluster


class Moving:
    """A house on its way: the home, the broker and the database, opened when needed."""

    def __init__(self, house: House) -> None:
        self.house, self.cluster = house, cluster_of(house)
        self.home = Home(house)
        self.topics = list(house.catalog.topics)
        self.log = self.cluster.log(assemble.specs(house.catalog))

    def close(self) -> None:
        """Let go of everything."""
        self.home.close()
        self.log.close()

    def move(self) -> Move | None:
        """The move that was begun here. Raises ``Conflict`` where it went somewhere else."""
        found = moves.read(self.house.home)
        to = self.cluster.kafka.servers, self.cluster.kafka.prefix
        if found is not None and found.prefix != to[1]:
            raise Conflict(
                "another_move", f"This home moves to topics with the prefix {found.prefix!r}.",
                "Use the catalog it was begun with.",
            )
        return found

    def begun(self) -> Move:
        """The move, begun now where it was not: what is older than these offsets stays behind."""
        found = self.move()
        if found is None:
            kafka, at = self.cluster.kafka, self.cluster.postgres_shown
            firsts = {t: [e.first for e in self.home.extents(t)] for t in self.topics}
            found = Move(kafka=kafka.servers, prefix=kafka.prefix, database=at, firsts=firsts)
            moves.write(self.house.home, found)
        return found

    def there(self, topic: str) -> list[int]:
        """How many records of a topic Kafka has by partition."""
        try:
            extents = self.log.extent(topic)
        except NotFound:
            return [0] * self.house.catalog.topics[topic].partitions
        if any(extent.first for extent in extents):
            raise Conflict("not_empty", f"Topic {topic} has been used, and records dropped.",
                           "Choose another prefix in [kafka].")  # fmt: skip
        return [extent.next for extent in extents]

    def untouched(self, move: Move) -> str:
        """What was written on the cluster since the switch; empty where nothing was."""
        for topic, ends in move.ends.items():
            if self.there(topic) != ends:
                return f"{topic} has records that did not come from the home"
        ledger = self.cluster.copying()
        try:
            latest = ledger.latest()
        finally:
            ledger.close()
        return "" if latest == move.txn else f"transactions after {move.txn} were committed"


# Plan --------------------------------------------------------------------------------------------


def plan(moving: Moving) -> list[Row]:
    """What would be moved, a row a topic and a table. Raises ``Conflict``."""
    found, rows = moving.move(), []
    for topic in moving.topics:
        extents, there = moving.home.extents(topic), moving.there(topic)
        if found is None and any(there):
            raise Conflict(
                "not_empty", f"Kafka's topic {topic} holds records already.",
                "Choose another prefix in [kafka]: a move begins with empty topics.",
            )
        records = sum(e.next - e.first for e in extents)
        rows.append({"what": "topic", "name": topic, "count": records, "copied": sum(there)})
    for service in moving.home.services:
        for table in ("documents", "marks", "waiting", "outbox"):
            count = moving.home.file(service).run(f"SELECT count(*) FROM {table}")[0][0]
            rows.append({"what": table, "name": service, "count": count, "copied": None})
    return rows


def seconds(rows: Iterable[Row]) -> float:
    """How long the copying will take, roughly."""
    return float(sum(row["count"] for row in rows)) / RATE


# Copy --------------------------------------------------------------------------------------------


def copy(moving: Moving, say: Say) -> int:
    """Copy what Kafka has not yet; returns how many records. Raises ``Conflict``."""
    found = moving.move()
    if found is None:
        plan(moving)  # refuses topics that are in use
    found = moving.begun()
    _refuse_after_switch(found)
    moving.cluster.make(assemble.specs(moving.house.catalog), moving.house.flow)
    moving.log.keep_times(moving.topics, True)
    count = sum(_copy_topic(moving, found, topic, say) for topic in moving.topics)
    moves.mark(moving.house.home, found, "copied")
    return count


def _refuse_after_switch(move: Move) -> None:
    if "switched" in move.done:
        raise Conflict("switched", "The house was switched already.",
                       "penstock migrate verify, or penstock migrate return")  # fmt: skip


def _copy_topic(moving: Moving, move: Move, topic: str, say: Say) -> int:
    """What is there is the record of how far it came: the next one has the next offset."""
    count = 0
    for partition, have in enumerate(moving.there(topic)):
        start = move.firsts[topic][partition] + have
        _see_that_it_is_ours(moving, topic, partition, have, start)
        for piece in _pieces(moving.home.records(topic, partition, start)):
            # The home counts transactions by file, the cluster all of them together: a number of
            # the one would say a wrong thing there. It stays with the record's row.
            messages = [c.record.message for c in piece]
            moving.log.append(topic, messages, 0, (), [c.record.appended_at for c in piece])
            count += len(piece)
    if count:
        say(f"{topic}: {count} records")
    return count


def _see_that_it_is_ours(
    moving: Moving, topic: str, partition: int, have: int, start: int
) -> None:
    """The last record that is there is the home's last one before the start."""
    if not have:
        return
    (there,) = moving.log.read(topic, partition, have - 1, 1)[:1]
    here = next(iter(moving.home.records(topic, partition, start - 1)), [])
    if not here or here[0].record.message != there.message:
        raise Conflict(
            "not_ours", f"{topic}[{partition}]@{have - 1} in Kafka is not the home's record.",
            "Something else writes there, or the home dropped it meanwhile: begin anew under "
            "another prefix.",
        )


def _pieces(rows: Iterable[list[Copied]]) -> Iterator[list[Copied]]:
    held: list[Copied] = []
    for row in rows:
        held += row
        if len(held) >= PIECE:
            yield held
            held = []
    if held:
        yield held


# Fence -------------------------------------------------------------------------------------------


def fence(moving: Moving, say: Say) -> None:
    """End the home's work for good, and copy the rest. Raises ``Conflict``."""
    found = moves.after(moving.house.home, "fenced")
    _refuse_after_switch(found)
    lock = _lock(moving.house, say)
    _set_moved(moving.house, {"kafka": found.kafka, "prefix": found.prefix})
    for service in moving.home.services:
        _raise_epochs(moving.house, service)
    for topic in moving.topics:
        _copy_topic(moving, found, topic, say)
    moves.mark(moving.house.home, found, "fenced")
    del lock


def _lock(house: House, say: Say) -> assemble.HomeLock:
    """The home's lock, after whoever has it was asked to drain. Raises ``Conflict``."""
    deadline, asked = time.monotonic() + DRAIN_SECONDS_MAX + 10, False
    while True:
        try:
            return assemble.HomeLock(house)
        except Conflict:
            if time.monotonic() > deadline:
                raise
        if not asked:
            say("penstock up is told to drain")
            asked = _ask_to_end(house)
        time.sleep(LOCK_PAUSE_SECONDS)


def _ask_to_end(house: House) -> bool:
    try:
        pid = json.loads((house.run / "up.json").read_text())["pid"]
        os.kill(int(pid), signal.SIGTERM)
    except (OSError, ValueError, KeyError):
        return False  # it is just starting, or just gone
    return True


def _set_moved(house: House, moved: Row | None) -> None:
    stamp = house.home / "home.json"
    said = json.loads(stamp.read_text())
    said.pop("moved", None)
    if moved is not None:
        said["moved"] = moved
    write_whole(stamp, said, durable=True)


def _raise_epochs(house: House, service: str) -> None:
    """Whoever slept through it cannot commit any more: every lane has a higher epoch."""
    store = assemble.make_store(house, service)
    try:
        lanes = range(house.catalog.lane_count(service))
        store.claim([*lanes, COURIER_LANE, INTAKE_LANE], 0)
    finally:
        store.file.close()


# Switch ------------------------------------------------------------------------------------------


def switch(moving: Moving, say: Say) -> None:
    """Put all tables into the database. Raises ``Conflict``."""
    found = moves.after(moving.house.home, "switched")
    touched = moving.untouched(found) if "switched" in found.done else ""
    if touched:
        raise Conflict("in_use", f"The cluster is in use: {touched}.", "Nothing is to be done.")
    ledger, latest = moving.cluster.copying(), 0
    try:
        if "switching" not in found.done:
            _refuse_others(ledger.services())
            found = moves.mark(moving.house.home, found, "switching")
        for service in moving.home.services:
            with ledger.replacing(service) as copying:
                counts = {t: copying.put(t, _rows(moving.home, found, service, t)) for t in TABLES}
            say(f"{service}: " + ", ".join(f"{n} {table}" for table, n in counts.items() if n))
            latest = max(latest, _latest(moving.home.file(service)))
        ledger.number_from(latest)
        txn = ledger.latest()
    finally:
        ledger.close()
    moving.log.keep_times(moving.topics, False)
    ends = {topic: moving.there(topic) for topic in moving.topics}
    moves.mark(moving.house.home, found, "switched", ends=ends, txn=txn)


def _refuse_others(services: list[str]) -> None:
    """A database that somebody works in is no place to move to."""
    if services:
        raise Conflict(
            "database_in_use", f"The database holds rows of {', '.join(services)} already.",
            "Name an empty database, or another schema in the connection string.",
        )


def _rows(home: Home, move: Move, service: str, table: str) -> Iterable[tuple[Any, ...]]:
    if table == "marks":
        return home.marks(service)
    if table == "documents":
        return home.documents(service)
    of: Callable[[str, Move], Iterable[tuple[Any, ...]]] = getattr(home, table)
    return of(service, move)


def _latest(file: File) -> int:
    """The highest number of a transaction in a file."""
    return int(file.run("SELECT coalesce(max(txn), 0) FROM owners")[0][0])


# Verify ------------------------------------------------------------------------------------------


def verify(moving: Moving) -> list[Row]:
    """Hold both against each other; a row for each topic, table and label that was compared.
    Raises ``Conflict`` where the cluster is in use by now."""
    found = moves.after(moving.house.home, "verified")
    touched = moving.untouched(found)
    if touched:
        raise Conflict("in_use", f"The cluster works already: {touched}.",
                       "penstock audit judges it from here on.")  # fmt: skip
    rows = [_compare_topic(moving, found, topic) for topic in moving.topics]
    ledger = moving.cluster.copying()
    try:
        for service in moving.home.services:
            for table in TABLES:
                here, there = _rows(moving.home, found, service, table), ledger.rows(service, table)
                rows.append(_compared(table, service, _digest(here), _digest(there)))
            here, there = moving.home.documents(service), ledger.rows(service, "documents")
            rows += _labels(service, Counter(map(_label, here)), Counter(map(_label, there)))
    finally:
        ledger.close()
    if all(row["equal"] for row in rows):
        moves.mark(moving.house.home, found, "verified")
    return rows


def refuse_differences(rows: Iterable[Row]) -> None:
    """Raises ``CheckFailed`` where something was not equal."""
    wrong = [f"{row['what']} {row['name']}" for row in rows if not row["equal"]]
    if wrong:
        raise CheckFailed(
            "not_equal", f"Home and cluster differ in {', '.join(wrong)}.",
            "Run penstock migrate switch again; nothing must be started meanwhile.",
        )


def _compare_topic(moving: Moving, move: Move, topic: str) -> Row:
    same = here_count = there_count = 0
    for partition, first in enumerate(move.firsts[topic]):
        there = moving.log.extent(topic)[partition].next
        there_count += there
        for piece in _pieces(moving.home.records(topic, partition, first)):
            start = move.offset(topic, partition, piece[0].record.offset)
            copies = moving.log.read(topic, partition, start, len(piece)) if start < there else []
            here_count += len(piece)
            same += sum(
                (c.record.message, c.record.appended_at, c.record.offset - first)
                == (k.message, k.appended_at, k.offset)
                for c, k in zip(piece, copies, strict=False)
            )
    return {
        "what": "topic", "name": topic, "home": here_count, "cluster": there_count,
        "equal": same == here_count == there_count,
    }


def _compared(what: str, name: str, here: tuple[int, int], there: tuple[int, int]) -> Row:
    return {
        "what": what, "name": name, "home": here[0], "cluster": there[0], "equal": here == there
    }


def _digest(rows: Iterable[tuple[Any, ...]]) -> tuple[int, int]:
    """How many rows, and a number that is the same for the same rows in any order."""
    count = total = 0
    for row in rows:
        said = msgspec.json.encode([_plain(cell) for cell in row], order="sorted")
        count += 1
        total ^= int.from_bytes(blake2b(said, digest_size=16).digest(), "big")
    return count, total


def _plain(cell: Any) -> Any:
    """A cell as both sides can say it: what one keeps as JSON's text the other reads as values."""
    if isinstance(cell, str) and cell[:1] in ("{", "["):
        try:
            return json.loads(cell)
        except ValueError:
            return cell
    return cell


def _label(row: tuple[Any, ...]) -> tuple[str, str]:
    return row[0], row[2] or ""


def _labels(service: str, here: Counter[Any], there: Counter[Any]) -> Iterator[Row]:
    """How many documents stand in each state, before and after."""
    for kind, label in sorted(here.keys() | there.keys()):
        if label:
            counts = here[kind, label], there[kind, label]
            yield _compared(f"{service} {kind}", label, (counts[0], 0), (counts[1], 0))


# Return ------------------------------------------------------------------------------------------


def return_(moving: Moving) -> None:
    """Let the home work again. Raises ``Conflict`` where the cluster has worked already."""
    found = moving.move()
    if found is None or "fenced" not in found.done:
        raise Conflict("not_fenced", "The home was not fenced.", "It works; nothing is to be done.")
    touched = moving.untouched(found) if "switched" in found.done else ""
    if touched:
        raise Conflict(
            "no_way_back", f"The cluster has worked: {touched}.",
            "What was done there is not in the home; go on with the cluster.",
        )
    lock = assemble.HomeLock(moving.house)
    _set_moved(moving.house, None)
    kept = {step: at for step, at in found.done.items() if step in ("copied", "switching")}
    moves.write(moving.house.home, Move(
        kafka=found.kafka, prefix=found.prefix, database=found.database, firsts=found.firsts,
        done=kept,
    ))  # fmt: skip
    del lock

