"""Topics: what there is, and the records of one as they come. Works without a running `up`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import click

from penstock import assemble
from penstock.cli.output import clean, moment, output_option, show_rows
from penstock.errors import NotFound
from penstock.event import Record
from penstock.ports import Extent, Log

POLL_SECONDS = 0.2
PAGE_RECORDS = 200


@click.group()
def topics() -> None:
    """Topics: list, or follow the records of one."""


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
    log = assemble.make_log(house)
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


@topics.command()
@click.argument("topic")
@click.option("--key", default=None, help="Only records of this key.")
@click.option("--from-start", is_flag=True, help="From the first retained record on.")
@click.option("-n", "--last", type=click.IntRange(0), default=10, help="So many latest records.")
@click.option("--no-follow", is_flag=True, help="Stop at the end instead of waiting for more.")
@output_option
@click.pass_obj
def tail(
    obj: dict[str, Any], topic: str, key: str | None, from_start: bool, last: int,
    no_follow: bool, output: str,
) -> None:  # fmt: skip
    """Show the records of TOPIC and wait for more. Touches no group: nobody's position moves."""
    house = assemble.open_house(obj["home"], obj["catalog"])
    log = assemble.make_log(house)
    found = extents(log, topic)
    if not found:
        raise NotFound("no_records", f"{topic} has no file under {house.home} yet.")
    starts = {
        p: e.first if from_start else max(e.first, e.next - last) for p, e in enumerate(found)
    }
    held: list[dict[str, Any]] = []
    for record in _follow(log, topic, starts, not no_follow):
        if key is not None and record.message.key != key:
            continue
        row = _row(record)
        if output == "json":
            held.append(row)
        elif output == "jsonl":
            click.echo(json.dumps(row, ensure_ascii=False))
        else:
            click.echo(_line(row))
    if output == "json":
        show_rows(held, (), "json")


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
