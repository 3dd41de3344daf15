"""The auditor's reading of Avro agrees with the engine's, takes any bytes, and compares by what
values mean."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from penstock.contracts import snapshot
from penstock.contracts.avro import Schema, render
from penstock.contracts.binary import Codec, prefixed, schema_id, stable_id
from penstock.contracts.derive import derive
from penstock.contracts.snapshot import OWN_FOLDER
from penstock.errors import Malformed, Problem
from penstock.sim.audit.avro import Avro, snapshot_id
from penstock.sim.audit.books import Fact
from penstock.sim.audit.files import Unfit, snapshots
from tests.kafka.registry import Registry
from tests.properties.shapes import made, records
from tests.properties.values import values_of
from tests.support import unused_port

SNAPSHOTS = Path(__file__).parents[2] / "contracts"
TOPIC = frozenset(["t"])


def fact(value: bytes, type_: str = "a.b", topic: str = "t") -> Fact:
    """A record with this value."""
    return Fact(topic, 0, 7, 9, 0, 0, "k", value, bytes(16), type_, 1, 7, b"", "", "us")


def reading(schema: Any, registry: str = "", **how: Any) -> Avro:
    return Avro(TOPIC, {"a.b/1": schema}, registry, **how)


@pytest.mark.parametrize("folder", [SNAPSHOTS, OWN_FOLDER], ids=lambda f: f.parent.name)
def test_the_id_of_every_snapshot_is_the_writers(folder: Any) -> None:
    ours, theirs = snapshots([folder]), snapshot.load(folder)
    assert {
        f"{type_}/{version}": stable_id(schema)
        for type_, versions in theirs.items() for version, schema in versions.items()
    } == {name: snapshot_id(schema) for name, schema in ours.items()}  # fmt: skip


@settings(max_examples=100, deadline=None, derandomize=True)
@given(records, st.data())
def test_any_value_of_any_class_is_read_as_the_engine_reads_it(tree: Any, data: Any) -> None:
    model = made(tree)
    raw = msgspec.json.encode(data.draw(values_of(model)))
    schema, body = sealed(model, raw)
    avro = reading(render(schema))
    assert snapshot_id(render(schema)) == stable_id(schema)
    found = avro.opened(fact(prefixed(stable_id(schema), body)))
    assert not found.unread
    assert found.value == Codec(schema).read(body)
    assert avro.same(found, raw)


def sealed(model: Any, raw: bytes) -> tuple[Schema, bytes]:
    """The schema of a class, and JSON of it in Avro; gives up where there is no such thing."""
    try:
        schema = derive(model)
        return schema, Codec(schema).write(raw)
    except (Problem, Malformed):
        assume(False)
        raise


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=60), st.sampled_from(["order.placed/2", "stock.counted/1"]))
def test_whatever_the_bytes_are_they_are_read_as_the_engine_reads_them(
    body: bytes, name: str
) -> None:
    schema = snapshots([SNAPSHOTS])[name]
    codec = Codec(snapshot.load(SNAPSHOTS)[name[:-2]][int(name[-1])])
    found = reading(schema).opened(fact(prefixed(snapshot_id(schema), body)))
    try:
        assert found.value == codec.read(body)
    except Malformed:
        assert "it is no Avro" in found.unread
        assert found.value[5:] == body


# By what values mean -----------------------------------------------------------------------------


class Sale(msgspec.Struct):
    """What JSON spells in several ways."""

    at: dt.datetime
    price: Annotated[Decimal, msgspec.Meta(extra={"precision": 40, "scale": 2})]
    share: Annotated[float, msgspec.Meta(extra={"avro": "float"})] = 0.5
    raw: bytes = b"\xff"
    day: dt.date | None = None
    tags: list[str] = []


class WiderSale(Sale, kw_only=True):
    """What a later program of others writes."""

    more: int


SALE = derive(Sale)
SOLD: dict[str, Any] = {
    "at": "2026-11-25T08:00:00Z", "price": "1.50", "share": 0.1, "raw": "/w==", "day": None,
    "tags": [],
}  # fmt: skip


def sold() -> tuple[Avro, Fact]:
    avro = reading(render(SALE))
    body = Codec(SALE).write(json.dumps(SOLD).encode())
    return avro, avro.opened(fact(prefixed(stable_id(SALE), body)))


@pytest.mark.parametrize("spelled", [
    {"at": "2026-11-25T10:00:00+02:00"}, {"at": "2026-11-25T08:00:00.000000Z"}, {"price": "1.5"},
    {"share": 0.10000000149011612}, {"more": 1},
])  # fmt: skip
def test_the_same_value_in_other_words_is_the_same(spelled: dict[str, Any]) -> None:
    avro, found = sold()
    said = {name: value for name, value in {**SOLD, **spelled}.items() if value is not ...}
    assert avro.same(found, json.dumps(said).encode())


@pytest.mark.parametrize("spelled", [
    {"at": "2026-11-25T10:00:00Z"}, {"at": ...}, {"price": "1.51"}, {"price": "much"},
    {"raw": "/g=="}, {"raw": "?"}, {"share": ...}, {"share": 0.2}, {"day": "2026-11-25"},
    {"tags": ["new"]},
])  # fmt: skip
def test_another_value_is_another(spelled: dict[str, Any]) -> None:
    avro, found = sold()
    said = {name: value for name, value in {**SOLD, **spelled}.items() if value is not ...}
    assert not avro.same(found, json.dumps(said).encode())
    assert not avro.same(found, b"{")


def test_of_a_topic_in_json_the_bytes_are_compared() -> None:
    avro = reading(render(SALE))
    other = fact(b'{"a":1}', topic="other")
    assert avro.opened(other) == other
    assert avro.same(other, b'{"a":1}')
    assert not avro.same(other, b'{"a": 1}')


def test_a_decimal_of_many_digits_is_read_whole() -> None:
    avro = reading(render(SALE))
    body = Codec(SALE).write(json.dumps({**SOLD, "price": f"{10**30}.01"}).encode())
    found = avro.opened(fact(prefixed(stable_id(SALE), body)))
    assert msgspec.json.decode(found.value)["price"] == f"{10**30}.01"


# What cannot be read -----------------------------------------------------------------------------


def test_what_cannot_be_read_stays_as_it_lies_and_says_why() -> None:
    avro = reading(render(SALE))
    id_ = stable_id(SALE)
    body = Codec(SALE).write(json.dumps(SOLD).encode())
    values = {
        prefixed(id_ ^ 1, body): f"no snapshot has the id {id_ ^ 1}",
        prefixed(id_, body[:-1]): "it is no Avro: ",
        prefixed(id_, body + b"x"): "bytes are left over",
        b"{}": "its prefix is missing",
    }
    for value, why in values.items():
        found = avro.opened(fact(value), b"application/avro")
        assert found.value == value
        assert why in found.unread
        assert avro.same(found, value)
        assert not avro.same(found, b"{}x")
    assert "there is no snapshot of c.d/1" in avro.opened(fact(prefixed(id_, body), "c.d")).unread


def test_json_of_others_in_a_topic_in_avro_is_json() -> None:
    found = reading(render(SALE), accepts={"t": ("a.b", 1)}).opened(fact(b"{}", ""))
    assert (found.value, found.unread) == (b"{}", "")


def test_a_snapshot_that_nobody_can_read_by_is_told() -> None:
    broken: Any = {"type": "record", "name": "X", "fields": [{"name": "x", "type": "what"}]}
    avro = reading(broken)
    found = avro.opened(fact(prefixed(snapshot_id(broken), b"")))
    assert "the snapshot of a.b/1 cannot be used" in found.unread


# A registry --------------------------------------------------------------------------------------


def test_a_registry_is_asked_once_for_each_id() -> None:
    wider = derive(WiderSale, "Sale")
    raw = json.dumps({**SOLD, "more": 3}).encode()
    with Registry() as registry:
        id_ = registry.add("theirs", json.dumps(render(wider)))
        avro = reading(render(SALE), registry.url)
        value = prefixed(id_, Codec(wider).write(raw))
        assert schema_id(value) == id_
        found = [avro.opened(fact(value)) for _ in range(3)]
        assert registry.asked == [f"/schemas/ids/{id_}"]
    assert {f.unread for f in found} == {""}
    assert avro.same(found[0], json.dumps(SOLD).encode())


def test_what_a_registry_does_not_know_is_no_crash() -> None:
    with Registry() as registry:
        ids = [registry.add("theirs", text) for text in ("{", '"com.other.Sale"', "7")]
        avro = reading(render(SALE), registry.url)
        for id_ in ids:
            assert f"schema {id_} cannot be used" in avro.opened(fact(prefixed(id_, b"x"))).unread
        unknown = avro.opened(fact(prefixed(99, b"x")))
        assert "the registry does not know schema 99" in unknown.unread


def away(registry: Registry) -> None:
    registry.away = True


def a_page(registry: Registry) -> None:
    registry.page = b"<html>Log in</html>"


def a_list(registry: Registry) -> None:
    registry.page = b"[]"


@pytest.mark.parametrize("does", [away, a_page, a_list])
def test_a_registry_that_does_not_answer_is_said(does: Callable[[Registry], None]) -> None:
    with Registry() as registry:
        id_ = registry.add("theirs", json.dumps(render(SALE)))
        does(registry)
        avro = reading(render(SALE), registry.url)
        with pytest.raises(Unfit, match="registry cannot be asked"):
            avro.opened(fact(prefixed(id_, b"x")))


def test_a_registry_that_is_nowhere_is_said() -> None:
    avro = reading(render(SALE), f"http://127.0.0.1:{unused_port()}")
    with pytest.raises(Unfit, match="registry cannot be asked"):
        avro.opened(fact(prefixed(1, b"x")))
    with pytest.raises(Unfit, match="no address"):
        reading(render(SALE), "file:///etc/passwd")
