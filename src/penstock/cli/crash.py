"""``penstock crash``: the shipped processes are harmed again and again, and audited every time."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import SystemRandom
from typing import Any

import click
from rich.table import Table

from penstock import assemble
from penstock.assemble.cluster import KAFKA_VARIABLE, POSTGRES_VARIABLE
from penstock.cli.output import say, show
from penstock.errors import CheckFailed, Conflict, Inconclusive, NotFound, Usage
from penstock.sim.crash.outcome import Outcome
from penstock.sim.crash.plan import AT_HOME, FULL, ON_CLUSTER, SERVERS, SHARES
from penstock.sim.crash.run import Run, Wanted
from penstock.sim.crash.servers import Servers
from penstock.sim.crash.stage import CATALOG, HOME, JOURNAL, Declared
from penstock.sim.crash.workload import workload_of
from penstock.sim.servers.process import Absent

SEEDS = 2**31


@click.command()
@click.option("--cycles", type=click.IntRange(1), default=100, show_default=True,
              help="How many faults, one after the other.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=None,
              help="Draws members, points and faults; any, where none is given.")  # fmt: skip
@click.option("--faults", default=None,
              help=f"Which faults, parted by commas (default: {','.join(AT_HOME)}; on a cluster "
              f"{','.join(ON_CLUSTER)}).")  # fmt: skip
@click.option("--cluster", is_flag=True,
              help="On a broker and a database that are started for it.")  # fmt: skip
@click.option("--kafka", default="", metavar="HOST:PORT",
              help="On a cluster that runs: the broker. Topics get a prefix of their own.")
@click.option("--postgres", default="", metavar="DSN",
              help="On a cluster that runs: the database. Tables get a schema of their own.")
@click.option("--keep", type=click.Path(path_type=Path, file_okay=False), default=None,
              help="A folder to work in; everything in it is kept (default: a temporary one).")
@click.option("-o", "--output", type=click.Choice(("table", "json")), default="table",
              show_default=True, help="json: the summary as one object.")  # fmt: skip
@click.pass_obj
def crash(
    obj: dict[str, Any], cycles: int, seed: int | None, faults: str | None, cluster: bool,
    kafka: str, postgres: str, keep: Path | None, output: str,
) -> None:  # fmt: skip
    """Kill, stop, drain and starve the real processes, and audit after every fault.

    Starts `penstock up` over a home of its own (yours is not touched), or over a cluster, sends
    what the flow's crash workload tells, does one fault in every cycle, waits until everything
    that was accepted has ended, and asks the auditor. A broker and a database that were started
    for it are killed as well. 6: a promise was broken; the home is kept. 7: nothing was broken,
    but something was never exercised.
    """
    for variable in (KAFKA_VARIABLE, POSTGRES_VARIABLE):
        os.environ.pop(variable, None)  # a cluster is harmed where it is named here, and only there
    house = assemble.open_house(Path(obj["home"]), obj["catalog"])
    _check_machine()
    servers = Servers(kafka, postgres) if cluster or kafka or postgres else None
    _check_place(house, servers)
    declared = Declared(
        flow=house.flow, catalog=house.catalog, path=house.catalog_path,
        workload=workload_of(house.flow),
    )  # fmt: skip
    wanted = Wanted(
        seed=SystemRandom().randrange(SEEDS) if seed is None else seed, cycles=cycles,
        faults=_faults(faults, servers), folder=_folder(keep), keep=keep is not None,
    )  # fmt: skip
    run = Run(declared, wanted, say, servers)
    say(f"seed {wanted.seed}, {cycles} cycles, in {wanted.folder}")
    try:
        with _ending_on_sigterm(), servers or contextlib.nullcontext():
            outcome = run.run()
    except Absent as absent:
        raise NotFound("no_servers", f"{absent}.", "Or name some: --kafka, --postgres.") from None
    finally:
        if keep is None and not run.outcome.kept:
            shutil.rmtree(wanted.folder, ignore_errors=True)
    _show(outcome, output)
    _judge(outcome, servers)


def _check_machine() -> None:
    if not Path("/proc/self/stat").exists():
        raise Usage(
            "crash_needs_linux", "The crash harness finds its processes in /proc.",
            "Run it on Linux.",
        )  # fmt: skip


def _check_place(house: assemble.House, servers: Servers | None) -> None:
    """Where a catalog names a cluster, that is one that people work on."""
    if house.cluster is not None and servers is None:
        raise Usage(
            "crash_where", "The catalog names a broker and a database.",
            "Say where to: --cluster starts some for it, --kafka and --postgres name some.",
        )


def _faults(text: str | None, servers: Servers | None) -> tuple[str, ...]:
    able = AT_HOME if servers is None else ON_CLUSTER
    able = able if servers is None or servers.own else tuple(n for n in able if n not in SERVERS)
    if text is None:
        return able
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    wrong = [name for name in names if name not in SHARES]
    if wrong or not names:
        raise Usage(
            "fault_unknown", f"There is no fault {', '.join(wrong) or 'in nothing'}.",
            f"Faults: {', '.join(able)}.",
        )  # fmt: skip
    if unable := [name for name in names if name not in able]:
        raise Usage(
            "fault_elsewhere", f"{', '.join(unable)}: not here. {_why_not(unable[0])}",
            f"Faults here: {', '.join(able)}.",
        )  # fmt: skip
    return names


def _why_not(fault: str) -> str:
    if fault == FULL:
        return "On a cluster nothing is kept in the home."
    return "Only servers that were started for it are harmed: --cluster."


def _folder(keep: Path | None) -> Path:
    """Where homes are made. Raises ``Conflict`` where others lie already."""
    if keep is None:
        return Path(tempfile.mkdtemp(prefix="penstock-crash-"))
    keep.mkdir(parents=True, exist_ok=True)
    if any(keep.iterdir()):
        raise Conflict("crash_folder", f"{keep} is not empty.", "Name a new folder with --keep.")
    return keep.resolve()


@contextlib.contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """SIGTERM ends the run as Ctrl-C does: no process is left behind."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _show(outcome: Outcome, output: str) -> None:
    told = outcome.told()
    if output == "json":
        click.echo(json.dumps(told, ensure_ascii=False))
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    for name, value in told.items():
        if isinstance(value, int | float):
            table.add_row(name.replace("_", " "), str(value))
    for point, count in told["kills"].items():
        table.add_row(f"killed at {point}", str(count))
    show(table)
    for violation in outcome.violations:
        click.echo(f"{violation.rule} {violation.key}: {violation.detail}")
        for record in violation.records:
            click.echo(f"    {record}")


def _judge(outcome: Outcome, servers: Servers | None) -> None:
    """Clean, broken (6), or not exercised (7)."""
    if outcome.violations:
        kept, cycle = Path(outcome.kept), outcome.violations[0].cycle
        catalog = f" --catalog {kept / CATALOG}" if servers is not None else ""
        again = f"penstock --home {kept / HOME}{catalog} audit --journal {kept / JOURNAL}"
        gone = servers is not None and servers.own
        raise CheckFailed(
            "crash_violated",
            f"{len(outcome.violations)} violations in cycle {cycle} of seed {outcome.seed}; the "
            f"home is kept in {kept}.",
            "Its broker and database are gone; name some to keep them: --kafka, --postgres."
            if gone else f"Audit it again: {again}",
        )  # fmt: skip
    if outcome.never:
        raise Inconclusive(
            "crash_unexercised", f"Nothing was violated, but {'; '.join(outcome.never)}.",
            "Run more cycles, or let the flow's crash workload send more kinds.",
        )  # fmt: skip
