"""Histories of the real backends hold no anomaly, and those of broken ones do, by name."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from penstock.assemble import specs
from penstock.conformance.checker import check, told
from penstock.conformance.history import Recorder, load
from penstock.conformance.history_load import record
from penstock.conformance.history_ports import RecordedLog, RecordedStore, Recording
from penstock.decision import Park, Retry
from penstock.engine.slots import NoSlots
from penstock.engine.worker import Worker
from tests.conformance import broken, occasions
from tests.conformance.backends import InMemory, embedded
from tests.conformance.occasions import Occasion, recorded
from tests.engine.tally import Orders, Step, always, tally_rig


@pytest.mark.parametrize("seed", range(4))
def test_threads_over_the_memory_log(seed: int, tmp_path: Path) -> None:
    report = check(record(InMemory(), tmp_path, seed, members=4, steps=400, apart=False))
    assert report.clean, told(report)
    assert report.records > 1000
    assert not report.unseen


@pytest.mark.parametrize("seed", range(3))
def test_processes_over_the_embedded_log(seed: int, home: Path, tmp_path: Path) -> None:
    histories = tmp_path / "histories"
    histories.mkdir()
    report = check(record(partial(embedded, home), histories, seed, kills=3))
    assert report.clean, told(report)
    assert report.records > 1000
    assert not report.unseen


def test_a_real_worker_leaves_a_clean_history(tmp_path: Path) -> None:
    """Two members of a service that retries, parks and restarts, on recorded ports."""
    orders = Orders()
    orders.by_number |= {4: always(Retry("not yet")), 9: always(Park("bad", "bad"))}
    rig = tally_rig(orders=orders, batch=3)
    rig.workers.pop("tally").leave()
    unit = rig.unit("tally")

    def recorded(name: str) -> tuple[RecordedLog, Worker]:
        recorder = Recorder(tmp_path / f"{name}.jsonl", name)
        recording = Recording(recorder, specs(rig.catalog))
        log = RecordedLog(rig.log, recording)
        store = RecordedStore(rig.stores["tally"], recording, "tally", frozenset())
        return log, Worker(unit, log, store, NoSlots(unit.lanes))

    log, first = recorded("first")
    workers = [first, recorded("second")[1]]
    for round_ in range(6):
        sent = [rig.message(f"k{n % 7}", Step(n=n + 10 * round_), "steps") for n in range(10)]
        log.append("steps", sent, rig.clock.now())
        log.append("steps", sent[:2], rig.clock.now())
        if round_ == 3:
            workers.pop().leave()
            workers.append(recorded("third")[1])
        for _ in range(30):
            for worker in workers:
                worker.step(rig.clock.now())
        rig.clock.pass_(1000)
    for partition, extent in enumerate(rig.log.extent("steps")):
        log.read("steps", partition, 0, extent.next + 1)
    report = check(load(tmp_path))
    assert report.clean, told(report)
    assert report.values == 60
    assert not report.unseen
    assert {state for _, state, _ in rig.waiting("tally")} == {"parked", "waiting"}


BROKEN = {
    "an append is dropped": (broken.Broken(append=broken.drop), "lost-write"),
    "half an append is dropped": (broken.Broken(append=broken.drop_the_last), "lost-write"),
    "an append is written twice": (broken.Broken(append=broken.double), "duplicate"),
    "an append is written late": (broken.Broken(append=broken.delay), "nonmonotonic-append"),
    "a refused append is written": (broken.Broken(append=broken.write_and_refuse), "aborted-read"),
    "an append is turned round": (
        broken.Broken(append=broken.turn_round), "int-nonmonotonic-append"
    ),
    "a take skips one": (broken.Broken(take=broken.skip_inside), "int-poll-skip"),
    "a take begins too late": (broken.Broken(take=broken.skip_first), "poll-skip"),
    "a take repeats one": (broken.Broken(take=broken.serve_again), "int-nonmonotonic-poll"),
    "a take repeats the last one": (
        broken.Broken(take=broken.serve_the_last), "nonmonotonic-poll"
    ),
    "a take hides the end": (broken.Broken(take=broken.hide), "stale-read"),
    "a take renumbers": (broken.Broken(take=broken.renumber), "inconsistent-offset"),
    "an append before the commit": (broken.Broken(how="send first"), "G1a"),
    "any epoch may commit": (broken.Broken(how="any epoch"), "stale-commit"),
    "a position one too far": (broken.Broken(how="one further"), "position-ahead"),
    "no marks": (broken.Broken(how="no marks"), "handled-twice"),
    "a forgotten commit": (broken.Broken(how="forget"), "position-regress"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_backend_is_flagged_by_name(what: str, tmp_path: Path) -> None:
    opener, name = BROKEN[what]
    report = check(record(opener, tmp_path, 1, members=1, steps=400, apart=False))
    assert name in report.counts, told(report)


@pytest.mark.parametrize(
    ("occasion", "how", "name"),
    [
        (occasions.it_commits_after_another_claimed, "any epoch", "stale-commit"),
        (occasions.a_message_comes_twice, "no marks", "handled-twice"),
    ],
)
def test_an_occasion_made_by_hand_tells_a_broken_store_from_a_sound_one(
    occasion: Occasion, how: str, name: str, tmp_path: Path
) -> None:
    stores = (("sound", InMemory(), set()), ("broken", broken.Broken(how=how), {name}))
    for folder, opener, found in stores:
        (tmp_path / folder).mkdir()
        report = check(recorded(occasion, opener, tmp_path / folder))
        assert set(report.counts) == found, told(report)
        assert not report.unseen


def test_an_offset_cached_across_the_turnstile_is_flagged(home: Path, tmp_path: Path) -> None:
    histories = tmp_path / "histories"
    histories.mkdir()
    opener = partial(broken.offsets_cached, home)
    report = check(record(opener, histories, 1, members=2, steps=60, apart=False))
    assert {"lost-write", "inconsistent-offset"} & report.counts.keys(), told(report)
