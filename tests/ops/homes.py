"""Real homes with a journal in them, and how somebody tampers with the file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import msgspec

from penstock import assemble
from penstock.cli.main import run
from penstock.entry import Entry, RetryRequested
from penstock.ops.scribe import Scribe

MASK = (1 << 48) - 1


class Row(NamedTuple):
    """A stored row of the journal with one record in it, which is uncompressed."""

    at: int
    count: int
    appended_at: int
    codec: int
    body: bytes


def make(home: Path, catalog: Path | None = None) -> assemble.House:
    """A home that nothing runs in."""
    house = assemble.open_house(home, catalog)
    assemble.prepare(house, make=True)
    return house


def scribe_of(house: assemble.House) -> Scribe:
    """A way into its journal, of somebody who wakes nobody."""
    store = assemble.open_store(house, "journal")
    return Scribe(house.catalog, house.book, store, assemble.WallClock())


def wish(number: int, reason: str = "mended") -> RetryRequested:
    """An entry about a record that is nowhere: nobody has to act on it."""
    return RetryRequested(
        actor="cli:pat", key=f"key-{number}", reason=reason, service="order", topic="orders",
        partition=0, offset=number,
    )  # fmt: skip


def write(house: assemble.House, count: int) -> list[Entry]:
    """So many entries, each in a transaction of its own."""
    scribe = scribe_of(house)
    return [scribe.write(wish(number)) for number in range(count)]


@contextmanager
def opened(home: Path) -> Iterator[sqlite3.Connection]:
    """The journal's file, as anybody with its rights can open it."""
    db = sqlite3.connect(home / "journal.db")
    try:
        yield db
        db.commit()
    finally:
        db.close()


def rows(db: sqlite3.Connection) -> list[Row]:
    """The rows of the journal's log."""
    return [
        Row(*row)
        for row in db.execute("SELECT at, count, appended_at, codec, body FROM log_journal")
    ]


def seq_of(row: Row) -> int:
    """The number of the entry in a row."""
    (message,) = msgspec.msgpack.decode(row.body)
    return int(json.loads(message[1]).get("seq", 0))


def put(db: sqlite3.Connection, row: Row) -> None:
    """Write a row's body with a checksum that fits: whoever tampers reads docs/formats.md too."""
    said = f"{row.at},{row.count},{row.appended_at},{row.codec}".encode()
    db.execute(
        "UPDATE log_journal SET body = ?, crc = ? WHERE at = ?",
        (row.body, crc32(row.body, crc32(said)), row.at),
    )


def change(row: Row, edit: Callable[[bytes], bytes]) -> Row:
    """The row with its entry's bytes changed."""
    (message,) = msgspec.msgpack.decode(row.body)
    message[1] = edit(message[1])
    return row._replace(body=msgspec.msgpack.encode([message]))


def verify(home: Path, capsys: Any, *words: str) -> tuple[int, dict[str, Any]]:
    """What the command says, and its exit code."""
    capsys.readouterr()
    code = run(["--home", str(home), *words_first(words), "journal", "verify", "-o", "json",
                *words_last(words)])  # fmt: skip
    out = capsys.readouterr().out
    return code, json.loads(out) if out else {}


def words_first(words: tuple[str, ...]) -> tuple[str, ...]:
    """The options that come before the command."""
    return words[:2] if words[:1] == ("--catalog",) else ()


def words_last(words: tuple[str, ...]) -> tuple[str, ...]:
    """Those after it."""
    return words[2:] if words[:1] == ("--catalog",) else words
