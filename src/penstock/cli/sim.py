"""``penstock sim``: the flow under simulated faults, seed by seed, judged by the auditor."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from penstock.cli.output import output_option, say, show_rows
from penstock.engine.runner import write_whole
from penstock.errors import CheckFailed, Inconclusive, NotFound
from penstock.sim.case import Case
from penstock.sim.report import html, page
from penstock.sim.run import Outcome, Tally, house_of, simulate, simulate_all
from penstock.sim.shrink import pinned, regression, shrink, smaller
from penstock.sim.world import knobs_of_case

LAST = Path("sim") / "last.json"  # in the home folder: what `sim report` shows
COLUMNS = ("seed", "rule", "key", "detail", "records")
SHOWN_MAX = 20


@click.group(invoke_without_command=True)
@click.option("--seed", type=int, default=0, show_default=True, help="The first seed.")
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True,
              help="How many seeds, from the first one on.")  # fmt: skip
@click.option("--orders", type=click.IntRange(1, 10_000), default=50, show_default=True,
              help="What is placed in each run.")  # fmt: skip
@click.option("--slow", is_flag=True,
              help="On the real embedded files instead of in memory: slower, closer.")  # fmt: skip
@click.option("--cores", type=click.IntRange(1), default=None,
              help="Processes to spread seeds over (default: all cores).")  # fmt: skip
@click.option("--shrink/--no-shrink", "shrinks", default=True, show_default=True,
              help="Make the first failure small and write it down as a test.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, file_okay=False),
              default=Path("sim-failures"), show_default=True,
              help="The folder for that test.")  # fmt: skip
@output_option
@click.pass_context
def sim(
    ctx: click.Context, seed: int, seeds: int, orders: int, slow: bool, cores: int | None,
    shrinks: bool, out: Path, output: str,
) -> None:  # fmt: skip
    """Run the flow in one process under an injected clock, dice and scheduler.

    Each seed draws a workload, capacities, and the faults that strike: processes die and stand
    still, disks are full, gateways lose answers, clocks differ. Then the faults stop and everything
    has to come to a right end, by the auditor's rules. The same seed is the same run.

    Exit code 0: clean. 6: a rule is broken. 7: nothing is broken, but a rule examined nothing.
    `penstock sim report` shows the last run on one page.
    """
    if ctx.invoked_subcommand is not None:
        return
    catalog = ctx.obj["catalog"]
    house_of(catalog)  # refuse what cannot be simulated before anything starts
    cases = [Case(seed=seed + n, orders=orders, slow=slow) for n in range(seeds)]
    began = time.monotonic()
    tally, first = _run(cases, catalog, cores, output)
    found = _said(tally, time.monotonic() - began)
    _keep(Path(ctx.obj["home"]), found)
    if output == "table":
        click.echo(page(found), nl=False)
        show_rows(found["violations"][:SHOWN_MAX], COLUMNS, output, empty="No rule is broken.")
    else:
        indent = 2 if output == "json" else None
        click.echo(json.dumps(found, ensure_ascii=False, indent=indent))
    if first is not None:
        _write_down(first, out, catalog) if shrinks else None
        rules = sorted({v["rule"] for v in found["violations"]})
        raise CheckFailed(
            "violated", f"{len(found['violations'])} violations of {', '.join(rules)}.",
            f"Run one again with: penstock sim --seed {first.case.seed} --orders {orders}",
        )
    unseen = [rule for rule, count in tally.examined.items() if not count]
    if unseen:
        raise Inconclusive(
            "unseen", f"These rules examined nothing: {', '.join(unseen)}.",
            "Run more seeds, or larger ones (--seeds, --orders).",
        )


def _run(
    cases: list[Case], catalog: Path | None, cores: int | None, output: str
) -> tuple[Tally, Outcome | None]:
    tally, first = Tally(), None
    with _progress(len(cases)) as advance:
        for outcome in simulate_all(cases, catalog, cores):
            tally.add(outcome)
            advance()
            if outcome.violations and first is None:
                first = outcome
                v = outcome.violations[0]
                say(f"seed {outcome.case.seed} breaks {v.rule}: {v.key} {v.detail}")
    return tally, first


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    """A bar on a terminal's stderr, nothing elsewhere."""
    from rich.console import Console

    console = Console(stderr=True)
    columns = (TextColumn("seeds"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True,
                  disable=not console.is_terminal) as bar:  # fmt: skip
        task = bar.add_task("seeds", total=total)
        yield lambda: bar.advance(task)


def _said(tally: Tally, seconds: float) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(tally)
    return found | {"seconds": round(seconds, 1), "handled_per_second": round(
        tally.handled / seconds if seconds else 0.0)}  # fmt: skip


def _keep(home: Path, found: dict[str, Any]) -> None:
    """Remember the run for `sim report`, in a home that is there already or nowhere else."""
    folder = (home / LAST).parent
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    write_whole(home / LAST, found)


def _write_down(outcome: Outcome, out: Path, catalog: Path | None) -> None:
    rule = outcome.violations[0].rule
    house = house_of(catalog)
    say(f"making seed {outcome.case.seed} small (rule {rule}) ...")

    def breaks(case: Case) -> bool:
        return any(v.rule == rule for v in simulate(case, house).violations)

    knobs = knobs_of_case(outcome.case, house.catalog)
    fewer = smaller(outcome.case, knobs, breaks)
    small = shrink(pinned(simulate(fewer, house), knobs), breaks)
    again = [v for v in simulate(small, house).violations if v.rule == rule]
    detail = again[0].detail if again else outcome.violations[0].detail
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"test_seed_{outcome.case.seed}.py"
    path.write_text(regression(small, rule, detail, str(catalog or "")))
    say(f"{len(small.keep or ())} visits and {len(small.fires or ())} faults are enough: {path}")


@sim.command()
@click.option("--html", "html_path", type=click.Path(path_type=Path, dir_okay=False), default=None,
              help="Write the page as a file for a browser.")  # fmt: skip
@output_option
@click.pass_obj
def report(obj: dict[str, Any], html_path: Path | None, output: str) -> None:
    """The last run on one page: seeds, orders, faults, sites never reached, rules."""
    path = Path(obj["home"]) / LAST
    if not path.exists():
        raise NotFound("no_run", "nothing was simulated here yet.",
                       "Run: penstock sim --seeds 100")  # fmt: skip
    found = json.loads(path.read_text())
    if html_path is not None:
        html_path.write_text(html(found))
        say(f"written: {html_path}")
    elif output == "table":
        click.echo(page(found), nl=False)
    else:
        click.echo(json.dumps(found, ensure_ascii=False, indent=2 if output == "json" else None))
