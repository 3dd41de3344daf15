"""What documents say about code is what the code says."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib

from tests.docs.written import ROOT, Document
from tests.tidy.tree import source

VARIABLE = re.compile(r"\bPENSTOCK_[A-Z]+(?:_[A-Z]+)*\b")


def test_rendered_pages_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools/render.py"), "--check"],
        capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_option_says_what_it_does() -> None:
    text = (ROOT / "docs/reference/cli.md").read_text()
    silent = re.findall(r"^\| `-[^|]*\|  \|.*$", text, re.MULTILINE)
    assert not silent, silent


def test_every_variable_is_described() -> None:
    read = {name for module in source() for name in VARIABLE.findall(module.text)}
    for name in ("penstock", "test"):
        read |= set(VARIABLE.findall((ROOT / name).read_text()))
    page = (ROOT / "docs/reference/settings.md").read_text()
    assert read
    assert not {name for name in read if f"{name}`" not in page}
    assert set(VARIABLE.findall(page)) <= read


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs/decisions"
    pages = {path.name for path in folder.glob("[0-9]*.md")}
    assert pages == set(Document(folder / "README.md").links)
    for name in pages:
        for word in ("**Context.**", "**Choice.**", "**What would change our mind.**"):
            assert word in (folder / name).read_text(), f"{name} lacks {word}"


PEER = "penstock.bench.peer"  # tests/tidy/test_packaging.py says what it may import


def test_every_library_is_argued_for_and_no_other_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {_library(line) for line in project["dependencies"]}
    tools = {_library(line) for line in project["optional-dependencies"]["test"]}
    page = (ROOT / "docs/decisions/0010-libraries.md").read_text()
    named = set(re.findall(r"`([a-z0-9-]+)`", page))
    assert wanted | tools <= named
    known = {name.replace("-", "_") for name in wanted} | set(sys.stdlib_module_names)
    foreign = {
        f"{module.name}: {found.module}"
        for module in source()
        if module.name != PEER
        for found in module.imports
        if found.module.partition(".")[0] not in known | {"penstock"}
    }
    assert not foreign, foreign


def _library(line: str) -> str:
    match = re.match(r"[a-z0-9-]+", line)
    assert match is not None
    return match[0]


def test_python_in_the_guides_can_be_parsed() -> None:
    for path in (ROOT / "docs").rglob("*.md"):
        for block in Document(path).blocks:
            if block.language == "python":
                ast.parse(block.text)
