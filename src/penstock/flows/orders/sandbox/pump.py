"""The sender of webhooks: what the ledger holds as due goes to the door, at least once."""

from __future__ import annotations

import asyncio
import contextlib
import time

import httpx

from penstock.errors import StorageFull
from penstock.flows.orders.sandbox.ledger import Delivery, Ledger

AT_ONCE = 20  # POSTs in flight
TIMEOUT_SECONDS = 2.0
FIRST_RETRY_SECONDS = 0.1
RETRY_SECONDS_MAX = 5.0
IDLE_SECONDS = 60.0


def retry_ms(attempts: int) -> int:
    """The wait before the next attempt after ``attempts`` failures."""
    return int(1000 * min(RETRY_SECONDS_MAX, FIRST_RETRY_SECONDS * 2.0 ** min(attempts, 10)))


class Pump:
    """Sends deliveries to ``door`` (a URL without path); without a door they stay in the ledger.

    A delivery is done when the door answered 2xx to each of its copies and that is on the disk:
    a crash between the two sends it again.
    """

    def __init__(self, ledger: Ledger, door: str) -> None:
        self._ledger, self._door = ledger, door.rstrip("/")
        self._woken = asyncio.Event()
        self._turns = asyncio.Lock()
        # trust_env off: a proxy of the environment has no business between two local processes
        self._client = httpx.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False)

    def wake(self) -> None:
        """Something may be due earlier than it was."""
        self._woken.set()

    async def run(self) -> None:
        """Send what is due, sleep until the next is; for ever, until cancelled."""
        self._ledger.try_again()
        while True:
            self._woken.clear()
            try:
                sent = await self.turn(_now())
            except StorageFull:
                await asyncio.sleep(RETRY_SECONDS_MAX)  # sent again once there is room to note it
                continue
            if not sent:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), self._idle_seconds())

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _idle_seconds(self) -> float:
        due = self._ledger.next_due() if self._door else None
        return IDLE_SECONDS if due is None else max(0.0, (due - _now()) / 1000)

    async def turn(self, now: int, order: str = "") -> int:
        """One bounded turn: POST what is due by ``now`` (ms), for one order or for all.

        Returns how many were tried.
        """
        async with self._turns:
            due = self._ledger.due(now, AT_ONCE, order) if self._door else []
            if due:
                accepted = await asyncio.gather(*(self._post(delivery) for delivery in due))
                with self._ledger.write():
                    for delivery, ok in zip(due, accepted, strict=True):
                        retry_at = None if ok else _now() + retry_ms(delivery.attempts)
                        self._ledger.tried(delivery, _now(), retry_at)
            return len(due)

    async def _post(self, delivery: Delivery) -> bool:
        headers = {"content-type": "application/json"}
        url = self._door + delivery.path
        try:
            answer = await self._client.post(url, content=delivery.body, headers=headers)
        except httpx.HTTPError:
            return False  # noted as an attempt in the ledger, and tried again
        return answer.is_success


def _now() -> int:
    return time.time_ns() // 1_000_000
