"""The raw reference: the same six-record order as a bare loop over SQLite, two processes.

No engine, no contracts, no failing path: what the storage and the codec allow. Per batch one
transaction holds inbox, state, offsets and output, like the engine's. Written so that it cannot
be slow unnoticed: the bench prints it beside a raw file append with fdatasync.
"""

from __future__ import annotations

import multiprocessing as mp
import multiprocessing.sharedctypes
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Generic, TypeVar

import apsw
import msgspec

from penstock.bench.shapes import (
    SKUS,
    STOCK,
    Address,
    Captured,
    Completed,
    Placed,
    Requested,
    Reserved,
    Shipped,
    body,
)
from penstock.embedded.schema import PRAGMAS

PARTITIONS = 4
BATCH = 500
IN_FLIGHT = 8000
Value = TypeVar("Value")
WRITES = {
    "api": ("placed",), "inventory": ("reserved",), "payment": ("captured",),
    "coordinator": ("requested", "completed"), "shipping": ("shipped",),
}
READS = {
    "inventory": (("api", "placed", Placed),),
    "payment": (("api", "placed", Placed),),
    "coordinator": (
        ("inventory", "reserved", Reserved), ("payment", "captured", Captured),
        ("shipping", "shipped", Shipped),
    ),
    "shipping": (("coordinator", "requested", Requested),),
}
STATE = "CREATE TABLE IF NOT EXISTS {}(id TEXT PRIMARY KEY, body BLOB) WITHOUT ROWID"
ENCODE: Callable[[Any], bytes] = msgspec.json.Encoder().encode
Out = list[tuple[str, str, bytes]]  # topic, key, value


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """What the engine keeps in a record's headers, the bare loop keeps in its body."""

    event_id: str
    cause: str
    at: float
    value: Any


def sealed(cause: str, suffix: str, value: Any) -> bytes:
    """A value in its envelope, as JSON."""
    return ENCODE(Envelope(cause + suffix, cause, time.time(), value))


class Opened(msgspec.Struct, Generic[Value], frozen=True, gc=False):
    """An envelope with a typed value."""

    event_id: str
    cause: str
    at: float
    value: Value


def connect(path: Path) -> apsw.Connection:
    """A connection with the engine's own settings."""
    db = apsw.Connection(str(path))
    for pragma in ("journal_mode=WAL", *PRAGMAS):
        db.execute(f"PRAGMA {pragma}")
    return db


class Loop:
    """One service of the bare flow."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self.db = name, connect(folder / f"{name}.db")
        self._next = dict.fromkeys((t, p) for t in WRITES[name] for p in range(PARTITIONS))
        for topic in WRITES[name]:
            for p in range(PARTITIONS):
                self.db.execute(
                    f"CREATE TABLE IF NOT EXISTS {topic}_{p}(off INTEGER PRIMARY KEY, key TEXT,"
                    " value BLOB, at REAL)"
                )
        for table in ("state", "stock"):
            self.db.execute(STATE.format(table))
        self.db.execute("CREATE TABLE IF NOT EXISTS inbox(id TEXT PRIMARY KEY) WITHOUT ROWID")
        self.db.execute(
            "CREATE TABLE IF NOT EXISTS offsets(src TEXT PRIMARY KEY, off INT) WITHOUT ROWID"
        )
        self._sources: list[list[Any]] = []
        self.handled = 0

    def attach(self, folder: Path) -> None:
        """Open the inputs for reading."""
        for owner, topic, model in READS[self.name]:
            db = connect(folder / f"{owner}.db")
            decode: Any = msgspec.json.Decoder(Opened[model]).decode  # type: ignore[valid-type]
            for p in range(PARTITIONS):
                query = f"SELECT off, value FROM {topic}_{p} WHERE off >= ? ORDER BY off LIMIT ?"
                self._sources.append([db, f"{topic}_{p}", query, decode, 0])

    def append(self, rows: Out, now: float) -> None:
        """Append to own topics inside the caller's transaction."""
        groups: dict[tuple[str, int], list[tuple[str, bytes]]] = {}
        for topic, key, value in rows:
            groups.setdefault((topic, int(key[-6:]) % PARTITIONS), []).append((key, value))
        for (topic, p), group in groups.items():
            start = self._next[topic, p] or 0
            self.db.executemany(
                f"INSERT INTO {topic}_{p} VALUES(?, ?, ?, ?)",
                [(start + i, key, value, now) for i, (key, value) in enumerate(group)],
            )
            self._next[topic, p] = start + len(group)

    def step(self) -> int:
        """One batch: read, decode, one transaction."""
        events: list[Opened[Any]] = []
        moved: list[tuple[str, int]] = []
        for source in self._sources:
            if len(events) >= BATCH:
                break
            rows = source[0].execute(source[2], (source[4], BATCH - len(events))).fetchall()
            if rows:
                events += [source[3](value) for _, value in rows]
                source[4] = rows[-1][0] + 1
                moved.append((source[1], source[4]))
        if not events:
            return 0
        self.db.execute("BEGIN IMMEDIATE")
        self.db.executemany("INSERT INTO inbox VALUES(?)", [(e.event_id,) for e in events])
        out = HANDLERS[self.name](self.db, events)
        self.db.executemany("INSERT OR REPLACE INTO offsets VALUES(?, ?)", moved)
        self.append(out, time.time())
        self.db.execute("COMMIT")
        self.handled += len(events)
        return len(events)


def _load(db: apsw.Connection, table: str, ids: Iterable[str]) -> dict[str, bytes]:
    query = f"SELECT id, body FROM {table} WHERE id IN carray(?)"
    return dict(db.execute(query, (apsw.carray(tuple(dict.fromkeys(ids))),)))


def _save(db: apsw.Connection, table: str, rows: Iterable[tuple[str, bytes]]) -> None:
    db.executemany(f"INSERT OR REPLACE INTO {table} VALUES(?, ?)", rows)


def inventory(db: apsw.Connection, events: list[Opened[Placed]]) -> Out:
    """Take three lines of stock, keep the reservation."""
    stock = {
        sku: msgspec.json.decode(raw)
        for sku, raw in _load(db, "stock", (ln.sku for e in events for ln in e.value.lines)).items()
    }
    out: Out = []
    for opened in events:
        e = opened.value
        for line in e.lines:
            stock[line.sku][0] -= line.qty
            stock[line.sku][1] += line.qty
        skus = tuple((ln.sku, ln.qty) for ln in e.lines)
        reserved = Reserved(e.order_id, "LHR-1", True, skus, e.trace)
        out.append(("reserved", e.order_id, sealed(opened.event_id, "/r", reserved)))
    _save(db, "stock", [(sku, ENCODE(left)) for sku, left in stock.items()])
    _save(db, "state", [(key, value) for _, key, value in out])
    return out


def payment(db: apsw.Connection, events: list[Opened[Placed]]) -> Out:
    """Capture."""
    out: Out = []
    for opened in events:
        e = opened.value
        taken = Captured(
            e.order_id, e.total_minor, e.currency, "A" + e.order_id[-9:], e.shipping, e.trace
        )
        out.append(("captured", e.order_id, sealed(opened.event_id, "/p", taken)))
    _save(db, "state", [(key, b"1") for _, key, _ in out])
    return out


def coordinator(db: apsw.Connection, events: list[Opened[Any]]) -> Out:
    """Join reserved and captured; complete when shipped."""
    found = _load(db, "state", (e.value.order_id for e in events))
    states: dict[str, list[Any]] = {k: msgspec.json.decode(raw) for k, raw in found.items()}
    out: Out = []
    for opened in events:
        e, id_ = opened.value, opened.event_id
        state = states.setdefault(e.order_id, [None, None])
        if type(e) is Shipped:
            out.append(("completed", e.order_id, sealed(id_, "/c", Completed(e.order_id, e.trace))))
            continue
        state[type(e) is Captured] = e.skus if type(e) is Reserved else e.shipping
        if None not in state:
            skus, where = state
            asked = Requested(e.order_id, _address(where), _pairs(skus), e.trace)
            out.append(("requested", e.order_id, sealed(id_, "/f", asked)))
    _save(db, "state", [(key, ENCODE(state)) for key, state in states.items()])
    return out


def _address(value: Any) -> Address:
    return value if type(value) is Address else msgspec.convert(value, Address)


def _pairs(value: Any) -> tuple[tuple[str, int], ...]:
    return value if type(value) is tuple else tuple((sku, n) for sku, n in value)


def shipping(db: apsw.Connection, events: list[Opened[Requested]]) -> Out:
    """Ship."""
    out: Out = []
    for opened in events:
        e = opened.value
        shipped = Shipped(e.order_id, "DHL", "TRK" + e.order_id[-9:], e.trace)
        out.append(("shipped", e.order_id, sealed(opened.event_id, "/s", shipped)))
    _save(db, "state", [(key, b"1") for _, key, _ in out])
    return out


HANDLERS: dict[str, Callable[[apsw.Connection, list[Any]], Out]] = {
    "inventory": inventory, "payment": payment, "coordinator": coordinator, "shipping": shipping,
}
GROUPS = (("api", "inventory", "payment"), ("coordinator", "shipping"))


def _process(
    names: tuple[str, ...], folder: Path, orders: int, done: Any, ready: Any, result: Any
) -> None:
    loops = {name: Loop(folder, name) for name in names}
    ready.wait()
    for name, loop in loops.items():
        if name in READS:
            loop.attach(folder)
    bodies = [body(i) for i in range(orders)] if "api" in names else []
    decode = msgspec.json.Decoder(Placed).decode
    ready.wait()
    began, sent = time.perf_counter(), 0
    while done.value < orders:
        worked = 0
        if sent < len(bodies) and sent - done.value < IN_FLIGHT:
            api = loops["api"]
            group = [decode(raw) for raw in bodies[sent : sent + BATCH]]
            api.db.execute("BEGIN IMMEDIATE")
            rows = [("placed", o.order_id, sealed(o.event_id, "", o)) for o in group]
            api.append(rows, time.time())
            api.db.execute("COMMIT")
            sent += len(group)
            worked += len(group)
        worked += sum(loop.step() for name, loop in loops.items() if name != "api")
        if "coordinator" in loops:
            done.value = loops["coordinator"].handled // 3
        if not worked:
            time.sleep(0.0005)
    result.put((time.perf_counter() - began, sum(loop.handled for loop in loops.values())))


def run(folder: Path, orders: int) -> float:
    """Orders a second of the bare loop; every order completes exactly once or this raises."""
    folder.mkdir(parents=True)
    for name in WRITES:
        Loop(folder, name).db.close()
    stock = connect(folder / "inventory.db")
    with stock:
        _save(stock, "stock", [(f"SKU-{i:05d}", ENCODE([STOCK, 0])) for i in range(SKUS)])
    stock.close()
    context = mp.get_context("fork")
    done = multiprocessing.sharedctypes.RawValue("q", 0)
    ready, result = context.Barrier(len(GROUPS)), context.Queue()
    processes = [
        context.Process(target=_process, args=(g, folder, orders, done, ready, result))
        for g in GROUPS
    ]
    for process in processes:
        process.start()
    found = [result.get(timeout=300) for _ in processes]
    for process in processes:
        process.join()
    _check(folder, orders)
    return orders / max(float(seconds) for seconds, _ in found)


def _check(folder: Path, orders: int) -> None:
    db = connect(folder / "coordinator.db")
    keys = {
        row[0] for p in range(PARTITIONS) for row in db.execute(f"SELECT key FROM completed_{p}")
    }
    ended = len(keys)
    db.close()
    assert ended == orders, f"the bare loop completed {ended} of {orders} orders"
