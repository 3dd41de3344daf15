"""``penstock people``: who is there, and who is on call now, or at another time."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import click

from penstock.catalog.load import load_catalog
from penstock.catalog.model import Catalog
from penstock.catalog.rotation import AT_MS_MAX, OnCall, handovers, on_call
from penstock.cli.output import known, moment, output_option, show_rows
from penstock.errors import Usage

HANDOVERS_SHOWN = 3
PEOPLE_COLUMNS = ("name", "address", "zone", "roles", "on_call_for")
ON_CALL_COLUMNS = ("team", "person", "address", "why", "until", "then")


@click.group()
def people() -> None:
    """Who is there, and who is on call.

    People, their roles and the rotations of teams stand in the catalog.
    """


@people.command("list")
@output_option
@click.pass_obj
def list_command(obj: dict[str, Any], output: str) -> None:
    """List people, their roles, and what they are on call for now."""
    catalog, now = load_catalog(obj["catalog"]), _now_ms()
    held = {team: on_call(team, now, catalog).person for team in catalog.teams}
    rows = [
        {
            "name": person.name, "address": person.address, "zone": person.zone,
            "roles": {team: list(roles) for team, roles in person.roles.items()},
            "on_call_for": [team for team, name in held.items() if name == person.name],
            "about": person.about,
        }
        for person in catalog.people.values()
    ]  # fmt: skip
    show_rows(rows, PEOPLE_COLUMNS, output, "No people.")


@people.command("on-call")
@click.option("--team", metavar="TEAM", help="Only this team.")
@click.option("--at", "at", metavar="TIME", help="At this time, RFC 3339 (default: now).")
@output_option
@click.pass_obj
def on_call_command(obj: dict[str, Any], team: str | None, at: str | None, output: str) -> None:
    """Say who is on call for each team, until when, and who is next.

    `why` is rotation, override, or holiday cover.
    """
    catalog = load_catalog(obj["catalog"])
    if team is not None:
        known("team", team, list(catalog.teams))
    at_ms = _now_ms() if at is None else _time_ms(at)
    rows = [on_call_row(catalog, name, at_ms) for name in ([team] if team else catalog.teams)]
    if output == "table":
        for row in rows:
            row["then"] = ", ".join(f"{t['person']} from {t['from']}" for t in row["then"])
    show_rows(rows, ON_CALL_COLUMNS, output, "No teams.")


def on_call_row(catalog: Catalog, team: str, at_ms: int) -> dict[str, Any]:
    """Who is on call for a team, with the next handovers, as JSON."""
    found = on_call(team, at_ms, catalog)
    row = _row(found)
    starts = found.until_ms
    row["then"] = []
    for following in handovers(team, at_ms, catalog, HANDOVERS_SHOWN):
        row["then"].append({"from": moment(starts), **_row(following)})
        starts = following.until_ms
    return row


def _row(found: OnCall) -> dict[str, Any]:
    return {
        "team": found.team, "person": found.person, "address": found.address, "why": found.why,
        "until": moment(found.until_ms) if found.until_ms is not None else None,
        "backups": list(found.backups),
    }  # fmt: skip


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _time_ms(text: str) -> int:
    """A time with its offset, as milliseconds. Raises ``Usage``."""
    fix = "Write it as 2026-12-24T18:00:00Z, or with an offset: +01:00."
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Usage("bad_time", f"{text!r} is no time.", fix) from None
    if found.tzinfo is None:
        raise Usage("bad_time", f"{text!r} does not say in which zone.", fix)
    try:
        at_ms = round((found - datetime.fromtimestamp(0, UTC)).total_seconds() * 1000)
    except OverflowError:
        at_ms = -1
    if not 0 <= at_ms <= AT_MS_MAX:
        raise Usage("bad_time", f"{text!r} is too far away.", "Take a year from 1970 to 8999.")
    return at_ms
