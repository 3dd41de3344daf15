"""``penstock catalog``: check the declared world and show what it comes to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from penstock.catalog.load import BadCatalog, CatalogError, Examined, examine, load_catalog, place
from penstock.catalog.match import match
from penstock.catalog.model import Catalog
from penstock.cli.output import output_option, say, show_one, show_rows

HIDDEN = "(set)"
TABLES = ("teams", "topics", "services", "gateways", "stages", "clients")
COLUMNS = {
    "people": ("name", "address", "zone", "roles"),
    "teams": ("name", "contacts", "on_call"),
    "topics": ("name", "class", "owner", "producer", "key", "partitions", "kept"),
    "services": ("name", "owner", "workers", "after_park", "attempts", "worst_case_seconds"),
    "joins": ("name", "reads", "writes", "asks"),
    "gateways": ("name", "owner", "rate", "in_flight", "timeout", "breaker", "worst_case_seconds"),
    "stages": ("name", "services", "rto_seconds", "rpo_seconds"),
    "clients": ("name", "may"),
}
DAY_SECONDS = 86_400


@click.group()
def catalog() -> None:
    """The declared world: people, teams, topics, services, gateways, stages, clients.

    A catalog is a TOML file; docs/reference/catalog.md has every key. Without --catalog (or
    PENSTOCK_CATALOG) it is that of the flow that ships.
    """


@catalog.command("check")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.option(
    "--import/--no-import", "imports", default=True, show_default=True,
    help="Import what it names, and hold the flow's services against it.",
)  # fmt: skip
@output_option
@click.pass_obj
def check_command(obj: dict[str, Any], file: Path | None, imports: bool, output: str) -> None:
    """Say everything that is wrong with a catalog.

    FILE is the one to check; by default it is the catalog in use.

    Exit codes: 0 nothing; 3 no such file; 6 something is wrong.
    """
    errors, name, found = _examined(file or obj["catalog"], imports)
    if output == "json":
        rows = [msgspec.to_builtins(error) for error in errors]
        show_one({"file": name, "passed": not errors, "errors": rows}, output)
    elif output == "jsonl":
        show_rows([msgspec.to_builtins(error) for error in errors], (), output)
    else:
        click.echo("\n".join(map(str, errors)) if errors else f"{name}: {_summary(found)}")
    if errors:
        say(f"{len(errors)} {'error' if len(errors) == 1 else 'errors'}.")
        raise click.exceptions.Exit(BadCatalog.exit_code)


def _examined(
    path: Path | None, imports: bool
) -> tuple[tuple[CatalogError, ...], str, Catalog | None]:
    """The errors, the file's name, and the catalog where it could be read."""
    try:
        found = examine(path)
    except BadCatalog as bad:
        return bad.errors, bad.errors[0].file, None
    return found.errors or (_unmatched(found) if imports else ()), found.file, found.catalog


def _unmatched(found: Examined) -> tuple[CatalogError, ...]:
    return place(match(found.catalog), found.file, found.lines)


def _summary(found: Catalog | None) -> str:
    """What a sound catalog holds, in one line."""
    assert found is not None, "a file without errors was read"
    counts = (f"{len(getattr(found, table))} {table}" for table in TABLES)
    return f"sound; {', '.join(counts)}."


@catalog.command("show")
@output_option
@click.pass_obj
def show_command(obj: dict[str, Any], output: str) -> None:
    """Show what the catalog comes to.

    Implied topics, defaults and the worst case of each retry policy are in it.

    The worst case is the delay before a record that always fails is parked, or before a call
    that never succeeds is given up, in seconds.
    """
    loaded = load_catalog(obj["catalog"])
    if output != "table":
        show_one(catalog_object(loaded), output)
        return
    for table, columns in COLUMNS.items():
        click.echo(f"\n{table.upper()}")
        show_rows(_rows(loaded, table), columns, output, f"No {table}.")
    if loaded.settings:
        click.echo("\nSETTINGS")
        show_one(loaded.settings, output)


def catalog_object(found: Catalog) -> dict[str, Any]:
    """A catalog as JSON: its fields, ``readers`` of each topic, ``worst_case`` of each retry."""
    value: dict[str, Any] = _without_secrets(msgspec.to_builtins(found))
    for name, topic in value["topics"].items():
        topic["readers"] = found.readers(name)
    for name, service in value["services"].items():
        policy = found.services[name].retry
        service["worst_case"] = _worst_case(policy.attempts, policy.worst_case_seconds())
    for name, gateway in value["gateways"].items():
        entry = found.gateways[name]
        tries = entry.retry.attempts_within(entry.buffer_seconds)
        gateway["worst_case"] = _worst_case(tries, entry.buffer_seconds)
    return value


def _without_secrets(value: dict[str, Any]) -> dict[str, Any]:
    """Passwords may stand in what is passed through to a client: that it is set is all we say."""
    if value["kafka"]:
        value["kafka"]["client"] = dict.fromkeys(value["kafka"]["client"], HIDDEN)
    if value["postgres"]:
        value["postgres"]["dsn"] = HIDDEN
    return value


def _worst_case(attempts: int, seconds: float) -> dict[str, Any]:
    return {"attempts": attempts, "seconds": round(seconds, 3)}


def _rows(found: Catalog, table: str) -> list[dict[str, Any]]:
    """One table's rows with cells that people read; ``joins`` are the services once more."""
    shown = catalog_object(found)["services" if table == "joins" else table]
    return [_cells(row) for row in shown.values()]


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    cells = {k: ", ".join(v) if _is_names(v) else v for k, v in row.items()}
    if row.get("rotation"):
        cells["on_call"] = f"{', '.join(row['rotation']['members'])} in turn"
    # the door handles no records, so it never tries one again
    if row.get("handler") and "worst_case" in row:
        cells["attempts"] = row["worst_case"]["attempts"]
        cells["worst_case_seconds"] = f"{row['worst_case']['seconds']:g}"
    if "breaker" in row:
        cells["breaker"] = f"{row['breaker']['failures']}, {row['breaker']['open_seconds']:g} s"
        cells["in_flight"] = row["max_in_flight"]
        cells["timeout"] = f"{row['timeout_seconds']:g} s"
    if "retention_seconds" in row:
        cells["kept"] = _kept(row["retention_seconds"], row["retention_bytes"])
    return cells


def _kept(seconds: float | None, size: int | None) -> str:
    """How long and how much a topic keeps."""
    age = f"{seconds / DAY_SECONDS:g} days" if seconds else ""
    return ", ".join(part for part in (age, f"{size} bytes" if size else "") if part) or "all"


def _is_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(part, str) for part in value)
