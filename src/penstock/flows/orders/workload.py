"""The demo's plan: the sample's orders, and how every kind of end is arranged among them.

Pure and deterministic: the same sample makes the same calls under the same keys. What is not
arranged is a real invoice that takes its course.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from penstock.flows.orders import importer
from penstock.flows.orders.importer import Plan, Request
from penstock.flows.orders.sold import Reading

SOURCE = "demo"
CLIENT = importer.CLIENT  # the sample brings its own prices
SAMPLE = importer.SAMPLE
ID_FIELD = "order_id"
CANCEL_PATH = "/orders/{order_id}/cancel"
LIST_PATH, LIST_FIELD = "/orders", "orders"
WAITS = frozenset({"on_hold"})  # ends for now: a person has to look

End = Literal["completed", "cancelled", "rejected(out_of_stock)", "rejected(declined)", "on_hold"]

# Which card an arranged order is paid with, how many of them, how they end, and how to say it.
# The ends follow the sandbox provider's test cards.
CARDS: tuple[tuple[str, int, End, str], ...] = (
    ("tok_decline", 3, "rejected(declined)", "paid with a card that the provider declines"),
    ("tok_wrong_amount", 2, "on_hold", "the provider captures another amount than was asked"),
    ("tok_timeout", 2, "completed", "the provider charges and never answers; asked again by key"),
    ("tok_503", 2, "completed", "the provider is down for the first two calls"),
    ("tok_429", 2, "completed", "the provider says: too many calls, come back later"),
)
CANCELLED = 3
CANCEL_CARD = "tok_slow"  # slower than the customer who changes their mind
CANCEL_SAYS = "cancelled right after it was placed, while the provider is slow to authorise"
SHORT_SAYS = "one piece of {sku} too few is in stock"


class Step(Struct, frozen=True, kw_only=True):
    """One order to place; ``arranged`` says what was done to it (empty: nothing).

    ``cancel`` asks for a cancellation as soon as the order is accepted. ``end`` is how it ends.
    """

    request: Request
    arranged: str = ""
    cancel: bool = False
    end: End = "completed"


class Workload(Struct, frozen=True, kw_only=True):
    """What the demo sends: the stock first, then the steps, oldest invoice first."""

    stock: tuple[Request, ...]
    steps: tuple[Step, ...]
    plan: Plan

    @property
    def ends(self) -> dict[str, int]:
        """Orders per expected end."""
        return dict(sorted(Counter(step.end for step in self.steps).items()))


def workload(sample: bytes) -> Workload:
    """The demo's calls for the sample's bytes (``SAMPLE`` names its package and file)."""
    plan = importer.plan(sample, Reading(source=SOURCE))
    short, sku = _scarce(plan)
    arranged = _arranged(plan, {short})
    pieces = dict(plan.pieces)
    pieces[sku] -= 1
    arranged[short] = Step(
        request=plan.requests[short],
        arranged=SHORT_SAYS.format(sku=sku),
        end="rejected(out_of_stock)",
    )
    steps = (arranged.get(i, Step(request=r)) for i, r in enumerate(plan.requests))
    return Workload(stock=importer.stock_of(pieces, SOURCE), steps=tuple(steps), plan=plan)


def state_of(row: Mapping[str, Any]) -> str:
    """How an order of a list stands, in the words of ``Step.end``."""
    state, reason = str(row["state"]), str(row.get("reason") or "")
    return f"{state}({reason})" if state == "rejected" and reason else state


def _body(request: Request) -> dict[str, Any]:
    return msgspec.json.decode(request.body, type=dict[str, Any])


def _goods(request: Request) -> list[str]:
    return [line["sku"] for line in _body(request)["lines"] if line["kind"] == "item"]


def _scarce(plan: Plan) -> tuple[int, str]:
    """An order and a SKU that nobody else buys: a shortage of it touches this order alone."""
    buyers = Counter(sku for request in plan.requests for sku in set(_goods(request)))
    for index, request in enumerate(plan.requests):
        goods = _goods(request)
        alone = [sku for sku in goods if buyers[sku] == 1]
        if alone and len(goods) > 1:
            return index, alone[0]
    raise AssertionError("the sample has no order with goods of its own")


def _arranged(plan: Plan, taken: set[int]) -> dict[int, Step]:
    """The arranged orders, spread over the sample, each with goods to send."""
    free = [i for i, r in enumerate(plan.requests) if i not in taken and _goods(r)]
    wanted = [(card, end, says, False) for card, n, end, says in CARDS for _ in range(n)]
    wanted += [(CANCEL_CARD, "cancelled", CANCEL_SAYS, True)] * CANCELLED
    stride = len(free) // len(wanted)
    assert stride > 0, "the sample is too small for what is arranged"
    return {
        index: Step(
            request=_paid_with(plan.requests[index], card), arranged=says, cancel=cancel, end=end
        )
        for index, (card, end, says, cancel) in zip(free[::stride], wanted, strict=False)
    }


def _paid_with(request: Request, card: str) -> Request:
    body = msgspec.json.encode(_body(request) | {"payment_method": card})
    return msgspec.structs.replace(request, body=body)
