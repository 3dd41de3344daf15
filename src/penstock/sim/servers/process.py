"""One server process: started, stood still, killed, and never left behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from random import SystemRandom
from threading import Event

from msgspec import Struct

from penstock.errors import World

PAUSE_SECONDS = 0.05
STOP_SECONDS = 15.0
SHOWN_LINES = 15  # of a log, in an error

# Below the range that Linux takes the ports of outgoing connections from (32768 by default).
PORTS = range(14_000, 32_000)
_taken: dict[int, socket.socket] = {}

# The kernel sends a parent-death signal when the thread that started the child ends, not when its
# process does. So one thread, which lives as long as the process, starts them all.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="servers")


class Absent(World):
    """A server cannot be had here: something is not installed, or may not be done. The text says
    what to do about it."""


class NotStarted(World):
    """A server was started and did not answer; the text holds the end of its log."""


class Place(Struct, frozen=True):
    """Where a server runs: its address there, and the command that runs another one there."""

    address: str = "127.0.0.1"
    via: tuple[str, ...] = ()


HERE = Place()


def take_ports(count: int) -> list[int]:
    """So many TCP ports that nobody listens on, ours until :func:`give_back` or our end.

    A server binds its port seconds after it was chosen, and again after a kill. So a port is one
    that the kernel gives to no outgoing connection, and a socket of UDP with its number keeps
    other processes that call this away from it.
    """
    taken: list[int] = []
    for port in SystemRandom().sample(PORTS, len(PORTS)):
        if len(taken) == count:
            return taken
        if _take(port):
            taken.append(port)
    raise Absent(f"no {count} free ports from {PORTS.start} to {PORTS.stop - 1}")


def _take(port: int) -> bool:
    kept = socket.socket(type=socket.SOCK_DGRAM)
    try:
        kept.bind((HERE.address, port))
        with socket.socket() as probe:
            probe.bind((HERE.address, port))
    except OSError:
        kept.close()
        return False
    _taken[port] = kept
    return True


def give_back(ports: Iterable[int]) -> None:
    """These ports are no longer ours."""
    for port in ports:
        if port in _taken:
            _taken.pop(port).close()


def until(
    answers: Callable[[], bool], seconds: float, what: str, pause: float = PAUSE_SECONDS
) -> None:
    """Ask again and again; raises :class:`NotStarted` when it is not so in time."""
    waiting = Event()
    for _ in range(max(1, round(seconds / pause))):
        if answers():
            return
        waiting.wait(pause)
    raise NotStarted(f"{what} within {seconds:g} s")


def dying_with_us(
    argv: Sequence[str], user: str = "", fatal: str = "KILL", place: Place = HERE
) -> list[str]:
    """The command, run as another user if one is named, that gets ``fatal`` when we die.

    Where ``setpriv`` of util-linux is missing (macOS, Alpine) it is the command alone: then a
    server goes with us at a usual end, but not at a kill.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None or not os.path.isdir("/proc/self"):
        return [*place.via, *argv]
    drop = [f"--reuid={user}", f"--regid={user}", "--init-groups"] if user else []
    return [*place.via, setpriv, *drop, f"--pdeathsig={fatal}", "--", *argv]


class Process:
    """A server's process and its log file."""

    def __init__(
        self,
        argv: Sequence[str],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        user: str = "",
        fatal: str = "KILL",
        place: Place = HERE,
    ) -> None:
        self._argv = dying_with_us(argv, user, fatal, place)
        self._env, self.log = env, log
        self._running: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running process; 0 when there is none."""
        return self._running.pid if self._running is not None and self.runs else 0

    @property
    def runs(self) -> bool:
        """Whether it was started and has not ended; one that stands still runs."""
        return self._running is not None and self._running.poll() is None

    def start(self) -> None:
        """Start it; its output is appended to the log file."""
        assert not self.runs, "it runs"
        self._running = _starter.submit(self._start).result()

    def _start(self) -> subprocess.Popen[bytes]:
        with open(self.log, "ab") as log:
            return subprocess.Popen(
                self._argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._env,
                cwd=self.log.parent, start_new_session=True,
            )  # fmt: skip

    def until(self, answers: Callable[[], bool], seconds: float) -> None:
        """Wait until it answers; an end of the process or of the time is :class:`NotStarted`."""

        def answered() -> bool:
            if not self.runs:
                raise NotStarted(f"It ended at once. {self.tail()}")
            return answers()

        try:
            until(answered, seconds, "no answer")
        except NotStarted as late:
            raise NotStarted(f"{late}. {self.tail()}") from None

    def tail(self) -> str:
        """The end of its log, for an error."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            lines = []
        return "\n".join([f"The end of {self.log}:", *lines[-SHOWN_LINES:]])

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; one that has ended gets none."""
        if self._running is not None:
            with suppress(ProcessLookupError):
                self._running.send_signal(number)

    def stand_still(self) -> None:
        """SIGSTOP: it keeps its connections and answers nobody."""
        self.send(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        self.send(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL to it and to what it started, and wait for the end of them all."""
        if self._running is None or not self.runs:
            return
        self.stand_still()  # so that it starts nothing between the counting and the killing
        below = descendants(self._running.pid)
        for pid in (*below, self._running.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._running.wait()
        until(lambda: not any(map(alive, below)), STOP_SECONDS, f"{below} did not end")

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = STOP_SECONDS) -> None:
        """Ask it to end, and kill it when it takes longer than ``seconds``."""
        if self._running is None or not self.runs:
            return
        for pid in (*descendants(self._running.pid), self._running.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)  # what stands still cannot end
        self.send(number)
        try:
            self._running.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()


def alive(pid: int) -> bool:
    """Whether there is such a process, and it is more than an entry for its parent to read."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")


def descendants(pid: int) -> list[int]:
    """The processes that this one started, and theirs; empty where there is no ``/proc``."""
    children: dict[int, list[int]] = {}
    for number in filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc") else ()):
        with suppress(OSError):  # it ended meanwhile
            # The name in parentheses may hold spaces and parentheses itself.
            status = Path("/proc", number, "stat").read_text(errors="replace")
            children.setdefault(int(status.rpartition(")")[2].split()[1]), []).append(int(number))
    found, unvisited = [], [pid]
    while unvisited:
        below = children.get(unvisited.pop(), [])
        found += below
        unvisited += below
    return found
