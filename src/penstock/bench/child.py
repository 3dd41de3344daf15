"""A process of a measurement: started apart from ours, so that its memory and CPU are its own.

``python -m penstock.bench.child WORK GIVEN`` calls the function at the dotted path WORK with the
JSON object GIVEN. It speaks in lines of JSON, and is told to stop by the end of its input: so it
ends with us, whatever becomes of us.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from penstock.dotted import resolve
from penstock.sim.servers.process import dying_with_us

SAID_SECONDS = 300.0
END_SECONDS = 15.0
SHOWN_LINES = 20


class Child:
    """One such process, seen from outside."""

    def __init__(self, work: str, **given: Any) -> None:
        self._work, self._unread = work, b""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        argv = [sys.executable, "-m", "penstock.bench.child", work, json.dumps(given)]
        self._process = subprocess.Popen(
            dying_with_us(argv), bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._errors,
        )  # fmt: skip

    def said(self, seconds: float = SAID_SECONDS) -> dict[str, Any]:
        """The next thing it says; raises when it ends instead, or says nothing in time."""
        assert self._process.stdout is not None
        fd, until = self._process.stdout.fileno(), time.monotonic() + seconds
        while True:
            line, found, rest = self._unread.partition(b"\n")
            if found:
                self._unread = rest
                if line.startswith(b"{"):  # libraries may print, too
                    return cast(dict[str, Any], json.loads(line))
                continue
            left = until - time.monotonic()
            if left <= 0:
                raise AssertionError(f"{self._work} said nothing in {seconds:g} s. {self._tail()}")
            if select.select([fd], [], [], left)[0]:
                part = os.read(fd, 1 << 16)
                if not part:
                    raise AssertionError(f"{self._work} ended. {self._tail()}")
                self._unread += part

    def _tail(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").splitlines()
        return "\n".join(["It left:", *lines[-SHOWN_LINES:]])

    def cpu_seconds(self) -> float:
        """CPU time of the process so far, seen from outside."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> dict[str, Any]:
        """End its input, and take what it says then."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self.said()

    def end(self) -> None:
        """Let it end, or kill it. May repeat."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()


class Parent:
    """The other end: whoever started this process."""

    def __init__(self) -> None:
        self._stopped = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while os.read(0, 1 << 10):
            pass
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        """Are we to stop?"""
        return self._stopped.is_set()

    def wait(self) -> None:
        """Until we are to stop."""
        self._stopped.wait()

    def tell(self, **said: Any) -> None:
        """Say something."""
        os.write(1, json.dumps(said).encode() + b"\n")


class Meter:
    """What this process spends from ``begin`` on."""

    def __init__(self) -> None:
        self.began = self._cpu = 0.0

    def begin(self) -> None:
        """The clock starts: the wall's, which the broker's times can be held against."""
        self.began, self._cpu = time.time(), cpu_seconds()

    def report(self) -> dict[str, float]:
        """When it began, when it ended, the CPU in between, and the memory now."""
        return {
            "began": self.began, "ended": time.time(),
            "cpu_seconds": cpu_seconds() - self._cpu, "pss_mb": memory_mb(),
        }


def cpu_seconds() -> float:
    """CPU time of all threads of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def memory_mb() -> float:
    """This process's proportional share of memory (PSS)."""
    with open(f"/proc/{os.getpid()}/smaps_rollup") as file:
        for line in file:
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def settle_memory() -> None:
    """What penstock's own processes do when they have started."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 1000)


def main() -> None:
    """The process's own beginning."""
    work = cast(Callable[..., None], resolve(sys.argv[1]))
    work(Parent(), **json.loads(sys.argv[2]))


if __name__ == "__main__":
    main()
