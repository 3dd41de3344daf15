"""The waiting rows against a reference: any schedule of appends, copies, turns, deaths, restarts,
members that come and go, stolen lanes, time and operators ends in the same rows and the same deeds.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from penstock.catalog.model import JOURNAL
from penstock.decision import Parked, Ref
from penstock.engine import worker
from penstock.engine.batch import is_parked
from penstock.engine.slots import NoSlots
from penstock.engine.unit import DISCARD_REQUESTED, RETRY_REQUESTED
from penstock.engine.worker import Worker
from penstock.event import Message, Position, Record, partition_of
from penstock.ports import Waiting
from tests.engine.tally import Step, Tally, tally_rig
from tests.flows.rig import HandClock
from tests.properties.waiting import (
    DIE,
    HOLD,
    OK,
    PARK,
    RAISE,
    RETRY,
    Death,
    Expected,
    Fated,
    Fates,
    Item,
)

KEYS = ("a", "b", "c", "d")
TOPICS = ("steps", "more")
FATES = st.sampled_from(
    (
        (), (), (), (), (RETRY,), (RAISE, HOLD), (PARK,), (PARK, RETRY), (DIE,), (DIE, DIE, OK),
        (DIE, DIE, DIE), (RETRY, DIE), (DIE, RETRY, RETRY, RETRY), (HOLD, DIE, HOLD), (RAISE,) * 6,
    )
)
RECORDS = st.tuples(
    st.sampled_from(TOPICS), st.sampled_from(KEYS), FATES,
    st.sampled_from((True,) * 9 + (False,)),
)
IDLE_ROUNDS, ROUNDS_MAX = 4, 2000


class WaitingRows(RuleBasedStateMachine):
    """The real worker, and beside it the reference.

    With a ``cap`` a lane is held when so many of its records wait, and which ones those are
    depends on how they were taken: then only what holds in any case is looked at.
    """

    cap: int | None = None

    @initialize(
        partitions=st.sampled_from((1, 2, 4)), batch=st.sampled_from((1, 3, 500)),
        halt=st.booleans(), attempts=st.integers(1, 3),
    )
    def begin(self, partitions: int, batch: int, halt: bool, attempts: int) -> None:
        """A service of one member, with bounds to be met soon."""
        self.clock = HandClock()
        self.fates, mirrored = Fates(), Fates()
        self.mirrored = mirrored
        self.rig = tally_rig(
            orders=Fated(self.clock, self.fates), clock=self.clock, partitions=partitions,
            batch=batch if self.cap is None else min(batch, 3), attempts=attempts,
            after_park="halt" if halt else "continue",
        )
        unit = self.rig.unit("tally")
        self.halt, self.partitions = halt, partitions
        self.expected = Expected(mirrored, unit.entry.retry, halt=halt)
        self.slots = NoSlots(unit.lanes)
        self.rig.workers.pop("tally").leave()
        self.members = [self.rig.new_worker("tally", self.slots)]
        self.items: list[Item] = []
        self.discarded: set[int] = set()  # numbers: a copy of what is left out is left out too
        self.number = 0
        self.batch = unit.entry.batch
        self.patched = pytest.MonkeyPatch()
        if self.cap is not None:
            self.patched.setattr(worker, "WAITING_PER_LANE_MAX", self.cap)

    # What comes in ------------------------------------------------------------------------------

    @rule(records=st.lists(RECORDS, min_size=1, max_size=5))
    def append(self, records: list[tuple[str, str, tuple[str, ...], bool]]) -> None:
        """Steps that meet these fates, or bytes that nobody can open."""
        for topic, key, fates, readable in records:
            self.number += 1
            for each in (self.fates, self.mirrored):
                each.script(self.number, fates)
            sent = self.rig.message(key, Step(n=self.number, tell=True), topic)
            if not readable:
                sent = Message(key, b"{", sent.id, sent.type, sent.version, sent.at)
            self._append(topic, sent, self.number, readable)

    @precondition(lambda self: self.items)
    @rule(which=st.integers(0, 1000))
    def append_again(self, which: int) -> None:
        """The same record once more. Where a parked one is passed, only of what is done: whether
        a copy or the one set aside comes first is nobody's promise."""
        item = self.items[which % len(self.items)]
        if item.readable and (self.halt or item.message.id in self.expected.handled):
            self._append(item.place.topic, item.message, item.number, True)

    def _append(self, topic: str, message: Message, number: int, readable: bool) -> None:
        partition = partition_of(message.key, self.partitions)
        offset = self.rig.log.extent(topic)[partition].next
        self.rig.log.append(topic, [message], self.clock.now())
        item = Item(Position(topic, partition, offset), number, message, readable)
        self.items.append(item)
        self.expected.append(item)

    # What happens to the members ----------------------------------------------------------------

    @rule(which=st.integers(0, 3), turns=st.integers(1, 3))
    def step(self, which: int, turns: int) -> None:
        """A member takes a turn or some."""
        for _ in range(turns):
            self._step(self.members[which % len(self.members)])

    def _step(self, member: Worker) -> int:
        try:
            return member.step(self.clock.now()).records
        except Death:
            member.leave()
            self.members[self.members.index(member)] = self._member()
            return 1

    def _member(self) -> Worker:
        return self.rig.new_worker("tally", self.slots)

    @precondition(lambda self: len(self.members) < 4)
    @rule()
    def join(self) -> None:
        """One more member."""
        self.members.append(self._member())

    @precondition(lambda self: len(self.members) > 1)
    @rule(which=st.integers(0, 3))
    def leave(self, which: int) -> None:
        """One fewer."""
        self.members.pop(which % len(self.members)).leave()

    @rule()
    def restart(self) -> None:
        """All of them at once."""
        for member in self.members:
            member.leave()
        self.members = [self._member() for _ in self.members]

    @rule(lane=st.integers(0, 3))
    def steal(self, lane: int) -> None:
        """A lane is claimed by one that does nothing with it: its owner's next commit fails."""
        self.rig.stores["tally"].claim([lane % self.partitions], self.clock.now())

    # Time and people ----------------------------------------------------------------------------

    @rule(milliseconds=st.sampled_from((1, 700, 1000, 1500, 5000)))
    def wait(self, milliseconds: int) -> None:
        """Everything comes to rest, and time passes."""
        self.rest()
        self.clock.pass_(milliseconds)

    @rule(which=st.integers(0, 1000), retry=st.booleans(), twice=st.booleans())
    def operate(self, which: int, retry: bool, twice: bool) -> None:
        """A parked record is retried or discarded, by a request that may come twice."""
        self.wait(1)
        self.rest()
        parked = self._parked()
        if not parked:
            return
        record = parked[which % len(parked)]
        self.clock.pass_(1)
        before = {r.position for r in self.rig.records(JOURNAL)}
        self.rig.operate(RETRY_REQUESTED if retry else DISCARD_REQUESTED, record, "tally")
        if twice:
            (asked,) = [r for r in self.rig.records(JOURNAL) if r.position not in before]
            self.rig.log.append(JOURNAL, [asked.message], self.clock.now())
        self._turn_all()
        if not retry:
            self.discarded |= {i.number for i in self.items if i.place == record.position}
        if self.cap is None:
            self.expected.asked(record.position, self.clock.now(), retry=retry)
        self._compare()

    def _rows(self) -> dict[Position, Waiting]:
        return {r.body.record.position: r.body for r in self.rig.rows("tally", "waiting")}

    def _parked(self) -> list[Record]:
        return [w.record for w in self._rows().values() if is_parked(w)]

    def rest(self) -> None:
        """Turn until nothing moves."""
        self._turn_all()
        self._compare()

    def _compare(self) -> None:
        """At rest all is as the reference has it, whatever the way there was."""
        if self.cap is None:
            self.expected.rest(self.clock.now())
            self.the_rows_are_those_of_the_reference()
            self.what_is_done_is_done_once_and_in_order()
            self.every_parking_is_a_dead_letter()

    def _turn_all(self) -> None:
        idle = 0
        for _ in range(ROUNDS_MAX):
            moved = sum(self._step(member) for member in list(self.members))
            idle = 0 if moved + self.rig.turn() else idle + 1
            if idle == IDLE_ROUNDS:
                return
        raise AssertionError("the members do not come to rest")

    # What must hold -----------------------------------------------------------------------------

    def the_rows_are_those_of_the_reference(self) -> None:
        """Each record that is not done has its row, as it should be, and no other has one."""
        found = self._rows()
        expected = self.expected.rows()
        assert found.keys() <= expected.keys()
        for place, held in expected.items():
            if place not in found:
                assert self.expected.may_be_gone(held), place
                continue
            row = found[place]
            found_so = row.state, row.attempts, row.deaths
            assert found_so == (held.state, held.attempts, held.deaths), place
            assert row.due == held.due or (not held.due and row.state == "waiting"), place

    def what_is_done_is_done_once_and_in_order(self) -> None:
        """By topic and key; a record that was set aside may come late."""
        numbers = {item.number: item.place.topic for item in self.items}
        for key in KEYS:
            done: dict[str, list[int]] = defaultdict(list)
            for number in self._tally(key).steps:
                done[numbers[number]].append(number)
            for topic in TOPICS:
                expected = self.expected.done[topic, key]
                assert sorted(done[topic]) == sorted(expected), (topic, key)
                late = self.expected.late
                assert [n for n in done[topic] if n not in late] == [
                    n for n in expected if n not in late
                ], (topic, key)

    def _tally(self, key: str) -> Tally:
        found = self.rig.states("tally").get(Ref("tally", key), Tally())
        assert isinstance(found, Tally)
        return found

    def every_parking_is_a_dead_letter(self) -> None:
        """One for each time, of its kind; and every discard is told to the service."""
        facts = [fact for told in self.rig.facts("tally.dead").values() for fact in told]
        kinds = Counter(fact.kind for fact in facts if isinstance(fact, Parked))
        assert kinds == self.expected.parks
        for key in KEYS:
            told = sum(note.startswith("discarded") for note in self._tally(key).notes)
            assert told == self.expected.discards[key], key

    @invariant()
    def every_record_is_done_or_held_or_not_taken_yet(self) -> None:
        """At any time, and no record is done before one of its order that is held."""
        if not hasattr(self, "rig"):
            return
        done = {n for key in KEYS for n in self._tally(key).steps}
        rows, ends = self._rows(), self._positions()
        for item in self.items:
            taken = item.place.offset < ends.get(item.place[:2], 0)
            gone = item.number in done | self.discarded
            assert gone or item.place in rows or not taken, item.place
        holding = {r.record.message.key: p for p, r in rows.items() if r.state == "parked"}
        for item in self.items:
            head = holding.get(item.message.key)
            if head and head.topic == item.place.topic and head.offset < item.place.offset:
                earlier = any(
                    i.number == item.number and i.place.offset < head.offset for i in self.items
                )
                assert item.number not in done or earlier, (head, item.place)

    def _positions(self) -> dict[tuple[str, int], int]:
        """Where the lanes are, as the store has it."""
        found = self.rig.rows("tally", "positions")
        return {(topic, int(r.key)): at for r in found for topic, at in r.body.items()}

    @invariant()
    def a_lane_at_its_cap_takes_no_more(self) -> None:
        """Soft by one batch, as a batch is by one row."""
        if hasattr(self, "rig") and self.cap is not None:
            lanes = Counter(place.partition for place in self._rows())
            assert all(count <= self.cap + self.batch for count in lanes.values())

    def teardown(self) -> None:
        """In the end all is mended, and people retry what is parked until nothing is left."""
        if not hasattr(self, "rig"):
            return
        self.fates.mend()
        try:
            self._drain()
        finally:
            self.patched.undo()
            for member in self.members:
                member.leave()

    def _drain(self) -> None:
        readable = {item.place for item in self.items if item.readable}
        for _ in range(4 * len(self.items) + 4):
            self._turn_all()
            self.clock.pass_(60_000)
            for record in self._parked():
                retry = record.position in readable
                self.rig.operate(
                    RETRY_REQUESTED if retry else DISCARD_REQUESTED, record, "tally"
                )
        assert not self._rows()
        for key in KEYS:
            done = self._tally(key).steps
            assert len(done) == len(set(done)), "handled twice"
            mine = {i.number for i in self.items if i.message.key == key and i.readable}
            assert mine - set(done) <= self.discarded


class CappedRows(WaitingRows):
    """The same with lanes that hold three records."""

    cap = 3


@pytest.mark.parametrize("machine", [WaitingRows, CappedRows])
def test_waiting_rows(machine: type[WaitingRows]) -> None:
    run: Any = run_state_machine_as_test
    run(
        machine,
        settings=settings(
            max_examples=50, stateful_step_count=40, deadline=None, derandomize=True,
            phases=(Phase.generate,),
        ),
    )
