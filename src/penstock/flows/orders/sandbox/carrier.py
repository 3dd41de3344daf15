"""The sandbox carrier: labels, voids of labels, and the scans of the parcels that move."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from penstock.flows.orders.sandbox.desk import Body, Case, Operation, Verdict, Word, minted
from penstock.flows.orders.sandbox.ledger import Delivery, Effect

WEBHOOKS = "/webhooks/carrier"
NAME = "sandbox-carrier"


class Pace(Struct, frozen=True, kw_only=True):
    """How long after its label a parcel is handed over and delivered; ``scans`` off: never."""

    handover_seconds: float = 0.2
    delivery_seconds: float = 0.4
    scans: bool = True


class Line(Struct, frozen=True, kw_only=True):
    """What is in the parcel."""

    sku: Word
    quantity: Annotated[int, Meta(ge=1, le=1_000_000)]


class Label(Body, frozen=True, kw_only=True):
    """Make a label for a parcel."""

    shipment: Word
    address: dict[str, Any]
    lines: list[Line]

    @property
    def part(self) -> str:
        """The shipment."""
        return self.shipment


class VoidLabel(Body, frozen=True, kw_only=True):
    """Take a label back before the parcel is handed over."""

    shipment: Word
    label: str | None = None

    @property
    def part(self) -> str:
        """The shipment."""
        return self.shipment


def label(pace: Pace, case: Case) -> Verdict:
    """A label and its tracking number; the parcel's scans follow."""
    if _of(case, "void_label"):
        return _refused("voided", "the shipment was voided before")
    if case.fault == "decline":
        return _refused("address", "the carrier does not deliver there")
    id_, tracking = minted("lbl", case.key), minted("trk", case.key)
    due = _due(pace, case)
    effect = _effect(case, "label", id_, id_, min(due.values()) if due else None)
    return Verdict(
        status=200,
        answer={"label": id_, "tracking": tracking, "carrier": NAME},
        effect=effect,
        deliveries=tuple(_scan(case, id_, type_, at) for type_, at in due.items()),
    )


def void_label(case: Case) -> Verdict:
    """Take the label back and send no scan, unless the parcel is on its way."""
    moving = [e for e in _of(case, "label") if e.due is not None and e.due <= case.now]
    if case.fault == "void_refused" or (moving and not _of(case, "void_label")):
        return _refused("handed over", "the parcel is on its way")
    reference = case.body.label or ""
    effect = _effect(case, "void_label", minted("void", case.key), reference, None)
    return Verdict(status=200, answer={"state": "voided"}, effect=effect, cancels=True)


def operations(pace: Pace) -> dict[str, Operation]:
    """The carrier's routes at a pace."""
    return {
        "/labels": Operation(name="label", body=Label, decide=partial(label, pace)),
        "/labels/void": Operation(name="void_label", body=VoidLabel, decide=void_label),
    }


def _due(pace: Pace, case: Case) -> Mapping[str, int]:
    """When (ms) each scan is made."""
    if not pace.scans or case.fault == "no_scan":
        return {}
    first = case.now + int(pace.handover_seconds * 1000)
    last = max(first + 1, case.now + int(pace.delivery_seconds * 1000))
    if case.fault == "delivered_first":
        return {"delivered": first, "handover": last}
    return {"handover": first, "delivered": last}


def _scan(case: Case, label_id: str, type_: str, due: int) -> Delivery:
    at = datetime.fromtimestamp(due / 1000, UTC).isoformat(timespec="milliseconds")
    id_ = minted("scan", label_id, type_)
    body = {
        "scan": id_,
        "reference": f"{case.body.order}/{case.body.shipment}",
        "type": type_,
        "at": at.replace("+00:00", "Z"),
    }
    return Delivery(
        id=id_,
        order=case.body.order,
        part=case.body.shipment,
        path=WEBHOOKS,
        body=msgspec.json.encode(body).decode(),
        due=due,
        next_at=due,
        copies=2 if case.fault == "scan_twice" else 1,
    )


def _refused(reason: str, detail: str) -> Verdict:
    return Verdict(status=409, answer={"reason": reason, "detail": detail})


def _of(case: Case, operation: str) -> list[Effect]:
    part = case.body.part
    return [e for e in case.history if e.operation == operation and e.part == part]


def _effect(case: Case, operation: str, id_: str, reference: str, due: int | None) -> Effect:
    return Effect(
        at=case.now,
        key=case.key,
        operation=operation,
        order=case.body.order,
        part=case.body.part,
        id=id_,
        reference=reference,
        due=due,
    )
