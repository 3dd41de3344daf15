"""The entry point: global options, lazy commands, and one place where errors become exit codes.

0 ok · 1 failed · 2 usage · 3 not found · 4 not allowed · 5 conflict · 6 check not passed ·
7 inconclusive · 8 partly done · 130 interrupted.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import click

from penstock import __version__
from penstock.errors import Problem, World

# name -> (module:attribute, one line). Loaded only when called, so that --help is quick.
COMMANDS = {
    "up": ("penstock.cli.up:up", "Run everything on this machine: API, services, sandboxes, mail."),
    "demo": ("penstock.cli.demo:demo", "Run everything and send a sample of real traffic through."),
    "status": ("penstock.cli.looking:status", "One screen: what runs, how far, what is wrong."),
    "watch": ("penstock.cli.looking:watch", "The status again and again, until Ctrl-C."),
    "import": ("penstock.cli.importing:import_command", "Place the contents of an export file."),
    "topics": ("penstock.cli.topics:topics", "Topics: list, or follow the records of one."),
    "services": ("penstock.cli.looking:services", "Services: what each reads, writes and asks."),
    "deadletters": ("penstock.cli.deadletters:deadletters", "Parked records: see, retry, discard."),
    "journal": ("penstock.cli.journal:journal", "The journal: show it, find out who changed it."),
    "schema": ("penstock.cli.schema:schema", "Contracts: snapshot, check, diff."),
    "catalog": ("penstock.cli.catalog:catalog", "The declared world: check and show it."),
    "people": ("penstock.cli.people:people", "People: who is there, and who is on call."),
    "migrate": ("penstock.cli.moving:migrate", "Move a home to a cluster, and back."),
    "db": ("penstock.cli.db:db", "The database of a cluster: migrate, status, views."),
    "audit": ("penstock.cli.audit:audit_command", "Hold a home folder against the promises."),
    "doctor": ("penstock.cli.doctor:doctor", "Is this machine fit, and is the home folder sound?"),
    "sim": ("penstock.cli.sim:sim", "Simulate the flow under faults, seed by seed."),
    "bench": ("penstock.cli.bench:bench", "Measure speed beside raw references."),
    "crash": ("penstock.cli.crash:crash", "Kill the real processes again and again, and audit."),
    "powercut": ("penstock.cli.powercut:powercut", "Cut the power at every write, and restart."),
    "completion": ("penstock.cli.completion:completion", "Shell completion for bash, zsh, fish."),
    "worker": ("penstock.cli.serving:worker", "Run one service's worker (what `up` starts)."),
    "courier": ("penstock.cli.serving:courier", "Carry rows on a cluster (what `up` starts)."),
    "web": ("penstock.cli.serving:web", "Run the API and the page (what `up` starts)."),
}


class Commands(click.Group):
    """The fixed commands, and the flow's own nouns from its declaration."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command, the flow's nouns included."""
        return [*COMMANDS, *_flow_nouns(ctx)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Load a command's module."""
        if name in COMMANDS:
            module, _, attribute = COMMANDS[name][0].partition(":")
            command: click.Command = getattr(importlib.import_module(module), attribute)
            return command
        return _flow_nouns(ctx).get(name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Help without importing every module."""
        nouns = {n: c.get_short_help_str(90) for n, c in _flow_nouns(ctx).items()}
        rows = [(name, about) for name, (_, about) in COMMANDS.items()]
        with formatter.section("Commands"):
            formatter.write_dl([*nouns.items(), *rows])

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; a reader that has seen enough (``| head``) is no failure."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Suggest the nearest command for a mistyped one."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], self.list_commands(ctx), 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", ctx) from error


def _flow_nouns(ctx: click.Context) -> dict[str, click.Command]:
    from penstock.cli.nouns import nouns

    return nouns(ctx.params.get("catalog"))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--home", type=click.Path(path_type=Path, file_okay=False), envvar="PENSTOCK_HOME",
    default=Path(".penstock"), show_default=True, help="The folder that holds all state.",
)  # fmt: skip
@click.option(
    "--catalog", type=click.Path(path_type=Path, dir_okay=False), envvar="PENSTOCK_CATALOG",
    default=None, help="A catalog file (default: the shipped order flow).",
)  # fmt: skip
@click.option("--url", envvar="PENSTOCK_URL", default=None, help="A running penstock elsewhere.")
@click.version_option(__version__, prog_name="penstock")
@click.pass_context
def cli(ctx: click.Context, home: Path, catalog: Path | None, url: str | None) -> None:
    """Penstock runs an event-driven order pipeline and keeps it healthy.

    Start with `penstock demo`. Every command takes --help; most take -o json. All state lies in
    one folder (--home or PENSTOCK_HOME).
    """
    ctx.obj = {"home": home, "catalog": catalog, "url": url}


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(argv))


def run(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit code. Errors are one line with what to do next."""
    try:
        result = cli.main(args=argv, prog_name="penstock", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        click.echo("Interrupted.", err=True)
        return 130
    except Problem as problem:
        click.echo(f"error: {problem}", err=True)
        return problem.exit_code
    except World as trouble:
        click.echo(f"error: {trouble}", err=True)
        return 1
    except OSError as error:  # as a full disk behind stdout
        click.echo(f"error: {error}", err=True)
        return 1


if __name__ == "__main__":
    main()
