"""The records of the figures on Kafka, the two services that handle them, and where they live.

300 bytes of JSON, two for every key. ``copy`` changes a field and passes the record on;
``tally`` keeps a sum per key besides, so that its effect can be counted afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from penstock import assemble
from penstock.catalog.implied import with_implied
from penstock.catalog.model import Catalog, ServiceEntry, Team, Topic
from penstock.contracts.contract import Contract
from penstock.contracts.wire import Book
from penstock.decision import Context, Decision, Done, Emit, Ref, Service, States
from penstock.event import Event, Message, root_id
from penstock.flow import Flow

PARTITIONS = 4
COPY_BATCH, BATCH = 1000, 500  # of what passes through memory, and through PostgreSQL
VALUE_BYTES = 300
AT = 1_700_000_000_000
SOURCE = "items"


class Item(Struct, frozen=True, gc=False):
    """What comes in."""

    event_id: str
    order_id: str
    customer: str
    sku: str
    qty: int
    total: int
    pad: str


class Copied(Struct, frozen=True, gc=False):
    """What ``copy`` sends on."""

    event_id: str
    order_id: str
    customer: str
    sku: str
    qty: int
    total: int
    pad: str


class Tallied(Struct, frozen=True, gc=False):
    """What ``tally`` sends on."""

    event_id: str
    order_id: str
    customer: str
    sku: str
    qty: int
    total: int
    pad: str


class Tally(Struct, frozen=True, gc=False):
    """What was counted of a key."""

    qty: int = 0
    seen: int = 0


def _copied(states: States, event: Event, context: Context) -> Decision:
    i: Item = event.data
    out = Copied(i.event_id, i.order_id, i.customer, i.sku, i.qty + 1, i.total, i.pad)
    return Done({}, (Emit("copied", out),))


def _tallied(states: States, event: Event, context: Context) -> Decision:
    ref, i = Ref("tally", event.key), event.data
    own: Tally = states[ref] or Tally()
    out = Tallied(i.event_id, i.order_id, i.customer, i.sku, i.qty + 1, i.total, i.pad)
    return Done({ref: Tally(own.qty + i.qty, own.seen + 1)}, (Emit("tallied", out),))


SERVICES = (
    Service(
        name="copy", kind="tally", states={"tally": Tally}, reads={SOURCE: ("item",)},
        decide=_copied,
    ),
    Service(
        name="tally", kind="tally", states={"tally": Tally}, reads={SOURCE: ("item",)},
        decide=_tallied,
    ),
)
WRITES = {"door": (SOURCE,), "copy": ("copied",), "tally": ("tallied",)}
BOOK = Book(
    Contract(type=model.__name__.lower(), version=1, model=model)
    for model in (Item, Copied, Tallied)
)


def house(folder: Path, cluster: assemble.Cluster) -> assemble.House:
    """The two services, at home on a cluster."""
    topics = {
        t: Topic(name=t, owner="bench", producer=s, key="order", partitions=PARTITIONS)
        for s, found in WRITES.items()
        for t in found
    }
    entries = {"door": ServiceEntry(name="door", owner="bench", writes=WRITES["door"])}
    for s in SERVICES:
        entries[s.name] = ServiceEntry(
            name=s.name, owner="bench", handler="bench:bench", reads=(SOURCE,),
            writes=WRITES[s.name], batch=BATCH,
        )
    team = Team(name="bench", contacts=("bench",), on_call=("bench",))
    made = Catalog(name="bench", flow="", teams={"bench": team}, topics=topics, services=entries)
    return assemble.House(
        home=folder, catalog=with_implied(made), book=BOOK, cluster=cluster,
        flow=Flow(name="bench", services=SERVICES, contracts=(), door="door"),
    )


def _item(n: int, count: int) -> tuple[bytes, Item]:
    """The n-th record and its id; every key has two."""
    key = n % max(1, count // 2)
    order_id = f"o-{key * 0x9E3779B97F4A7C15 % (1 << 64):016x}"
    id_ = root_id(AT + n // 100, "bench", str(n))
    pad = f"{n * 0x2545F4914F6CDD1D % (1 << 256):x}" * 2
    item = Item(
        id_.hex(), order_id, f"c-{n % 9973:08x}", f"SKU-{n % 9999:05d}", 1 + n % 8, 100 + n % 9999,
        "",
    )
    left = VALUE_BYTES - len(msgspec.json.encode(item))
    return id_, msgspec.structs.replace(item, pad=pad[:left].ljust(left, "0"))


def messages(count: int) -> Sequence[Message]:
    """All records of a run, ready to be appended."""
    made = []
    for n in range(count):
        id_, item = _item(n, count)
        type_, version, value = BOOK.seal(item)
        made.append(Message(item.order_id, value, id_, type_, version, AT, b"", "", "door"))
    return made


def quantity(count: int) -> int:
    """The sum over all records of a run: what the tallies must come to."""
    return sum(1 + n % 8 for n in range(count))
