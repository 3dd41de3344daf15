"""A shop that runs the real flow on any pair that can be audited, its books; and crimes in them.

Gateways are the simulator's own: they keep the ledgers that an auditor reads. ``Shop`` plays
requests by the door, gives the gateways' webhooks their time, and keeps a client's journal.
"""

from __future__ import annotations

from base64 import b32hexencode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from penstock.catalog.load import load_catalog
from penstock.flow import Reply, Visit
from penstock.flows.orders import FLOW
from penstock.flows.orders.requests import (
    AddressIn,
    CancelIn,
    CustomerIn,
    LineIn,
    OrderIn,
    StockEntry,
    StockIn,
)
from penstock.flows.orders.sandbox.simulated import Outside
from penstock.ports import Outcome, Request, Unavailable
from penstock.sim.audit.books import Asked, Books, Call, Deed, Fact, Ledger, Mail, Notes, Violation
from penstock.sim.audit.cluster import books_of_cluster
from penstock.sim.audit.files import books_of
from penstock.sim.audit.orders import READS, RULES
from tests.audit.cluster_shop import by_hand, where
from tests.flows.ground import Servers
from tests.flows.rig import Rig

CLIENT = "c"  # as the rig calls itself
MAY = ("supplied_prices", "load_stock", "load_prices")
POST = LineIn(sku="POST", quantity=1, unit_minor=300, kind="carriage")


def line(sku: str = "POT", quantity: int = 2, unit: int = 500) -> LineIn:
    """A line with a price of its own."""
    return LineIn(sku=sku, quantity=quantity, unit_minor=unit)


class Line:
    """A gateway's port to the simulated outside."""

    def __init__(self, shop: Shop, name: str) -> None:
        self._shop, self._name = shop, name

    def call(self, request: Request) -> Outcome:
        """Carry a call out; what the other side sends on its own comes later."""
        shop = self._shop
        shop.calling = request
        if shop.fires("away"):
            return Unavailable("closed for lunch")
        outcome, visits = shop.outside.call(self._name, request, shop.rig.clock.now())
        shop.expect(visits)
        return outcome


class Shop:
    """The flow, its outside and one client; see the module."""

    def __init__(self, ground: Path | Servers) -> None:
        self.ground = ground
        self.calling: Request | None = None
        # order -> the faults that meet its calls, each as the call's name, a slash, and the fault
        self.script: dict[str, set[str]] = {}
        self.outside = Outside(self.fires, lambda: 0.5)
        names = ("payments", "carrier", "mail")
        self.rig = Rig(FLOW, load_catalog(), ground, {name: Line(self, name) for name in names})
        self.coming: list[tuple[int, Visit]] = []
        self.journal: list[Asked] = []

    def fires(self, fault: str) -> bool:
        """Does this fault meet the call that is being made?"""
        call = self.calling
        return call is not None and f"{call.name}/{fault}" in self.script.get(call.key, ())

    def expect(self, visits: Sequence[Visit]) -> None:
        """Webhooks that will come."""
        now = self.rig.clock.now()
        self.coming += [(now + visit.after, visit) for visit in visits]

    # Requests ----------------------------------------------------------------------------------

    def place(self, key: str, *lines: LineIn, faults: str = "", **more: Any) -> str:
        """An order; ``faults`` meet its calls. Returns its id."""
        body = OrderIn(
            order_ref=key, customer=CustomerIn(id="c-1", email="ada@example.com"),
            address=AddressIn(country="France"), currency="EUR", lines=lines or (line(), POST),
        )
        body = msgspec.structs.replace(body, **more)
        reply = self._send("place_order", "/orders", key, body)
        order: str = msgspec.to_builtins(reply.body)["order_id"]
        self.script[order] = set(faults.split())
        return order

    def cancel(self, order: str) -> None:
        """A customer changes their mind."""
        self._send("cancel_order", f"/orders/{order}/cancel", f"x-{order}", CancelIn(), id=order)

    def stock(self, file: str, **pieces: int) -> None:
        """Pieces come in."""
        entries = tuple(StockEntry(sku=sku, quantity=n) for sku, n in pieces.items())
        self._send("load_stock", "/stock", file, StockIn(file=file, entries=entries))

    def count(self, file: str, **pieces: int) -> None:
        """Pieces are counted."""
        entries = tuple(
            StockEntry(sku=sku, quantity=n, kind="count") for sku, n in pieces.items()
        )
        self._send("load_stock", "/stock", file, StockIn(file=file, entries=entries))

    def _send(self, route: str, path: str, key: str, body: Any, **params: str) -> Reply:
        said = msgspec.to_builtins(body)
        now = self.rig.clock.now()
        reply = self.rig.request(
            route, body, idempotency_key=key, may=MAY, params=params,
            digest=str(said),
        )
        ok = reply.status < 300
        replies = [msgspec.to_builtins(reply.body)] if ok else []
        self.journal.append(
            Asked(CLIENT, key, "POST", path, [said], "acked" if ok else "failed", reply.status,
                  replies, now)
        )  # fmt: skip
        return reply

    # Time --------------------------------------------------------------------------------------

    def rest(self) -> Shop:
        """Run until nothing moves and nothing comes any more."""
        self.rig.run()
        while self.coming:
            self.coming.sort(key=lambda row: row[0])
            at, visit = self.coming.pop(0)
            self.rig.clock.pass_(max(0, at - self.rig.clock.now()))
            if not self.outside.cancelled(visit):
                self.rig.request(visit.route, visit.body)
            self.rig.run()
        return self

    def decide(self, wish: str, order: str) -> Shop:
        """An operator retries or discards what is parked of an order's payment."""
        for row in self.rig.rows("payment", "waiting"):
            if row.body.state == "parked" and row.body.record.message.key == order:
                self.rig.operate(f"deadletter.{wish}_requested", row.body.record, "payment")
        return self.rest()

    def books(self, until: int | None = None) -> Books:
        """Everything that is written down now."""
        found = self._written(until)
        ledgers = {
            name: Ledger(
                name, [Deed(*row) for row in rows.get("deeds", ())],
                [Call(*row) for row in rows.get("calls", ())],
                [Mail(*row) for row in rows.get("mails", ())],
            )
            for name, rows in self.outside.ledgers().items()
        }
        return found._replace(ledgers=ledgers, journal=tuple(self.journal))


    def _written(self, until: int | None) -> Books:
        if not isinstance(self.ground, Servers):
            return books_of(self.ground, reads=READS, until=until)
        there = where(self.ground, self.rig.catalog)
        found = books_of_cluster(there, Path("/nonexistent"), reads=READS, until=until)
        return by_hand(found, self.rig.clock)


class Ended(NamedTuple):
    """A shop at rest: its books, and its orders by name."""

    books: Books
    orders: dict[str, str]

    def one(self, type_: str, name: str = "plain") -> Fact:
        """The first record of a type of an order."""
        return facts(self.books, type_, self.orders[name])[0]


def ended_in(ground: Path | Servers) -> Ended:
    """Every way an order may go, all of them at their end; one payment waits for a person."""
    shop, orders = Shop(ground), dict[str, str]()
    shop.stock("first", POT=60, MUG=1, CUP=9)
    shop.rest()
    for name, faults in (
        ("plain", ""), ("second", ""), ("webhook", "authorise/webhook_first capture/webhook_first"),
        ("declined", "authorise/decline"), ("uncaptured", "capture/decline"),
        ("undeliverable", "label/decline"), ("wrong", "capture/wrong_amount"),
        ("abandoned", "capture/wrong_amount"), ("backwards", "label/delivered_first"),
        ("twice", "label/scan_twice send/mail_twice"),
    ):
        orders[name] = shop.place(name, faults=faults)
    orders["alone"] = shop.place("alone", POST)
    orders["guest"] = shop.place("guest", customer=CustomerIn())
    orders["short"] = shop.place("short", line("MUG", 2))
    orders["mixed"] = shop.place("mixed", line("POT", 1, 700), line("CUP", 3, 120), line(), POST)
    orders["early"] = shop.place("early")
    shop.cancel(orders["early"])
    orders["late"] = shop.place("late", faults="authorise/away", deadline_seconds=1)
    shop.rig.run()
    orders["called back"] = shop.place("called back")
    orders["kept"] = shop.place("kept", faults="void_label/void_refused")
    shop.rig.run()
    for name in ("called back", "kept"):
        shop.cancel(orders[name])
    shop.rest()
    shop.rig.wait(1500)
    shop.script[orders["late"]].clear()
    shop.rig.wait(60_000)
    shop.count("counted", CUP=5)
    shop.rest()
    orders["open"] = shop.place("open", faults="capture/wrong_amount")
    shop.rest()
    shop.decide("discard", orders["abandoned"])
    shop.rig.wait(90_000_000)
    shop.rig.close()
    return Ended(shop.books(), orders)


def judged(books: Books) -> tuple[dict[str, int], list[Violation]]:
    """What every rule examined, and all that is wrong."""
    examined: dict[str, int] = {}
    found: list[Violation] = []
    for rule in RULES:
        if any(not _has(books, need) for need in rule.needs):
            continue
        notes = Notes(rule.id)
        rule.check(books, notes)
        examined[rule.id] = notes.examined
        found += notes.violations
    return examined, found


def _has(books: Books, need: str) -> bool:
    return books.journal is not None if need == "journal" else need in books.ledgers


# ---- tampering


Pick = Callable[[Fact], bool]


def facts(books: Books, type_: str, key: str = "") -> list[Fact]:
    """The records of a type (any where none is named), of one key where one is named."""
    return [
        f for topic in books.topics.values() for f in topic
        if type_ in ("", f.type) and key in ("", f.key)
    ]


def order_of(at: int, digest: bytes) -> str:
    """The id of an order accepted at a time, for the request of this digest."""
    return "ord_" + b32hexencode(at.to_bytes(6, "big") + digest).decode().lower()


def with_facts(books: Books, topic: str, changed: Sequence[Fact]) -> Books:
    """Another content of one topic."""
    return books._replace(topics={**books.topics, topic: changed})


def without(books: Books, fact: Fact) -> Books:
    """One record less."""
    return with_facts(books, fact.topic, [f for f in books.topics[fact.topic] if f is not fact])


def put(books: Books, old: Fact, new: Fact) -> Books:
    """A record instead of another."""
    return with_facts(
        books, old.topic, [new if f is old else f for f in books.topics[old.topic]]
    )


def saying(fact: Fact, **fields: Any) -> Fact:
    """The record with other fields in its value."""
    return fact._replace(value=msgspec.json.encode({**fact.said, **fields}))


def told(books: Books, old: Fact, **fields: Any) -> Books:
    """The record says something else."""
    return put(books, old, saying(old, **fields))


def forged(like: Fact, number: int = 1, type_: str = "", **fields: Any) -> Fact:
    """A record like another, with an id of its own, some places behind it."""
    return saying(like, **fields)._replace(
        id=like.id[:15] + bytes([(like.id[15] + number) % 256]), offset=like.offset + number,
        type=type_ or like.type,
    )


def added(books: Books, *more: Fact) -> Books:
    """More records, each at the end of its topic."""
    for fact in more:
        books = with_facts(books, fact.topic, [*books.topics[fact.topic], fact])
    return books


def deeds(books: Books, gateway: str, operation: str, order: str = "") -> list[Deed]:
    """What a gateway did."""
    return [
        d for d in books.ledgers[gateway].deeds
        if d.operation == operation and order in ("", d.order)
    ]


def with_ledger(books: Books, gateway: str, **parts: Any) -> Books:
    """Another content of a ledger."""
    ledger = books.ledgers[gateway]._replace(**parts)
    return books._replace(ledgers={**books.ledgers, gateway: ledger})


def with_deed(books: Books, gateway: str, old: Deed | None, *new: Deed) -> Books:
    """Deeds instead of another, or in addition."""
    kept = [d for d in books.ledgers[gateway].deeds if d is not old]
    return with_ledger(books, gateway, deeds=[*kept, *new])


def with_document(books: Books, service: str, kind: str, key: str, **fields: Any) -> Books:
    """A document that shows something else."""
    store = books.stores[service]
    documents = [
        d._replace(body=msgspec.json.encode({**d.said, **fields}))
        if (d.kind, d.key) == (kind, key) else d
        for d in store.documents
    ]
    changed = store._replace(documents=documents)
    return books._replace(stores={**books.stores, service: changed})


def with_marks(books: Books, service: str, change: Callable[[Any], Any]) -> Books:
    """Another order of handling."""
    store = books.stores[service]
    changed = store._replace(marks=[change(mark) for mark in store.marks])
    return books._replace(stores={**books.stores, service: changed})


def asked(books: Books, key: str, **fields: Any) -> Books:
    """The journal tells otherwise of one request."""
    rows = [a._replace(**fields) if a.key == key else a for a in books.journal or ()]
    return books._replace(journal=rows)
