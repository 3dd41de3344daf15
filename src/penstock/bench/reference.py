"""The reference flow: the six-record order as services of the engine."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from penstock import assemble
from penstock.bench import harness
from penstock.bench.shapes import (
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
from penstock.catalog.implied import with_implied
from penstock.catalog.model import Catalog, ServiceEntry, Team, Topic
from penstock.contracts.contract import Contract
from penstock.contracts.wire import Book
from penstock.decision import Context, Decision, Done, Emit, Ref, Service, States
from penstock.event import Event, Message, root_id
from penstock.flow import Flow
from penstock.ports import INTAKE_LANE, Advance, Outgoing

GROUP = 500
IN_FLIGHT = 8000


class Stock(Struct, frozen=True, gc=False):
    """A SKU's pieces."""

    free: int = STOCK
    taken: int = 0


class Kept(Struct, frozen=True, gc=False):
    """A reservation, a payment, a parcel: that it was made."""

    skus: tuple[tuple[str, int], ...] = ()


class Joined(Struct, frozen=True, gc=False):
    """The coordinator's halves."""

    skus: tuple[tuple[str, int], ...] | None = None
    shipping: Address | None = None
    done: bool = False


def reserve(states: States, event: Event, context: Context) -> Decision:
    """Take the lines from the stock."""
    placed: Placed = event.data
    written: dict[Ref, Any] = {}
    for line in placed.lines:
        ref = Ref("stock", line.sku)
        stock = written.get(ref) or states[ref] or Stock()
        written[ref] = Stock(stock.free - line.qty, stock.taken + line.qty)
    skus = tuple((line.sku, line.qty) for line in placed.lines)
    written[Ref("kept", event.key)] = Kept(skus)
    out = Reserved(placed.order_id, "LHR-1", True, skus, placed.trace)
    return Done(written, (Emit("reserved", out),))


def stock_of(event: Event, own: Any) -> tuple[Ref, ...]:
    """The SKUs of an order."""
    return tuple(Ref("stock", line.sku) for line in event.data.lines)


def capture(states: States, event: Event, context: Context) -> Decision:
    """Take the money."""
    p: Placed = event.data
    out = Captured(
        p.order_id, p.total_minor, p.currency, "A" + p.order_id[-9:], p.shipping, p.trace
    )
    return Done({Ref("kept", event.key): Kept()}, (Emit("captured", out),))


def join(states: States, event: Event, context: Context) -> Decision:
    """Both halves there: request; shipped: complete."""
    ref, e = Ref("joined", event.key), event.data
    own: Joined = states[ref] or Joined()
    if type(e) is Shipped:
        end = Completed(e.order_id, e.trace)
        return Done({ref: Joined(done=True)}, (Emit("completed", end),))
    reserved = type(e) is Reserved
    own = Joined(e.skus, own.shipping) if reserved else Joined(own.skus, e.shipping)
    if own.skus is None or own.shipping is None:
        return Done({ref: own})
    out = Requested(e.order_id, own.shipping, own.skus, e.trace)
    return Done({ref: own}, (Emit("requested", out),))


def ship(states: States, event: Event, context: Context) -> Decision:
    """Send it."""
    e: Requested = event.data
    out = Shipped(e.order_id, "DHL", "TRK" + e.order_id[-9:], e.trace)
    return Done({Ref("kept", event.key): Kept()}, (Emit("shipped", out),))


SERVICES = (
    Service(
        name="inventory", kind="kept", states={"kept": Kept, "stock": Stock},
        reads={"placed": ("placed",)}, decide=reserve, needs=stock_of,
    ),
    Service(
        name="payment", kind="kept", states={"kept": Kept}, reads={"placed": ("placed",)},
        decide=capture,
    ),
    Service(
        name="coordinator", kind="joined", states={"joined": Joined},
        reads={"reserved": ("reserved",), "captured": ("captured",), "shipped": ("shipped",)},
        decide=join,
    ),
    Service(
        name="shipping", kind="kept", states={"kept": Kept}, reads={"requested": ("requested",)},
        decide=ship,
    ),
)
WRITES = {
    "door": ("placed",), "inventory": ("reserved",), "payment": ("captured",),
    "coordinator": ("requested", "completed"), "shipping": ("shipped",),
}
BOOK = Book(
    Contract(type=model.__name__.lower(), version=1, model=model)
    for model in (Placed, Reserved, Captured, Requested, Shipped, Completed)
)


def house(folder: Path) -> assemble.House:
    """The reference flow's declarations, at home in ``folder``."""
    topics = {
        t: Topic(name=t, owner="bench", producer=s, key="order")
        for s, found in WRITES.items()
        for t in found
    }
    entries = {"door": ServiceEntry(name="door", owner="bench", writes=WRITES["door"])}
    for s in SERVICES:
        entries[s.name] = ServiceEntry(
            name=s.name, owner="bench", handler="bench:bench", reads=tuple(s.reads),
            writes=WRITES[s.name],
        )
    team = Team(name="bench", contacts=("bench",), on_call=("bench",))
    made = Catalog(name="bench", flow="", teams={"bench": team}, topics=topics, services=entries)
    return assemble.House(
        home=folder, catalog=with_implied(made), book=BOOK,
        flow=Flow(name="bench", services=SERVICES, contracts=(), door="door"),
    )


def feed(stage: harness.Stage) -> Callable[[], None]:
    """Orders as a client would send them, ready to go."""
    bodies = [body(i) for i in range(stage.orders)]
    return lambda: _feed(stage, bodies)


def _feed(stage: harness.Stage, bodies: list[bytes]) -> None:
    """Decode and append orders in groups, as a door would, and count the ends."""
    decode = msgspec.json.Decoder(Placed).decode
    house = stage.house
    store, log = assemble.make_store(house, "door"), assemble.make_log(house)
    wakes = assemble.make_wakes(house, "door")
    epoch = store.claim([INTAKE_LANE], 0)[0].epoch
    sent = 0
    while stage.done.value < stage.orders:
        ended = sum(e.next for e in log.extent("completed"))
        stage.done.value = ended
        if sent >= stage.orders or sent - ended >= IN_FLIGHT:
            time.sleep(0.001)
            continue
        now = time.time_ns() // 1_000_000
        rows = []
        for raw in bodies[sent : sent + GROUP]:
            placed = decode(raw)
            type_, version, value = BOOK.seal(placed)
            id_ = root_id(now, "bench", placed.order_id)
            message = Message(
                placed.order_id, value, id_, type_, version, now, b"", placed.trace, "door"
            )
            rows.append(Outgoing("placed", True, message))
        with store.begin() as tx:
            tx.advance([Advance(INTAKE_LANE, epoch, {})], now)
            wrote = tx.send(rows, now)
        wakes.tell(wrote)
        sent += len(rows)


def run(folder: Path, orders: int) -> harness.Measured:
    """The reference flow through the engine; every order must complete exactly once."""
    found = harness.run(house(folder), feed, orders)
    handled = sum(found.handled.values())
    assert handled == 6 * orders, f"handled {handled} of {6 * orders} records"
    return found
