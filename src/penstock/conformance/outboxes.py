"""What every store must do to its rows: outbox, timers, waiting records, and what is pruned."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from penstock.conformance.scenario import NOW, Suite, message, refused
from penstock.conformance.stores import (
    ANSWERS,
    FOLDED,
    Owner,
    StoreFixture,
    ask,
    bodies,
    ids,
    record,
    scan,
    seen,
    sheet,
)
from penstock.errors import StaleOwner
from penstock.event import Message
from penstock.ports import Due, Outgoing, Settled, Store, Waiting, courier_lane

outboxes = Suite[StoreFixture]()
CLOCK = "clock"  # the built-in gateway whose rows are timers


class Courier:
    """A courier in small: it claims its lane and settles rows."""

    def __init__(self, store: Store) -> None:
        self.store = store
        lanes = {courier_lane(shard): shard for shard in range(store.features.shards)}
        self.epochs = {lanes[c.lane]: c.epoch for c in store.claim(list(lanes), NOW)}

    def due(self, gateway: str = "press", now: int = NOW, known: Sequence[int] = ()) -> list[Due]:
        """Up to a hundred rows of a gateway."""
        return self.store.due(gateway, now, known, 100)

    def settle(self, *rows: Settled) -> None:
        """Settle under the courier's own epoch."""
        self.store.settle(self.epochs, rows, ANSWERS, NOW + 50)

    def close(self, *rows: Due) -> None:
        """Close rows as done, each with its answer."""
        self.settle(*(Settled(r.id, "ok", answer(r), attempts=1, shard=r.shard) for r in rows))


def answer(row: Due) -> Message:
    """The answer to a row, told by its name."""
    return message(row.message.key, row.name, type="answer", cause=row.message.id)


def send(store: Store, *rows: Outgoing, offset: int = 1) -> set[str]:
    """One transaction that sends rows only."""
    with Owner(store).turn(offset) as tx:
        return tx.send(rows, NOW)


def tried(row: Due, retry_at: int, attempts: int, error: str) -> Settled:
    """A row that was tried and stays open."""
    return Settled(row.id, "", None, retry_at, attempts, error, row.shard)


def names(rows: Sequence[Due]) -> list[str]:
    """Rows by the names of their asks."""
    return [row.name for row in rows]


@outboxes.scenario()
def a_topic_and_a_gateway_may_share_a_name(fixture: StoreFixture) -> None:
    """Rows to the topic are not the gateway's: an event is no call, and a call no event."""
    store = fixture.open()
    send(store, ask("k", "call", "press"), Outgoing("press", True, message("k", "printed")))
    (call,) = Courier(fixture.open()).due("press")
    (event,) = store.due("press", NOW, (), 100, is_topic=True)
    assert (call.name, call.is_topic) == ("call", False)
    assert (event.message, event.is_topic) == (message("k", "printed"), True)


@outboxes.scenario()
def rows_are_due_in_order(fixture: StoreFixture) -> None:
    """A gateway's rows come in the order sent, over many commits, and only its own."""
    store = fixture.open()
    for n in range(5):
        send(store, *(ask(f"k{k}", f"{n}/{k}", "press" if k < 3 else "scales") for k in range(6)))
    courier = Courier(fixture.open())
    assert names(courier.due()) == [f"{n}/{k}" for n in range(5) for k in range(3)]
    assert names(courier.due("scales")) == [f"{n}/{k}" for n in range(5) for k in range(3, 6)]
    assert courier.due("nobody") == []
    found = [row.id for row in courier.due()]
    assert found == sorted(set(found))


@outboxes.scenario()
def a_due_row_tells_all(fixture: StoreFixture) -> None:
    """A row comes out as it was sent, with when it was made and never tried."""
    sent = ask("k0", "fold")
    hints = send(fixture.open(), sent, Outgoing(FOLDED, True, message("k0")))
    assert hints == {"press", FOLDED}
    (row,) = fixture.open().due("press", NOW, (), 10)
    assert row == Due(
        id=row.id, destination="press", is_topic=False, message=sent.message, name="fold",
        idempotency_key="press:k0:fold", due=0, attempts=0, retry_at=0, made_at=NOW,
        shard=row.shard, origin=row.origin,
    )
    assert row.origin.txn > 0
    assert row.origin.epoch > 0


@outboxes.scenario()
def due_rows_are_paged(fixture: StoreFixture) -> None:
    """``known`` and ``limit`` walk through all rows without a gap or a repeat."""
    store = fixture.open()
    send(store, *(ask(f"k{n}", str(n)) for n in range(25)))
    found: list[Due] = []
    while page := store.due("press", NOW, [row.id for row in found], 4):
        assert len(page) <= 4
        found += page
    assert names(found) == [str(n) for n in range(25)]


@outboxes.scenario()
def timers_are_due_in_their_order(fixture: StoreFixture) -> None:
    """The clock's rows come by due time, equal times as sent, none before its time."""
    store, dues = fixture.open(), (500, 100, 300, 100, 900)
    send(store, *(ask("k0", f"{n}/{due}", CLOCK, NOW + due) for n, due in enumerate(dues)))
    courier = Courier(store)
    assert courier.due(CLOCK, NOW + 99) == []
    assert names(courier.due(CLOCK, NOW + 100)) == ["1/100", "3/100"]
    assert names(courier.due(CLOCK, NOW + 500)) == ["1/100", "3/100", "2/300", "0/500"]
    assert names(store.due(CLOCK, NOW + 900, (), 3)) == ["1/100", "3/100", "2/300"]
    courier.close(*courier.due(CLOCK, NOW + 300))
    assert names(courier.due(CLOCK, NOW + 900)) == ["0/500", "4/900"]


@outboxes.scenario()
def closing_a_row_sends_its_answer(fixture: StoreFixture) -> None:
    """A closed row is due no more, its answer is promised, the row can still be looked up."""
    send(fixture.open(), ask("k0", "fold"), ask("k1", "fold"), ask("k0", "seal", "wax"))
    courier = Courier(fixture.open())
    first, second = courier.due()
    courier.close(first)
    assert courier.due() == [second]
    assert fixture.promised(ANSWERS) == [answer(first)]
    rows = scan(fixture.open(), "asks", key="k0")
    assert [(r.kind, r.key) for r in rows] == [("press", "k0"), ("wax", "k0")]
    assert rows[0].label == "ok"
    assert rows[1].label != "ok"


@outboxes.scenario()
def a_row_is_closed_once(fixture: StoreFixture) -> None:
    """Settling a closed row again neither reopens it nor answers twice."""
    send(fixture.open(), ask("k0", "fold"))
    courier = Courier(fixture.open())
    (row,) = courier.due()
    courier.close(row)
    courier.close(row)
    courier.settle(Settled(row.id, "refused", answer(row), shard=row.shard))
    courier.settle(tried(row, NOW + 1000, 2, "late"))
    assert courier.due(now=NOW + 5000) == []
    assert fixture.promised(ANSWERS) == [answer(row)]
    (found,) = scan(fixture.open(), "asks", key="k0")
    assert found.label == "ok"


@outboxes.scenario()
def a_row_may_close_without_an_answer(fixture: StoreFixture) -> None:
    """A row carried to a topic has nobody to answer."""
    send(fixture.open(), ask("k0", "fold"))
    courier = Courier(fixture.open())
    courier.settle(*(Settled(row.id, "ok", attempts=1, shard=row.shard) for row in courier.due()))
    assert courier.due() == []
    assert fixture.promised(ANSWERS) == []


@outboxes.scenario()
def answers_come_in_order(fixture: StoreFixture) -> None:
    """Answers of one key are promised in the order they were settled in."""
    send(fixture.open(), *(ask(f"k{n % 3}", str(n)) for n in range(30)))
    courier = Courier(fixture.open())
    rows = courier.due()
    for start in range(0, 30, 10):
        courier.close(*rows[start : start + 10])
    found = sorted(fixture.promised(ANSWERS), key=lambda m: m.key)
    by_key = {k: [int(m.value) for m in group] for k, group in groupby(found, lambda m: m.key)}
    assert by_key == {f"k{k}": list(range(k, 30, 3)) for k in range(3)}


@outboxes.scenario()
def a_failed_try_is_remembered(fixture: StoreFixture) -> None:
    """A row to be tried again stays due in its place, its tries and next time kept."""
    send(fixture.open(), ask("k0", "fold"), ask("k0", "seal"))
    courier = Courier(fixture.open())
    first, second = courier.due()
    for tries in (1, 2, 3):
        courier.settle(tried(first, NOW + 100 * tries, tries, "no paper"))
        found = Courier(fixture.open()).store.due("press", NOW, (), 10)
        assert names(found) == ["fold", "seal"]
        assert (found[0].attempts, found[0].retry_at) == (tries, NOW + 100 * tries)
        courier = Courier(fixture.open())
    assert found[1] == second
    assert fixture.promised(ANSWERS) == []
    courier.close(*courier.due())
    assert courier.due() == []


@outboxes.scenario("survives_restart")
def a_restart_keeps_rows(fixture: StoreFixture) -> None:
    """Open rows, timers, tries and closed rows outlive the process."""
    send(fixture.open(), ask("k0", "fold"), ask("k1", "fold"), ask("k0", "wake", CLOCK, NOW + 5))
    courier = Courier(fixture.open())
    first, second = courier.due()
    courier.close(first)
    courier.settle(tried(second, NOW + 9, 4, "jammed"))
    fixture.restart()
    courier = Courier(fixture.open())
    assert [(r.name, r.attempts, r.retry_at) for r in courier.due()] == [("fold", 4, NOW + 9)]
    assert names(courier.due(CLOCK, NOW + 5)) == ["wake"]
    assert fixture.promised(ANSWERS) == [answer(first)]
    assert len(scan(fixture.open(), "asks", key="k0")) == 2


@outboxes.scenario()
def a_stale_courier_settles_nothing(fixture: StoreFixture) -> None:
    """A courier whose lane was claimed anew closes no row and answers nobody."""
    send(fixture.open(), ask("k0", "fold"), ask("k1", "fold"))
    old, new = Courier(fixture.open()), Courier(fixture.open())
    refused(StaleOwner, old.close, *old.due())
    assert len(new.due()) == 2
    assert fixture.promised(ANSWERS) == []
    new.close(*new.due())
    assert len(fixture.promised(ANSWERS)) == 2


@outboxes.scenario()
def what_is_promised_keeps_its_order(fixture: StoreFixture) -> None:
    """Messages for a topic are promised in order per key, with their envelope."""
    store = fixture.open()
    sent = [
        Message(f"k{n % 3}", b"%d" % n, id=ids(str(n))[0], type="a.folded", version=2, at=NOW,
                cause=bytes(16), trace="t", source="/s", notes={"n": "x"})
        for n in range(30)
    ]
    for start in range(0, 30, 7):
        send(store, *(Outgoing(FOLDED, True, m) for m in sent[start : start + 7]))
    found = fixture.promised(FOLDED)
    assert {m.id: m for m in found} == {m.id: m for m in sent}
    for key in ("k0", "k1", "k2"):
        assert [m for m in found if m.key == key] == [m for m in sent if m.key == key]


@outboxes.scenario()
def records_wait_and_go(fixture: StoreFixture) -> None:
    """Waiting records are found by key and by state, replaced by position, and dropped."""
    owner = Owner(fixture.open())
    story = ((NOW, "no paper"), (NOW + 1, "nö"))
    first = Waiting(record=record(1, "a"), state="waiting", due=NOW + 9, attempts=2, errors=story,
                    deaths=1)
    parked = Waiting(record=record(2, "b"), state="parked", due=0, attempts=3, kind="bad_paper")
    aside = Waiting(record=record(2, "b", "replies"), state="aside", due=0, attempts=0)
    with owner.turn(3) as tx:
        tx.defer([first, parked, aside], [])
    assert [r.body for r in scan(owner.store, "waiting", key="a")] == [first]
    assert [r.body for r in scan(owner.store, "waiting", label="parked")] == [parked]
    assert {r.label for r in scan(owner.store, "waiting", key="b")} == {"parked", "aside"}
    later = Waiting(record=record(1, "a"), state="parked", due=0, attempts=4)
    with owner.turn(4) as tx:
        tx.defer([later], [parked.record])
    found = [r.body for r in scan(fixture.open(), "waiting")]
    assert sorted(found, key=lambda w: w.record.topic) == [later, aside]


@outboxes.scenario("survives_restart")
def a_restart_keeps_waiting_records(fixture: StoreFixture) -> None:
    """A waiting record outlives the process, bytes and all."""
    waiting = Waiting(record=record(1), state="waiting", due=NOW + 9, attempts=2)
    with Owner(fixture.open()).turn(2) as tx:
        tx.defer([waiting], [])
    fixture.restart()
    assert [r.body for r in scan(fixture.open(), "waiting")] == [waiting]


def handle(owner: Owner, name: str, offset: int) -> None:
    """One commit that marks an event, writes a document and asks for a call."""
    with owner.turn(offset) as tx:
        tx.mark(ids(name))
        tx.save([sheet(name)])
        tx.send([ask(name, "fold")], NOW)


def asked(store: Store, name: str) -> bool:
    """Whether the row of ``handle`` is still kept."""
    return bool(scan(store, "asks", key=name))


@outboxes.scenario()
def pruning_forgets_what_no_log_holds(fixture: StoreFixture) -> None:
    """Marks and closed rows go once every record they answer for is out of the logs' reach;
    what was handled later, open rows and documents stay."""
    store = fixture.open()
    owner = Owner(store)
    handle(owner, "open", 5)
    handle(owner, "first", 10)
    courier = Courier(store)
    courier.close(*(row for row in courier.due() if row.message.key == "first"))
    store.prune({}, NOW + 60)
    handle(owner, "second", 20)
    courier.close(*(row for row in courier.due() if row.message.key == "second"))
    while store.prune({("letters", 0): 10}, NOW + 61):
        pass
    assert seen(store, "open", "first", "second") == {"second"}
    assert [asked(store, name) for name in ("open", "first", "second")] == [True, False, True]
    assert names(courier.due()) == ["fold"]
    assert bodies(store, "open", "first", "second").keys() == {"open", "first", "second"}


@outboxes.scenario()
def pruning_keeps_what_may_come_again(fixture: StoreFixture) -> None:
    """While a log still holds one record below a position, the marks behind it stay."""
    store = fixture.open()
    owner = Owner(store, 0, 1)
    handle(owner, "first", 10)
    store.prune({}, NOW + 60)
    for floors in ({}, {("letters", 0): 9, ("letters", 1): 10}, {("letters", 0): 10}):
        assert store.prune(floors, NOW + 61) == 0
        assert seen(store, "first") == {"first"}
    assert store.prune({("letters", 0): 10, ("letters", 1): 10}, NOW + 62) > 0
    assert seen(store, "first") == set()


@outboxes.scenario()
def pruning_stays_in_its_namespace(fixture: StoreFixture) -> None:
    """One namespace's pruning forgets nothing of another's."""
    live, shadow = fixture.open(), fixture.open(namespace="rebuild")
    for store in (live, shadow):
        handle(Owner(store), "first", 10)
        store.prune({}, NOW + 60)
    live.prune({("letters", 0): 10}, NOW + 61)
    assert (seen(live, "first"), seen(shadow, "first")) == (set(), {"first"})


@outboxes.scenario()
def ids_of_rows_are_never_given_again(fixture: StoreFixture) -> None:
    """A courier's ``after`` stays good over pruning: later rows have higher ids."""
    store = fixture.open()
    owner, courier = Owner(store), Courier(store)
    latest = 0
    for n in range(1, 4):
        handle(owner, f"e{n}", n)
        (row,) = courier.due()
        assert row.id > latest
        latest = row.id
        courier.close(row)
        store.prune({("letters", 0): n}, NOW + n)
        store.prune({("letters", 0): n}, NOW + n)
