"""The peer: a whole order as teams usually build it, with FastStream and SQLAlchemy's ORM.

One process a service, one transaction a message: a row that it was seen, its state, and what it
says next, either as a row of an outbox that a task of the same process empties, or published after
the commit (then a death in between loses it). The libraries are the tests' and not penstock's own;
nothing else imports this module.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from faststream import FastStream
from faststream.confluent import KafkaBroker
from psycopg.conninfo import conninfo_to_dict
from pydantic import BaseModel
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from penstock.bench.child import Parent, memory_mb
from penstock.bench.shapes import SKUS, STOCK

OUTBOX_ROWS = 200
LOOK_SECONDS = 0.02


class Table(DeclarativeBase):
    """All tables; a service uses some of them, in a schema of its own."""


class Seen(Table):
    """A message that was handled."""

    __tablename__ = "seen"
    id: Mapped[str] = mapped_column(primary_key=True)


class Outbox(Table):
    """A message to be sent."""

    __tablename__ = "outbox"
    id: Mapped[int] = mapped_column(primary_key=True)
    topic: Mapped[str]
    key: Mapped[str]
    value: Mapped[str]


class Stock(Table):
    """Pieces of a SKU."""

    __tablename__ = "stock"
    sku: Mapped[str] = mapped_column(primary_key=True)
    free: Mapped[int]
    taken: Mapped[int]


class Kept(Table):
    """A reservation, a payment, a parcel."""

    __tablename__ = "kept"
    order_id: Mapped[str] = mapped_column(primary_key=True)
    body: Mapped[str]


class Joined(Table):
    """The coordinator's halves."""

    __tablename__ = "joined"
    order_id: Mapped[str] = mapped_column(primary_key=True)
    skus: Mapped[str | None]
    shipping: Mapped[str | None]
    done: Mapped[bool] = mapped_column(default=False)


class Line(BaseModel):
    """One line of an order."""

    sku: str
    qty: int
    unit_minor: int
    title: str


class Placed(BaseModel):
    """An order as it comes in."""

    event_id: str
    order_id: str
    customer_id: str
    occurred_at: str
    currency: str
    total_minor: int
    channel: str
    shipping: dict[str, str]
    trace: str
    lines: list[Line]


class Told(BaseModel):
    """What the services say to each other."""

    event_id: str
    type: str
    order_id: str
    cause: str
    at: float
    trace: str
    skus: list[tuple[str, int]] = []
    shipping: dict[str, str] = {}
    amount: int = 0
    tracking: str = ""


Said = tuple[str, Told]


def told(topic: str, cause: Placed | Told, **more: Any) -> Said:
    """The next message and its topic."""
    return topic, Told(
        event_id=f"{cause.order_id}/{topic}", type=topic, order_id=cause.order_id,
        cause=cause.event_id, at=time.time(), trace=cause.trace, **more,
    )


class Handling:
    """One transaction a message, and what follows from it."""

    def __init__(self, postgres: str, broker: KafkaBroker, prefix: str, outbox: bool) -> None:
        self._engine = sa.create_engine("postgresql+psycopg://", connect_args=_parts(postgres))
        self._broker, self._prefix, self._outbox = broker, prefix, outbox

    def prepare(self) -> None:
        """The tables, and stock of everything."""
        Table.metadata.create_all(self._engine)
        with Session(self._engine) as session, session.begin():
            skus = [{"sku": f"SKU-{i:05d}", "free": STOCK, "taken": 0} for i in range(SKUS)]
            session.execute(sa.insert(Stock), skus)

    @contextmanager
    def _once(self, event_id: str) -> Iterator[Session | None]:
        """A transaction; none for a message that was handled before."""
        with Session(self._engine) as session, session.begin():
            if session.get(Seen, event_id) is not None:
                yield None
                return
            session.add(Seen(id=event_id))
            with session.no_autoflush:
                yield session

    async def handle(
        self, message: Any, decide: Callable[[Session, Any], Said | None]
    ) -> None:
        """Decide about a message, commit, and send what was said."""
        said: Said | None = None
        with self._once(message.event_id) as session:
            if session is None:
                return
            said = decide(session, message)
            if said is not None and self._outbox:
                topic, event = said
                value = event.model_dump_json(exclude_defaults=True)
                session.add(Outbox(topic=topic, key=event.order_id, value=value))
        if said is not None and not self._outbox:
            topic, event = said
            await self._broker.publish(
                event.model_dump_json(exclude_defaults=True).encode(),
                topic=self._prefix + topic, key=event.order_id.encode(),
            )

    async def empty(self) -> None:
        """Send what the outbox holds, for ever."""
        while True:
            with Session(self._engine) as session, session.begin():
                chosen = sa.select(Outbox).order_by(Outbox.id).limit(OUTBOX_ROWS)
                rows = [(r.id, r.topic, r.key, r.value) for r in session.scalars(chosen)]
            if not rows:
                await asyncio.sleep(LOOK_SECONDS)
                continue
            sends = [
                self._broker.publish(v.encode(), topic=self._prefix + t, key=k.encode())
                for _, t, k, v in rows
            ]
            await asyncio.gather(*sends)
            with Session(self._engine) as session, session.begin():
                session.execute(sa.delete(Outbox).where(Outbox.id.in_([r[0] for r in rows])))


def _parts(postgres: str) -> dict[str, Any]:
    return dict(conninfo_to_dict(postgres))


def inventory(session: Session, o: Placed) -> Said:
    """Take three lines of stock."""
    for line in o.lines:
        stock = session.get_one(Stock, line.sku)
        stock.free -= line.qty
        stock.taken += line.qty
    skus = [(line.sku, line.qty) for line in o.lines]
    session.add(Kept(order_id=o.order_id, body=json.dumps(skus)))
    return told("reserved", o, skus=skus)


def payment(session: Session, o: Placed) -> Said:
    """Capture."""
    session.add(Kept(order_id=o.order_id, body="A"))
    return told("captured", o, shipping=o.shipping, amount=o.total_minor)


def coordinator(session: Session, m: Told) -> Said | None:
    """Both there: request; shipped: complete."""
    own = session.get(Joined, m.order_id)
    if own is None:
        own = Joined(order_id=m.order_id)
        session.add(own)
    if m.type == "shipped":
        own.done = True
        return told("completed", m)
    if m.type == "reserved":
        own.skus = json.dumps(m.skus)
    else:
        own.shipping = json.dumps(m.shipping)
    if own.skus is None or own.shipping is None:
        return None
    skus, shipping = json.loads(own.skus), json.loads(own.shipping)
    return told("requested", m, skus=skus, shipping=shipping)


def shipping(session: Session, m: Told) -> Said:
    """Ship."""
    session.add(Kept(order_id=m.order_id, body="TRK"))
    return told("shipped", m, tracking="TRK")


READS = {
    "inventory": ("placed",), "payment": ("placed",),
    "coordinator": ("reserved", "captured", "shipped"), "shipping": ("requested",),
}


def _listen(broker: KafkaBroker, handling: Handling, name: str, prefix: str) -> None:
    reads = broker.subscriber(
        *(prefix + topic for topic in READS[name]), group_id=prefix + name,
        auto_offset_reset="earliest",
    )
    if name in ("inventory", "payment"):
        decide = inventory if name == "inventory" else payment

        @reads
        async def on_placed(message: Placed) -> None:
            await handling.handle(message, decide)

    else:
        reply = coordinator if name == "coordinator" else shipping

        @reads
        async def on_told(message: Told) -> None:
            await handling.handle(message, reply)


def serve(
    parent: Parent, *, name: str, servers: str, prefix: str, postgres: str, outbox: bool
) -> None:
    """One service until told to stop."""
    broker = KafkaBroker(
        servers, logger=None, allow_auto_create_topics=False, acks="all", linger_ms=0,
        enable_idempotence=True,
    )  # fmt: skip
    handling = Handling(postgres, broker, prefix, outbox)
    handling.prepare()
    _listen(broker, handling, name, prefix)
    app = FastStream(broker, logger=None)
    tasks = []

    @app.after_startup
    async def begin() -> None:
        if outbox:
            tasks.append(asyncio.create_task(handling.empty()))
        tasks.append(asyncio.create_task(_until_stopped(app, parent)))
        parent.tell(ready=name)

    asyncio.run(app.run())
    parent.tell(pss_mb=memory_mb(), cpu_seconds=0.0, began=0.0, ended=0.0)


async def _until_stopped(app: FastStream, parent: Parent) -> None:
    while not parent.stopped:
        await asyncio.sleep(LOOK_SECONDS)
    app.exit()
