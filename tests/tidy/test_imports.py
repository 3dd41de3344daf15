"""Imports go one way; pure zones stay pure; guests stay guests."""

from __future__ import annotations

from collections.abc import Iterator

from tests.tidy.tree import Import, Module, listed, source, source_names, target, within
from tests.tidy.zones import BANNED_CALLS, BANNED_MODULES, IMPURE, LAYERS, pure

RANK = {name: rank for rank, row in enumerate(LAYERS) for name in row}
FREE = {"penstock", "penstock.__main__"}  # the package itself and its entry point
ADAPTERS = ("penstock.log", "penstock.store")
GUEST = "penstock.flows.orders"
GUEST_MAY_BE_NAMED_IN = ("penstock.flows", "penstock.cli", "penstock.assemble")


def layer(name: str) -> str:
    """The top-level part of a dotted name below ``penstock``."""
    return name.split(".")[1] if "." in name else ""


def edges() -> Iterator[tuple[Module, Import, str]]:
    """Every import of a module of ours by a module of ours."""
    for module in source():
        for found in module.imports:
            if within(found.module, "penstock"):
                yield module, found, target(found)


def test_every_module_has_a_place_in_the_table() -> None:
    unplaced = [m.at(1) for m in source() if m.name not in FREE and layer(m.name) not in RANK]
    assert not unplaced, listed(unplaced)


def test_every_exception_of_the_pure_zones_exists_and_is_needed() -> None:
    unused = [name for name in IMPURE if name not in source_names()]
    assert not unused, listed(unused)


def test_imports_go_one_way() -> None:
    wrong = []
    for module, found, reached in edges():
        if module.name in FREE or reached in FREE or layer(module.name) == layer(reached):
            continue
        if RANK.get(layer(reached), 99) >= RANK.get(layer(module.name), 99):
            wrong.append(f"{module.at(found.line)}: {layer(module.name)} imports {reached}")
    assert not wrong, listed(wrong)


def test_pure_zones_import_nothing_of_the_world() -> None:
    wrong = []
    for module in pure():
        for found in module.imports:
            for banned, instead in BANNED_MODULES.items():
                if within(found.full, banned) and not found.typing_only:
                    wrong.append(f"{module.at(found.line)}: {banned}; instead: {instead}")
    assert not wrong, listed(wrong)


def test_pure_zones_import_no_impure_exception() -> None:
    """An exception is reached from assemble and the command line, not from pure code."""
    wrong = [
        f"{module.at(found.line)}: {reached} {IMPURE[name]}"
        for module, found, reached in edges()
        for name in IMPURE
        if module in tuple(pure()) and within(reached, name)
    ]
    assert not wrong, listed(wrong)


def test_pure_zones_call_nothing_of_the_world() -> None:
    wrong = [
        f"{module.at(line)}: {call}(); instead: {BANNED_CALLS[call]}"
        for module in pure()
        for call, line in module.calls
        if call in BANNED_CALLS
    ]
    assert not wrong, listed(wrong)


def test_only_assemble_names_adapters() -> None:
    wrong = [
        f"{module.at(found.line)}: {reached}"
        for module, found, reached in edges()
        if any(within(reached, adapter) for adapter in ADAPTERS)
        and layer(reached) != layer(module.name)
        and layer(module.name) != "assemble"
    ]
    assert not wrong, listed(wrong)


def test_nobody_imports_the_order_flow() -> None:
    wrong = [
        f"{module.at(found.line)}: {reached}"
        for module, found, reached in edges()
        if within(reached, GUEST) and not within(module.name, GUEST)
    ]
    assert not wrong, listed(wrong)


def test_the_order_flow_is_named_as_a_default_only() -> None:
    wrong = [
        f"{module.at(line)}: {text!r}"
        for module in source()
        for text, line in module.strings
        if ("flows.orders" in text or "flows/orders" in text)
        and not any(within(module.name, zone) for zone in GUEST_MAY_BE_NAMED_IN)
    ]
    assert not wrong, listed(wrong)


def test_rooms_import_neither_rooms_nor_ports() -> None:
    wrong = [
        f"{module.at(found.line)}: {reached}"
        for module, found, reached in edges()
        if module.name.startswith("penstock.rooms.")
        if within(reached, "penstock.rooms") or within(reached, "penstock.ports")
    ]
    assert not wrong, listed(wrong)


def test_the_auditor_imports_nothing_of_penstock() -> None:
    wrong = [
        f"{module.at(found.line)}: {reached}"
        for module, found, reached in edges()
        if within(module.name, "penstock.sim.audit") and not within(reached, "penstock.sim.audit")
    ]
    assert not wrong, listed(wrong)
