"""The table and the code agree: no change that the table forbids, no row that nothing does."""

from __future__ import annotations

from typing import Any

from penstock.decision import Done, Unparked
from penstock.event import Event
from penstock.flows.orders import FLOW
from penstock.flows.orders import events as said
from penstock.flows.orders.lifecycle import (
    FINAL_STATES,
    NEW,
    ORDER,
    ORDER_STATES,
    TABLE,
    Row,
    may_follow,
    rows_for,
    table_markdown,
    trigger,
)
from tests.flows.given import answer
from tests.flows.orders.shop import ADDRESS, placed, reserved, service
from tests.flows.orders.walks import WALKS

Change = tuple[str, str, Event, str]

OK = {"id": "pay-1", "amount": 1300, "currency": "GBP"}
CANCEL = said.OrderCancelRequested()
CAPTURED = said.ProviderNotified(
    id="e", type="captured", payment="pay-1", amount_minor=1300, currency="GBP"
)
AUTHORISED = said.ProviderNotified(
    id="e", type="authorised", payment="pay-1", amount_minor=1300, currency="GBP"
)
HANDOVER = said.CarrierScanned(scan="s", shipment="o-1-1", type="handover", at=7)
REQUESTED = said.FulfillmentRequested(
    group="1", address=ADDRESS, pieces=(said.Piece(line=1, sku="POT", quantity=2),)
)
STOP = said.FulfillmentCancelRequested(reason="cancelled")
DISCARDED = Unparked(
    service="payment", topic="orders", partition=0, offset=0, event_id="", type="order.placed",
    key="o-1", kind="bug", reason="", actor="ops",
)

RARE: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("payment", (AUTHORISED, placed())),
    ("payment", (said.InventoryRejected(reason="out_of_stock"), placed())),
    ("payment", (DISCARDED,)),
    ("payment", (placed(), AUTHORISED, reserved(), DISCARDED, DISCARDED)),
    ("payment", (placed(), answer("authorise", "refused"), AUTHORISED, CAPTURED)),
    ("payment", (placed(), AUTHORISED, reserved(), answer("capture", "refused"), CAPTURED)),
    ("payment", (placed(), CANCEL, answer("authorise", **OK), answer("void"))),
    ("shipping", (REQUESTED, STOP, answer("label", label="L"), answer("void_label"), HANDOVER)),
    ("shipping", (HANDOVER, REQUESTED)),
    ("shipping", (REQUESTED, HANDOVER, STOP)),
)


def _state(document: Any) -> str:
    return getattr(document, "state", NEW)


def changes() -> list[Change]:
    """Service, state before, event, state after: of every walk and of the rare histories."""
    found = [
        (seen.service, _state(seen.before), seen.event, _state(seen.after))
        for name, walk in WALKS.items()
        for seed in range(1 if name == "short" else 40)
        for seen in walk(seed).bus.history
        if isinstance(seen.decision, Done) and not seen.event.type.startswith("stock.")
    ]
    for name, facts in RARE:
        given = service(name)
        for fact in facts:
            before, type_ = _state(given.own()), _platform_type(fact)
            event = given.event(fact, type_=type_)
            assert isinstance(given.when(event), Done), f"{name}: {fact}"
            found.append((name, before, event, _state(given.own())))
    return found


def _platform_type(fact: Any) -> str:
    names = {"Answer": "answer", "Unparked": "dead.discarded", "Wake": "wake"}
    return names.get(type(fact).__name__, "")


def test_code_and_table_agree() -> None:
    used: set[Row] = set()
    for name, before, event, after in changes():
        if name not in ("payment", "inventory", "shipping"):
            continue
        rows = rows_for(name, before, trigger(event), after)
        assert rows or before == after, f"{name}: {before} to {after} on {trigger(event)}"
        used.update(rows)
    unused = [row for row in TABLE if row.service != "order" and row not in used]
    assert not unused, "\n".join(f"{r.service} {r.states} {r.on} {r.next}" for r in unused)


def test_every_trigger_is_something_a_service_reads() -> None:
    read = {t for one in FLOW.services for types in one.reads.values() for t in types}
    for row in TABLE:
        for word in row.on:
            first = word.split()[0]
            known = first in read or word.split()[-1] in ("ok", "refused") or first == "any"
            assert known, f"{row.service}: nobody reads {word}"


def test_final_states_have_no_way_out() -> None:
    for state in FINAL_STATES:
        assert not [next_ for next_ in ORDER_STATES if may_follow(state, next_)]
    reachable = {next_ for row in ORDER for next_ in row.next}
    assert reachable == set(ORDER_STATES)


def test_the_table_renders_whole() -> None:
    text = table_markdown()
    assert text.count("\n| ") == len(TABLE) + 4  # and a heading per machine
    assert "| planned, labelled, cancelling | handover scan → dispatched | carrier |" in text
