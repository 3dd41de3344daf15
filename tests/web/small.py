"""A small flow, not about orders, behind a real gate, a SQLite store and an embedded log."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from penstock.catalog.model import JOURNAL, Catalog, Client, ServiceEntry, Team, Topic
from penstock.contracts.contract import Contract
from penstock.contracts.wire import Book
from penstock.decision import Context, Decision, Done, Emit, Ref, Service, States
from penstock.embedded.file import File
from penstock.engine.intake import Gate
from penstock.entry import Entry
from penstock.errors import NotFound
from penstock.event import Event, Message, Record, root_id
from penstock.flow import (
    Accepted,
    Call,
    Fault,
    Flow,
    Intake,
    Look,
    Panel,
    Reply,
    Route,
    Row,
    Scan,
    Table,
)
from penstock.log.embedded import EmbeddedLog
from penstock.ports import Advance, TopicSpec, Waiting
from penstock.store.sqlite import SqliteStore
from penstock.web.site import Site

NOW = 1_767_600_000_000


class Ticker:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> int:
        """The time it was set to."""
        return self.at


class PageIn(Struct, frozen=True, forbid_unknown_fields=True):
    """One page of a book."""

    number: Annotated[int, Meta(ge=1)]
    text: str = ""


class BookIn(Struct, frozen=True, forbid_unknown_fields=True):
    """A book as it is put on the shelf."""

    title: Annotated[str, Meta(min_length=1, max_length=200)]
    pages: tuple[PageIn, ...] = ()


class Many(Struct, frozen=True):
    """Books in bulk."""

    books: tuple[BookIn, ...]


class Shelved(Struct, frozen=True):
    """A book on the shelf."""

    id: str
    title: str
    digest: str = ""
    touched: int = 0


class BookShelved(Struct, frozen=True):
    """A book was put on the shelf."""

    title: str


def _ref(call: Call) -> Ref:
    return Ref("book", call.params.get("id") or call.idempotency_key)


def shelve(states: States, call: Call) -> Accepted:
    """Put a book on the shelf, once a key."""
    known: Shelved | None = states.get(_ref(call))
    if known is not None and known.digest != call.digest:
        fault = Fault(code="idempotency_key_reused", title="Reused", detail="Another book.")
        return Accepted(reply=Reply(status=422, body=fault))
    if known is not None:
        headers = {"Idempotent-Replayed": "true"}
        return Accepted(reply=Reply(status=202, body=known, headers=headers))
    book = Shelved(call.idempotency_key, call.body.title, call.digest)
    done = Done({_ref(call): book}, (Emit("books", BookShelved(book.title), book.id),))
    headers = {"Location": f"/books/{book.id}"}
    return Accepted(
        reply=Reply(status=202, body=book, headers=headers), done=done, root=(call.client, book.id)
    )


def touch(states: States, call: Call) -> Accepted:
    """Count a touch, with what was seen of the book elsewhere."""
    book: Shelved | None = states.get(_ref(call))
    if book is None:
        fault = Fault(code="book_unknown", title="Unknown", detail="No such book.", field="id")
        return Accepted(reply=Reply(status=404, body=fault))
    after = replace(book, touched=book.touched + 1)
    seen = {"touched": after.touched, "found": len(call.found["book"]), "may": list(call.may)}
    return Accepted(reply=Reply(status=202, body=seen), done=Done({_ref(call): after}))


def fill(states: States, call: Call) -> Accepted:
    """Take books in bulk."""
    return Accepted(reply=Reply(body={"taken": len(call.body.books)}))


def break_down(states: States, call: Call) -> Accepted:
    """A decide with a bug."""
    raise RuntimeError("a bug")


def _one(call: Call) -> dict[str, Scan]:
    return {"book": Scan(service="door", kind="book", key=call.params["id"], limit=1)}


def _show(call: Call, found: Mapping[str, list[Row]]) -> Reply:
    if not found["book"]:
        raise NotFound("book_unknown", "No such book.", field="id")
    return Reply(body=found["book"][0].body)


def _all(call: Call) -> dict[str, Scan]:
    return {"book": Scan(service="door", kind="book", newest_first=True)}


def _list(call: Call, found: Mapping[str, list[Row]]) -> Reply:
    return Reply(body={"books": [row.body for row in found["book"]], "next": None})


def _table(call: Call, found: Mapping[str, list[Row]]) -> Table:
    books = [(row.key, row.body) for row in found["book"]]
    rows = tuple(((key, f"/ui/book/{key}"), book.title, book.touched) for key, book in books)
    return Table(
        columns=("book", "title", "touched"), rows=rows,
        note="" if rows else "No books yet. Try: POST /books.",
    )


ROUTES = (
    Route(method="POST", path="/books", name="shelve_book", summary="Shelve a book.",
          does=Intake(needs=lambda call: (_ref(call),), decide=shelve), body=BookIn,
          example={"title": "Faust", "pages": [{"number": 1, "text": "Habe nun, ach"}]},
          needs_idempotency_key=True, reply=Shelved, replies={202: "Durable."}),
    Route(method="GET", path="/books", name="list_books", summary="All books.",
          does=Look(wants=_all, show=_list), query={"after": "Where to go on."}),
    Route(method="GET", path="/books/{id}", name="get_book", summary="One book.",
          does=Look(wants=_one, show=_show), reply=Shelved),
    Route(method="POST", path="/books/{id}/touch", name="touch_book", summary="Touch a book.",
          does=Intake(needs=lambda call: (_ref(call),), decide=touch, wants=_one),
          replies={202: "Durable."}),
    Route(method="PUT", path="/shelf", name="fill_shelf", summary="Many books at once.",
          does=Intake(needs=lambda call: (), decide=fill), body=Many, bulk=True,
          example={"books": []}, permission="fill"),
    Route(method="POST", path="/bug", name="bug", summary="A bug.",
          does=Intake(needs=lambda call: (), decide=break_down)),
)  # fmt: skip
PANELS = (
    Panel(name="latest", title="Latest books", wants=_all, table=_table),
    Panel(name="book", title="The book", wants=_one, table=_table, of="book"),
)


def _decide(states: States, event: Event, context: Context) -> Decision:
    return Done()


SERVICE = Service(
    name="reader", kind="seen", states={"seen": Shelved}, reads={"books": ("book.shelved",)},
    decide=_decide,
)
FLOW = Flow(
    name="library", services=(SERVICE,), door="door", door_states={"book": Shelved},
    contracts=(Contract(type="book.shelved", version=1, model=BookShelved),),
    routes=ROUTES, panels=PANELS,
)
CATALOG = Catalog(
    name="library", flow="tests.web.small:FLOW",
    teams={"books": Team(name="books", contacts=("desk@x",), on_call=("rosa",))},
    topics={
        "books": Topic(name="books", owner="books", producer="door", key="book", partitions=4),
        JOURNAL: Topic(name=JOURNAL, owner="books", producer="", key="key", partitions=4),
    },
    services={
        "door": ServiceEntry(name="door", owner="books"),
        "reader": ServiceEntry(name="reader", owner="books", reads=("books", JOURNAL)),
    },
    clients={"filler": Client(name="filler", may=("fill",))},
)


class Library:
    """The flow over a home folder, with what a test looks at."""

    def __init__(self, home: Path, **changes: Any) -> None:
        self.home, self.clock = home, Ticker()
        self.wishes: list[tuple[str, Entry]] = []
        specs = [
            TopicSpec(name="books", partitions=4, owner_file="door"),
            TopicSpec(name=JOURNAL, partitions=4),
        ]
        EmbeddedLog(home, specs).ensure(specs)
        self.store = SqliteStore(File(home / "door.db"), "door", direct=["books"])
        self.reader = SqliteStore(File(home / "reader.db"), "reader")
        self.gate = Gate(
            "door", FLOW.door_states, {}, Book(FLOW.contracts), self.store, self.clock
        )
        self._stores: dict[str, SqliteStore] = {}
        (home / "run" / "status").mkdir(parents=True)
        given: dict[str, Any] = {
            "flow": FLOW, "catalog": CATALOG, "home": home, "clock": self.clock,
            "log": EmbeddedLog(home, specs), "scan": self._scan, "gate": self.gate,
            "reports": lambda: [p.read_bytes() for p in (home / "run" / "status").glob("*.json")],
            "journal": lambda wish: self.wishes.append((wish.ACT, wish)),
        }
        self.site = Site(**given | changes)

    def _scan(self, what: Scan) -> list[Row]:
        if what.service not in self._stores:
            file = File(self.home / f"{what.service}.db", readonly=True)
            self._stores[what.service] = SqliteStore(file, what.service)
        rows = self._stores[what.service].scan(what)
        if what.table != "documents":
            return rows
        decode = msgspec.json.Decoder(Shelved).decode
        return [replace(row, body=decode(row.body)) for row in rows]

    def park(self, key: str, value: bytes, *, offset: int = 0, reason: str = "why") -> str:
        """Park a record of the reader; returns the dead letter's name."""
        id_ = root_id(NOW, key)
        message = Message(key, value, id_, "book.shelved", 1, NOW, b"", "", "door")
        record = Record("books", 1, offset, NOW, message)
        row = Waiting(
            record=record, state="parked", due=0, attempts=1, errors=((NOW + 5, reason),),
            kind="torn",
        )
        (claim,) = self.reader.claim([1], NOW)
        with self.reader.begin() as tx:
            tx.advance([Advance(1, claim.epoch, {"books": offset + 1})], NOW)
            tx.defer([row], [])
        return f"reader/books/1/{offset}"

    def report(self, **said: Any) -> None:
        """Write the reader's status file as its process would."""
        status = {"service": "reader", "pid": os.getpid(), "at": self.clock.now(), **said}
        (self.home / "run" / "status" / "reader.json").write_text(json.dumps(status))
