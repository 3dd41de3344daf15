"""Parked records: see them, retry them, discard them with a reason.

Retry and discard are entries of the journal, obeyed by the owning service's worker; they work
whether or not anything runs, and take effect when the service does.
"""

from __future__ import annotations

import getpass
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from penstock import assemble
from penstock.catalog.rotation import on_call
from penstock.cli.output import known, moment, output_option, say, show_one, show_rows
from penstock.entry import DiscardRequested, RetryRequested
from penstock.errors import Inconclusive, NotFound, Usage
from penstock.flow import Scan
from penstock.limits import PAGE_ROWS_MAX
from penstock.ports import Waiting

COLUMNS = ("id", "owner", "key", "type", "kind", "reason", "attempts", "since")
WAIT_SECONDS = 10.0
RETRY_SECONDS = 1.0  # a record parked again by then is said to be


@click.group()
def deadletters() -> None:
    """Parked records: see, retry, discard."""


def parked(readers: assemble.Readers, service: str) -> Iterator[Waiting]:
    """Every parked record of a service."""
    for state in ("parked", "aside"):
        after = ""
        while True:
            what = Scan(
                service=service, table="waiting", label=state, after=after, limit=PAGE_ROWS_MAX
            )
            page = readers.scan(what)
            yield from (row.body for row in page if state == "parked" or not row.body.due)
            if len(page) < PAGE_ROWS_MAX:
                break
            last = page[-1].body.record
            after = f"{last.topic}/{last.partition}/{last.offset}"


def name_of(service: str, row: Waiting) -> str:
    """A dead letter's name: service/topic/partition/offset."""
    r = row.record
    return f"{service}/{r.topic}/{r.partition}/{r.offset}"


def _summary(house: assemble.House, service: str, row: Waiting) -> dict[str, Any]:
    m = row.record.message
    since = row.errors[0][0] if row.errors else row.record.appended_at
    owner = house.catalog.services[service].owner
    return {
        "id": name_of(service, row), "service": service, "owner": owner,
        "on_call": on_call(owner, assemble.WallClock().now(), house.catalog).person,
        "key": m.key, "type": m.type,
        "kind": row.kind, "reason": row.errors[-1][1] if row.errors else row.kind,
        "attempts": len(row.errors), "since": moment(since),
        "holds_key": row.state == "parked",
    }


def _all(house: assemble.House) -> Iterator[tuple[str, Waiting]]:
    readers = assemble.Readers(house)
    for service in house.flow.services:
        yield from ((service.name, row) for row in parked(readers, service.name))


@deadletters.command("list")
@click.option("--service", default=None, help="Of this service only.")
@output_option
@click.pass_obj
def list_(obj: dict[str, Any], service: str | None, output: str) -> None:
    """Every parked record: whose it is, what went wrong, how often."""
    house = assemble.open_house(obj["home"], obj["catalog"])
    if service is not None:
        known("service", service, [s.name for s in house.flow.services])
    rows = (_summary(house, s, row) for s, row in _all(house) if service in (None, s))
    show_rows(rows, COLUMNS, output, "No dead letters.")


def find(house: assemble.House, name: str) -> tuple[str, Waiting]:
    """A parked record by its name, or by its record's key when that is unambiguous."""
    found = [
        (s, row) for s, row in _all(house) if name in (name_of(s, row), row.record.message.key)
    ]
    if not found:
        raise NotFound("no_dead_letter", f"nothing is parked as {name}.", "See: deadletters list")
    if len(found) > 1:
        names = ", ".join(name_of(s, row) for s, row in found)
        raise Usage("ambiguous", f"{name} means several: {names}.", "Name one of them.")
    return found[0]


@deadletters.command()
@click.argument("name")
@output_option
@click.pass_obj
def show(obj: dict[str, Any], name: str, output: str) -> None:
    """One parked record with its bytes and every attempt. NAME is its id or its key."""
    house = assemble.open_house(obj["home"], obj["catalog"])
    service, row = find(house, name)
    m = row.record.message
    story = [{"at": moment(at), "error": error} for at, error in row.errors]
    show_one(
        _summary(house, service, row)
        | {
            "appended_at": moment(row.record.appended_at), "event_id": m.id.hex(),
            "schema_version": m.version, "trace": m.trace, "story": story,
            "value": m.value.decode(errors="replace"),
        },
        output,
    )


def _request(obj: dict[str, Any], verb: str, name: str, reason: str) -> None:
    house = assemble.open_house(obj["home"], obj["catalog"])
    service, row = find(house, name)
    r = row.record
    made = RetryRequested if verb == "retry" else DiscardRequested
    wish = made(
        service=service, topic=r.topic, partition=r.partition, offset=r.offset,
        key=r.message.key, reason=reason, actor=f"cli:{getpass.getuser()}",
    )
    assemble.scribe_of(house, assemble.operator_wakes(house)).write(wish)
    if not (Path(house.run) / "up.json").exists():
        say(f"Requested; nothing runs in {house.home}, so it takes effect at the next start.")
        return
    _await_taken(house, service, row, verb)


def _await_taken(house: assemble.House, service: str, before: Waiting, verb: str) -> None:
    """Say what became of the request: a retried record may be parked again at once."""
    readers, until = assemble.Readers(house), time.monotonic() + WAIT_SECONDS
    outcome = ""
    while time.monotonic() < until:
        now = [w for w in parked(readers, service) if w.record.position == before.record.position]
        if now and now[0].errors != before.errors:
            outcome = f"Tried again, and parked again: {now[0].errors[-1][1]}"
            break
        if not now and verb == "discard":
            outcome = "Discarded."
            break
        if not now and not outcome:
            outcome = "Taken for a retry."
            until = time.monotonic() + RETRY_SECONDS
        time.sleep(0.1)
    if not outcome:
        raise Inconclusive(
            "not_taken", f"Requested; {service} has not taken it yet.", "See: penstock status"
        )
    say(outcome)


@deadletters.command()
@click.argument("name")
@click.option("--reason", default="retry", show_default=True, help="Why; kept in the journal.")
@click.pass_obj
def retry(obj: dict[str, Any], name: str, reason: str) -> None:
    """Try a parked record again.

    It gets a new budget of attempts; the order of its key is kept. NAME is its id or its key.
    Exit codes: 0 taken; 7 the service has not taken it yet.
    """
    _request(obj, "retry", name, reason)


@deadletters.command()
@click.argument("name")
@click.option("--reason", required=True, help="Why; kept in the journal.")
@click.pass_obj
def discard(obj: dict[str, Any], name: str, reason: str) -> None:
    """Give a parked record up.

    The service is told and may compensate; its successors go on. NAME is its id or its key.
    Exit codes: 0 taken; 7 the service has not taken it yet.
    """
    _request(obj, "discard", name, reason)
