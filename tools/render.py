"""Renders what documents say about code from the code: ``tools/render.py [--check]``.

``docs/lifecycle.md`` gets the order flow's table between its two marks, ``docs/reference/cli.md``
every command with its options. ``--check`` writes nothing and fails where a file is stale.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

BEGIN, END = "<!-- begin: rendered by tools/render.py -->", "<!-- end -->"
CLI_HEAD = """# The command line

Every command with its options; rendered by `tools/render.py` from the code. `./penstock` in a
checkout and `penstock` of an installed package are the same.

- Data goes to standard output; what is said to people goes to standard error.
- `-o table` is for people. `-o json` and `-o jsonl` are stable interfaces for programs. Tables
  shorten the ids of events to their end; JSON has them whole. Off a terminal nothing is folded.
- [Environment variables](settings.md) stand for options that are the same in every call.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | it failed: nothing runs there, the disk is full, the world is in the way |
| 2 | wrong words: an option, a value, a file that cannot be read |
| 3 | what was named does not exist |
| 4 | not allowed |
| 5 | conflict: the port is taken, the home is in use, the order has ended |
| 6 | a check ran and did not pass |
| 7 | a check could not decide |
| 8 | partly done: some of it was refused, or not all was sent |
| 130 | interrupted |
"""


def table() -> str:
    """The order flow's table."""
    from penstock.flows.orders.lifecycle import table_markdown

    return table_markdown()


def lifecycle(path: Path) -> str:
    """The document with its rendered part anew."""
    head, _, rest = path.read_text().partition(BEGIN)
    tail = rest.partition(END)[2]
    return f"{head}{BEGIN}\n\n{table()}\n{END}{tail}"


def cli_page() -> str:
    """Every command, depth first."""
    from penstock.cli.main import cli

    context = click.Context(cli, info_name="penstock")
    context.params["catalog"] = None
    parts = [CLI_HEAD, *_command(cli, context, "penstock", 2)]
    return "\n".join(parts)


def _command(
    command: click.Command, context: click.Context, name: str, level: int
) -> Iterator[str]:
    yield f"{'#' * min(level, 3)} {name}\n"
    yield f"    {_usage(command, context, name)}\n"
    if command.help:
        yield _prose(command.help) + "\n"
    rows = [row for param in command.params if (row := _option(param, context))]
    if rows:
        yield "| option | meaning | default |\n|---|---|---|"
        yield "\n".join(rows) + "\n"
    if isinstance(command, click.Group):
        for verb in sorted(command.list_commands(context)):
            inner = command.get_command(context, verb)
            assert inner is not None
            below = click.Context(inner, info_name=verb, parent=context)
            yield from _command(inner, below, f"{name} {verb}", level + 1)


def _usage(command: click.Command, context: click.Context, name: str) -> str:
    return " ".join([name, *command.collect_usage_pieces(context)])


def _prose(text: str) -> str:
    return "\n".join(line.strip() for line in text.replace("\b", "").strip().splitlines())


def _option(param: click.Parameter, context: click.Context) -> str:
    if not isinstance(param, click.Option) or param.hidden:
        return ""
    names = ", ".join(f"`{name}`" for name in [*param.opts, *param.secondary_opts])
    value = "" if param.is_flag else f" {_values(param, context)}"
    default = param.to_info_dict()["default"]
    shown = "" if default in (None, False, "") or param.is_flag else f"`{default}`"
    shown = "required" if param.required else shown
    if param.envvar:
        shown = f"{shown} (or `{param.envvar}`)".strip()
    return f"| {names}{value} | {param.help or ''} | {shown} |"


def _values(param: click.Option, context: click.Context) -> str:
    if isinstance(param.type, click.Choice):
        return " or ".join(f"`{choice}`" for choice in param.type.choices)
    return str(param.make_metavar(context)).strip("[]")


def main(check: bool) -> int:
    """Write what is stale, or with ``check`` only say so."""
    lived, spoken = ROOT / "docs/lifecycle.md", ROOT / "docs/reference/cli.md"
    pages = {lived: lifecycle(lived), spoken: cli_page()}
    stale = [p for p, text in pages.items() if not p.exists() or p.read_text() != text]
    for path in stale:
        click.echo(f"{'stale' if check else 'rendered'}: {path.relative_to(ROOT)}")
        if not check:
            path.write_text(pages[path])
    if check and stale:
        click.echo("Render them anew: python tools/render.py")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
