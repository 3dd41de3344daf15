"""Names: the words of the design, no word that says nothing, a docstring on all that is public."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.tidy.tree import Function, Module, is_contract, listed, source, within

EMPTY_WORDS = {"manager", "helper", "helpers", "util", "utils", "base", "data", "info"}

# Names with an empty word in them that stay: where, each with its reason.
PAYLOAD = "the payload of an Event and of an Emit, as CloudEvents calls it"
SPEAKS_EVENTS = ("event", "decision", "contracts", "conformance", "engine", "flows")
ALLOWED = {
    "data": (tuple(f"penstock.{zone}" for zone in SPEAKS_EVENTS), PAYLOAD),
    "handle_DATA": (("penstock.flows",), "the name that aiosmtpd calls"),
    "data_received": (("penstock.web", "penstock.bench"), "the name that asyncio calls"),
}

# The design's word for each thing, so that one thing has one name everywhere.
SYNONYMS = {
    "dlq": "dead letters (dead_of, parked)",
    "deadqueue": "dead letters",
    "inbox": "marks, or waiting rows",
    "saga": "a service that joins",
    "consumer": "reader, worker or lane",
    "subscriber": "reader, worker or lane",
    "publisher": "courier, or the producing service",
    "relay": "courier",
    "quarantine": "park",
    "quarantined": "parked",
    "supervisor": "crew",
    "orchestrator": "crew, or a service that joins",
    "repository": "store",
    "aggregate": "document, or state",
    "connector": "gateway",
    "alarm": "wake",
    "jobs": "asks or rows",
}
SPOKEN_BY_OTHERS = {
    "penstock.log.kafka": "Kafka's own library speaks of consumers",
}

# Words of the order domain that no name and no text outside the guest may use. `order` alone is
# free: things are handled in order everywhere.
DOMAIN = re.compile(
    r"(?<![a-z])(orders|order_id|order_states|sku|skus|shipments?|parcels?|carriers?|refunds?|"
    r"fulfillments?|inventory|invoices?|reservations?|payments?)(?![a-z])",
    re.IGNORECASE,
)
GUEST = "penstock.flows.orders"  # its path may be a default: test_imports says where
AUDITOR = "penstock.sim.audit"  # may know orders: it imports nothing of penstock
# What a run plays is counted in orders, whatever the flow calls them: the commands say so.
COUNTED_IN_ORDERS = (
    "penstock.sim.case", "penstock.sim.run", "penstock.sim.report", "penstock.cli.sim",
)
MEASURE = "penstock.bench"  # its reference is one order's six records in a bare loop


def words(name: str) -> set[str]:
    """The words of an identifier: ``lagSeconds`` and ``lag_seconds`` are lag and seconds."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)}


def defined(module: Module) -> Iterator[tuple[str, int]]:
    """Names of classes, functions, arguments, fields and module constants, and the module's."""
    yield module.name.rpartition(".")[2], 1
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ClassDef | Function):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        if isinstance(node, ast.ClassDef | ast.Module):
            yield from _assigned(node.body)


def _assigned(body: list[ast.stmt]) -> Iterator[tuple[str, int]]:
    for node in body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        targets += [node.target] if isinstance(node, ast.AnnAssign) else []
        yield from ((t.id, node.lineno) for t in targets if isinstance(t, ast.Name))


def allowed(name: str, module: Module) -> bool:
    """Whether the name has a reason to stay in this module."""
    zones, _reason = ALLOWED.get(name, ((), ""))
    return any(within(module.name, zone) for zone in zones)


def test_names_say_something() -> None:
    wrong = [
        f"{module.at(line)}: {name}"
        for module in source()
        for name, line in defined(module)
        if words(name) & EMPTY_WORDS and not allowed(name, module)
    ]
    assert not wrong, listed(wrong)


def test_one_thing_has_one_name() -> None:
    wrong = [
        f"{module.at(line)}: {name}; the design says: {SYNONYMS[word]}"
        for module in source()
        if module.name not in SPOKEN_BY_OTHERS
        for name, line in defined(module)
        for word in words(name) & SYNONYMS.keys()
    ]
    assert not wrong, listed(wrong)


def test_the_core_does_not_know_what_an_order_is() -> None:
    wrong = []
    for module in source():
        if any(within(module.name, zone) for zone in (GUEST, MEASURE, AUDITOR)):
            continue
        spoken = [*defined(module), *module.strings]
        wrong += [
            f"{module.at(line)}: {text!r}"
            for text, line in spoken
            if DOMAIN.search(_spoken(text, module))
        ]
    assert not wrong, listed(wrong)


def _spoken(text: str, module: Module) -> str:
    text = text.replace(GUEST, "")
    return re.sub("(?i)orders", "", text) if module.name in COUNTED_IN_ORDERS else text


def undocumented(module: Module) -> Iterator[tuple[str, int]]:
    """Public classes, functions and methods without a docstring, and the module itself."""
    if ast.get_docstring(module.tree) is None:
        yield module.name, 1
    yield from _undocumented(module.tree.body)


def _undocumented(body: list[ast.stmt]) -> Iterator[tuple[str, int]]:
    for node in body:
        if not isinstance(node, ast.ClassDef | Function) or node.name.startswith("_"):
            continue
        if ast.get_docstring(node) is None and not _overloaded(node):
            yield node.name, node.lineno
        if isinstance(node, ast.ClassDef):
            yield from _undocumented(node.body)


def _overloaded(node: ast.ClassDef | Function) -> bool:
    return any("overload" in ast.unparse(decorator) for decorator in node.decorator_list)


def port_methods() -> set[str]:
    """Methods whose docstring is the contract in ports: a backend's one need not repeat it."""
    (ports,) = [m for m in source() if m.name == "penstock.ports"]
    return {f.name for f in ports.functions if is_contract(f)}


def test_all_that_is_public_says_what_it_is_for() -> None:
    contracts = port_methods()
    wrong = [
        f"{module.at(line)}: {name}"
        for module in source()
        for name, line in undocumented(module)
        if name not in contracts
    ]
    assert not wrong, listed(wrong)
