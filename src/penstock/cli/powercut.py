"""``penstock powercut``: the embedded files under simulated power cuts, state by state."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import msgspec

from penstock.cli.output import output_option, say, show_one
from penstock.errors import CheckFailed, Inconclusive, Usage
from penstock.sim.disk.restart import Desk
from penstock.sim.disk.sweep import Report, chunks, once, record, share
from penstock.sim.disk.tape import Fault
from penstock.sim.disk.trouble import SORTS, fault_share, fault_shares

MEMORY = Path("/dev/shm")  # nothing here has to outlive the run


@click.command()
@click.option("--states", type=click.IntRange(0), default=5000, show_default=True,
              help="How many states of the disk to restart from; the nightly run takes 100000.")
@click.option("--seed", type=int, default=1, show_default=True,
              help="The first seed; every 2,500 states have one of their own.")
@click.option("--faults", is_flag=True,
              help="Let every operation of the seed fail instead, one a run.")
@click.option("--only", default="", metavar="INDEX:DRAW",
              help="One state (or fault) of the seed alone, as a violation names it.")
@click.option("--cores", type=click.IntRange(1), default=None,
              help="Processes to share the work (default: all cores).")
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), default=None,
              help="Where to write meanwhile (default: in memory, where there is /dev/shm).")
@output_option
def powercut(
    states: int, seed: int, faults: bool, only: str, cores: int | None, folder: Path | None,
    output: str,
) -> None:  # fmt: skip
    """Cut the power after every write of every store and log operation, and restart.

    What SQLite writes and syncs is recorded while a store and two logs do all they can do. A
    state is what the disk may hold after one of those writes: all that was synced, and any part
    of the rest, by sectors of 512 bytes. The real code starts over it and has to hold every
    commit that had returned, whole, and go on. Your home folder is not touched.

    With --faults the power stays: syncs fail, the disk has no room, reads and writes fail, the
    process is killed, at every operation in turn.

    Exit code 0: nothing acknowledged was lost. 6: something was, and how to see it again. 7:
    nothing was examined.
    """
    place = folder or (MEMORY if os.access(MEMORY, os.W_OK) else None)
    with tempfile.TemporaryDirectory(dir=place, prefix="penstock-powercut-") as desk:
        if only:
            report = (_one_fault if faults else _one)(seed, only, Path(desk))
        elif faults:
            report = _all(fault_share, fault_shares(seed, Path(desk)), Path(desk), cores)
        else:
            report = _all(share, chunks(seed, states), Path(desk), cores)
    show_one(_said(report), output)
    if report.lost or report.corrupt:
        raise CheckFailed(
            "violated", f"{report.lost + report.corrupt} promises were broken.",
            f"{report.violations[0]}",
        )
    if not (report.states and report.acknowledged):
        raise Inconclusive("unseen", "Nothing was examined.", "Ask for more --states.")


def _one(seed: int, only: str, folder: Path) -> Report:
    index, _, draw = only.partition(":")
    if not (index.isdigit() and draw.isdigit()):
        raise Usage("only", f"--only takes INDEX:DRAW, not {only!r}.", "As in --only 213:2.")
    recording = record(seed, folder / "home")
    if not 0 < int(index) <= len(recording.ops):
        raise Usage("only", f"seed {seed} has {len(recording.ops)} operations, not {index}.")
    return once(recording, Desk(folder / "desk"), int(index), int(draw))


def _one_fault(seed: int, only: str, folder: Path) -> Report:
    what, _, at = only.partition(":")
    if what not in SORTS or not at.isdigit():
        raise Usage("only", f"--only takes FAULT:NUMBER here, one of {', '.join(SORTS)}.")
    return fault_share(seed, [Fault(what=what, at=int(at))], folder)


def _all(
    work: Callable[..., Report], parts: Sequence[tuple[Any, ...]], folder: Path, cores: int | None
) -> Report:
    """Every share, with a word after each."""
    report, began = Report(), time.monotonic()
    for n, part in enumerate(_done(work, parts, folder, cores or os.cpu_count() or 1), 1):
        report.add(part)
        seconds = time.monotonic() - began
        say(
            f"{n} of {len(parts)} shares: {report.states:,} states, "
            f"{report.states / seconds:,.0f} a second, "
            f"{report.lost} lost, {report.corrupt} corrupt"
        )
    return report


def _done(
    work: Callable[..., Report], parts: Sequence[tuple[Any, ...]], folder: Path, cores: int
) -> Iterator[Report]:
    if cores == 1 or len(parts) == 1:
        yield from (work(*part, folder) for part in parts)
        return
    with ProcessPoolExecutor(min(cores, len(parts)), mp_context=get_context("spawn")) as pool:
        running = [pool.submit(work, *part, folder) for part in parts]
        for done in as_completed(running):
            yield done.result()


def _said(report: Report) -> dict[str, Any]:
    """The report as data, in the order of the seeds, each violation with its command."""
    found: dict[str, Any] = msgspec.to_builtins(report)
    found["violations"] = [
        {**msgspec.to_builtins(v), "again": v.again}
        for v in sorted(report.violations, key=lambda v: (v.seed, v.index, v.draw))
    ]
    return found
