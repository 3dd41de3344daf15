"""A courier by itself: its shards by the roll, its keeper, its own loop.

On a cluster couriers run apart from workers. Those of a service share its rows out among them by
shard; who carries the first shard also keeps the service's rows finite.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from penstock.engine.courier import Carried, Courier
from penstock.engine.keeper import AWAY, Keeper
from penstock.engine.runner import (
    BLOCKED_PAUSE_SECONDS,
    STATUS_SECONDS,
    gateway_states,
    trouble_of,
)
from penstock.engine.wakes import Wakes
from penstock.errors import Contended, StorageFull, Unreachable, World
from penstock.limits import CARRY_POLL_SECONDS, POLL_SECONDS, ROLL_SECONDS
from penstock.ports import Clock, Roll

LIVELY_SECONDS = 2.0  # after its last row a courier looks more often for so long


class Shift:
    """The loop of one service's courier."""

    def __init__(
        self,
        courier: Courier,
        roll: Roll,
        wakes: Wakes,
        clock: Clock,
        keeper: Keeper,
        report: Callable[[dict[str, Any]], None],
    ) -> None:
        self.courier, self.keeper = courier, keeper
        self._roll, self._wakes, self._clock, self._report = roll, wakes, clock, report
        self._asked: set[str] = set()
        self._attend_at = self._look_at = self._report_at = self._lively_until = 0.0
        self._stopping = False
        self.failed = True  # until it ended in peace
        self.turned_at = time.monotonic()
        courier.shards = frozenset()

    @property
    def name(self) -> str:
        """The service whose rows it carries."""
        return self.courier.unit.name

    def stop(self) -> None:
        """Finish the turn at hand and leave; safe in a signal handler."""
        self._stopping = True
        self._wakes.poke()

    def run(self) -> None:
        """Turn until told to stop, then leave the roll so that others take over at once."""
        while not self._stopping:
            self.turn()
        self._roll.leave()
        self._say(force=True)
        self.failed = False

    def turn(self) -> None:
        """One turn, then sleep if there was nothing to do."""
        self.turned_at = time.monotonic()
        now = self._clock.now()
        carried = self._carry(now)
        if 0 in self.courier.shards:
            self._keep(now)
        self._say()
        busy = carried.settled or carried.called
        if busy:
            self._lively_until = time.monotonic() + LIVELY_SECONDS
        heard = self._wakes.wait(0.0 if busy else self._sleep(carried))
        self._asked = heard | carried.wrote
        if carried.blocked:
            time.sleep(BLOCKED_PAUSE_SECONDS)

    def _carry(self, now: int) -> Carried:
        if time.monotonic() >= self._attend_at:
            try:
                self.courier.shards = self._roll.attend(now)
            except (Contended, StorageFull, Unreachable) as error:
                # The shards of before are kept: their epochs fence off what is not ours any more.
                self.courier.trouble = str(error)
                return Carried(blocked=True)
            self._attend_at = time.monotonic() + ROLL_SECONDS
        look = time.monotonic() >= self._look_at
        if look:
            lively = time.monotonic() < self._lively_until
            self._look_at = time.monotonic() + (CARRY_POLL_SECONDS if lively else POLL_SECONDS)
        return self.courier.step(now, None if look else self._asked)

    def _keep(self, now: int) -> None:
        try:
            self.keeper.step(now)
        except Unreachable as error:
            self.keeper.alarms[AWAY] = str(error)

    def _sleep(self, carried: Carried) -> float:
        waits = [self._look_at - time.monotonic()]
        if carried.next_due is not None:
            waits.append((carried.next_due - self._clock.now()) / 1000)
        return max(0.001, min(waits))

    def _say(self, force: bool = False) -> None:
        if not force and time.monotonic() < self._report_at:
            return
        self._report_at = time.monotonic() + STATUS_SECONDS
        try:
            self._report(self.status())
        except (OSError, World):
            return  # we lose sight of it, not the work

    def status(self) -> dict[str, Any]:
        """What this courier would say of itself."""
        return {
            "service": self.courier.unit.name, "role": "courier", "pid": os.getpid(),
            "at": self._clock.now(), "version": self.courier.unit.service.version,
            "trouble": trouble_of(self.courier), "alarms": dict(self.keeper.alarms),
            "shards": len(self.courier.shards), "gateways": gateway_states(self.courier),
        }
