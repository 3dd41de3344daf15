"""Minimal histories, each bad in one way, and its twin that is not bad."""

from __future__ import annotations

from collections.abc import Callable

from tests.conformance.story import TOPIC, Story, looked

Tale = Callable[[Story, bool], None]
TALES: list[tuple[str, Tale]] = []


def tale(name: str) -> Callable[[Tale], Tale]:
    """A history that is bad in one way, or, told with ``bad`` false, its clean twin."""

    def add(function: Tale) -> Tale:
        TALES.append((name, function))
        return function

    return add


@tale("lost-write")
def an_acknowledged_value_is_not_there(s: Story, bad: bool) -> None:
    s.append("a", "x")
    s.append("a", "y", kind="info" if not bad else "ok")
    s.append("a", "z")
    s.look("r", 0, "x", "z")


@tale("lost-write")
def later_offsets_are_enough(s: Story, bad: bool) -> None:
    s.append("a", "x")
    s.append("b", "y")
    if bad:
        s.look("r", 0, "y", more=True)
    else:
        s.look("r", 0, more=True)


@tale("lost-write")
def two_appends_were_acknowledged_and_one_is_there(s: Story, bad: bool) -> None:
    s.append("a", "x")
    s.append("a", "x", kind="ok" if bad else "info")
    s.look("r", 0, "x")


@tale("duplicate")
def one_append_lies_there_twice(s: Story, bad: bool) -> None:
    s.append("a", "x")
    if not bad:
        s.append("a", "x", kind="info")
    s.look("r", 0, "x", "x")


@tale("duplicate")
def one_append_lies_in_two_partitions(s: Story, bad: bool) -> None:
    s.append("a", "x", "y", partitions=(0, 1))
    s.look("r", 0, "x", partition=0)
    if bad:
        s.look("r", 0, "y", "x", partition=1)
    else:
        s.look("r", 0, "y", partition=1)


@tale("aborted-read")
def a_failed_append_is_read(s: Story, bad: bool) -> None:
    s.append("a", "x", kind="fail" if bad else "info")
    s.look("r", 0, "x")


@tale("unwritten-value")
def a_value_comes_from_nowhere(s: Story, bad: bool) -> None:
    s.append("a", "x")
    s.look("r", 0, "x", *(["y"] if bad else []))


@tale("misplaced-record")
def a_record_lies_in_another_partition(s: Story, bad: bool) -> None:
    s.append("a", "x", partitions=(1,))
    s.look("r", 0, "x", partition=0 if bad else 1)


@tale("inconsistent-offset")
def two_readers_see_two_values(s: Story, bad: bool) -> None:
    s.append("a", "x", "y")
    s.look("r", 0, "x", "y")
    s.look("q", 0, *(("y", "x") if bad else ("x", "y")))


@tale("inconsistent-offset")
def a_value_moves_between_reads(s: Story, bad: bool) -> None:
    s.append("a", "x", "y")
    s.look("r", 0, "x", "y")
    s.look("r", 1, "x" if bad else "y")


@tale("int-nonmonotonic-poll")
def a_take_goes_back(s: Story, bad: bool) -> None:
    s.append("a", "x", "y", "z")
    seen = ((TOPIC, 0, 0, "x"), (TOPIC, 0, 2, "z"), (TOPIC, 0, 1, "y"))
    begun = s.begin("w", "take", starts=((TOPIC, 0, 0),))
    s.end(begun, records=seen if bad else sorted(seen))


@tale("nonmonotonic-poll")
def a_take_serves_again_what_lies_before_its_position(s: Story, bad: bool) -> None:
    s.append("a", "x", "y")
    s.take("w", 0, "x", more=True)
    begun = s.begin("w", "take", starts=((TOPIC, 0, 1),))
    s.end(begun, **looked(0, "x", "y") if bad else looked(1, "y"))


@tale("nonmonotonic-poll")
def a_take_without_positions_goes_back(s: Story, bad: bool) -> None:
    s.append("a", "x", "y")
    for generation, start in ((1, 0), (1 if bad else 2, 0)):
        begun = s.begin("w", "take")
        s.end(begun, generation=generation, **looked(start, "x", "y"))


@tale("int-poll-skip")
def a_take_leaves_one_out(s: Story, bad: bool) -> None:
    s.append("a", "x", "y", "z")
    s.take("w", 0, "x", None if bad else "y", "z")
    s.look("r", 0, "x", "y", "z")


@tale("poll-skip")
def a_take_begins_too_late(s: Story, bad: bool) -> None:
    s.append("a", "x", "y")
    begun = s.begin("w", "take", starts=((TOPIC, 0, 0),))
    s.end(begun, **looked(1, "y") if bad else looked(0, "x", "y"))
    s.look("r", 0, "x", "y")


@tale("poll-skip")
def a_poll_jumps_in_its_generation(s: Story, bad: bool) -> None:
    s.append("a", "x", "y", "z")
    for generation, start, value in ((1, 0, "x"), (1 if bad else 2, 2, "z")):
        begun = s.begin("w", "take")
        s.end(begun, generation=generation, **looked(start, value, more=True))
    s.look("r", 0, "x", "y", "z")


@tale("stale-read")
def an_acknowledged_record_is_not_shown(s: Story, bad: bool) -> None:
    if bad:
        s.append("a", "x")
        s.take("w", 0)
    else:
        begun = s.appending("a", "x")
        s.take("w", 0)
        s.end(begun)
    s.look("r", 0, "x")


@tale("nonmonotonic-append")
def a_later_append_lies_before_an_earlier_one(s: Story, bad: bool) -> None:
    if bad:
        s.append("a", "x")
        s.append("b", "y")
    else:
        begun = s.appending("a", "x")
        s.append("b", "y")
        s.end(begun)
    s.look("r", 0, "y", "x")


@tale("int-nonmonotonic-append")
def an_append_keeps_its_own_order(s: Story, bad: bool) -> None:
    s.append("a", "x", "y")
    s.look("r", 0, *(("y", "x") if bad else ("x", "y")))


@tale("torn-write")
def half_of_an_unknown_append_is_there(s: Story, bad: bool) -> None:
    s.append("a", "x", "y", kind="info", partitions=(0, 1))
    s.look("r", 0, "x", partition=0)
    s.look("r", 0, *(() if bad else ("y",)), partition=1)


@tale("G0")
def two_appends_lie_in_both_orders(s: Story, bad: bool) -> None:
    one = s.appending("a", "x", "X", partitions=(0, 1))
    two = s.appending("b", "y", "Y", partitions=(0, 1))
    s.end(one)
    s.end(two)
    s.look("r", 0, "x", "y", partition=0)
    s.look("r", 0, *(("Y", "X") if bad else ("X", "Y")), partition=1)


@tale("G0")
def a_store_numbers_commits_against_the_log(s: Story, bad: bool) -> None:
    one = s.committing("v", 1, 0, appends=((TOPIC, 1, "x"),))
    two = s.committing("w", 2, 0, appends=((TOPIC, 1, "y"),))
    s.end(one, txn=2 if bad else 1)
    s.end(two, txn=1 if bad else 2)
    s.look("r", 0, "x", "y", partition=1)


@tale("G1a")
def a_rolled_back_commit_is_read(s: Story, bad: bool) -> None:
    s.commit("w", 1, 0, appends=((TOPIC, 1, "x"),), kind="fail" if bad else "ok")
    s.look("r", 0, "x", partition=1)


@tale("G1b")
def half_of_a_commit_is_the_end(s: Story, bad: bool) -> None:
    begun = s.committing("w", 1, 0, appends=((TOPIC, 1, "x"), (TOPIC, 1, "y")))
    s.look("r", 0, "x", partition=1, more=not bad)
    s.end(begun, txn=1)
    s.look("r", 0, "x", "y", partition=1)


@tale("G1c")
def two_commits_read_each_other(s: Story, bad: bool) -> None:
    one = s.committing("v", 1, 0, "x", appends=((TOPIC, 1, "y"),))
    two = s.committing(
        "w", 1, 0, "y", appends=((TOPIC, 0, "x"),) if bad else (),
        moves=((TOPIC, 1, 0, 1),), records=((TOPIC, 1, 0, "y"),), owners=((1, 1),),
    )
    if not bad:
        s.append("a", "x")
    s.end(one)
    s.end(two)


@tale("G1c-realtime")
def a_value_is_read_before_it_is_appended(s: Story, bad: bool) -> None:
    if bad:
        s.look("r", 0, "x")
    s.append("a", "x")
    s.look("r", 0, "x")


def two_looks(s: Story, bad: bool, first: str, second: str) -> None:
    """The second look misses what lies before that which the first one saw."""
    one = s.appending("a", "x", "X", partitions=(0, 2))
    two = s.appending("b", "y", "Y", partitions=(1, 2))
    s.look(first, 0, "y", partition=1)
    s.look(second, 0, *(() if bad else ("x",)), partition=0)
    s.end(two)
    s.end(one)
    s.look("q", 0, "x", partition=0)
    s.look("q", 0, "X", "Y", partition=2)


@tale("G-single-process")
def a_reader_looks_back_in_time(s: Story, bad: bool) -> None:
    two_looks(s, bad, "r", "r")


@tale("G-single-realtime")
def a_later_reader_looks_back_in_time(s: Story, bad: bool) -> None:
    two_looks(s, bad, "r", "p")


@tale("G2-process")
def two_readers_miss_one_of_two_each(s: Story, bad: bool) -> None:
    """A long fork: each reader saw the one append and then not the other."""
    one, two = s.appending("a", "x"), s.appending("b", "y", partitions=(1,))
    s.look("p", 0, "x")
    s.look("q", 0, "y", partition=1)
    s.look("p", 0, *(() if bad else ("y",)), partition=1)
    s.look("q", 0, *(() if bad else ("x",)))
    s.end(one)
    s.end(two)


@tale("stale-commit")
def an_older_epoch_commits(s: Story, bad: bool) -> None:
    s.append("a", "x", "y")
    s.claim("v", 1)
    s.commit("v", 1, 0, "x")
    s.claim("w", 2, 1)
    s.commit("v" if bad else "w", 1 if bad else 2, 1, "y")


@tale("stale-commit")
def a_commit_under_way_with_a_claim_is_not_seen_by_it(s: Story, bad: bool) -> None:
    s.append("a", "x", "y")
    s.claim("v", 1)
    s.commit("v", 1, 0, "x")
    begun = s.committing("v", 1, 1, "y")
    s.claim("w", 2, 1 if bad else 2)
    s.end(begun, txn=9)


@tale("epoch-regress")
def an_epoch_is_given_twice(s: Story, bad: bool) -> None:
    s.claim("v", 1)
    s.claim("w", 1 if bad else 2)


@tale("epoch-regress")
def an_epoch_falls(s: Story, bad: bool) -> None:
    s.claim("v", 2 if bad else 1)
    s.claim("w", 1 if bad else 2)


@tale("position-regress")
def a_claim_goes_back(s: Story, bad: bool) -> None:
    s.append("a", "x")
    s.claim("v", 1)
    s.commit("v", 1, 0, "x")
    s.claim("w", 2, 0 if bad else 1)


@tale("position-regress")
def a_commit_goes_back(s: Story, bad: bool) -> None:
    s.append("a", "x", "y")
    s.claim("v", 1)
    s.commit("v", 1, 0, "x", "y")
    s.commit("v", 1, 1 if bad else 2, records=((TOPIC, 0, 1, "y"),) if bad else ())


@tale("position-ahead")
def a_position_passes_what_was_not_handled(s: Story, bad: bool) -> None:
    s.append("a", "x", "y")
    s.claim("v", 1)
    s.commit("v", 1, 0, "x", stop=2 if bad else 1)
    s.look("r", 0, "x", "y")


@tale("position-ahead")
def a_record_is_passed_as_handled_and_nobody_did(s: Story, bad: bool) -> None:
    s.append("a", "x", "y")
    s.claim("v", 1)
    s.commit("v", 1, 0, "x", "y", marks=("x",), waits=() if bad else ("y",))


@tale("position-ahead")
def a_claim_goes_on_where_nobody_was(s: Story, bad: bool) -> None:
    s.append("a", "x", "y")
    s.claim("v", 1)
    s.commit("v", 1, 0, "x")
    if not bad:
        s.commit("v", 1, 1, "y", kind="info")
    s.claim("w", 2, 2)


@tale("handled-twice")
def a_value_is_marked_twice(s: Story, bad: bool) -> None:
    s.append("a", "x")
    s.append("a", "x", kind="info")
    s.claim("v", 1)
    s.commit("v", 1, 0, "x", "x", marks=("x", "x") if bad else ("x",))


@tale("handled-twice")
def a_value_is_marked_by_two_commits(s: Story, bad: bool) -> None:
    s.append("a", "x")
    s.append("a", "x", kind="info")
    s.claim("v", 1)
    s.commit("v", 1, 0, "x")
    s.commit("v", 1, 1, "x", marks=("x",) if bad else ())
