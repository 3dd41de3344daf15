"""The two threads behind the event loop: one commits what comes in, one reads.

The committer hands back a whole group with one ``call_soon_threadsafe``: the loop is woken once
a group, not once a request. Stores and logs for reading belong to the reading thread alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from penstock.engine.intake import Delivery, Gate, Wanted
from penstock.errors import StorageFull, Unreachable
from penstock.flow import Call, Intake, Reply
from penstock.limits import JOIN_WAIT_SECONDS
from penstock.web.problems import fault_reply

Found = TypeVar("Found")

IDLE_SECONDS = 5.0

DIED = fault_reply(
    503, "outcome_unknown", "The process that makes requests durable died; it is restarted.",
    fix="Repeat with the same Idempotency-Key: nothing happens twice.",
    headers={"retry-after": "1"},
)
IN_FLIGHT = fault_reply(
    409, "key_in_flight", "A request with this Idempotency-Key is still being made durable.",
    field="Idempotency-Key", fix="Repeat the same request with the same key.",
    headers={"retry-after": "1"},
)
NO_GATE = fault_reply(503, "read_only", "This instance takes no writes.")


def end_process() -> None:
    """Ask this process to drain and end: the crew starts it again."""
    os.kill(os.getpid(), signal.SIGTERM)


class Committer:
    """The thread that runs the gate, and the futures of those who wait for it."""

    def __init__(
        self, gate: Gate, idle: Callable[[], object], died: Callable[[], None] = end_process
    ) -> None:
        self._gate, self._idle, self._died = gate, idle, died
        self._waiting: set[asyncio.Future[Reply]] = set()
        self._in_flight: Counter[tuple[str, str]] = Counter()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle_at = 0.0
        self.dead = False

    @property
    def alive(self) -> bool:
        """Whether requests are being committed."""
        return self._thread is not None and self._thread.is_alive() and not self.dead

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Commit from now on, answering on ``loop``."""
        self._loop = loop
        self._gate.deliver_group = self._deliver
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Refuse what comes from now on and return when all that came is committed."""
        self._gate.close()
        if self._thread is not None:
            self._thread.join()

    async def submit(self, intake: Intake, call: Call) -> Reply:
        """The reply, once it is durable."""
        if self.dead or self._loop is None:
            return DIED
        future: asyncio.Future[Reply] = self._loop.create_future()
        refused = self._gate.submit(Wanted(intake, call, partial(self._resolve, future)))
        if refused is not None:
            return refused
        self._waiting.add(future)
        if not call.idempotency_key:
            return await future
        return await self._joined(future, (call.client, call.idempotency_key))

    async def _joined(self, future: asyncio.Future[Reply], key: tuple[str, str]) -> Reply:
        """The reply; who comes while the key is in flight already waits only so long for it."""
        joins = key in self._in_flight
        self._in_flight[key] += 1
        try:
            if not joins:
                return await future
            return await asyncio.wait_for(asyncio.shield(future), JOIN_WAIT_SECONDS)
        except TimeoutError:
            return IN_FLIGHT  # it stays queued, and changes nothing: the first one decides
        finally:
            self._in_flight[key] -= 1
            if not self._in_flight[key]:
                del self._in_flight[key]

    def _resolve(self, future: asyncio.Future[Reply], reply: Reply) -> None:
        self._waiting.discard(future)
        if not future.done():
            future.set_result(reply)

    def _deliver(self, replies: Delivery) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(_hand_out, replies)
        # A door that is never idle still has to let old records go.
        if time.monotonic() >= self._idle_at:
            self._keep()

    def _keep(self) -> None:
        self._idle_at = time.monotonic() + IDLE_SECONDS
        # On a full disk nothing can be tidied either; the next request finds out and says so.
        with contextlib.suppress(StorageFull, Unreachable):
            self._idle()

    def _run(self) -> None:
        try:
            self._gate.run(self._keep, IDLE_SECONDS)
        except BaseException:
            # What reached the disk is unknown (a failed fsync, a bug): this process must end.
            traceback.print_exc(file=sys.stderr)
            self.dead = True
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._bury)

    def _bury(self) -> None:
        for future in list(self._waiting):
            self._resolve(future, DIED)
        self._died()


def _hand_out(replies: Delivery) -> None:
    for deliver, reply in replies:
        deliver(reply)


class Reader:
    """One thread that owns every connection used for reading."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reader")

    async def run(self, work: Callable[..., Found], *given: Any) -> Found:
        """``work(*given)`` in the reading thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *given)

    def stop(self) -> None:
        """Finish what runs and end the thread."""
        self._pool.shutdown(wait=True)
