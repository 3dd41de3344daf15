"""What every log's groups must do: lanes shared out, rebalances as data, nothing lost over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from functools import partial
from multiprocessing.connection import Connection
from threading import Event, Lock

from penstock.conformance.logs import (
    LETTERS,
    LogFixture,
    numbered,
    numbers,
    opened,
)
from penstock.conformance.scenario import (
    NOW,
    PROCESSES,
    Suite,
    eventually,
    keys_of,
    message,
    processes,
    together,
)
from penstock.event import Record
from penstock.limits import ROW_RECORDS_MAX
from penstock.ports import Extent, Lane, Log, Taken

lanes = Suite[LogFixture]()
ALL = frozenset(range(4))
START = {("letters", partition): 0 for partition in range(4)}


def member(fixture: LogFixture, group: str = "readers", *topics: str) -> Lane:
    """A new member of a group, on a handle of its own."""
    return opened(fixture).join(group, topics or ("letters",))


def soon(
    fixture: LogFixture, look: Callable[[], Taken], right: Callable[[Taken], bool]
) -> Taken:
    """A look that sees what it should: the first one, where the log's features promise that."""
    if fixture.features.at_once:
        taken = look()
        assert right(taken), taken
        return taken
    seen = eventually(lambda: taken if right(taken := look()) else None, "a look sees it all")
    assert seen is not None
    return seen


def holding(count: int) -> Callable[[Taken], bool]:
    """Whether a look has so many records."""
    return lambda taken: len(taken.records) >= count


def shared_out(members: Sequence[Lane]) -> list[frozenset[int]]:
    """The members' lanes, once every lane has exactly one of them and nobody two more than
    another."""

    def shares() -> list[frozenset[int]]:
        found = [m.take(1, {}).assigned for m in members]
        sizes = [len(share) for share in found]
        whole = sorted(lane for share in found for lane in share) == [0, 1, 2, 3]
        return found if whole and max(sizes) - min(sizes) <= 1 else []

    return eventually(shares, "every lane has exactly one member, and all have alike")


class Ledger:
    """Who owns which lane and what was handled: the fence that a store is for a worker."""

    def __init__(self) -> None:
        self._lock, self._epochs = Lock(), dict.fromkeys(ALL, 0)
        self.positions = dict(START)
        self.handled: list[Record] = []

    def claim(self, lane: int) -> tuple[int, int]:
        """A new epoch of the lane, and where to go on."""
        with self._lock:
            self._epochs[lane] += 1
            return self._epochs[lane], self.positions["letters", lane]

    def commit(self, lane: int, epoch: int, records: Sequence[Record]) -> bool:
        """Handle a lane's records, unless another has claimed it since."""
        with self._lock:
            if self._epochs[lane] != epoch:
                return False
            self.handled += records
            self.positions["letters", lane] = records[-1].offset + 1
            return True


class Reader:
    """A worker in small: claims what it is assigned, takes, commits under its epochs."""

    def __init__(self, lane: Lane, ledger: Ledger) -> None:
        self.lane, self._ledger = lane, ledger
        self._epochs: dict[int, int] = {}
        self._positions: dict[tuple[str, int], int] = {}

    def take(self, limit: int = 40) -> Taken:
        """One look at the log; lanes lost since the last one are let go, new ones claimed."""
        taken = self.lane.take(limit, self._positions)
        self._forget(set(self._epochs) - taken.assigned)
        for lane in taken.assigned - self._epochs.keys():
            self._epochs[lane], self._positions["letters", lane] = self._ledger.claim(lane)
        return taken

    def commit(self, taken: Taken) -> None:
        """Commit what was taken, lane by lane. A lane another has claimed is refused, and let go:
        it may have come back between two looks, so only a claim of its own helps."""
        for lane in {r.partition for r in taken.records} & self._epochs.keys():
            records = [r for r in taken.records if r.partition == lane]
            if self._ledger.commit(lane, self._epochs[lane], records):
                self._positions["letters", lane] = records[-1].offset + 1
            else:
                self._forget({lane})

    def _forget(self, gone: Set[int]) -> None:
        for lane in gone:
            del self._epochs[lane], self._positions["letters", lane]

    def turn(self) -> bool:
        """Take and commit; whether there was anything."""
        taken = self.take()
        self.commit(taken)
        return bool(taken.records)


def fill(log: Log, rounds: int = 30) -> list[str]:
    """Sixteen keys, four in each partition, each with the numbers 0 to ``rounds``."""
    keys = [key for partition in range(4) for key in keys_of(partition, 4, 4)]
    for n in range(rounds):
        log.append("letters", [message(key, str(n)) for key in keys], NOW)
    return keys


def check_handled(ledger: Ledger, keys: Sequence[str], rounds: int = 30) -> None:
    """Every record was handled exactly once, each key's in order."""
    assert len(ledger.handled) == len(keys) * rounds
    assert all(numbers(ledger.handled, key) == list(range(rounds)) for key in keys)


def drain(readers: Sequence[Reader], ledger: Ledger, count: int) -> None:
    """Let the readers take turns until ``count`` records are handled."""

    def everything() -> bool:
        for reader in readers:
            reader.turn()
        return len(ledger.handled) >= count

    eventually(everything, f"{count} records are handled")


@lanes.scenario()
def one_member_gets_every_lane(fixture: LogFixture) -> None:
    """Alone in a group, a member has all lanes from its first look on."""
    lane = member(fixture)
    soon(fixture, lambda: lane.take(10, {}), lambda taken: taken.assigned == ALL)


@lanes.scenario()
def lanes_are_shared_out_evenly(fixture: LogFixture) -> None:
    """Each lane goes to exactly one member; more members than lanes stand by with none."""
    members: list[Lane] = []
    for size in range(1, 7):
        members.append(member(fixture))
        assert len(shared_out(members)) == size


@lanes.scenario()
def who_leaves_gives_its_lanes_back(fixture: LogFixture) -> None:
    """After ``leave``, which may repeat, the others have all lanes, the leaver none."""
    first, second, third = (member(fixture) for _ in range(3))
    shared_out([first, second, third])
    for _ in range(2):
        second.leave()
    shared_out([first, third])
    assert second.take(10, START).assigned == frozenset()
    third.leave()
    assert shared_out([first]) == [ALL]


@lanes.scenario()
def who_crashes_loses_its_lanes(fixture: LogFixture) -> None:
    """A member that dies without a word is found out, and its lanes go to the living."""
    first, second, third = (member(fixture) for _ in range(3))
    shared_out([first, second, third])
    fixture.crash(first)
    shared_out([second, third])
    fixture.crash(third)
    assert shared_out([second]) == [ALL]


@lanes.scenario()
def who_leaves_can_come_back(fixture: LogFixture) -> None:
    """Joining again makes a new member."""
    first, second = member(fixture), member(fixture)
    shared_out([first, second])
    first.leave()
    again = member(fixture)
    assert all(shared_out([second, again]))


@lanes.scenario()
def a_rebalance_is_told_by_take(fixture: LogFixture) -> None:
    """The generation changes when the assignment does, and stays while it stays."""
    first = member(fixture)
    shared_out([first])
    looks = [first.take(1, {}) for _ in range(5)]
    assert len({look.generation for look in looks}) == 1
    second = member(fixture)
    shared_out([first, second])
    after = first.take(1, {})
    assert after.generation != looks[-1].generation
    assert after.assigned != looks[-1].assigned
    second.leave()
    shared_out([first])
    assert first.take(1, {}).generation not in (looks[-1].generation, after.generation)


@lanes.scenario()
def groups_are_apart(fixture: LogFixture) -> None:
    """Each group has all lanes and reads every record, whatever the other does."""
    keys = fill(opened(fixture))
    for group in ("readers", "others"):
        ledger = Ledger()
        drain([Reader(member(fixture, group), ledger)], ledger, len(keys) * 30)
        check_handled(ledger, keys)


@lanes.scenario()
def takes_only_what_is_asked_for(fixture: LogFixture) -> None:
    """Records come from the positions given, at or after them, and from nowhere else."""
    fill(opened(fixture))
    lane = member(fixture)
    assert not lane.take(100, {}).records
    asked = {("letters", 1): 7, ("letters", 3): 100, ("replies", 1): 0}
    taken = soon(fixture, lambda: lane.take(10_000, asked), holding(113 + 20))
    offsets = {p: [r.offset for r in taken.records if r.partition == p] for p in range(4)}
    assert offsets == {0: [], 1: list(range(7, 120)), 2: [], 3: list(range(100, 120))}
    assert {r.topic for r in taken.records} == {"letters"}


@lanes.scenario()
def takes_no_lane_of_another(fixture: LogFixture) -> None:
    """A position of a lane that is not assigned is not read."""
    fill(opened(fixture))
    first, second = member(fixture), member(fixture)
    for lane, share in zip((first, second), shared_out([first, second]), strict=True):
        look = partial(lane.take, 10_000, START)
        taken = soon(fixture, look, holding(120 * len(share)))
        assert {r.partition for r in taken.records} == share


@lanes.scenario()
def a_lane_spans_the_topics_of_a_service(fixture: LogFixture) -> None:
    """One partition number of all joined topics is one member's; ``topics`` narrows a look."""
    log = opened(fixture)
    for topic in ("letters", "replies"):
        log.append(topic, [message(f"k{n}") for n in range(32)], NOW)
    members = [member(fixture, "readers", "letters", "replies") for _ in range(2)]
    everything = START | {("replies", partition): 0 for partition in range(4)}
    for lane, share in zip(members, shared_out(members), strict=True):
        both = {(topic, n) for topic in ("letters", "replies") for n in share}
        look = partial(lane.take, 1000, everything)
        soon(fixture, look, _from(both))
        one = {(r.topic, r.partition) for r in lane.take(1000, everything, ["replies"]).records}
        assert one == {("replies", n) for n in share}
        assert not lane.take(1000, everything, []).records


def _from(places: set[tuple[str, int]]) -> Callable[[Taken], bool]:
    return lambda taken: {(r.topic, r.partition) for r in taken.records} == places


@lanes.scenario()
def a_held_lane_is_not_read(fixture: LogFixture) -> None:
    """``hold`` is a level: what it names stays unread, and assigned, until it is told anew."""
    fill(opened(fixture))
    lane = member(fixture)
    for held in (frozenset({0, 2}), frozenset({1}), frozenset(), ALL):
        lane.hold(held)
        for _ in range(2):
            look = partial(lane.take, 10_000, START)
            taken = soon(fixture, look, holding(120 * len(ALL - held)))
            assert {r.partition for r in taken.records} == ALL - held
            assert taken.assigned == ALL


@lanes.scenario()
def a_limit_is_soft_by_one_row(fixture: LogFixture) -> None:
    """A take returns at most one row more than asked for, and something while there is some."""
    log, (key,) = opened(fixture), keys_of(0, 4)
    log.append("letters", numbered(key, 3 * ROW_RECORDS_MAX), NOW)
    lane, other = member(fixture), member(fixture, "others")
    look = partial(lane.take, 5, {("letters", 0): 0})
    taken = soon(fixture, look, holding(5))
    assert len(taken.records) <= 5 + ROW_RECORDS_MAX
    look = partial(other.take, 1, {("letters", 0): 3 * ROW_RECORDS_MAX - 1})
    rest = soon(fixture, look, holding(1))
    assert numbers(rest.records, key) == [3 * ROW_RECORDS_MAX - 1]


@lanes.scenario()
def no_partition_starves(fixture: LogFixture) -> None:
    """With more there than a take returns, every partition still comes to its turn."""
    fill(opened(fixture), rounds=100)
    lane = member(fixture)
    look = partial(lane.take, 10_000, START)
    soon(fixture, look, lambda taken: {r.partition for r in taken.records} == ALL)
    seen = {r.partition for _ in range(4) for r in lane.take(1, START).records}
    assert seen == ALL


@lanes.scenario()
def the_end_is_no_wait(fixture: LogFixture) -> None:
    """At the end a take answers at once with nothing, and later with what has come."""
    log, (key,) = opened(fixture), keys_of(2, 4)
    lane = member(fixture)
    taken = lane.take(10, START)
    assert not taken.records
    assert not taken.outside
    log.append("letters", [message(key, "1")], NOW)
    look = partial(lane.take, 10, START)
    assert numbers(soon(fixture, look, holding(1)).records, key) == [1]


@lanes.scenario()
def a_position_past_the_end_is_outside(fixture: LogFixture) -> None:
    """A position the log does not reach is told as such, and the other partitions flow."""
    fill(opened(fixture))
    look = partial(member(fixture).take, 10_000, START | {("letters", 2): 121})
    taken = soon(fixture, look, lambda taken: bool(taken.outside) and len(taken.records) >= 360)
    assert taken.outside == {("letters", 2): Extent(0, 120)}
    assert {r.partition for r in taken.records} == ALL - {2}


@lanes.scenario()
def a_note_is_only_a_hint(fixture: LogFixture) -> None:
    """What is noted moves no position: takes answer what they are asked for."""
    fill(opened(fixture))
    lane = member(fixture)
    lane.note({("letters", 0): 120})
    look = partial(lane.take, 10_000, {("letters", 0): 5})
    taken = soon(fixture, look, holding(115))
    assert {r.offset for r in taken.records} == set(range(5, 120))


@lanes.scenario()
def a_join_in_the_middle_of_a_batch(fixture: LogFixture) -> None:
    """A member joins while another holds a batch: what it lost is refused and taken again."""
    keys, ledger = fill(opened(fixture)), Ledger()
    first = Reader(member(fixture), ledger)
    first.take()
    batch = soon(fixture, lambda: first.take(1000), holding(1))
    second = Reader(member(fixture), ledger)
    eventually(lambda: second.turn(), "the new member reads")
    first.commit(batch)
    drain([first, second], ledger, len(keys) * 30)
    check_handled(ledger, keys)


@lanes.scenario()
def a_leave_in_the_middle_of_a_batch(fixture: LogFixture) -> None:
    """A member leaves with a batch in hand: another reads it, and the late commit is refused."""
    _departure(fixture, lambda reader: reader.lane.leave())


@lanes.scenario()
def a_crash_in_the_middle_of_a_batch(fixture: LogFixture) -> None:
    """A member dies with a batch in hand: another reads it, and the late commit is refused."""
    _departure(fixture, lambda reader: fixture.crash(reader.lane))


def _departure(fixture: LogFixture, depart: Callable[[Reader], None]) -> None:
    keys, ledger = fill(opened(fixture)), Ledger()
    going, staying = (Reader(member(fixture), ledger) for _ in range(2))
    shared_out([going.lane, staying.lane])
    going.take()
    batch = soon(fixture, lambda: going.take(1000), holding(1))
    depart(going)
    drain([staying], ledger, len(keys) * 30)
    going.commit(batch)
    check_handled(ledger, keys)


@lanes.scenario()
def many_readers_come_and_go(fixture: LogFixture) -> None:
    """Threads read while others append, join, leave and crash: each record handled once."""
    ledger, log, over = Ledger(), opened(fixture), Event()
    turns = [15, 40, None, None]  # after how many turns a reader goes

    def read(number: int, most: int | None) -> None:
        reader = Reader(member(fixture), ledger)
        done = 0
        while not over.is_set() and (most is None or done < most):
            done += 1
            if not reader.turn():
                over.wait(0.001)  # nothing there yet: let the others have the processor
        fixture.crash(reader.lane) if number % 2 else reader.lane.leave()

    def write() -> None:
        keys = fill(log)
        try:
            eventually(lambda: len(ledger.handled) >= len(keys) * 30, "all records are handled")
        finally:
            over.set()

    together(write, *(partial(read, number, most) for number, most in enumerate(turns)))
    check_handled(ledger, [key for partition in range(4) for key in keys_of(partition, 4, 4)])


def _hold_lanes(open_log: Callable[[], Log], told: Connection) -> None:
    log = open_log()
    log.ensure([LETTERS])
    lane = log.join("readers", ["letters"])
    told.send(eventually(lambda: lane.take(1, {}).assigned, "lanes are assigned"))
    Event().wait()


@lanes.scenario("several_processes")
def a_member_process_is_killed(fixture: LogFixture) -> None:
    """A kill of a member's process is found out like any death; processes share lanes."""
    lane = member(fixture)
    here, there = PROCESSES.Pipe()
    with processes(_hold_lanes, [(fixture.opener, there)]) as (other,):
        eventually(here.poll, "the other process has lanes")
        eventually(lambda: len(lane.take(1, {}).assigned) == 2, "the lanes are shared")
        other.kill()
        assert shared_out([lane]) == [ALL]
