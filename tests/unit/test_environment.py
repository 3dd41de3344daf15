"""The wrapper's environment: made once, mended when half-made, safe when two ask at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
ASK = [sys.executable, str(TOOLS / "environment.py")]


def start(folder: Path, lock: Path) -> subprocess.Popen[str]:
    """One run of the maker."""
    command = [*ASK, str(folder), str(lock)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def said(run: subprocess.Popen[str]) -> str:
    """What a run that went well wrote to stderr; nothing ever goes to stdout."""
    out, err = run.communicate(timeout=120)
    assert (run.returncode, out) == (0, ""), err
    return err


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """A lock that pins nothing, so that no test needs the network."""
    path = tmp_path / "requirements.lock"
    path.write_text("# nothing\n")
    return path


def test_two_at_once_make_one_environment_and_a_third_makes_none(
    tmp_path: Path, lock: Path
) -> None:
    both = [start(tmp_path / "env", lock), start(tmp_path / "env", lock)]
    lines = sorted(map(said, both))
    assert lines[0] == ""
    assert lines[1].startswith("penstock: setting up env from requirements.lock (once)")
    assert lines[1].count("\n") == 1
    assert said(start(tmp_path / "env", lock)) == ""


def test_a_half_made_environment_is_made_anew(tmp_path: Path, lock: Path) -> None:
    env = tmp_path / "env"
    (env / "lib").mkdir(parents=True)
    (env / "half-made").touch()
    (env / "lib" / "torn.py").write_text("import nothing")
    said(start(env, lock))
    assert not (env / "lib" / "torn.py").exists()
    assert not (env / "half-made").exists()
    assert (env / "made-from.lock").read_bytes() == lock.read_bytes()


def test_an_unpinned_or_unreachable_package_fails_with_its_name(tmp_path: Path, lock: Path) -> None:
    lock.write_text("penstock-no-such-package @ file:///nowhere/at-all.whl\n")
    run = start(tmp_path / "env", lock)
    _, err = run.communicate(timeout=120)
    assert run.returncode == 1
    assert "at-all.whl" in err
    assert (tmp_path / "env" / "half-made").exists()


def test_no_python_is_said_in_one_line(tmp_path: Path) -> None:
    script = f'here={tmp_path}; . {TOOLS}/environment.sh; environment .venv "$0.lock"'
    run = subprocess.run(
        ["/bin/sh", "-c", script, "penstock"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    assert "no Python 3.11 or newer found" in run.stderr
