"""The Dockerfile keeps its promises: pinned, hashed, without root, without shells' tricks."""

from __future__ import annotations

import re
import tomllib

import pytest

from penstock.cli.main import COMMANDS
from penstock.limits import DRAIN_SECONDS_MAX
from tests.deploy.dockerfile import ROOT, instructions, kept_by_ignore, ours, stages

EXACT = re.compile(r"[\w./-]+:\d+\.\d+\.\d+[\w.-]*(@sha256:[0-9a-f]{64})?")
SHELL_TRICKS = ("&&", "||", ";", "|", "$(", "`", "curl", "wget", "apt", ">", "http")


def test_the_base_is_one_exact_version() -> None:
    build, final = ours()
    assert build.base == final.base
    assert EXACT.fullmatch(final.base)
    assert "latest" not in final.base


def test_the_base_has_the_python_of_the_tests() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    minor = project["tool"]["mypy"]["python_version"]
    assert ours()[1].base.startswith(f"python:{minor}.")


def test_everything_copied_is_there_and_in_the_context() -> None:
    build, final = ours()
    sources = [s for i in build.of("COPY") for s in i.sources]
    assert {"requirements.lock", "requirements-build.lock", "src", "contracts"} <= set(sources)
    assert [s for s in sources if not (ROOT / s).exists()] == []
    assert [s for s in sources if not kept_by_ignore(s)] == []
    assert [(i.source_stage, i.sources) for i in final.of("COPY")] == [("build", ["/opt/penstock"])]


@pytest.mark.parametrize(
    "path", [".git/config", ".venv/bin/python", ".penstock/order.db", "tests/support.py", ".env",
             "docs/tutorial.md", "src/penstock/__pycache__/event.cpython-311.pyc", "tools/lock"],
)  # fmt: skip
def test_nothing_else_comes_into_the_context(path: str) -> None:
    assert not kept_by_ignore(path)


def test_what_the_wheel_needs_comes_into_the_context() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    wanted = [*wheel["packages"], *wheel["force-include"], project["project"]["readme"], "LICENSE"]
    copied = {s for i in ours()[0].of("COPY") for s in i.sources}
    assert [w for w in wanted if not any(w == c or w.startswith(f"{c}/") for c in copied)] == []


def test_all_that_is_installed_is_pinned_by_hash() -> None:
    installs = [i.words for i in ours()[0].of("RUN") if "install" in i.words]
    from_index = [words for words in installs if "--no-index" not in words]
    assert {words[words.index("--requirement") + 1] for words in from_index} == {
        "requirements.lock", "requirements-build.lock",
    }  # fmt: skip
    for words in from_index:
        assert {"--require-hashes", "--no-deps", "--only-binary"} <= set(words)
    (own,) = [words for words in installs if "--no-index" in words]
    assert own[-1] == "penstock"


def test_the_build_lock_is_part_of_the_lock_that_the_tests_have() -> None:
    pins = {
        name: set(re.findall(r"^[\w.-]+==\S+", (ROOT / name).read_text(), re.MULTILINE))
        for name in ("requirements-build.lock", "requirements-dev.lock")
    }
    assert pins["requirements-build.lock"] <= pins["requirements-dev.lock"]
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    names = {re.split(r"[<>=]", want)[0] for want in asked}
    assert names <= {pin.partition("==")[0] for pin in pins["requirements-build.lock"]}


def test_no_step_needs_a_shell() -> None:
    for stage in ours():
        for run in stage.of("RUN"):
            assert [t for t in SHELL_TRICKS if t in run.rest] == [], run.rest


def test_it_runs_as_nobody_known_and_writes_no_bytecode() -> None:
    final = ours()[1]
    (user,) = final.of("USER")
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user.rest)
    assert final.instructions.index(user) > final.instructions.index(final.of("RUN")[-1])
    assert final.environment["PYTHONDONTWRITEBYTECODE"] == "1"
    assert final.environment["PENSTOCK_HOME"] == "/var/lib/penstock"
    assert any("compileall" in run.rest for run in ours()[0].of("RUN"))


def test_it_starts_the_command_line() -> None:
    final = ours()[1]
    assert final.of("ENTRYPOINT")[0].argv == ["penstock"]
    assert final.of("CMD")[0].argv == ["--help"]
    assert {"worker", "courier", "web"} <= COMMANDS.keys()
    assert DRAIN_SECONDS_MAX < 45, "manifests and compose.yaml wait 45 s"


def test_instructions_that_are_not_understood_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown instruction: ADD"):
        stages("FROM a:1.2.3\nADD https://elsewhere.example/x /x\n")
    joined = instructions("# no\nRUN a \\\n    b\n\nUSER 1\n")
    assert [(i.word, i.rest) for i in joined] == [("RUN", "a b"), ("USER", "1")]
