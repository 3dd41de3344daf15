"""What runs, how far it is and what is wrong: status, watch, services."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import click
import httpx
from rich.console import Console
from rich.live import Live
from rich.table import Table

from penstock import assemble
from penstock.cli.output import (
    clean,
    console,
    output_option,
    say,
    show,
    show_one,
    show_rows,
    until_interrupted,
)
from penstock.cli.remote import answer_of, client, not_running, server_url

COLUMNS = ("service", "pid", "lag", "handled", "waiting", "parked", "state")


def fetch(obj: Mapping[str, Any], path: str) -> dict[str, Any]:
    """A JSON page of the running penstock. Raises ``NotRunning``, and ``Problem`` where it
    refuses."""
    server = server_url(obj["home"], obj["url"])
    try:
        with client(server) as http:
            return answer_of(http.get(path))
    except httpx.TransportError:
        raise not_running(f"at {server}") from None


def state_of(service: Mapping[str, Any]) -> str:
    """One word, or the sentence that matters most."""
    if service.get("stopped"):
        return f"STOPPED: {service['stopped']}"
    trouble = {**service.get("trouble", {}), **service.get("alarms", {})}
    if trouble:
        return "; ".join(f"{place}: {why}" for place, why in trouble.items())
    open_ = [n for n, g in service.get("gateways", {}).items() if g["state"] != "closed"]
    return f"gateway {', '.join(open_)} is held" if open_ else "ok"


def _headline(said: Mapping[str, Any]) -> str:
    """Where it runs, whether it takes anything in, and what the crew had to start again."""
    parts = [f"penstock {said['version']} at {said['url']}"]
    if said["sandbox"]:
        parts.append("sandboxes: nobody is charged, nothing is sent")
    parts.append("intake open" if said["intake"]["open"] else "INTAKE CLOSED")
    parts += [f"{m['name']} restarted {m['restarts']} times" for m in said["crew"] if m["restarts"]]
    return " · ".join(parts)


def _table(said: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in ("service", "state") else "right")
    for service in said["services"]:
        lag = "?" if service["lag"] is None else service["lag"]
        row = {**service, "lag": lag, "state": state_of(service)}
        table.add_row(*(clean(row.get(column, "")) for column in COLUMNS))
    return table


@click.command()
@output_option
@click.pass_obj
def status(obj: dict[str, Any], output: str) -> None:
    """One screen: what runs, how far each service is, what is wrong."""
    said = fetch(obj, "/status")
    if output != "table":
        show_one(said, output)
        return
    say(_headline(said))
    show(_table(said))
    if said.get("trouble"):
        say(f"{said['trouble']} How far everybody is cannot be told.")
    for topic, why in said["intake"].get("alarms", {}).items():
        say(f"{topic}: {why}")


@click.command()
@click.option("--every", "every_seconds", type=click.FloatRange(0.2), default=1.0,
              show_default=True, help="Seconds between two looks.")  # fmt: skip
@click.option("--times", type=click.IntRange(1), default=None, help="Stop after this many looks.")
@click.pass_obj
def watch(obj: dict[str, Any], every_seconds: float, times: int | None) -> None:
    """The status again and again, until Ctrl-C. Off-terminal: a line of JSON each."""
    out = console()
    with until_interrupted():
        if out.is_terminal:
            _watch_live(obj, every_seconds, times, out)
        else:
            _watch_lines(obj, every_seconds, times)


def _watch_live(
    obj: dict[str, Any], every_seconds: float, times: int | None, out: Console
) -> None:
    with Live(console=out, auto_refresh=False) as live:
        while times is None or times > 0:
            live.update(_table(fetch(obj, "/status")), refresh=True)
            times = None if times is None else times - 1
            time.sleep(every_seconds)


def _watch_lines(obj: dict[str, Any], every_seconds: float, times: int | None) -> None:
    while True:
        show_rows([fetch(obj, "/status")], (), "jsonl")
        times = None if times is None else times - 1
        if times == 0:
            return
        time.sleep(every_seconds)


@click.group()
def services() -> None:
    """Services: what each reads, writes and asks."""


@services.command("list")
@output_option
@click.pass_obj
def list_(obj: dict[str, Any], output: str) -> None:
    """Every service of the catalog, running or not."""
    catalog = assemble.open_house(obj["home"], obj["catalog"]).catalog
    rows = [
        {
            "service": s.name, "owner": s.owner, "reads": list(s.reads), "writes": list(s.writes),
            "asks": list(s.asks), "after_park": s.after_park, "workers": s.workers,
            "attempts": s.retry.attempts, "worst_case_seconds": s.retry.worst_case_seconds(),
        }
        for s in catalog.services.values()
    ]
    if output == "table":
        say("worst case = delay before a record that always fails is parked, in seconds")
    show_rows(rows, tuple(rows[0]), output)
