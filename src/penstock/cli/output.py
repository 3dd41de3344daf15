"""What commands print: data on stdout as a table, JSON or JSON lines; everything else on stderr.

JSON is a stable interface. Tables are for people: no colour with NO_COLOR or off-terminal.
"""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table

FORMATS = ("table", "json", "jsonl")

output_option = click.option(
    "-o", "--output", type=click.Choice(FORMATS), default="table", show_default=True,
    help="table for people; json and jsonl are stable for programs.",
)  # fmt: skip


def console() -> Console:
    """The console for people, on stdout."""
    return Console(file=sys.stdout, highlight=False, soft_wrap=not sys.stdout.isatty())


def say(text: str) -> None:
    """A sentence for people, on stderr."""
    click.echo(text, err=True)


def clean(value: Any) -> str:
    """A cell as text: no control characters reach the terminal, times are readable."""
    if value is None or value == "":
        return "–"
    text = value if isinstance(value, str) else json.dumps(value) if _nested(value) else str(value)
    return "".join(c if c.isprintable() else "�" for c in text)


def _nested(value: Any) -> bool:
    return isinstance(value, dict | list | tuple | bool)


def moment(at: int | None) -> str:
    """A time (ms) as RFC 3339 in UTC, to the second."""
    if not at:
        return "–"
    return datetime.datetime.fromtimestamp(at / 1000, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def field(row: Mapping[str, Any], path: str) -> Any:
    """A possibly nested field, ``a.b`` for the field b of a."""
    value: Any = row
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def show_rows(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[str], output: str, empty: str = "Nothing."
) -> None:
    """Rows as a table, one JSON list, or a line of JSON each (as they come)."""
    if output == "jsonl":
        for row in rows:
            click.echo(json.dumps(row, ensure_ascii=False))
    elif output == "json":
        click.echo(json.dumps(list(rows), ensure_ascii=False, indent=2))
    else:
        _table(list(rows), columns, empty)


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], empty: str) -> None:
    if not rows:
        say(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(clean(field(row, column)) for column in columns))
    console().print(table)


def show_one(value: Mapping[str, Any], output: str) -> None:
    """One object: its fields line by line, or JSON."""
    if output != "table":
        indent = 2 if output == "json" else None
        click.echo(json.dumps(value, ensure_ascii=False, indent=indent))
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, found in value.items():
        table.add_row(name.replace("_", " "), clean(found))
    console().print(table)
