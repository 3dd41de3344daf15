"""Makes or mends a virtual environment of a hashed lock file: ``environment.py FOLDER LOCK``.

Only the standard library is there. Two may run at once: the second waits, then finds the work
done. ``made-from.lock``, a copy of the lock, is written last; ``half-made`` lies there meanwhile,
so that an environment whose making was cut short is made anew. A folder that carries neither is
somebody's own environment: it gets the pinned packages, and keeps what it has.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
import venv
from pathlib import Path


class Failed(Exception):
    """A step failed; its output is the message."""


def run(*command: str) -> None:
    """Run a step quietly; raises ``Failed`` with what it said."""
    environment = {**os.environ, "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise Failed((done.stderr or done.stdout).strip())


def answers(python: Path, module: str) -> bool:
    """Whether the environment's interpreter starts and has the module."""
    command = [str(python), "-c", f"import {module}"]
    return python.exists() and subprocess.run(command, capture_output=True).returncode == 0


def make(folder: Path, lock: Path) -> None:
    """Bring the folder to what the lock pins. Raises ``Failed``."""
    python, half_made = folder / "bin" / "python", folder / "half-made"
    if half_made.exists() or not answers(python, "sys"):
        venv.create(folder, clear=True, symlinks=True)
    half_made.touch()
    pip = [str(python), "-m", "pip"]
    if not answers(python, "pip"):
        try:
            run(str(python), "-m", "ensurepip", "--default-pip")
        except Failed:  # Debian cuts ensurepip out of a bare python3; its own pip can stand in
            pip = [sys.executable, "-m", "pip", "--python", str(python)]
    pip += ["--disable-pip-version-check", "--no-input", "install", "--quiet", "--no-deps"]
    run(*pip, "--require-hashes", "--requirement", str(lock))
    (folder / "made-from.lock").write_bytes(lock.read_bytes())
    half_made.unlink()


def up_to_date(folder: Path, lock: Path) -> bool:
    """Whether another run has just done the work."""
    stamp = folder / "made-from.lock"
    whole = stamp.exists() and not (folder / "half-made").exists()
    same = whole and stamp.read_bytes() == lock.read_bytes()
    return same and answers(folder / "bin/python", "sys")


def say(text: str) -> None:
    """To stderr at once, without a line's end of its own."""
    print(text, end="", file=sys.stderr, flush=True)


def main(folder: Path, lock: Path) -> int:
    """One line on stderr says what is done and how long it took."""
    folder.mkdir(exist_ok=True)
    turn = os.open(folder, os.O_RDONLY)
    fcntl.flock(turn, fcntl.LOCK_EX)
    if up_to_date(folder, lock):
        return 0
    started = time.monotonic()
    say(f"penstock: setting up {folder.name} from {lock.name} (once) ... ")
    try:
        make(folder, lock)
    except Failed as failure:
        say(f"failed\n{failure}\n")
        say("penstock: nothing was started. Mend the cause above (a package index must be in ")
        say("reach, and Python must have venv and pip), then run it again.\n")
        return 1
    say(f"done in {time.monotonic() - started:.0f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
