"""The harm of one cycle: done, seen to be done, and undone."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from penstock.engine import cuts
from penstock.engine.cuts import IN_TRANSACTION
from penstock.sim.crash.client import Client
from penstock.sim.crash.plan import (
    BROKER,
    DATABASE,
    DRAIN,
    FULL,
    KILL,
    PARENT,
    RANDOM,
    STOP,
    TERM,
    Cycle,
)
from penstock.sim.crash.servers import Servers
from penstock.sim.crash.subject import FULL_AT_BYTES, PLENTY, Subject, is_stopped
from penstock.sim.crash.waiting import Late, eventually
from penstock.sim.servers.kafka import Cluster
from penstock.sim.servers.postgres import Postgres

FIRE_SECONDS = 3.0  # then more is sent, that the point may be passed
TRIES_MAX = 4
HANDOVER_SECONDS = 30.0
STANDSTILL_SECONDS = 0.6  # of a sleeper whose place nobody can take
RECOVERY = 5  # a start takes longer than anything else: a death in it comes so many times later
TRANSACTION_SECONDS = 2.0  # told to the crew: who stands still inside one so long is killed
DRAINED, ENDED_AT_ONCE = 0, 130  # exit codes of `up`


class Tally(Struct):
    """What was really done, of all cycles."""

    kills: Counter[str]  # by cut point
    random_kills: int = 0
    stops: int = 0
    taken_over: int = 0  # of these: others had taken lanes of the sleeper before it woke
    stuck: int = 0  # of these: inside a transaction, so the crew killed it
    drains: int = 0
    parents: int = 0
    full_disks: int = 0
    brokers: int = 0
    databases: int = 0

    def told(self) -> dict[str, Any]:
        """As JSON shows it, every point with its count."""
        return {**msgspec.structs.asdict(self), "kills": {p: self.kills[p] for p in cuts.POINTS}}


class Wrong(Exception):
    """A fault was not taken as promised; the sentence says how."""


class Scene(Struct, frozen=True, kw_only=True):
    """Where a fault is done: the processes, the client, the folder of arms, and on a cluster the
    servers and what tells the lanes of a process there."""

    subject: Subject
    client: Client
    arms: Path
    doubled: str
    tally: Tally
    send_more: Callable[[], None]
    servers: Servers | None = None
    lanes_of: Callable[[int], list[int]] | None = None

    def members_of(self, service: str) -> tuple[str, ...]:
        """The crew's members of a service; of others, themselves."""
        return (service, f"{service}-2") if service == self.doubled else (service,)


class Arming:
    """Every member of a cycle's service is ordered to fall at its point."""

    def __init__(self, scene: Scene, cycle: Cycle, action: str) -> None:
        self._scene, self._point = scene, cycle.point
        self._members = scene.members_of(cycle.member)
        for member in self._members:
            cuts.arm(scene.arms, member, cycle.point, cycle.passes, action)

    def obeyed(self) -> bool:
        """Has somebody fallen?"""
        return not all(cuts.is_armed(self._scene.arms, m, self._point) for m in self._members)

    def take_back(self) -> list[str]:
        """Nobody falls from now on; who did."""
        arms, point = self._scene.arms, self._point
        return [m for m in self._members if not cuts.disarm(arms, m, point)]

    def wait(self) -> list[str]:
        """Wait until somebody fell, and send more as long as nobody did; who fell. Nobody: the
        point was not passed."""
        for _ in range(TRIES_MAX):
            with contextlib.suppress(Late):
                eventually(self.obeyed, FIRE_SECONDS, f"{self._point} is passed")
                break
            self._scene.send_more()
        return self.take_back()


# Deaths ------------------------------------------------------------------------------------------


def kill(scene: Scene, cycle: Cycle) -> None:
    """A member dies by -9, at a point or at whatever moment; the crew starts another."""
    before = scene.subject.pids()
    if cycle.point == RANDOM:
        time.sleep(cycle.delay_seconds)
        dead = _shoot(scene, before, cycle.member)
    else:
        dead = Arming(scene, cycle, cuts.KILL).wait()
        scene.tally.kills[cycle.point] += len(dead)
    if cycle.twice and cycle.other not in dead:
        dead += _shoot(scene, before, cycle.other)
    for member in dead:
        scene.subject.await_successor(member, before.get(member, 0))


def _shoot(scene: Scene, pids: Mapping[str, int], member: str) -> list[str]:
    """Kill a member wherever it is; who died: nobody where it is just being started."""
    if member not in pids:
        return []
    try:
        os.kill(pids[member], signal.SIGKILL)
    except ProcessLookupError:
        return []
    scene.tally.random_kills += 1
    return [member]


def parent(scene: Scene, cycle: Cycle) -> None:
    """``up`` itself dies by -9, at times again while it starts, and is started once more."""
    time.sleep(cycle.delay_seconds)
    before = set(scene.subject.family())
    scene.subject.kill_up()
    scene.tally.parents += 1
    if cycle.twice:
        scene.subject.spawn()
        time.sleep(cycle.delay_seconds * RECOVERY)
        scene.subject.kill_up()
        scene.tally.parents += 1
    scene.subject.start()
    if orphans := before & set(scene.subject.family()):
        raise Wrong(f"processes of the killed parent go on beside its successor: {orphans}")


# Standstills -------------------------------------------------------------------------------------


def stop(scene: Scene, cycle: Cycle) -> None:
    """A member stands still (SIGSTOP) with work in its hands, past its lease, and wakes up."""
    before = scene.subject.pids()
    fallen = Arming(scene, cycle, cuts.STOP).wait()
    sleepers = {member: before[member] for member in fallen if member in before}
    scene.tally.stops += len(sleepers)
    try:
        if cycle.point in IN_TRANSACTION and scene.servers is None:
            for member, pid in sleepers.items():
                scene.subject.await_successor(member, pid)
                scene.tally.stuck += 1
        elif cycle.member == scene.doubled and sleepers:
            _hand_over(scene, cycle.member, sleepers)
        else:
            time.sleep(STANDSTILL_SECONDS)
    finally:
        wake(sleepers.values())


def wake(pids: Any) -> None:
    """Who was stopped goes on."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _hand_over(scene: Scene, service: str, sleepers: dict[str, int]) -> None:
    """One more member joins: lanes of the sleepers get other owners, and then they wake up."""
    subject, name = scene.subject, f"{service}-3"
    status = subject.home / "run" / "status" / f"{name}.json"
    status.unlink(missing_ok=True)
    third = subject.run("worker", service, "--member", name, member=name)
    patience = HANDOVER_SECONDS + (scene.servers.extra_seconds if scene.servers else 0.0)

    def lanes() -> list[int]:
        return _lanes(status) if scene.lanes_of is None else scene.lanes_of(third.pid)

    try:
        eventually(lanes, patience, f"{name} is given lanes")
        scene.tally.taken_over += all(map(is_stopped, sleepers.values()))
        scene.send_more()
        wake(sleepers.values())
        third.terminate()
        if code := third.wait(HANDOVER_SECONDS):
            raise Wrong(f"{name} was told to drain and ended with {code}")
    except subprocess.TimeoutExpired:
        raise Wrong(f"{name} did not drain within {HANDOVER_SECONDS:g} s") from None
    finally:
        third.kill()
        third.wait()


def _lanes(status: Path) -> list[int]:
    try:
        lanes: list[int] = msgspec.json.decode(status.read_bytes())["lanes"]
    except FileNotFoundError:
        return []
    return lanes


# Ends that were asked for ------------------------------------------------------------------------


def term(scene: Scene, cycle: Cycle) -> None:
    """SIGTERM: everybody drains, or dies while draining; then it starts again."""
    time.sleep(cycle.delay_seconds)
    once = not cycle.twice
    arming = Arming(scene, cycle, cuts.KILL) if cycle.point == DRAIN else None
    code = scene.subject.stop(1 if once else 2)
    scene.tally.kills[DRAIN] += len(arming.take_back()) if arming else 0
    if code not in ((DRAINED,) if once else (DRAINED, ENDED_AT_ONCE)):
        raise Wrong(f"up was told to drain and ended with {code}")
    scene.tally.drains += 1
    if once and (left := scene.subject.family()):
        raise Wrong(f"up has drained and left processes behind: {left}")
    scene.subject.start()


# A full disk -------------------------------------------------------------------------------------


def full(scene: Scene, cycle: Cycle) -> None:
    """Nobody can write any more, for a while; the client is put off and nothing is lost."""
    subject, before = scene.subject, scene.client.statuses[503]
    subject.limit_files(FULL_AT_BYTES)
    try:
        scene.send_more()
        eventually(lambda: scene.client.statuses[503] > before, FIRE_SECONDS * 2,
                   "the door says that the disk is full")  # fmt: skip
        if cycle.twice:
            _shoot(scene, subject.pids(), cycle.other)
        time.sleep(cycle.delay_seconds)
    except Late as late:
        raise Wrong(str(late)) from None
    finally:
        subject.limit_files(PLENTY)
    scene.tally.full_disks += 1


# Servers -----------------------------------------------------------------------------------------


def broker(scene: Scene, cycle: Cycle) -> None:
    """The broker dies by -9 and comes back; at times a member dies while it is away."""
    _without(scene, cycle, scene.servers.broker if scene.servers else None)
    scene.tally.brokers += 1


def database(scene: Scene, cycle: Cycle) -> None:
    """The database dies by -9 and comes back; at times a member dies while it is away."""
    _without(scene, cycle, scene.servers.database if scene.servers else None)
    scene.tally.databases += 1


def _without(scene: Scene, cycle: Cycle, server: Cluster | Postgres | None) -> None:
    """A member that starts meanwhile may die of it, and is started until it finds everything."""
    assert server is not None, "only servers that were started for it are harmed"
    before = scene.subject.pids()
    time.sleep(cycle.delay_seconds)
    server.kill()
    try:
        scene.send_more()
        dead = _shoot(scene, before, cycle.other) if cycle.twice else []
        time.sleep(cycle.delay_seconds * RECOVERY)
    finally:
        server.restart()
    for member in dead:
        scene.subject.await_successor(member, before.get(member, 0))


FAULTS: dict[str, Callable[[Scene, Cycle], None]] = {
    KILL: kill, STOP: stop, TERM: term, FULL: full, PARENT: parent, BROKER: broker,
    DATABASE: database,
}  # fmt: skip
