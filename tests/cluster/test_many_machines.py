"""Several machines: namespaces stand for hosts, one of which loses its cable in the middle."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.sim.servers.kafka import Cluster
from penstock.sim.servers.netns import Hosts
from penstock.sim.servers.postgres import Postgres
from penstock.sim.servers.process import Process
from tests.cluster.stage import Stage, catalog_at
from tests.servers import absent_is_skipped
from tests.support import eventually

SERVICES = ("order", "inventory", "payment", "shipping", "notify")
ORDERS = 40
DOOR_PORT, BOX_PORT = 8080, 8400
SERVERS, ONE, OTHER, CUSTOMER = range(4)  # the hosts
pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.hosts]


class Machines:
    """Four hosts: broker, database and sandboxes; twice everything of penstock; a customer."""

    def __init__(self, hosts: Hosts, folder: Path, kafka: str, postgres: str) -> None:
        self.hosts, self.folder = hosts, folder
        self.stage = Stage(folder / "home", catalog_at(folder, kafka, postgres, "many-"))
        self.running: list[Process] = []
        outside = {
            "payments_url": self._at(SERVERS, BOX_PORT), "mail_port": str(BOX_PORT + 2),
            "carrier_url": self._at(SERVERS, BOX_PORT + 1), "mail_host": hosts.address(SERVERS),
        }  # fmt: skip
        (folder / "outside.json").write_text(json.dumps(outside))

    def _at(self, host: int, port: int) -> str:
        return f"http://{self.hosts.address(host)}:{port}"

    @property
    def doors(self) -> list[str]:
        """Where a customer may go."""
        return [self._at(ONE, DOOR_PORT), self._at(OTHER, DOOR_PORT)]

    def spawn(self, host: int, name: str, argv: list[str]) -> Process:
        """Start a process in a host, without waiting for it."""
        env = {**os.environ, "PENSTOCK_OUTSIDE": str(self.folder / "outside.json")}
        place = self.hosts.place(host)
        process = Process(argv, self.folder / f"{host}-{name}.log", env=env, place=place)
        process.start()
        self.running.append(process)
        return process

    def penstock(self, host: int, *words: str) -> Process:
        """A process of penstock, with a home of its own: nothing is shared but the network."""
        stage = Stage(self.folder / f"home-{host}", self.stage.catalog)
        return self.spawn(host, words[0] + "".join(words[1:2]), stage.argv(*words))

    def start(self) -> None:
        """Tables and topics from one of the machines, then everything."""
        for words in (("db", "migrate"), ("topics", "apply", "--yes")):
            done = self.hosts.run(ONE, self.stage.argv(*words))
            assert done.returncode == 0, done.stdout + done.stderr
        for n, kind in enumerate(("provider", "carrier", "mail")):
            home = self.folder / "home" / "sandbox" / ("payments" if n == 0 else kind)
            argv = [sys.executable, "-m", "penstock.flows.orders.sandbox", kind]
            argv += ["--port", str(BOX_PORT + n), "--host", self.hosts.address(SERVERS)]
            self.spawn(SERVERS, kind, [*argv, "--home", str(home), "--door", self.doors[0]])
        told: list[Process] = []
        for host in (ONE, OTHER):
            told += [self.penstock(host, "worker", service) for service in SERVICES]
            told += [self.penstock(host, "courier")]
            address = self.hosts.address(host)
            told += [self.penstock(host, "web", "--host", address, "--port", str(DOOR_PORT))]
        for process in told:
            eventually(lambda p=process: '"pid"' in p.tail() or not p.runs, 60)
            assert process.runs, process.tail()

    def stop(self) -> None:
        """End everybody."""
        for process in self.running:
            process.kill()


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    """Started, with nothing placed yet."""
    with absent_is_skipped(), Hosts(4) as hosts:
        place = hosts.place(SERVERS)
        with Postgres(durable=False, place=place) as postgres, Cluster(places=[place]) as kafka:
            made = Machines(hosts, tmp_path, kafka.bootstrap, postgres.dsn())
            try:
                made.start()
                yield made
            finally:
                made.stop()


def test_a_machine_that_is_cut_off_costs_nothing_but_time(machines: Machines) -> None:
    """Its lanes, shards and requests go to the other one; when the cable is back, whatever it
    still wants to write is refused, and all orders have ended once."""
    argv = [sys.executable, "-m", "tests.cluster.customer", str(ORDERS), *machines.doors]
    customer = machines.spawn(CUSTOMER, "customer", argv)
    log = customer.log
    placed = lambda: log.read_text().count('"placed"')  # noqa: E731
    eventually(lambda: placed() >= ORDERS // 3 or not customer.runs, 60)
    machines.hosts.cut_off(OTHER)
    eventually(lambda: placed() >= ORDERS or not customer.runs, 90)
    machines.hosts.plug_in(OTHER)
    eventually(lambda: '"ended"' in log.read_text() or not customer.runs, 120)
    assert '"ended"' in log.read_text(), customer.tail()
    ended = json.loads(log.read_text().splitlines()[-1])["ended"]
    declined = len([n for n in range(ORDERS) if n % 7 == 3])
    assert ended == {"completed": ORDERS - declined, "rejected": declined}
    audit = machines.hosts.run(ONE, machines.stage.argv("audit"))
    assert audit.returncode == 0, audit.stdout + audit.stderr
