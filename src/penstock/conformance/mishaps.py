"""What every log must survive: restarts, torn ends, flipped bits, kills, and its own retention."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from random import Random

from penstock.conformance.logs import (
    LETTERS,
    NOTICES,
    OWNER,
    LogFixture,
    numbered,
    numbers,
    opened,
    read_all,
    whole_topic,
)
from penstock.conformance.scenario import (
    NOW,
    Suite,
    eventually,
    keys_of,
    message,
    processes,
    refused,
)
from penstock.errors import Corrupt, OutsideLog
from penstock.ports import Extent, Log, TopicSpec

mishaps = Suite[LogFixture]()
DATED = TopicSpec(name="dated", partitions=4, owner_file=OWNER, retention_seconds=10)
SIZED = TopicSpec(name="sized", partitions=4, owner_file=OWNER, retention_bytes=64_000)
DICE_SEED = 7
AFTER = NOW + 60_000  # when all of a scenario's records are past the age bound


@mishaps.scenario("survives_restart")
def a_restart_keeps_everything(fixture: LogFixture) -> None:
    """Records, places, times and offsets are there after a restart, and go on from there."""
    log = opened(fixture)
    for n in range(5):
        log.append("letters", [message(f"k{k}", str(n), notes={"n": "x"}) for k in range(9)], NOW)
    before = whole_topic(log, "letters")
    for round_ in range(3):
        fixture.restart()
        log = opened(fixture)
        assert whole_topic(log, "letters") == before
        log.append("notices", numbered("k1", 1, round_), NOW)
    assert numbers(whole_topic(log, "notices"), "k1") == [0, 1, 2]


@mishaps.scenario("survives_restart", "given_time")
def a_restart_keeps_append_time_rising(fixture: LogFixture) -> None:
    """A clock that went back over a restart does not make append times fall."""
    opened(fixture).append("letters", [message("k0")], NOW)
    fixture.restart()
    log = opened(fixture)
    log.append("letters", [message("k0")], NOW - 1000)
    assert [r.appended_at for r in whole_topic(log, "letters")] == [NOW, NOW]


@mishaps.scenario("torn_tail")
def a_torn_end_loses_nothing_acknowledged(fixture: LogFixture) -> None:
    """Wherever a write was cut off, all before it is there, of it all or nothing, and on it
    goes."""
    (key,) = keys_of(1, 4)
    log = opened(fixture)
    for n in range(10):
        log.append("letters", numbered(key, 3, 3 * n), NOW)

    def unfinished(log: Log) -> None:
        log.append("letters", numbered(key, 500, 30), NOW)

    for share in (0.0, 0.01, 0.3, 0.5, 0.9, 0.999, 1.0):
        torn = fixture.tear(unfinished, share)
        torn.ensure([LETTERS])
        found = numbers(read_all(torn, "letters", 1), key)
        assert found in (list(range(30)), list(range(530)))
        torn.append("letters", numbered(key, 1, 999), NOW)
        assert numbers(read_all(torn, "letters", 1), key) == [*found, 999]


@mishaps.scenario("torn_tail")
def a_flipped_bit_is_refused(fixture: LogFixture) -> None:
    """A row whose stored bytes changed raises, to whoever reads it; the rows before it and the
    other partitions are still read."""
    log, (key,), (other,) = opened(fixture), keys_of(1, 4), keys_of(2, 4)
    for n in range(3):
        log.append("letters", numbered(key, 10, 10 * n), NOW)
    log.append("letters", [message(other)], NOW)
    fixture.flip("letters", 1, 15)
    log = opened(fixture)
    assert numbers(log.read("letters", 1, 0, 10), key) == list(range(10))
    refused(Corrupt, log.read, "letters", 1, 0, 100)
    refused(Corrupt, log.read, "letters", 1, 15, 1)
    refused(Corrupt, log.join("readers", ["letters"]).take, 10, {("letters", 1): 10})
    assert len(read_all(log, "letters", 2)) == 1


@mishaps.scenario("torn_tail")
def a_flipped_bit_of_a_single_record_is_refused(fixture: LogFixture) -> None:
    """The same where the row is one uncompressed record."""
    log, (key,) = opened(fixture), keys_of(3, 4)
    log.append("letters", [message(key, "a value long enough to be hit by the flip")], NOW)
    fixture.flip("letters", 3, 0)
    refused(Corrupt, opened(fixture).read, "letters", 3, 0, 1)


def _append_for_ever(open_log: Callable[[], Log], keys: Sequence[str]) -> None:
    log = open_log()
    log.ensure([NOTICES])
    number = 0
    while True:
        log.append("notices", [message(key, str(number)) for key in keys], NOW)
        number += 1


def _holds(log: Log, count: int) -> bool:
    return sum(extent.next for extent in log.extent("notices")) >= count


@mishaps.scenario("several_processes")
def a_killed_producer_leaves_no_gap(fixture: LogFixture) -> None:
    """A kill in the middle of appending leaves each partition's messages up to some one of them,
    and nobody else waits for the dead."""
    keys = [key for partition in range(4) for key in keys_of(partition, 4, 20)]
    log = opened(fixture)
    enough = 400
    with processes(_append_for_ever, [(fixture.opener, keys)]) as (producer,):
        eventually(partial(_holds, log, enough), "the other process appends")
        producer.kill()
        producer.join()
    log.append("notices", [message(key, "-1") for key in keys], NOW)
    for partition in range(4):
        found = read_all(log, "notices", partition)
        counts = [len(numbers(found, key)) for key in keys_of(partition, 4, 20)]
        for key, count in zip(keys_of(partition, 4, 20), counts, strict=True):
            assert numbers(found, key) == [*range(count - 1), -1]
        assert sorted(counts, reverse=True) == counts, "a later message is there without earlier"
        assert max(counts) - min(counts) <= 1


@mishaps.scenario("several_processes", "whole_appends")
def a_killed_producer_leaves_whole_appends(fixture: LogFixture) -> None:
    """A kill in the middle of appending leaves each append whole or not there at all, and
    nobody else waits for the dead."""
    keys = [key for partition in range(4) for key in keys_of(partition, 4, 20)]
    log = opened(fixture)
    for _ in range(3):
        enough = sum(extent.next for extent in log.extent("notices")) + 400
        with processes(_append_for_ever, [(fixture.opener, keys)]) as (producer,):
            eventually(partial(_holds, log, enough), "the other process appends")
            producer.kill()
            producer.join()
        log.append("notices", [message(key, "-1") for key in keys], NOW)
        found = whole_topic(log, "notices")
        assert len({tuple(numbers(found, key)) for key in keys}) == 1


def _dated(log: Log, count: int = 6) -> None:
    """Each partition has ``count`` rows of two records, one row a second."""
    keys = [keys_of(partition, 4)[0] for partition in range(4)]
    for n in range(count):
        log.append("dated", [m for key in keys for m in numbered(key, 2, 2 * n)], NOW + 1000 * n)


def _floors(offset: int) -> Mapping[int, int]:
    return dict.fromkeys(range(4), offset)


def _retain(log: Log, topic: str, floors: Mapping[int, int], now: int) -> int:
    """Retention until there is nothing left to drop: each call does bounded work."""
    total = 0
    while dropped := log.retain(topic, floors, now):
        total += dropped
    return total


@mishaps.scenario("retention")
def age_drops_what_is_old(fixture: LogFixture) -> None:
    """Rows older than the bound go, the younger ones stay as they are."""
    log = opened(fixture, DATED)
    _dated(log)
    kept = [r for r in whole_topic(log, "dated") if r.offset >= 6]
    assert _retain(log, "dated", _floors(12), NOW + 12_500) == 4 * 6
    assert log.extent("dated") == [Extent(6, 12)] * 4
    assert whole_topic(log, "dated") == kept
    assert _retain(log, "dated", _floors(12), NOW + 12_500) == 0


@mishaps.scenario("retention")
def retention_spares_what_a_reader_still_needs(fixture: LogFixture) -> None:
    """Nothing at or past a floor goes, however old, and no row is cut in two for it."""
    log = opened(fixture, DATED)
    _dated(log)
    assert _retain(log, "dated", _floors(0), AFTER) == 0
    assert _retain(log, "dated", {0: 4, 1: 5, 2: 6, 3: 0}, AFTER) == 4 + 4 + 6
    assert [extent.first for extent in log.extent("dated")] == [4, 4, 6, 0]


@mishaps.scenario("retention")
def the_newest_row_stays(fixture: LogFixture) -> None:
    """However old all is, each partition keeps its newest row, so its next offset is known."""
    log = opened(fixture, DATED)
    _dated(log)
    assert _retain(log, "dated", _floors(12), AFTER) == 4 * 10
    assert log.extent("dated") == [Extent(10, 12)] * 4
    _dated(log, 1)
    assert log.extent("dated") == [Extent(10, 14)] * 4


@mishaps.scenario("retention", "survives_restart")
def offsets_go_on_after_retention_and_a_restart(fixture: LogFixture) -> None:
    """No offset is ever given twice."""
    log = opened(fixture, DATED)
    _dated(log)
    _retain(log, "dated", _floors(12), AFTER)
    fixture.restart()
    log = opened(fixture, DATED)
    assert log.extent("dated") == [Extent(10, 12)] * 4
    _dated(log, 1)
    assert [r.offset for r in read_all(log, "dated", 0)] == [10, 11, 12, 13]


@mishaps.scenario("retention")
def what_retention_dropped_is_outside(fixture: LogFixture) -> None:
    """A start before the first retained offset raises, a lane's position is told as outside."""
    log = opened(fixture, DATED)
    _dated(log)
    _retain(log, "dated", _floors(8), AFTER)
    error = refused(OutsideLog, log.read, "dated", 0, 7, 10)
    assert (error.first, error.next) == (8, 12)
    assert len(log.read("dated", 0, 8, 10)) == 4
    lane = log.join("readers", ["dated"])
    taken = lane.take(100, {("dated", 0): 7, ("dated", 1): 8})
    assert taken.outside == {("dated", 0): Extent(8, 12)}
    assert {r.partition for r in taken.records} == {1}


@mishaps.scenario("retention")
def a_position_passed_while_reading_is_outside(fixture: LogFixture) -> None:
    """Retention that passes a position in use stops its lane there: it never skips."""
    log = opened(fixture, DATED)
    _dated(log)
    lane, wanted = log.join("readers", ["dated"]), {("dated", 0): 2}
    assert [r.offset for r in lane.take(100, wanted).records] == list(range(2, 12))
    _retain(log, "dated", _floors(12), AFTER)
    taken = lane.take(100, wanted)
    assert (list(taken.records), taken.outside) == ([], {("dated", 0): Extent(10, 12)})


@mishaps.scenario("retention")
def reading_by_time_starts_at_what_is_left(fixture: LogFixture) -> None:
    """A time before the first retained record finds the first retained record."""
    log = opened(fixture, DATED)
    _dated(log)
    _retain(log, "dated", _floors(8), AFTER)
    assert log.extent("dated", NOW) == [Extent(8, 12)] * 4
    assert log.extent("dated", NOW + 5000) == [Extent(10, 12)] * 4


@mishaps.scenario("retention")
def without_a_bound_nothing_goes(fixture: LogFixture) -> None:
    """A topic without bounds keeps all, and one topic's retention leaves the others alone."""
    log = opened(fixture)
    log.append("letters", numbered("k0", 20), NOW)
    log.append("letters", numbered("k0", 20), NOW)
    assert _retain(log, "letters", {}, NOW + 10**12) == 0
    log.ensure([DATED])
    _dated(log)
    assert _retain(log, "dated", {}, AFTER) > 0
    assert len(whole_topic(log, "letters")) == 40


def _sized(log: Log, count: int = 40) -> None:
    """Each partition has ``count`` rows of 1,000 bytes that no compression makes smaller."""
    keys, dice = [keys_of(partition, 4)[0] for partition in range(4)], Random(DICE_SEED)
    for n in range(count):
        log.append("sized", [message(key, dice.randbytes(1000)) for key in keys], NOW + n)


@mishaps.scenario("retention")
def size_drops_what_is_too_much(fixture: LogFixture) -> None:
    """Rows over the bound go, the oldest of all partitions first, and no more than needed."""
    log = opened(fixture, SIZED)
    _sized(log)
    assert _retain(log, "sized", _floors(40), NOW) > 0
    left = whole_topic(log, "sized")
    assert 50_000 < sum(len(r.message.value) for r in left) <= 64_000
    firsts = [extent.first for extent in log.extent("sized")]
    assert max(firsts) - min(firsts) <= 1, f"the partitions lost unequally: {firsts}"


@mishaps.scenario("retention")
def size_spares_what_a_reader_still_needs(fixture: LogFixture) -> None:
    """A floor wins over the size bound; the excess is taken where it may be."""
    log = opened(fixture, SIZED)
    _sized(log)
    _retain(log, "sized", {0: 0, 1: 3, 2: 40, 3: 40}, NOW)
    firsts = [extent.first for extent in log.extent("sized")]
    assert firsts[:2] == [0, 3]
    assert max(firsts[2:]) <= 39
    assert sum(len(r.message.value) for r in whole_topic(log, "sized")) <= 80_000
