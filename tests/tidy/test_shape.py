"""Sizes: small functions, small files, narrow ports, few exports."""

from __future__ import annotations

import ast
from collections.abc import Callable
from statistics import median, quantiles

from tests.tidy.share import measure
from tests.tidy.tree import ROOT, function_lines, is_contract, listed, of_tests, source

FUNCTION_LINES_MAX, FUNCTION_LINES_P90, FUNCTION_LINES_MEDIAN = 60, 25, 8
FILE_LINES_MAX, COLUMNS_MAX = 500, 100
PORT_METHODS_MAX, EXPORTS_MAX = 6, 12
WRITTEN_HERE = (".py", ".sh", ".toml", ".html", ".css", ".sql")
VENDORED = ("static/vendor", "min.js", "min.css")


def lengths() -> list[int]:
    """Lines of every function with a body in the package."""
    return [function_lines(f) for m in source() for f in m.functions if not is_contract(f)]


def test_no_function_is_long() -> None:
    long = [
        f"{module.at(function.lineno)}: {function.name} has {function_lines(function)} lines"
        for module in (*source(), *of_tests())
        for function in module.functions
        if function_lines(function) > FUNCTION_LINES_MAX
    ]
    assert not long, listed(long)


def test_most_functions_are_short() -> None:
    assert median(lengths()) <= FUNCTION_LINES_MEDIAN
    assert quantiles(lengths(), n=10)[-1] <= FUNCTION_LINES_P90


def test_files_are_short_and_narrow() -> None:
    wrong = []
    for folder in ("src", "tests", "tools"):
        for path in (ROOT / folder).rglob("*"):
            name = path.relative_to(ROOT).as_posix()
            if path.suffix not in WRITTEN_HERE or any(part in name for part in VENDORED):
                continue
            lines = path.read_text(encoding="utf-8").splitlines()
            if len(lines) > FILE_LINES_MAX:
                wrong.append(f"{name}: {len(lines)} lines")
            wide = [n for n, line in enumerate(lines, 1) if len(line) > COLUMNS_MAX]
            wrong += [f"{name}:{n}: more than {COLUMNS_MAX} columns" for n in wide]
    assert not wrong, listed(wrong)


def test_ports_are_narrow() -> None:
    wide = []
    for module in source():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef) and "Protocol" in map(ast.unparse, node.bases):
                methods = [
                    part.name
                    for part in node.body
                    if isinstance(part, ast.FunctionDef) and not part.name.startswith("_")
                ]
                if len(methods) > PORT_METHODS_MAX:
                    wide.append(f"{module.at(node.lineno)}: {node.name} has {len(methods)}")
    assert not wide, listed(wide)


def test_the_package_exports_little() -> None:
    (package,) = [m for m in source() if m.name == "penstock"]
    names = {found.name for found in package.imports}
    for node in package.tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        names |= {name.id for name in targets if isinstance(name, ast.Name)}
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
    assert len({name for name in names if not name.startswith("_")}) <= EXPORTS_MAX


def test_the_share_of_pure_lines_is_reported(
    record_property: Callable[[str, object], None],
) -> None:
    share = measure()
    record_property("pure_lines", share.pure)
    record_property("all_lines", share.all)
    record_property("pure_share", round(share.ratio, 3))
    assert 0 < share.pure <= share.all
