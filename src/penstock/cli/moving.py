"""``penstock migrate``: move a house from its home folder to a cluster, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from penstock import assemble
from penstock.cli.audit import judged
from penstock.cli.output import output_option, say, show_rows
from penstock.cli.up import cluster_options, use_cluster
from penstock.errors import Usage
from penstock.moving import steps
from penstock.moving.plan import plan as planned
from penstock.moving.plan import seconds
from penstock.moving.verify import judge, row_of
from penstock.moving.verify import verify as compared
from penstock.moving.way import Moving


@click.group()
@cluster_options
@click.pass_obj
def migrate(obj: dict[str, Any], kafka: str | None, postgres: str | None) -> None:
    """Move a home to Kafka and PostgreSQL: plan, copy, fence, switch, verify; return goes back.

    Positions, parked records, waiting ones, timers, outboxes and marks move along, so the
    pipeline goes on where it stopped. `copy` runs while the home works; between `fence` and the
    first start on the cluster it stands still. Every step may be run again.
    """
    use_cluster(kafka, postgres)


@contextmanager
def _moving(obj: dict[str, Any]) -> Iterator[Moving]:
    house = assemble.open_house(Path(obj["home"]), obj["catalog"])
    moving = Moving(house)
    try:
        yield moving
    finally:
        moving.close()


@migrate.command()
@output_option
@click.pass_obj
def plan(obj: dict[str, Any], output: str) -> None:
    """Show what would be moved and how long it takes; change nothing."""
    with _moving(obj) as moving:
        rows = planned(moving)
    show_rows(rows, ("what", "name", "count", "bytes", "copied"), output)
    say(f"About {max(1, round(seconds(rows)))} s of copying. Next: penstock migrate copy")


@migrate.command()
@click.pass_obj
def copy(obj: dict[str, Any]) -> None:
    """Copy records into Kafka while the home works; run it again to come closer."""
    with _moving(obj) as moving:
        count = steps.copy(moving, say)
    say(f"{count} records copied. Next: penstock migrate copy again, or penstock migrate fence")


@migrate.command()
@click.pass_obj
def fence(obj: dict[str, Any]) -> None:
    """End the home's work (a running `up` drains), and copy the rest."""
    with _moving(obj) as moving:
        steps.fence(moving, say)
    say("The home works no more. Next: penstock migrate switch")


@migrate.command()
@click.pass_obj
def switch(obj: dict[str, Any]) -> None:
    """Put states, marks, positions, waiting records and outboxes into PostgreSQL."""
    with _moving(obj) as moving:
        steps.switch(moving, say)
    say("Next: penstock migrate verify, then penstock up --kafka … --postgres …")


@migrate.command()
@output_option
@click.pass_obj
def verify(obj: dict[str, Any], output: str) -> None:
    """Compare home and cluster record by record, row by row, state by state.

    Then the auditor judges both: no rule may be broken there that was not broken here. Exit code 6
    where they differ.
    """
    with _moving(obj) as moving:
        rows = [*compared(moving), *_audited(Path(obj["home"]), obj["catalog"])]
        show_rows(rows, ("what", "name", "home", "cluster", "equal"), output)
        judge(moving, rows)
    say("Nothing differs.")


def _audited(home: Path, catalog: Path | None) -> Iterator[dict[str, Any]]:
    """What the auditor counts and finds: a row for each state, how many are in it, and for each
    rule, how often it was broken before and is now."""
    try:
        before, after = (judged(home, catalog, on_cluster=there) for there in (False, True))
    except Usage as unfit:
        say(f"The auditor cannot judge it: {unfit.message}")
        return
    for name, kind, label in sorted(before.labels.keys() | after.labels.keys()):
        counts = (side.labels.get((name, kind, label), 0) for side in (before, after))
        yield row_of(f"{name} {kind}", label, *counts)
    now = {rule.id: len(rule.violations) for rule in after.report.rules}
    for rule in before.report.rules:
        broken, there = len(rule.violations), now.get(rule.id, 0)
        yield row_of("rule", rule.id, broken, there, equal=there <= broken)


@migrate.command(name="return")
@click.pass_obj
def return_(obj: dict[str, Any]) -> None:
    """Go back to the home, as long as nothing was done on the cluster."""
    with _moving(obj) as moving:
        steps.return_(moving)
    say("The home works again: penstock up. What was copied stays; a later copy goes on from it.")
