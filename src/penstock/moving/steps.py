"""The steps that change something, each safe to run twice and after a kill anywhere.

    copy    records into Kafka while the home works on; what is there is not written again
    fence   the home works no more: drained, marked as moved, every file closed; then the rest
    switch  states, marks, positions, waiting rows and outboxes into PostgreSQL
    return  back to the home, as long as nothing was done on the cluster

What would change the home or the cluster behind a step's back is kept out by the stores
themselves: by the fence in each file, and by that of the database until the switch is through.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import closing
from threading import Event
from typing import Any

from msgspec.structs import replace

from penstock import assemble
from penstock.assemble import House
from penstock.embedded.fence import fence as fence_file
from penstock.embedded.fence import unfence as unfence_file
from penstock.embedded.fence import waited_for
from penstock.embedded.file import File
from penstock.engine.runner import write_whole
from penstock.errors import Conflict
from penstock.limits import DRAIN_SECONDS_MAX
from penstock.moving import move as moves
from penstock.moving.copying import Copying, Say
from penstock.moving.move import Move
from penstock.moving.plan import plan, refuse_late
from penstock.moving.way import TABLES, Moving

LOCK_PAUSE_SECONDS = 0.2
PASSES_MAX = 5
NEAR_RECORDS = 500  # so few are left to the fence


# Copy --------------------------------------------------------------------------------------------


def copy(moving: Moving, say: Say) -> int:
    """Copy what Kafka has not yet, in passes, until little is missing; returns how many records.
    Raises ``Conflict``."""
    with moving.alone():
        found = _begin(moving)
        copying = Copying(moving, found, say)
        for _ in range(PASSES_MAX):
            if copying.pass_over() < NEAR_RECORDS:
                break
        moves.mark(moving.house.home, found, "copied")
        return copying.count


def _begin(moving: Moving) -> Move:
    """The move, with the database and the topics taken for it. Raises ``Conflict``."""
    found = moving.move()
    if moving.state(found) == "switched":
        raise Conflict("switched", "The house was switched already.",
                       "penstock migrate verify, or penstock migrate return")  # fmt: skip
    if found is None:
        plan(moving)  # refuses what is in use
    found = moving.begun()
    moving.cluster.make(assemble.specs(moving.house.catalog), moving.house.flow)
    moving.ledger.begin(found.id, found.prefix, found.firsts)
    moving.log.keep_times(moving.topics, True)
    return found


# Fence -------------------------------------------------------------------------------------------


def fence(moving: Moving, say: Say) -> None:
    """End the home's work for good, and copy the rest. Raises ``Conflict``."""
    with moving.alone():
        moving.at("fenced")
        found = _begin(moving)
        copying = Copying(moving, found, say)
        copying.pass_over()  # while the home works on: so much less is left when it stands still
        lock = _lock(moving.house, say)
        try:
            _close_home(moving, found)
        finally:
            lock.release()
        copying.pass_over()
        moves.mark(moving.house.home, found, "fenced")


def _close_home(moving: Moving, found: Move) -> None:
    """Nothing starts there any more, and whoever runs, or sleeps, writes nothing."""
    where = f"this home moved to Kafka at {found.kafka}"
    _set_moved(moving.house, {"kafka": found.kafka, "prefix": found.prefix})
    for name in moving.home.files:
        _with_file(moving.house, name, lambda file: fence_file(file, where))


def _with_file(house: House, name: str, do: Callable[[File], None]) -> None:
    # Without the turnstile, whose wait has no end: SQLite's own keeps others out just as well.
    path = house.home / f"{name}.db"
    with waited_for(path), closing(File(path)) as file:
        do(file)


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
        Event().wait(LOCK_PAUSE_SECONDS)


def _ask_to_end(house: House) -> bool:
    try:
        pid = json.loads((house.run / "up.json").read_text())["pid"]
        os.kill(int(pid), signal.SIGTERM)
    except (OSError, ValueError, KeyError):
        return False  # it is just starting, or just gone
    return True


def _set_moved(house: House, moved: dict[str, Any] | None) -> None:
    stamp = house.home / "home.json"
    said = json.loads(stamp.read_text())
    said.pop("moved", None)
    if moved is not None:
        said["moved"] = moved
    write_whole(stamp, said, durable=True)


# Switch ------------------------------------------------------------------------------------------


def switch(moving: Moving, say: Say) -> None:
    """Put all tables into the database, and let others work there. Raises ``Conflict``."""
    with moving.alone():
        found = moving.at("switched")
        if moving.state(found) != "switched":
            refuse_late(moving, assemble.WallClock().now())
            ends = _all_there(moving, found)
            moving.ledger.begin(found.id, found.prefix, found.firsts)
            _put_all(moving, found, say)
            moving.log.keep_times(moving.topics, False)
            found = replace(found, ends=ends, txn=moving.ledger.latest())
            moves.write(moving.house.home, found)  # before anybody can add to them
            moving.ledger.finish(found.id, ends)
        if "switched" not in found.done:
            moves.mark(moving.house.home, found, "switched")


def _all_there(moving: Moving, found: Move) -> dict[str, list[int]]:
    """How many records each partition has there. Raises ``Conflict`` where they are not those of
    the home: it may be another broker than the one they were copied to."""
    ends = {topic: moving.there(topic) for topic in moving.topics}
    for topic, counts in ends.items():
        here = [
            extent.next - first
            for extent, first in zip(
                moving.home.extents(topic), found.firsts.get(topic, ()), strict=True
            )
        ]
        if counts != here:
            raise Conflict(
                "not_copied", f"Kafka's topic {topic} has {counts} records by partition, and "
                f"{here} were to be copied.", "penstock migrate fence copies what is missing.",
            )  # fmt: skip
    return ends


def _put_all(moving: Moving, found: Move, say: Say) -> None:
    for service in moving.home.services:
        with moving.ledger.replacing(service) as copying:
            counts = {t: copying.put(t, moving.home.rows(service, t, found)) for t in TABLES}
        say(f"{service}: " + ", ".join(f"{n} {table}" for table, n in counts.items() if n))
    moving.ledger.number_from(max(map(moving.home.latest, moving.home.services), default=0))


# Return ------------------------------------------------------------------------------------------


def return_(moving: Moving) -> None:
    """Let the home work again. Raises ``Conflict`` where the cluster has worked already."""
    with moving.alone():
        found = moving.move()
        if found is None or not _is_moved(moving.house):
            raise Conflict("not_fenced", "The home was not fenced.",
                           "It works; nothing is to be done.")  # fmt: skip
        if found.ends:  # else the database never let anybody in, and need not even answer
            _withdraw(moving, found)
        kept = {step: at for step, at in found.done.items() if step == "copied"}
        moves.write(moving.house.home, replace(found, ends={}, txn=0, done=kept))
        for name in moving.home.files:
            _with_file(moving.house, name, unfence_file)
        _set_moved(moving.house, None)


def _is_moved(house: House) -> bool:
    return "moved" in json.loads((house.home / "home.json").read_text())


def _withdraw(moving: Moving, found: Move) -> None:
    """Keep everybody out of the cluster again. What penstock appends to topics comes out of the
    database, so when that is closed nothing is added any more."""
    state = moving.state(found)
    if not state:
        raise Conflict("another_database", "This home did not move to this database.",
                       "Name the one it moved to: --postgres")  # fmt: skip
    if state != "switched":
        return
    with moving.ledger.withdrawing(found.id) as latest:
        touched = moving.touched(found, latest)
        if touched:
            raise Conflict(
                "no_way_back", f"The cluster has worked: {touched}.",
                "What was done there is not in the home; go on with the cluster.",
            )
