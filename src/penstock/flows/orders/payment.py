"""The payment service: owns an order's money, its deadline, and the first say in cancelling.

Whatever comes in (an event, an answer, a webhook, a wake) is first said as a *fact*; the table
``MOVES`` then names what a fact does in a state. A pair that the table does not name changes
nothing: duplicates and late facts are harmless by construction. Facts that come ahead of the
order are kept in its document and applied when the order is known.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from penstock.decision import (
    IGNORE,
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
from penstock.flows.orders.events import (
    Address,
    FulfillmentCancelRequested,
    FulfillmentRequested,
    OrderPlaced,
    PaymentAuthorised,
    PaymentCaptured,
    PaymentClosed,
    PaymentDeclined,
    PaymentRefunded,
    Piece,
)
from penstock.flows.orders.lifecycle import (
    CAPTURE_FAILED,
    DEADLINE_SECONDS,
    DECLINED,
    NEW,
)
from penstock.flows.orders.payment_facts import Fact, fact_of
from penstock.flows.orders.pricing import money

KIND = "payment"
GATEWAY = "payments"
GROUP = "1"  # one group of lines per order for now
AHEAD_MAX = 16  # facts kept ahead of an order; more is noise from outside, and parked


class Payment(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """One order's money. ``due_minor`` is what to capture, known once stock is reserved."""

    state: str = NEW
    group: str = GROUP
    amount_minor: int = 0
    currency: str = ""
    payment: str = ""
    due_minor: int | None = None
    authorised_minor: int = 0
    captured_minor: int = 0
    refunded_minor: int = 0
    refunds: int = 0
    back_minor: int = 0  # what the latest refund asks for; 0: all that was captured
    reason: str = ""
    goods: bool = False
    address: Address | None = None  # until it is handed on with the fulfillment request
    pieces: tuple[Piece, ...] = ()
    ahead: tuple[Fact, ...] = ()


class Turn(Struct, frozen=True, gc=False):
    """The outcome of one fact: the document after it, and what goes out."""

    payment: Payment
    events: tuple[Emit, ...] = ()
    asks: tuple[Ask, ...] = ()


Move = Callable[[Payment, Fact, str], Turn | Park]


# ---- what a fact does


def _differs(fact: Fact, amount_minor: int, currency: str) -> Park | None:
    if fact.amount_minor == amount_minor and fact.currency in ("", currency):
        return None
    said, due = money(fact.amount_minor, fact.currency or currency), money(amount_minor, currency)
    return Park(
        "amount_differs",
        f"{fact.name} {said}, expected {due}",
    )


def _keep(payment: Payment, fact: Fact, key: str) -> Turn | Park:
    """Ahead of the order: kept, applied when the order is known."""
    if len(payment.ahead) >= AHEAD_MAX:
        return Park("unknown_order", f"more than {AHEAD_MAX} facts on an order never placed")
    return Turn(replace(payment, ahead=(*payment.ahead, fact)))


def _authorise(payment: Payment, fact: Fact, key: str) -> Turn | Park:
    wrong = _differs(fact, payment.amount_minor, payment.currency)
    if wrong:
        return wrong
    known = replace(
        payment, state="authorised", authorised_minor=fact.amount_minor, payment=fact.payment
    )
    said = PaymentAuthorised(
        group=known.group, payment=known.payment, amount_minor=known.authorised_minor,
        currency=known.currency,
    )
    events = (Emit("payments", said),)
    return Turn(known, events) if known.due_minor is None else _capture(known, key, events)


def _reserve(payment: Payment, fact: Fact, key: str) -> Turn:
    known = replace(
        payment, due_minor=fact.amount_minor, pieces=fact.pieces, goods=bool(fact.pieces)
    )
    return Turn(known) if known.state == "authorising" else _capture(known, key)


def _capture(payment: Payment, key: str, events: tuple[Emit, ...] = ()) -> Turn:
    amount = _due(payment)
    request = {
        "order": key, "group": payment.group, "payment": payment.payment, "amount": amount,
        "currency": payment.currency,
    }
    ask = Ask(GATEWAY, "capture", request, f"capture:{key}:{payment.group}")
    return Turn(replace(payment, state="capturing"), events, (ask,))


def _due(payment: Payment) -> int:
    """What is to be captured: what stock was reserved for, never above the authorised."""
    return min(payment.due_minor or 0, payment.authorised_minor)


def _captured_event(payment: Payment, kept: bool) -> Emit:
    return Emit(
        "payments",
        PaymentCaptured(
            group=payment.group, payment=payment.payment, amount_minor=payment.captured_minor,
            currency=payment.currency, kept=kept,
        ),
    )


def _keep_money(payment: Payment, fact: Fact, key: str) -> Turn | Park:
    wrong = _differs(fact, _due(payment), payment.currency)
    if wrong:
        return wrong
    known = replace(payment, state="captured", captured_minor=fact.amount_minor)
    events = [_captured_event(known, kept=True)]
    if known.pieces and known.address:
        wanted = FulfillmentRequested(
            group=known.group, address=known.address, pieces=known.pieces
        )
        events.append(Emit("fulfillment", wanted))
    return Turn(replace(known, address=None, pieces=()), tuple(events))


def _send_back(payment: Payment, fact: Fact, key: str) -> Turn | Park:
    """Captured where nothing may be sent any more: it goes straight back."""
    if payment.captured_minor:
        return _known(fact, payment, payment.captured_minor)
    wrong = _differs(fact, _due(payment) or fact.amount_minor, payment.currency)
    if wrong:
        return wrong
    known = replace(payment, captured_minor=fact.amount_minor)
    turn = Turn(known) if known.refunds else _refund(known, fact, key)  # asked by an abandon
    return Turn(turn.payment, (_captured_event(known, kept=False),), turn.asks)


def _send_back_from_closing(payment: Payment, fact: Fact, key: str) -> Turn | Park:
    return _send_back(replace(payment, state="refunding"), fact, key)


def _refund(payment: Payment, fact: Fact, key: str) -> Turn:
    """Give back what was captured; where that is not known, all of it, whatever it was."""
    back = payment.captured_minor - payment.refunded_minor if payment.captured_minor else 0
    known = replace(payment, refunds=payment.refunds + 1, back_minor=back)
    return Turn(known, (), (_refund_ask(known, key),))


def _refund_ask(payment: Payment, key: str) -> Ask:
    """The latest refund; the same words under the same key, however often it is asked."""
    refund = f"r{payment.refunds}"
    request: dict[str, str | int] = {
        "order": key, "refund": refund, "payment": payment.payment, "currency": payment.currency
    }
    if payment.back_minor:
        request["amount"] = payment.back_minor
    return Ask(GATEWAY, "refund", request, f"refund:{key}:{refund}")


def _parcel_cancelled(payment: Payment, fact: Fact, key: str) -> Turn:
    return _refund(replace(payment, state="refunding", reason=fact.reason), fact, key)


def _void(payment: Payment, key: str) -> Ask:
    """For the whole group: what is known of its hold by now would make other bodies of one key."""
    request = {"order": key, "group": payment.group}
    return Ask(GATEWAY, "void", request, f"void:{key}:{payment.group}")


def _void_late(payment: Payment, fact: Fact, key: str) -> Turn | Park:
    """Authorised where nothing may be captured any more."""
    if payment.authorised_minor:
        return _known(fact, payment, payment.authorised_minor)
    known = replace(payment, authorised_minor=fact.amount_minor, payment=fact.payment)
    return Turn(known, (), (_void(known, key),))


def _known(fact: Fact, payment: Payment, amount_minor: int) -> Turn | Park:
    return _differs(fact, amount_minor, payment.currency) or Turn(payment)


def _authorised_before(payment: Payment, fact: Fact, key: str) -> Turn | Park:
    return _known(fact, payment, payment.authorised_minor)


def _captured_before(payment: Payment, fact: Fact, key: str) -> Turn | Park:
    return _known(fact, payment, payment.captured_minor)


def _unasked(payment: Payment, fact: Fact, key: str) -> Park:
    return Park("not_asked", f"{fact.name} in state {payment.state}: nobody asked for it")


def _give_up(payment: Payment, fact: Fact, key: str) -> Turn:
    """Void after any answer: an authorisation still under way answers first."""
    asks = () if payment.state == "authorising" else (_void(payment, key),)
    return Turn(replace(payment, state="closing", reason=fact.reason), (), asks)


def _capture_failed(payment: Payment, fact: Fact, key: str) -> Turn:
    known = replace(payment, state="closing", reason=payment.reason or CAPTURE_FAILED)
    return Turn(known, (), (_void(known, key),))


def _stop_capture(payment: Payment, fact: Fact, key: str) -> Turn:
    return Turn(replace(payment, state="refunding", reason=fact.reason))


def _forward(payment: Payment, fact: Fact, key: str) -> Turn:
    """Shipping decides now; where there is nothing to send, the order is complete."""
    if not payment.goods:
        return Turn(payment)
    wish = FulfillmentCancelRequested(group=payment.group, reason=fact.reason)
    return Turn(payment, (Emit("fulfillment", wish),))


def _close(payment: Payment, fact: Fact, key: str) -> Turn:
    closed = replace(
        payment, state="closed", reason=payment.reason or fact.reason, address=None, pieces=()
    )
    said = PaymentClosed(group=closed.group, reason=closed.reason)
    return Turn(closed, (Emit("payments", said),))


def _decline(payment: Payment, fact: Fact, key: str) -> Turn:
    said = PaymentDeclined(group=payment.group, code=fact.code, reason=fact.reason)
    turn = _close(replace(payment, reason=DECLINED), fact, key)
    return Turn(turn.payment, (Emit("payments", said), *turn.events))


def _refunded_event(payment: Payment, amount_minor: int) -> Emit:
    said = PaymentRefunded(
        group=payment.group, refund=f"r{payment.refunds}", amount_minor=amount_minor,
        currency=payment.currency,
    )
    return Emit("payments", said)


def _refunded(payment: Payment, fact: Fact, key: str) -> Turn | Park:
    amount = payment.captured_minor - payment.refunded_minor
    wrong = _differs(fact, amount, payment.currency)
    if wrong:
        return wrong
    turn = _close(replace(payment, refunded_minor=payment.captured_minor), fact, key)
    return Turn(turn.payment, (_refunded_event(payment, amount), *turn.events))


def _refunded_late(payment: Payment, fact: Fact, key: str) -> Turn | Park:
    """Closed already: a late capture went back, or one nobody had seen before an abandon."""
    if payment.refunded_minor or not payment.refunds:
        return _known(fact, payment, payment.refunded_minor)
    wrong = _differs(fact, payment.captured_minor or fact.amount_minor, payment.currency)
    if wrong:
        return wrong
    unseen = payment.captured_minor == 0
    known = replace(
        payment, captured_minor=fact.amount_minor, refunded_minor=fact.amount_minor
    )
    seen = (_captured_event(known, kept=False),) if unseen else ()
    return Turn(known, (*seen, _refunded_event(known, fact.amount_minor)))


def _park_refusal(payment: Payment, fact: Fact, key: str) -> Park:
    return Park(fact.name, fact.reason or "the provider refused; a person has to look")


def _abandon(payment: Payment, fact: Fact, key: str) -> Turn:
    """A person gave up on it before the capture is known: close, and give back what may be.

    What the provider did is unknown here, so a void is asked (with nothing held it forbids a
    later hold) and, where a capture was under way, a refund of all it took behind it: with
    nothing captured it is refused and changes nothing.
    """
    turn = _close(payment, fact, key)
    if payment.captured_minor:
        return _refund_again(turn, key)
    void = _void(payment, key)
    if payment.state not in ("capturing", "refunding"):
        return Turn(turn.payment, turn.events, (void,))
    back = _refund(turn.payment, fact, key)
    return Turn(back.payment, turn.events, (void, *back.asks))


def _refund_again(turn: Turn, key: str) -> Turn:
    """A refund whose answer was discarded is asked for again: only so is it known and told."""
    payment = turn.payment
    if not payment.refunds or payment.refunded_minor:
        return turn
    return Turn(payment, turn.events, (*turn.asks, _refund_ask(payment, key)))


def _abandon_again(payment: Payment, fact: Fact, key: str) -> Turn:
    return _refund_again(Turn(payment), key)


def _abandon_unknown(payment: Payment, fact: Fact, key: str) -> Turn:
    """The order's own record was discarded: it ends here, whatever comes later."""
    return _close(payment, fact, key) if fact.code == "placed" else Turn(payment)


MOVES: dict[tuple[str, str], Move] = {
    (NEW, "discarded"): _abandon_unknown,
    ("authorising", "authorised"): _authorise,
    ("authorising", "declined"): _decline,
    ("authorising", "reserved"): _reserve,
    ("authorising", "give_up"): _give_up,
    ("authorising", "cancel"): _give_up,
    ("authorising", "captured"): _unasked,
    ("authorising", "discarded"): _abandon,
    ("authorised", "authorised"): _authorised_before,
    ("authorised", "reserved"): _reserve,
    ("authorised", "give_up"): _give_up,
    ("authorised", "cancel"): _give_up,
    ("authorised", "captured"): _unasked,
    ("authorised", "discarded"): _abandon,
    ("capturing", "authorised"): _authorised_before,
    ("capturing", "captured"): _keep_money,
    ("capturing", "capture_failed"): _capture_failed,
    ("capturing", "cancel"): _stop_capture,
    ("capturing", "discarded"): _abandon,
    ("refunding", "authorised"): _authorised_before,
    ("refunding", "captured"): _send_back,
    ("refunding", "capture_failed"): _capture_failed,
    ("refunding", "refunded"): _refunded,
    ("refunding", "refund_refused"): _park_refusal,
    ("refunding", "discarded"): _abandon,
    ("captured", "authorised"): _authorised_before,
    ("captured", "captured"): _captured_before,
    ("captured", "cancel"): _forward,
    ("captured", "parcel_cancelled"): _parcel_cancelled,
    ("closing", "authorised"): _void_late,
    ("closing", "declined"): _close,
    ("closing", "voided"): _close,
    ("closing", "captured"): _send_back_from_closing,
    ("closing", "void_refused"): _park_refusal,
    ("closing", "discarded"): _abandon,
    ("closed", "authorised"): _void_late,
    ("closed", "captured"): _send_back,
    ("closed", "refunded"): _refunded_late,
    ("closed", "discarded"): _abandon_again,
}


def _apply(payment: Payment, fact: Fact, key: str) -> Turn | Park:
    move = MOVES.get((payment.state, fact.name), _keep if payment.state == NEW else None)
    return Turn(payment) if move is None else move(payment, fact, key)


# ---- the order itself


def _place(payment: Payment, event: Event, now: int) -> Turn | Park:
    """The order is known: ask for its money, then apply what came ahead of it."""
    placed: OrderPlaced = event.data
    known = replace(
        payment, state="authorising", amount_minor=placed.total_minor, currency=placed.currency,
        address=placed.address, ahead=(),
    )
    early = {fact.name: fact for fact in reversed(payment.ahead)}
    refusal = early.get("give_up") or early.get("cancel")
    if refusal:
        return _close(known, refusal, event.key)
    turn = Turn(known, (), (_authorisation(placed, event.key), _deadline(placed, now)))
    return _catch_up(turn, payment.ahead, event.key)


def _catch_up(turn: Turn, ahead: tuple[Fact, ...], key: str) -> Turn | Park:
    for fact in ahead:
        after = _apply(turn.payment, fact, key)
        if isinstance(after, Park):
            return after
        turn = Turn(after.payment, turn.events + after.events, turn.asks + after.asks)
    return turn


def _authorisation(placed: OrderPlaced, key: str) -> Ask:
    request = {
        "order": key, "group": GROUP, "amount": placed.total_minor, "currency": placed.currency,
        "method": placed.payment_method, "customer": placed.customer.id,
    }
    return Ask(GATEWAY, "authorise", request, f"authorise:{key}:{GROUP}")


def _deadline(placed: OrderPlaced, now: int) -> Ask:
    seconds = DEADLINE_SECONDS if placed.deadline_seconds is None else placed.deadline_seconds
    return Ask("clock", "deadline", due=now + 1000 * seconds)


def decide(states: States, event: Event, context: Context) -> Decision:
    """What this event does to the order's money."""
    ref = Ref(KIND, event.key)
    payment: Payment = states.get(ref) or Payment()
    turn: Turn | Park
    if event.type == "order.placed":
        turn = Turn(payment) if payment.state != NEW else _place(payment, event, context.now)
    else:
        fact = fact_of(event)
        if fact is None or isinstance(fact, Park):
            return fact or IGNORE
        turn = _apply(payment, fact, event.key)
    if isinstance(turn, Park):
        return turn
    if turn.payment is payment and not turn.events and not turn.asks:
        return IGNORE
    return Done({ref: turn.payment}, turn.events, turn.asks)


SERVICE = Service(
    name="payment",
    kind=KIND,
    states={KIND: Payment},
    reads={
        "orders": ("order.placed", "order.cancel_requested"),
        "inventory": ("inventory.reserved", "inventory.rejected"),
        "shipments": ("fulfillment.cancelled",),
        "arrivals": ("provider.notified",),
        "payment.answers": ("answer", "wake", "dead.discarded"),
    },
    decide=decide,
)
