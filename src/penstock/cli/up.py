"""``penstock up``: everything on one machine, in one foreground command."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from penstock import assemble
from penstock.assemble.cluster import KAFKA_VARIABLE, POSTGRES_VARIABLE
from penstock.catalog.model import Catalog
from penstock.cli.output import say
from penstock.engine.crew import Crew, Member, bury
from penstock.engine.runner import write_whole
from penstock.errors import Conflict

WATCH_SECONDS = 0.2


def cluster_options(command: Callable[..., None]) -> Callable[..., None]:
    """The broker and the database, for commands that start processes."""
    kafka = click.option(
        "--kafka", default=None, metavar="HOST:PORT", envvar=KAFKA_VARIABLE,
        help="Kafka's bootstrap servers: topics lie there.",
    )  # fmt: skip
    postgres = click.option(
        "--postgres", default=None, metavar="DSN", envvar=POSTGRES_VARIABLE,
        help="PostgreSQL's connection string: states lie there.",
    )  # fmt: skip
    return kafka(postgres(command))


def use_cluster(kafka: str | None, postgres: str | None) -> None:
    """What was named counts for this process and for all it starts: by the environment, where
    no list of processes shows a password."""
    for variable, given in ((KAFKA_VARIABLE, kafka), (POSTGRES_VARIABLE, postgres)):
        if given:
            os.environ[variable] = given


class Up:
    """A running house: sandboxes, workers, web, in that order; drained in the reverse one."""

    def __init__(self, house: assemble.House, host: str, port: int) -> None:
        self.house, self._host = house, host
        self._lock = assemble.HomeLock(house)
        bury(house.run / "crew.json", str(house.home))
        assemble.prepare(house, make=True)
        self._port = _free_port(host, port)
        self.url = f"http://{host}:{self._port}"
        self.crew = Crew(house.home / "logs", say)
        self.stopping = threading.Event()

    def start(self) -> None:
        """Start everything; on return all are ready. Whatever fails takes the rest down."""
        house = self.house
        boxes = [g.name for g in house.catalog.gateways.values() if g.sandbox is not None]
        ports = {name: _free_port("127.0.0.1", 0) for name in boxes}
        write_whole(house.run / "outside.json", assemble.outside_settings(house, ports))
        try:
            for stage in (
                assemble.sandboxes(house, ports, self.url), assemble.workers(house), [self._web()],
            ):  # fmt: skip
                self.crew.start(stage, self._tell_crew)
        except BaseException:
            self.crew.drain()
            raise
        self._tell()

    def _web(self) -> Member:
        words = ("web", "--host", self._host, "--port", str(self._port))
        return Member(
            name=self.house.flow.door, argv=assemble.command(self.house, *words), stage=2,
            about=f"API and page on {self.url}", beat=self.house.run / "web.beat",
        )

    def _tell(self) -> None:
        write_whole(self.house.run / "up.json", {"url": self.url, "pid": os.getpid()})
        self._tell_crew()

    def _tell_crew(self) -> None:
        write_whole(self.house.run / "crew.json", self.crew.state())

    def watch(self) -> None:
        """Keep everybody alive until told to stop."""
        before = self.crew.state()
        while not self.stopping.wait(WATCH_SECONDS):
            self.crew.watch()
            state = self.crew.state()
            if state != before:
                with contextlib.suppress(OSError):  # on a full disk it is told later
                    self._tell()
                    before = state

    def drain(self) -> bool:
        """Stop intake, let everybody finish the turn at hand; True when all ended cleanly."""
        clean = self.crew.drain()
        for name in ("up.json", "crew.json"):
            with contextlib.suppress(FileNotFoundError):
                (self.house.run / name).unlink()
        return clean

    def stop_on_signals(self) -> None:
        """Ctrl-C and SIGTERM drain; a second one ends at once."""

        def stop(*_: Any) -> None:
            if self.stopping.is_set():
                for running in self.crew.members.values():
                    if running.pid and running.process:
                        running.process.kill()
                raise SystemExit(130)
            self.stopping.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)


def _free_port(host: str, port: int) -> int:
    """The port itself when it is free, any free one for 0. Raises ``Conflict``."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise Conflict(
                "port_taken", f"Port {port} on {host} cannot be used: {error.strerror}.",
                "Choose another with --port, or --port 0 for any free one.",
            ) from None
        return int(probe.getsockname()[1])


def show_where(up: Up) -> None:
    """What runs where, for people, on stderr."""
    say("")
    for line in up.crew.state():
        ready = line["ready"] or {}
        place = ready.get("listening") or ready.get("url") or ""
        where = f"{place['host']}:{place['port']}" if isinstance(place, dict) else str(place)
        say(f"  {line['name']:<20} pid {line['pid'] or '–':<8} {where:<24} {line['about']}")
    for sentence in patience(up.house.catalog):
        say(sentence)
    say(f"\n  page and API   {up.url}\n  home folder    {up.house.home}")
    if (cluster := up.house.cluster) is not None:
        prefix = f", topics {cluster.kafka.prefix}…" if cluster.kafka.prefix else ""
        say(f"  Kafka          {cluster.kafka.servers}{prefix}")
        say(f"  PostgreSQL     {cluster.postgres_shown}")
    say("")


def patience(catalog: Catalog) -> list[str]:
    """The worst case of every retry policy: what a record or a call that always fails costs."""
    policies: dict[str, list[str]] = {}
    for s in catalog.services.values():
        if s.handler:
            cost = f"{s.retry.attempts} attempts over {s.retry.worst_case_seconds():g} s"
            policies.setdefault(cost, []).append(s.name)
    lines = [f"\n  a record that always fails is parked after {c}: {', '.join(names)}"
             for c, names in policies.items()]  # fmt: skip
    waits: dict[str, list[str]] = {}
    for g in catalog.gateways.values():
        waits.setdefault(f"{g.buffer_seconds / 3600:g} h", []).append(g.name)
    lines += [f"  a call that is never answered is given up after {c}: {', '.join(names)}"
              for c, names in waits.items()]  # fmt: skip
    return lines


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True,
              help="Port of API and page; 0 takes any free one.")  # fmt: skip
@click.option("--host", default="127.0.0.1", show_default=True,
              help="Listen on loopback only, unless told otherwise.")  # fmt: skip
@cluster_options
@click.pass_obj
def up(
    obj: dict[str, Any], port: int, host: str, kafka: str | None, postgres: str | None
) -> None:
    """Run everything on this machine: API, services, sandboxes, mail.

    Prints what runs where. Ctrl-C drains: intake stops first, everybody finishes the turn at
    hand. State lies in --home; start again and it goes on where it was. With --kafka and
    --postgres it lies there: missing topics and tables are made, nothing else is changed.
    """
    use_cluster(kafka, postgres)
    house = assemble.open_house(Path(obj["home"]), obj["catalog"])
    running = Up(house, host, port)
    running.stop_on_signals()
    running.start()
    show_where(running)
    say("  Ctrl-C drains and ends.")
    running.watch()
    began = time.monotonic()
    say("Draining …")
    clean = running.drain()
    say(f"Stopped after {time.monotonic() - began:.1f} s{'' if clean else ', not all by itself'}.")


