"""A second flow, about a lending library: nothing of the core knows it.

Its two services show what a flow may do: ``lending`` joins two inputs whose halves arrive in
either order, shares a shelf between loans, asks for a deposit and waits for a timer; ``notices``
shares a member between loans and goes on after it parks.
"""

from __future__ import annotations

from pathlib import Path

from penstock.flow import Flow
from tests.flows.library import door, lending, notices
from tests.flows.library.events import CONTRACTS

CATALOG = Path(__file__).parent / "catalog.toml"
SNAPSHOTS = Path(__file__).parent / "contracts"
FLOW = Flow(
    name="library",
    services=(lending.SERVICE, notices.SERVICE),
    contracts=CONTRACTS,
    door="counter",
    door_states=door.STATES,
    routes=door.ROUTES,
    sim="tests.flows.library.simulated",
)
