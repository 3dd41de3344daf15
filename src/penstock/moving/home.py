"""The home as a move sees it: its topics row by row, its tables as the cluster keeps them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from penstock import assemble
from penstock.assemble import House
from penstock.embedded.file import File
from penstock.embedded.rows import message_bytes, unpack
from penstock.embedded.schema import log_table
from penstock.event import Origin, Record, slot_of
from penstock.limits import OFFSET_BITS, OFFSET_MAX
from penstock.moving.move import Move
from penstock.ports import SHARDS, Extent

_ERRORS = msgspec.msgpack.Decoder(tuple[tuple[int, str], ...])
_LIVE = "(SELECT id FROM scopes WHERE service = ? AND namespace = 'live')"
SENT = "sent"
UNREAD = -1  # the version before a document's own: nobody knows


class Copied(NamedTuple):
    """A record, and the transaction that made it (0 where a courier appended it)."""

    record: Record
    origin: Origin


class Home:
    """Reads the files of a home, which may be in use; nothing is written."""

    def __init__(self, house: House) -> None:
        self.house = house
        self._files: dict[str, File] = {}

    def file(self, name: str) -> File:
        """A file of the home."""
        if name not in self._files:
            self._files[name] = File(self.house.home / f"{name}.db", readonly=True)
        return self._files[name]

    def close(self) -> None:
        """Close all files."""
        for file in self._files.values():
            file.close()

    @property
    def services(self) -> list[str]:
        """Every service with a file, the door among them."""
        names = [*(s.name for s in self.house.flow.services), self.house.flow.door]
        return [n for n in names if n and (self.house.home / f"{n}.db").exists()]

    def _of(self, topic: str) -> File:
        return self.file(assemble.owner_file(self.house.catalog, topic))

    def extents(self, topic: str) -> list[Extent]:
        """First and next offset of each partition."""
        file, table = self._of(topic), log_table(topic)
        found = []
        for p in range(self.house.catalog.topics[topic].partitions):
            low, high = p << OFFSET_BITS, (p << OFFSET_BITS) + OFFSET_MAX
            ends = file.run(
                f"SELECT (SELECT at - count + 1 FROM {table} WHERE at BETWEEN ?1 AND ?2"
                f" ORDER BY at LIMIT 1), (SELECT at + 1 FROM {table} WHERE at BETWEEN ?1 AND ?2"
                " ORDER BY at DESC LIMIT 1)", (low, high),
            )[0]  # fmt: skip
            found.append(Extent(*((end or low) & OFFSET_MAX for end in ends)))
        return found

    def records(self, topic: str, partition: int, start: int) -> Iterator[list[Copied]]:
        """Everything from an offset on, a row of the log at a time."""
        low = (partition << OFFSET_BITS) + start
        high = (partition << OFFSET_BITS) + OFFSET_MAX
        rows = self._of(topic).stream(
            f"SELECT at, count, appended_at, codec, crc, body, txn, epoch FROM {log_table(topic)}"
            " WHERE at BETWEEN ? AND ? ORDER BY at", (low, high),
        )  # fmt: skip
        for *row, txn, epoch in rows:
            yield [
                Copied(record, Origin(txn, epoch) if epoch else Origin())
                for record in unpack(topic, tuple(row), start)
            ]

    # The tables, in the columns of the cluster's -------------------------------------------------

    def _rows(self, service: str, columns: str, table: str, order: str) -> Iterator[Any]:
        return self.file(service).stream(
            f"SELECT {columns} FROM {table} WHERE scope = {_LIVE} ORDER BY {order}", (service,)
        )

    def owners(self, service: str, move: Move) -> Iterator[tuple[Any, ...]]:
        """Lanes with their positions where the records are now."""
        for lane, epoch, txn, text in self._rows(
            service, "lane, epoch, txn, positions", "owners", "lane"
        ):
            positions = move.positions(lane, json.loads(text)) if lane >= 0 else {}
            yield lane, epoch, txn, json.dumps(positions)

    def checkpoints(self, service: str, move: Move) -> Iterator[tuple[Any, ...]]:
        """What ties transactions to positions, and so marks to the log."""
        for txn, at, text in self._rows(service, "txn, at, positions", "checkpoints", "txn"):
            lanes = {
                lane: move.positions(int(lane), positions)
                for lane, positions in json.loads(text).items()
            }
            yield txn, at, json.dumps(lanes)

    def marks(self, service: str) -> Iterator[tuple[Any, ...]]:
        """Events handled, in the order they were."""
        return self._rows(service, "id, txn, ordinal, epoch", "marks", "txn, ordinal")

    def documents(self, service: str) -> Iterator[tuple[Any, ...]]:
        """States, deleted ones too."""
        columns = f"kind, key, label, body, txn, epoch, {UNREAD}"
        return self._rows(service, columns, "documents", "kind, key")

    def waiting(self, service: str, move: Move) -> Iterator[tuple[Any, ...]]:
        """Records that wait or are parked, at their new places."""
        columns = (
            "topic, partition, offset, key, state, due, attempts, deaths, kind, appended_at,"
            " message, errors, txn, epoch"
        )
        for row in self._rows(service, columns, "waiting", "topic, partition, offset"):
            topic, partition, offset, *rest = row
            errors = msgspec.json.encode(_ERRORS.decode(rest[8])).decode()
            yield (
                topic, partition, move.offset(topic, partition, offset), *rest[:8], errors,
                *rest[9:],
            )  # fmt: skip

    def outbox(self, service: str, move: Move) -> list[tuple[Any, ...]]:
        """Rows in the order they were made: those there are, and one, closed, for each record
        that the home appended in the commit itself. On a cluster everything leaves by a row, and
        what a log holds is held against them."""
        made: list[tuple[tuple[int, int, int], tuple[Any, ...]]] = []
        columns = (
            "id, destination, is_topic, shard, key, name, idempotency_key, due, made_at, message,"
            " attempts, retry_at, error, settled_at, outcome, txn, epoch, settled_txn"
        )
        for id_, *row in self._rows(service, columns, "outbox", "id"):
            row[1] = bool(row[1])
            made.append(((row[14], 0, id_), tuple(row)))
        for topic in self.house.catalog.topics.values():
            if assemble.owner_file(self.house.catalog, topic.name) == service:
                made += self._appended(topic.name, move)
        return [row for _, row in sorted(made, key=lambda pair: pair[0])]

    def _appended(self, topic: str, move: Move) -> Iterator[tuple[tuple[int, int, int], Any]]:
        for partition, first in enumerate(move.firsts[topic]):
            for piece in self.records(topic, partition, first):
                for (record, (txn, epoch)) in piece:
                    if not epoch:
                        continue  # it came by a row already
                    m, at = record.message, record.appended_at
                    row = (
                        topic, True, slot_of(m.key) % SHARDS, m.key, "", "", 0, at,
                        message_bytes(m), 1, 0, "", at, SENT, txn, epoch, txn,
                    )  # fmt: skip
                    yield (txn, 1, record.offset), row


