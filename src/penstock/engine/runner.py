"""A service's process: worker, courier and keeper take turns; only this loop sleeps."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from penstock.engine.courier import Carried, Courier
from penstock.engine.cuts import cut
from penstock.engine.keeper import Keeper
from penstock.engine.wakes import Wakes
from penstock.engine.worker import Progress, Worker
from penstock.errors import World
from penstock.limits import POLL_SECONDS
from penstock.ports import Clock

STATUS_SECONDS = 0.5
BLOCKED_PAUSE_SECONDS = 0.5


class Threads:
    """Pool threads per gateway (the courier's ``Pool``)."""

    def __init__(self, sizes: dict[str, int]) -> None:
        self._pools = {
            name: ThreadPoolExecutor(max_workers=size, thread_name_prefix=f"gateway-{name}")
            for name, size in sizes.items()
        }

    def submit(self, gateway: str, work: Callable[[], None]) -> None:
        """Run ``work`` in one of the gateway's threads."""
        self._pools[gateway].submit(work)

    def close(self) -> None:
        """Wait for no call: an unfinished one is repeated with its key at the next start."""
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)


def write_whole(path: Path, value: Any, *, durable: bool = False) -> None:
    """Replace a small JSON file in one step; ``durable`` also against a power cut, which may
    leave an empty file otherwise."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(json.dumps(value))
        if durable:
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(path)
    if durable:
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Runner:
    """The loop of one service's process."""

    def __init__(
        self,
        worker: Worker,
        courier: Courier | None,
        wakes: Wakes,
        clock: Clock,
        keeper: Keeper | None = None,
        report: Callable[[dict[str, Any]], None] | None = None,
        beat: memoryview | None = None,
    ) -> None:
        self.worker, self.courier, self.keeper = worker, courier, keeper
        self._wakes, self._clock, self._tell, self._beat = wakes, clock, report, beat
        self.turned_at = time.monotonic()
        self._hot: set[str] | None = None  # topics with something new; None: look at all
        self._look_at_all = 0.0
        self._status_at = 0.0
        self._stopping = False

    def stop(self) -> None:
        """Finish the turn at hand and leave; safe in a signal handler."""
        self._stopping = True
        self._wakes.poke()

    def run(self) -> None:
        """Turn until told to stop, then leave the group so that others take over at once."""
        while not self._stopping:
            self.turn()
        cut("crew.drain")
        self.worker.leave()
        self._report(force=True)

    def turn(self) -> None:
        """One turn of everybody, then sleep if nobody had anything to do."""
        self.turned_at = time.monotonic()
        if self._beat is not None:
            self._beat[0] = time.monotonic_ns()
        if time.monotonic() >= self._look_at_all:
            self._hot, self._look_at_all = None, time.monotonic() + POLL_SECONDS
        now = self._clock.now()
        hot = self._hot
        moved = self.worker.step(now, hot)
        # One courier a service: the one whose worker owns the first lane, so that it moves with
        # the lanes when a process dies; the epoch fences off one that has not noticed yet.
        carries = self.courier is not None and 0 in self.worker.lanes
        carried = self.courier.step(now) if self.courier and carries else Carried()
        wrote = moved.wrote | carried.wrote
        if wrote:
            self._wakes.tell(wrote)
        self._keep(now)
        self._report()
        self._hot = self._next_hot(hot, moved, wrote)
        self._hot_or_sleep(moved, carried)

    def _next_hot(
        self, hot: set[str] | None, moved: Progress, wrote: frozenset[str]
    ) -> set[str] | None:
        own = set(wrote & self.worker.unit.reads.keys())
        if not moved.records:
            return own
        return None if hot is None else hot | own

    def _hot_or_sleep(self, moved: Progress, carried: Carried) -> None:
        busy = moved.records or carried.settled or carried.called
        heard = self._wakes.wait(0.0 if busy or self._hot else self._sleep(moved, carried))
        if moved.blocked or carried.blocked:
            time.sleep(BLOCKED_PAUSE_SECONDS)
        if heard and self._hot is not None:
            self._hot |= heard

    def _sleep(self, moved: Progress, carried: Carried) -> float:
        now = self._clock.now()
        dues = [d for d in (moved.next_due, carried.next_due) if d is not None]
        return max(0.001, min([POLL_SECONDS, *((d - now) / 1000 for d in dues)]))

    def _keep(self, now: int) -> None:
        if self.keeper is not None:
            self.keeper.step(now)

    def _report(self, force: bool = False) -> None:
        if self._tell is None or (not force and time.monotonic() < self._status_at):
            return
        self._status_at = time.monotonic() + STATUS_SECONDS
        with contextlib.suppress(OSError, World):  # we lose sight of it, not the work
            self._tell(self.status())

    def status(self) -> dict[str, Any]:
        """What this process would say of itself."""
        worker, counts = self.worker, self.worker.counts
        return {
            "service": worker.unit.name, "pid": os.getpid(), "at": self._clock.now(),
            "version": worker.unit.service.version, "lanes": sorted(worker.lanes),
            "handled": counts.handled, "duplicates": counts.duplicates,
            "retried": counts.retried, "parked_total": counts.parked,
            "waiting": len(worker.backlog), "parked": worker.backlog.parked,
            "stopped": worker.stopped, "trouble": worker.trouble | trouble_of(self.courier),
            "alarms": self.keeper.alarms if self.keeper else {},
            "gateways": gateway_states(self.courier) if self.courier else {},
        }


def trouble_of(courier: Courier | None) -> dict[str, str]:
    """Why nothing is carried, or not to every topic."""
    return {"courier": courier.trouble} if courier is not None and courier.trouble else {}


def gateway_states(courier: Courier) -> dict[str, Any]:
    """How each gateway of a courier is."""
    return {
        name: {"state": d.state, "open_rows": d.open_rows, "last_error": d.last_error}
        for name, d in courier.desks.items()
    }
