"""The database of a cluster: its migrations, and the views an analyst reads."""

from __future__ import annotations

from typing import Any

import click

from penstock.assemble import database
from penstock.cli.output import output_option, say, show_rows


@click.group()
@click.option(
    "--postgres", envvar="PENSTOCK_POSTGRES", default=None, metavar="DSN",
    help="The database (default: the catalog's).",
)  # fmt: skip
@click.pass_obj
def db(obj: dict[str, Any], postgres: str | None) -> None:
    """The database of a cluster: migrate it, see its migrations, make its views."""
    obj["database"] = postgres


def _opened(obj: dict[str, Any]) -> database.Database:
    return database.open_database(obj["database"], obj["catalog"])


@db.command()
@click.pass_obj
def migrate(obj: dict[str, Any]) -> None:
    """Bring the schema up to date, and the views with it.

    Safe to run twice, by several at once, and while workers run. Run it before a new version's
    workers start.
    """
    for name in (done := _opened(obj).migrate()):
        say(f"applied {name}")
    if not done:
        say("Nothing to apply: the schema is up to date.")


@db.command()
@output_option
@click.pass_obj
def status(obj: dict[str, Any], output: str) -> None:
    """Every migration: applied, pending, changed afterwards, or unknown (of a newer penstock)."""
    show_rows(_opened(obj).status(), ("migration", "state", "applied_at"), output)


@db.command()
@output_option
@click.pass_obj
def views(obj: dict[str, Any], output: str) -> None:
    """Make a view of each kind of document, with a column for each field of its state."""
    show_rows(_opened(obj).views(), ("view", "service", "kind", "columns"), output)
