"""What becomes of records that wait, as it should be: each (topic, key) a queue, nothing more.

``Expected`` knows no batch, no position, no store and no lane. It is brought to rest at a time;
at the same time, whatever the engine did in between, it must be at rest with the same rows.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from typing import NamedTuple

from msgspec import Struct

from penstock.catalog.model import RetryPolicy
from penstock.decision import Decision, Hold, Park, Retry
from penstock.event import Event, Message, Position
from penstock.limits import DEATHS_MAX
from tests.engine.tally import Orders
from tests.flows.rig import HandClock

OK, RETRY, RAISE, HOLD, PARK, DIE = "ok", "retry", "raise", "hold", "park", "die"
HOLD_MS = 1500
Queue = tuple[str, str]  # topic and key


class Death(BaseException):
    """The process ends here: nothing catches it, and nothing of the batch is kept."""


class Fates:
    """What each try of a step comes to; the same try, made again, comes to the same.

    A try that was rolled back with its batch is made again at the same time, so the time tells
    one try from the next. A death is no try.
    """

    def __init__(self) -> None:
        self._scripts: dict[int, deque[str]] = {}
        self._tries: dict[tuple[int, int], str] = {}

    def script(self, number: int, fates: Sequence[str]) -> None:
        """The fates of a step, one after the other; after them, all is well."""
        self._scripts[number] = deque(fates)

    def mend(self) -> None:
        """From now on, all is well."""
        self._scripts = {number: deque() for number in self._scripts}

    def at(self, number: int, now: int) -> str:
        """The fate of the step's try at this time."""
        known = self._tries.get((number, now))
        if known is not None:
            return known
        script = self._scripts[number]
        fate = script.popleft() if script else OK
        if fate != DIE:
            self._tries[number, now] = fate
        return fate


class Fated(Orders):
    """What a decide is told: its fate at the clock's time."""

    def __init__(self, clock: HandClock, fates: Fates) -> None:
        super().__init__()
        self._clock, self._fates = clock, fates

    def order(self, event: Event) -> Decision | None:
        """Meet it."""
        if event.type != "step.taken":
            return None
        now = self._clock.now()
        match self._fates.at(event.data.n, now):
            case "retry":
                return Retry("not yet")
            case "raise":
                raise ValueError("broken")
            case "hold":
                return Hold("something", now + HOLD_MS)
            case "park":
                return Park("bad", "bad")
            case "die":
                raise Death
        return None


class Item(NamedTuple):
    """A record: where it lies, what it says, and whether it can be opened."""

    place: Position
    number: int
    message: Message
    readable: bool


class Held(Struct):
    """The row of a record that is neither done nor lost."""

    item: Item
    state: str = "waiting"
    due: int = 0
    attempts: int = 0
    deaths: int = 0


class Expected:
    """The reference: what is done, and what is held, and how."""

    def __init__(self, fates: Fates, policy: RetryPolicy, *, halt: bool) -> None:
        self._fates, self._policy, self._halt = fates, policy, halt
        self.queues: dict[Queue, deque[Held]] = defaultdict(deque)
        self.aside: dict[Position, Held] = {}
        self.done: dict[Queue, list[int]] = defaultdict(list)
        self.late: set[int] = set()  # numbers that were set aside at some time
        self.handled: set[bytes] = set()  # ids
        self.parks: Counter[str] = Counter()
        self.discards: Counter[str] = Counter()  # by key

    def append(self, item: Item) -> None:
        """One more record."""
        self.queues[item.place.topic, item.message.key].append(Held(item))

    def may_be_gone(self, held: Held) -> bool:
        """A copy of what is done waits for its turn, or goes with the batch that did it."""
        return held.item.readable and held.item.message.id in self.handled

    def rows(self) -> dict[Position, Held]:
        """Every record that is held."""
        held = {h.item.place: h for queue in self.queues.values() for h in queue}
        return held | self.aside

    # A person decides --------------------------------------------------------------------------

    def asked(self, place: Position, now: int, *, retry: bool) -> None:
        """A parked record is tried again, from its first attempt on, or left out."""
        held = self.rows()[place]
        if retry:
            held.state = "waiting" if held.state == "parked" else "aside"
            held.due, held.attempts, held.deaths = now, 0, 0
            return
        self._drop(held)
        self.handled.add(held.item.message.id)
        self.discards[held.item.message.key] += 1

    def _drop(self, held: Held) -> None:
        place = held.item.place
        if self.aside.pop(place, None) is None:
            self.queues[place.topic, held.item.message.key].remove(held)

    # Time stands, and everything comes to rest -------------------------------------------------

    def rest(self, now: int) -> None:
        """Try all that may be tried now."""
        for held in list(self.aside.values()):
            if 0 < held.due <= now:
                self._meet(held, now)
        for queue in list(self.queues.values()):
            while queue and queue[0].state == "waiting" and queue[0].due <= now:
                head = queue[0]
                self._meet(head, now)
                if queue and queue[0] is head and head.due <= now and head.state == "waiting":
                    raise AssertionError("a head that is neither through nor held")

    def _meet(self, held: Held, now: int) -> None:
        item = held.item
        if self.may_be_gone(held):
            self._drop(held)
        elif not item.readable:
            self._park(held, "malformed")
        else:
            self._try(held, now)

    def _try(self, held: Held, now: int) -> None:
        fate = self._fates.at(held.item.number, now)
        while fate == DIE:
            held.deaths += 1
            if held.deaths >= DEATHS_MAX:
                self._park(held, "process_death")
                return
            fate = self._fates.at(held.item.number, now)
        match fate:
            case "retry" | "raise":
                self._failed(held, now)
            case "hold":
                held.due = now + HOLD_MS
            case "park":
                self._park(held, "bad")
            case _:
                self._done(held)

    def _done(self, held: Held) -> None:
        self._drop(held)
        self.handled.add(held.item.message.id)
        self.done[held.item.place.topic, held.item.message.key].append(held.item.number)

    def _failed(self, held: Held, now: int) -> None:
        held.attempts += 1
        if held.attempts >= self._policy.attempts:
            self._park(held, "attempts_exhausted")
        else:
            held.due = now + int(self._policy.delay_seconds(held.attempts) * 1000)

    def _park(self, held: Held, kind: str) -> None:
        self.parks[kind] += 1
        held.due, held.deaths = 0, 0
        if self._halt:
            held.state = "parked"
            return
        if held.state != "aside":
            self._drop(held)
            self.aside[held.item.place] = held
            self.late.add(held.item.number)
        held.state = "aside"
