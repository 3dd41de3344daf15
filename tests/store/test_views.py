"""What an analyst reads with plain SQL."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Literal

import msgspec
from msgspec import Struct

from penstock.conformance.scenario import NOW, refused
from penstock.conformance.stores import Owner, ask, record, sheet
from penstock.decision import Done, Ref, Service
from penstock.errors import Conflict
from penstock.flow import Flow
from penstock.ports import Saved, Waiting
from penstock.store import migrate
from penstock.store.postgres import PostgresStore
from penstock.store.postgres_views import view_name

Opened = Callable[..., PostgresStore]
Look = Callable[..., list[tuple[Any, ...]]]
AT = datetime.fromtimestamp(NOW / 1000, UTC)


class Colour(Enum):
    """Of a sheet."""

    RED = "red"


class Fold(Struct):
    """A part of a state."""

    n: int


class Sheet(Struct, kw_only=True):
    """A state with a field of each type."""

    title: str
    folds: int = 0
    width: float = 1.5
    price: Decimal | None = None
    torn: bool = False
    cut_at: int = 0
    seen: datetime | None = None
    day: date | None = None
    colour: Colour = Colour.RED
    form: Literal["a4", "a5"] = "a4"
    parts: tuple[Fold, ...] = ()
    key: str = ""
    quoted: str = msgspec.field(default="", name="Quo'ted name")


class Shelf(Struct, array_like=True):
    """A state kept as an array."""

    name: str
    room: int = 0


class ShorterSheet(Struct, kw_only=True):
    """The state in a later version, a field fewer and one of another type."""

    title: int
    folds: int = 0


def flow(state: type = Sheet) -> Flow:
    """A flow with two services and a door."""
    folding = Service(
        name="folding", kind="sheet", states={"sheet": state, "shelf": Shelf}, reads={},
        decide=lambda states, event, context: Done(),
    )
    return Flow(
        name="paper", services=(folding,), contracts=(), door="front-door",
        door_states={"visit": Shelf},
    )


def test_each_kind_has_a_view_with_a_column_per_field(
    where: str, opened: Opened, look: Look
) -> None:
    """In proper types; times are times; what is no plain value is JSON."""
    migrate.apply(where, flow())
    full = Sheet(
        title="Ä", folds=2, price=Decimal("2.50"), torn=True, cut_at=NOW, seen=AT, day=AT.date(),
        parts=(Fold(1), Fold(2)), key="k", quoted="q",
    )
    Owner(opened()).save(
        Saved(Ref("sheet", "a"), msgspec.json.encode(full), "open"),
        Saved(Ref("sheet", "b"), msgspec.json.encode(Sheet(title="b")), None),
        Saved(Ref("sheet", "gone"), None, None),
        Saved(Ref("shelf", "s"), msgspec.json.encode(Shelf("s", 3)), None),
    )
    rows = look(
        'SELECT key, label, title, folds, width, price, torn, cut_at, seen, day, colour, form,'
        ' parts, key_, quoted FROM folding_sheet ORDER BY key'
    )
    assert rows[0] == (
        "a", "open", "Ä", 2, 1.5, Decimal("2.50"), True, AT, AT, AT.date(), "red", "a4",
        [{"n": 1}, {"n": 2}], "k", "q",
    )
    assert rows[1][:3] == ("b", None, "b")
    assert len(rows) == 2
    assert look("SELECT namespace, key, name, room FROM folding_shelf") == [("live", "s", "s", 3)]
    assert look("SELECT count(*) FROM front_door_visit") == [(0,)]


def test_views_follow_the_flow(where: str, opened: Opened, look: Look) -> None:
    """A kind that changed gets its view anew; made twice nothing happens."""
    migrate.apply(where, flow())
    assert migrate.apply(where, flow()) == []
    Owner(opened()).save(Saved(Ref("sheet", "a"), b'{"title": 7, "folds": 1}', None))
    look("GRANT SELECT ON folding_sheet TO pg_monitor, PUBLIC")
    migrate.apply(where, flow(ShorterSheet))
    assert look("SELECT has_table_privilege('pg_monitor', 'folding_sheet', 'SELECT')") == [(True,)]
    assert look("SELECT title, folds FROM folding_sheet") == [(7, 1)]
    names = [name for (name,) in look(
        "SELECT column_name::text FROM information_schema.columns"
        " WHERE table_name = 'folding_sheet' ORDER BY ordinal_position"
    )]  # fmt: skip
    assert names == ["namespace", "key", "label", "txn", "title", "folds"]


def test_a_view_that_others_build_on_is_not_dropped(where: str, look: Look) -> None:
    migrate.apply(where, flow())
    look("CREATE VIEW mine AS SELECT title FROM folding_sheet")
    error = refused(Conflict, migrate.apply, where, flow(ShorterSheet))
    assert error.code == "view_in_use"
    assert "mine" in str(error)


def test_the_names_of_views_need_no_quotes() -> None:
    assert view_name("front-door", "Visit") == "front_door_visit"
    assert len(view_name("x" * 50, "y" * 50)) == 63


def test_lanes_rows_and_waiting_records_are_shown(opened: Opened, look: Look) -> None:
    """The generic views, with times as times."""
    store = opened()
    with Owner(store).turn(7) as tx:
        tx.save([sheet("a", b'{"n": 1}', "open"), sheet("odd", b"\xff")])
        tx.send([ask("a", "fold")], NOW)
        story = ((NOW, "no paper"), (NOW + 1, "still none"))
        tx.defer(
            [Waiting(record=record(3), state="waiting", due=NOW, attempts=2, errors=story)], []
        )
    store.claim([-1, -11, -2], NOW)
    assert look("SELECT service, namespace, kind, key, label, body FROM documents_json"
                " ORDER BY key") == [
        ("folding", "live", "sheet", "a", "open", {"n": 1}),
        ("folding", "live", "sheet", "odd", None, None),
    ]  # fmt: skip
    assert look("SELECT destination, key, name, made_at, outcome, settled_at FROM outbox_log") == [
        ("press", "a", "fold", AT, "open", None)
    ]
    assert look("SELECT topic, partition, \"offset\", key, state, due_at, attempts, last_error,"
                " appended_at FROM waiting_now") == [
        ("letters", 0, 3, "k0", "waiting", AT, 2, "still none", AT)
    ]  # fmt: skip
    assert look("SELECT lane, owner, topic, position FROM lanes ORDER BY lane DESC") == [
        (0, "worker", "letters", 7), (-1, "courier", None, None), (-2, "intake", None, None),
        (-11, "courier", None, None),
    ]  # fmt: skip
