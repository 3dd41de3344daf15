"""What is declared, what is locked and what is packed agree."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.tidy.tree import ROOT, SRC, listed, source

LOCKS = ("requirements.lock", "requirements-dev.lock")
PINNED = re.compile(r"^([a-z0-9][\w.-]*)==(\S+)", re.MULTILINE)


@cache
def project() -> dict[str, Any]:
    """The project table."""
    declared: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return declared


def declared(*lists: list[str]) -> dict[str, Requirement]:
    """Requirements by canonical name."""
    wanted = [Requirement(text) for texts in lists for text in texts]
    return {canonicalize_name(requirement.name): requirement for requirement in wanted}


def pinned(lock: str) -> dict[str, Version]:
    """The versions of a lock file."""
    found = PINNED.findall((ROOT / lock).read_text())
    return {canonicalize_name(name): Version(version) for name, version in found}


def wanted(name: str) -> set[str]:
    """The names in an ``.in`` file."""
    lines = (ROOT / name).read_text().splitlines()
    return {canonicalize_name(re.split(r"[;\s<>=\[]", x)[0]) for x in lines if x[:1].isalpha()}


def test_lock_inputs_are_the_declared_requirements() -> None:
    assert wanted("requirements.in") == declared(project()["dependencies"]).keys()
    test = project()["optional-dependencies"]["test"]
    assert wanted("requirements-dev.in") == declared(test).keys()


def test_the_locks_satisfy_what_is_declared_and_agree() -> None:
    runtime, dev = (pinned(lock) for lock in LOCKS)
    test = project()["optional-dependencies"]["test"]
    for name, requirement in declared(project()["dependencies"], test).items():
        assert dev[name] in requirement.specifier
    assert runtime.items() <= dev.items()


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_version_has_its_hashes_and_no_host(lock: str) -> None:
    text = (ROOT / lock).read_text()
    bare = [name for name, _ in PINNED.findall(text) if not hashed(text, name)]
    assert not bare, listed(bare)
    assert "://" not in text


def hashed(text: str, name: str) -> bool:
    """Whether the line after the pin is a hash."""
    return bool(re.search(rf"^{re.escape(name)}==[^\n]*\n    --hash=sha256:\w{{64}}", text, re.M))


PEER = "penstock.bench.peer"  # what the bench holds us against; without these it is left out
OF_THE_PEER = {"faststream", "pydantic", "sqlalchemy"}


def test_every_import_from_outside_is_declared() -> None:
    """A package that only comes along with another one may go with its next version."""
    modules = {name.replace("-", "_") for name in declared(project()["dependencies"])}
    known = modules | {"penstock"} | sys.stdlib_module_names
    wrong = [
        f"{module.at(found.line)}: {found.module}"
        for module in source()
        for found in module.imports
        if found.module.partition(".")[0] not in known
        if not (module.name == PEER and found.module.partition(".")[0] in OF_THE_PEER)
    ]
    assert not wrong, listed(wrong)


def test_the_console_script_is_there() -> None:
    module, _, name = project()["scripts"]["penstock"].partition(":")
    tree = ast.parse((SRC / (module.replace(".", "/") + ".py")).read_text())
    assert name in {getattr(node, "name", "") for node in tree.body} | {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def test_the_wheel_holds_the_whole_package(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir"]
    built = subprocess.run([*command, str(tmp_path), str(ROOT)], capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    files = {
        path.relative_to(SRC).as_posix()
        for path in (SRC / "penstock").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    snapshots = {
        f"penstock/flows/orders/contracts/{path.relative_to(ROOT / 'contracts').as_posix()}"
        for path in (ROOT / "contracts").rglob("*.avsc")
    }
    assert files | snapshots <= packed
    assert any(name.endswith("licenses/LICENSE") for name in packed)
