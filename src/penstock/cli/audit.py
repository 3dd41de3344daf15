"""``penstock audit``: is what a home holds what was promised? Judged by the files alone."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import click
from msgspec import Struct
from rich.table import Table
from rich.text import Text

from penstock import assemble
from penstock.catalog.load import load_catalog
from penstock.catalog.model import Catalog
from penstock.cli.output import clean, moment, say, show
from penstock.contracts.snapshot import OWN_FOLDER
from penstock.dotted import resolve
from penstock.errors import NotFound, Usage
from penstock.flow import Flow
from penstock.sim.audit.books import Books, Rule
from penstock.sim.audit.cluster import Where, books_of_cluster
from penstock.sim.audit.cluster import is_running as cluster_runs
from penstock.sim.audit.files import Reads, Unfit, books_of, latest, snapshots
from penstock.sim.audit.opening import is_running
from penstock.sim.audit.platform import RULES
from penstock.sim.audit.report import Report, Verdict, audit

GRACE_SECONDS = 5.0  # longer than any commit takes: what is younger may be half done
SHOWN_MAX = 20  # violations of a rule that the table shows; JSON has all


class Asked(Struct, frozen=True, kw_only=True):
    """What to ask: the rules, and what the declared world says of the files."""

    rules: tuple[Rule, ...]
    reads: Reads
    catalog: Catalog
    contracts: tuple[Path, ...]


@click.command("audit")
@click.option(
    "--journal", "journals", multiple=True, metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="What a client wrote down of its requests; may be given again.",
)  # fmt: skip
@click.option(
    "--grace", type=click.FloatRange(0), default=None, metavar="SECONDS",
    help="What happened in the last so many seconds may be half done, and nothing need have come "
    "to rest (default: 5 where penstock runs; else all must have ended).",
)  # fmt: skip
@click.option(
    "--against", type=click.Path(path_type=Path, file_okay=False), default=None, metavar="HOME",
    help="A copy of the home: where both hold records, they must be the same bytes.",
)  # fmt: skip
@click.option(
    "--contracts", type=click.Path(path_type=Path, file_okay=False), default=None, metavar="DIR",
    help="The folder of schema snapshots (default: the catalog's).",
)  # fmt: skip
@click.option("--rules", "wanted", default="", metavar="IDS", help="Only these, as I1,I6.")
@click.option("-o", "--output", type=click.Choice(("table", "json")), default="table",
              show_default=True, help="json: the report as one object.")  # fmt: skip
@click.pass_context
def audit_command(
    ctx: click.Context, journals: tuple[Path, ...], grace: float | None, against: Path | None,
    contracts: Path | None, wanted: str, output: str,
) -> None:  # fmt: skip
    """Check a home folder, or the cluster it runs on, against the promises.

    The auditor shares no code with the engine: it decodes logs, stores and the sandboxes' ledgers
    by the documented formats, opens all of them read-only, and says which rule is broken, about
    what, and in which records. It works on a home at rest, on one in use, and on a backup.

    Exit codes: 0 clean; 6 a rule is violated; 7 a rule examined nothing, and none is violated.
    """
    home = Path(ctx.obj["home"])
    asked = _asked(ctx.obj["catalog"], contracts, wanted)
    if not home.is_dir() and assemble.cluster_of(asked.catalog) is None:
        raise NotFound("no_home", f"There is no home {home}.", "Name one with --home.")
    try:
        cluster = _cluster(asked.catalog)
        running = is_running(home) if cluster is None else cluster_runs(cluster)
        if running and grace is None:
            grace = GRACE_SECONDS
        books = _books(home, cluster, asked, journals, grace, against, running=running)
    except Unfit as unfit:
        raise Usage("unfit", unfit.message, unfit.fix) from None
    report = audit(books, asked.rules)
    if output == "json":
        click.echo(json.dumps(report.said(), ensure_ascii=False, indent=2))
    else:
        _show(report, running=running, home=home)
    ctx.exit(report.exit_code)


class Judged(NamedTuple):
    """A report, and how many documents the auditor found by service, kind and label."""

    report: Report
    labels: Mapping[tuple[str, str, str], int]


def judged(home: Path, catalog_path: Path | None, *, on_cluster: bool) -> Judged:
    """What the auditor finds in a home that stands still, or in the cluster that its catalog names,
    where work may be left to do. Raises ``Usage`` where it cannot look."""
    asked = _asked(catalog_path, None, "")
    cluster = _cluster(asked.catalog) if on_cluster else None
    try:
        books = _books(home, cluster, asked, (), GRACE_SECONDS, None, running=False)
    except Unfit as unfit:
        raise Usage("unfit", unfit.message, unfit.fix) from None
    labels = Counter(
        (name, d.kind, d.label)
        for name, store in books.stores.items() for d in store.documents
        if d.label and d.body is not None
    )  # fmt: skip
    return Judged(audit(books, asked.rules), labels)


def _asked(catalog_path: Path | None, contracts: Path | None, wanted: str) -> Asked:
    """The flow's own rules beside those of the platform."""
    catalog = load_catalog(catalog_path)
    flow = cast(Flow, resolve(catalog.flow))
    rules = RULES
    reads: Reads = {
        s.name: {topic: frozenset(types) for topic, types in s.reads.items()}
        for s in flow.services
    }
    if flow.audit:
        own = cast(tuple[Rule, ...], resolve(f"{flow.audit}:RULES"))
        rules = tuple(sorted((*own, *RULES), key=_number))
        reads = cast(Reads, resolve(f"{flow.audit}:READS"))
    folder = contracts or assemble.contracts_folder(catalog, catalog_path)
    chosen = _chosen(rules, wanted)
    return Asked(rules=chosen, reads=reads, catalog=catalog, contracts=(folder, OWN_FOLDER))


def _number(rule: Rule) -> int:
    digits = "".join(c for c in rule.id if c.isdigit())
    return int(digits or 0)


def _chosen(rules: tuple[Rule, ...], wanted: str) -> tuple[Rule, ...]:
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    known = list(dict.fromkeys(rule.id for rule in rules))
    for name in names:
        if name not in known:
            raise Usage("no_rule", f"There is no rule {name!r}.", f"There are: {', '.join(known)}.")
    return tuple(rule for rule in rules if rule.id in names) if names else rules


def _cluster(catalog: Catalog) -> Where | None:
    """Where the auditor finds everything, None where it lies in the home."""
    cluster = assemble.cluster_of(catalog)
    if cluster is None:
        return None
    producers = {topic: assemble.owner_file(catalog, topic) for topic in catalog.topics}
    return Where(
        cluster.client_settings(), cluster.kafka.prefix, producers, cluster.postgres,
        cluster.schema, frozenset(n for n, t in catalog.topics.items() if t.wire == "avro"),
        _accepts(catalog), cluster.kafka.registry,
    )


def _accepts(catalog: Catalog) -> dict[str, tuple[str, int]]:
    return {name: ref for name, t in catalog.topics.items() if (ref := t.accepted) is not None}


def _books(
    home: Path, cluster: Where | None, asked: Asked, journals: Iterable[Path],
    grace: float | None, against: Path | None, *, running: bool,
) -> Books:  # fmt: skip
    """The time is noted before the first look; of a home at rest, its own last time counts."""
    margin = None if grace is None else int(grace * 1000)
    now = time.time_ns() // 1_000_000
    catalog = asked.catalog
    ages = {t.name: t.retention_seconds for t in catalog.topics.values()}
    given: dict[str, Any] = {
        "reads": asked.reads, "journal": tuple(journals) or None,
        "until": now - margin if margin is not None and running else None,
        "contracts": snapshots(asked.contracts),
        "retention": {name: age for name, age in ages.items() if age is not None},
        "buffers": {g.name: g.buffer_seconds for g in catalog.gateways.values()},
        "continues": [s.name for s in catalog.services.values() if s.after_park == "continue"],
    }
    if cluster is None:
        books = books_of(home, against=against, accepts=_accepts(catalog), **given)
    elif against is None:
        books = books_of_cluster(cluster, home, **given)
    else:
        raise Usage("no_copy", "A cluster has no copy to compare with.", "Leave --against out.")
    books = books._replace(now=time.time_ns() // 1_000_000)
    if margin is not None and not running:
        books = books._replace(until=latest(books) - margin)
    return books


# What people see ---------------------------------------------------------------------------------


def _show(report: Report, *, running: bool, home: Path) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("rule", no_wrap=True)
    table.add_column("examined", justify="right")
    table.add_column("verdict", no_wrap=True)
    table.add_column("about", overflow="fold")
    for rule in report.rules:
        table.add_row(rule.id, str(rule.examined), _verdict(rule), Text(clean(rule.about)))
    show(table)
    for rule in report.rules:
        for line in _violations(rule):
            click.echo(line)
    for id_, why in report.asked_not:
        say(f"{id_} was not asked: {why}.")
    if report.until is not None:
        who = f"penstock runs in {home}" if running else "by --grace"
        say(f"Not judged ({who}): what happened at {moment(report.until)} or later.")
    click.echo(_closing(report))


def _verdict(rule: Verdict) -> str:
    if rule.violations:
        return f"{len(rule.violations)} VIOLATED"
    return "ok" if rule.examined else "EXAMINED NOTHING"


def _violations(rule: Verdict) -> list[str]:
    lines = []
    for violation in rule.violations[:SHOWN_MAX]:
        where = ", ".join(violation.records)
        lines.append(clean(f"✗ {rule.id} {violation.key}: {violation.detail}"))
        lines += [clean(f"    {where}")] if where else []
    more = len(rule.violations) - SHOWN_MAX
    return [*lines, f"  … and {more} more of {rule.id}: -o json has all"] if more > 0 else lines


def _closing(report: Report) -> str:
    """One sentence at the end."""
    broken = [rule.id for rule in report.rules if rule.violations]
    counted = f"{len(report.rules)} rules, {sum(r.examined for r in report.rules)} looks"
    if broken:
        return f"{counted}: VIOLATED: {', '.join(broken)}."
    if report.empty:
        return f"{counted}: nothing wrong, but nothing to see for {', '.join(report.empty)}."
    return f"{counted}: nothing is wrong."

