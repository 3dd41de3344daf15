"""The sandbox payment provider: four operations decided from what happened before.

It keeps to keys and amounts and to nothing else: an engine that charges twice with two keys is
seen in its ledger, it is not saved by it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.flows.orders.sandbox.desk import (
    Amount,
    Body,
    Case,
    Currency,
    Operation,
    Verdict,
    Word,
    minted,
)
from penstock.flows.orders.sandbox.ledger import Delivery, Effect

WEBHOOKS = "/webhooks/payments"


class Authorise(Body, frozen=True, kw_only=True):
    """Hold an amount on a card."""

    group: Word
    amount: Amount
    currency: Currency
    method: Word
    customer: str = ""

    @property
    def part(self) -> str:
        """The group that pays."""
        return self.group


class Capture(Body, frozen=True, kw_only=True):
    """Take an amount of what is held."""

    group: Word
    payment: Word
    amount: Amount
    currency: Currency

    @property
    def part(self) -> str:
        """The group that pays."""
        return self.group


class Void(Body, frozen=True, kw_only=True):
    """Let go of what is held for a group, now and for good."""

    group: Word
    payment: str | None = None

    @property
    def part(self) -> str:
        """The group that pays no more."""
        return self.group


class Refund(Body, frozen=True, kw_only=True):
    """Give back an amount of what was taken; without an amount, all that is left of it."""

    refund: Word
    payment: Word
    amount: Amount | None = None
    currency: Currency

    @property
    def part(self) -> str:
        """The refund's own id."""
        return self.refund


def declined(code: str, reason: str) -> Verdict:
    """A refusal for the card's or the amount's sake: 402."""
    return Verdict(status=402, answer={"state": "declined", "code": code, "reason": reason})


def conflicting(state: str, code: str, reason: str) -> Verdict:
    """A refusal because of what happened before: 409."""
    return Verdict(status=409, answer={"state": state, "code": code, "reason": reason})


def authorise(case: Case) -> Verdict:
    """Hold the amount, unless the card declines or the group was voided."""
    body: Authorise = case.body
    if _of(case, "void", part=body.group):
        return declined("voided", "the group was voided before")
    if case.fault == "decline":
        return declined("card_declined", "the card was declined")
    payment = minted("pay", case.key)
    about = {"amount": body.amount, "currency": body.currency, "method": body.method}
    effect = _effect(case, "authorise", payment, payment, **about)
    return _accepted(case, "authorised", effect)


def capture(case: Case) -> Verdict:
    """Take the amount, at most what is held and not yet taken."""
    body: Capture = case.body
    held = _of(case, "authorise", reference=body.payment)
    if case.fault == "decline":
        return declined("card_declined", "the card was declined")
    if not held:
        return conflicting("unknown", "no_such_payment", "nothing was authorised under this id")
    if _of(case, "void", part=held[0].part):
        return declined("voided", "the payment was voided before")
    if body.currency != held[0].currency:
        return declined("other_currency", f"authorised in {held[0].currency}")
    if body.amount > (held[0].amount or 0) - _sum(case, "capture", body.payment):
        return declined("amount_too_large", "more than is authorised and not yet captured")
    amount = body.amount
    if case.fault == "wrong_amount":
        amount = amount - 1 if amount > 1 else amount + 1
    about = {"amount": amount, "currency": body.currency, "method": held[0].method}
    effect = _effect(case, "capture", minted("cap", case.key), body.payment, **about)
    return _accepted(case, "captured", effect)


def void(case: Case) -> Verdict:
    """Let go of the group's hold; with nothing held yet, a later authorise is declined."""
    body: Void = case.body
    if _of(case, "capture", part=body.group):
        return conflicting("captured", "already_captured", "captured money is refunded, not voided")
    held = _of(case, "authorise", part=body.group)
    payment = body.payment or (held[0].reference if held else "")
    currency = held[0].currency if held else ""
    effect = _effect(case, "void", minted("void", case.key), payment, currency=currency)
    return Verdict(status=200, answer={"state": "voided"}, effect=effect)


def refund(case: Case) -> Verdict:
    """Give back the amount, at most what was captured and not yet given back."""
    body: Refund = case.body
    taken = _of(case, "capture", reference=body.payment)
    if case.fault == "decline":
        return declined("refund_declined", "the bank refused the refund")
    if not taken:
        return conflicting("unknown", "no_such_payment", "nothing was captured under this id")
    if body.currency != taken[0].currency:
        return declined("other_currency", f"captured in {taken[0].currency}")
    left = _sum(case, "capture", body.payment) - _sum(case, "refund", body.payment)
    amount = left if body.amount is None else body.amount
    if amount > left or not left:
        return declined("amount_too_large", "more than is captured and not yet refunded")
    about = {"amount": amount, "currency": body.currency}
    effect = _effect(case, "refund", minted("ref", case.key), body.payment, **about)
    answer = {"state": "refunded", "amount": amount}
    return Verdict(status=200, answer=answer, effect=effect)


OPERATIONS = {
    "/authorise": Operation(name="authorise", body=Authorise, decide=authorise),
    "/capture": Operation(name="capture", body=Capture, decide=capture),
    "/void": Operation(name="void", body=Void, decide=void),
    "/refund": Operation(name="refund", body=Refund, decide=refund),
}


def _of(case: Case, operation: str, part: str = "", reference: str = "") -> list[Effect]:
    return [
        effect
        for effect in case.history
        if effect.operation == operation
        and part in ("", effect.part)
        and reference in ("", effect.reference)
    ]


def _sum(case: Case, operation: str, payment: str) -> int:
    return sum(effect.amount or 0 for effect in _of(case, operation, reference=payment))


def _effect(case: Case, operation: str, id_: str, payment: str, **about: Any) -> Effect:
    return Effect(
        at=case.now,
        key=case.key,
        operation=operation,
        order=case.body.order,
        part=case.body.part,
        id=id_,
        reference=payment,
        **about,
    )


def _accepted(case: Case, state: str, effect: Effect) -> Verdict:
    answer = {
        "id": effect.id, "state": state, "amount": effect.amount, "currency": effect.currency,
    }  # fmt: skip
    deliveries = (_webhook(case, state, effect),) if case.fault == "webhook_first" else ()
    return Verdict(status=200, answer=answer, effect=effect, deliveries=deliveries)


def _webhook(case: Case, state: str, effect: Effect) -> Delivery:
    id_ = minted("evt", case.key, state)
    body = {
        "id": id_,
        "type": f"payment.{state}",
        "order": effect.order,
        "group": effect.part,
        "amount": effect.amount,
        "currency": effect.currency,
        "payment": effect.reference,
    }
    return Delivery(
        id=id_,
        order=effect.order,
        part=effect.part,
        path=WEBHOOKS,
        body=msgspec.json.encode(body).decode(),
        due=case.now,
        next_at=case.now,
    )
