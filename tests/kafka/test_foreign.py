"""Records that other programs write with plain clients, as the log gives them to the engine."""

from __future__ import annotations

import ctypes
from pathlib import Path

import confluent_kafka
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType

from penstock.engine.unit import KEY_BYTES as UNITS_KEY_BYTES
from penstock.engine.unit import admitted
from penstock.log.kafka import TIME_MAX, UNNAMED
from penstock.log.kafka_headers import KEY_BYTES, Reader
from penstock.ports import TopicSpec
from tests.kafka.rig import Desk
from tests.support import eventually

STEPS = TopicSpec(name="steps", partitions=1)
ACCEPTS = {"steps": ("step.taken", 1)}
SENT = {
    "key": b"k", "value": b'{"n":1}',
    "headers": [
        ("ce_specversion", b"1.0"), ("ce_id", b"A-17"), ("ce_source", b"/till"),
        ("ce_type", b"com.till.sold"), ("ce_time", b"2026-11-25T08:00:00Z"), ("shop", b"7"),
    ],
}  # fmt: skip


def test_a_cloudevent_of_another_maker_sent_twice_is_one_event(desk: Desk) -> None:
    log = desk.log(STEPS)
    other = {**SENT, "headers": [("ce_id", b"A-18"), ("ce_source", b"/till")]}
    desk.produce("steps", SENT, SENT, other)
    raw = log.read("steps", 0, 0, 10)
    assert {r.message.type for r in raw} == {""}
    first, again, third = (admitted(ACCEPTS, record).message for record in raw)
    assert (first.type, first.version, first.source) == ("step.taken", 1, "/till")
    assert first.notes == {"shop": "7"}
    assert len(first.id) == 16
    assert first.id == again.id != third.id


def test_records_without_headers_are_events_of_their_own(desk: Desk) -> None:
    log = desk.log(STEPS)
    desk.produce("steps", *({"key": b"k", "value": b'{"n":1}'},) * 2)
    one, two = (admitted(ACCEPTS, record).message for record in log.read("steps", 0, 0, 10))
    assert one.id != two.id
    again = admitted(ACCEPTS, log.read("steps", 0, 1, 1)[0]).message
    assert again.id == two.id, "another look at the same place is the same event"


def test_odd_records_stop_nothing(desk: Desk) -> None:
    """No key, a key that is no text, no value, nothing at all: each is there with its bytes."""
    log = desk.log(STEPS)
    desk.produce(
        "steps", {"value": b"x"}, {"key": b"\xff\x00", "value": b"y"}, {"key": b"k"}, {},
    )  # fmt: skip
    found = [(r.message.key, r.message.value) for r in log.read("steps", 0, 0, 10)]
    assert found == [("", b"x"), ("\\xff\\x00", b"y"), ("k", b""), ("", b"")]
    admitted_types = [admitted(ACCEPTS, r).message.type for r in log.read("steps", 0, 0, 10)]
    assert admitted_types == ["", "", "step.taken", ""]


def test_a_time_that_no_id_can_hold_is_bounded(desk: Desk) -> None:
    """A topic of somebody else's, which takes its writers' times, in whatever unit."""
    log = desk.log(STEPS)
    log.keep_times(["steps"], True)
    admin = AdminClient({"bootstrap.servers": desk.servers})
    entry = ConfigEntry(
        "message.timestamp.after.max.ms", str((1 << 63) - 1),
        incremental_operation=AlterConfigOpType.SET,
    )
    resource = ConfigResource(ResourceType.TOPIC, log.name("steps"), incremental_configs=[entry])
    admin.incremental_alter_configs([resource])[resource].result(10)
    nanos = 1_795_594_179_169_000_000

    def sent() -> bool:
        try:
            desk.produce("steps", {**SENT, "headers": [], "timestamp": nanos})
        except AssertionError:  # not every broker has heard of the change
            return False
        return True

    eventually(sent)
    (record,) = log.read("steps", 0, 0, 10)
    assert record.appended_at == TIME_MAX
    assert len(admitted(ACCEPTS, record).message.id) == 16


def produce_with_header(desk: Desk, topic: str, name: bytes) -> None:
    """As only a client in C can: the name of a header may be any bytes."""
    folder = Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs"
    lib = ctypes.CDLL(str(next(folder.glob("librdkafka*"))))
    size, pointer, said = ctypes.c_size_t, ctypes.c_void_p, ctypes.create_string_buffer(512)
    for made in (lib.rd_kafka_conf_new, lib.rd_kafka_new, lib.rd_kafka_headers_new):
        made.restype = pointer
    conf = pointer(lib.rd_kafka_conf_new())
    lib.rd_kafka_conf_set(conf, b"bootstrap.servers", desk.servers.encode(), said, size(512))
    client, headers = pointer(lib.rd_kafka_new(0, conf, said, size(512))), lib.rd_kafka_headers_new
    named = pointer(headers(size(1)))
    lib.rd_kafka_header_add(named, name, ctypes.c_ssize_t(len(name)), b"v", ctypes.c_ssize_t(1))
    where = (desk.prefix + topic).encode()
    sent = lib.rd_kafka_producev(
        client, 1, where, 4, b'{"n":1}', size(7), 5, b"k", size(1), 10, named, 0
    )
    assert (sent, lib.rd_kafka_flush(client, 20_000)) == (0, 0)
    lib.rd_kafka_destroy(client)


def test_headers_whose_names_are_no_text_stop_nothing(desk: Desk) -> None:
    """However often the interpreter has been there: it stops looking whether a call went well."""
    log = desk.log(STEPS)
    desk.produce("steps", *(SENT,) * 50)
    for _ in range(3):
        produce_with_header(desk, "steps", b"\xff\xfe")
    desk.produce("steps", SENT)
    for _ in range(5):
        found = [admitted(ACCEPTS, record).message for record in log.read("steps", 0, 0, 100)]
    assert [m.notes for m in found] == [{"shop": "7"}] * 50 + [{UNNAMED: ""}] * 3 + [{"shop": "7"}]
    assert {(m.type, m.key, m.value) for m in found} == {("step.taken", "k", b'{"n":1}')}


def test_engine_and_log_mean_the_same_note() -> None:
    assert UNITS_KEY_BYTES == KEY_BYTES
    assert Reader().message(b"\xff", b"", None).notes == {KEY_BYTES: "ff"}
