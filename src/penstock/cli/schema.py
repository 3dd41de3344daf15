"""``penstock schema``: snapshots of contracts, the gate before a change is taken, differences."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import click
import msgspec
from msgspec import Struct

from penstock.catalog.model import Catalog
from penstock.cli.output import output_option, say, show_one, show_rows
from penstock.contracts.check import Difference, Judged, Report, check, diff
from penstock.contracts.contract import Contract
from penstock.contracts.own import OWN
from penstock.contracts.snapshot import OWN_FOLDER, snapshot
from penstock.contracts.verdict import Breach, Level, Verdict
from penstock.dotted import resolve
from penstock.flow import Flow


class Declared(Struct, frozen=True, kw_only=True):
    """What the commands work on: the flow's contracts, its folder, who reads which type."""

    contracts: tuple[Contract, ...]
    folder: Path
    consumers: dict[str, tuple[str, ...]]


def declared(catalog_path: Path | None, folder: Path | None = None) -> Declared:
    """Load the catalog (None: the shipped one) and its flow. Raises ``Problem``."""
    from penstock.catalog.load import load_catalog

    catalog = load_catalog(catalog_path)
    flow = cast(Flow, resolve(catalog.flow))
    return Declared(
        contracts=flow.contracts,
        folder=folder or _folder(catalog, catalog_path),
        consumers=consumers(flow),
    )


def _folder(catalog: Catalog, catalog_path: Path | None) -> Path:
    """The catalog's folder, there or not yet; without a catalog file, the shipped one."""
    if catalog_path is not None and catalog.contracts:
        return catalog_path.parent / catalog.contracts
    from penstock.assemble import contracts_folder

    return contracts_folder(catalog, catalog_path)


def consumers(flow: Flow) -> dict[str, tuple[str, ...]]:
    """The services that read each event type, in the flow's order."""
    found: dict[str, tuple[str, ...]] = {}
    for service in flow.services:
        for type_ in dict.fromkeys(t for types in service.reads.values() for t in types):
            found[type_] = (*found.get(type_, ()), service.name)
    return found


folder_option = click.option(
    "--contracts", "folder", type=click.Path(path_type=Path, file_okay=False), default=None,
    help="The folder of snapshots (default: the catalog's).",
)  # fmt: skip


@click.group()
def schema() -> None:
    """Contracts: snapshot, check, diff.

    A contract is a typed class; its committed snapshot (contracts/TYPE/vN.avsc, an Avro schema)
    is the truth about what its records look like. Snapshots are append-only: a change of a class
    is a new version beside the old ones.
    """


@schema.command("snapshot")
@folder_option
@click.option("--own", is_flag=True, help="Penstock's own contracts, for work on penstock itself.")
@output_option
@click.pass_context
def snapshot_command(ctx: click.Context, folder: Path | None, own: bool, output: str) -> None:
    """Write the snapshots that are missing.

    A file that is there keeps its shape for ever; only its documentation follows the class. A
    class that differs from its file is refused, and nothing is written: give it a new version.
    """
    if own:
        rows = snapshot(OWN, folder or OWN_FOLDER)
    else:
        there = declared(ctx.obj["catalog"], folder)
        rows = snapshot(there.contracts, there.folder)
    columns = ("type", "version", "outcome", "file")
    show_rows([msgspec.to_builtins(row) for row in rows], columns, output, "No contracts.")


@schema.command("check")
@folder_option
@click.option(
    "--against", metavar="REF", default=None,
    help="A git branch, tag or commit (default: the merge-base with the default branch).",
)  # fmt: skip
@click.option(
    "--level", type=click.Choice(["backward", "forward", "full"]), default="backward",
    show_default=True, help="What a new version must keep, against all older ones.",
)  # fmt: skip
@output_option
@click.pass_context
def check_command(
    ctx: click.Context, folder: Path | None, against: str | None, level: Level, output: str
) -> None:
    """The gate that a change of a contract has to pass.

    Nothing is rewritten, every class is approved, every new version fits the older ones.

    backward: the new version reads all older records, itself or by an upcast (replay needs it).
    forward: services of today read the new version's records. full: both.

    Exit codes: 0 passed; 6 not passed; 7 inconclusive (no git, or nothing to compare with).
    """
    there = declared(ctx.obj["catalog"], folder)
    report = check(
        there.contracts, there.folder, against, level=level, consumers=there.consumers
    )  # fmt: skip
    if output == "table":
        click.echo("\n".join(_report_lines(report)))
    else:
        show_one(report_object(report), output)
    if report.inconclusive and output != "table":
        say(f"Inconclusive: {report.inconclusive}")
    ctx.exit(report.exit_code)


@schema.command("diff")
@click.argument("type")
@click.argument("old", type=click.IntRange(1))
@click.argument("new", type=click.IntRange(1))
@folder_option
@output_option
@click.pass_context
def diff_command(
    ctx: click.Context, type: str, old: int, new: int, folder: Path | None, output: str
) -> None:
    """What changed between two versions, and who reads whom.

    TYPE is the event's, OLD and NEW are version numbers.
    """
    there = declared(ctx.obj["catalog"], folder)
    upcasts = [o.version for c in there.contracts if c.type == type for o in c.older]
    found = diff(there.folder, type, old, new, upcasts)
    if output == "table":
        click.echo("\n".join(_difference_lines(found)))
    else:
        show_one(msgspec.to_builtins(found), output)


def report_object(report: Report) -> dict[str, Any]:
    """A report as JSON: its fields, ``passed`` for each verdict, ``outcome`` for the whole."""
    value: dict[str, Any] = msgspec.to_builtins(report)
    for judged, ours in zip(value["judged"], report.judged, strict=True):
        for verdict, our in zip(judged["verdicts"], ours.verdicts, strict=True):
            verdict["passed"] = our.passed
    outcome = {0: "passed", 6: "not_passed", 7: "inconclusive"}[report.exit_code]
    return {"outcome": outcome, **value}


def _report_lines(report: Report) -> list[str]:
    lines = [f"✗ {w.message} {w.fix}".rstrip() for w in report.wrong]
    first = [f"{j.type}/{j.version}" for j in report.judged if not j.verdicts]
    lines += [f"+ first versions: {', '.join(first)}"] if first else []
    for judged in report.judged:
        lines += _judged_lines(judged) if judged.verdicts else []
    count = f"{report.snapshots} snapshot{'s' if report.snapshots != 1 else ''}"
    if report.inconclusive:
        lines.append(f"Inconclusive: {report.inconclusive}")
    else:
        at = f" ({report.commit[:12]})" if report.commit else ""
        lines.append(f"Compared with {report.since}{at}, level {report.level}.")
    said = {0: "passed", 6: "NOT passed", 7: "nothing wrong found, but not compared"}
    return [*lines, f"{count}, {len(report.judged)} new: {said[report.exit_code]}."]


def _judged_lines(judged: Judged) -> list[str]:
    lines = []
    for verdict in judged.verdicts:
        lines.append(f"{_sign(verdict)} {judged.type} {_verdict_line(verdict)}")
        if not verdict.passed:
            lines += [f"    {breach}" for breach in verdict.breaches]
    return [*lines, f"    {judged.rollout}"]


def _sign(verdict: Verdict) -> str:
    return "✓" if verdict.passed else "✗"


def _verdict_line(verdict: Verdict) -> str:
    reader, writer = verdict.new, verdict.old
    if verdict.direction == "forward":
        reader, writer = writer, reader
    how = " by its upcast" if verdict.bridged else ""
    can = "reads" if verdict.passed else "CANNOT read"
    return f"version {reader} {can} version {writer}{how} ({verdict.direction})"


def _difference_lines(found: Difference) -> list[str]:
    lines = [f"{found.type}: version {found.old} to {found.new}"]
    lines += [f"  {change}" for change in found.changes] or ["  nothing changed"]
    lines += _reading(found.new, found.old, found.backward, bridged=found.bridged)
    lines += _reading(found.old, found.new, found.forward, bridged=False)
    return [*lines, found.rollout]


def _reading(reader: int, writer: int, broken: tuple[Breach, ...], *, bridged: bool) -> list[str]:
    """Whether one version reads another's records, and why not."""
    if bridged:
        return [f"✓ version {reader} reads version {writer} by its upcast"]
    if not broken:
        return [f"✓ version {reader} reads version {writer}"]
    return [f"✗ version {reader} CANNOT read version {writer}", *(f"    {b}" for b in broken)]
