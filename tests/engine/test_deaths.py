"""The death of a process is charged to the record it was deciding, and to nobody else."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from penstock.conformance.scenario import keys_of
from penstock.engine.slots import NoSlots, Slots
from penstock.engine.worker import AWAY, Worker
from penstock.errors import Contended
from penstock.limits import DEATHS_MAX, OFFSET_BITS
from tests.engine.tally import Orders, Step, raising, steps, tally_rig
from tests.flows.rig import Rig

DEADLY = 666


def slot(rig: Rig, topic: str, offset: int) -> int:
    """The word that says this record is being decided."""
    return (rig.unit("tally").topic_index[topic] << OFFSET_BITS | offset) + 1


def with_slots(rig: Rig, slots: Slots) -> Worker:
    """The rig's worker, after a death that left these slots."""
    rig.workers.pop("tally").leave()
    rig.workers["tally"] = rig.new_worker("tally", slots)
    return rig.workers["tally"]


def deaths(rig: Rig) -> list[tuple[str, int]]:
    """Key and deaths of every waiting row."""
    rows = [row.body for row in rig.rows("tally", "waiting")]
    return [(w.record.message.key, w.deaths) for w in rows]


def test_a_record_that_kills_its_process_runs_alone_and_is_parked_at_the_bound(
    tmp_path: Path, python: str
) -> None:
    home, slots = tmp_path / "home", tmp_path / "slots"
    home.mkdir()
    rig = tally_rig(home, partitions=1)
    rig.workers.pop("tally").leave()
    rig.append("steps", ("k", Step(n=1)), ("a", Step(n=2)), ("k", Step(n=DEADLY)))
    rig.append("steps", ("k", Step(n=4)), ("b", Step(n=5)))
    for died in range(1, DEATHS_MAX + 1):
        argv = [python, "-m", "tests.engine.doomed", str(home), str(slots), str(DEADLY)]
        ended = subprocess.run(argv, check=False, timeout=60, capture_output=True)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        # What stood before the deadly record is done from the second run on, in order.
        assert steps(rig, "k") == ((1,) if died > 1 else ())
        assert ("k", died - 1) in deaths(rig) or died == 1
    rig.workers["tally"] = rig.new_worker("tally", Slots(slots, 1))
    rig.run()
    (letter,) = rig.facts("tally.dead")["k"]
    assert letter.kind == "process_death"
    assert letter.reason == "the process died 3 times while deciding it"
    assert [a.error for a in letter.attempts] == [
        f"the process died while deciding it ({n})" for n in (1, 2, 3)
    ]
    assert (steps(rig, "k"), steps(rig, "a"), steps(rig, "b")) == ((1,), (2,), (5,))
    assert [state for _, state, _ in rig.waiting("tally")] == ["parked", "waiting"]


def test_a_charged_record_keeps_its_place_in_its_key_s_order() -> None:
    """Nothing of the batch was committed, so what stands before it must go first."""
    rig = tally_rig(partitions=1, batch=500)
    rig.append("steps", *(("k", Step(n=n)) for n in range(10)))
    slots = NoSlots(1)
    slots.words[0] = slot(rig, "steps", 5)
    with_slots(rig, slots)
    rig.append("steps", ("k", Step(n=10)))
    rig.run()
    assert steps(rig, "k") == tuple(range(11))
    rows = rig.stores["tally"].file.run("SELECT txn, count(*) FROM marks GROUP BY txn")
    assert [count for _, count in rows] == [5, 1, 5]
    assert rig.waiting("tally") == []


def test_a_charge_that_met_another_transaction_is_made_at_the_next_claim() -> None:
    rig = tally_rig(partitions=1)
    rig.append("steps", *(("k", Step(n=n)) for n in range(3)))
    slots = NoSlots(1)
    slots.words[0] = slot(rig, "steps", 1)
    worker, store = with_slots(rig, slots), rig.stores["tally"]
    begin = store.begin

    def meeting(*given: Any) -> Any:
        store.begin = begin
        raise Contended("another transaction holds the lane")

    store.begin = meeting
    assert worker.step(rig.clock.now()).blocked
    assert "another transaction holds the lane" in worker.trouble[AWAY]
    worker.step(rig.clock.now())
    assert deaths(rig) == [("k", 1)]
    rig.run()
    assert steps(rig, "k") == (0, 1, 2)
    assert worker.trouble == {}


def test_a_charged_record_behind_one_that_waits_runs_alone_in_its_turn() -> None:
    from penstock.decision import Retry
    from tests.engine.tally import Orders, always

    orders = Orders()
    orders.by_number[2] = always(Retry("not yet"))
    rig = tally_rig(orders=orders, partitions=1)
    rig.append("steps", *(("k", Step(n=n)) for n in range(6)))
    slots = NoSlots(1)
    slots.words[0] = slot(rig, "steps", 4)
    with_slots(rig, slots)
    rig.run()
    orders.by_number.clear()
    rig.wait(1000)
    assert steps(rig, "k") == tuple(range(6))
    rows = rig.stores["tally"].file.run("SELECT txn, count(*) FROM marks GROUP BY txn")
    assert [count for _, count in rows] == [2, 2, 1, 1]


def test_a_slot_of_a_handled_record_or_of_another_log_charges_nobody() -> None:
    rig = tally_rig(partitions=1)
    rig.append("steps", ("k", Step(n=0)), ("k", Step(n=1)))
    rig.run()
    for word in (slot(rig, "steps", 0), slot(rig, "steps", 999), (77 << OFFSET_BITS) + 3):
        slots = NoSlots(1)
        slots.words[0] = word
        with_slots(rig, slots)
        rig.run()
        assert rig.waiting("tally") == []
        assert slots.read(0) is None


def test_slots_outlive_a_process_but_not_a_power_cut(tmp_path: Path) -> None:
    path = tmp_path / "slots"
    Slots(path, 4).words[2] = (3 << OFFSET_BITS | 41) + 1
    assert Slots(path, 4).read(2) == (3, 41)
    assert Slots(path, 4).read(1) is None
    with path.open("r+b") as file:
        file.write(b"the boot before".ljust(64, b"\0"))
    assert Slots(path, 4).read(2) is None


def test_a_batch_leaves_no_slot_behind(tmp_path: Path) -> None:
    rig = tally_rig(partitions=4)
    slots = Slots(tmp_path / "slots", 4)
    worker = with_slots(rig, slots)
    rig.append("steps", *((f"k{n}", Step(n=n)) for n in range(20)))
    rig.run()
    assert [slots.read(lane) for lane in range(4)] == [None] * 4
    assert worker.counts.handled == 20


def test_a_charge_that_found_the_disk_full_is_made_when_there_is_room(tmp_path: Path) -> None:
    rig = tally_rig(tmp_path, partitions=1)
    rig.append("steps", ("k", Step(n=0, pots=("p" * 50_000,))))
    slots = NoSlots(1)
    slots.words[0] = slot(rig, "steps", 0)
    worker = with_slots(rig, slots)
    file = worker._store.file  # type: ignore[attr-defined]
    file.run(f"PRAGMA max_page_count={file.run('PRAGMA page_count')[0][0]}")
    assert worker.step(rig.clock.now()).blocked
    file.run("PRAGMA max_page_count=1000000")
    worker.step(rig.clock.now())
    assert deaths(rig) == [("k", 1)]


def test_a_death_is_charged_in_the_lane_of_its_record_and_in_no_other() -> None:
    """What other lanes decided before it in the batch is not to blame."""

    class Killed(BaseException):
        """The end of the process."""

    orders = Orders()
    orders.by_number[DEADLY] = raising(Killed())
    rig = tally_rig(orders=orders, partitions=4)
    slots = NoSlots(4)
    worker = with_slots(rig, slots)
    worker.step(rig.clock.now())  # claims its lanes
    keys = [key for lane in range(4) for key in keys_of(lane, 4)]
    rig.append("steps", *((key, Step(n=DEADLY if key == keys[2] else 1)) for key in keys))
    with pytest.raises(Killed):
        worker.step(rig.clock.now())
    orders.by_number.clear()
    with_slots(rig, slots).step(rig.clock.now())
    assert deaths(rig) == [(keys[2], 1)]
    rig.run()
    assert [len(steps(rig, key)) for key in keys] == [1, 1, 1, 1]


def test_what_was_set_aside_before_its_position_passed_is_not_decided_again() -> None:
    """Found by the simulator: where parked records hold nothing back, the record came once more
    from the log, killed again, and was parked again."""
    orders = Orders()
    rig = tally_rig(partitions=1, orders=orders, after_park="continue")
    rig.append("steps", ("k", Step(n=1)), ("k", Step(n=DEADLY)), ("k", Step(n=3)))
    for _ in range(DEATHS_MAX):
        slots = NoSlots(1)
        slots.words[0] = slot(rig, "steps", 1)
        with_slots(rig, slots).step(rig.clock.now())
    orders.said.clear()
    rig.run()
    assert ("k", DEADLY) not in orders.said
    assert rig.types("tally.dead", "k") == ["dead.parked"]
    assert steps(rig, "k") == (1, 3)
    assert [state for _, state, _ in rig.waiting("tally")] == ["aside"]
