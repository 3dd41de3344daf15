"""A gateway's desk at the courier: what is open, in which order, and whether calls may go out.

Rows of one key go strictly one after the other; keys are independent. The breaker opens after
``failures`` in a row and then lets one call through after ``open_seconds``; Retry-After holds
the whole gateway. A closed desk holds its own rows and nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from penstock.catalog.model import GatewayEntry
from penstock.limits import COURIER_ROWS_MAX
from penstock.ports import Due, Outcome, Unavailable, Unknown

WINDOW_ROWS_MAX = 4 * COURIER_ROWS_MAX


class Desk:
    """Open rows of one gateway, in memory; the outbox is their truth."""

    def __init__(self, entry: GatewayEntry) -> None:
        self.entry = entry
        self._capacity = 1_000_000 if entry.inline else entry.max_in_flight
        self.forget()
        self.failures_in_row = 0
        self.not_before = 0
        self._tokens = max(1.0, entry.rate)
        self._refilled_at = 0
        self.last_error = ""

    def forget(self) -> None:
        """Start again from the outbox (another courier may have been at work)."""
        self.known: set[int] = set()  # the ids in the window: they are not fetched again
        self._queues: dict[str, deque[Due]] = {}
        self._ready: deque[str] = deque()  # keys whose head may be looked at
        self._later: dict[str, int] = {}  # key -> when its head may be tried again
        self._in_flight: dict[int, str] = {}
        self._unsettled: dict[int, str] = {}
        self._size = 0

    @property
    def state(self) -> str:
        """closed (calls go out), open (held), or probing (one call is out to try)."""
        if self.failures_in_row < self.entry.breaker.failures:
            return "closed"
        return "probing" if self._in_flight else "open"

    @property
    def open_rows(self) -> int:
        """Rows in the window, those in flight included."""
        return self._size

    def wants_rows(self) -> bool:
        """Is there room for more rows?"""
        return self._size < WINDOW_ROWS_MAX

    def room(self) -> int:
        """How many rows to fetch."""
        return min(COURIER_ROWS_MAX, WINDOW_ROWS_MAX - self._size)

    def add(self, rows: Sequence[Due]) -> None:
        """Take rows fetched from the outbox, none of them ``known``."""
        for row in rows:
            self.known.add(row.id)
            self._size += 1
            key = row.message.key
            queue = self._queues.get(key)
            if queue is not None:
                queue.append(row)
                continue
            self._queues[key] = deque((row,))
            if row.retry_at:
                self._later[key] = row.retry_at
            else:
                self._ready.append(key)

    def ready(self, now: int) -> Iterator[Due]:
        """Rows to call now; each is in flight from here on."""
        for key in [k for k, at in self._later.items() if at <= now]:
            del self._later[key]
            self._ready.append(key)
        budget = COURIER_ROWS_MAX
        while self._ready and budget and self._may_call(now):
            budget -= 1
            key = self._ready.popleft()
            row = self._queues[key][0]
            self._in_flight[row.id] = key
            self._tokens -= 1
            yield row

    def _may_call(self, now: int) -> bool:
        if now < self.not_before or len(self._in_flight) >= self._capacity:
            return False
        if self.failures_in_row >= self.entry.breaker.failures and self._in_flight:
            return False
        if self.entry.inline:
            return True
        passed = max(0, now - self._refilled_at)
        burst = max(1.0, self.entry.rate)
        self._tokens = min(burst, self._tokens + passed * self.entry.rate / 1000)
        self._refilled_at = now
        return self._tokens >= 1

    def finish(self, row: Due, outcome: Outcome, now: int) -> bool:
        """Note a call's end for breaker and pace; False when the row is not known any more."""
        if self._in_flight.pop(row.id, None) is None:
            return False
        if isinstance(outcome, Unavailable | Unknown):
            self.failures_in_row += 1
            self.last_error = outcome.reason
            if self.failures_in_row >= self.entry.breaker.failures:
                self.not_before = now + int(self.entry.breaker.open_seconds * 1000)
            after = outcome.after_seconds if isinstance(outcome, Unavailable) else None
            if after:
                self.not_before = max(self.not_before, now + int(after * 1000))
        else:
            self.failures_in_row = 0
            self._unsettled[row.id] = row.message.key
        return True

    def give_up(self, row: Due) -> None:
        """The buffer policy ran out: the row will be closed without a definite outcome."""
        self._unsettled[row.id] = row.message.key

    def overdue(self, now: int) -> list[Due]:
        """Heads whose buffer ran out while the breaker is open, given up without a call: one
        call at a time goes through, so most would wait for theirs long past their time."""
        if self.failures_in_row < self.entry.breaker.failures:
            return []
        bound = now - int(self.entry.buffer_seconds * 1000)
        busy = self._in_flight.keys() | self._unsettled.keys()
        rows = [q[0] for q in self._queues.values() if q[0].made_at < bound]
        rows = [row for row in rows if row.id not in busy]
        for row in rows:
            self._later.pop(row.message.key, None)
            self.give_up(row)
        given_up = {row.message.key for row in rows}
        self._ready = deque(key for key in self._ready if key not in given_up)
        return rows

    def later(self, row: Due, attempts: int, retry_at: int) -> None:
        """The head of its key waits for ``retry_at``; its successors wait behind it."""
        key = row.message.key
        self._queues[key][0] = replace(row, attempts=attempts, retry_at=retry_at)
        self._later[key] = retry_at

    def close(self, ids: set[int]) -> None:
        """Rows whose closing is durable: the next of their key may go."""
        for id_ in ids & self._unsettled.keys():
            key = self._unsettled.pop(id_)
            self.known.discard(id_)
            self._size -= 1
            queue = self._queues[key]
            queue.popleft()
            if queue:
                self._ready.append(key)
            else:
                del self._queues[key]

    def next_due(self, now: int) -> int | None:
        """When something may go out that may not now (ms)."""
        if self._ready and len(self._in_flight) < self._capacity:
            lacking = 0.0 if self.entry.inline else max(0.0, 1 - self._tokens)
            return max(self.not_before, now + 1 + int(lacking * 1000 / self.entry.rate))
        return min(self._later.values(), default=None)
