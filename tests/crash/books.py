"""The files of a home, read with SQL alone: logs, stores, and the ledgers of the sandboxes.

Nothing of penstock is used, so that what a crash did to the files cannot hide behind the code
that wrote them. The layout is the one told in ``embedded/schema.py`` and in
``docs/reference/sandboxes.md``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import apsw
import msgspec
import zstandard

OFFSET_BITS = 48
OFFSET_MASK = (1 << OFFSET_BITS) - 1
SANDBOXES = {"payments": "provider", "carrier": "carrier", "mail": "mail"}
SERVICES = ("order", "inventory", "payment", "shipping", "notify")


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """One record of a log."""

    topic: str
    partition: int
    offset: int
    appended_at: int
    key: str
    value: bytes
    id: bytes
    type: str
    cause: bytes

    @property
    def said(self) -> Any:
        """The value as JSON."""
        return json.loads(self.value)


def select(path: Path, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """Rows of a file that others may be writing."""
    with apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE) as db:
        db.execute("PRAGMA busy_timeout=10000")
        db.execute("PRAGMA query_only=1")
        found = db.execute(sql, values).fetchall()
    db.close()
    return found


class Books:
    """Everything that is written in a home, as it was when first asked for."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.flaws: list[str] = []  # what is wrong with the files themselves
        self.topics: dict[str, list[Fact]] = {}
        for file in ("journal", "door", *SERVICES):
            for name, _ in self.store(file, "SELECT name, partitions FROM topics"):
                self.topics[name] = list(self._facts(file, name))

    def store(self, service: str, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of a service's file."""
        return select(self.home / f"{service}.db", sql, *values)

    def ledger(self, gateway: str, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of a sandbox's ledger."""
        return select(
            self.home / "sandbox" / gateway / f"{SANDBOXES[gateway]}.sqlite", sql, *values
        )

    def documents(self, service: str, kind: str) -> dict[str, Any]:
        """The documents of a kind by key."""
        found = self.store(
            service, "SELECT key, body FROM documents WHERE kind = ? AND body IS NOT NULL", kind
        )
        return {key: json.loads(body) for key, body in found}

    def parked(self, service: str) -> set[str]:
        """Keys with an open dead letter."""
        found = self.store(service, "SELECT key FROM waiting WHERE state IN ('parked', 'aside')")
        return {key for (key,) in found}

    def positions(self, service: str) -> dict[tuple[str, int], int]:
        """The next offset of a service per topic and lane."""
        found = self.store(service, "SELECT lane, positions FROM owners WHERE lane >= 0")
        return {(t, lane): at for lane, said in found for t, at in json.loads(said).items()}

    def of(self, key: str, topic: str) -> list[Fact]:
        """The facts of a key in a topic, in order."""
        return [fact for fact in self.topics[topic] if fact.key == key]

    def _facts(self, file: str, topic: str) -> Iterator[Fact]:
        next_, latest = dict[int, int](), dict[int, int]()
        for at, count, appended_at, codec, crc, body in self.store(
            file, f'SELECT at, count, appended_at, codec, crc, body FROM "log_{topic}" ORDER BY at'
        ):
            partition, last = at >> OFFSET_BITS, at & OFFSET_MASK
            place = f"{topic}[{partition}] {last}"
            if crc32(body, crc32(b"%d,%d,%d,%d" % (at, count, appended_at, codec))) != crc:
                self.flaws.append(f"{place}: checksum differs")
            if last - count + 1 != next_.get(partition, 0):
                self.flaws.append(f"{place}: offsets {next_.get(partition, 0)} and on are missing")
            if appended_at < latest.get(partition, 0):
                self.flaws.append(f"{place}: appended before the record ahead of it")
            next_[partition], latest[partition] = last + 1, appended_at
            raw = zstandard.ZstdDecompressor().decompress(body, 1 << 24) if codec else body
            for i, message in enumerate(msgspec.msgpack.decode(raw)):
                key, value, id_, type_, _, _, cause, *_ = message
                yield Fact(
                    topic=topic, partition=partition, offset=last - count + 1 + i,
                    appended_at=appended_at, key=key, value=value, id=id_, type=type_, cause=cause,
                )  # fmt: skip
