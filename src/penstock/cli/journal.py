"""``penstock journal``: who wanted what and what came of it, and whether anybody changed it."""

from __future__ import annotations

import datetime
import re
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from penstock import assemble
from penstock.catalog.model import JOURNAL
from penstock.cli.output import clean, moment, output_option, say, show_one, show_rows
from penstock.entry import Entry, Head
from penstock.errors import CheckFailed, Inconclusive, Malformed, NotFound, Usage
from penstock.event import Record
from penstock.ops.chain import Verdict
from penstock.ops.reading import Looking, all_records, checkpoints_in, head_of, on_the_way, verified

COLUMNS = ("seq", "at", "act", "actor", "key", "reason", "about")
FLAW_COLUMNS = ("kind", "seq", "at", "said")
LINK = ("seq", "prev", "hash", "at", "act", "actor", "key", "reason")
CARRY_SECONDS = 10.0
_AGO = re.compile(r"(\d{1,9})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@click.group()
def journal() -> None:
    """The journal: what was wanted and done, each entry linked to the one before.

    Log shows it, verify finds an edit, a deletion, a swap and a cut tail. Both work while
    everything runs.
    """


def since_when(said: str | None, now: int) -> int | None:
    """A time (ms) given as RFC 3339 or as how long ago: 30m, 12h, 7d. Raises ``Usage``."""
    if said is None:
        return None
    ago = _AGO.fullmatch(said)
    if ago is not None:
        return max(0, now - int(ago[1]) * _SECONDS[ago[2]] * 1000)
    try:
        at = datetime.datetime.fromisoformat(said)
    except ValueError:
        raise Usage(
            "bad_time", f"{said!r} is no time.", "Write 2026-01-31T12:00:00Z, or 12h for ago."
        ) from None
    zoned = at if at.tzinfo else at.replace(tzinfo=datetime.UTC)
    return max(0, int(zoned.timestamp() * 1000))


@journal.command("log")
@click.option("--act", default=None, help="Only entries of this type.")
@click.option("--actor", default=None, help="Only what this person or process wrote.")
@click.option("--key", default=None, help="Only entries about this key.")
@click.option("--since", default=None, metavar="TIME", help="Only later ones: a time, or 12h ago.")
@click.option("-n", "--last", type=click.IntRange(0), default=100, show_default=True,
              help="So many latest ones; 0 for all.")  # fmt: skip
@output_option
@click.pass_obj
def log_(
    obj: dict[str, Any], act: str | None, actor: str | None, key: str | None, since: str | None,
    last: int, output: str,
) -> None:  # fmt: skip
    """Show entries, the oldest first."""
    house = assemble.open_house(obj["home"], obj["catalog"])
    after = since_when(since, time.time_ns() // 1_000_000)
    wanted = {"act": act, "actor": actor, "key": key}
    rows = (
        row for row in _rows(house, after)
        if all(value in (None, row[name]) for name, value in wanted.items())
        and (after is None or row["at_ms"] >= after)
    )
    shown = (_shown(row) for row in (deque(rows, last) if last else rows))
    show_rows(shown, COLUMNS, output, "No entries.")


def _rows(house: assemble.House, after: int | None) -> Iterator[dict[str, Any]]:
    log = assemble.open_log(house)
    try:
        for record in all_records(log, after):
            yield from _row(house, record)
    except NotFound:
        raise _no_journal() from None
    finally:
        log.close()


def _row(house: assemble.House, record: Record) -> Iterator[dict[str, Any]]:
    m = record.message
    try:
        entry = house.book.open(m.type, m.version, m.value)
    except (Malformed, msgspec.MsgspecError):
        return  # verify tells of it
    if not isinstance(entry, Entry):
        return
    said = msgspec.to_builtins(entry)
    rest = {name: value for name, value in said.items() if name not in LINK}
    at = entry.at or record.appended_at
    yield {
        **{name: said[name] for name in LINK}, "act": m.type, "at_ms": at, **rest,
        "partition": record.partition, "offset": record.offset, "event_id": m.id.hex(),
    }


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row with its time for people, and what it is about in one cell."""
    about = ""
    if "service" in row:
        about = f"{row['service']}: {row['topic']}"
    shown = {**row, "at": moment(row["at_ms"]), "about": about}
    del shown["at_ms"]
    return shown


@journal.command()
@click.option(
    "--checkpoints", "files", type=click.Path(path_type=Path, dir_okay=False), multiple=True,
    help="What a witness kept, a line of JSON each (default: the catalog's file, if it is here).",
)  # fmt: skip
@output_option
@click.pass_context
def verify(ctx: click.Context, files: tuple[Path, ...], output: str) -> None:
    """Is the journal whole, and is it the one that was written?

    Finds an edit, a deletion, a swap, a cut tail and a record that came by another way, and says
    where. A chain that somebody wrote anew from end to end is found only with a checkpoint.

    Exit codes: 0 whole; 6 something is wrong; 7 nobody can say yet.
    """
    house = assemble.open_house(ctx.obj["home"], ctx.obj["catalog"])
    known = Path(house.catalog.journal.checkpoint_file or "-")
    kept = checkpoints_in(files or ([known] if known.exists() else []))
    log = assemble.open_log(house)
    try:
        store = assemble.open_store(house, JOURNAL, readonly=True)
        verdict = verified(log, store, _carried_head(store), kept)
    except NotFound:
        raise _no_journal() from None
    finally:
        log.close()
    _show(verdict, output)
    if verdict.flaws:
        ctx.exit(CheckFailed.exit_code)


def _no_journal() -> NotFound:
    return NotFound("no_journal", "There is no journal yet.", "Start with: penstock up")


def _carried_head(store: Looking) -> Head | None:
    """The store's head, once the topic has all entries up to it: on a cluster an entry is in the
    database first. What comes meanwhile is not waited for. Raises ``Inconclusive``."""
    until, head = time.monotonic() + CARRY_SECONDS, head_of(store)
    while first := on_the_way(store, head):
        if time.monotonic() > until:
            raise Inconclusive(
                "not_carried", f"Entry {first} and later ones were not carried to the topic yet.",
                "Is a courier of the service journal running? See: penstock status",
            )
        time.sleep(0.1)
    return head


def _show(verdict: Verdict, output: str) -> None:
    if output != "table":
        show_one(msgspec.to_builtins(verdict), output)
        return
    show_rows(
        [msgspec.to_builtins(flaw) for flaw in verdict.flaws], FLAW_COLUMNS, output,
        _praise(verdict),
    )  # fmt: skip
    if verdict.more_flaws:
        say(f"… and {verdict.more_flaws} more.")
    if verdict.before_chain:
        say(f"{verdict.before_chain} records are older than the chain; nothing vouches for them.")
    if not verdict.checkpoints:
        say(
            "No checkpoint was looked at: a chain that was written anew from end to end would look "
            "the same. Name [journal] checkpoint_file or checkpoint_url in the catalog."
        )
    if verdict.flaws:
        say("What to do now: docs/runbooks/journal-broken.md")


def _praise(verdict: Verdict) -> str:
    last: Head = verdict.last
    if not last.seq:
        return "The journal has no entries yet."
    held = f", held against {verdict.checkpoints} checkpoints" if verdict.checkpoints else ""
    return f"Entries 1 to {last.seq} are whole{held}. Last hash: {clean(last.hash)}"
