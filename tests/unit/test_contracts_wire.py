"""Open and seal: records of every version come back as the current class, or say why not."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw, Struct

from penstock.contracts.contract import Contract, Older
from penstock.contracts.own import OWN
from penstock.contracts.wire import Book, as_is
from penstock.decision import Answer, Unparked, Wake
from penstock.entry import Entry
from penstock.errors import Malformed, Problem, UnknownSchema


class PlacedV1(Struct, frozen=True, kw_only=True):
    order: str
    pounds: float


class PlacedV2(Struct, frozen=True, kw_only=True):
    order: str
    pence: int


class Placed(Struct, frozen=True, kw_only=True):
    order: str
    minor: int
    currency: str
    note: str = ""


class Cancelled(Struct, frozen=True, kw_only=True):
    order: str


def _pence(old: PlacedV1) -> PlacedV2:
    return PlacedV2(order=old.order, pence=round(old.pounds * 100))


def _minor(old: PlacedV2) -> Placed:
    return Placed(order=old.order, minor=old.pence, currency="GBP")


FIRST, SECOND = Older(1, PlacedV1, _pence), Older(2, PlacedV2, _minor)
PLACED = Contract(type="shop.placed", version=3, model=Placed, older=(FIRST, SECOND))
BOOK = Book([PLACED, Contract(type="shop.cancelled", version=1, model=Cancelled)])
STORED_V1 = b'{"order":"o-1","pounds":12.5,"gone":{"x":[1]}}'


def test_what_is_sealed_opens_again() -> None:
    placed = Placed(order="o-1", minor=1250, currency="GBP", note="ring twice")
    type_, version, raw = BOOK.seal(placed)
    assert (type_, version) == ("shop.placed", 3)
    assert BOOK.open(type_, version, raw) == placed


def test_a_stored_record_of_version_1_is_brought_up_step_by_step() -> None:
    wanted = Placed(order="o-1", minor=1250, currency="GBP")
    assert BOOK.open("shop.placed", 1, STORED_V1) == wanted
    assert BOOK.open("shop.placed", 2, b'{"order":"o-1","pence":1250}') == wanted


def test_unknown_fields_are_ignored_and_defaults_filled() -> None:
    opened = BOOK.opener("shop.placed", 3)(b'{"order":"o","minor":1,"currency":"EUR","new":[{}]}')
    assert opened == Placed(order="o", minor=1, currency="EUR")


@pytest.mark.parametrize(
    "raw", [b"", b"\xff", b"{", b"[]", b'{"order":1}', b'{"order":"o"}', b"[" * 100_000]
)
@pytest.mark.parametrize("version", [1, 2, 3])
def test_bytes_that_no_contract_opens_are_malformed(raw: bytes, version: int) -> None:
    with pytest.raises(Malformed, match=f"shop.placed/{version}: "):
        BOOK.open("shop.placed", version, raw)


@pytest.mark.parametrize(
    ("type_", "version"),
    [
        ("", 1),
        ("Shop.Placed", 1),
        ("shop..placed", 1),
        ("a" * 256, 1),
        ("shop placed", 1),
        ("shop.placed", 0),
        ("shop.placed", -1),
        ("shop.placed", 1 << 31),
        ("shop.new", 0),
    ],
)
def test_an_ill_formed_reference_is_malformed(type_: str, version: int) -> None:
    with pytest.raises(Malformed):
        BOOK.open(type_, version, b"{}")


@pytest.mark.parametrize(("type_", "version"), [("shop.placed", 4), ("shop.new", 1)])
def test_a_well_formed_reference_may_come_to_be_known(type_: str, version: int) -> None:
    with pytest.raises(UnknownSchema, match=f"{type_}/{version}"):
        BOOK.open(type_, version, b"{}")


def test_an_upcast_that_fails_makes_the_record_malformed() -> None:
    def broken(old: Any) -> Any:
        raise KeyError("rate")

    older = Older(1, PlacedV1, broken)
    book = Book([Contract(type="shop.placed", version=2, model=Placed, older=(older,))])
    with pytest.raises(Malformed, match="upcast failed: KeyError: 'rate'"):
        book.open("shop.placed", 1, STORED_V1)


def test_upcasts_that_end_in_another_class_are_refused() -> None:
    older = Older(1, PlacedV1, as_is)
    book = Book([Contract(type="shop.placed", version=2, model=Placed, older=(older,))])
    with pytest.raises(Malformed, match="end in PlacedV1"):
        book.open("shop.placed", 1, STORED_V1)


def test_a_version_that_reads_unchanged_needs_no_class_of_its_own() -> None:
    older = Older(1, Placed, as_is)
    book = Book([Contract(type="shop.placed", version=2, model=Placed, older=(older,))])
    opened = book.open("shop.placed", 1, b'{"order":"o","minor":1,"currency":"EUR"}')
    assert opened == Placed(order="o", minor=1, currency="EUR")


def chain(*versions: int, version: int = 3) -> Contract:
    older = tuple(Older(v, PlacedV1, as_is) for v in versions)
    return Contract(type="shop.placed", version=version, model=Placed, older=older)


@pytest.mark.parametrize(
    ("contracts", "code"),
    [
        ([chain(1)], "upcast_gap"),
        ([chain(1, 3, version=4)], "upcast_gap"),
        ([chain(1, 1, 2)], "upcast_twice"),
        ([chain(2, 1)], "upcast_order"),
        ([chain(3)], "upcast_order"),
        ([chain(0, 1, 2)], "upcast_order"),
        ([PLACED, PLACED], "contract_twice"),
        ([Contract(type="answer", version=1, model=Placed)], "contract_twice"),
        ([Contract(type="Shop", version=1, model=Placed)], "contract_type"),
        ([Contract(type="shop", version=0, model=Placed)], "contract_version"),
    ],
)
def test_a_book_with_a_broken_chain_is_refused(contracts: list[Contract], code: str) -> None:
    with pytest.raises(Problem) as caught:
        Book(contracts)
    assert caught.value.code == code


def test_a_chain_may_start_above_version_1() -> None:
    book = Book([chain(2)])
    with pytest.raises(UnknownSchema, match="known are 2, 3"):
        book.open("shop.placed", 1, b"{}")


def test_a_class_without_a_contract_cannot_be_sealed() -> None:
    class Subclass(Cancelled, frozen=True):
        pass

    with pytest.raises(Problem, match="has no contract"):
        BOOK.seal(Subclass(order="o"))


def test_a_class_of_several_types_is_sealed_by_naming_one() -> None:
    left = Unparked(
        service="s", topic="t", partition=0, offset=1, event_id="00", type="shop.placed",
        key="o", kind="k", reason="r", actor="ann",
    )  # fmt: skip
    with pytest.raises(Problem, match=r"serves several types: dead\.discarded, dead\.retried"):
        BOOK.seal(left)
    type_, version, raw = BOOK.seal_as("dead.retried", left)
    assert (type_, version) == ("dead.retried", 2)
    assert BOOK.open("dead.discarded", 1, raw) == left
    assert BOOK.open("dead.discarded", 2, raw) == left
    with pytest.raises(Problem, match="takes Cancelled"):
        BOOK.seal_as("shop.cancelled", left)
    with pytest.raises(Problem, match=r"shop\.nothing has no contract"):
        BOOK.seal_as("shop.nothing", left)


def test_the_engine_s_own_contracts_are_in_every_book() -> None:
    assert {c.type: c.model for c in OWN}["wake"] is Wake
    entries = {c.type: c.model for c in OWN if issubclass(c.model, Entry)}
    assert entries.keys() >= {"deadletter.retry_requested", "deadletter.discard_requested"}
    assert all(type_ == model.ACT for type_, model in entries.items())
    answer = Answer(
        ask="a", name="charge", gateway="pay", outcome="ok", idempotency_key="k",
        body=Raw(b'{"amount":5}'),
    )  # fmt: skip
    type_, version, raw = BOOK.seal(answer)
    opened = BOOK.open(type_, version, raw)
    assert (type_, bytes(opened.body)) == ("answer", b'{"amount":5}')
    assert BOOK.version("answer") == 1
    assert BOOK.version("shop.nothing") == 0
