"""Does the program have what the catalog names? Imports the flow, its handlers, its gateways."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec

from penstock.catalog.flaw import Flaw, Keys, near
from penstock.catalog.model import PLATFORM, Catalog
from penstock.decision import Service
from penstock.dotted import resolve
from penstock.errors import Problem
from penstock.flow import Flow

Flaws = Iterator[Flaw]


def match(catalog: Catalog) -> list[Flaw]:
    """Where the program and a sound catalog differ. Imports, so it runs the flow's modules."""
    flaws = [*_gateways(catalog), *_sandboxes(catalog)]
    try:
        flow = resolve(catalog.flow)
    except Problem as problem:
        return [Flaw(("flow",), problem.message, problem.fix), *flaws]
    if not isinstance(flow, Flow):
        return [Flaw(("flow",), f"{catalog.flow} is a {type(flow).__name__}, no Flow."), *flaws]
    return [
        *_accepted(catalog, flow), *_services(catalog, flow), *_door(catalog, flow),
        *_permissions(catalog, flow), *flaws,
    ]  # fmt: skip


def _accepted(catalog: Catalog, flow: Flow) -> Flaws:
    """What a topic accepts from others can be opened."""
    known = {
        f"{c.type}/{version}"
        for c in flow.contracts
        for version in (c.version, *(older.version for older in c.older))
    }
    for name, topic in catalog.topics.items():
        if topic.accepts and topic.accepts not in known:
            text = f"the flow has no contract {topic.accepts}."
            yield Flaw(("topics", name, "accepts"), text, near(topic.accepts, known))


def _gateways(catalog: Catalog) -> Flaws:
    for name, gateway in catalog.gateways.items():
        path = ("gateways", name, "handler")
        try:
            if not callable(resolve(gateway.handler)):
                yield Flaw(path, f"{gateway.handler} is nothing that makes a gateway.")
        except Problem as problem:
            yield Flaw(path, problem.message, problem.fix)


def _sandboxes(catalog: Catalog) -> Flaws:
    for name, gateway in catalog.gateways.items():
        if gateway.sandbox and not _is_there(gateway.sandbox.module):
            path = ("gateways", name, "sandbox", "module")
            yield Flaw(path, f"there is no module {gateway.sandbox.module}.")


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:
        return False


def _services(catalog: Catalog, flow: Flow) -> Flaws:
    """The flow's services and the catalog's are the same, by name and by value."""
    brought = {service.name: service for service in flow.services}
    declared = {n: s for n, s in catalog.services.items() if s.handler and n not in PLATFORM}
    for name in brought.keys() - declared.keys():
        text = f"the flow {flow.name} brings a service {name}, which is not declared."
        yield Flaw(("services",), text, f"Add [services.{name}].")
    for name, entry in declared.items():
        path = ("services", name)
        try:
            found = resolve(entry.handler)
        except Problem as problem:
            yield Flaw((*path, "handler"), problem.message, problem.fix)
            continue
        yield from _service(path, found, brought, entry.handler, entry.reads)


def _service(
    path: Keys, found: object, brought: Mapping[str, Service], handler: str, reads: tuple[str, ...]
) -> Flaws:
    """One handler: the Service the flow brings under this name, reading no more than declared."""
    if not isinstance(found, Service):
        yield Flaw((*path, "handler"), f"{handler} is a {type(found).__name__}, no Service.")
    elif path[-1] not in brought:
        yield Flaw(path, f"the flow brings no service {path[-1]}.", near(path[-1], brought))
    elif found is not brought[path[-1]]:
        text = f"{handler} is the service {found.name}, not the flow's {path[-1]}."
        yield Flaw((*path, "handler"), text)
    else:
        for topic in found.reads:
            if topic not in reads:
                text = f"the service reads {topic}, which is not among them."
                yield Flaw((*path, "reads"), text, f"Add {topic}.")


def _door(catalog: Catalog, flow: Flow) -> Flaws:
    """The one service without a handler is the flow's door."""
    silent = [name for name, s in catalog.services.items() if not s.handler]
    for name in silent:
        if name != flow.door:
            text = f"is missing: the door of the flow is {flow.door or 'not there'}."
            yield Flaw(("services", name, "handler"), text)
    if flow.door and flow.door not in silent:
        text = f"the flow's door {flow.door} is not declared."
        yield Flaw(("services",), text, f"Add [services.{flow.door}], without a handler.")


def _permissions(catalog: Catalog, flow: Flow) -> Flaws:
    """What a route wants of a client can be given."""
    for route in flow.routes:
        if route.permission and route.permission not in catalog.permissions:
            text = f"the route {route.name} wants {route.permission}, which is not among them."
            yield Flaw(("permissions",), text, f"Add {route.permission}.")
