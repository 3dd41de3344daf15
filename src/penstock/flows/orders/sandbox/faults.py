"""The switches to fail: which fault a call meets, by script or by the card that pays.

A scripted fault is used up call by call and survives a restart. On a repeat of a settled key only
faults of the wire apply: what happened once cannot be declined afterwards.
"""

from __future__ import annotations

from typing import NamedTuple

from penstock.flows.orders.sandbox.ledger import Fault, Ledger

HANG_SECONDS = 600.0  # far beyond every client's timeout
SLOW_SECONDS = 0.5
RETRY_AFTER_SECONDS = 1.0

WIRE = frozenset({"timeout_after_charge", "never_answers", "5xx", "5xx_after", "429", "slow"})
PROVIDER = WIRE | {"decline", "wrong_amount", "webhook_first"}
CARRIER = WIRE | {"decline", "delivered_first", "no_scan", "void_refused", "scan_twice"}
MAIL = frozenset({"refuse", "greylist", "slow", "cut_after"})
NOTHING_DONE = frozenset({"5xx", "429", "never_answers"})


class Trouble(NamedTuple):
    """The fault one call meets and its seconds (hang, delay or Retry-After)."""

    fault: str = ""
    seconds: float = 0.0


CALM = Trouble()
_SECONDS = {
    "timeout_after_charge": HANG_SECONDS,
    "never_answers": HANG_SECONDS,
    "slow": SLOW_SECONDS,
    "429": RETRY_AFTER_SECONDS,
}


def trouble(fault: str, seconds: float | None = None) -> Trouble:
    """A fault with its own or the usual seconds."""
    return Trouble(fault, _SECONDS.get(fault, 0.0) if seconds is None else seconds)


def take_scripted(ledger: Ledger, operation: str, order: str, method: str, repeat: bool) -> Trouble:
    """The first scripted fault that fits this call, used up by it."""
    fits = "operation IN ('*', ?) AND order_id IN ('*', ?) AND method IN ('*', ?)"
    for row in ledger.rows(Fault, fits, (operation, order, method)):
        if not repeat or row.fault in WIRE:
            ledger.use_up(row)
            return trouble(row.fault, row.seconds)
    return CALM


def of_card(method: str, operation: str, calls_of_operation: int, calls: int) -> Trouble:
    """The fault a test card brings along, by the calls its order and group made before."""
    first = calls_of_operation == 0
    charging = operation in ("authorise", "capture")
    brought = {
        "tok_decline": ("decline", operation == "authorise"),
        "tok_wrong_amount": ("wrong_amount", operation == "capture"),
        "tok_timeout": ("timeout_after_charge", charging and first),
        "tok_slow": ("slow", True),
        "tok_503": ("5xx", calls < 2 and operation != "refund"),
        "tok_429": ("429", calls == 0 and operation != "refund"),
    }
    fault, now = brought.get(method, ("", False))
    return trouble(fault) if now else CALM
