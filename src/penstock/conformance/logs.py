"""What every log must do: records, order, reading, bounds. (Groups: ``lanes``, trouble:
``mishaps``.)

A backend's test file makes a :class:`LogFixture` and runs ``log_scenarios(features)``, each a
function of the fixture. A scenario that needs what the ``Features`` deny is not in that list.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from penstock.conformance.scenario import (
    NOW,
    Suite,
    eventually,
    finished,
    keys_of,
    message,
    processes,
    refused,
    together,
)
from penstock.errors import Conflict, OutsideLog
from penstock.event import Message, Record, partition_of
from penstock.limits import ROW_BYTES_MAX, ROW_RECORDS_MAX, VALUE_BYTES_MAX
from penstock.ports import Extent, Features, Lane, Log, Taken, TopicSpec

OWNER = "writer"  # the producing service of LETTERS and REPLIES
LETTERS = TopicSpec(name="letters", partitions=4, owner_file=OWNER)
REPLIES = TopicSpec(name="replies", partitions=4, owner_file=OWNER)
NOTICES = TopicSpec(name="notices", partitions=4)  # a topic with several producers
TOPICS = (LETTERS, REPLIES, NOTICES)


class LogFixture(Protocol):
    """One log of the backend under test, empty at first.

    ``opener`` opens the same log in another process (picklable); None where there is none.
    """

    features: Features
    opener: Callable[[], Log] | None

    def open(self) -> Log:
        """Another handle on the log, used by one thread."""

    def restart(self) -> None:
        """Let go of all handles, as the end of the process would."""

    def crash(self, lane: Lane) -> None:
        """Let the member die without a word."""

    def tear(self, unfinished: Callable[[Log], None], share: float) -> Log:
        """Let ``unfinished`` write, cut what it wrote to ``share`` of it, reopen after that."""

    def flip(self, topic: str, partition: int, offset: int) -> None:
        """Flip one bit in the stored body of the row that holds ``offset``."""


records = Suite[LogFixture]()


def opened(fixture: LogFixture, *specs: TopicSpec) -> Log:
    """A handle with the suite's topics, or those given, ensured."""
    log = fixture.open()
    log.ensure(specs or TOPICS)
    return log


def read_all(log: Log, topic: str, partition: int, limit: int = 100) -> list[Record]:
    """Every retained record of a partition, read piece by piece."""
    start, next_ = log.extent(topic)[partition]
    found: list[Record] = []
    while start < next_:
        piece = log.read(topic, partition, start, limit)
        assert piece, f"nothing to read at {start} before {next_}"
        found += piece
        start = piece[-1].offset + 1
    return found


def whole_topic(log: Log, topic: str) -> list[Record]:
    """Every retained record of a topic, partition by partition."""
    return [r for p in range(len(log.extent(topic))) for r in read_all(log, topic, p)]


def numbered(key: str, count: int, start: int = 0) -> list[Message]:
    """Messages of one key whose values are their numbers."""
    return [message(key, str(n)) for n in range(start, start + count)]


def numbers(found: Sequence[Record], key: str) -> list[int]:
    """The numbers of a key's records, in the order read."""
    return [int(r.message.value) for r in found if r.message.key == key]


@records.scenario()
def keeps_order_in_a_partition(fixture: LogFixture) -> None:
    """Records of a key come back in the order of their appends, offsets without a gap."""
    log = opened(fixture)
    for n in range(20):
        log.append("letters", [message(f"k{k}", str(n)) for k in range(8)], NOW + n)
    for partition in range(4):
        found = read_all(log, "letters", partition)
        assert [r.offset for r in found] == list(range(len(found)))
        for key in {r.message.key for r in found}:
            assert numbers(found, key) == list(range(20))


@records.scenario()
def puts_a_key_where_every_client_puts_it(fixture: LogFixture) -> None:
    """The partition is that of the key's hash, and the record knows its place."""
    log = opened(fixture)
    log.append("letters", [message(f"k{n}") for n in range(64)], NOW)
    found = whole_topic(log, "letters")
    assert len(found) == 64
    assert all(r.partition == partition_of(r.message.key, 4) for r in found)
    assert {r.topic for r in found} == {"letters"}
    assert len({r.position for r in found}) == 64


@records.scenario("given_time")
def records_have_the_time_given(fixture: LogFixture) -> None:
    """Appended-at is what the caller says it is."""
    log = opened(fixture)
    log.append("letters", [message(f"k{n}") for n in range(64)], NOW)
    assert {r.appended_at for r in whole_topic(log, "letters")} == {NOW}


@records.scenario()
def carries_the_envelope(fixture: LogFixture) -> None:
    """Key, value, ids, type, version, times, trace, source and notes come back as they went."""
    log = opened(fixture)
    sent = Message(
        key="Straße 7/ü", value=b'{"a": "\xc3\xa9"}\x00\xff', id=bytes(range(16)), type="a.sent",
        version=3, at=NOW - 5, cause=bytes(16), trace="00-" + "ab" * 16, source="/desk",
        notes={"x-note": "ä", "empty": ""},
    )
    bare = message("plain")
    log.append("letters", [sent, bare], NOW)
    found = {r.message.key: r.message for r in whole_topic(log, "letters")}
    assert found == {sent.key: sent, "plain": bare}


@records.scenario()
def nobody_can_edit_what_was_appended(fixture: LogFixture) -> None:
    """Notes changed by the sender or by a reader afterwards change nothing in the log."""
    log, notes = opened(fixture), {"who": "sender"}
    log.append("letters", [message("k0", notes=notes)], NOW)
    notes["who"] = "changed by the sender"
    read = whole_topic(log, "letters")[0].message.notes
    assert read == {"who": "sender"}
    read["who"] = "changed by a reader"
    assert whole_topic(log, "letters")[0].message.notes == {"who": "sender"}


@records.scenario()
def takes_large_and_empty_values(fixture: LogFixture) -> None:
    """Values of 8 MiB, of one byte and of none, keys of 255 characters, all in one append."""
    log = opened(fixture)
    large = bytes(range(256)) * (VALUE_BYTES_MAX // 256)
    sent = [message("k0", large), message("k0", b""), message("k0", b"x"), message("ö" * 255, b"")]
    log.append("letters", sent, NOW)
    found = [r.message for r in whole_topic(log, "letters")]
    assert [m for m in found if m.key == "k0"] == sent[:3]
    assert [m for m in found if m.key != "k0"] == sent[3:]


@records.scenario()
def takes_batches_larger_than_a_row(fixture: LogFixture) -> None:
    """An append of more records, or more bytes, than one row holds keeps all and their order."""
    log, count = opened(fixture), 2 * ROW_RECORDS_MAX + 7
    log.append("letters", numbered("k0", count), NOW)
    thick = bytes(ROW_BYTES_MAX // 3)
    log.append("replies", [message("k0", thick + bytes([n])) for n in range(8)], NOW)
    assert numbers(whole_topic(log, "letters"), "k0") == list(range(count))
    assert [r.message.value[-1] for r in whole_topic(log, "replies")] == list(range(8))


@records.scenario()
def an_append_of_nothing_is_nothing(fixture: LogFixture) -> None:
    """An empty batch changes no extent."""
    log = opened(fixture)
    log.append("letters", [], NOW)
    assert log.extent("letters") == [Extent(0, 0)] * 4


@records.scenario()
def a_repeat_appends_again(fixture: LogFixture) -> None:
    """The log does not look at ids: duplicates are found by marks."""
    log = opened(fixture)
    for _ in range(3):
        log.append("letters", [message("k0", id=bytes(16))], NOW)
    assert len(whole_topic(log, "letters")) == 3


@records.scenario()
def commits_back_to_back(fixture: LogFixture) -> None:
    """Three hundred small appends in a row, every one read back at once by another handle."""
    log, reader = opened(fixture), opened(fixture)
    (key,), partition = keys_of(2, 4), 2
    for n in range(300):
        log.append("letters", [message(key, str(n))], NOW)
        (record,) = reader.read("letters", partition, n, 10)
        assert (record.offset, record.message.value) == (n, b"%d" % n)


@records.scenario()
def topics_are_apart(fixture: LogFixture) -> None:
    """What goes to one topic is in no other, whoever's file holds them."""
    log = opened(fixture)
    for topic in ("letters", "replies", "notices"):
        log.append(topic, [message("k0", topic)], NOW)
    for topic in ("letters", "replies", "notices"):
        assert [r.message.value for r in whole_topic(log, topic)] == [topic.encode()]


@records.scenario()
def reads_a_range_from_anywhere(fixture: LogFixture) -> None:
    """Any offset can be the start, one inside a row included; a limit is soft by one row only."""
    log, (key,) = opened(fixture), keys_of(1, 4)
    for start in range(0, 60, 6):
        log.append("letters", numbered(key, 6, start), NOW)
    for start in range(60):
        found = log.read("letters", 1, start, 5)
        assert [r.offset for r in found] == list(range(start, start + len(found)))
        assert 1 <= len(found) <= 5 + 6
    assert log.read("letters", 1, 60, 5) == []


@records.scenario()
def refuses_what_lies_outside(fixture: LogFixture) -> None:
    """A start after the next offset, or in a partition still empty, raises and names the range."""
    log, (key,) = opened(fixture), keys_of(1, 4)
    log.append("letters", numbered(key, 3), NOW)
    error = refused(OutsideLog, log.read, "letters", 1, 4, 10)
    assert (error.topic, error.partition, error.offset) == ("letters", 1, 4)
    assert (error.first, error.next) == (0, 3)
    refused(OutsideLog, log.read, "letters", 0, 1, 10)
    assert log.read("letters", 0, 0, 10) == []


@records.scenario()
def reading_touches_no_group(fixture: LogFixture) -> None:
    """A ranged read neither joins, nor moves, nor takes anything from a group's members."""
    log = opened(fixture)
    log.append("letters", [message(f"k{n}") for n in range(40)], NOW)
    lane = opened(fixture).join("readers", ["letters"])
    before = eventually(lambda: t if (t := lane.take(10, {})).assigned else None, "has lanes")
    assert whole_topic(log, "letters") == whole_topic(log, "letters")

    def everything() -> Taken | None:
        taken = lane.take(100, {("letters", p): 0 for p in range(4)})
        return taken if len(taken.records) == 40 else None

    after = eventually(everything, "all records are taken")
    assert before is not None
    assert after is not None
    assert (after.generation, after.assigned) == (before.generation, before.assigned)


@records.scenario()
def finds_offsets_by_time(fixture: LogFixture) -> None:
    """``extent(since)`` finds the earliest offset appended at or after a time, whoever's it is."""
    log, (key,) = opened(fixture), keys_of(3, 4)
    for n in range(12):
        log.append("letters", numbered(key, 2, 2 * n), NOW + 100 * n)
    times = [r.appended_at for r in read_all(log, "letters", 3)]
    assert times == sorted(times)
    for since in {t + d for t in times for d in (-1, 0, 1)}:
        first = next((offset for offset, at in enumerate(times) if at >= since), 24)
        assert log.extent("letters", since)[3] == Extent(first, 24)
    assert log.extent("letters", times[0])[0] == Extent(0, 0)


@records.scenario("given_time")
def reads_by_time(fixture: LogFixture) -> None:
    """``extent(since)`` finds the earliest offset appended at or after a time."""
    log, (key,) = opened(fixture), keys_of(3, 4)
    for n in range(10):
        log.append("letters", numbered(key, 2, 2 * n), NOW + 100 * (n // 2))
    assert log.extent("letters", NOW - 1)[3] == Extent(0, 20)
    assert log.extent("letters", NOW)[3] == Extent(0, 20)
    assert log.extent("letters", NOW + 1)[3] == Extent(4, 20)
    assert log.extent("letters", NOW + 100)[3] == Extent(4, 20)
    assert log.extent("letters", NOW + 400)[3] == Extent(16, 20)
    assert log.extent("letters", NOW + 401)[3] == Extent(20, 20)
    assert log.extent("letters", NOW)[0] == Extent(0, 0)


@records.scenario("given_time")
def append_time_never_goes_back(fixture: LogFixture) -> None:
    """Where the clock went back, a partition's latest append time is kept instead."""
    log, (key,), (other,) = opened(fixture), keys_of(0, 4), keys_of(1, 4)
    for now in (NOW, NOW - 5000, NOW + 10, NOW + 9, NOW + 11):
        log.append("letters", [message(key)], now)
    log.append("letters", [message(other)], NOW - 7000)
    times = [r.appended_at for r in read_all(log, "letters", 0)]
    assert times == [NOW, NOW, NOW + 10, NOW + 10, NOW + 11]
    assert [r.appended_at for r in read_all(log, "letters", 1)] == [NOW - 7000]
    assert log.extent("letters", NOW + 10)[0] == Extent(2, 5)


@records.scenario()
def ensure_repeats_and_refuses_another_count(fixture: LogFixture) -> None:
    """Making a topic again changes nothing; another partition count is refused."""
    log = opened(fixture)
    log.append("letters", [message("k0")], NOW)
    log.ensure([LETTERS])
    doubled = TopicSpec(name="letters", partitions=8, owner_file=OWNER)
    refused(Conflict, opened(fixture).ensure, [doubled])
    assert len(whole_topic(opened(fixture), "letters")) == 1


@records.scenario()
def one_partition_is_enough(fixture: LogFixture) -> None:
    """A topic of one partition keeps all keys in one order."""
    log = opened(fixture, TopicSpec(name="single", partitions=1, owner_file=OWNER))
    log.append("single", [message(f"k{n}", str(n)) for n in range(50)], NOW)
    assert [int(r.message.value) for r in read_all(log, "single", 0)] == list(range(50))


def _produce(open_log: Callable[[], Log], producer: str, batches: int) -> None:
    log = open_log()
    log.ensure(TOPICS)
    for n in range(batches):
        log.append("notices", [message(f"{producer}-{k}", str(n)) for k in range(8)], NOW + n)


def _check_produced(log: Log, producers: Sequence[str], batches: int) -> None:
    found = whole_topic(log, "notices")
    count = Counter(r.message.key for r in found)
    assert count == {f"{p}-{k}": batches for p in producers for k in range(8)}
    assert all(numbers(found, key) == list(range(batches)) for key in count)
    assert [e.next for e in log.extent("notices")] == [
        sum(r.partition == p for r in found) for p in range(4)
    ]


@records.scenario()
def many_producers_share_a_topic(fixture: LogFixture) -> None:
    """Threads append at once: nothing lost, nothing twice, each producer's order kept."""
    log, producers = opened(fixture), [f"thread{n}" for n in range(6)]
    together(*(partial(_produce, fixture.open, name, 25) for name in producers))
    _check_produced(log, producers, 25)


@records.scenario("several_processes")
def several_processes_share_a_topic(fixture: LogFixture) -> None:
    """Processes append at once: nothing lost, nothing twice, each producer's order kept."""
    log, producers = opened(fixture), ["here", "there", "elsewhere"]
    calls = [(fixture.opener, name, 40) for name in producers[1:]]
    with processes(_produce, calls) as started:
        _produce(fixture.open, "here", 40)
        finished(started)
    _check_produced(log, producers, 40)


@records.scenario()
def a_reader_sees_a_log_that_only_grows(fixture: LogFixture) -> None:
    """Reading while another appends shows each partition as it was before, and more behind."""
    keys = [keys_of(partition, 4)[0] for partition in range(4)]
    done: list[bool] = []
    opened(fixture)

    def write() -> None:
        log = opened(fixture)
        for n in range(60):
            log.append("letters", [m for k in keys for m in numbered(k, 3, 3 * n)], NOW)
        done.append(True)

    def watch() -> None:
        log, seen = opened(fixture), [0] * 4
        while not done:
            for partition, key in enumerate(keys):
                found = numbers(read_all(log, "letters", partition), key)
                assert found == list(range(len(found))), "a record came in between"
                assert len(found) >= seen[partition], "a record was there and is gone"
                seen[partition] = len(found)

    together(write, watch)


@records.scenario("whole_appends")
def a_reader_sees_whole_appends_only(fixture: LogFixture) -> None:
    """Reading while another appends shows a prefix of the log, each partition's chunk whole."""
    keys = [keys_of(partition, 4)[0] for partition in range(4)]
    done: list[bool] = []
    opened(fixture)

    def write() -> None:
        log = opened(fixture)
        for n in range(60):
            log.append("letters", [message(k, f"{n}") for k in keys for _ in range(3)], NOW)
        done.append(True)

    def watch() -> None:
        log, order = opened(fixture), [0, 1, 2, 3]
        while not done:
            # A later look sees at least as much as an earlier one, whichever comes first.
            order.reverse()
            lengths = [len(read_all(log, "letters", partition)) for partition in order]
            assert all(length % 3 == 0 for length in lengths)
            assert lengths == sorted(lengths), "half of an append was visible"

    together(write, watch)
