"""The wheel, installed alone into an empty environment elsewhere, runs the demo."""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
from pathlib import Path

import pytest

import penstock

REPOSITORY = Path(penstock.__file__).resolve().parents[2]
DEMO_SECONDS = 120


def run(*argv: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command with nothing of this checkout on its path."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PENSTOCK"))}
    done = subprocess.run(
        argv, cwd=cwd, env=clean | env, capture_output=True, text=True, timeout=DEMO_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{argv} ended with {done.returncode}: {done.stderr[-2000:]}"
    return done


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment's python that has the wheel, and this one's libraries behind it."""
    folder = tmp_path_factory.mktemp("wheel")
    build = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder))
    run(*build, str(REPOSITORY), cwd=folder)
    run(sys.executable, "-m", "venv", str(folder / "env"), cwd=folder)
    python = folder / "env" / "bin" / "python"
    (wheel,) = folder.glob("*.whl")
    pip = (str(python), "-m", "pip", "install", "-q", "--no-deps", "--no-index")
    run(*pip, str(wheel), cwd=folder)
    home = Path(run(str(python), "-c", "import site; print(site.getsitepackages()[0])",
                    cwd=folder).stdout.strip())  # fmt: skip
    # The libraries are the locked ones of the environment that runs this test: a plain path
    # line, so that no .pth file of it (which could name this checkout) is read.
    (home / "libraries.pth").write_text("\n".join(site.getsitepackages()))
    return python


def test_the_wheel_brings_everything_it_needs(installed: Path, tmp_path: Path) -> None:
    code = "import penstock, sys; print(penstock.__file__)"
    where = run(str(installed), "-c", code, cwd=tmp_path).stdout
    assert str(installed.parents[1]) in where
    sql = "from penstock.store.migrate import known; print([m.number for m in known()])"
    assert run(str(installed), "-c", sql, cwd=tmp_path).stdout.startswith("[1, 2, 3")
    checked = run(str(installed), "-m", "penstock", "catalog", "check", cwd=tmp_path)
    assert checked.returncode == 0


def test_the_wheel_can_fetch_kafka(installed: Path, tmp_path: Path) -> None:
    code = (
        "from penstock.sim.servers.jars import project;"
        "print(*sorted(path.name for path in project().iterdir()))"
    )
    named = run(str(installed), "-c", code, cwd=tmp_path).stdout.split()
    assert named == ["pom.xml", "simplelogger.properties"]


def test_the_installed_demo_shows_every_kind_of_end(installed: Path, tmp_path: Path) -> None:
    command = installed.parent / "penstock"
    done = run(str(command), "demo", "--exit", "--port", "0", "-o", "json", cwd=tmp_path)
    summary = json.loads(done.stdout)
    assert summary["orders"] >= 100
    kinds = {state.partition("(")[0] for state in summary["states"]}
    assert kinds == {"completed", "cancelled", "rejected", "on_hold"}
    assert {"seconds", "url"} <= summary.keys()
    assert (tmp_path / ".penstock").is_dir()
