"""The program is held against the catalog: what is named can be imported and is the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from penstock.catalog.load import load_catalog
from penstock.catalog.match import match
from penstock.catalog.model import Catalog, GatewayEntry, ServiceEntry, Topic
from penstock.decision import IGNORE, Context, Decision, Service, States
from penstock.event import Event
from penstock.flow import Flow

HERE = __name__


def decide(states: States, event: Event, context: Context) -> Decision:
    return IGNORE


CAPTAIN = Service(
    name="captain", kind="trip", states={}, decide=decide,
    reads={"tickets": ("ticket.sold",), "captain.answers": ("answer",)},
)  # fmt: skip
FLOW = Flow(name="ferry", services=(CAPTAIN,), contracts=(), door="gate")
TEXT = "no flow"


def catalog(**changes: Any) -> Catalog:
    """A catalog of this module's flow."""
    captain = ServiceEntry(
        name="captain", owner="deck", handler=f"{HERE}:CAPTAIN",
        reads=("tickets", "captain.answers", "journal"),
    )  # fmt: skip
    parts: dict[str, Any] = {
        "name": "ferry", "flow": f"{HERE}:FLOW", "teams": {}, "topics": {},
        "services": {"gate": ServiceEntry(name="gate", owner="deck"), "captain": captain},
    }  # fmt: skip
    return Catalog(**(parts | changes))


def told(found: Catalog) -> dict[str, str]:
    return {".".join(flaw.path): flaw.message for flaw in match(found)}


def with_captain(**changes: Any) -> Catalog:
    services = dict(catalog().services)
    services["captain"] = replace(services["captain"], **changes)
    return catalog(services=services)


def test_the_shipped_catalog_matches_its_program() -> None:
    assert match(load_catalog()) == []


def test_a_catalog_that_matches() -> None:
    assert told(catalog()) == {}


def test_what_a_topic_accepts_has_a_contract() -> None:
    found = Topic(name="tickets", owner="deck", producer="gate", key="k", accepts="ticket.sold/1")
    said = told(catalog(topics={"tickets": found}))
    assert said == {"topics.tickets.accepts": "the flow has no contract ticket.sold/1."}


def test_what_a_topic_of_the_shipped_flow_may_accept() -> None:
    shipped = load_catalog()
    orders = replace(shipped.topics["orders"], accepts="order.placed/1")
    assert match(replace(shipped, topics=shipped.topics | {"orders": orders})) == []


@pytest.mark.parametrize(
    ("flow", "said"),
    [
        ("nowhere.flow:FLOW", "no module 'nowhere'"),
        (f"{HERE}:FLWO", "has no 'FLWO'"),
        (f"{HERE}:TEXT", "is a str, no Flow"),
    ],
)
def test_the_flow_is_there(flow: str, said: str) -> None:
    assert said in told(catalog(flow=flow))["flow"]


@pytest.mark.parametrize(
    ("changes", "key", "said"),
    [
        ({"handler": f"{HERE}:NOBODY"}, "handler", "has no 'NOBODY'"),
        ({"handler": f"{HERE}:FLOW"}, "handler", "is a Flow, no Service"),
        ({"reads": ("captain.answers",)}, "reads", "reads tickets"),
    ],
)
def test_a_handler_is_the_flows_service(changes: Mapping[str, Any], key: str, said: str) -> None:
    found = told(with_captain(**changes))
    assert set(found) == {f"services.captain.{key}"}
    assert said in found[f"services.captain.{key}"]


def test_catalog_and_flow_have_the_same_services() -> None:
    services = catalog().services
    mate = replace(services["captain"], name="mate")
    found = told(catalog(services={"gate": services["gate"], "mate": mate}))
    assert found == {
        "services": "the flow ferry brings a service captain, which is not declared.",
        "services.mate": "the flow brings no service mate.",
    }


def test_the_one_service_without_a_handler_is_the_door() -> None:
    captain = catalog().services["captain"]
    pier = ServiceEntry(name="pier", owner="deck")
    assert set(told(catalog(services={"captain": captain, "pier": pier}))) == {
        "services", "services.pier.handler",
    }  # fmt: skip


def test_a_gateway_can_be_made() -> None:
    radio = GatewayEntry(name="radio", owner="deck", handler=f"{HERE}:TEXT")
    found = told(catalog(gateways={"radio": radio}))
    assert "nothing that makes a gateway" in found["gateways.radio.handler"]
