"""What commands print: data on stdout as a table, JSON or JSON lines; everything else on stderr.

JSON is a stable interface. Tables are for people: no colour with NO_COLOR or off-terminal.
"""

from __future__ import annotations

import contextlib
import datetime
import difflib
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from penstock.errors import NotFound

FORMATS = ("table", "json", "jsonl")
OFF_TERMINAL_COLUMNS = 400  # nothing is folded in a pipe or a file, so grep and cut see whole lines
ID_SHOWN_CHARS = 8
_EVENT_ID = re.compile("[0-9a-f]{32}")

output_option = click.option(
    "-o", "--output", type=click.Choice(FORMATS), default="table", show_default=True,
    help="table for people; json and jsonl are stable for programs.",
)  # fmt: skip


def console() -> Console:
    """The console for people, on stdout."""
    wide = None if sys.stdout.isatty() else OFF_TERMINAL_COLUMNS
    colours: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"
    return Console(file=sys.stdout, highlight=False, width=wide, color_system=colours)


def show(table: Table) -> None:
    """Print a table; in a pipe or a file no line ends in blanks."""
    out = console()
    with out.capture() as held:
        out.print(table)
    text = held.get()
    if not out.is_terminal:
        text = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
    click.echo(text, nl=False, color=True)


def known(what: str, name: str, names: Sequence[str]) -> None:
    """Refuse a name that is none of ``names``, with the nearest of them."""
    if name in names:
        return
    near = difflib.get_close_matches(name, names, 1)
    fix = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(names)}."
    raise NotFound(f"no_{what}", f"there is no {what} {name!r}.", fix)


@contextlib.contextmanager
def until_interrupted() -> Iterator[None]:
    """A view that is watched until Ctrl-C: that is its end, and no failure."""
    with contextlib.suppress(KeyboardInterrupt):
        yield


def say(text: str) -> None:
    """A sentence for people, on stderr; where that is full or gone, nobody hears it."""
    with contextlib.suppress(OSError):
        click.echo(text, err=True)


def clean(value: Any) -> str:
    """A cell as text: no control characters reach the terminal; nested values are spelled out."""
    if value is None or value == "" or value == [] or value == {}:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{_title(k)} {clean(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(clean, value))
    return "".join(c if c.isprintable() else "�" for c in str(value))


def _title(name: str) -> str:
    return name.replace("_", " ")


def _cell(value: Any) -> str:
    """A cell of many rows: ids by their end, which tells them apart; JSON has them whole."""
    text = clean(value)
    return f"…{text[-ID_SHOWN_CHARS:]}" if _EVENT_ID.fullmatch(text) else text


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
    show(_rows_table(rows, columns))


def _rows_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Table:
    """The first column is what a next command is given: it is never folded."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(
            _title(column), overflow="fold", no_wrap=column == columns[0],
            justify="right" if _is_counted(rows, column) else "left",
        )
    for row in rows:
        table.add_row(*(Text(_cell(field(row, column))) for column in columns))
    return table


def _is_counted(rows: Sequence[Mapping[str, Any]], column: str) -> bool:
    """Whether a column holds numbers alone: those are read from the right."""
    cells = [field(row, column) for row in rows]
    return all(isinstance(cell, int | float) and not isinstance(cell, bool) for cell in cells)


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
        rows = found if _is_rows(found) else []
        shown = _rows_table(rows, _filled(rows)) if rows else Text(clean(found))
        table.add_row(_title(name), shown)
    show(table)


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, Mapping) for row in value)


def _filled(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The fields that say something in at least one row."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [n for n in names if any(row.get(n) not in (None, "", [], {}) for row in rows)]
