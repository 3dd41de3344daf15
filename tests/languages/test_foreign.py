"""Other programs write to a topic that takes such: what is right is handled, what is wrong is set
aside with its bytes, and nothing else stands still."""

from __future__ import annotations

import json

from tests.engine.tally import steps, tally_rig
from tests.flows.ground import Servers
from tests.flows.rig import Rig
from tests.kafka.rig import Desk
from tests.languages.programs import Client, Line

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def taking(servers: Servers) -> Rig:
    return tally_rig(servers, accepts={"steps": "step.taken/1"})


def write(client: Client, servers: Servers, *lines: Line) -> None:
    places = client.run("writer", servers.kafka, servers.prefix + "steps", lines=lines)
    assert len(places) == len(lines)


def step(key: str | None, n: int, **more: object) -> Line:
    return {"key": key, "value": json.dumps({"n": n, **more})}


def as_event(line: Line, id_: str, **headers: str) -> Line:
    """The record as a program with a CloudEvents library would send it."""
    told = {
        "ce_specversion": "1.0", "ce_id": id_, "ce_source": "https://till.example/7",
        "ce_type": "com.example.step", "ce_time": "2026-11-25T08:09:39+01:00",
        "content-type": "application/json", **headers,
    }  # fmt: skip
    return {**line, "headers": told}


def test_its_records_are_handled_and_what_follows_is_read_by_it(
    client: Client, servers: Servers
) -> None:
    rig = taking(servers)
    told = as_event(step("ключ", 3, tell=True), "A-1", traceparent=TRACE)
    write(client, servers, step("k", 1), step("k", 2), step("ключ", 2), told)
    rig.run()
    assert steps(rig, "k") == (1, 2)
    assert steps(rig, "ключ") == (2, 3)
    topic = servers.prefix + "sums"
    (line,) = client.run("reader", servers.kafka, f"{topic}.{client.language}", topic, 1)
    headers = dict(line["headers"])
    assert (line["key"], json.loads(line["value"])) == ("ключ", {"n": 3, "total": 5})
    assert (headers["ce_type"], headers["ce_source"]) == ("sum.told", "tally")
    assert headers["traceparent"] == TRACE


def test_one_event_sent_twice_is_handled_once(client: Client, servers: Servers) -> None:
    rig = taking(servers)
    event = as_event(step("k", 1), "A-17")
    write(client, servers, event, event, as_event(step("k", 2), "A-18"))
    rig.run().wait(1000)
    write(client, servers, event)
    rig.run()
    assert steps(rig, "k") == (1, 2)
    assert rig.waiting("tally") == []


WRONG: dict[str, str | None] = {
    "no JSON": "{no", "no text": "\ufeff\x00", "wrong type": '{"n":"x"}', "no object": "[1]",
    "twice": '{"n":1,"n":2}', "no number": '{"n":NaN}', "empty": "", "tombstone": None,
}  # fmt: skip


def test_garbage_is_parked_with_its_bytes_and_nothing_else_stops(
    client: Client, servers: Servers
) -> None:
    rig = taking(servers)
    garbage = [{"key": key, "value": value} for key, value in WRONG.items()]
    good = [step(f"good {n}", n) for n in range(8)]
    write(client, servers, *good, *garbage, step(None, 9), step(None, 9), *good)
    rig.run()
    assert [steps(rig, f"good {n}") for n in range(8)] == [(n, n) for n in range(8)]
    rows = [row.body for row in rig.rows("tally", "waiting")]
    assert {row.kind for row in rows} == {"malformed"}
    assert sorted(row.state for row in rows) == ["aside"] * 2 + ["parked"] * len(WRONG)
    kept = {row.record.message.key: row.record.message.value for row in rows}
    assert kept == {
        "": b'{"n": 9}', **{key: (value or "").encode() for key, value in WRONG.items()}
    }
    assert len(rig.records("tally.dead")) == len(rows) == len(WRONG) + 2
    assert not rig.workers["tally"].trouble


def test_a_key_in_wrong_partitions_is_handled_and_parked_in_each_on_its_own(
    servers: Servers,
) -> None:
    """As clients of librdkafka write that were not told how to choose."""
    rig, desk = taking(servers), Desk(servers.kafka, servers.prefix)
    wrong = [{"key": b"k", "value": b"{no", "partition": lane} for lane in range(4)]
    right = [{"key": b"m", "value": b'{"n":1}', "partition": lane} for lane in range(4)]
    desk.produce("steps", *wrong, *right)
    rig.run()
    assert steps(rig, "m") == (1, 1, 1, 1)
    assert rig.waiting("tally") == [("k", "parked", 0)] * 4
    rig.start("tally")
    for row in rig.rows("tally", "waiting"):
        rig.operate("deadletter.discard_requested", row.body.record, "tally")
    assert rig.run().waiting("tally") == []
    assert not rig.workers["tally"].trouble
