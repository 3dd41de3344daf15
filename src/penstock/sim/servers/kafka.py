"""Kafka brokers of this process: one, or three that replicate, killed and started again."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from msgspec import Struct

from penstock.sim.servers import folder
from penstock.sim.servers.asking import answers
from penstock.sim.servers.jars import classpath, jars, java
from penstock.sim.servers.process import HERE, NotStarted, Place, Process, give_back, take_ports
from penstock.sim.servers.proxy import Proxy
from penstock.sim.servers.tls import Certificates

NODES_HEAP_MB = {1: 512, 3: 320}
ANSWER_SECONDS = 90.0
# Not compiled to the last: a broker of a test lives for a minute and shares the cores with it.
QUICK_JVM = ("-XX:TieredStopAtLevel=1", "-Xshare:auto")
JVM = (
    "-server", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true",
    "-Dfile.encoding=UTF-8",
)  # fmt: skip

# How soon a broker notices things. A member that says nothing for the session is dead.
SESSION_MS, HEARTBEAT_MS = 2000, 500
SETTINGS: Mapping[str, str] = {
    "auto.create.topics.enable": "false",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "500",
    "group.consumer.session.timeout.ms": str(SESSION_MS),
    "group.consumer.min.session.timeout.ms": "500",
    "group.consumer.heartbeat.interval.ms": str(HEARTBEAT_MS),
    "group.consumer.min.heartbeat.interval.ms": "100",
    "log.retention.check.interval.ms": "1000",
    "log.cleaner.dedupe.buffer.size": str(4 << 20),
    "log.segment.delete.delay.ms": "1000",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "num.recovery.threads.per.data.dir": "1",
    "controller.quorum.election.timeout.ms": "500",
    "controller.quorum.fetch.timeout.ms": "1000",
    "broker.heartbeat.interval.ms": "500",
    "broker.session.timeout.ms": "3000",
    "replica.lag.time.max.ms": "3000",
    "controlled.shutdown.retry.backoff.ms": "500",
}
PLAINTEXT, SECURE = "CLIENT", "SECURE"
PROTOCOLS = "CLIENT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL"
PLAIN, SCRAM = "PLAIN", "SCRAM-SHA-512"


class User(Struct, frozen=True):
    """Who may come in at the SASL_SSL listener, by PLAIN and by SCRAM-SHA-512 alike."""

    name: str
    password: str


class KafkaNode:
    """One node that is broker and controller, with ports and files of its own.

    ``advertised`` is the host:port that it tells clients to use instead of its own listener, such
    as a proxy's; set it before the start. Brokers talk to each other past it.
    """

    def __init__(
        self, number: int, folder: Path, *, place: Place = HERE, secure: bool = False
    ) -> None:
        self.number, self.folder, self.place, self.host = number, folder, place, place.address
        self.advertised = ""
        self.ports = take_ports(4)
        self.port, self._internal, self._controller, self.secure_port = self.ports
        self._secure = secure
        self._process: Process | None = None

    @property
    def address(self) -> str:
        """Where its plain listener really is, whatever it advertises."""
        return f"{self.host}:{self.port}"

    @property
    def voter(self) -> str:
        """How the others name it as a controller."""
        return f"{self.number}@{self.host}:{self._controller}"

    @property
    def pid(self) -> int:
        """Of its Java; 0 when it does not run."""
        return self._process.pid if self._process else 0

    @property
    def runs(self) -> bool:
        """Whether its process is there, answering or not."""
        return self._process is not None and self._process.runs

    @property
    def process(self) -> Process:
        """Its process; it was prepared before."""
        assert self._process is not None, "prepare it first"
        return self._process

    def listeners(self) -> dict[str, str]:
        """The settings of who comes in where."""
        at = {
            PLAINTEXT: self.port,
            "INTERNAL": self._internal,
            **({SECURE: self.secure_port} if self._secure else {}),
        }
        told = {name: f"{self.host}:{port}" for name, port in at.items()}
        told[PLAINTEXT] = self.advertised or told[PLAINTEXT]
        bound = {**at, "CONTROLLER": self._controller}
        return {
            "listeners": ",".join(f"{n}://{self.host}:{port}" for n, port in bound.items()),
            "advertised.listeners": ",".join(f"{n}://{where}" for n, where in told.items()),
            "listener.security.protocol.map": PROTOCOLS,
            "inter.broker.listener.name": "INTERNAL",
            "controller.listener.names": "CONTROLLER",
        }

    def prepare(
        self, settings: Mapping[str, str], identity: str, users: Iterable[User], jvm: Sequence[str]
    ) -> None:
        """Write its settings and format its disk."""
        self.folder.mkdir()
        written = self.folder / "server.properties"
        given = {**settings, **self.listeners(), "log.dirs": str(self.folder / "log")}
        lines = [f"{name}={_escaped(value)}" for name, value in given.items()]
        written.write_text("\n".join(lines) + "\n", encoding="utf-8")
        scram = [
            f"--add-scram={SCRAM}=[name={user.name},password={user.password}]" for user in users
        ]
        _format(written, identity, scram)
        # What Java unpacks for itself goes with the folder, too.
        own = f"-Djava.io.tmpdir={self.folder}"
        command = [java(), *JVM, own, *jvm, "-cp", classpath(), "kafka.Kafka", str(written)]
        self._process = Process(command, self.folder / "output", place=self.place)

    def start(self) -> None:
        """Start it; the cluster waits for its answer."""
        self.process.start()


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n")


def _format(settings: Path, identity: str, scram: Sequence[str]) -> None:
    argv = [
        java(), "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", classpath(),
        "kafka.tools.StorageTool", "format", "-t", identity, "-c", str(settings), *scram,
    ]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotStarted(f"Kafka's StorageTool: {(done.stdout + done.stderr)[-1500:]}")


class Cluster:
    """One broker, or three that keep three replicas of which two must have a record.

    ``settings`` go over those of :data:`SETTINGS`. ``users`` opens a SASL_SSL listener for them.
    ``quick=False`` lets Java compile fully: for measuring. ``places`` are where the nodes run.
    ``proxied`` puts one of :attr:`proxies` before each, so that clients come through it.
    """

    def __init__(
        self,
        nodes: int = 1,
        *,
        settings: Mapping[str, str] | None = None,
        users: Sequence[User] = (),
        quick: bool = True,
        heap_mb: int = 0,
        places: Sequence[Place] = (),
        proxied: bool = False,
    ) -> None:
        assert nodes in NODES_HEAP_MB, "a cluster has one node or three"
        assert len(places) in (0, nodes), "a place for every node, or none is named"
        # What is absent is told before anything is made.
        java()
        jars()
        self.folder = folder.make("kafka")
        self.users, self._given = tuple(users), dict(settings or {})
        heap = f"-Xmx{heap_mb or NODES_HEAP_MB[nodes]}m"
        self._jvm = (heap, *(QUICK_JVM if quick else ()))
        self.nodes = [
            KafkaNode(number, self.folder / f"node-{number}", place=place, secure=bool(users))
            for number, place in enumerate(places or (HERE,) * nodes, start=1)
        ]
        self._certificates: Certificates | None = None
        self.proxies = [Proxy(node.address) for node in self.nodes] if proxied else []
        for node, proxy in zip(self.nodes, self.proxies, strict=False):
            node.advertised = proxy.address

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    @property
    def bootstrap(self) -> str:
        """``host:port,...`` as clients are told it: through the proxies where there are some."""
        return ",".join(node.advertised or node.address for node in self.nodes)

    @property
    def secure_bootstrap(self) -> str:
        """The addresses of the SASL_SSL listeners."""
        return ",".join(f"{node.host}:{node.secure_port}" for node in self.nodes)

    def client_settings(self, user: User | None = None, mechanism: str = SCRAM) -> dict[str, str]:
        """What librdkafka needs to come in: plainly, or as a user at the SASL_SSL listener."""
        if user is None:
            return {"bootstrap.servers": self.bootstrap}
        assert self._certificates is not None, "the cluster has no users, or was not started"
        return {
            "bootstrap.servers": self.secure_bootstrap,
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": mechanism,
            "sasl.username": user.name,
            "sasl.password": user.password,
            "ssl.ca.location": str(self._certificates.ca),
        }

    def start(self, wait: bool = True) -> Self:
        """Format the disks, start all nodes, wait until all of them answer."""
        if self.users:
            self._certificates = Certificates(self.folder)
        # Its first letter is not a dash, which would be read as an option.
        identity = "P" + base64.urlsafe_b64encode(os.urandom(16)).decode()[1:22]
        with ThreadPoolExecutor() as pool:  # a disk is formatted by a Java of its own: 1 s each
            list(pool.map(lambda node: self._prepare(node, identity), self.nodes))
        for node in self.nodes:
            node.start()
        if wait:
            self.wait()
        return self

    def _prepare(self, node: KafkaNode, identity: str) -> None:
        given = {**self._settings(node), **SETTINGS, **self._replication(), **self._given}
        node.prepare(given, identity, self.users, self._jvm)

    def _settings(self, node: KafkaNode) -> dict[str, str]:
        own = {
            "process.roles": "broker,controller",
            "node.id": str(node.number),
            "controller.quorum.voters": ",".join(each.voter for each in self.nodes),
        }
        return own | (self._secured() if self._certificates else {})

    def _secured(self) -> dict[str, str]:
        assert self._certificates is not None
        login = "org.apache.kafka.common.security"
        known = " ".join(f'user_{user.name}="{user.password}"' for user in self.users)
        listener = f"listener.name.{SECURE.lower()}"
        return {
            **self._certificates.settings(),
            "sasl.enabled.mechanisms": f"{PLAIN},{SCRAM}",
            f"{listener}.plain.sasl.jaas.config": (
                f"{login}.plain.PlainLoginModule required {known};"
            ),
            f"{listener}.scram-sha-512.sasl.jaas.config": (
                f"{login}.scram.ScramLoginModule required;"
            ),
        }

    def _replication(self) -> dict[str, str]:
        copies, needed = ("3", "2") if len(self.nodes) == 3 else ("1", "1")
        return {
            "default.replication.factor": copies,
            "min.insync.replicas": needed,
            "offsets.topic.replication.factor": copies,
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": needed,
        }

    def wait(self, seconds: float = ANSWER_SECONDS) -> None:
        """Until every node that runs answers, and knows of all that run."""
        running = [node for node in self.nodes if node.runs]
        for node in running:
            # Asked where it really listens, so that a proxy in the way is no matter.
            node.process.until(partial(_answers, node, len(running)), seconds)

    def node(self, number: int) -> KafkaNode:
        """By its number, from 1."""
        return self.nodes[number - 1]

    def kill(self, number: int = 1) -> None:
        """SIGKILL to one node."""
        self.node(number).process.kill()

    def stand_still(self, number: int = 1) -> None:
        """SIGSTOP to one node: its connections stay, nobody answers."""
        self.node(number).process.stand_still()

    def go_on(self, number: int = 1) -> None:
        """SIGCONT to one node."""
        self.node(number).process.go_on()

    def restart(self, number: int = 1) -> None:
        """Start one node again, on the ports and files it had, and wait until it answers."""
        node = self.node(number)
        node.process.stop()
        node.start()
        self.wait()

    def stop(self) -> None:
        """Stop all nodes; their files stay."""
        for node in self.nodes:
            if node.runs:  # asked to end one after the other, the last would wait for a quorum
                node.process.kill()

    def close(self) -> None:
        """Stop all nodes and remove their files."""
        for proxy in self.proxies:
            proxy.close()
        self.stop()
        for node in self.nodes:
            give_back(node.ports)
        folder.remove(self.folder)


def _answers(node: KafkaNode, nodes: int) -> bool:
    if not node.place.via:
        return answers(node.address, nodes)
    asked = [*node.place.via, sys.executable, "-m", answers.__module__, node.address, str(nodes)]
    return subprocess.run(asked, capture_output=True, check=False).returncode == 0
