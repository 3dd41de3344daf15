"""The sandbox carrier: labels, voids, and scans that reach the door at least once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import httpx
import pytest

from tests.flows.orders.sandbox_process import Door, Sandbox, open_door, running
from tests.support import eventually

FAST = ("--handover-seconds", "0", "--delivery-seconds", "0.01")
LATE = ("--handover-seconds", "3600", "--delivery-seconds", "7200")


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    with open_door() as door:
        yield door


@pytest.fixture(scope="module")
def carrier(tmp_path_factory: pytest.TempPathFactory, door: Door) -> Iterator[Sandbox]:
    home = tmp_path_factory.mktemp("carrier")
    with running("carrier", home, "--door", door.url, *FAST) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A carrier that comes for the parcel in an hour."""
    with running("carrier", tmp_path_factory.mktemp("patient"), *LATE) as sandbox:
        yield sandbox


def label(sandbox: Sandbox, order: str) -> httpx.Response:
    return sandbox.post(
        "/labels",
        f"label:{order}/s1",
        order=order,
        shipment="s1",
        address={"name": "A. Buyer", "country": "DE"},
        lines=[{"sku": "A", "quantity": 2}],
    )


def void(sandbox: Sandbox, order: str, label: str = "lbl") -> httpx.Response:
    key = f"void-label:{order}/s1"
    return sandbox.post("/labels/void", key, order=order, shipment="s1", label=label)


def scans(door: Door, order: str, count: int) -> list[str]:
    """The types of an order's scans in the order they came, once there are ``count``."""

    def seen() -> list[str]:
        return [s["type"] for s in door.received if s["reference"] == f"{order}/s1"]

    eventually(lambda: len(seen()) >= count, what=f"{count} scans of {order}")
    return seen()


def test_a_label_is_followed_by_its_scans(carrier: Sandbox, door: Door) -> None:
    answer = label(carrier, "life")
    assert answer.status_code == 200
    assert sorted(answer.json()) == ["carrier", "label", "tracking"]
    assert scans(door, "life", 2) == ["handover", "delivered"]
    handover, delivered = (s for s in door.received if s["reference"] == "life/s1")
    assert handover["path"] == "/webhooks/carrier"
    assert handover["scan"] != delivered["scan"]
    assert datetime.fromisoformat(handover["at"]) < datetime.fromisoformat(delivered["at"])


def test_a_key_gets_its_label_again_and_the_parcel_moves_once(carrier: Sandbox, door: Door) -> None:
    assert label(carrier, "twice").content == label(carrier, "twice").content
    scans(door, "twice", 2)
    assert len(carrier.ledger("twice")["deliveries"]) == 2
    assert carrier.effects("twice") == ["label"]


def test_a_handed_over_parcel_keeps_its_label(carrier: Sandbox, door: Door) -> None:
    label_id = label(carrier, "moving").json()["label"]
    scans(door, "moving", 1)
    answer = void(carrier, "moving", label_id)
    assert (answer.status_code, answer.json()["reason"]) == (409, "handed over")


def test_a_voided_label_has_no_scan(patient: Sandbox) -> None:
    label_id = label(patient, "stopped").json()["label"]
    assert void(patient, "stopped", label_id).json() == {"state": "voided"}
    deliveries = patient.ledger("stopped")["deliveries"]
    assert [(d["cancelled_at"] > 0, d["next_at"]) for d in deliveries] == [(True, None)] * 2


def test_a_void_before_the_label_stops_it(patient: Sandbox) -> None:
    assert void(patient, "early").status_code == 200
    answer = label(patient, "early")
    assert (answer.status_code, answer.json()["reason"]) == (409, "voided")


def test_a_refused_void_can_be_scripted(patient: Sandbox) -> None:
    patient.script("void_label", "void_refused", order="stuck")
    label_id = label(patient, "stuck").json()["label"]
    assert void(patient, "stuck", label_id).status_code == 409
    assert [d["cancelled_at"] for d in patient.ledger("stuck")["deliveries"]] == [None, None]


def test_the_delivery_scan_can_come_first(carrier: Sandbox, door: Door) -> None:
    carrier.script("label", "delivered_first", order="swapped")
    label(carrier, "swapped")
    assert scans(door, "swapped", 2) == ["delivered", "handover"]


def test_a_scan_can_come_twice_with_one_id(carrier: Sandbox, door: Door) -> None:
    carrier.script("label", "scan_twice", order="echo")
    label(carrier, "echo")
    scans(door, "echo", 4)
    ids = [s["scan"] for s in door.received if s["reference"] == "echo/s1"]
    assert (len(ids), len(set(ids))) == (4, 2)


def test_a_parcel_without_scans_is_never_handed_over(carrier: Sandbox) -> None:
    carrier.script("label", "no_scan", order="still")
    label_id = label(carrier, "still").json()["label"]
    assert carrier.ledger("still")["deliveries"] == []
    assert void(carrier, "still", label_id).status_code == 200


def test_scans_can_be_switched_off(tmp_path: Path) -> None:
    with running("carrier", tmp_path, "--scans", "off") as carrier:
        assert label(carrier, "quiet").status_code == 200
        assert carrier.ledger("quiet")["deliveries"] == []


def test_an_address_can_be_refused(patient: Sandbox) -> None:
    patient.script("label", "decline", order="nowhere")
    answer = label(patient, "nowhere")
    assert (answer.status_code, answer.json()["reason"]) == (409, "address")


def test_an_unanswered_label_is_found_by_its_key(patient: Sandbox) -> None:
    patient.script("label", "5xx_after", order="lost")
    assert label(patient, "lost").status_code == 500
    found = patient.http.get("/labels/label:lost%2Fs1").json()
    assert found["body"] == label(patient, "lost").json()
    assert patient.effects("lost") == ["label"]


def test_a_scan_is_sent_until_the_door_takes_it(tmp_path: Path) -> None:
    with (
        open_door(lambda count: 202 if count > 3 else 503) as door,
        running("carrier", tmp_path, "--door", door.url, *FAST) as carrier,
    ):
        label(carrier, "o")
        door.wait_for(5)
        sent = eventually(lambda: all(d["sent_at"] for d in carrier.ledger("o")["deliveries"]))
        assert sent
        assert sum(d["attempts"] for d in carrier.ledger("o")["deliveries"]) == 5


def test_pending_scans_survive_a_kill(tmp_path: Path) -> None:
    """Killed while the door is shut: after the restart every parcel is scanned."""
    orders = [f"o{number}" for number in range(20)]
    with (
        open_door(lambda _count: 503) as shut,
        running("carrier", tmp_path, "--door", shut.url, *FAST) as carrier,
    ):
        labels = {order: label(carrier, order).json() for order in orders}
        shut.wait_for(1)
        carrier.kill()
    with open_door() as door, running("carrier", tmp_path, "--door", door.url, *FAST) as carrier:
        assert {order: label(carrier, order).json() for order in orders} == labels
        door.wait_for(40)
        scanned = {(s["reference"], s["type"]) for s in door.received}
    expected = {(f"{o}/s1", type_) for o in orders for type_ in ("handover", "delivered")}
    assert scanned == expected


@pytest.mark.parametrize("quantity", [0, -1, "2"])
def test_a_malformed_label_is_refused(patient: Sandbox, quantity: object) -> None:
    lines = [{"sku": "A", "quantity": quantity}]
    answer = patient.post("/labels", "bad", order="bad", shipment="s", address={}, lines=lines)
    assert answer.status_code == 400
    assert "lines[0].quantity" in answer.json()["reason"]
