"""``penstock bench``: speed beside raw references measured in the same run."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import msgspec

from penstock.bench.figures import FIGURES, Figure, Plan
from penstock.cli.output import output_option, say, show_rows

COLUMNS = ("name", "value", "unit", "reference", "ratio", "floor", "about")


@click.command()
@click.argument("figures", nargs=-1, type=click.Choice(tuple(FIGURES)))
@click.option("--size", type=click.IntRange(100), default=40_000, show_default=True,
              help="What the reference flow handles a round; the product half.")  # fmt: skip
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True,
              help="Figure and reference alternate so often; medians are compared.")  # fmt: skip
@click.option("--requests", type=click.IntRange(640), default=8_000, show_default=True,
              help="Requests of the door's figure.")  # fmt: skip
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), default=None,
              help="Where to write (default: a temporary folder): the disk that is measured.")
@output_option
def bench(
    figures: tuple[str, ...], size: int, rounds: int, requests: int, folder: Path | None,
    output: str,
) -> None:  # fmt: skip
    """Measure speed, each figure beside a raw reference from the same run.

    FIGURES: flows, append, marks, door, sandboxed, simulator (default: all). A ratio is written
    so that more is better; a floor is what it must not fall below. Quote ratios: rates are the
    machine's. Run it on a machine that does nothing else.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix="penstock-bench-") as place:
        plan = Plan(
            folder=Path(place), size=size, rounds=rounds, requests=requests, say=say,
            sandboxed_size=max(50, size // 120),
        )
        found: list[Figure] = []
        for name in figures or tuple(FIGURES):
            found += FIGURES[name](plan)
    show_rows([msgspec.to_builtins(figure) for figure in found], COLUMNS, output)
    for figure in found:
        if figure.floor is not None and figure.ratio is not None and figure.ratio < figure.floor:
            say(f"below its floor: {figure.name} {figure.ratio} < {figure.floor}")
