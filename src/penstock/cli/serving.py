"""The processes that `up` starts: one service's worker, and the web."""

from __future__ import annotations

import gc
import json
import os
import signal
from typing import Any

import click

from penstock import assemble


def _ready(**said: Any) -> None:
    """Tell whoever started us that we run."""
    click.echo(json.dumps({"pid": os.getpid(), **said}))


@click.command()
@click.argument("service")
@click.option("--member", default="", help="This worker's own name, where a service has several.")
@click.pass_obj
def worker(obj: dict[str, Any], service: str, member: str) -> None:
    """Run SERVICE's worker and courier in this process until told to stop.

    `penstock up` starts one for every service. By hand it needs a prepared home folder and the
    sandboxes' or real gateways' settings.
    """
    house = assemble.open_house(obj["home"], obj["catalog"])
    assemble.prepare(house)
    runner = assemble.make_runner(house, service, member)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: runner.stop())
    # What exists now lives for good: full collections over it would be the latency's tail.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 1000)
    _ready(service=service)
    runner.run()


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True,
              help="Port of API and page; 0 takes any free one.")  # fmt: skip
@click.option("--host", default="127.0.0.1", show_default=True, help="Loopback unless told so.")
@click.pass_obj
def web(obj: dict[str, Any], port: int, host: str) -> None:
    """Run the API and the page in this process until told to stop."""
    from penstock.web.serve import serve

    house = assemble.open_house(obj["home"], obj["catalog"])
    assemble.prepare(house)
    serve(assemble.make_site(house, host, port), host, port, lambda url: _ready(url=url))
