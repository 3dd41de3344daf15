"""A real home is decoded by ``docs/formats.md``, with SQLite, MessagePack and zstd alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any
from zlib import crc32

import apsw
import msgspec
import pytest
import zstandard

from penstock.catalog.load import load_catalog
from penstock.event import Message
from penstock.flow import Call
from tests.docs.written import ROOT, Document
from tests.flows.library import CATALOG, FLOW
from tests.flows.library.door import Delivery, LoanWish, Scanned
from tests.flows.rig import HandClock, Rig, Scripted

PAGE = Document(ROOT / "docs/formats.md").text
KEY, VALUE, ID, TYPE, VERSION, AT, CAUSE, TRACE, SOURCE, NOTES = range(10)


def section(title: str) -> str:
    """The text below a heading."""
    return PAGE.partition(f"\n## {title}")[2].partition("\n## ")[0]


def first_cells(text: str, column: int = 0) -> list[str]:
    """The names in backquotes of one column of a section's table."""
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| ")]
    return [m[1] for row in rows if (m := re.match(r" *`([^`]+)`", row[column]))]


def _bought(title: str, now: int) -> Call:
    body = Delivery(title=title, count=9)
    return Call(client="c", now=now, body=body, idempotency_key=title)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library's home: loans, letters, a timer, a call that failed first, a parked record."""
    folder, clock = tmp_path_factory.mktemp("home"), HandClock()
    deposits = Scripted({"l1": ["unavailable"]}, clock)
    gateways = {"deposits": deposits, "post": Scripted(clock=clock)}
    rig = Rig(FLOW, load_catalog(CATALOG), folder, gateways, clock)
    titles = ["emma", *(f"title {n}" for n in range(24))]
    rig.requests("buy", (_bought(title, clock.now()) for title in titles))  # in one commit
    rig.run()
    for n in range(6):
        loan, who = f"l{n}", "nowhere man" if n == 5 else "mia"
        wish = LoanWish(loan=loan, member=who, title="emma")
        rig.request("lend", wish, idempotency_key=loan, digest=loan)
        rig.request("scan", Scanned(loan=loan, barcode=loan), idempotency_key=f"s{n}")
    rig.run().wait(1000, 5)
    rig.close()
    return folder


def read(home: Path, service: str, sql: str) -> list[Any]:
    """What any SQLite says to any question."""
    db = apsw.Connection(str(home / f"{service}.db"), flags=apsw.SQLITE_OPEN_READONLY)
    rows = db.execute(sql).fetchall()
    db.close()
    return rows


def partition_of(key: str, partitions: int) -> int:
    """Murmur2, written down from the page."""
    data, m, mask = key.encode(), 0x5BD1E995, 0xFFFFFFFF
    h = (0x9747B28C ^ len(data)) & mask
    whole = len(data) // 4 * 4
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & mask
        h = (h * m ^ (k ^ k >> 24) * m) & mask
    if data[whole:]:
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return ((h ^ h >> 15) & 0x7FFFFFFF) % 4096 % partitions


def records(home: Path, service: str, topic: str) -> Iterator[tuple[int, int, int, list[Any]]]:
    """Partition, offset, transaction and message of every record, all rules checked."""
    ends: dict[int, int] = {}
    times: dict[int, int] = {}
    columns = ", ".join(first_cells(section("A topic")))
    for row in read(home, service, f'SELECT {columns}, txn FROM "log_{topic}" ORDER BY at'):
        at, count, appended_at, schemas, codec, crc, body, txn = row
        partition, last = at >> 48, at & (1 << 48) - 1
        assert crc32(body, crc32(f"{at},{count},{appended_at},{codec}".encode())) == crc
        assert codec == (count >= 4)
        plain = zstandard.ZstdDecompressor().decompress(body) if codec else body
        messages = msgspec.msgpack.decode(plain)
        assert len(messages) == count
        assert last - count + 1 == ends.get(partition, last - count + 1)
        assert appended_at >= times.get(partition, 0)
        assert schemas == ",".join(sorted({f"{m[TYPE]}/{m[VERSION]}" for m in messages}))
        ends[partition], times[partition] = last + 1, appended_at
        for n, message in enumerate(messages):
            yield partition, last - count + 1 + n, txn, message


def topics(home: Path) -> list[tuple[str, str, int]]:
    """File, topic and partitions of everything there is."""
    return [
        (path.stem, name, count)
        for path in sorted(home.glob("*.db"))
        for name, count in read(home, path.stem, "SELECT name, partitions FROM topics")
    ]


def test_the_page_names_every_table_and_column(home: Path) -> None:
    table = section("The home folder")
    written = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", table, re.MULTILINE))
    for (name,) in read(home, "lending", "SELECT name FROM sqlite_master WHERE type = 'table'"):
        real = [row[1] for row in read(home, "lending", f'PRAGMA table_info("{name}")')]
        known = written["log_TOPIC" if name.startswith("log_") else name]
        assert re.findall(r"`(\w+)`", known.partition(":")[0]) == real, name
    assert read(home, "lending", "PRAGMA user_version") == [(1,)]
    assert read(home, "lending", "PRAGMA application_id") == [(0x70656E73,)]


def test_the_page_names_every_field_of_a_message() -> None:
    assert first_cells(section("A message"), column=1) == list(Message.__struct_fields__)


def test_every_topic_is_read_by_the_page_alone(home: Path) -> None:
    seen, zipped = 0, 0
    for service, topic, partitions in topics(home):
        for partition, _offset, _txn, message in records(home, service, topic):
            assert partition == partition_of(message[KEY], partitions)
            assert message[SOURCE]
            json.loads(message[VALUE])
            seen += 1
        zipped += read(home, service, f'SELECT count(*) FROM "log_{topic}" WHERE codec')[0][0]
    assert seen > 20
    assert zipped


def test_ids_are_made_as_the_page_says(home: Path) -> None:
    began = [m for *_, m in records(home, "lending", "loans") if m[TYPE] == "loan.began"]
    assert len(began) == 6
    for m in began:
        text = f"lending\x1f{m[TYPE]}\x1f0".encode()
        own = blake2b(m[CAUSE] + text, digest_size=10).digest()
        assert m[ID] == m[CAUSE][:6] + own
        assert len(m[ID]) == 16


def test_what_one_transaction_wrote_has_one_number(home: Path) -> None:
    marks = dict(read(home, "lending", "SELECT id, txn FROM marks"))
    for *_, txn, message in records(home, "lending", "loans"):
        assert marks[message[CAUSE]] == txn


def test_positions_asks_and_parked_records_are_there(home: Path) -> None:
    ends = {(t, p): o + 1 for s, t, _ in topics(home) for p, o, *_ in records(home, s, t)}
    for lane, text in read(home, "notices", "SELECT lane, positions FROM owners WHERE lane >= 0"):
        for topic, offset in json.loads(text).items():
            assert offset == ends.get((topic, lane), 0)
    asks = read(home, "lending", "SELECT destination, due > 0, outcome, message FROM outbox")
    assert {(d, t, o) for d, t, o, _ in asks} == {("deposits", 0, "ok"), ("clock", 1, "")}
    answers = {m[CAUSE] for *_, m in records(home, "lending", "lending.answers")}
    closed = {msgspec.msgpack.decode(raw)[ID] for *_, outcome, raw in asks if outcome}
    assert closed == answers
    state, message, errors = read(home, "notices", "SELECT state, message, errors FROM waiting")[0]
    assert state == "aside"
    assert json.loads(msgspec.msgpack.decode(message)[VALUE])["member"] == "nowhere man"
    assert msgspec.msgpack.decode(errors)[0][1] == "nowhere man has no address"
    assert [m[TYPE] for *_, m in records(home, "notices", "notices.dead")] == ["dead.parked"]
