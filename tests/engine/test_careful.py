"""After a death: what was about to be decided runs one record a turn, and only that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from penstock.engine.batch import Entry
from penstock.engine.careful import Careful, only, spans_of
from penstock.engine.slots import NoSlots
from penstock.engine.worker import Worker
from penstock.event import Message, Record
from penstock.ports import Claim, Features, Span
from tests.engine.tally import Orders, Step, raising, steps, tally_rig


def record(offset: int, topic: str = "steps", lane: int = 0) -> Record:
    return Record(topic, lane, offset, 1, Message(f"k{offset}", b"{}"))


def entries(*offsets: int) -> list[Entry]:
    return [Entry(record(n), None) for n in offsets]


def places(found: Sequence[Entry]) -> list[int]:
    return [e.record.offset for e in found]


def test_neighbours_make_one_span_and_lanes_are_apart() -> None:
    records = [record(3), record(4), record(7), record(5, lane=1), record(8), record(9, "more")]
    assert spans_of(records) == {
        0: [Span("steps", 3, 4), Span("steps", 7, 8), Span("more", 9, 9)],
        1: [Span("steps", 5, 5)],
    }


def test_only_a_single_record_is_to_blame() -> None:
    assert only([Span("steps", 3, 3)]) == Span("steps", 3, 3)
    assert only([Span("steps", 3, 4)]) is None
    assert only([Span("steps", 3, 3), Span("more", 1, 1)]) is None
    assert only([]) is None


def test_fresh_records_run_one_by_one_until_the_span_is_passed() -> None:
    careful = Careful()
    careful.begin(0, [Span("steps", 5, 6)], {("steps", 0): 5})
    assert places(careful.one([], entries(5, 6, 7))[1]) == [5]
    careful.passed({("steps", 0): 6})
    assert careful
    assert places(careful.one([], entries(6, 7))[1]) == [6]
    careful.passed({("steps", 0): 7})
    assert not careful


def test_what_waited_runs_alone_once_and_then_is_like_any_other() -> None:
    careful = Careful()
    careful.begin(0, [Span("steps", 2, 3)], {("steps", 0): 9})
    due = entries(2, 3, 4)
    assert places(careful.one(due, entries(9))[0]) == [2]
    assert places(careful.one(entries(3, 4), [])[0]) == [3]
    waiting, fresh = careful.one(entries(4), entries(9))
    assert (places(waiting), fresh) == ([4], [])
    assert not careful


def test_a_span_across_the_position_is_both() -> None:
    careful = Careful()
    careful.begin(0, [Span("steps", 8, 10)], {("steps", 0): 9})
    waiting, fresh = careful.one(entries(8), entries(9, 10))
    assert (places(waiting), fresh) == ([8], [])
    assert places(careful.one([], entries(9, 10))[1]) == [9]


def test_a_topic_read_no_more_and_a_lane_given_up_are_forgotten() -> None:
    careful = Careful()
    careful.begin(0, [Span("gone", 1, 4)], {("steps", 0): 0})
    assert not careful
    careful.begin(0, [Span("steps", 1, 4)], {("steps", 0): 0})
    careful.begin(1, [Span("steps", 1, 4)], {("steps", 1): 2})
    careful.forget(0)
    assert careful
    careful.forget(1)
    assert not careful


class Remembering:
    """A store that keeps attempts, as one of a cluster does: over the rig's own store, what was
    about to be decided is told to the next owner until a commit of the lane."""

    def __init__(self, store: Any, spans: dict[int, Sequence[Span]]) -> None:
        self._store, self._spans = store, spans
        self.features: Features = replace(store.features, attempts=True)
        self.tried: list[Mapping[int, Sequence[Span]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def begin(self, spans: Mapping[int, Sequence[Span]] = {}) -> Any:
        self._spans.update(spans)
        self.tried.append(spans)
        return self._store.begin()

    def claim(self, lanes: Sequence[int], now: int) -> list[Claim]:
        found = self._store.claim(lanes, now)
        return [replace(c, attempted=tuple(self._spans.pop(c.lane, ()))) for c in found]


class Killed(BaseException):
    """Stands for the end of the process."""


def test_the_record_that_kills_is_found_by_running_one_by_one() -> None:
    """Of a batch nobody knows who killed its process. The next owner decides one a turn; when it
    dies too, its record is known, charged, and parked at the bound: everything else is handled."""
    orders = Orders()
    rig = tally_rig(orders=orders)
    rig.append("steps", *(("k", Step(n=n)) for n in range(8)))
    orders.by_number[5] = raising(Killed())
    spans: dict[int, Sequence[Span]] = {}
    rig.workers.pop("tally").leave()
    deaths = 0
    for _ in range(40):
        store = Remembering(rig.stores["tally"], spans)
        worker = Worker(rig.units["tally"], rig.log, store, NoSlots(4))  # type: ignore[arg-type]
        try:
            for _ in range(30):
                worker.step(rig.clock.now())
            break
        except Killed:
            deaths += 1
            worker.leave()
    assert deaths == 1 + 3, "once in the batch, and then alone up to the bound"
    assert steps(rig, "k") == (0, 1, 2, 3, 4)
    assert [(key, state) for key, state, _ in rig.waiting("tally")] == [
        ("k", "parked"), ("k", "waiting"), ("k", "waiting"),
    ]  # fmt: skip
    rig.couriers["tally"].step(rig.clock.now())
    (letter,) = rig.facts("tally.dead")["k"]
    assert letter.kind == "process_death"
