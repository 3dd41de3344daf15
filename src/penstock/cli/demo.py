"""``penstock demo``: everything started, a sample of real traffic sent, every end shown."""

from __future__ import annotations

import importlib
import importlib.resources
import json
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, cast

import click
import httpx
from rich.table import Table

from penstock import assemble
from penstock.cli.importing import supply
from penstock.cli.output import say, show
from penstock.cli.remote import client
from penstock.cli.up import Up, cluster_options, show_where, use_cluster
from penstock.errors import Problem

QUIET_SECONDS = 3.0  # nothing has moved for this long: what is not final now, waits for a person
PATIENCE_SECONDS = 300.0


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True,
              help="Port of API and page; 0 takes any free one.")  # fmt: skip
@click.option("--exit", "exit_", is_flag=True, help="Drain and end when all have come to an end.")
@click.option("-o", "--output", type=click.Choice(("table", "json")), default="table",
              show_default=True, help="json: the summary as one object.")  # fmt: skip
@cluster_options
@click.pass_obj
def demo(
    obj: dict[str, Any], port: int, exit_: bool, output: str, kafka: str | None,
    postgres: str | None,
) -> None:  # fmt: skip
    """Start everything, send a sample of real traffic through, show how each part of it ended.

    The sample is real and dirty; a few are arranged to end otherwise (a declined card, a
    shortage, a cancellation, a payment that needs a person), and the summary says which. It
    stays up afterwards, until Ctrl-C.
    """
    use_cluster(kafka, postgres)
    house = assemble.open_house(Path(obj["home"]), obj["catalog"])
    running = Up(house, "127.0.0.1", port)
    running.stop_on_signals()
    running.start()
    show_where(running)
    watching = threading.Thread(target=running.watch, daemon=True)
    watching.start()
    try:
        traffic = Traffic(house, running)
        _show(traffic.run(), traffic.noun, output)
        if not exit_ and not running.stopping.is_set():
            say(f"Still running: {running.url}  (Ctrl-C drains and ends)")
            say("Look around from another terminal: penstock status, penstock deadletters list")
            running.stopping.wait()
    finally:
        running.stopping.set()
        watching.join()
        say("Draining …")
        running.drain()


class Traffic:
    """The demo's traffic, as the flow's workload module plans it."""

    def __init__(self, house: assemble.House, running: Up) -> None:
        self._plan = importlib.import_module(house.flow.workload)
        package, name = self._plan.SAMPLE
        sample = importlib.resources.files(package).joinpath(name).read_bytes()
        self._work = self._plan.workload(sample)
        self._running, self._importer = running, house.flow.importer
        self.noun: str = importlib.import_module(house.flow.importer).NOUN  # of what is sent
        self._http = client(running.url, name=self._plan.CLIENT)
        self._arranged: dict[str, Any] = {}

    def run(self) -> dict[str, Any]:
        """Send everything, wait for every end, and sum up."""
        began = time.monotonic()
        # Topics race: an order must not overtake the stock it is to find.
        supply(importlib.import_module(self._importer), self._work.stock, self._running.url)
        for n, step in enumerate(self._work.steps, 1):
            if self._running.stopping.is_set():
                break
            self._place(step)
            if n % 20 == 0:
                say(f"  {n} of {len(self._work.steps)} placed: {_listed(self._states())}")
        states = self._await_ends()
        return {
            self.noun: sum(states.values()), "states": states,
            "seconds": round(time.monotonic() - began, 1), "url": self._running.url,
            "arranged": self._told(),
        }

    def _place(self, step: Any) -> None:
        said = self._post(step.request.path, step.request.key, step.request.body)
        id_ = said[self._plan.ID_FIELD]
        if step.arranged:
            self._arranged[id_] = step.arranged
        if step.cancel:
            path = self._plan.CANCEL_PATH.format(**{self._plan.ID_FIELD: id_})
            self._post(path, f"{step.request.key}:cancel", b"{}")

    def _post(self, path: str, key: str, body: bytes) -> dict[str, Any]:
        headers = {"idempotency-key": key, "content-type": "application/json"}
        for _ in range(20):
            reply = self._http.post(path, content=body, headers=headers)
            if reply.status_code != 503:
                break
            time.sleep(float(reply.headers.get("retry-after", "1")))
        if reply.is_success or reply.status_code == 409:
            return cast(dict[str, Any], reply.json())
        raise Problem("demo_refused", f"{path} answered {reply.status_code}: {reply.text[:300]}")

    def _rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        path: str | None = self._plan.LIST_PATH
        while path:
            page = self._http.get(path).raise_for_status().json()
            rows += page[self._plan.LIST_FIELD]
            after = page.get("next")
            path = str(httpx.URL(self._plan.LIST_PATH, params={"after": after})) if after else None
        return rows

    def _states(self) -> dict[str, int]:
        return dict(sorted(Counter(self._state(row) for row in self._rows()).items()))

    def _state(self, row: dict[str, Any]) -> str:
        return str(self._plan.state_of(row))

    def _await_ends(self) -> dict[str, int]:
        """Until all are final, or nothing has moved for a while (those wait for a person)."""
        began = moved = time.monotonic()
        before: dict[str, int] = {}
        while time.monotonic() - began < PATIENCE_SECONDS and not self._running.stopping.is_set():
            rows = self._rows()
            states = dict(sorted(Counter(self._state(row) for row in rows).items()))
            if states != before:
                say(f"  {_listed(states)}")
                before, moved = states, time.monotonic()
            waiting = [row for row in rows if not row["final"]]
            settled = all(self._state(row) in self._plan.WAITS for row in waiting)
            if settled and time.monotonic() - moved > QUIET_SECONDS:
                break
            time.sleep(0.3)
        return before

    def _told(self) -> list[dict[str, str]]:
        found = {row[self._plan.ID_FIELD]: self._state(row) for row in self._rows()}
        return [
            {"id": id_, "arranged": why, "state": found.get(id_, "?")}
            for id_, why in self._arranged.items()
        ]


def _listed(states: dict[str, int]) -> str:
    """Counts by state, in a line."""
    return ", ".join(f"{n} {state}" for state, n in states.items())


def _show(summary: dict[str, Any], noun: str, output: str) -> None:
    if output == "json":
        click.echo(json.dumps(summary))
        return
    table = Table("state", title="How they ended", box=None, title_justify="left")
    table.add_column(noun, justify="right")
    for state, n in summary["states"].items():
        table.add_row(state, str(n))
    show(table)
    arranged = Table(
        "what was arranged", "end", title="Arranged ends", box=None, title_justify="left"
    )
    for one in summary["arranged"]:
        arranged.add_row(one["arranged"], one["state"])
    show(arranged)
    click.echo(f"{summary[noun]} {noun} in {summary['seconds']} s. See {summary['url']}")
