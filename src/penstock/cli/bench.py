"""``penstock bench``: speed beside raw references measured in the same run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec

from penstock.assemble.cluster import KAFKA_VARIABLE, POSTGRES_VARIABLE
from penstock.bench.figures import FIGURES, Figure, Plan
from penstock.cli.output import output_option, say, show_rows
from penstock.errors import Usage

COLUMNS = ("name", "value", "unit", "reference", "ratio", "floor", "about")
SPENT = ("cpu_us", "reference_cpu_us", "pss_mb", "reference_pss_mb")
EMBEDDED, KAFKA = "embedded", "kafka"
ON_KAFKA = ("log", "effect", "peer", "product")  # penstock.bench.cluster, imported when needed
ROUNDS = 3


@click.command()
@click.argument("figures", nargs=-1, type=click.Choice((*FIGURES, *ON_KAFKA)))
@click.option("--backend", type=click.Choice((EMBEDDED, KAFKA)), default=EMBEDDED,
              show_default=True, help="What is measured: the files, or Kafka and PostgreSQL.")
@click.option("--size", type=click.IntRange(100), default=40_000, show_default=True,
              help="What the reference flow handles a round; the product half.")  # fmt: skip
@click.option("--rounds", type=click.IntRange(1), default=None,
              help="Figure and reference alternate so often (default: 3; 1 for a short run on "
                   "Kafka); medians are compared.")  # fmt: skip
@click.option("--requests", type=click.IntRange(640), default=8_000, show_default=True,
              help="Requests of the door's figure.")  # fmt: skip
@click.option("--full", is_flag=True,
              help="On Kafka: measure for minutes. Else a short run shows that all works.")
@click.option("--kafka", envvar=KAFKA_VARIABLE, default="",
              help="A broker, host:port (default: one is started).")  # fmt: skip
@click.option("--postgres", envvar=POSTGRES_VARIABLE, default="",
              help="A database, as a connection string (default: one is started).")  # fmt: skip
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), default=None,
              help="Where to write (default: a temporary folder): the disk that is measured.")
@output_option
def bench(
    figures: tuple[str, ...], backend: str, size: int, rounds: int | None, requests: int,
    full: bool, kafka: str, postgres: str, folder: Path | None, output: str,
) -> None:  # fmt: skip
    """Measure speed, each figure beside a raw reference from the same run.

    FIGURES: flows, append, marks, door, sandboxed, simulator; with --backend kafka log, effect,
    peer, product (default: all). A ratio is written so that more is better; a floor is what it
    must not fall below. Quote ratios: rates are the machine's. Run it on a machine that does
    nothing else. On Kafka it leaves nothing behind: topics, groups and the schema are its own.
    """
    _check(figures, backend, full)
    with tempfile.TemporaryDirectory(dir=folder, prefix="penstock-bench-") as place, _unnamed():
        if backend == KAFKA:
            found = _on_kafka(Path(place), figures, rounds, full, (kafka, postgres))
        else:
            plan = Plan(
                folder=Path(place), size=size, rounds=rounds or ROUNDS, requests=requests,
                say=say, sandboxed_size=max(50, size // 120),
            )
            found = [f for name in figures or tuple(FIGURES) for f in FIGURES[name](plan)]
    _show(found, backend, output)


def _check(figures: Sequence[str], backend: str, full: bool) -> None:
    """Raises ``Usage`` for what the backend does not have."""
    known = ON_KAFKA if backend == KAFKA else tuple(FIGURES)
    for name in figures:
        if name not in known:
            other = EMBEDDED if backend == KAFKA else KAFKA
            raise Usage(
                "no_figure", f"{name} is no figure of the {backend} backend.",
                f"Use one of {', '.join(known)}, or --backend {other}.",
            )
    if full and backend != KAFKA:
        raise Usage("no_full", "--full is of --backend kafka.", "Use --size and --rounds.")


@contextmanager
def _unnamed() -> Iterator[None]:
    """What is measured runs where its figure says, not where the environment does."""
    names = (KAFKA_VARIABLE, POSTGRES_VARIABLE)
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)


def _on_kafka(
    folder: Path, figures: Sequence[str], rounds: int | None, full: bool, servers: tuple[str, str]
) -> list[Figure]:
    from penstock.bench import cluster
    from penstock.bench.ground import ground

    profile = cluster.FULL if full else cluster.SHORT
    if rounds is not None:
        profile = msgspec.structs.replace(profile, rounds=rounds)
    with ground(*servers, say) as found:
        plan = cluster.Plan(ground=found, folder=folder, profile=profile, say=say)
        return list(cluster.measure(plan, figures))


def _show(found: Sequence[Figure], backend: str, output: str) -> None:
    rows: list[dict[str, Any]] = [msgspec.to_builtins(figure) for figure in found]
    columns: tuple[str, ...] = COLUMNS
    if backend == KAFKA and output == "table":
        rows = [row | row["detail"] for row in rows]
        columns = (*COLUMNS[:-1], *SPENT, COLUMNS[-1])
    show_rows(rows, columns, output)
    for figure in found:
        if figure.floor is not None and figure.ratio is not None and figure.ratio < figure.floor:
            say(f"below its floor: {figure.name} {figure.ratio} < {figure.floor}")
