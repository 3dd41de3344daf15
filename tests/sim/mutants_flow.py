"""Planted mistakes of the order flow: what a service might decide wrongly, and who must see it."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from penstock.decision import Ask, Done, Emit
from penstock.flows.orders import door, inventory, notify, order, payment, shipping
from penstock.flows.orders.sandbox import provider
from tests.sim.mutants import mutant

Patch = pytest.MonkeyPatch


@mutant("I10", "one piece more is promised than there is")
def stock_off_by_one(patch: Patch) -> None:
    def available(self: inventory.Stock) -> int:
        return max(0, self.on_hand - self.reserved) + 1

    patch.setattr(inventory.Stock, "available", property(available))


@mutant("I11", "a release gives back less than was kept")
def release_forgets_a_piece(patch: Patch) -> None:
    release = inventory._release

    def short(stock: Any, quantity: int, order_: str, now: int) -> Any:
        after, moves = release(stock, quantity, order_, now)
        return replace(after, reserved=after.reserved + 1), moves

    patch.setattr(inventory, "_release", short)


@mutant("I12", "a closed payment frees nothing")
def reservation_never_released(patch: Patch) -> None:
    patch.setitem(inventory._DECIDES, "payment.closed", lambda states, event, context: Done())


@mutant("I13", "the parcel is asked for before the money is captured")
def sent_before_paid(patch: Patch) -> None:
    authorise = payment.MOVES["authorising", "authorised"]

    def eager(known: Any, fact: Any, key: str) -> Any:
        turn = authorise(known, fact, key)
        if isinstance(turn, payment.Turn) and known.address is not None:
            wanted = payment.FulfillmentRequested(
                group=known.group, address=known.address, pieces=known.pieces
            )
            early = Emit("fulfillment", wanted)
            turn = payment.Turn(turn.payment, (*turn.events, early), turn.asks)
        return turn

    patch.setitem(payment.MOVES, ("authorising", "authorised"), eager)


@mutant("I6", "a capture is asked for again under a second key, and the provider takes it")
def captured_twice(patch: Patch) -> None:
    reserve, capture = payment.MOVES["authorised", "reserved"], provider.capture

    def twice(known: Any, fact: Any, key: str) -> Any:
        turn = reserve(known, fact, key)
        more = tuple(
            replace(ask, idempotency_key=f"{ask.idempotency_key}:again")
            for ask in turn.asks if isinstance(ask, Ask)
        )
        return payment.Turn(turn.payment, turn.events, turn.asks + more)

    def generous(case: Any) -> Any:
        return capture(replace(case, history=tuple(
            e for e in case.history if e.operation != "capture"
        )))

    patch.setitem(payment.MOVES, ("authorised", "reserved"), twice)
    operation = provider.OPERATIONS["/capture"]
    patch.setitem(provider.OPERATIONS, "/capture", replace(operation, decide=generous))


@mutant("I7", "more is given back than was taken, and the provider pays it")
def refund_above_capture(patch: Patch) -> None:
    refund, decide = payment._refund, provider.refund

    def generous(known: Any, fact: Any, key: str) -> Any:
        turn = refund(known, fact, key)
        asks = tuple(
            replace(ask, request={**ask.request, "amount": ask.request.get("amount", 0) + 100})
            for ask in turn.asks
        )
        return payment.Turn(turn.payment, turn.events, asks)

    def pays(case: Any) -> Any:
        taken = tuple(
            replace(e, amount=(e.amount or 0) + 100) if e.operation == "capture" else e
            for e in case.history
        )
        return decide(replace(case, history=taken))

    patch.setattr(payment, "_refund", generous)
    operation = provider.OPERATIONS["/refund"]
    patch.setitem(provider.OPERATIONS, "/refund", replace(operation, decide=pays))


@mutant("I9", "who cancels while the money is captured does not get it back")
def cancelled_and_kept(patch: Patch) -> None:
    def keeps(known: Any, fact: Any, key: str) -> Any:
        turn = payment._send_back_before(known, fact, key)  # type: ignore[attr-defined]
        if isinstance(turn, payment.Turn):
            return payment._close(turn.payment, fact, key)
        return turn

    patch.setattr(payment, "_send_back_before", payment._send_back, raising=False)
    patch.setitem(payment.MOVES, ("refunding", "captured"), keeps)


@mutant("I5", "a cancellation is honoured after the carrier has the parcel")
def cancel_after_the_handover(patch: Patch) -> None:
    patch.setitem(shipping.MOVES, ("dispatched", "cancel"), shipping._cancelled)


@mutant("I14", "one piece less goes out than was reserved")
def parcel_short_of_a_piece(patch: Patch) -> None:
    dispatched = shipping.MOVES["labelled", "handover"]

    def short(parcel: Any, fact: Any, key: str) -> Any:
        first, *rest = parcel.pieces
        fewer = (replace(first, quantity=first.quantity + 1), *rest)
        return dispatched(replace(parcel, pieces=fewer), fact, key)

    patch.setitem(shipping.MOVES, ("labelled", "handover"), short)


@mutant("I4", "an order that has ended is told to end again")
def ended_twice(patch: Patch) -> None:
    decide = order.decide

    def again(states: Any, event: Any, context: Any) -> Any:
        done = decide(states, event, context)
        last = done.events[-1:] if isinstance(done, Done) else ()
        ended = last and isinstance(last[0].data, order.said.OrderCompleted)
        return replace(done, events=(*done.events, *last)) if ended else done

    _patch_decide(patch, order, again)


@mutant("I15", "a mail is sent again under another key")
def told_twice(patch: Patch) -> None:
    decide = notify.decide

    def twice(states: Any, event: Any, context: Any) -> Any:
        done = decide(states, event, context)
        if not isinstance(done, Done):
            return done
        more = tuple(
            replace(ask, idempotency_key=f"{ask.idempotency_key}:2") for ask in done.asks
        )
        return replace(done, asks=done.asks + more)

    _patch_decide(patch, notify, twice)


@mutant("I8", "what was captured is not what the event says")
def captured_amount_misread(patch: Patch) -> None:
    event = payment._captured_event

    def wrong(known: Any, kept: bool) -> Any:
        emit = event(known, kept)
        return replace(emit, data=replace(emit.data, amount_minor=emit.data.amount_minor + 1))

    patch.setattr(payment, "_captured_event", wrong)


@mutant("I3", "the door prices a line otherwise than it was asked for")
def line_lost_at_the_door(patch: Patch) -> None:
    freeze = door.freeze
    patch.setattr(door, "freeze", lambda wanted, discount: freeze(wanted[:1], discount))


def _patch_decide(patch: Patch, module: Any, decide: Any) -> None:
    """A service is a value of its module: the flow is made anew with the other decide."""
    import penstock.flows.orders as flow

    services = tuple(
        replace(s, decide=decide) if s is module.SERVICE else s for s in flow.FLOW.services
    )
    patch.setattr(flow, "FLOW", replace(flow.FLOW, services=services))
