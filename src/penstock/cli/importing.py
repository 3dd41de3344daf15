"""``penstock import``: an export's rows go through the same door as everybody's.

The flow's own importer module says what the rows mean; this command reads the file, asks the
server whether it is a sandbox, sends, and writes down what became of every row.
"""

from __future__ import annotations

import asyncio
import csv
import importlib
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import click
import httpx
import msgspec
from msgspec import Struct
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from penstock.catalog.load import load_catalog
from penstock.cli.remote import TIMEOUT_SECONDS, client, not_running, server_url
from penstock.cli.sending import (
    IN_FLIGHT_MAX,
    PATIENCE_SECONDS,
    Answered,
    Call,
    Sending,
    Silent,
    answer,
    send,
)
from penstock.dotted import resolve
from penstock.errors import Conflict, Problem, Usage
from penstock.flow import Flow

PARTLY_DONE = 8
DEFAULT_HOME = ".penstock"
HELP = """Place what a shop's export FILE holds, each entry once, however often it is run.

Every row is accounted for: placed, merged into another one, set aside with its reason, or already
placed. Run it again to finish what was interrupted.

Exit codes: 0 all done; 2 wrong usage, or a file that cannot be read; 8 the door refused a part, or
not all was sent.
"""
SUPPLY_WAIT_SECONDS = 120.0
SUPPLY_LOOK_SECONDS = 0.2

_FORMULA = tuple("=+-@\t\r\n")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")


class Options(Struct, frozen=True, kw_only=True):
    """What the command line said about where to send and what to write."""

    home: Path
    url: str | None
    set_aside: Path | None
    output: str
    live: bool
    with_stock: bool | None
    dry_run: bool
    sending: Sending


class Progressed(Struct):
    """What is known so far: the answer per call, and whether all were sent."""

    answers: dict[str, Answered] = {}
    stopped: str = ""

    @property
    def outcomes(self) -> dict[str, str]:
        """The outcome per call."""
        return {name: answered.outcome for name, answered in self.answers.items()}


# ---- the command


def _pair(said: str | tuple[str, str]) -> tuple[str, str]:
    """``NAME=VALUE``, split at the first equals sign; the value may be empty."""
    if isinstance(said, tuple):
        return said
    name, equals, value = said.partition("=")
    if not equals or not name.strip():
        raise click.BadParameter(f"{said!r} is not of the form NAME=VALUE.")
    return name.strip(), value.strip()


def _reading_option(declared: Any) -> click.Option:
    """An option that the flow's importer declares: how to read its kind of file."""
    if declared.pairs:
        kind: dict[str, Any] = {"type": _pair, "multiple": True}
    else:
        kind = {"default": declared.default, "show_default": bool(declared.default)}
    flag = "--" + declared.flag
    return click.Option(
        [flag, declared.field], help=declared.help, metavar=declared.metavar, **kind
    )


def _where_options() -> list[click.Parameter]:
    """The options every importer has: what to send, where to, how fast."""
    file = click.Path(dir_okay=False, path_type=Path)
    folder = click.Path(file_okay=False, path_type=Path)
    return [
        click.Option(
            ["--rate"], type=click.FloatRange(min=0), default=0.0, metavar="PER_SECOND",
            help="Calls a second; 0, the default, is as fast as possible.",
        ),
        click.Option(
            ["--in-flight"], type=click.IntRange(1, 256), default=IN_FLIGHT_MAX, show_default=True,
            help="Calls at once.",
        ),
        click.Option(
            ["--with-stock/--without-stock"], default=None,
            help="Load the stock the file needs first; by default only into a sandbox.",
        ),
        click.Option(["--live"], is_flag=True, help="Import although it is no sandbox."),
        click.Option(["--dry-run"], is_flag=True, help="Only say what would become of the rows."),
        click.Option(["--set-aside"], type=file, help="Where to list the rows set aside."),
        click.Option(["--url"], help="The server; else the one of the home folder."),
        click.Option(
            ["--home"], type=folder, metavar="FOLDER",
            help=f"The home folder; else as given before the command, else {DEFAULT_HOME}.",
        ),
        click.Option(
            ["-o", "--output"], type=click.Choice(["table", "json"]), default="table",
            show_default=True, help="json: the account of all rows as one object, last.",
        ),
    ]  # fmt: skip


class ImportCommand(click.Command):
    """The command; what it asks about the file is declared by the flow's importer."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The file, the importer's options, then those of every import."""
        file, *where = super().get_params(ctx)
        return [file, *map(_reading_option, _importer(ctx).OPTIONS), *where]


def _importer(ctx: click.Context) -> Any:
    """The importer module of the catalog's flow."""
    catalog = load_catalog((ctx.find_root().obj or {}).get("catalog"))
    flow = cast(Flow, resolve(catalog.flow))
    if not flow.importer:
        raise Usage("no_importer", f"The flow {flow.name} reads no exports.")
    return importlib.import_module(flow.importer)


@click.pass_context
def _import(ctx: click.Context, /, file: Path, rate: float, in_flight: int, **said: Any) -> None:
    module = _importer(ctx)
    shared = ctx.find_root().obj or {}
    said["home"] = said["home"] or shared.get("home") or Path(DEFAULT_HOME)
    said["url"] = said["url"] or shared.get("url")
    options = Options(
        sending=Sending(in_flight=in_flight, rate=rate),
        **{name: said.pop(name) for name in Options.__struct_fields__ if name in said},
    )
    pairs = {o.field: dict(said[o.field]) for o in module.OPTIONS if o.pairs}
    began = time.monotonic()
    plan = module.plan(_content(file), module.Reading(**said | pairs))
    done, listed = _run(module, plan, options, file)
    summary = _summary(module, plan, done, listed, options.dry_run, time.monotonic() - began)
    _show(summary, module.NOUN, options.output)
    if done.stopped:
        click.echo(f"{done.stopped} To finish: run the same command again.", err=True)
    refused = any(a.outcome == "refused" for a in done.answers.values())
    ctx.exit(PARTLY_DONE if done.stopped or refused else 0)


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as wrong:
        raise Usage("unreadable_file", f"{file}: {wrong.strerror}.") from None


def _run(module: Any, plan: Any, options: Options, file: Path) -> tuple[Progressed, Path | None]:
    """Send the plan (or only foresee it) and list what was set aside."""
    done = Progressed()
    if options.dry_run:
        done.answers = {r.name: Answered(r.name, "placed") for r in plan.requests}
        listed = options.set_aside
    else:
        server = server_url(options.home, options.url)
        sandbox = _sandbox(server, options.live)
        try:
            if sandbox if options.with_stock is None else options.with_stock:
                supply(module, module.stock(plan), server)
            _send(module, plan, server, options, done)
        except KeyboardInterrupt:
            done.stopped = "Interrupted."
        except Silent as silent:
            done.stopped = silent.message
        listed = options.set_aside or options.home / "imports" / f"{file.stem}.set_aside.csv"
    if listed is not None:
        _write(listed, plan, list(_aside(module, plan, done)))
    return done, listed


# ---- talking to the server


def _sandbox(server: str, live: bool) -> bool:
    """Whether the server is a sandbox; a real one takes history only with ``--live``."""
    try:
        with client(server) as http:
            reply = http.get("/status")
            sandbox = bool(reply.raise_for_status().json()["sandbox"])
    except httpx.TransportError:
        raise not_running(f"at {server}") from None
    except (httpx.HTTPStatusError, ValueError, KeyError, TypeError):
        raise Conflict(
            "no_status", f"{server}/status does not say what it is.", "Is it a penstock?"
        ) from None
    if not sandbox and not live:
        raise Usage(
            "not_a_sandbox",
            f"{server} is no sandbox: it holds a real provider or mailbox.",
            "An import would charge and mail people for the past; if you mean it, give --live.",
        )
    return sandbox


def supply(module: Any, loads: Iterable[Any], server: str) -> None:
    """Load stock by an importer's calls and wait until it is there to be kept: topics race."""
    with client(server, name=module.CLIENT) as http:
        before = _on_hand(module, http)
        fresh: dict[str, int] = {}
        for request in loads:
            answered = asyncio.run(_answered(module.CLIENT, request, server))
            if answered.outcome not in ("placed", "already_placed"):
                raise Conflict(
                    "stock_refused",
                    f"The stock was refused: {answered.detail}",
                    "Load it yourself, then import --without-stock.",
                )
            # what was loaded by an earlier run may have been used since: being listed is enough
            floor = {} if module.loaded_before(answered.reply) else before
            fresh |= {name: floor.get(name, -1) for name in module.loaded(request)}
        _await_supply(module, http, fresh)


def _await_supply(module: Any, http: httpx.Client, fresh: dict[str, int]) -> None:
    last = time.monotonic() + SUPPLY_WAIT_SECONDS
    while fresh:
        now = _on_hand(module, http)
        fresh = {name: n for name, n in fresh.items() if now.get(name, n) <= n}
        if fresh and time.monotonic() > last:
            raise Conflict(
                "stock_not_there",
                f"The stock was taken, but is not there after {SUPPLY_WAIT_SECONDS:.0f} s.",
                "See what holds it up: penstock status",
            )
        if fresh:
            time.sleep(SUPPLY_LOOK_SECONDS)


def _on_hand(module: Any, http: httpx.Client) -> dict[str, int]:
    """Pieces on hand by what they are, all pages of it."""
    found: dict[str, int] = {}
    path: str = module.stock_page("")
    while path:
        reply = http.get(path)
        if not reply.is_success:
            raise Conflict("no_stock", f"{path} answered {reply.status_code}.")
        part, path = module.on_hand(reply.content)
        found |= part
    return found


async def _answered(name: str, call: Call, server: str) -> Answered:
    async with _async_client(name, server, 1) as http:
        return await answer(call, http, PATIENCE_SECONDS)


def _async_client(name: str, server: str, connections: int) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=server,
        headers={"Penstock-Client": name},
        limits=httpx.Limits(max_connections=connections),
        timeout=TIMEOUT_SECONDS,
        trust_env=False,
    )


def _send(module: Any, plan: Any, server: str, options: Options, done: Progressed) -> None:
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=console, disable=not console.is_terminal, transient=True,
    ) as progress:  # fmt: skip
        task = progress.add_task(module.NOUN, total=len(plan.requests))

        def told(answered: Answered) -> None:
            done.answers[answered.name] = answered
            progress.advance(task)

        asyncio.run(_sent(module.CLIENT, plan.requests, server, options.sending, told))


async def _sent(name: str, calls: Sequence[Call], server: str, sending: Sending, told: Any) -> None:
    async with _async_client(name, server, sending.in_flight) as http:
        await send(calls, http, sending, told)


# ---- what became of the rows


def _aside(module: Any, plan: Any, done: Progressed) -> Iterator[tuple[int, str, str]]:
    """Every row set aside: by what it is, or because the server refused its order."""
    yield from ((one.row, one.reason, one.detail) for one in plan.set_aside)
    for request in plan.requests:
        answered = done.answers.get(request.name)
        if answered is None or answered.outcome not in module.REASONS:
            continue
        detail = f"{module.REASONS[answered.outcome]}: {answered.detail}"
        for row in request.rows + request.merged:
            yield row, answered.outcome, detail


def _write(path: Path, plan: Any, aside: list[tuple[int, str, str]]) -> None:
    """The list of rows set aside: line, reason, the sentence, then the row as it stood."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["line", "reason", "detail", *map(harmless, plan.header)])
            for index, reason, detail in sorted(aside):
                row = plan.rows[index]
                writer.writerow([row.line, reason, harmless(detail), *map(harmless, row.fields)])
    except OSError as wrong:
        why = f"{path}: {wrong.strerror}."
        raise Problem("not_written", why, "Give another with --set-aside FILE.") from None


def harmless(cell: str) -> str:
    """The cell as no spreadsheet takes it for a formula; numbers stay numbers."""
    if cell.startswith(_FORMULA) and not _NUMBER.fullmatch(cell):
        return "'" + cell
    return cell


def _summary(
    module: Any, plan: Any, done: Progressed, listed: Path | None, dry_run: bool, seconds: float
) -> dict[str, Any]:
    outcomes = done.outcomes
    here = sum(outcome in ("placed", "already_placed") for outcome in outcomes.values())
    reasons = Counter(reason for _, reason, _ in _aside(module, plan, done))
    return {
        "rows": len(plan.rows),
        "outcomes": module.outcomes(plan, outcomes),
        module.NOUN: here,
        "set_aside_file": str(listed) if listed else None,
        "reasons": dict(sorted(reasons.items())),
        "seconds": round(seconds, 3),
        **({"dry_run": True} if dry_run else {}),
    }


def _show(summary: dict[str, Any], noun: str, output: str) -> None:
    if output == "json":
        sys.stdout.write(msgspec.json.encode(summary).decode() + "\n")
        return
    table = Table(show_header=False, box=None)
    table.add_column(justify="right")
    for outcome, count in summary["outcomes"].items():
        table.add_row(f"{count:,}", outcome.replace("_", " "))
        if outcome == "set_aside":
            for reason, rows in summary["reasons"].items():
                table.add_row("", f"  {rows:,} {reason.replace('_', ' ')}")
    table.add_row(f"{summary['rows']:,}", f"rows, {summary[noun]:,} {noun}")
    Console().print(table)
    if summary["set_aside_file"]:
        click.echo(f"Set aside, with reasons: {summary['set_aside_file']}")


import_command = ImportCommand(
    "import",
    params=[
        click.Argument(["file"], type=click.Path(exists=True, dir_okay=False, path_type=Path)),
        *_where_options(),
    ],
    callback=_import,
    short_help="Place the contents of an export file.",
    help=HELP,
)
