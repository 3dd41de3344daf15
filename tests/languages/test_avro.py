"""A topic in Avro: others read it by the committed schema, and penstock reads what they write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from msgspec import json as msgspec_json

from penstock.contracts.binary import stable_id
from penstock.contracts.snapshot import load
from penstock.event import Message, root_id
from penstock.flows.orders.events import OrderPlaced
from penstock.log.kafka_avro import AvroWire
from penstock.ports import TopicSpec
from tests.kafka.rig import Desk
from tests.languages.programs import Client

CONTRACTS = Path(__file__).resolve().parents[2] / "contracts"
TYPE, VERSION = "order.placed", 2
PLACED = TopicSpec(name="placed", partitions=1, wire="avro")
FOREIGN = TopicSpec(name="foreign", partitions=1, wire="avro", accepts=(TYPE, VERSION))
LARGE = 2**53 - 2  # beyond it a JavaScript number is inexact, and Node's library refuses
AT = 1_795_594_179_169


def order(number: int, deadline: int | None) -> dict[str, Any]:
    return {
        "order_ref": f"till-{number}", "client": "till",
        "customer": {"id": "c-1", "name": "Zoë", "email": "zoe@example.com"},
        "address": {
            "name": "Zoë", "street": "Straße 7", "city": "Köln", "postcode": "50667",
            "country": "DE",
        },
        "currency": "EUR", "lines": [], "total_minor": LARGE, "payment_method": "tok_ok",
        "deadline_seconds": deadline, "placed_at": AT,
    }  # fmt: skip


def sealed(number: int, deadline: int | None) -> Message:
    """An order as the flow would write it: its contract fills what is not said."""
    fact = msgspec_json.decode(msgspec_json.encode(order(number, deadline)), type=OrderPlaced)
    key = f"o-{number}"
    return Message(key, msgspec_json.encode(fact), root_id(AT, key), TYPE, VERSION, AT)


def test_values_go_out_and_come_back(client: Client, desk: Desk) -> None:
    snapshots = load(CONTRACTS)
    log = desk.quiet(PLACED, FOREIGN, wire=AvroWire(snapshots))
    log.ensure([PLACED, FOREIGN])
    sent = [sealed(1, 3600), sealed(2, None)]
    log.append("placed", sent, 0)
    topic, other = desk.prefix + "placed", desk.prefix + "foreign"
    schema = CONTRACTS / TYPE / f"v{VERSION}.avsc"
    seen = client.run(
        "avro", desk.servers, f"{topic}.{client.language}", topic, len(sent), schema, other,
        "order_ref", "changed ü",
    )  # fmt: skip
    assert [line["id"] for line in seen] == [stable_id(snapshots[TYPE][VERSION])] * 2
    assert [json.loads(line["value"])["order_ref"] for line in seen] == ["till-1", "till-2"]
    assert [json.loads(line["value"])["total_minor"] for line in seen] == [LARGE] * 2
    back = [r.message for r in log.read("foreign", 0, 0, 2)]
    assert [m.key for m in back] == ["o-1", "o-2"]
    for m, original in zip(back, sent, strict=True):
        assert m.type == ""  # somebody else's: the engine gives it its envelope
        assert json.loads(m.value) == {**json.loads(original.value), "order_ref": "changed ü"}
