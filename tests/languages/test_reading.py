"""What penstock writes, as programs in other languages read it."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

from penstock.contracts.wire import Book
from penstock.event import Message, Origin, Record, root_id
from penstock.log.kafka import KafkaLog
from penstock.ports import TopicSpec
from tests.flows.library.events import CONTRACTS, CopiesBought, LoanEnded, LoanRequested
from tests.kafka.rig import Desk
from tests.languages.programs import Client, Line

AT = 1_795_594_179_169
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
LOANS = TopicSpec(name="loans", partitions=4)
BOOK = Book(CONTRACTS)
CAUSE = root_id(AT, "cause")
ORIGIN = Origin(812, 7)
HEX_ID = re.compile("[0-9a-f]{32}")
URI_REFERENCE = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")


def sealed(key: str, fact: Any, **envelope: Any) -> Message:
    type_, version, value = BOOK.seal(fact)
    told = {"at": AT, "cause": CAUSE, "source": "lending", **envelope}
    return Message(key, value, root_id(AT, key, type_), type_, version, **told)


WRITTEN = [
    sealed("loan/7", LoanRequested(member="Zoë", title="Война и мир")),
    sealed("loan/8", CopiesBought(count=3), source=""),
    sealed("ключ", LoanEnded(member="m", title="鍵 🚚"), trace=TRACE),
    sealed("loan/7", LoanEnded(member="m", title="t"), notes={"replay": "r-1", "Straße": "ü"}),
    sealed("loan/9", LoanEnded(member="m", title="t"), at=AT + 831, cause=b""),
]


def lying(log: KafkaLog) -> dict[tuple[int, int], Record]:
    """The records as penstock reads them, by partition and offset."""
    return {
        (r.partition, r.offset): r
        for partition, extent in enumerate(log.extent("loans")) if extent.next
        for r in log.read("loans", partition, 0, extent.next)
    }  # fmt: skip


def test_what_penstock_wrote_is_read_as_it_was_written(client: Client, desk: Desk) -> None:
    """Key, value and every header; by the letter of CloudEvents, and by a library of its own."""
    log = desk.log(LOANS)
    log.append("loans", WRITTEN, 0, [ORIGIN] * len(WRITTEN))
    there, topic = lying(log), desk.prefix + "loans"
    lines = client.run("reader", desk.servers, f"{topic}.group", topic, len(WRITTEN))
    assert {(line["partition"], line["offset"]) for line in lines} == there.keys()
    for line in lines:
        m = there[line["partition"], line["offset"]].message
        headers = dict(line["headers"])
        assert len(headers) == len(line["headers"])
        assert (line["key"], line["value"]) == (m.key, m.value.decode())
        by_the_binding(headers)
        as_written(headers, m)
        by_its_library(line["event"], m)
    types = [dict(n["headers"])["ce_type"] for n in lines if n["key"] == "loan/7"]
    assert types == ["loan.requested", "loan.ended"]  # a key's, in their order


def by_the_binding(headers: dict[str, str]) -> None:
    """What CloudEvents 1.0 demands, in the binary mode of its Kafka binding."""
    assert headers["ce_specversion"] == "1.0"
    assert HEX_ID.fullmatch(headers["ce_id"])
    assert headers["ce_type"]
    assert URI_REFERENCE.fullmatch(headers["ce_source"])
    assert datetime.fromisoformat(headers["ce_time"]).tzinfo is not None
    assert headers["content-type"] == "application/json"


def as_written(headers: dict[str, str], m: Message) -> None:
    """What our reference says that the headers mean."""
    told = headers["ce_time"]
    assert datetime.fromisoformat(told).timestamp() * 1000 == m.at
    assert told.endswith("Z")
    assert (headers["ce_id"], headers["ce_type"]) == (m.id.hex(), m.type)
    assert headers["ce_source"] == (m.source or "/")
    assert headers.get("penstock-sourceless") == (None if m.source else "")
    assert headers["penstock-schema"] == f"{m.type}/{m.version}"
    assert headers["penstock-origin"] == f"{m.cause.hex()}-{ORIGIN.txn}.{ORIGIN.epoch}"
    assert headers.get("traceparent") == (m.trace or None)
    noted = {n[14:]: said for n, said in headers.items() if n.startswith("penstock-note-")}
    assert noted == (m.notes or {})


def by_its_library(event: Line, m: Message) -> None:
    """What the CloudEvents SDK of the language makes of the record."""
    data = json.loads(event.pop("data"))
    assert event == {
        "specversion": "1.0", "id": m.id.hex(), "type": m.type, "source": m.source or "/",
        "at": m.at, "content": "application/json",
    }  # fmt: skip
    assert data == json.loads(m.value)
