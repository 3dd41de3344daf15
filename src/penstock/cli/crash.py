"""``penstock crash``: the shipped processes are harmed again and again, and audited every time."""

from __future__ import annotations

import contextlib
import json
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
from penstock.cli.output import say, show
from penstock.errors import CheckFailed, Conflict, Inconclusive, Usage
from penstock.sim.crash.outcome import Outcome
from penstock.sim.crash.plan import SHARES
from penstock.sim.crash.run import Run, Wanted
from penstock.sim.crash.stage import HOME, JOURNAL, Declared
from penstock.sim.crash.workload import workload_of

SEEDS = 2**31


@click.command()
@click.option("--cycles", type=click.IntRange(1), default=100, show_default=True,
              help="How many faults, one after the other.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=None,
              help="Draws members, points and faults; any, where none is given.")  # fmt: skip
@click.option("--faults", default=",".join(SHARES), show_default=True,
              help="Which faults, parted by commas.")  # fmt: skip
@click.option("--keep", type=click.Path(path_type=Path, file_okay=False), default=None,
              help="A folder to work in; everything in it is kept (default: a temporary one).")
@click.option("-o", "--output", type=click.Choice(("table", "json")), default="table",
              show_default=True, help="json: the summary as one object.")  # fmt: skip
@click.pass_obj
def crash(
    obj: dict[str, Any], cycles: int, seed: int | None, faults: str, keep: Path | None,
    output: str,
) -> None:  # fmt: skip
    """Kill, stop, drain and starve the real processes, and audit after every fault.

    Starts `penstock up` over a home of its own (yours is not touched), sends what the flow's
    crash workload tells, does one fault in every cycle, waits until everything that was accepted
    has ended, and asks the auditor. 6: a promise was broken; the home is kept. 7: nothing was
    broken, but something was never exercised.
    """
    house = assemble.open_house(Path(obj["home"]), obj["catalog"])
    _check_machine()
    declared = Declared(
        flow=house.flow, catalog=house.catalog, path=house.catalog_path,
        workload=workload_of(house.flow),
    )  # fmt: skip
    wanted = Wanted(
        seed=SystemRandom().randrange(SEEDS) if seed is None else seed, cycles=cycles,
        faults=_faults(faults), folder=_folder(keep), keep=keep is not None,
    )  # fmt: skip
    run = Run(declared, wanted, say)
    say(f"seed {wanted.seed}, {cycles} cycles, in {wanted.folder}")
    try:
        with _ending_on_sigterm():
            outcome = run.run()
    finally:
        if keep is None and not run.outcome.kept:
            shutil.rmtree(wanted.folder, ignore_errors=True)
    _show(outcome, output)
    _judge(outcome)


def _check_machine() -> None:
    if not Path("/proc/self/stat").exists():
        raise Usage(
            "crash_needs_linux", "The crash harness finds its processes in /proc.",
            "Run it on Linux.",
        )  # fmt: skip


def _faults(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    wrong = [name for name in names if name not in SHARES]
    if wrong or not names:
        raise Usage(
            "fault_unknown", f"There is no fault {', '.join(wrong) or 'in nothing'}.",
            f"Faults: {', '.join(SHARES)}.",
        )  # fmt: skip
    return names


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


def _judge(outcome: Outcome) -> None:
    """Clean, broken (6), or not exercised (7)."""
    if outcome.violations:
        kept, cycle = Path(outcome.kept), outcome.violations[0].cycle
        raise CheckFailed(
            "crash_violated",
            f"{len(outcome.violations)} violations in cycle {cycle} of seed {outcome.seed}; the "
            f"home is kept in {kept}.",
            f"Audit it again: penstock --home {kept / HOME} audit --journal {kept / JOURNAL}",
        )  # fmt: skip
    if outcome.never:
        raise Inconclusive(
            "crash_unexercised", f"Nothing was violated, but {'; '.join(outcome.never)}.",
            "Run more cycles, or let the flow's crash workload send more kinds.",
        )  # fmt: skip
