"""Nothing is left lying about: no dead module, no note to self, no skipped test, no mock."""

from __future__ import annotations

import ast
import re

from tests.tidy.tree import ROOT, Module, listed, of_tests, source, source_names, target, within

NOTE_TO_SELF = re.compile(r"\b(TO" r"DO|FIX" r"ME|X" r"XX|HA" r"CK)\b")
HIDDEN = re.compile(r"(?:mark|pytest|unittest)\.(skip\w*|xfail|importorskip)\b")
MAY_SKIP = "tests.servers"  # where no Kafka or PostgreSQL is installed; never with CI=true
SLEEPS = {"time.sleep", "asyncio.sleep"}
CREW = ("penstock.engine.crew", "penstock.engine.runner", "penstock.engine.shift")
SANDBOXES = "penstock.flows.orders.sandbox"
GATEWAYS = "penstock.flows.orders.gateways"  # a Retry-After may be a date
BENCH = "penstock.bench"  # its bare loops are processes of their own, without crew or Clock
CRASHES = "penstock.sim.crash"  # drives real processes, in real time
MOVING = "penstock.moving"  # commands of people, who wait for a home to drain
MAY_SLEEP = (*CREW, "penstock.cli", SANDBOXES, BENCH, CRASHES, MOVING)
CLOCK_READERS = {"time.time", "time.time_ns", "datetime.datetime.now", "datetime.datetime.utcnow"}
NEVER_IMPORTED = {
    "unittest.mock": "fakes are shipped code: the memory log, the sandboxes",
    "mock": "fakes are shipped code: the memory log, the sandboxes",
    "pickle": "values travel as JSON by a contract",
    "logging": "return a value, count a metric, or journal it; the command line prints",
}
NEVER_CALLED = {
    "eval": "parse it",
    "exec": "name a dotted path in the catalog",
    "breakpoint": "write the test that needed it",
    "struct.pack_into": "memoryview cast to 'q': pack_into zeroes first, and a killed process "
    "leaves the zero",
    "os._exit": "raise, or let the crew kill it",
}
MAY_EXIT = "penstock.engine.cuts"  # the cut points of the crash tests die as a kill does
EVERYTHING = (*source(), *of_tests())


def calls_of(modules: tuple[Module, ...], banned: set[str]) -> list[tuple[Module, int, str]]:
    """Every call of one of the banned names."""
    return [(m, line, call) for m in modules for call, line in m.calls if call in banned]


def test_no_note_to_self() -> None:
    wrong = [
        f"{module.at(number)}: {line.strip()}"
        for module in EVERYTHING
        for number, line in enumerate(module.text.splitlines(), 1)
        if NOTE_TO_SELF.search(line)
    ]
    assert not wrong, listed(wrong)


def test_no_test_is_hidden() -> None:
    wrong = [
        f"{module.at(node.lineno)}: {ast.unparse(node)}"
        for module in of_tests()
        if module.name != MAY_SKIP
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and HIDDEN.search(ast.unparse(node))
    ]
    assert not wrong, listed(wrong)


def test_nothing_banned_is_imported() -> None:
    wrong = [
        f"{module.at(found.line)}: {banned}; instead: {instead}"
        for module in EVERYTHING
        for found in module.imports
        for banned, instead in NEVER_IMPORTED.items()
        if within(found.full, banned)
    ]
    assert not wrong, listed(wrong)


def test_nothing_banned_is_called() -> None:
    wrong = [
        f"{module.at(line)}: {call}(); instead: {NEVER_CALLED[call]}"
        for module, line, call in calls_of(EVERYTHING, set(NEVER_CALLED))
        if not (call == "os._exit" and module.name == MAY_EXIT)
    ]
    assert not wrong, listed(wrong)


def test_only_the_crew_sleeps() -> None:
    wrong = [
        f"{module.at(line)}: {call}"
        for module, line, call in calls_of(EVERYTHING, SLEEPS)
        if not any(within(module.name, zone) for zone in MAY_SLEEP)
    ]
    assert not wrong, listed(wrong)


def mentioned() -> set[str]:
    """Modules named by dotted path in a string: handlers, child processes, packaging."""
    paths = [*ROOT.glob("*.toml"), *(ROOT / "src").rglob("*.toml")]
    texts = [path.read_text(encoding="utf-8") for path in paths]
    texts += [text for module in source() for text, _line in module.strings]
    dotted = re.compile(r"penstock(?:\.\w+)+")
    return {match for text in texts for match in dotted.findall(text)}


def reached() -> set[str]:
    """Every module that another one imports, a text names, or a shipped suite's user imports."""
    names = mentioned() | {"penstock", "penstock.__main__"}
    for module in source():
        names |= {target(found) for found in module.imports if found.module != module.name}
    for module in of_tests():
        suites = (target(found) for found in module.imports)
        names |= {name for name in suites if within(name, "penstock.conformance")}
    return names


def test_no_module_is_dead() -> None:
    alive = reached()
    packages = {name.rpartition(".")[0] for name in source_names()}
    alive |= {f"{name}.__main__" for name in mentioned()}
    dead = [m.at(1) for m in source() if m.name not in alive and m.name not in packages]
    assert not dead, listed(dead)


def test_the_wall_clock_is_read_at_the_edges_only() -> None:
    """Time is an argument; what reads it is the Clock and what starts processes."""
    shells = ("penstock.assemble", "penstock.web", "penstock.cli")
    edges = (*CREW, *shells, SANDBOXES, GATEWAYS, BENCH, CRASHES, MOVING)
    wrong = [
        f"{module.at(line)}: {call}"
        for module, line, call in calls_of(source(), CLOCK_READERS)
        if not any(within(module.name, zone) for zone in edges)
    ]
    assert not wrong, listed(wrong)
