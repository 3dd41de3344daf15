"""A restart over what a power cut left, by the real code, and what is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import apsw
from msgspec import Struct

from penstock import assemble
from penstock.catalog.model import JOURNAL
from penstock.embedded.file import File
from penstock.event import Message, partition_of, root_id
from penstock.ports import COURIER_LANE, Advance, Log, Outgoing
from penstock.sim.disk.scenario import (
    FACTS,
    LANES,
    NOW,
    SERVICE,
    Content,
    contents,
    house_at,
    path_of,
)

AFTER = NOW + 1_000_000_000
INCREMENTAL = 2  # of the pragma auto_vacuum
SUFFIXES = ("", "-wal", "-journal")


class Found(Struct, frozen=True):
    """What one file holds after a restart; ``trouble`` says why it could not go on."""

    content: Content | None = None
    trouble: str = ""


class Desk:
    """A folder where one file after the other is laid out and started again."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._house = house_at(folder)
        self._specs = assemble.specs(self._house.catalog)
        self._shared = assemble.shared_files(self._house.catalog)

    def restart(self, owner: str, files: Mapping[str, bytes | bytearray]) -> Found:
        """Lay out a file (by suffix), start over it, go on for a commit, and stop."""
        path = path_of(self._house.home, owner)
        for suffix in (*SUFFIXES, "-shm"):
            _lay_out(f"{path}{suffix}", files.get(suffix))
        log = assemble.make_log(self._house)
        try:
            return self._start(path, owner, log)
        except Exception as error:  # whatever it is, the restart did not come through
            return Found(trouble=f"{type(error).__name__}: {error}")
        finally:
            with suppress(apsw.Error):
                log.close()

    def _start(self, path: Path, owner: str, log: Log) -> Found:
        file = File(path, shared=owner in self._shared)
        try:
            content = contents(file.db)
            for spec in self._specs:
                if spec.owner_file == owner:
                    file.ensure_topic(spec.name, spec.partitions)
            trouble = self._go_on(file, owner, log) or _unsound(file)
            return Found(content, trouble)
        finally:
            with suppress(apsw.Error):
                file.close()

    def _go_on(self, file: File, owner: str, log: Log) -> str:
        """One more commit, and what it appended is read back, right behind what was there."""
        message = Message("k0", b"after", root_id(AFTER, owner), "fact.made", 1, AFTER)
        topic = JOURNAL if owner == JOURNAL else FACTS
        before = log.extent(topic)
        if owner == JOURNAL:
            log.append(JOURNAL, [message], AFTER)
        else:
            self._commit(file, message)
        for lane, old in enumerate(before):
            more = lane == partition_of(message.key, LANES)
            records = log.read(topic, lane, old.first, OFFSETS)
            offsets = [r.offset for r in records]
            if offsets != list(range(old.first, old.next + more)):
                return f"{topic}[{lane}] has the offsets {offsets}, not {old} and {more:d} more"
            if more and records[-1].message.id != message.id:
                return f"{topic}[{lane}] does not end with what was appended"
        return ""

    def _commit(self, file: File, message: Message) -> None:
        own = assemble.own_topics(self._house.catalog, SERVICE)
        store = assemble.store_over(file, SERVICE, own)
        held = store.claim([COURIER_LANE, *range(LANES)], AFTER)
        with store.begin() as tx:
            tx.advance([Advance(c.lane, c.epoch, c.positions) for c in held if c.lane >= 0], AFTER)
            tx.mark([message.id])
            tx.send([Outgoing(FACTS, True, message)], AFTER)


OFFSETS = 1 << 30  # all there are


def _lay_out(path: str, content: bytes | bytearray | None) -> None:
    if content is None:
        with suppress(FileNotFoundError):
            os.unlink(path)
        return
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.write(file, content)
    os.close(file)


def _unsound(file: File) -> str:
    said = str(file.run("PRAGMA integrity_check")[0][0])
    if said != "ok":
        return f"integrity_check: {said}"
    mode, vacuum = file.db.pragma("journal_mode"), file.db.pragma("auto_vacuum")
    if (mode, vacuum) != ("wal", INCREMENTAL):
        return f"made wrong: journal_mode {mode}, auto_vacuum {vacuum}"
    return ""


def parts(files: Mapping[str, bytes | bytearray], home: Path, owner: str) -> dict[str, str]:
    """Of the files that are there, those of one owner: suffix -> name."""
    path = path_of(home, owner)
    return {s: f"{path}{s}" for s in SUFFIXES if f"{path}{s}" in files}
