"""The books sorted once: every order's story, every SKU's movements, and what is still open.

``index_of(books)`` makes it at most once for the books looked at; each value is decoded once.
Copies of a record (one id, one content: a courier that died after its append) count as one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import msgspec

from penstock.sim.audit.books import Ask, Books, Call, Deed, Document, Fact, Held, Mail
from penstock.sim.audit.orders.reads import READS, SERVICES

_OBJECT = msgspec.json.Decoder(dict[str, Any]).decode
FINAL = {"order.completed": "completed", "order.cancelled": "cancelled",
         "order.rejected": "rejected"}  # fmt: skip
PARKED = ("parked", "aside")
# The topics that tell of one order, all keyed by it (arrivals: the two types below).
OF_ORDERS = (
    "orders", "order_states", "inventory", "payments", "fulfillment", "shipments",
    "notifications", "payment.answers", "shipping.answers", "notify.answers",
)
_OUTSIDE = frozenset({"carrier.scanned", "provider.notified"})
_MOVED = "stock.moved"
_SUPPLY = frozenset({"stock.received", "stock.counted"})
_JUDGING = ("order", "inventory", "payment", "shipping")  # without notify, which ends no order
Place = tuple[int, int]  # of a mark: transaction and ordinal, the order of handling


def number(value: Any) -> int:
    """An integer, 0 where there is none (that it is none is told by I8)."""
    return value if type(value) is int else 0


def rows(value: Any) -> list[dict[str, Any]]:
    """The objects in a list; none where there is no list."""
    found = value if isinstance(value, list | tuple) else ()
    return [row for row in found if isinstance(row, dict)]


def text(value: Any) -> str:
    """A text; what is none is shown as it is."""
    return value if isinstance(value, str) else repr(value)


class Entry:
    """A fact with its value as JSON; {} where that is no object."""

    __slots__ = ("body", "fact", "type")

    def __init__(self, fact: Fact) -> None:
        self.fact, self.type = fact, fact.type
        try:
            self.body: dict[str, Any] = _OBJECT(fact.value)
        except msgspec.MsgspecError:
            self.body = {}


class Placed:
    """What an order.placed says, of either version; ``goods`` are its lines without carriage."""

    __slots__ = ("client", "currency", "email", "goods", "lines", "total")

    def __init__(self, entry: Entry) -> None:
        body = entry.body
        old = entry.fact.version == 1
        self.lines = rows(body.get("lines"))
        self.total = number(body.get("total" if old else "total_minor"))
        self.currency = "GBP" if old else text(body.get("currency", ""))
        self.client = text(body.get("client", ""))
        customer = body if old else body.get("customer")
        self.email = text(customer.get("email", "")) if isinstance(customer, dict) else ""
        self.goods = {
            number(line.get("line", n)): (text(line.get("sku")), number(line.get("quantity")))
            for n, line in enumerate(self.lines, 1)
            if line.get("kind", "item") != "carriage"
        }


class Shown(msgspec.Struct, frozen=True):
    """What the order service's document shows, as far as an audit asks."""

    state: str = ""
    final: bool = False
    authorised_minor: int = 0
    captured_minor: int = 0
    refunded_minor: int = 0


_SHOWN = msgspec.json.Decoder(Shown).decode


class Story:
    """Everything the books tell of one order."""

    __slots__ = ("_placed", "calls", "deeds", "id", "last", "mails", "settled", "topics")

    def __init__(self, order: str) -> None:
        self.id = order
        self.topics: dict[str, list[Entry]] = {}
        self.deeds: dict[str, list[Deed]] = {}
        self.calls: dict[str, list[Call]] = {}
        self.mails: list[Mail] = []
        self.last = 0  # when anything of it happened last
        self.settled: bool | None = None  # what ``Orders.settled`` found
        self._placed: Placed | None = None

    def of(self, topic: str, *types: str) -> Sequence[Entry]:
        """Its facts in a topic, in order; of these types where any are named."""
        found = self.topics.get(topic, ())
        return [e for e in found if e.type in types] if types else found

    @property
    def root(self) -> Entry | None:
        """Its order.placed."""
        orders = self.topics.get("orders")
        if not orders:
            return None
        return orders[0] if orders[0].type == "order.placed" else next(
            (e for e in orders if e.type == "order.placed"), None
        )

    @property
    def placed(self) -> Placed | None:
        """What its order.placed says."""
        root = self.root
        if self._placed is None and root is not None:
            self._placed = Placed(root)
        return self._placed

    @property
    def end(self) -> str:
        """Its final state, the first one told; empty while there is none."""
        for entry in self.topics.get("order_states", ()):
            if entry.type in FINAL:
                return FINAL[entry.type]
        return ""

    def done(self, gateway: str, operation: str) -> list[Deed]:
        """What a gateway did for it."""
        return [d for d in self.deeds.get(gateway, ()) if d.operation == operation]


class Shelf:
    """Everything the books tell of one SKU."""

    __slots__ = ("moves", "sku", "supplies")

    def __init__(self, sku: str) -> None:
        self.sku = sku
        self.moves: list[Entry] = []
        self.supplies: list[Entry] = []


class Orders:
    """The index of one Books; see the module."""

    def __init__(self, books: Books) -> None:
        self.books = books
        self.stories: dict[str, Story] = {}
        self.shelves: dict[str, Shelf] = {}
        self.ids: dict[bytes, Entry] = {}
        for topic in OF_ORDERS:
            self._tell(topic, books.topics.get(topic, ()))
        arrivals = books.topics.get("arrivals", ())
        self._tell("arrivals", arrivals, _OUTSIDE)
        self._stock(arrivals, _SUPPLY)
        self._stock(books.topics.get("stock", ()), frozenset({_MOVED}))
        self._ledgers()

    # Sorting ---------------------------------------------------------------------------------

    def _entry(self, fact: Fact) -> Entry | None:
        """The fact opened; None for a copy of one that was seen."""
        before = self.ids.get(fact.id)
        if before is None:
            entry = self.ids[fact.id] = Entry(fact)
            return entry
        known = before.fact
        same = known.topic == fact.topic and known.type == fact.type and known.value == fact.value
        return None if same else Entry(fact)

    def _story(self, order: str) -> Story:
        story = self.stories.get(order)
        if story is None:
            story = self.stories[order] = Story(order)
        return story

    def _tell(self, topic: str, facts: Iterable[Fact], types: frozenset[str] | None = None) -> None:
        """A topic's facts to their orders; of these types where any are named."""
        told: dict[str, list[Entry]] = {}
        for fact in facts:
            type_ = fact.type
            entry = self._entry(fact) if type_ and (types is None or type_ in types) else None
            if entry is None:
                continue
            found = told.get(fact.key)
            if found is None:
                told[fact.key] = [entry]
            else:
                found.append(entry)
        for order, entries in told.items():
            story = self._story(order)
            story.topics[topic] = entries
            story.last = max(story.last, entries[-1].fact.appended_at)

    def _stock(self, facts: Iterable[Fact], types: frozenset[str]) -> None:
        """What came in, and what moved, to their SKUs."""
        for fact in facts:
            entry = self._entry(fact) if fact.type in types else None
            if entry is not None:
                shelf = self.shelves.get(fact.key)
                if shelf is None:
                    shelf = self.shelves[fact.key] = Shelf(fact.key)
                (shelf.moves if fact.type == _MOVED else shelf.supplies).append(entry)

    def _ledgers(self) -> None:
        for gateway, ledger in self.books.ledgers.items():
            for deed in ledger.deeds:
                story = self._story(deed.order)
                story.deeds.setdefault(gateway, []).append(deed)
                story.last = max(story.last, deed.at)
            for call in ledger.calls:
                if call.order:
                    self._story(call.order).calls.setdefault(gateway, []).append(call)
            for mail in ledger.mails:
                story = self._story(mail.order)
                story.mails.append(mail)
                story.last = max(story.last, mail.at)

    # What the stores say ---------------------------------------------------------------------

    def documents(self, service: str, kind: str) -> Mapping[str, Document]:
        """A service's documents of a kind, by key."""
        return self._documents.get((service, kind), {})

    @cached_property
    def _documents(self) -> dict[tuple[str, str], dict[str, Document]]:
        found: dict[tuple[str, str], dict[str, Document]] = {}
        for service, store in self.books.stores.items():
            for document in store.documents:
                if document.body is not None:
                    found.setdefault((service, document.kind), {})[document.key] = document
        return found

    def shown(self, order: str) -> Shown | None:
        """The public document of an order; None: there is none, or it is no document."""
        if order not in self._shown:
            document = self.documents("order", "order").get(order)
            try:
                known = _SHOWN(document.body or b"") if document else None
            except msgspec.MsgspecError:
                known = None
            self._shown[order] = known
        return self._shown[order]

    @cached_property
    def _shown(self) -> dict[str, Shown | None]:
        return {}

    def handled(self, service: str, id_: bytes) -> Place | None:
        """Where in its order of handling a service handled an event; None: not (any more)."""
        return self._marks(service).get(id_)

    def _marks(self, service: str) -> dict[bytes, Place]:
        known = self._known_marks.get(service)
        if known is None:
            store = self.books.stores.get(service)
            rows = store.marks if store else ()
            known = self._known_marks[service] = {m.id: (m.txn, m.ordinal) for m in rows}
        return known

    @cached_property
    def _known_marks(self) -> dict[str, dict[bytes, Place]]:
        return {}

    @cached_property
    def held(self) -> dict[tuple[str, str], list[Held]]:
        """What waits or is parked, by service and key."""
        found: dict[tuple[str, str], list[Held]] = {}
        for service, store in self.books.stores.items():
            for row in store.held:
                found.setdefault((service, row.key), []).append(row)
        return found

    def parked(self, service: str, key: str) -> bool:
        """Has the service an open dead letter of this key?"""
        return any(row.state in PARKED for row in self.held.get((service, key), ()))

    @cached_property
    def open_asks(self) -> dict[str, list[tuple[str, Ask]]]:
        """Rows not carried out yet, timers aside, by key: the service and the row."""
        found: dict[str, list[tuple[str, Ask]]] = {}
        for service, store in self.books.stores.items():
            for ask in store.asks:
                if ask.settled_at is None and ask.destination != "clock":
                    found.setdefault(ask.key, []).append((service, ask))
        return found

    # Dead letters ----------------------------------------------------------------------------

    @cached_property
    def dead(self) -> dict[tuple[str, str], list[Entry]]:
        """What became of dead letters, by service and key."""
        found: dict[tuple[str, str], list[Entry]] = {}
        for service in SERVICES:
            for fact in self.books.topics.get(f"{service}.dead", ()):
                found.setdefault((service, fact.key), []).append(Entry(fact))
        return found

    def discarded(self, service: str, key: str) -> list[Entry]:
        """The dead letters of this key that a person gave up."""
        return [e for e in self.dead.get((service, key), ()) if e.type == "dead.discarded"]

    def given_up(self, service: str, fact: Fact) -> bool:
        """Is this record parked now, or was it discarded: a person's, not the service's?"""
        held = self.held.get((service, fact.key), ())
        if any(row.id == fact.id and row.state in PARKED for row in held):
            return True
        id_ = fact.id.hex()
        return any(e.body.get("event_id") == id_ for e in self.discarded(service, fact.key))

    # What may be demanded --------------------------------------------------------------------

    def horizon(self, *topics: str) -> int:
        """The time from which on all records of these topics are still there (0: all are)."""
        return max((self._horizons.get(topic, 0) for topic in topics), default=0)

    @cached_property
    def _horizons(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for (topic, partition), first in self.books.first.items():
            if first > 0:
                listed = (f for f in self.books.topics.get(topic, ()) if f.partition == partition)
                head = next(listed, None)
                if head is not None and head.offset > 0:
                    found[topic] = max(found.get(topic, 0), head.appended_at)
        return found

    def is_gone(self, fact: Fact) -> bool:
        """Has retention taken the record from its log (though it is listed)?"""
        return fact.offset < self.books.first.get((fact.topic, fact.partition), 0)

    def whole(self, story: Story) -> bool:
        """Is the whole story still in the logs?"""
        root = story.root
        return root is not None and root.fact.appended_at >= self._all_from

    @cached_property
    def _all_from(self) -> int:
        return self.horizon(*OF_ORDERS, "arrivals", "stock")

    def settled(self, story: Story) -> bool:
        """Must everything of this order have happened: its whole story is there, nothing of it
        is under way, and none of it waits for, or was given up by, a person?"""
        if story.settled is None:
            story.settled = (
                self.whole(story) and not self.moving(story) and not self.excused(story)
            )
        return story.settled

    def moving(self, story: Story) -> bool:
        """May something of it still be under way? Never where the system stands still."""
        if self.books.until is None:
            return False
        if story.last >= self.books.until or story.id in self.open_asks:
            return True
        if any(self.held.get((service, story.id)) for service in SERVICES):
            return True
        return self._with_the_carrier(story) or self._unread(story)

    def _with_the_carrier(self, story: Story) -> bool:
        """A parcel that was labelled and not delivered yet: that takes the carrier days."""
        kinds = {e.type for e in story.of("shipments")}
        if "shipment.delivered" in kinds or "fulfillment.cancelled" in kinds:
            return False
        return "shipment.labelled" in kinds or "shipment.dispatched" in kinds

    def _unread(self, story: Story) -> bool:
        """A record of it that one of its readers has not handled yet."""
        return any(
            entry.type in types and self.handled(service, entry.fact.id) is None
            for service, topics in READS.items()
            for topic, types in topics.items()
            for entry in story.of(topic)
        )

    def excused(self, story: Story) -> bool:
        """Is it a person's turn, or did a person end it otherwise than the services would?"""
        if story.id not in self._troubled:
            return False
        for service in _JUDGING:
            if self.parked(service, story.id):
                return True
            if service != "payment" and self.discarded(service, story.id):
                return True
        return bool(self.discarded("payment", story.id)) and any(
            e.body.get("kept", True) for e in story.of("payments", "payment.captured")
        )

    @cached_property
    def _troubled(self) -> set[str]:
        """Keys with any record that waits, is parked, or was."""
        return {key for _, key in self.held} | {key for _, key in self.dead}

    def young(self, entry: Entry) -> bool:
        """May what this fact goes with lie beyond what was read?"""
        return self.books.young(entry.fact.appended_at)


_latest: Orders | None = None


def index_of(books: Books) -> Orders:
    """The index of these books: the one just made where they are the same ones."""
    global _latest
    known = _latest
    if known is None or known.books is not books:
        known = _latest = Orders(books)
    return known
