"""The source tree as values: modules, their imports, functions and names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SRC, TESTS = ROOT / "src", ROOT / "tests"
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Import:
    """One imported module, with the name taken from it where there is one."""

    module: str
    name: str
    line: int
    typing_only: bool = False

    @property
    def full(self) -> str:
        """The dotted path of what was imported."""
        return f"{self.module}.{self.name}" if self.name else self.module


@dataclass(frozen=True)
class Module:
    """One parsed Python file; ``name`` is its dotted path."""

    name: str
    path: Path

    @cached_property
    def text(self) -> str:
        """The file as it is."""
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        """The file parsed."""
        return ast.parse(self.text, str(self.path))

    @property
    def is_package(self) -> bool:
        """Whether this is an ``__init__``."""
        return self.path.name == "__init__.py"

    def at(self, line: int) -> str:
        """A place as editors open it."""
        return f"{self.path.relative_to(ROOT)}:{line}"

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        """Every import, those inside functions included; relative ones made absolute."""
        guarded = {
            id(inner)
            for node in ast.walk(self.tree)
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            for inner in ast.walk(node)
        }
        return tuple(self._imports(guarded))

    def _imports(self, guarded: set[int]) -> Iterator[Import]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(alias.name, "", node.lineno, id(node) in guarded)
            elif isinstance(node, ast.ImportFrom):
                module = self._absolute(node)
                for alias in node.names:
                    yield Import(module, alias.name, node.lineno, id(node) in guarded)

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.name.split(".") if self.is_package else self.name.split(".")[:-1]
        kept = parts[: len(parts) - node.level + 1]
        return ".".join([*kept, *([node.module] if node.module else [])])

    @cached_property
    def strings(self) -> tuple[tuple[str, int], ...]:
        """Every string constant that is no docstring, with its line."""
        docs = {
            id(node.body[0].value)
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Module | ast.ClassDef | Function)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        return tuple(
            (node.value, node.lineno)
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in docs
        )

    @property
    def functions(self) -> Iterator[Function]:
        """Every function, nested ones and methods included."""
        return (node for node in ast.walk(self.tree) if isinstance(node, Function))

    @property
    def calls(self) -> Iterator[tuple[str, int]]:
        """Every call as the dotted text of what is called, aliases of imports resolved."""
        renamed = self._renamed()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                head, dot, rest = ast.unparse(node.func).partition(".")
                yield renamed.get(head, head) + dot + rest, node.lineno

    def _renamed(self) -> dict[str, str]:
        names: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                names |= {a.asname: a.name for a in node.names if a.asname}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
        return names

    @property
    def is_script(self) -> bool:
        """Whether it is started by ``python -m``."""
        return self.path.name == "__main__.py"


def function_lines(function: Function) -> int:
    """Lines from ``def`` to the end, the docstring not counted."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function, clean=False) is not None:
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def is_contract(function: Function) -> bool:
    """A protocol's method: nothing but its docstring (and ``...``)."""
    return all(
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for node in function.body
    )


def _read(folder: Path, prefix: Path) -> tuple[Module, ...]:
    modules = []
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(prefix).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules.append(Module(name, path))
    return tuple(modules)


@cache
def source() -> tuple[Module, ...]:
    """Every module of the package."""
    return _read(SRC / "penstock", SRC)


@cache
def of_tests() -> tuple[Module, ...]:
    """Every module of the tests."""
    return _read(TESTS, ROOT)


@cache
def source_names() -> frozenset[str]:
    """The dotted names of all modules of the package."""
    return frozenset(module.name for module in source())


def target(found: Import) -> str:
    """The module of ours that an import reaches: the submodule where one was named."""
    return found.full if found.full in source_names() else found.module


def within(name: str, zone: str) -> bool:
    """Whether a dotted name is the zone or lies inside it."""
    return name == zone or name.startswith(zone + ".")


def listed(violations: list[str]) -> str:
    """Violations as an assertion message, one a line."""
    return f"{len(violations)} violation(s)\n" + "\n".join(sorted(violations))
