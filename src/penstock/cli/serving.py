"""The processes that `up` starts, and that run apart on a cluster: workers, couriers, the web."""

from __future__ import annotations

import gc
import json
import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

import click

from penstock import assemble
from penstock.engine.runner import Runner
from penstock.engine.shift import Shift
from penstock.errors import Conflict
from penstock.web.pulse import Pulse, still


def _ready(**said: Any) -> None:
    """Tell whoever started us that we run."""
    click.echo(json.dumps({"pid": os.getpid(), **said}))


def _settle() -> None:
    """What exists now lives for good: full collections over it would be the latency's tail."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 1000)


def _on_signals(stop: Callable[[], None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop())


def own_name() -> str:
    """A name that no other process of any machine has: containers that share a host's name are
    all process 1 of it."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


def pulse_options(command: Callable[..., None]) -> Callable[..., None]:
    """Where to answer probes."""
    host = click.option(
        "--health-host", default="127.0.0.1", show_default=True,
        help="Address of the probes' port.",
    )  # fmt: skip
    port = click.option(
        "--health-port", type=click.IntRange(1, 65535), default=None,
        help="Answer GET /health/live and /health/ready on this port.",
    )  # fmt: skip
    return port(host(command))


def _pulse(
    host: str, port: int | None, live: Callable[[], str], ready: Callable[[], str]
) -> None:
    if port is None:
        return
    try:
        Pulse(host, port, live, ready)
    except OSError as error:
        raise Conflict(
            "port_taken", f"Port {port} on {host} cannot be used: {error.strerror}.",
            "Choose another with --health-port.",
        ) from None


@click.command()
@click.argument("service")
@click.option("--member", default="", help="This worker's own name, where a service has several.")
@pulse_options
@click.pass_obj
def worker(
    obj: dict[str, Any], service: str, member: str, health_host: str, health_port: int | None
) -> None:
    """Run one worker of SERVICE in this process until told to stop.

    `penstock up` starts one for every service. In a home folder it carries its own rows as well,
    and needs the sandboxes' or real gateways' settings. On a cluster it works only, as many of
    them as the service has lanes may run on any machines, and `penstock courier` carries.
    """
    house = assemble.open_house(obj["home"], obj["catalog"])
    assemble.prepare(house)
    if house.cluster is not None and not member:
        member = own_name()
    runner = assemble.make_runner(house, service, member)
    _on_signals(runner.stop)
    _pulse(health_host, health_port, lambda: still([runner]), lambda: _not_ready(runner))
    _settle()
    _ready(service=service)
    runner.run()


def _not_ready(runner: Runner) -> str:
    return runner.worker.stopped or "; ".join(runner.worker.trouble.values())


@click.command()
@click.argument("services", nargs=-1)
@click.option("--member", default="", help="This process's own name (default: host and pid).")
@pulse_options
@click.pass_obj
def courier(
    obj: dict[str, Any], services: tuple[str, ...], member: str, health_host: str,
    health_port: int | None,
) -> None:  # fmt: skip
    """Carry rows of SERVICES (default: of all, and of the door) on a cluster until told to stop.

    Appends to topics, calls gateways, tells the clock's time. Any number of them may run, on any
    machines: they share the rows out among them by key.
    """
    house = assemble.open_house(obj["home"], obj["catalog"])
    assemble.prepare(house)
    shifts = assemble.make_shifts(house, services, member or own_name())
    ended = threading.Event()
    threads = [threading.Thread(target=_run, args=(c, ended), name=c.name) for c in shifts]
    _on_signals(ended.set)
    _pulse(
        health_host, health_port, lambda: still([*shifts]),
        lambda: "; ".join(c.courier.trouble for c in shifts if c.courier.trouble),
    )
    _settle()
    for thread in threads:
        thread.start()
    _ready(services=[c.name for c in shifts])
    ended.wait()
    for shift in shifts:
        shift.stop()
    for thread in threads:
        thread.join()
    if any(c.failed for c in shifts):
        raise SystemExit(1)


def _run(shift: Shift, ended: threading.Event) -> None:
    """One courier's thread. A bug in one ends the process, which is then started again whole."""
    try:
        shift.run()
    finally:
        ended.set()


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True,
              help="Port of API and page; 0 takes any free one.")  # fmt: skip
@click.option("--host", default="127.0.0.1", show_default=True, help="Loopback unless told so.")
@click.option("--name", "names", multiple=True, envvar="PENSTOCK_NAMES",
              help="A name that clients know it by, as of a balancer; repeatable.")  # fmt: skip
@click.pass_obj
def web(obj: dict[str, Any], port: int, host: str, names: tuple[str, ...]) -> None:
    """Run the API and the page in this process until told to stop.

    It answers to its own addresses and to the names it was given: any other Host is refused, so
    that no page of elsewhere can reach it by a name of its own.
    """
    from penstock.web.serve import serve

    house = assemble.open_house(obj["home"], obj["catalog"])
    assemble.prepare(house)
    site = assemble.make_site(house, host, port, names)
    serve(site, host, port, lambda url: _ready(url=url))
