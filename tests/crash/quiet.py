"""The order flow with a crash workload that nothing is ever shipped of."""

from __future__ import annotations

from msgspec.structs import replace

from penstock.flow import Errand
from penstock.flows import orders
from penstock.flows.orders.crashing import ID_FIELD, KINDS, NOUN, stand, supplied, supplies
from penstock.flows.orders.crashing import errand as any_errand

__all__ = ["FLOW", "ID_FIELD", "NOUN", "errand", "stand", "supplied", "supplies"]

DECLINED = next(n for n, kind in enumerate(KINDS) if kind.card == "tok_decline")
FLOW = replace(orders.FLOW, crash="tests.crash.quiet")


def errand(number: int) -> Errand:
    """Declined, all of them."""
    return any_errand(number * 40 + DECLINED)
