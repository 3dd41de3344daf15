"""The notify service: tells the customer, once per order, kind and parcel or refund.

It reads ``order_states`` alone: order.received is always the first there and carries the
address; a guest without one gets no document and no mail.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from penstock.decision import (
    IGNORE,
    Answer,
    Ask,
    Context,
    Decision,
    Done,
    Emit,
    Park,
    Ref,
    Service,
    States,
)
from penstock.event import Event
from penstock.flows.orders.events import NotificationSent, OrderReceived, Personal
from penstock.flows.orders.pricing import money

KIND = "mailbox"
GATEWAY = "mail"


class Mail(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """One mail: ``kind`` and the parcel or refund it is about make it the only one."""

    kind: str
    about: str = ""
    state: str = "asked"
    text: str = ""

    @property
    def place(self) -> str:
        """What makes this mail the only one of its order."""
        return f"{self.kind}:{self.about}" if self.about else self.kind


class Mailbox(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """How one customer is told about one order, and what was."""

    email: Personal
    order_ref: str = ""
    currency: str = ""
    total_minor: int = 0
    mails: tuple[Mail, ...] = ()


Written = tuple[str, str, str]  # the parcel or refund, the subject line, the text

_REASONS = {
    "out_of_stock": "we do not have enough of it in stock",
    "declined": "the payment was declined",
    "deadline": "the payment was not finished in time",
    "capture_failed": "the payment could not be taken",
    "abandoned": "the payment could not be cleared up",
    "undeliverable": "the carrier cannot deliver to your address",
}


def _confirmed(mailbox: Mailbox, event: Event, name: str) -> Written:
    total = money(mailbox.total_minor, mailbox.currency)
    return "", f"Order {name} is confirmed", f"Thank you. We have received {total}."


def _dispatched(mailbox: Mailbox, event: Event, name: str) -> Written:
    step = event.data
    track = f" Track it with {step.carrier}: {step.tracking}." if step.tracking else ""
    return step.shipment, f"Order {name} is on its way", f"Your parcel has left us.{track}"


def _rejected(mailbox: Mailbox, event: Event, name: str) -> Written:
    reason = _REASONS.get(event.data.reason, event.data.reason)
    return "", f"Order {name} could not be accepted", f"We are sorry: {reason}."


def _cancelled(mailbox: Mailbox, event: Event, name: str) -> Written:
    return "", f"Order {name} is cancelled", "As you wished, your order is cancelled."


def _refunded(mailbox: Mailbox, event: Event, name: str) -> Written:
    back = money(event.data.amount_minor, event.data.currency)
    return event.data.refund, f"Refund for order {name}", f"We have sent {back} back to you."


_MAILS: dict[str, tuple[str, Callable[[Mailbox, Event, str], Written]]] = {
    "order.confirmed": ("confirmed", _confirmed),
    "order.part_shipped": ("dispatched", _dispatched),
    "order.shipped": ("dispatched", _dispatched),
    "order.rejected": ("rejected", _rejected),
    "order.cancelled": ("cancelled", _cancelled),
    "order.refunded": ("refunded", _refunded),
}


def _open(mailbox: Mailbox | None, event: Event, ref: Ref) -> Decision:
    step: OrderReceived = event.data
    if mailbox or not step.customer.email:
        return IGNORE
    opened = Mailbox(
        email=step.customer.email, order_ref=step.order_ref, currency=step.currency,
        total_minor=step.total_minor,
    )
    return Done({ref: opened})


def _write(mailbox: Mailbox | None, event: Event, ref: Ref) -> Decision:
    if mailbox is None:
        return IGNORE
    kind, write = _MAILS[event.type]
    about, subject, text = write(mailbox, event, mailbox.order_ref or event.key)
    mail = Mail(kind=kind, about=about, text=subject)
    if any(mail.place == other.place for other in mailbox.mails):
        return IGNORE
    key = f"mail:{event.key}:{mail.place}"
    request = {
        "to": mailbox.email, "subject": subject, "text": text, "order": event.key, "kind": kind,
        "key": key,
    }
    after = replace(mailbox, mails=(*mailbox.mails, mail))
    return Done({ref: after}, asks=(Ask(GATEWAY, "send", request, key),))


def _answered(mailbox: Mailbox | None, event: Event, ref: Ref) -> Decision:
    answer: Answer = event.data
    if answer.outcome == "expired":
        return Park("gateway_expired", f"the mail did not get through: {answer.reason}")
    place = answer.idempotency_key.removeprefix(f"mail:{event.key}:")
    mails = mailbox.mails if mailbox else ()
    mail = next((one for one in mails if one.place == place and one.state == "asked"), None)
    if mailbox is None or mail is None:
        return IGNORE
    state = "sent" if answer.outcome == "ok" else "refused"
    settled = tuple(replace(one, state=state) if one is mail else one for one in mails)
    after = Done({ref: replace(mailbox, mails=settled)})
    if state == "refused":
        return after
    told = NotificationSent(kind=mail.kind, subject=mail.about, to=mailbox.email, text=mail.text)
    return replace(after, events=(Emit("notifications", told),))


def decide(states: States, event: Event, context: Context) -> Decision:
    """Whether the customer is told about this, and what became of it."""
    ref = Ref(KIND, event.key)
    move = _answered if event.type == "answer" else _open
    if event.type in _MAILS:
        move = _write
    return move(states.get(ref), event, ref)


SERVICE = Service(
    name="notify",
    kind=KIND,
    states={KIND: Mailbox},
    reads={"order_states": ("order.received", *_MAILS), "notify.answers": ("answer",)},
    decide=decide,
)
