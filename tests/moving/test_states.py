"""What is in a home in the middle of everything is on the cluster in the middle of everything."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from msgspec.structs import replace

from penstock import assemble
from penstock.decision import Ref
from penstock.errors import Conflict
from penstock.event import Message
from penstock.moving.plan import plan
from penstock.store import migrate
from tests.flows.library.lending import LOAN_SECONDS
from tests.flows.rig import Rig
from tests.moving.library import HELD, Library, ask, parked, scan


def claimed_anew(rig: Rig) -> None:
    """As a worker does that was started just before."""
    rig.start("lending")
    rig.run()


def states(rig: Rig) -> dict[str, str]:
    """Where each loan stands."""
    found = rig.states("lending")
    return {ref.key: loan.state for ref, loan in found.items() if ref.kind == "loan"}


def test_everything_goes_on_where_it_was(library: Library) -> None:
    """Timer, open call, parked record with others behind it, letter aside, dedupe and answered
    keys; with offsets that are lower on the cluster than they were in the home."""
    rig = library.busy()
    before = states(rig), {name: rig.waiting(name) for name in ("lending", "notices")}
    assert before[0] == {
        "l1": "lent", "l2": "ended", "l3": "wanted", "l4": "lent", HELD: "stub",
    }
    assert [state for _, state, _ in before[1]["lending"]] == ["parked", "waiting"]
    (_, at_home), = parked(rig, "lending")
    answered = ask(rig, "l1")
    old = rig.records("requests")
    rig.close()
    assert library.forget_first_rows("requests", "loans", "scans"), "deltas are not all nought"
    with library.moving() as moving:
        rows = plan(moving)
    assert {row["name"] for row in rows if row["what"] == "topic"} == set(library.catalog.topics)
    counted = {(r["name"], r["what"]): r["count"] for r in rows}
    assert counted["lending", "parked"] == counted["lending", "waiting"] == 1
    assert counted["lending", "timers"] == 3
    assert counted["lending", "open asks"] == 1
    library.migrate("copy", "copy", "fence", "switch")
    assert library.differences() == []

    there = library.on_cluster()
    assert states(there) == before[0]
    assert there.waiting("lending") == before[1]["lending"]
    assert ask(there, "l1") == answered, "its key was answered before"
    again = [r.message for r in old if r.message.key != HELD]
    there.log.append("requests", again, 0)
    there.run()
    deeds = dict(library.deposits.deeds)
    assert states(there) == before[0], "duplicates are absorbed"
    (_, record), = parked(there, "lending")
    with psycopg.connect(library.servers.dsn) as connection:
        (first,) = connection.execute(
            "SELECT first FROM penstock.moved_offsets WHERE topic = %s AND partition = %s",
            (record.topic, record.partition),
        ).fetchone() or (None,)
    assert record.offset == at_home.offset - first
    assert there.log.read(record.topic, record.partition, record.offset, 1) == [record]
    other = replace(record, message=replace(record.message, key="l1"))
    there.operate("deadletter.discard_requested", other, "lending")
    there.run()
    assert parked(there, "lending"), "a request of before may name the place of another record"
    there.operate("deadletter.discard_requested", record, "lending")
    there.wait(60_000, 6)
    assert states(there)["l3"] == states(there)[HELD] == "lent"
    assert deeds == {f"deposit:{name}": 1 for name in ("l1", "l2", "l4")}
    assert set(library.deposits.deeds.values()) == {1}
    there.wait(1000 * LOAN_SECONDS)
    assert there.types("loans", "l1")[-1:] == ["loan.overdue"]
    scan(there, "l1", back=True)
    there.run()
    assert there.states("lending")[Ref("loan", "l1")].state == "ended"


def test_before_anything_was_done_there_the_way_back_is_open(library: Library) -> None:
    rig = library.busy()
    before = states(rig)
    rig.close()
    with pytest.raises(Conflict, match="not fenced"):
        library.return_()
    library.migrate("copy", "fence", "switch")
    library.return_()
    with pytest.raises(Conflict, match="not fenced"):
        library.return_()
    library.refused_there()
    back = library.at_home().run()
    assert states(back) == before
    back.wait(60_000, 3)
    assert states(back)["l3"] == "lent"
    back.close()
    library.migrate("copy", "fence", "switch")
    assert library.differences() == []
    there = library.on_cluster()
    assert states(there)["l3"] == "lent"
    ask(there, "l6")
    there.run()
    with pytest.raises(Conflict, match="has worked"):
        library.return_()
    with pytest.raises(Conflict, match="works already"):
        library.differences()
    ask(there, "l7")
    assert states(there.run())["l6"] == "wanted", "the refusal stopped nobody"


def test_nobody_works_in_either_place_in_between(library: Library) -> None:
    """Workers that have everything open learn of it at their next write, and claim nothing."""
    rig = library.busy()
    library.migrate("copy")
    library.refused_there()
    library.migrate("fence")
    with pytest.raises(Conflict, match=re.escape(f"moved to Kafka at {library.servers.kafka}")):
        rig.wait(60_000)
    with pytest.raises(Conflict, match="moved to Kafka"):
        ask(rig, "l8")
    with pytest.raises(Conflict, match="moved to Kafka"):
        claimed_anew(rig)
    rig.close()
    library.migrate("switch", "switch")
    assert library.differences() == []


def test_what_somebody_else_has_is_refused(library: Library) -> None:
    library.busy().close()
    migrate.apply(library.servers.dsn, None)
    there = library.on_cluster().run()
    there.log.append("requests", [Message("k", b"{}")], 0)
    with pytest.raises(Conflict, match="holds the states of another house"):
        library.migrate("copy")
    with psycopg.connect(library.servers.dsn) as connection:
        connection.execute("TRUNCATE penstock.owners, penstock.documents, penstock.outbox")
    with pytest.raises(Conflict, match="holds records already"):
        library.migrate("copy")


def test_two_houses_do_not_move_to_one_place(library: Library, tmp_path: Path) -> None:
    """Neither has put anything into a table yet: their records would mix."""
    library.busy().close()
    (tmp_path / "other").mkdir()
    other = Library(tmp_path / "other", library.servers)
    other.busy().close()
    library.migrate("copy")
    with pytest.raises(Conflict, match="is where another house moves to"):
        other.migrate("copy")
    library.migrate("fence", "switch")
    assert library.differences() == []


def test_the_way_home_needs_no_database_that_never_let_anybody_in(
    library: Library, databases: Callable[[], str]
) -> None:
    library.busy().close()
    library.migrate("copy", "fence")
    servers = library.servers
    library.servers = servers._replace(dsn="postgresql://127.0.0.1:1/gone")
    library.return_()
    library.at_home().run().close()
    library.servers = servers
    library.migrate("copy", "fence", "switch")
    library.servers = servers._replace(dsn=databases())
    with pytest.raises(Conflict, match="did not move to this database"):
        library.return_()
    library.servers = servers
    library.return_()


def test_what_another_broker_lacks_is_missed_before_the_switch(library: Library) -> None:
    """Somebody named another one, or topics were deleted: the fence copies again."""
    library.busy().close()
    library.migrate("copy", "fence")
    library.servers.clear()
    with pytest.raises(Conflict, match="were to be copied"):
        library.migrate("switch")
    library.migrate("fence", "switch")
    assert library.differences() == []


def test_what_kafka_would_drop_unread_stops_the_switch(library: Library) -> None:
    """At home a topic's records stay until they are read, Kafka knows no readers."""
    rig = library.busy()
    ask(rig, "l6")
    rig.close()  # nobody has read it
    for name, topic in library.catalog.topics.items():
        library.catalog.topics[name] = replace(topic, retention_seconds=3600.0)
    library.migrate("copy", "fence")
    with pytest.raises(Conflict, match="lending has not read requests"):
        library.migrate("switch")
    library.catalog.topics["requests"] = replace(
        library.catalog.topics["requests"], retention_seconds=1e9
    )
    library.migrate("switch")
    assert library.differences() == []
    there = library.on_cluster().run()
    assert states(there)["l6"] == "wanted"


def test_a_record_of_somebody_elses_is_seen(library: Library) -> None:
    rig = library.busy()
    library.migrate("copy")
    there = library.servers.cluster.log(assemble.specs(library.catalog))
    there.append("requests", [Message("l1", b"{}")], 0)
    there.close()
    rig.close()
    with pytest.raises(Conflict, match="does not hold what was copied"):
        library.migrate("fence")


def test_what_differs_is_named(library: Library) -> None:
    library.busy().close()
    library.migrate("copy", "fence", "switch")
    with psycopg.connect(library.servers.dsn) as connection:
        connection.execute("UPDATE penstock.documents SET label = 'other' WHERE key = 'l1'")
        connection.execute("DELETE FROM penstock.marks WHERE ordinal = 0")
    named = {row["what"] for row in library.differences()}
    assert named == {"documents", "marks"}
    done = library.command("migrate", "verify", "-o", "json")
    assert done.returncode == 6, done.stderr
    rows = {(r["what"], r["name"]): (r["home"], r["cluster"]) for r in json.loads(done.stdout)
            if not r["equal"]}  # fmt: skip
    assert rows["lending loan", "other"] == (0, 1), "the auditor counts states"
    assert rows["lending loan", "lent"] == (2, 1)
    assert rows["rule", "I22"][1] > 0, "and misses marks"
    assert "Home and cluster differ in" in done.stderr


def test_one_step_at_a_time(library: Library) -> None:
    library.busy().close()
    refused = pytest.raises(Conflict, match="works on this home")
    with library.moving() as moving, moving.alone(), refused:
        library.migrate("copy")
