"""The embedded log passes the suite; its fixture knows where its bytes lie."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random

import pytest

from penstock.conformance import log_scenarios
from penstock.conformance.logs import NOTICES, OWNER, TOPICS, LogFixture
from penstock.conformance.mishaps import AFTER, DATED
from penstock.conformance.scenario import NOW, message, title
from penstock.embedded.schema import log_table
from penstock.limits import OFFSET_BITS
from penstock.log.embedded import EmbeddedLane, EmbeddedLog
from penstock.ports import Lane, Log

SHARED = frozenset({OWNER, NOTICES.name})
NEEDLE_BYTES = 24  # of a body, enough to find it in the file


class EmbeddedFixture:
    """A home folder; every handle has connections of its own."""

    features = EmbeddedLog.features

    def __init__(self, home: Path) -> None:
        self.home = home
        self.opener: Callable[[], Log] = partial(EmbeddedLog, home, (), SHARED)
        self._handles: list[EmbeddedLog] = []
        self._torn = 0

    def open(self) -> EmbeddedLog:
        log = EmbeddedLog(self.home, (), SHARED)
        self._handles.append(log)
        return log

    def crash(self, lane: Lane) -> None:
        assert isinstance(lane, EmbeddedLane)
        lane.members.crash()

    def restart(self) -> None:
        for log in self._handles:
            log.close()
        self._handles.clear()

    def tear(self, unfinished: Callable[[Log], None], share: float) -> Log:
        """The home as a power cut leaves it: copied with the write-ahead log open, cut short."""
        self._torn += 1
        torn, after = (self.home.parent / f"{name}{self._torn}" for name in ("torn", "after"))
        shutil.copytree(self.home, torn)
        start = _wal(torn).stat().st_size
        writer = EmbeddedLog(torn, (), SHARED)
        writer.ensure(TOPICS)
        unfinished(writer)
        shutil.copytree(torn, after)
        writer.close()
        _cut(_wal(after), start, share)
        log = EmbeddedLog(after, (), SHARED)
        self._handles.append(log)
        return log

    def flip(self, topic: str, partition: int, offset: int) -> None:
        """One bit of the file itself, behind SQLite's back."""
        reader = self._handles[0].reader(topic)
        ((body,),) = reader.run(
            f"SELECT body FROM {log_table(topic)} WHERE at >= ? ORDER BY at LIMIT 1",
            (partition << OFFSET_BITS | offset,),
        )
        self.restart()
        path = self.home / f"{OWNER}.db"
        stored = bytearray(path.read_bytes())
        needle = body[:NEEDLE_BYTES]
        assert stored.count(needle) == 1
        stored[stored.index(needle) + NEEDLE_BYTES // 2] ^= 0x10
        path.write_bytes(stored)


def _wal(home: Path) -> Path:
    return home / f"{OWNER}.db-wal"


def _cut(wal: Path, start: int, share: float) -> None:
    end = wal.stat().st_size
    assert end > start
    with wal.open("r+b") as file:
        file.truncate(start + int((end - start) * share))


@pytest.fixture
def embedded(home: Path) -> Iterator[EmbeddedFixture]:
    fixture = EmbeddedFixture(home)
    yield fixture
    fixture.restart()


@pytest.mark.parametrize("scenario", log_scenarios(EmbeddedLog.features), ids=title)
def test_embedded_log(
    scenario: Callable[[LogFixture], None], embedded: EmbeddedFixture
) -> None:
    scenario(embedded)


def test_retention_gives_pages_back(embedded: EmbeddedFixture) -> None:
    """What age drops leaves the file, not only the table."""
    log = embedded.open()
    log.ensure([DATED])
    for n in range(20):
        log.append("dated", [message("k0", Random(n).randbytes(50_000))], NOW)
    before = log.reader("dated").run("PRAGMA page_count")[0][0]
    while log.retain("dated", {}, AFTER):
        pass
    assert log.reader("dated").run("PRAGMA page_count")[0][0] < before / 4
