"""Network namespaces that stand for hosts: each with an address, a cable and a switch between."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

from penstock.sim.servers.process import Absent, Place, Process

PREFIX = "penstock"
NETWORK = "10.89.0"
HOSTS_MAX = 200
SYSTEM_PATH = "/usr/sbin:/sbin"  # where ip is, and which is not on everybody's path
INSTALL = "apt-get install iproute2"
_numbers = count()


class Hosts:
    """So many hosts on one switch, ``10.89.0.1`` and up; nothing else is on that network.

    The addresses exist inside the namespaces only, so that several of these may live side by
    side. What runs in a host is started by :meth:`run`, :meth:`process`, or at its :meth:`place`.
    """

    def __init__(self, hosts: int) -> None:
        assert 0 < hosts <= HOSTS_MAX
        self._ip = ip()
        sweep()
        self._name = f"{PREFIX}-{os.getpid()}-{next(_numbers)}"
        self._hosts = hosts
        try:
            self._make()
        except Absent:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def _make(self) -> None:
        switch = self._switch
        self._do("netns", "add", switch)
        self._do("-n", switch, "link", "add", "bridge", "type", "bridge")
        self._do("-n", switch, "link", "set", "bridge", "up")
        for host in range(self._hosts):
            name = self.name(host)
            self._do("netns", "add", name)
            self._do(
                "link", "add", "cable", "netns", name, "type", "veth",
                "peer", "name", f"port{host}", "netns", switch,
            )  # fmt: skip
            self._do("-n", name, "address", "add", f"{self.address(host)}/24", "dev", "cable")
            self._do("-n", name, "link", "set", "lo", "up")
            self._do("-n", name, "link", "set", "cable", "up")
            self._do("-n", switch, "link", "set", f"port{host}", "master", "bridge", "up")

    @property
    def _switch(self) -> str:
        return f"{self._name}-switch"

    def _do(self, *argv: str) -> None:
        done = subprocess.run([self._ip, *argv], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Absent(f"no network namespaces here: ip {' '.join(argv)}: {done.stderr.strip()}")

    def name(self, host: int) -> str:
        """Of a host's namespace; hosts are numbered from 0."""
        assert 0 <= host < self._hosts, host
        return f"{self._name}-{host}"

    def address(self, host: int) -> str:
        """Where the other hosts reach it."""
        return f"{NETWORK}.{host + 1}"

    def place(self, host: int) -> Place:
        """For a server that is to run in this host."""
        return Place(address=self.address(host), via=(self._ip, "netns", "exec", self.name(host)))

    def run(
        self, host: int, argv: Sequence[str], *, seconds: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a host to its end, and give what it said."""
        return subprocess.run(
            [*self.place(host).via, *argv], capture_output=True, text=True, timeout=seconds,
            check=False,
        )  # fmt: skip

    def process(self, host: int, argv: Sequence[str], log: Path) -> Process:
        """A command to be started in a host; it dies with us."""
        return Process(argv, log, place=self.place(host))

    def cut_off(self, host: int) -> None:
        """Pull its cable out of the switch: its packets go nowhere, and nobody tells it."""
        self._do("-n", self._switch, "link", "set", f"port{host}", "down")

    def plug_in(self, host: int) -> None:
        """Put the cable back."""
        self._do("-n", self._switch, "link", "set", f"port{host}", "up")

    def close(self) -> None:
        """Remove the hosts and the switch. What still runs in them is cut off from all."""
        for name in (*(self.name(host) for host in range(self._hosts)), self._switch):
            with suppress(Absent):
                self._do("netns", "delete", name)


def ip() -> str:
    """The command of iproute2. Raises :class:`Absent` where namespaces cannot be made."""
    found = shutil.which("ip", path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}")
    if found is None:
        raise Absent(f"network namespaces need ip of iproute2 (Linux): {INSTALL}")
    if os.getuid() != 0:
        raise Absent("network namespaces need root: run it as root, or in a container with "
                     "--cap-add NET_ADMIN --cap-add SYS_ADMIN")  # fmt: skip
    return found


def sweep() -> None:
    """Remove the namespaces that killed processes left behind."""
    for left in Path("/run/netns").glob(f"{PREFIX}-*"):
        made_by = re.match(rf"{PREFIX}-(\d+)-", left.name)
        if made_by and not Path("/proc", made_by[1]).exists():
            subprocess.run(
                [ip(), "netns", "delete", left.name], capture_output=True, check=False
            )
