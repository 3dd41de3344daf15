"""Topics: what there is, and the records of one as they come. Works without a running `up`."""

from __future__ import annotations

import contextlib
import heapq
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import click

from penstock import assemble
from penstock.cli.output import (
    clean,
    known,
    moment,
    output_option,
    say,
    show_rows,
    until_interrupted,
)
from penstock.cli.up import cluster_options, use_cluster
from penstock.errors import CheckFailed, Conflict, NotFound
from penstock.event import Record
from penstock.ports import Extent, Log

POLL_SECONDS = 0.2
PAGE_RECORDS = 200


@click.group()
def topics() -> None:
    """Topics: list, follow the records of one, or compare them with a Kafka cluster."""


def extents(log: Log, topic: str) -> list[Extent]:
    """A topic's partitions; none where its file is not there yet."""
    try:
        return log.extent(topic)
    except NotFound:
        return []


@topics.command("list")
@output_option
@click.pass_obj
def list_(obj: dict[str, Any], output: str) -> None:
    """Every topic: owner, producer, partitions and how much it holds."""
    house = assemble.open_house(obj["home"], obj["catalog"])
    log = assemble.open_log(house)
    rows = []
    for topic in house.catalog.topics.values():
        found = extents(log, topic.name)
        rows.append(
            {
                "topic": topic.name, "owner": topic.owner, "producer": topic.producer,
                "class": topic.class_, "partitions": topic.partitions,
                "records": sum(e.next - e.first for e in found),
                "next_offsets": [e.next for e in found],
            }
        )
    show_rows(rows, ("topic", "owner", "producer", "class", "partitions", "records"), output)


@topics.command("plan")
@cluster_options
@output_option
@click.pass_context
def plan_(ctx: click.Context, kafka: str | None, postgres: str | None, output: str) -> None:
    """Compare the catalog with the Kafka cluster; changes nothing.

    Ends with 0 where they agree, with 6 where something is to be created, changed or decided.
    """
    use_cluster(kafka, postgres)
    with _on_kafka(ctx.obj) as log:
        if log is None:
            _show([], output)
            return
        changes = log.plan()
    _show(changes, output)
    if any(change.act != "unknown" for change in changes):
        say("Run `penstock topics apply` to create and change these.")
        ctx.exit(CheckFailed.exit_code)


@topics.command("apply")
@click.option("--yes", is_flag=True, help="Do it without asking.")
@cluster_options
@output_option
@click.pass_context
def apply_(
    ctx: click.Context, yes: bool, kafka: str | None, postgres: str | None, output: str
) -> None:
    """Create missing topics on the Kafka cluster, and set settings.

    Shows the plan and asks. Nothing is ever deleted, and no partition count is changed: with such
    a difference left it ends with 5.
    """
    use_cluster(kafka, postgres)
    with _on_kafka(ctx.obj) as log:
        changes = log.plan() if log is not None else []
        _show(changes, output)
        todo = [change for change in changes if change.act in ("create", "set")]
        if log is not None and todo:
            if not yes:
                click.confirm(f"Do these {len(todo)}?", abort=True, err=True)
            log.apply(todo)
            say(f"Done: {len(todo)}.")
    refused = [change for change in changes if change.act == "refused"]
    if refused:
        raise Conflict(
            "topics_differ",
            "; ".join(f"{c.topic} has {c.what} {c.old}, not {c.new}" for c in refused) + ".",
            "Put the catalog back, or move to a new topic: docs/reference/kafka.md, Partitions.",
        )


@contextlib.contextmanager
def _on_kafka(obj: dict[str, Any]) -> Iterator[Any]:
    """The house's log on Kafka; None, and a sentence, where topics lie in the home folder."""
    house = assemble.open_house(obj["home"], obj["catalog"])
    if house.cluster is None:
        say(f"Topics lie in {house.home} and are made at every start: there is nothing to plan.")
        yield None
        return
    log = house.cluster.log(assemble.specs(house.catalog))
    try:
        yield log
    finally:
        log.close()


def _show(changes: Sequence[Any], output: str) -> None:
    rows = [
        {
            "act": c.act, "topic": c.topic, "what": c.what, "old": c.old, "new": c.new,
            "reason": c.reason,
        }
        for c in changes
    ]  # fmt: skip
    if rows or output != "table":
        show_rows(rows, ("act", "topic", "what", "old", "new", "reason"), output)
    else:
        say("Nothing differs.")


@topics.command()
@click.argument("topic")
@click.option("--key", default=None, help="Only records of this key.")
@click.option("--from-start", is_flag=True, help="From the first retained record on.")
@click.option("-n", "--last", type=click.IntRange(0), default=10, help="So many latest records.",
              show_default=True)  # fmt: skip
@click.option("--no-follow", is_flag=True, help="Stop at the end instead of waiting for more.")
@output_option
@click.pass_obj
def tail(
    obj: dict[str, Any], topic: str, key: str | None, from_start: bool, last: int,
    no_follow: bool, output: str,
) -> None:  # fmt: skip
    """Show the records of TOPIC and wait for more. Touches no group: nobody's position moves."""
    house = assemble.open_house(obj["home"], obj["catalog"])
    log = assemble.open_log(house)
    known("topic", topic, list(house.catalog.topics))
    found = extents(log, topic)
    if not found:
        raise NotFound(
            "no_records", f"{topic} is not there yet.",
            "`penstock up` makes it, on a cluster `penstock topics apply` as well.",
        )
    whole = from_start or key is not None  # those of a key are looked for from the first on
    at = {p: e.first if whole else max(e.first, e.next - last) for p, e in enumerate(found)}
    held: list[dict[str, Any]] = []
    with until_interrupted():
        for record in _wanted(log, topic, at, key, None if from_start else last, not no_follow):
            _print(_row(record), output, held)
    if output == "json":
        show_rows(held, (), "json")


def _print(row: dict[str, Any], output: str, held: list[dict[str, Any]]) -> None:
    """A record as it comes; JSON is one list, so it is held until the end."""
    if output == "json":
        held.append(row)
    else:
        click.echo(json.dumps(row, ensure_ascii=False) if output == "jsonl" else _line(row))


def _wanted(
    log: Log, topic: str, at: dict[int, int], key: str | None, last: int | None, follow: bool
) -> Iterator[Record]:
    """What is there, the ``last`` records of it by time (None: all), then what comes."""
    there = _of(key, _follow(log, topic, at, False))
    yield from there if last is None else reversed(heapq.nlargest(last, there, key=_place))
    if follow:
        yield from _of(key, _follow(log, topic, at, True))


def _of(key: str | None, records: Iterator[Record]) -> Iterator[Record]:
    return (r for r in records if key in (None, r.message.key))


def _place(record: Record) -> tuple[int, int, int]:
    return record.appended_at, record.partition, record.offset


def _follow(
    log: Log, topic: str, at: dict[int, int], follow: bool
) -> Iterator[Record]:
    while True:
        moved = False
        for partition in at:
            for record in log.read(topic, partition, at[partition], PAGE_RECORDS):
                moved = True
                at[partition] = record.offset + 1
                yield record
        if not moved and not follow:
            return
        if not moved:
            time.sleep(POLL_SECONDS)


def _row(record: Record) -> dict[str, Any]:
    m = record.message
    return {
        "topic": record.topic, "partition": record.partition, "offset": record.offset,
        "appended_at": moment(record.appended_at), "key": m.key, "type": m.type,
        "version": m.version, "id": m.id.hex(), "cause": m.cause.hex(),
        "value": m.value.decode(errors="replace"),
    }


def _line(row: dict[str, Any]) -> str:
    place = f"{row['partition']}@{row['offset']}"
    kind = f"{row['type']}/{row['version']}"
    return f"{row['appended_at']} {place:<10} {clean(row['key'])} {kind} {clean(row['value'])}"
