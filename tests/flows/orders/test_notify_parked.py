"""A parked record of notify loses no mail: the later ones of its order wait for it.

Found by the auditor's rule I15: while notify let them pass, the address (order.received) could be
parked, every later step found nobody to tell, and a retry told nothing of them any more.
"""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from penstock.catalog.load import load_catalog
from penstock.decision import Context, Decision, States
from penstock.event import Event
from penstock.flows.orders import FLOW
from penstock.flows.orders import events as said
from penstock.flows.orders.gateways.instant import Mail, gateways
from penstock.ports import Outcome, Request
from tests.flows.orders.shop import ADA
from tests.flows.rig import Rig


class Post(Mail):
    """The mail server, and what it was given."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    def call(self, request: Request) -> Outcome:
        """Taken, and noted."""
        self.keys.append(request.idempotency_key)
        return super().call(request)


def test_mails_wait_for_the_address_that_is_parked(tmp_path: Path) -> None:
    notify = next(service for service in FLOW.services if service.name == "notify")
    broken = True

    def decide(states: States, event: Event, context: Context) -> Decision:
        if broken and event.type == "order.received":
            raise ValueError("not yet")
        return notify.decide(states, event, context)

    others = tuple(service for service in FLOW.services if service is not notify)
    flow = replace(FLOW, services=(*others, replace(notify, decide=decide)))
    post = Post()
    rig = Rig(flow, load_catalog(), tmp_path, {**gateways(), "mail": post})
    rig.append(
        "order_states", ("o-1", said.OrderReceived(order_ref="web-1", customer=ADA)),
        ("o-1", said.OrderConfirmed(previous="processing")),
    )
    rig.wait(60_000, times=60)
    (parked,) = [row.body for row in rig.rows("notify", "waiting") if row.body.state == "parked"]
    broken = False
    rig.operate("deadletter.retry_requested", parked.record, "notify")
    rig.wait(1000)
    assert post.keys == ["mail:o-1:confirmed"]
    rig.close()
