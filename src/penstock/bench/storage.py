"""Storage figures: a log append beside a raw file, a mark among many beside one among few."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import msgspec

from penstock import assemble
from penstock.embedded.file import File
from penstock.event import Message, root_id
from penstock.ports import Advance

RECORDS, PARTITIONS, VALUE_BYTES = 100, 4, 300
APPENDS, ROUNDS = 200, 3
MARKS_FEW, MARKS_MANY, MARKS_A_BATCH = 10_000, 1_000_000, 500


def _records() -> list[Message]:
    filler = "".join(chr(97 + i * 7 % 26) for i in range(VALUE_BYTES - 100))
    made = []
    for i in range(RECORDS):
        head = f'{{"order_id":"o-{i:016x}","sku":"SKU-{i:05d}","total":{i * 37 % 99999},"pad":"'
        value = (head + filler[i % 20 :] + filler)[: VALUE_BYTES - 2] + '"}'
        made.append(
            Message(f"o-{i:016x}", value.encode(), root_id(1, str(i)), "bench.record", 1, 1)
        )
    return made


def _rate(work: Callable[[], None], times: int) -> float:
    began = time.perf_counter()
    for _ in range(times):
        work()
    return times / (time.perf_counter() - began)


def append(folder: Path) -> tuple[float, float]:
    """Records a second: durable appends of 100 records over 4 partitions, and a raw file's
    append + fdatasync of the same records."""
    folder.mkdir(parents=True, exist_ok=True)
    messages = _records()
    file = File(folder / "append.db")
    file.ensure_topic("bench", PARTITIONS)
    raw = b"".join(msgspec.msgpack.encode(m) for m in messages)
    out = os.open(folder / "raw", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def ours() -> None:
        with file.write():
            file.append("bench", messages, 1, 1, 1)

    def bare() -> None:
        os.write(out, raw)
        os.fdatasync(out)

    pairs = [(_rate(ours, APPENDS), _rate(bare, APPENDS)) for _ in range(ROUNDS)]
    os.close(out)
    file.close()
    return median(a for a, _ in pairs) * RECORDS, median(b for _, b in pairs) * RECORDS


def marks(folder: Path) -> tuple[float, float]:
    """Marks a second with a million stored, and with ten thousand."""
    folder.mkdir(parents=True, exist_ok=True)
    few = _Marks(folder / "few.db", MARKS_FEW)
    many = _Marks(folder / "many.db", MARKS_MANY)
    pairs = [(_rate(many.step, 40), _rate(few.step, 40)) for _ in range(ROUNDS)]
    return (
        median(a for a, _ in pairs) * MARKS_A_BATCH, median(b for _, b in pairs) * MARKS_A_BATCH
    )


class _Marks:
    """A store with so many marks, handling batches of new events."""

    def __init__(self, path: Path, stored: int) -> None:
        self._store = assemble.store_at(path, "bench")
        self._epoch = self._store.claim([0], 0)[0].epoch
        self._next = 0
        while self._next < stored:
            self.step(min(50_000, stored - self._next))

    def step(self, count: int = MARKS_A_BATCH) -> None:
        """Look up and mark a batch, as a worker does."""
        ids = [root_id(1_700_000_000_000 + n // 10, str(n)) for n in self._range(count)]
        with self._store.begin() as tx:
            tx.advance([Advance(0, self._epoch, {})], 0)
            assert not tx.load((), ids).seen
            tx.mark(ids)

    def _range(self, count: int) -> range:
        self._next += count
        return range(self._next - count, self._next)


def raw_records(folder: Path, batch: int, size: int) -> float:
    """Records a second of a raw file append + fdatasync, ``batch`` records of ``size`` bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    out = os.open(folder / "records", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    body = b"x" * size * batch

    def bare() -> None:
        os.write(out, body)
        os.fdatasync(out)

    rate = median(_rate(bare, 100) for _ in range(ROUNDS)) * batch
    os.close(out)
    return rate
