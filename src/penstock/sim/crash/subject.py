"""What is harmed: one home and the ``penstock up`` that runs in it, started as people start it."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from penstock.engine.wakes import run_folder
from penstock.sim.crash.waiting import Late, eventually

START_SECONDS = 60.0
END_SECONDS = 40.0
STARTS_MAX = 3  # a free port may be gone before it is used
FULL_AT_BYTES = 512  # a file-size limit that leaves no room in any store, log or ledger
PLENTY = resource.RLIM_INFINITY
PORT_TAKEN = "cannot be used"  # what ``up`` says of a port


class Subject:
    """One home and its processes."""

    def __init__(
        self, home: Path, *, port: int = 0, env: Mapping[str, str] | None = None,
        catalog: Path | None = None,
    ) -> None:  # fmt: skip
        self.home, self.port = home, port
        self._env, self._catalog = dict(env or {}), catalog
        self.log = home.parent / f"{home.name}-up.log"
        self.process: subprocess.Popen[bytes] | None = None

    # Starting ------------------------------------------------------------------------------------

    def command(self, *words: str) -> list[str]:
        """A penstock command over this home."""
        catalog = ["--catalog", str(self._catalog)] if self._catalog else []
        return [sys.executable, "-m", "penstock", "--home", str(self.home), *catalog, *words]

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start ``up`` and return at once."""
        self.process = self.run("up", "--port", str(self.port))
        return self.process

    def run(self, *words: str, member: str = "") -> subprocess.Popen[bytes]:
        """Start any penstock command over this home, under a member's name where it has one."""
        named = {"PENSTOCK_MEMBER": member} if member else {}
        with open(self.log, "ab") as log:
            return subprocess.Popen(
                self.command(*words), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, **self._env, **named}, start_new_session=True,
            )  # fmt: skip

    def start(self) -> None:
        """Start ``up`` and wait until everybody is ready. Raises ``Late``."""
        for left in reversed(range(STARTS_MAX)):
            before = len(self.said())
            try:
                return self._started(self.spawn())
            except Ended:
                if left == 0 or PORT_TAKEN not in self.said()[before:]:
                    raise

    def _started(self, process: subprocess.Popen[bytes]) -> None:
        eventually(lambda: self._is_up(process), START_SECONDS, "up is ready")

    def _is_up(self, process: subprocess.Popen[bytes]) -> bool:
        code = process.poll()
        if code is not None:
            raise Ended(f"up ended with {code}: {self.said()[-2000:].strip()}")
        try:
            said = json.loads((self.home / "run" / "up.json").read_text())
        except FileNotFoundError:
            return False
        if said["pid"] != process.pid:
            return False
        self.port = int(said["url"].rpartition(":")[2])
        return True

    # Looking -------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where its API is."""
        return f"http://127.0.0.1:{self.port}"

    def said(self) -> str:
        """What ``up`` printed so far, over all its starts."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def pids(self) -> dict[str, int]:
        """The living members by name, as the crew tells."""
        try:
            crew = json.loads((self.home / "run" / "crew.json").read_text())
        except FileNotFoundError:
            return {}
        family = set(self.family())
        return {m["name"]: m["pid"] for m in crew if m["pid"] in family}

    def pid(self, member: str) -> int:
        """A member's process, waiting for it to be there. Raises ``Late``."""
        return eventually(lambda: self.pids().get(member), START_SECONDS, f"{member} runs") or 0

    def family(self) -> list[int]:
        """Every living process that was started over this home."""
        found = (int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit())
        return [pid for pid in found if self._is_ours(pid)]

    def _is_ours(self, pid: int) -> bool:
        home = str(self.home)
        return any(w == home or w.startswith(f"{home}/") for w in command_line(pid).split("\0"))

    # Harm ----------------------------------------------------------------------------------------

    def kill(self, member: str) -> None:
        """End a member with -9 and wait until another process has its place. Raises ``Late``."""
        pid = self.pid(member)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        self.await_successor(member, pid)

    def await_successor(self, member: str, pid: int) -> None:
        """Wait until another process than ``pid`` has a member's place. Raises ``Late``."""
        eventually(
            lambda: self.pids().get(member, pid) != pid, START_SECONDS, f"{member} is back"
        )

    def kill_up(self) -> None:
        """End the parent with -9, whatever its children do."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self, signals: int = 1) -> int:
        """SIGTERM: drain; a second one ends at once. The exit code. Raises ``Late``."""
        assert self.process is not None
        for _ in range(signals):
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            raise Late(f"not within {END_SECONDS:g} s: up has drained") from None

    def limit_files(self, size: int, *pids: int) -> None:
        """No process of these, or of the family, may write a file beyond ``size`` bytes
        (RLIMIT_FSIZE), from now on: what a full disk is to them. Until a look finds nobody else:
        a child that was forked before its parent was reached has the old limit."""
        while sum(_limit(pid, size) for pid in pids or self.family()):
            pass

    def clean_up(self) -> None:
        """Leave no process and no socket, whatever happened before."""
        if self.process is not None and self.process.poll() is None:
            self.kill_up()
        for pid in self.family():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        eventually(lambda: not self.family(), END_SECONDS, "everybody is gone")
        shutil.rmtree(run_folder(self.home), ignore_errors=True)


class Ended(Exception):
    """``up`` ended where it had to run."""


def command_line(pid: int) -> str:
    """A process's words, parted by NUL; empty for one that is gone or only waits to be."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def _limit(pid: int, size: int) -> bool:
    """Set a process's limit; False where it has it already, or is gone."""
    wanted = (size, resource.RLIM_INFINITY)
    with contextlib.suppress(ProcessLookupError):
        return resource.prlimit(pid, resource.RLIMIT_FSIZE, wanted) != wanted
    return False


def is_stopped(pid: int) -> bool:
    """Does a process stand still (SIGSTOP)?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False


@contextlib.contextmanager
def running(home: Path, **how: Any) -> Iterator[Subject]:
    """A subject that runs; nothing of it is left behind."""
    subject = Subject(home, **how)
    try:
        subject.start()
        yield subject
    finally:
        subject.clean_up()
