"""The pure middle of a turn on literals: given documents, when records come, then writes."""

from __future__ import annotations

from penstock.catalog.model import Catalog
from penstock.contracts.wire import Book
from penstock.decision import Park, Ref, Retry
from penstock.engine.backlog import Backlog
from penstock.engine.batch import Batch, Entry
from penstock.engine.unit import ENCODE, Unit, unit_of
from penstock.event import Event, Message, Record, root_id
from penstock.ports import Waiting
from tests.engine.tally import CONTRACTS, Orders, Step, Tally, always, tally_catalog, tally_service

NOW = 1_767_600_000_000
BOOK = Book(CONTRACTS)


def unit(orders: Orders | None = None, **entry: object) -> Unit:
    """The tally service, ready to run."""
    catalog: Catalog = tally_catalog(entry, {}, 4)
    return unit_of(tally_service(orders or Orders()), catalog, BOOK)


def entry(key: str, step: Step, offset: int, row: Waiting | None = None) -> Entry:
    """One opened record of ``steps[0]``."""
    type_, version, value = BOOK.seal(step)
    id_ = root_id(NOW, key, str(offset))
    record = Record("steps", 0, offset, NOW, Message(key, value, id_, type_, version, NOW))
    event = Event(id_, type_, version, key, NOW, step, topic="steps", appended_at=NOW)
    return Entry(record, event, row)


def decided(batch: Batch, *entries: Entry) -> list[list[int]]:
    """Decide in as many passes as it takes; the offsets of each pass after the first."""
    pending, passes = list(entries), []
    charged: list[Record] = []
    while pending:
        batch.loaded(batch.owns(pending), {})
        batch.loaded(batch.needed(pending), {})
        pending = batch.decide(pending, charged.append)
        passes.append([e.record.offset for e in pending])
    return passes[:-1]


def places(batch: Batch) -> list[tuple[int, str, int]]:
    """Offset, state and attempts of what waits or is parked."""
    return sorted((w.record.offset, w.state, w.attempts) for w in batch.put.values())


def test_given_nothing_when_steps_come_then_states_marks_and_rows() -> None:
    batch = Batch(unit(), Backlog(), NOW, set())
    steps = [entry("k", Step(n=n, tell=True), n) for n in (1, 2)]
    assert decided(batch, *steps) == []
    ref = Ref("tally", "k")
    assert batch.saved[ref].body == ENCODE(Tally(steps=(1, 2)))
    assert batch.saved[ref].label == "2 steps"
    assert list(batch.marks) == [e.event.id for e in steps if e.event]
    assert [(row.destination, row.message.key) for row in batch.rows] == [("sums", "k")] * 2
    assert [row.message.cause for row in batch.rows] == list(batch.marks)


def test_given_a_document_when_a_step_comes_then_it_goes_on_from_there() -> None:
    batch, ref = Batch(unit(), Backlog(), NOW, set()), Ref("tally", "k")
    batch.loaded([ref], {ref: ENCODE(Tally(steps=(7,)))})
    decided(batch, entry("k", Step(n=8), 0))
    assert batch.saved[ref].body == ENCODE(Tally(steps=(7, 8)))


def test_when_needs_change_then_the_record_and_all_later_ones_of_its_key_go_again() -> None:
    """The first names a pot, the second follows into it: with nothing stored, it lacks no ref,
    for its needs are asked with the document that the first one wrote."""
    service = unit()
    batch, ref = Batch(service, Backlog(), NOW, set()), Ref("tally", "k")
    batch.loaded([ref], {})
    batch.loaded([Ref("pot", "p")], {})
    first = entry("k", Step(n=1, pots=("p",)), 0)
    assert batch.decide([first], lambda record: None) == []
    batch.loaded([Ref("tally", "j")], {Ref("tally", "j"): ENCODE(Tally(pots=("q",)))})
    again = [entry("j", Step(n=2), 1), entry("j", Step(n=3, follow=True), 2)]
    again += [entry("j", Step(n=4), 3), entry("k", Step(n=5), 4)]
    later = batch.decide(again, lambda record: None)
    assert [e.record.offset for e in later] == [2, 3]
    assert decided(batch, *later) == []
    assert batch.saved[Ref("tally", "j")].body == ENCODE(Tally(steps=(2, 3, 4), pots=("q",)))


def test_when_a_record_fails_then_it_waits_and_its_key_stays_behind() -> None:
    orders = Orders()
    orders.by_number[2] = always(Retry("not yet"))
    batch = Batch(unit(orders), Backlog(), NOW, set())
    decided(batch, *(entry("k", Step(n=n), n) for n in (1, 2, 3)), entry("j", Step(n=9), 4))
    assert places(batch) == [(2, "waiting", 1), (3, "waiting", 0)]
    assert len(batch.marks) == 2
    assert batch.failing == {"k": True, "j": False}


def test_when_a_record_is_parked_then_a_row_holds_its_key_and_a_letter_goes_out() -> None:
    orders = Orders()
    orders.by_number[1] = always(Park("bad", "so bad"))
    batch = Batch(unit(orders), Backlog(), NOW, set())
    decided(batch, entry("k", Step(n=1), 1), entry("k", Step(n=2), 2))
    assert places(batch) == [(1, "parked", 0), (2, "waiting", 0)]
    (letter,) = batch.rows
    assert (letter.destination, letter.message.type) == ("tally.dead", "dead.parked")
    assert batch.marks == {}


def test_when_the_event_is_marked_then_nothing_happens_and_its_row_goes() -> None:
    batch = Batch(unit(), Backlog(), NOW, set())
    known = entry("k", Step(n=1), 1)
    row = Waiting(record=known.record, state="waiting", due=1, attempts=1)
    assert known.event is not None
    batch.seen(frozenset([known.event.id]))
    decided(batch, Entry(known.record, known.event, row))
    assert (batch.saved, batch.marks, batch.rows) == ({}, {}, [])
    assert batch.drop == [known.record]


def test_a_re_run_makes_the_same_ids() -> None:
    ids = []
    for _ in range(2):
        batch = Batch(unit(), Backlog(), NOW, set())
        decided(batch, entry("k", Step(n=1, tell=True, wake_ms=5), 1))
        ids.append([row.message.id for row in batch.rows])
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 2
