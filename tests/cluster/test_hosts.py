"""Namespaces stand for hosts: they reach each other, and one that is cut off reaches nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.sim.servers import netns
from penstock.sim.servers.kafka import Cluster
from penstock.sim.servers.netns import Hosts
from penstock.sim.servers.postgres import Postgres
from penstock.sim.servers.process import Absent, Process
from tests.servers import absent_is_skipped
from tests.support import eventually

LISTENING = """
import socket, sys
listening = socket.create_server((sys.argv[1], 7000))
print("listening", flush=True)
while True:
    client, _ = listening.accept()
    client.sendall(b"hello")
    client.close()
"""
CALLING = """
import socket, sys
called = socket.create_connection((sys.argv[1], 7000), timeout=float(sys.argv[2]))
print(called.recv(5).decode())
"""
ASKING = """
import psycopg, sys
from penstock.sim.servers.asking import answers
with psycopg.connect(sys.argv[1], connect_timeout=5) as connection:
    print(connection.execute("SELECT 'row'").fetchone()[0], answers(sys.argv[2], 1))
"""


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    """Two hosts."""
    with absent_is_skipped(), Hosts(2) as two:
        yield two


def call(hosts: Hosts, seconds: float = 5.0) -> str:
    """What host 1 hears from host 0."""
    argv = [sys.executable, "-c", CALLING, hosts.address(0), str(seconds)]
    return hosts.run(1, argv).stdout.strip()


@pytest.fixture
def listening(hosts: Hosts, tmp_path: Path) -> Iterator[Process]:
    """Something that answers in host 0."""
    argv = [sys.executable, "-c", LISTENING, hosts.address(0)]
    process = hosts.process(0, argv, tmp_path / "log")
    process.start()
    eventually(lambda: "listening" in process.tail())
    yield process
    process.kill()


def test_hosts_reach_each_other_until_one_is_cut_off(hosts: Hosts, listening: Process) -> None:
    assert listening.runs
    assert call(hosts) == "hello"
    hosts.cut_off(0)
    assert call(hosts, seconds=1.0) == ""
    hosts.plug_in(0)
    assert call(hosts) == "hello"
    hosts.cut_off(1)
    assert call(hosts, seconds=1.0) == ""


def test_hosts_are_not_reached_from_here_or_from_others(hosts: Hosts, listening: Process) -> None:
    assert listening.runs
    from_here = [sys.executable, "-c", CALLING, hosts.address(0), "1"]
    assert subprocess.run(from_here, capture_output=True, check=False).returncode != 0
    with Hosts(2) as others:
        assert call(others, seconds=1.0) == ""


def test_nothing_is_left_of_hosts(hosts: Hosts) -> None:
    names = {hosts.name(0), hosts.name(1)}
    assert names <= set(os.listdir("/run/netns"))
    hosts.close()
    assert not names & set(os.listdir("/run/netns"))


@pytest.mark.hosts
def test_what_a_killed_process_left_is_swept() -> None:
    code = (
        "import os; from penstock.sim.servers.netns import Hosts;"
        "print(Hosts(1).name(0), flush=True); os.kill(os.getpid(), 9)"
    )
    with absent_is_skipped(), Hosts(1):
        pass
    left = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert left.stdout.strip()
    # A test beside this one may have made hosts, and swept, in the meantime.
    netns.sweep()
    assert left.stdout.strip() not in os.listdir("/run/netns")


@pytest.mark.kafka
@pytest.mark.postgres
def test_servers_run_in_one_host_and_are_asked_from_another(hosts: Hosts) -> None:
    with (
        absent_is_skipped(),
        Postgres(durable=False, place=hosts.place(0)) as postgres,
        Cluster(places=[hosts.place(0)]) as kafka,
    ):
        argv = [sys.executable, "-c", ASKING, postgres.dsn(), kafka.bootstrap]
        assert hosts.run(1, argv).stdout.split() == ["row", "True"]


def test_without_iproute2_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(netns, "SYSTEM_PATH", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Absent, match="apt-get install iproute2"):
        Hosts(1)
