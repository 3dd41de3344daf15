"""The keeper: topics and marks stay finite, and what may still be read is never dropped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from penstock import assemble
from penstock.decision import Park
from penstock.engine.keeper import FULL, Keeper
from penstock.engine.unit import RETRY_REQUESTED
from penstock.flow import Scan
from penstock.log.embedded import EmbeddedLog
from penstock.ports import TopicSpec
from penstock.store import pruning
from tests.engine.tally import Orders, Step, always, steps, tally_rig
from tests.flows.rig import Rig

HOUR = 3_600_000


def positions(rig: Rig, topic: str) -> Mapping[int, int] | None:
    """The service's positions of a topic by lane, None where it never ran."""
    rows = rig.stores["tally"].scan(Scan(service="tally", table="positions"))
    return {int(row.key): row.body.get(topic, 0) for row in rows} or None


def keeper_of(rig: Rig, log: EmbeddedLog | None = None, **bounds: Any) -> Keeper:
    """A keeper of the topic that the service reads, and of the service's store."""
    specs = [replace(s, **bounds) for s in assemble.specs(rig.catalog) if s.name == "steps"]
    kept = log or rig.log
    kept.ensure(specs)
    reading = {"steps": [lambda topic: positions(rig, topic)]}
    reads = [replace(s, **bounds) for s in assemble.specs(rig.catalog) if s.name in unit_reads(rig)]
    return Keeper(kept, rig.stores["tally"], specs, reads, reading, 10.0)


def unit_reads(rig: Rig) -> set[str]:
    return set(rig.unit("tally").reads)


def held(rig: Rig) -> int:
    return sum(extent.next - extent.first for extent in rig.log.extent("steps"))


def marks(rig: Rig) -> int:
    return int(rig.stores["tally"].file.run("SELECT count(*) FROM marks")[0][0])


def fill(rig: Rig, count: int, first: int = 0) -> None:
    """Single appends, so that rows can go one by one."""
    for n in range(first, first + count):
        rig.append("steps", (f"k{n % 8}", Step(n=n)))


def test_old_records_go_once_every_reader_has_passed_them(tmp_path: Path) -> None:
    rig = tally_rig(tmp_path)
    fill(rig, 80)
    keeper = keeper_of(rig, retention_seconds=3600.0)
    rig.clock.pass_(2 * HOUR)
    assert keeper.step(rig.clock.now()) == 0
    assert held(rig) == 80
    assert "behind the retention bound" in keeper.alarms["steps"]
    rig.run()
    rig.clock.pass_(10_000)
    assert keeper.step(rig.clock.now()) >= 76
    used = sum(1 for extent in rig.log.extent("steps") if extent.next)
    assert held(rig) == used  # the newest row of each partition stays
    assert keeper.alarms == {}


@pytest.mark.parametrize(
    ("retains", "said"), [(True, "its records are kept"), (False, "may go before it reads them")]
)
def test_the_alarm_promises_only_what_the_log_holds(
    tmp_path: Path, retains: bool, said: str
) -> None:
    """Kafka drops by its own clock, whoever has not read yet."""
    rig = tally_rig(tmp_path)
    fill(rig, 8)
    keeper = keeper_of(rig, retention_seconds=3600.0)
    keeper._log.features = replace(keeper._log.features, retention=retains)
    rig.clock.pass_(2 * HOUR)
    keeper.step(rig.clock.now())
    assert keeper.alarms["steps"].endswith(said)


def test_records_past_their_age_are_read_once_as_long_as_they_lie_there(tmp_path: Path) -> None:
    """A courier runs the keeper; it carries nothing while it reads what no broker has dropped."""
    rig = tally_rig(tmp_path)
    fill(rig, 40)
    rig.run()
    keeper = keeper_of(rig, retention_seconds=3600.0)
    keeper._topics = ()  # nobody drops
    asked: list[tuple[str, int, int]] = []
    read = keeper._log.read

    def reading(topic: str, partition: int, start: int, limit: int) -> Any:
        asked.append((topic, partition, start))
        return read(topic, partition, start, limit)

    keeper._log.read = reading  # type: ignore[method-assign]
    rig.clock.pass_(2 * HOUR)
    keeper.step(rig.clock.now())
    assert {topic for topic, _, _ in asked} == {"steps"}
    asked.clear()
    for _ in range(3):
        rig.clock.pass_(60_000)
        keeper.step(rig.clock.now())
    assert asked == []
    assert marks(rig) == 40
    fill(rig, 1)
    rig.clock.pass_(2 * HOUR)
    keeper.step(rig.clock.now())
    assert len(asked) == 1, "the one partition in which more is old now"


def test_a_reader_in_the_middle_keeps_what_is_before_it(tmp_path: Path) -> None:
    rig = tally_rig(tmp_path, batch=1)
    fill(rig, 80)
    for _ in range(20):
        rig.workers["tally"].step(rig.clock.now())
    keeper = keeper_of(rig, retention_seconds=3600.0)
    keeper.step(rig.clock.now() + 2 * HOUR)
    read = positions(rig, "steps")
    assert read is not None
    for lane, extent in enumerate(rig.log.extent("steps")):
        assert extent.first <= read[lane]
    rig.run()
    assert sum(len(steps(rig, f"k{n}")) for n in range(8)) == 80


def test_size_is_bounded_and_pages_are_given_back(tmp_path: Path) -> None:
    rig = tally_rig(tmp_path)
    fat = ["x" * 4000 + str(n) for n in range(300)]
    for n, pot in enumerate(fat):
        rig.append("steps", (f"k{n % 8}", Step(n=n, pots=(pot,))))
    rig.run()
    writer = EmbeddedLog(tmp_path, assemble.specs(rig.catalog), frozenset(["journal"]))
    keeper = keeper_of(rig, writer, retention_bytes=200_000)
    file = writer._writer("steps")
    before = file.run("PRAGMA page_count")[0][0]
    for n in range(5):
        keeper.step(rig.clock.now() + n * 20_000)
    size = file.run("SELECT sum(length(body)) FROM log_steps")[0][0]
    assert size <= 200_000
    assert file.run("PRAGMA page_count")[0][0] < before / 2


def test_marks_go_when_no_log_holds_their_records_and_duplicates_stay_known(
    tmp_path: Path
) -> None:
    rig = tally_rig(tmp_path, batch=1000)
    keeper = keeper_of(rig, retention_seconds=3600.0)
    fill(rig, 400)
    rig.run()
    keeper.step(rig.clock.now())
    rig.clock.pass_(2 * HOUR)
    young = rig.append("steps", *((f"k{n}", Step(n=1000 + n)) for n in range(8)))
    rig.run()
    for _ in range(4):
        rig.clock.pass_(20_000)
        keeper.step(rig.clock.now())
    assert marks(rig) < 100
    handled = [steps(rig, f"k{n}") for n in range(8)]
    rig.log.append("steps", young, rig.clock.now())
    rig.start("tally")
    rig.run()
    assert [steps(rig, f"k{n}") for n in range(8)] == handled


def test_settled_rows_go_with_the_marks_and_open_ones_stay(tmp_path: Path) -> None:
    rig = tally_rig(tmp_path)
    keeper = keeper_of(rig, retention_seconds=3600.0)
    day = 24 * HOUR
    rig.append("steps", ("k1", Step(n=1, wake_ms=1000)), ("k2", Step(n=2, wake_ms=30 * day)))
    rig.append("steps", ("k1", Step(n=3, wake_ms=40 * day)))
    rig.run().wait(2000)
    keeper.step(rig.clock.now())
    rig.clock.pass_(2 * HOUR)
    fill(rig, 64)
    rig.run()
    for _ in range(3):
        rig.clock.pass_(20_000)
        keeper.step(rig.clock.now())
    rows = rig.stores["tally"].file.run("SELECT name, due, settled_at FROM outbox ORDER BY id")
    assert [settled for _, _, settled in rows] == [None, None]


def test_marks_of_a_long_retention_go_and_the_checkpoints_stay_few(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Many more rounds than checkpoints pass before the first record is past its age."""
    monkeypatch.setattr(pruning, "CHECKPOINTS_MAX", 50)
    rig = tally_rig(batch=1000)
    keeper = keeper_of(rig, retention_seconds=200 * 20.0)
    for n in range(400):
        fill(rig, 8, first=8 * n)
        rig.run()
        rig.clock.pass_(20_000)
        keeper.step(rig.clock.now())
    assert rig.stores["tally"].file.run("SELECT count(*) FROM checkpoints")[0][0] <= 50
    assert 8 * 200 <= held(rig) < 8 * 210
    assert held(rig) <= marks(rig) < 1.2 * held(rig)


def test_a_request_on_the_journal_keeps_no_mark_but_its_own(tmp_path: Path) -> None:
    """The journal is kept for ever; dedupe of all else must not reach as far for it."""
    orders = Orders()
    orders.by_number[0] = always(Park("bad", "bad"))
    rig = tally_rig(tmp_path, orders)
    keeper = keeper_of(rig, retention_seconds=3600.0)
    rig.append("steps", ("k0", Step(n=0)))
    rig.run()
    orders.by_number.clear()
    rig.operate(RETRY_REQUESTED, rig.rows("tally", "waiting")[0].body.record, "tally")
    fill(rig, 400, first=1)
    rig.run()
    keeper.step(rig.clock.now())
    rig.clock.pass_(2 * HOUR)
    fill(rig, 40, first=401)
    rig.run()
    for _ in range(4):
        rig.clock.pass_(20_000)
        keeper.step(rig.clock.now())
    (request,) = rig.records("journal")
    known = rig.stores["tally"].file.run("SELECT id FROM marks")
    assert (request.message.id,) in known
    assert len(known) < 100


def test_a_round_is_done_when_it_is_time(tmp_path: Path) -> None:
    rig = tally_rig(tmp_path)
    fill(rig, 40)
    rig.run()
    keeper = keeper_of(rig, retention_seconds=60.0)
    keeper.step(rig.clock.now())
    commits = rig.stores["tally"].file.commits
    keeper.step(rig.clock.now() + 9_999)
    assert rig.stores["tally"].file.commits == commits
    assert keeper.step(rig.clock.now() + 90_000) > 0


def test_a_full_disk_is_an_alarm_not_a_death(tmp_path: Path) -> None:
    rig = tally_rig(tmp_path)
    fill(rig, 8)
    rig.run()
    keeper = keeper_of(rig, retention_seconds=60.0)
    file = rig.stores["tally"].file
    file.run("UPDATE owners SET positions = json_set(positions, '$.x', ?)", ("x" * 3000,))
    file.run(f"PRAGMA max_page_count={file.run('PRAGMA page_count')[0][0]}")
    for n in range(20):
        file.run("UPDATE owners SET txn = (SELECT max(txn) + 1 FROM owners) WHERE lane = -1")
        keeper.step(rig.clock.now() + n * 20_000)
    assert "nothing could be dropped" in keeper.alarms[FULL]
    file.run("PRAGMA max_page_count=1000000")
    keeper.step(rig.clock.now() + HOUR)
    assert FULL not in keeper.alarms


def test_a_reader_that_never_ran_keeps_everything(tmp_path: Path) -> None:
    rig = tally_rig(tmp_path)
    fill(rig, 40)
    spec = TopicSpec(name="steps", partitions=4, owner_file="source", retention_seconds=1.0)
    keeper = Keeper(rig.log, None, [spec], (), {"steps": [lambda topic: None]})
    assert keeper.step(rig.clock.now() + HOUR) == 0
    assert held(rig) == 40
