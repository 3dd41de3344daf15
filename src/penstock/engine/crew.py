"""The crew: starts processes, sees them die or stick, restarts them, and lets them drain.

A process that ends by itself is started again after a growing pause. One that stays inside a
write transaction past its bound is killed: its epoch would protect the data, but nothing else
protects those it blocks.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

from msgspec import Struct

from penstock.engine.cuts import MEMBER_VARIABLE
from penstock.errors import Problem
from penstock.limits import DRAIN_SECONDS_MAX, TRANSACTION_SECONDS_MAX

READY_SECONDS_MAX = 30.0
RESTART_FIRST_SECONDS = 0.1
RESTART_SECONDS_MAX = 10.0
BURY_SECONDS = 5.0
STEADY_SECONDS = 20.0  # alive this long, and the next restart is quick again
TRANSACTION_VARIABLE = "PENSTOCK_TRANSACTION_SECONDS"  # another bound than the usual one
RESTART_VARIABLE = "PENSTOCK_RESTART_SECONDS"  # another longest pause than the usual one


class Member(Struct, frozen=True, kw_only=True):
    """One process to run. It prints one JSON line when it is ready. ``stage`` orders start
    (low first) and drain (high first)."""

    name: str
    argv: tuple[str, ...]
    stage: int
    about: str = ""
    env: dict[str, str] = {}
    beat: Path | None = None


class Running:
    """A member's process and its fate."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.process: subprocess.Popen[bytes] | None = None
        self.ready: dict[str, Any] | None = None
        self.restarts = 0
        self.pause_seconds = RESTART_FIRST_SECONDS
        self.started_at = self.start_at = 0.0

    @property
    def pid(self) -> int | None:
        """The process id while it lives."""
        alive = self.process is not None and self.process.poll() is None
        return self.process.pid if alive and self.process else None


class Crew:
    """All processes of one ``up``."""

    def __init__(self, log_folder: Path, say: Callable[[str], None]) -> None:
        self._logs, self._say = log_folder, say
        self.members: dict[str, Running] = {}
        self._selector = selectors.DefaultSelector()
        self._stuck_seconds = float(
            os.environ.get(TRANSACTION_VARIABLE) or TRANSACTION_SECONDS_MAX
        )
        self._pause_seconds_max = float(os.environ.get(RESTART_VARIABLE) or RESTART_SECONDS_MAX)
        log_folder.mkdir(parents=True, exist_ok=True)

    def start(
        self, members: Sequence[Member], spawned: Callable[[], None] = lambda: None
    ) -> None:
        """Start a stage and wait until everyone in it is ready. ``spawned`` is called before the
        wait: whoever finds this crew dead in it must know whom to bury. Raises ``Problem``."""
        for member in members:
            running = self.members[member.name] = Running(member)
            self._spawn(running)
        spawned()
        deadline = time.monotonic() + READY_SECONDS_MAX
        for member in members:
            self._await_ready(self.members[member.name], deadline)

    def _spawn(self, running: Running) -> None:
        member = running.member
        if member.beat is not None:
            # A killed process leaves its last words: its successor is not to be judged by them.
            member.beat.unlink(missing_ok=True)
        with open(self._logs / f"{member.name}.log", "ab") as log:
            # A group of its own: Ctrl-C reaches the crew alone, which then drains in order.
            running.process = subprocess.Popen(
                member.argv, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL,
                env={**os.environ, MEMBER_VARIABLE: member.name, **member.env},
                start_new_session=True, preexec_fn=partial(_die_with_parent, os.getpid()),
            )
        running.ready, running.started_at = None, time.monotonic()
        assert running.process.stdout is not None
        os.set_blocking(running.process.stdout.fileno(), False)

    def _await_ready(self, running: Running, deadline: float) -> None:
        assert running.process is not None
        assert running.process.stdout is not None
        out: IO[bytes] = running.process.stdout
        while running.ready is None:
            line = out.readline()
            if line.startswith(b"{"):
                running.ready = json.loads(line)
            elif running.process.poll() is not None:
                raise Problem(
                    "start_failed", self._last_words(running),
                    f"Its log is {self._logs / (running.member.name + '.log')}.",
                )
            elif time.monotonic() > deadline:
                raise Problem("start_slow", f"{running.member.name} is not ready in time.")
            elif not line:
                self._wait_readable(out, deadline)

    def _wait_readable(self, out: IO[bytes], deadline: float) -> None:
        key = self._selector.register(out, selectors.EVENT_READ)
        self._selector.select(min(0.2, max(0.0, deadline - time.monotonic())))
        self._selector.unregister(key.fileobj)

    def _last_words(self, running: Running) -> str:
        path = self._logs / f"{running.member.name}.log"
        lines = [x for x in path.read_text(errors="replace").splitlines() if x.strip()]
        words = lines[-1].removeprefix("error: ") if lines else "no message"
        return f"{running.member.name} did not start: {words}"

    def watch(self) -> None:
        """One look at everybody: kill the stuck, restart the dead. Call a few times a second."""
        now = time.monotonic()
        for running in self.members.values():
            if running.pid is not None:
                self._see_living(running, now)
            elif running.start_at == 0.0:
                self._plan_restart(running, now)
            elif now >= running.start_at:
                running.start_at = 0.0
                running.restarts += 1
                self._spawn(running)

    def _see_living(self, running: Running, now: float) -> None:
        if running.ready is None and running.process and running.process.stdout:
            line = running.process.stdout.readline()
            if line and line.startswith(b"{"):
                running.ready = json.loads(line)
        if now - running.started_at > STEADY_SECONDS:
            running.pause_seconds = RESTART_FIRST_SECONDS
        if _stuck_in_transaction(running.member.beat, self._stuck_seconds):
            self._say(f"{running.member.name} is stuck inside a transaction; killing it")
            assert running.process is not None
            running.process.kill()

    def _plan_restart(self, running: Running, now: float) -> None:
        assert running.process is not None
        code = running.process.returncode
        cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self._say(
            f"{running.member.name} ended ({cause}); again in {running.pause_seconds:.1f} s"
        )
        running.start_at = now + running.pause_seconds
        running.pause_seconds = min(self._pause_seconds_max, running.pause_seconds * 2)

    def drain(self) -> bool:
        """Stop stage by stage, the last started first; True when all ended by themselves."""
        clean = True
        stages = sorted({r.member.stage for r in self.members.values()}, reverse=True)
        for stage in stages:
            clean &= self._stop([r for r in self.members.values() if r.member.stage == stage])
        return clean

    def _stop(self, members: Sequence[Running]) -> bool:
        clean = True
        for running in members:
            if running.pid is not None and running.process:
                running.process.send_signal(signal.SIGCONT)
                running.process.terminate()
        deadline = time.monotonic() + DRAIN_SECONDS_MAX
        for running in members:
            if running.process is None:
                continue
            try:
                running.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                clean = False
                running.process.kill()
                running.process.wait()
        return clean

    def state(self) -> list[Mapping[str, Any]]:
        """Who runs where, for people."""
        return [
            {
                "name": name, "about": r.member.about, "pid": r.pid, "restarts": r.restarts,
                "ready": r.ready,
            }
            for name, r in self.members.items()
        ]


_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with_parent(parent: int) -> None:
    """In the child: drain when the crew dies, however it dies."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died between the fork and the line above
            os.kill(os.getpid(), signal.SIGKILL)


def bury(state: Path, mark: str) -> None:
    """End what a crew that was killed left running: processes named in its state file whose
    command line holds ``mark`` (a process id may have a new owner by now)."""
    try:
        pids = [m["pid"] for m in json.loads(state.read_text()) if m.get("pid")]
    except (OSError, ValueError):
        return
    until = time.monotonic() + BURY_SECONDS
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in pids:
            if _is_ours(pid, mark):
                os.kill(pid, number)
        while any(_is_ours(pid, mark) for pid in pids) and time.monotonic() < until:
            time.sleep(0.05)
        until = time.monotonic() + BURY_SECONDS


def _is_ours(pid: int, mark: str) -> bool:
    try:
        return mark in Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return False


def open_beat(path: Path) -> memoryview:
    """A process's heartbeat words in shared memory: last turn, and since when a transaction is
    open (both CLOCK_MONOTONIC nanoseconds, 0 for none)."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, 16)
        words = memoryview(mmap.mmap(fd, 16)).cast("q")
    finally:
        os.close(fd)
    words[0] = words[1] = 0
    return words


def _stuck_in_transaction(beat: Path | None, bound_seconds: float) -> bool:
    if beat is None or not beat.exists():
        return False
    raw = beat.read_bytes()
    since = int.from_bytes(raw[8:16], "little")
    return bool(since) and time.monotonic_ns() - since > bound_seconds * 1e9
