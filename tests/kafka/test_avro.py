"""Topics in Avro: others read the values with their own clients, penstock reads JSON again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import fastavro
import pytest
from msgspec import Struct

from penstock.contracts.avro import Schema, render
from penstock.contracts.binary import prefixed, schema_id, stable_id
from penstock.contracts.derive import derive
from penstock.errors import NotFound, Problem, Unreachable
from penstock.event import Message, Record
from penstock.log.kafka import KafkaLog
from penstock.log.kafka_avro import AvroWire
from penstock.ports import TopicSpec
from tests.kafka.registry import Registry
from tests.kafka.rig import Desk, take_all
from tests.support import eventually, unused_port


class Step(Struct):
    """The contract."""

    n: int
    said: str = ""
    raw: bytes = b""


class WiderStep(Struct):
    """What a later program of others writes."""

    n: int
    said: str
    raw: bytes
    more: int


STEP, WIDER = derive(Step, "StepTaken"), derive(WiderStep, "StepTaken")
SCHEMAS: dict[str, dict[int, Schema]] = {"step.taken": {1: STEP}}
STEPS = TopicSpec(name="steps", partitions=1, wire="avro")
TAKING = TopicSpec(name="steps", partitions=1, wire="avro", accepts=("step.taken", 1))
VALUE = b'{"n":7,"said":"\xc3\xa4","raw":"/w=="}'
SENT = Message("k", VALUE, bytes(16), "step.taken", 1, 1_795_594_179_169, bytes(16), "", "us")


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as registry:
        yield registry


def open_log(desk: Desk, spec: TopicSpec, registry: str = "", schemas: Any = SCHEMAS) -> KafkaLog:
    log = desk.quiet(spec, wire=AvroWire(schemas, registry))
    log.ensure([spec])
    return log


def read(log: KafkaLog, start: int = 0) -> Record:
    return log.read("steps", 0, start, 1)[0]


def avro_of(schema: Any, value: dict[str, Any]) -> bytes:
    out = BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), value)
    return out.getvalue()


def test_values_lie_there_as_avro_and_are_read_as_the_json_they_were(desk: Desk) -> None:
    log = open_log(desk, STEPS)
    log.append("steps", [SENT], 0)
    (raw,) = desk.consume("steps", 1, 1)
    value = raw.value()
    assert isinstance(value, bytes)
    assert dict(raw.headers() or ())["content-type"] == b"application/avro"
    assert schema_id(value) == stable_id(STEP)
    theirs = fastavro.schemaless_reader(
        BytesIO(value[5:]), fastavro.parse_schema(render(STEP)), None
    )
    assert theirs == {"n": 7, "said": "ä", "raw": b"\xff"}
    assert read(log).message == SENT
    lane = log.join("readers", ["steps"])
    assert take_all(lane, 1, {("steps", 0): 0}).records[0].message == SENT


def test_a_registry_gives_the_ids_and_is_asked_once(desk: Desk, registry: Registry) -> None:
    log = open_log(desk, STEPS, registry.url)
    log.append("steps", [SENT] * 3, 0)
    log.append("steps", [SENT], 0)
    subject = f"{desk.prefix}steps-StepTaken"
    assert registry.asked == [f"/subjects/{subject}/versions"]
    assert json.loads(registry.schemas[0]) == render(STEP)
    raw = desk.consume("steps", 4, 1)[0].value()
    assert isinstance(raw, bytes)
    assert schema_id(raw) == 1
    other = open_log(desk, STEPS, registry.url)
    assert read(other).message == SENT
    assert registry.asked[1:] == ["/schemas/ids/1"]


def test_a_foreign_record_is_read_with_its_writers_schema(desk: Desk, registry: Registry) -> None:
    log = open_log(desk, TAKING, registry.url)
    id_ = registry.add("other", json.dumps(render(WIDER)))
    body = avro_of(render(WIDER), {"n": 3, "said": "hi", "raw": b"", "more": 9})
    desk.produce("steps", {"key": b"k", "value": prefixed(id_, body)})
    message = read(log).message
    assert (message.type, message.key) == ("", "k")
    assert json.loads(message.value) == {"n": 3, "said": "hi", "raw": ""}


def test_what_cannot_be_read_stays_as_it_lies(desk: Desk, registry: Registry) -> None:
    log = open_log(desk, TAKING, registry.url)
    id_ = registry.add("other", json.dumps(render(STEP)))
    values = [b"", b"{}", b"\x00\x00", prefixed(999, b"x"), prefixed(id_, b"\xff\xff")]
    desk.produce("steps", *({"key": b"k", "value": value} for value in values))
    assert [read(log, n).message.value for n in range(len(values))] == values


def test_a_registry_that_refuses_or_is_away_is_told_of(desk: Desk, registry: Registry) -> None:
    log = open_log(desk, STEPS, registry.url)
    registry.refuse.add(f"{desk.prefix}steps-StepTaken")
    with pytest.raises(Problem, match="incompatible with an earlier schema"):
        log.append("steps", [SENT], 0)
    away = open_log(desk, STEPS, f"http://127.0.0.1:{unused_port()}")
    with pytest.raises(Unreachable, match="registry does not answer"):
        away.append("steps", [SENT], 0)
    assert log.extent("steps")[0].next == 0


def test_a_lane_waits_for_a_registry_that_is_away_and_goes_on(
    desk: Desk, registry: Registry
) -> None:
    log = open_log(desk, TAKING, registry.url)
    id_ = registry.add("other", json.dumps(render(STEP)))
    registry.away = True
    body = avro_of(render(STEP), {"n": 3, "said": "hi", "raw": b""})
    desk.produce("steps", {"key": b"k", "value": prefixed(id_, body)})
    lane = log.join("readers", ["steps"])
    found: list[Record] = []

    def said() -> str:
        try:
            found.extend(lane.take(10, {("steps", 0): 0}).records)
        except Unreachable as error:
            return str(error)
        return ""

    assert "registry does not answer" in eventually(said, 20, what="the lane says why")
    registry.away = False
    eventually(lambda: said() == "" and found, 20, what="the record comes")
    assert json.loads(found[0].message.value) == {"n": 3, "said": "hi", "raw": ""}


@pytest.mark.parametrize("page", [b"<html>Log in</html>", b"[]", b'{"id":null}'])
def test_what_is_no_registry_is_told_as_one_that_is_away(
    desk: Desk, registry: Registry, page: bytes
) -> None:
    log = open_log(desk, TAKING, registry.url)
    desk.produce("steps", {"key": b"k", "value": prefixed(1, b"x")})
    registry.page = page
    for call in (lambda: log.append("steps", [SENT], 0), lambda: read(log)):
        with pytest.raises(Unreachable, match="no schema registry"):
            call()


def test_a_schema_that_nobody_can_read_by_leaves_the_value_as_it_is(
    desk: Desk, registry: Registry
) -> None:
    """One that names types which the registry keeps elsewhere; and what is no JSON at all."""
    log = open_log(desk, TAKING, registry.url)
    ids = [registry.add("other", text) for text in ('"com.other.Sale"', "{")]
    values = [prefixed(id_, b"x") for id_ in ids]
    desk.produce("steps", *({"key": b"k", "value": value} for value in values))
    assert [read(log, n).message.value for n in range(2)] == values


def test_a_value_or_a_type_without_a_schema_is_refused(desk: Desk) -> None:
    log = open_log(desk, STEPS)
    with pytest.raises(Problem, match="cannot be written as Avro"):
        log.append("steps", [Message("k", b"[]", bytes(16), "step.taken", 1)], 0)
    with pytest.raises(NotFound, match="no schema snapshot"):
        log.append("steps", [Message("k", VALUE, bytes(16), "step.taken", 2)], 0)
