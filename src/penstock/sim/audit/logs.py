"""The topics of a home, row by row: what lies there, and what is wrong with the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import apsw

from penstock.sim.audit.books import Fact, Flaw
from penstock.sim.audit.decode import (
    COMPRESSED_FROM,
    OFFSET_BITS,
    ROW_BYTES_MAX,
    ROW_RECORDS_MAX,
    Cells,
    checksum,
    facts_of,
    schemas_of,
)

MESSAGE_BYTES = 200  # what a message counts beside its value where a row is bounded
# The body is bytes whatever a hostile hand made of it: a broken text must not end the reading.
_COLUMNS = (
    "at, count, appended_at, txn, epoch, schemas, codec, crc, CAST(body AS BLOB), typeof(body)"
)
_KINDS = (int, int, int, int, int, str, int, int, bytes, str)


class Logs:
    """Everything that the topics of some files hold."""

    def __init__(self, flaws: list[Flaw]) -> None:
        self.flaws = flaws
        self.topics: dict[str, list[Fact]] = {}
        self.partitions: dict[str, int] = {}
        self.first: dict[tuple[str, int], int] = {}
        self.unread: list[tuple[str, int, int, int]] = []
        self.examined: Counter[str] = Counter(I18=0, I19=0, I44=0)
        self._sums: dict[str, dict[int, int]] = {}  # topic -> row -> the checksum of its bytes

    def read(self, connection: apsw.Connection, file: str) -> list[str]:
        """Take in the topics of a file; returns their names."""
        names = []
        try:
            for name, count in connection.execute("SELECT name, partitions FROM topics"):
                if name in self.topics or not (isinstance(name, str) and isinstance(count, int)):
                    self._flaw("I18", file, f"{name!r:.80} is no topic, or one of another file")
                    continue
                names.append(name)
                self.partitions[name] = count
                self.topics[name] = []
                self._read_topic(connection, name, self.topics[name])
        except (apsw.Error, ValueError) as error:
            self._flaw("I19", file, f"the file cannot be read: {error}")
        return names

    def _flaw(self, rule: str, key: str, detail: str, *records: str) -> None:
        self.flaws.append(Flaw(rule, key, detail, records))

    def _read_topic(self, connection: apsw.Connection, topic: str, facts: list[Fact]) -> None:
        sums = self._sums[topic] = {}
        ends: dict[int, int] = {}
        for row in connection.execute(f"SELECT {_COLUMNS} FROM {_table(topic)} ORDER BY at"):
            self.examined["I18"] += 1
            self.examined["I19"] += 1
            self.examined["I44"] += 1
            fits = all(isinstance(cell, kind) for cell, kind in zip(row, _KINDS, strict=True))
            if not fits or row[-1] != "blob":
                self._flaw("I19", topic, "a row is not as documented", f"{topic} row {row[0]!r}")
                continue
            cells = Cells._make(row[:-1])
            sums[cells.at] = self._check_sum(topic, cells)
            self._place(topic, cells, ends)
            self._take(topic, cells, facts)

    def _check_sum(self, topic: str, cells: Cells) -> int:
        found = checksum(cells.at, cells.count, cells.appended_at, cells.codec, cells.body)
        if found != cells.crc:
            self._flaw("I19", topic, "the checksum differs", _spot(topic, cells))
        return found

    def _place(self, topic: str, cells: Cells, ends: dict[int, int]) -> None:
        """The row's own numbers; that offsets have no gap is a rule of its own."""
        partition, last, count = cells.partition, cells.last, cells.count
        first = last - count + 1
        if count < 1 or first < 0:
            self._flaw("I18", topic, f"a row holds {count} records", _spot(topic, cells))
        if not 0 <= partition < self.partitions[topic]:
            self._flaw("I17", topic, f"there is no partition {partition}", _spot(topic, cells))
        if partition not in ends:
            self.first[topic, partition] = first
        ends[partition] = last + 1

    def _take(self, topic: str, cells: Cells, facts: list[Fact]) -> None:
        found, wrong = facts_of(topic, cells)
        if wrong:
            self._flaw("I19", topic, wrong, _spot(topic, cells))
            first = cells.last - max(cells.count, 1) + 1
            self.unread.append((topic, cells.partition, first, cells.last))
            return
        facts += found
        if cells.schemas != schemas_of(found):
            self._flaw(
                "I36", topic, f"the row names {cells.schemas or 'nothing'}", _spot(topic, cells)
            )
        if cells.codec != (cells.count >= COMPRESSED_FROM):
            self._flaw("I18", topic, f"codec {cells.codec} is not of {cells.count} records",
                       _spot(topic, cells))  # fmt: skip
        size = sum(len(fact.value) + MESSAGE_BYTES for fact in found)
        if cells.count > ROW_RECORDS_MAX or (size > ROW_BYTES_MAX and cells.count > 1):
            self._flaw("I44", topic, f"a row of {cells.count} records and {size} bytes",
                       _spot(topic, cells))  # fmt: skip

    # A second look ---------------------------------------------------------------------------

    def look_again(self, connection: apsw.Connection, topic: str) -> None:
        """Every row that is still there has the bytes it had."""
        known = self._sums.get(topic, {})
        for at, found in _sums(connection, topic):
            if at in known:
                self.examined["I19"] += 1
                if known[at] != found:
                    self._flaw("I19", topic, "a second reader saw other bytes", _at(topic, at))

    def compare(self, connection: apsw.Connection, topic: str, whose: str) -> None:
        """A copy holds the same rows, wherever both hold any."""
        ours, theirs = self._sums.get(topic, {}), dict(_sums(connection, topic))
        for partition in {at >> OFFSET_BITS for at in ours.keys() & theirs.keys()}:
            here = {at for at in ours if at >> OFFSET_BITS == partition}
            there = {at for at in theirs if at >> OFFSET_BITS == partition}
            first, last = max(min(here), min(there)), min(max(here), max(there))
            for at in sorted(here | there):
                if not first <= at <= last:
                    continue
                self.examined["I19"] += 1
                if ours.get(at) != theirs.get(at):
                    self._flaw("I19", topic, f"{whose} holds other bytes", _at(topic, at))


def _sums(connection: apsw.Connection, topic: str) -> Iterator[tuple[int, int]]:
    for at, count, appended_at, codec, body in connection.execute(
        "SELECT at, count, appended_at, codec, CAST(body AS BLOB)"
        f" FROM {_table(topic)} ORDER BY at"
    ):
        yield at, checksum(at, count, appended_at, codec, body)


def _table(topic: str) -> str:
    return '"log_' + topic.replace('"', '""') + '"'


def _spot(topic: str, cells: Cells) -> str:
    return f"{topic}[{cells.partition}]@{cells.last - cells.count + 1}..{cells.last}"


def _at(topic: str, at: int) -> str:
    return f"{topic}[{at >> OFFSET_BITS}]@..{at & (1 << OFFSET_BITS) - 1}"
