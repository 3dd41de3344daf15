"""The journal's service: entries by its gate, outcomes by its worker, witnesses by its courier."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from penstock.catalog.model import JOURNAL, JournalSettings
from penstock.decision import Park
from penstock.engine.intake import FULL
from penstock.entry import (
    Discarded,
    DiscardRequested,
    Entry,
    Head,
    Retried,
    RetryRequested,
    link_of,
)
from penstock.errors import StorageFull
from penstock.event import Message, Record, root_id
from penstock.ops.chain import Verdict
from penstock.ops.reading import head_of, verified
from penstock.ops.scribe import NotWritten, Scribe
from penstock.ports import Unavailable
from penstock.sim.audit.files import books_of
from penstock.sim.audit.platform import RULES as PLATFORM
from penstock.sim.audit.platform import with_journal
from penstock.sim.audit.report import audit
from tests.engine.tally import Orders, Step, always, steps, tally_rig
from tests.flows.ground import Ground
from tests.flows.rig import Rig, Scripted

QUIET = JournalSettings()


def rig_of(ground: Ground = None, journal: JournalSettings = QUIET) -> Rig:
    """The tally service beside the journal's, with steps of number 1 parked."""
    orders = Orders()
    orders.by_number[1] = always(Park("bad_step", "this step is bad"))
    rig = tally_rig(ground, orders, journal=journal, shared=("tally",))
    rig.orders = orders  # type: ignore[attr-defined]
    return rig


def scribe_of(rig: Rig) -> Scribe:
    """A gate of somebody's own."""
    return Scribe(rig.catalog, rig.book, rig.new_store(JOURNAL), rig.clock)


def parked(rig: Rig, key: str) -> Record:
    """The parked record of a key."""
    rows = [row.body.record for row in rig.rows("tally", "waiting")]
    return next(r for r in rows if r.message.key == key)


def about(record: Record) -> dict[str, Any]:
    """What an entry says of a parked record."""
    return {
        "service": "tally", "topic": record.topic, "partition": record.partition,
        "offset": record.offset, "key": record.message.key, "actor": "pat", "reason": "because",
    }  # fmt: skip


def entries(rig: Rig) -> list[Entry]:
    """The entries of the journal by number, each once."""
    found = {}
    for record in rig.records(JOURNAL):
        m = record.message
        entry = cast(Entry, rig.book.open(m.type, m.version, m.value))
        found[entry.seq] = entry
    return [found[seq] for seq in sorted(found)]


def verdict(rig: Rig) -> Verdict:
    """What the judge says of the journal."""
    store = rig.stores[JOURNAL]
    return verified(rig.log, store, head_of(store), ())


def test_wish_and_outcome_stand_in_the_journal(ground: Ground) -> None:
    rig = rig_of(ground)
    rig.append("steps", ("a", Step(n=1)), ("b", Step(n=1)))
    rig.run()
    scribe = scribe_of(rig)
    rig.orders.by_number.clear()  # type: ignore[attr-defined]
    asked = scribe.write(RetryRequested(**about(parked(rig, "a"))))
    scribe.write(DiscardRequested(**about(parked(rig, "b"))))
    rig.run()
    found = entries(rig)
    assert [e.seq for e in found] == [1, 2, 3, 4]
    assert found[0] == asked
    retried = next(e for e in found if isinstance(e, Retried))
    discarded = next(e for e in found if isinstance(e, Discarded))
    assert (retried.key, retried.actor, retried.request_seq) == ("a", "pat", 1)
    assert (discarded.key, discarded.reason, discarded.request_seq) == ("b", "because", 2)
    assert (discarded.kind, discarded.topic) == ("bad_step", "steps")
    assert steps(rig, "a") == (1,)
    said = verdict(rig)
    assert (said.flaws, said.entries, said.last.seq) == ((), 4, 4)


def test_every_gate_goes_on_from_the_head_of_the_others(ground: Ground) -> None:
    rig = rig_of(ground)
    wish = {
        "service": "tally", "topic": "steps", "partition": 0, "offset": 5, "actor": "pat",
        "reason": "because",
    }  # fmt: skip
    scribes = [scribe_of(rig) for _ in range(3)]
    for turn in range(4):
        for n, scribe in enumerate(scribes):
            scribe.write(RetryRequested(key=f"k{n}-{turn}", **wish))
    rig.run()
    said = verdict(rig)
    assert (said.flaws, said.entries) == ((), 12)
    head = head_of(rig.stores[JOURNAL])
    assert head == Head(12, entries(rig)[-1].hash, entries(rig)[-1].at)


def test_several_entries_are_one_transaction() -> None:
    rig = rig_of()
    rig.append("steps", ("a", Step(n=1)), ("b", Step(n=1)))
    rig.run()
    wishes = tuple(RetryRequested(**about(parked(rig, key))) for key in "ab")
    assert [e.seq for e in scribe_of(rig).write_all(wishes)] == [1, 2]
    rig.run()
    assert verdict(rig).flaws == ()


def test_old_requests_are_obeyed_and_noted_and_the_chain_begins_after_them() -> None:
    rig = rig_of()
    rig.append("steps", ("a", Step(n=1)))
    rig.run()
    rig.orders.by_number.clear()  # type: ignore[attr-defined]
    value = msgspec.json.encode(about(parked(rig, "a")))
    now = rig.clock.now()
    old = Message(
        "a", value, root_id(now, "pat"), "deadletter.retry_requested", 1, now, source="pat"
    )
    rig.log.append(JOURNAL, [old], now)
    rig.run()
    assert steps(rig, "a") == (1,)
    said = verdict(rig)
    assert (said.flaws, said.before_chain, said.entries) == ((), 1, 1)
    (noted,) = [e for e in entries(rig) if isinstance(e, Retried)]
    assert (noted.request_seq, noted.actor) == (0, "pat")


def test_no_entry_no_action() -> None:
    """Where the journal takes nothing the caller is told, and nobody ever obeys."""
    rig = rig_of()
    rig.append("steps", ("a", Step(n=1)))
    rig.run()
    scribe, file = scribe_of(rig), rig.stores[JOURNAL].file

    def full() -> Any:
        raise StorageFull("no room")

    write, file.write = file.write, full
    try:
        with pytest.raises(NotWritten, match="nothing was done") as refused:
            scribe.write(RetryRequested(**about(parked(rig, "a"))))
    finally:
        file.write = write
    assert cast(Any, FULL.body).detail in refused.value.message
    rig.run()
    assert [state for _, state, _ in rig.waiting("tally")] == ["parked"]
    assert rig.records(JOURNAL) == []
    assert scribe.write(RetryRequested(**about(parked(rig, "a")))).seq == 1


WITNESSED = JournalSettings(
    checkpoint_file="/mnt/kept", checkpoint_every=3, checkpoint_seconds=60.0
)


def told(rig: Rig) -> list[int]:
    """The numbers that the witness was told."""
    witness = cast(Scripted, rig.gateways["checkpoint-file"])
    return [msgspec.json.decode(call.body, type=Head).seq for call in witness.calls]


def write(rig: Rig, count: int) -> None:
    """So many entries about nothing."""
    scribe = scribe_of(rig)
    for n in range(count):
        scribe.write(RetryRequested(
            actor="pat", key=f"k{n}", reason="because", service="tally", topic="steps",
            partition=0, offset=900 + n,
        ))  # fmt: skip
    rig.run()


def test_the_head_goes_to_the_witness_every_so_many_entries(ground: Ground) -> None:
    rig = rig_of(ground, WITNESSED)
    write(rig, 7)
    assert sorted(told(rig)) == [3, 6]
    witness = cast(Scripted, rig.gateways["checkpoint-file"])
    by_seq = {e.seq: e for e in entries(rig)}
    for call in witness.calls:
        head = msgspec.json.decode(call.body, type=Head)
        assert head.hash == by_seq[head.seq].hash


def test_an_auditor_finds_nothing_wrong_with_witnesses(tmp_path: Path) -> None:
    rig = rig_of(tmp_path, WITNESSED)
    rig.append("steps", ("a", Step(n=1)), ("b", Step(n=1)))
    write(rig, 7)
    for key in "ab":
        scribe_of(rig).write(DiscardRequested(**about(parked(rig, key))))
    rig.run().wait(60_000, 2)
    assert sorted(told(rig)) == [3, 6, 9, 11]
    reads = with_journal({"tally": {t: frozenset(n) for t, n in rig.unit("tally").reads.items()}})
    found = audit(books_of(tmp_path, reads=reads), PLATFORM)
    assert [v for v in found.violations if v.rule != "I20"] == []
    assert [v for v in found.violations if "journal" in str(v)] == []
    (chain,) = [rule for rule in found.rules if rule.id == "I38"]
    assert dict(chain.kinds) == {"partitions": 4, "entries": 11, "heads": 1, "checkpoints": 4}


def test_the_last_entries_are_witnessed_some_time_later() -> None:
    rig = rig_of(None, WITNESSED)
    write(rig, 2)
    assert told(rig) == []
    rig.wait(60_000)
    assert told(rig) == [2]
    rig.wait(120_000)
    assert told(rig) == [2]
    write(rig, 1)
    rig.wait(60_000)
    assert told(rig) == [2, 3]


def test_outcomes_are_witnessed_like_wishes() -> None:
    rig = rig_of(None, WITNESSED)
    rig.append("steps", ("a", Step(n=1)), ("b", Step(n=1)))
    rig.run()
    scribe = scribe_of(rig)
    for key in "ab":
        scribe.write(DiscardRequested(**about(parked(rig, key))))
    rig.run()
    assert told(rig) == [3]
    rig.wait(60_000)
    assert told(rig) == [3, 4]


def test_a_witness_that_is_away_holds_nothing_but_itself() -> None:
    rig = rig_of(None, WITNESSED)
    witness = cast(Scripted, rig.gateways["checkpoint-file"])
    real = witness.call
    witness.call = lambda request: Unavailable("no route")  # type: ignore[method-assign]
    write(rig, 6)
    assert len(entries(rig)) == 6
    desk = rig.couriers[JOURNAL].desks["checkpoint-file"]
    assert desk.last_error == "no route"
    assert desk.open_rows == 2
    witness.call = real  # type: ignore[method-assign]
    rig.wait(5_000, 5)
    assert sorted(told(rig)) == [3, 6]


def test_entries_begin_with_their_link(ground: Ground) -> None:
    rig = rig_of(ground)
    write(rig, 3)
    links = [link_of(r.message.value) for r in rig.records(JOURNAL)]
    assert sorted(link.seq for link in links if link is not None and link.fits) == [1, 2, 3]
