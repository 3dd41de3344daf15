"""The order flow: a guest of the platform, named by the catalog as ``penstock.flows.orders:FLOW``.

``FLOW`` is made when it is first asked for, so a process that runs one service imports that
service and no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.flow import Flow

    FLOW: Flow

__all__ = ["FLOW"]


def __getattr__(name: str) -> Flow:
    if name != "FLOW":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    made: Flow = globals().setdefault("FLOW", _flow())
    return made


def _flow() -> Flow:
    from penstock.flow import Flow
    from penstock.flows.orders import door, inventory, notify, order, payment, shipping
    from penstock.flows.orders.commands import COMMANDS
    from penstock.flows.orders.events import CONTRACTS
    from penstock.flows.orders.panels import PANELS
    from penstock.flows.orders.routes import ROUTES

    return Flow(
        name="orders",
        services=(
            order.SERVICE, inventory.SERVICE, payment.SERVICE, shipping.SERVICE, notify.SERVICE,
        ),
        contracts=CONTRACTS,
        door=door.DOOR,
        door_states=door.DOOR_STATES,
        routes=ROUTES,
        panels=PANELS,
        commands=COMMANDS,
        importer="penstock.flows.orders.importer",
        workload="penstock.flows.orders.workload",
        load="penstock.flows.orders.load",
        crash="penstock.flows.orders.crashing",
        sim="penstock.flows.orders.sandbox.simulated",
        audit="penstock.sim.audit.orders",
    )
