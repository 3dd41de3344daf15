"""What the simulator plays for the order flow: shoppers, and the three gateways with ledgers.

The gateways decide with the sandboxes' own functions, over a ledger in memory whose rows have the
columns of the documented one. What goes wrong is the simulator's choice: ``fires(fault)`` says
whether a fault of ``FAULTS`` meets this call, ``dice()`` is a number from 0 to below 1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from penstock.flow import Visit
from penstock.flows.orders import requests
from penstock.flows.orders.sandbox import carrier, provider
from penstock.flows.orders.sandbox.desk import Case, Operation, Verdict
from penstock.flows.orders.sandbox.ledger import Delivery, Effect
from penstock.ports import Ok, Outcome, Refused, Request

ID_FIELD = "order_id"
FAULTS = {
    "decline": "the provider or the carrier refuses for good",
    "wrong_amount": "the provider captures another amount than was asked",
    "webhook_first": "the provider's webhook overtakes the call's own answer",
    "delivered_first": "the delivery is scanned before the handover",
    "no_scan": "the scans of a parcel come only once everything else is calm",
    "scan_twice": "every scan of a parcel is sent twice",
    "void_refused": "the carrier does not take a label back",
    "mail_twice": "the mail server takes a message twice",
}
SPANS_MS = (30, 150, 600)  # in which all orders of a run are placed
PARCEL_MS = 600  # from a label to its last scan, at most
DEADLINES = (1, 3, 20)  # seconds; most orders have the usual day
CURRENCY = "EUR"
_ROUTES = {provider.WEBHOOKS: "payments_webhook", carrier.WEBHOOKS: "carrier_webhook"}
_ENCODE = msgspec.json.Encoder().encode
_OBJECT = msgspec.json.Decoder(dict[str, Any]).decode
Dice = Callable[[], float]
Fires = Callable[[str], bool]


# ---- shoppers


def visits(dice: Dice, orders: int) -> list[Visit]:
    """Few SKUs, stock near what will be wanted, and orders that overlap; some are cancelled."""
    skus = [f"SKU-{n}" for n in range(2 + int(dice() * 4))]
    span = SPANS_MS[int(dice() * len(SPANS_MS))]
    made = [visit for n in range(orders) for visit in _order(dice, n, skus, span)]
    wanted = dict.fromkeys(skus, 0)
    for visit in made:
        for line in visit.body.lines if visit.route == "place_order" else ():
            if line.kind == "item":
                wanted[line.sku] += line.quantity
    return [*_stock(dice, wanted, span), *made]


def _stock(dice: Dice, wanted: dict[str, int], span: int) -> list[Visit]:
    """In one file at first, the rest later; for some SKUs less than all want."""
    found = []
    for sku, pieces in wanted.items():
        first = int(pieces * (0.3 + dice()))
        found.append(_load(f"first-{sku}", sku, first, int(dice() * 50)))
        if dice() < 0.5:
            more = int(dice() * pieces)
            found.append(_load(f"more-{sku}", sku, more, int(dice() * span)))
    return found


def _load(file: str, sku: str, quantity: int, after: int) -> Visit:
    entry = requests.StockEntry(sku=sku, quantity=quantity)
    body = requests.StockIn(file=file, entries=(entry,))
    return Visit(after=after, route="load_stock", key=file, body=body)


def _order(dice: Dice, number: int, skus: list[str], span: int) -> list[Visit]:
    key, at = f"order-{number}", 60 + int(dice() * span)
    lines = [
        requests.LineIn(
            sku=skus[int(dice() * len(skus))], quantity=1 + int(dice() * 3),
            unit_minor=100 + int(dice() * 900),
        )
        for _ in range(1 + int(dice() * 3))
    ]
    if dice() < 0.3:
        lines.append(requests.LineIn(sku="POST", quantity=1, unit_minor=395, kind="carriage"))
    if dice() < 0.03:
        lines = [requests.LineIn(sku="POST", quantity=1, unit_minor=395, kind="carriage")]
    email = f"c{number}@example.com" if dice() < 0.9 else ""
    body = requests.OrderIn(
        order_ref=key, customer=requests.CustomerIn(id=f"c-{number}", email=email),
        address=requests.AddressIn(country="France"), currency=CURRENCY, lines=tuple(lines),
        deadline_seconds=DEADLINES[int(dice() * 3)] if dice() < 0.08 else None,
    )
    made = [Visit(after=at, route="place_order", key=key, body=body)]
    if dice() < 0.25:
        wish = requests.CancelIn(reason="changed my mind")
        late = at + int(dice() * dice() * 2000)
        made.append(Visit(after=late, route="cancel_order", key=f"x-{key}", body=wish, of=key))
    return made


# ---- the outside


class Outside:
    """Provider, carrier and mail server with one memory; see the module."""

    def __init__(self, fires: Fires, dice: Dice) -> None:
        self._fires, self._dice = fires, dice
        self._outcomes: dict[str, tuple[str, Outcome]] = {}
        self._history: dict[tuple[str, str], list[Effect]] = {}
        self._cancelled: set[tuple[str, str]] = set()
        self._later: list[Delivery] = []  # scans that come once everything is calm
        self._deeds: dict[str, list[tuple[Any, ...]]] = {"payments": [], "carrier": []}
        self._calls: dict[str, list[tuple[Any, ...]]] = {"payments": [], "carrier": []}
        self._mails: list[tuple[Any, ...]] = []

    def call(self, gateway: str, request: Request, now: int) -> tuple[Outcome, list[Visit]]:
        """One call as the gateway's other side carries it out, and what it sends on its own."""
        if gateway == "mail":
            return self._mail(request, now), []
        key, raw = request.idempotency_key, request.body.decode()
        known = self._outcomes.get(key)
        if known is not None:
            outcome = known[1] if known[0] == raw else Refused("another body under the same key")
            word = "repeated" if known[0] == raw else "mismatched"
            self._note(gateway, request, now, word, _OBJECT(request.body))
            return outcome, []
        operation = self._operation(gateway, request.name)
        body = msgspec.json.decode(request.body, type=operation.body)
        fault = self._fault(gateway, request.name)
        history = tuple(self._history.get((gateway, body.order), ()))
        verdict = operation.decide(Case(key=key, now=now, body=body, history=history, fault=fault))
        outcome = _outcome(verdict)
        self._outcomes[key] = raw, outcome
        word = "done" if isinstance(outcome, Ok) else "refused"
        self._note(gateway, request, now, word, _OBJECT(request.body))
        self._keep(gateway, verdict, body.order, body.part)
        return outcome, self._sends(verdict, now)

    def calm(self) -> list[Visit]:
        """What still has to come when the faults are over: the scans kept back."""
        kept = [d for d in self._later if (d.order, d.part) not in self._cancelled]
        self._later = []
        return [visit for d in kept for visit in self._visits(d, 1)]

    def cancelled(self, visit: Visit) -> bool:
        """Will this visit never be made, because its label was taken back in time?"""
        if visit.route != "carrier_webhook":
            return False
        order, _, shipment = visit.body.reference.partition("/")
        return (order, shipment) in self._cancelled

    def ledgers(self) -> dict[str, dict[str, list[tuple[Any, ...]]]]:
        """Per gateway its ``deeds``, ``calls`` and ``mails``, columns as an auditor has them."""
        found = {
            name: {"deeds": self._deeds[name], "calls": self._calls[name]} for name in self._deeds
        }
        return found | {"mail": {"mails": self._mails}}

    def _operation(self, gateway: str, name: str) -> Operation:
        if gateway == "payments":
            return provider.OPERATIONS[f"/{name}"]
        first = int(self._dice() * PARCEL_MS)
        last = first + int(self._dice() * PARCEL_MS)
        pace = carrier.Pace(handover_seconds=first / 1000, delivery_seconds=last / 1000)
        paths = {"label": "/labels", "void_label": "/labels/void"}
        operation = carrier.operations(pace)[paths[name]]
        if name == "label":
            return Operation(name=name, body=operation.body, decide=partial(carrier.label, pace))
        return operation

    def _fault(self, gateway: str, name: str) -> str:
        possible = {
            ("payments", "authorise"): ("decline", "webhook_first"),
            ("payments", "capture"): ("decline", "wrong_amount", "webhook_first"),
            ("carrier", "label"): ("decline", "delivered_first", "scan_twice"),
            ("carrier", "void_label"): ("void_refused",),
        }
        return next((f for f in possible.get((gateway, name), ()) if self._fires(f)), "")

    def _keep(self, gateway: str, verdict: Verdict, order: str, part: str) -> None:
        if verdict.cancels:
            self._cancelled.add((order, part))
        e = verdict.effect
        if e is not None:
            self._history.setdefault((gateway, order), []).append(e)
            rows = self._deeds[gateway]
            rows.append((len(rows) + 1, e.at, e.key, e.operation, e.order, e.part, e.id,
                         e.reference, e.amount, e.currency))  # fmt: skip

    def _note(
        self, gateway: str, request: Request, now: int, outcome: str, asked: dict[str, Any]
    ) -> None:
        rows = self._calls[gateway]
        part = asked.get("refund") or asked.get("group") or asked.get("shipment") or ""
        rows.append((len(rows) + 1, now, request.idempotency_key, request.name, asked["order"],
                     part, asked.get("amount"), outcome, request.body.decode()))  # fmt: skip

    def _sends(self, verdict: Verdict, now: int) -> list[Visit]:
        if not verdict.deliveries:
            return []
        if verdict.deliveries[0].path == carrier.WEBHOOKS and verdict.effect is not None:
            if verdict.effect.due is None:
                return []
            if self._fires("no_scan"):
                self._later += verdict.deliveries
                return []
        return [v for d in verdict.deliveries for v in self._visits(d, max(0, d.due - now))]

    def _visits(self, delivery: Delivery, after: int) -> list[Visit]:
        route = _ROUTES[delivery.path]
        kind = requests.ScanIn if route == "carrier_webhook" else requests.ProviderIn
        body = msgspec.json.decode(delivery.body, type=kind)
        return [
            Visit(after=after + 7 * n, route=route, key=f"{delivery.id}/{n}", body=body)
            for n in range(delivery.copies)
        ]

    def _mail(self, request: Request, now: int) -> Outcome:
        asked = _OBJECT(request.body)
        for _ in range(2 if self._fires("mail_twice") else 1):
            self._mails.append((len(self._mails) + 1, now, request.idempotency_key, asked["order"],
                                asked["kind"], asked["subject"], asked["text"]))  # fmt: skip
        return Ok(b'{"answer":"250 taken"}')


def _outcome(verdict: Verdict) -> Outcome:
    body = _ENCODE(verdict.answer)
    if verdict.status == 200:
        return Ok(body)
    reason = verdict.answer.get("code") or verdict.answer.get("reason") or "refused"
    return Refused(str(reason), body)
