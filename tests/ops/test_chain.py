"""The judge of the chain finds each crime, names its place, and lets an honest journal be."""

from __future__ import annotations

from hashlib import sha256

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from penstock.entry import Entry, Head, end_of, link_of, linked
from penstock.event import Message, Record, partition_of
from penstock.ops.chain import Checkpoint, Verdict, judge
from tests.ops.journals import NOW, PARTITIONS, chain, edited, laid, message, wish

ENTRIES = chain(40)
HEAD = end_of(ENTRIES[-1])
SEEN = [Checkpoint(e.seq, e.hash, e.at) for e in ENTRIES[9::10]]


def verdict(
    partitions: list[list[Record]], head: Head | None = HEAD, seen: list[Checkpoint] = SEEN
) -> Verdict:
    """What the judge says."""
    return judge(partitions, PARTITIONS, head, seen)


def kinds(found: Verdict) -> list[tuple[str, int]]:
    """Kinds and numbers of the flaws."""
    return [(flaw.kind, flaw.seq) for flaw in found.flaws]


def honest() -> list[list[Record]]:
    """The journal as it is."""
    return laid(map(message, ENTRIES))


def where(partitions: list[list[Record]], seq: int) -> tuple[list[Record], int]:
    """The partition that holds an entry, and its place there."""
    for lane in partitions:
        for n, record in enumerate(lane):
            link = link_of(record.message.value)
            if link is not None and link.seq == seq:
                return lane, n
    raise AssertionError(f"no entry {seq}")


def test_the_link_is_in_the_first_fields_and_needs_sha256_alone() -> None:
    value = message(ENTRIES[4]).value
    said = msgspec.json.decode(value)
    assert list(said)[:5] == ["seq", "prev", "hash", "at", "act"]
    assert said["seq"] == 5
    assert said["prev"] == ENTRIES[3].hash
    blank = value.replace(said["hash"].encode(), b"0" * 64)
    assert sha256(blank).hexdigest() == said["hash"]


def test_an_honest_journal_has_no_flaw() -> None:
    found = verdict(honest())
    assert found.flaws == ()
    assert (found.entries, found.last.seq, found.checkpoints) == (40, 40, 4)


def test_an_edit_is_found_where_it_is() -> None:
    partitions = honest()
    lane, n = where(partitions, 7)
    lane[n] = edited(lane[n], b'"mended"', b'"bribed"')
    found = verdict(partitions)
    assert kinds(found) == [("edited", 7)]
    assert found.flaws[0].at == f"journal[{lane[n].partition}]@{lane[n].offset}"


def test_an_edit_with_a_new_hash_breaks_the_link_to_the_next() -> None:
    partitions = honest()
    lane, n = where(partitions, 7)
    forged = linked(replace(wish(6), reason="bribed"), end_of(ENTRIES[5]), ENTRIES[6].at)
    lane[n] = replace(lane[n], message=message(forged))
    assert kinds(verdict(partitions)) == [("rewritten", 8)]


def test_an_envelope_that_says_otherwise_is_an_edit() -> None:
    partitions = honest()
    lane, n = where(partitions, 7)
    lane[n] = replace(lane[n], message=replace(lane[n].message, type="deadletter.retried"))
    assert kinds(verdict(partitions)) == [("edited", 7)]


@pytest.mark.parametrize("gone", [1, 2, 20])
def test_a_deletion_is_found(gone: int) -> None:
    found = verdict(laid(message(e) for e in ENTRIES if e.seq != gone))
    assert kinds(found) == [("deleted", gone)]


def test_several_that_are_gone_are_told_of_as_one() -> None:
    found = verdict(laid(message(e) for e in ENTRIES if not 5 <= e.seq <= 8))
    assert kinds(found) == [("deleted", 5)]
    assert "5 to 8" in found.flaws[0].said


def test_a_swap_within_a_partition_is_found() -> None:
    partitions = honest()
    lane = max(partitions, key=len)
    a, b = lane[2], lane[3]
    lane[2] = replace(a, message=b.message)
    lane[3] = replace(b, message=a.message)
    link = link_of(a.message.value)
    assert link is not None
    assert kinds(verdict(partitions)) == [("swapped", link.seq)]


def test_a_swap_across_partitions_is_found() -> None:
    partitions = honest()
    first, second = [lane for lane in partitions if lane][:2]
    a, b = first[1], second[1]
    first[1] = replace(a, message=b.message)
    second[1] = replace(b, message=a.message)
    assert {kind for kind, _ in kinds(verdict(partitions))} == {"swapped"}


def test_a_cut_tail_is_found_by_the_head() -> None:
    found = verdict(laid(message(e) for e in ENTRIES[:35]), seen=[])
    assert kinds(found) == [("cut", 40)]


def test_a_cut_tail_with_its_head_is_found_by_a_checkpoint() -> None:
    short = ENTRIES[:35]
    found = verdict(laid(map(message, short)), end_of(short[-1]))
    assert kinds(found) == [("cut", 40)]
    assert verdict(laid(map(message, short)), end_of(short[-1]), []).flaws == ()


def test_a_chain_written_anew_is_found_by_a_checkpoint_alone() -> None:
    forged: list[Entry] = []
    for entry in ENTRIES:
        after = end_of(forged[-1]) if forged else Head()
        reason = "bribed" if entry.seq == 3 else entry.reason
        forged.append(linked(replace(entry, reason=reason), after, entry.at))
    partitions = laid(map(message, forged))
    assert verdict(partitions, end_of(forged[-1]), []).flaws == ()
    found = kinds(verdict(partitions, end_of(forged[-1])))
    assert found == [("rewritten", 10), ("rewritten", 20), ("rewritten", 30), ("rewritten", 40)]


def test_a_fork_is_found_and_a_repeat_is_none() -> None:
    other = linked(replace(wish(6), reason="forked"), end_of(ENTRIES[5]), NOW)
    assert kinds(verdict(laid(map(message, [*ENTRIES[:9], other, *ENTRIES[9:]])))) == [
        ("forked", 7)
    ]
    repeated = verdict(laid(map(message, [*ENTRIES[:9], *ENTRIES[4:9], *ENTRIES[9:]])))
    assert repeated.flaws == ()
    assert repeated.repeats == 5


def test_entries_that_the_store_does_not_know_are_told_of() -> None:
    assert kinds(verdict(honest(), None, [])) == [("unknown", 40)]
    assert kinds(verdict(honest(), end_of(ENTRIES[30]), [])) == [("unknown", 40)]


def test_entries_that_came_while_one_looked_are_no_flaw() -> None:
    partitions = laid(message(e) for e in ENTRIES if e.seq != 38)
    found = judge(partitions, PARTITIONS, end_of(ENTRIES[36]), (), lambda: HEAD)
    assert found.flaws == ()


def test_records_before_the_chain_are_counted_and_later_ones_are_foreign() -> None:
    old = [Message(f"key-{n}", b'{"service":"tally"}', b"i" * 16, "old", 1) for n in range(5)]
    found = verdict(laid([*old, *map(message, ENTRIES)]))
    assert found.flaws == ()
    assert found.before_chain == 5
    late = verdict(laid([*map(message, ENTRIES), *old[:1]]))
    assert kinds(late) == [("foreign", 0)]
    alone = laid(message(e) for e in ENTRIES if partition_of(e.key, PARTITIONS) != 2)
    alone[2].append(Record("journal", 2, 0, NOW + 9999, old[0]))
    assert ("foreign", 0) in kinds(verdict(alone))


@given(st.data())
def test_no_single_change_goes_unseen(data: st.DataObject) -> None:
    partitions = honest()
    lane = data.draw(st.sampled_from([lane for lane in partitions if lane]))
    n = data.draw(st.integers(0, len(lane) - 1))
    if data.draw(st.booleans()):
        del lane[n]
    else:
        value = bytearray(lane[n].message.value)
        at = data.draw(st.integers(0, len(value) - 1))
        value[at] ^= 1 << data.draw(st.integers(0, 7))
        lane[n] = replace(lane[n], message=replace(lane[n].message, value=bytes(value)))
    assert verdict(partitions).flaws


def test_memory_does_not_grow_with_the_journal() -> None:
    from penstock.ops import chain as module

    judged = module.Judge(PARTITIONS)
    head = Head()
    for number in range(3 * module.WINDOW):
        entry = linked(wish(number), head, NOW)
        head = end_of(entry)
        (record,) = [r for lane in laid([message(entry)], number) for r in lane]
        judged.see(record)
        assert len(judged._hashes) <= 2 * module.WINDOW + 1
    assert judged.verdict(head, head).flaws == ()


def test_a_journal_full_of_holes_is_told_of_and_counted() -> None:
    entries = chain(5000)
    holes = laid(message(e) for e in entries if e.seq % 2)
    found = judge(holes, PARTITIONS, end_of(entries[-2]))
    assert {flaw.kind for flaw in found.flaws} == {"deleted"}
    assert len(found.flaws) + found.more_flaws == 2499
