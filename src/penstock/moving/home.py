"""The home as a move sees it: its topics row by row, its tables as the cluster keeps them."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterable, Iterator
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
PIECE = 1000  # records at once
Place = tuple[int, int, int]  # in the order of a file's writes: transaction, kind, number
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

    @property
    def files(self) -> list[str]:
        """Every file's name: those of services, and those of topics that several write."""
        catalog = self.house.catalog
        own = {assemble.owner_file(catalog, topic) for topic in catalog.topics}
        there = (n for n in sorted(own) if (self.house.home / f"{n}.db").exists())
        return list(dict.fromkeys([*self.services, *there]))

    def of(self, topic: str) -> File:
        """The file that a topic lies in."""
        return self.file(assemble.owner_file(self.house.catalog, topic))

    def partitions(self, topic: str) -> int:
        """How many a topic has here."""
        return self.of(topic).partitions(topic)

    def extents(self, topic: str) -> list[Extent]:
        """First and next offset of each partition."""
        file, table = self.of(topic), log_table(topic)
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
        rows = self.of(topic).stream(
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

    def count(self, service: str, table: str, where: str) -> int:
        """How many rows of a service's table are so."""
        query = f"SELECT count(*) FROM {table} WHERE scope = {_LIVE} AND {where}"
        return int(self.file(service).run(query, (service,))[0][0])

    def positions(self, service: str) -> Iterator[tuple[int, dict[str, int]]]:
        """Where each lane stands in the home."""
        for lane, text in self._rows(service, "lane, positions", "owners", "lane"):
            if lane >= 0:
                yield lane, json.loads(text)

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

    def outbox(self, service: str, move: Move) -> Iterator[tuple[Any, ...]]:
        """Rows in the order they were made: those there are, and one, closed, for each record
        that the home appended in the commit itself. On a cluster everything leaves by a row, and
        what a log holds is held against them."""
        own = [
            self._appended(topic, partition, move)
            for topic in self.house.catalog.topics
            if assemble.owner_file(self.house.catalog, topic) == service
            for partition in range(len(move.firsts[topic]))
        ]
        # Each of these is in the order of transactions, so memory holds a row of each.
        for _, row in heapq.merge(self._made(service), *own, key=lambda pair: pair[0]):
            yield row

    def _made(self, service: str) -> Iterator[tuple[Place, tuple[Any, ...]]]:
        columns = (
            "id, destination, is_topic, shard, key, name, idempotency_key, due, made_at, message,"
            " attempts, retry_at, error, settled_at, outcome, txn, epoch, settled_txn"
        )
        for id_, destination, is_topic, *rest in self._rows(service, columns, "outbox", "id"):
            yield (rest[12], 0, id_), (destination, bool(is_topic), *rest)

    def _appended(
        self, topic: str, partition: int, move: Move
    ) -> Iterator[tuple[Place, tuple[Any, ...]]]:
        for piece in self.records(topic, partition, move.firsts[topic][partition]):
            for (record, (txn, epoch)) in piece:
                if not epoch:
                    continue  # it came by a row already
                m, at = record.message, record.appended_at
                row = (
                    topic, True, slot_of(m.key) % SHARDS, m.key, "", "", 0, at,
                    message_bytes(m), 1, 0, "", at, SENT, txn, epoch, txn,
                )  # fmt: skip
                yield (txn, 1, record.offset), row

    def rows(self, service: str, table: str, move: Move) -> Iterator[tuple[Any, ...]]:
        """A service's rows of a table as the cluster is to have them."""
        if table == "marks":
            return self.marks(service)
        if table == "documents":
            return self.documents(service)
        of: Callable[[str, Move], Iterator[tuple[Any, ...]]] = getattr(self, table)
        return of(service, move)

    def latest(self, service: str) -> int:
        """The highest number of a transaction in a service's file."""
        return int(self.file(service).run("SELECT coalesce(max(txn), 0) FROM owners")[0][0])


def pieces(rows: Iterable[list[Copied]]) -> Iterator[list[Copied]]:
    """Rows of a log put together to what is appended, or compared, at once."""
    held: list[Copied] = []
    for row in rows:
        held += row
        if len(held) >= PIECE:
            yield held
            held = []
    if held:
        yield held
