"""Failures that other systems published, as cases of ours: those of a broker and a database.

R6 needs three nodes and is in test_faults_nodes.py. R1, R2 and R14 are in tests/disk, R15 and R16
in tests/crash, those of one machine's engine in tests/engine.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

import psycopg
import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from penstock import assemble
from penstock.catalog.model import KafkaSettings
from penstock.conformance.scenario import NOW
from penstock.conformance.stores import SERVICE, Owner, bodies, ids, sheet
from penstock.decision import Ref
from penstock.embedded.rows import message_bytes
from penstock.engine import cuts
from penstock.engine.courier import Courier
from penstock.errors import StaleOwner
from penstock.event import Message, slot_of
from penstock.log.kafka import KafkaLog
from penstock.ports import SHARDS, Advance, Outgoing
from penstock.sim.servers.proxy import CLIENT_UNHEARD, PASS, Proxy, cut_at
from penstock.store import migrate
from penstock.store.postgres import PostgresStore
from tests.engine.tally import Orders, Step, steps, tally, tally_rig
from tests.flows.ground import HastyClock, Servers
from tests.flows.rig import HandPool, Rig, Scripted
from tests.store.conftest import in_thread
from tests.support import eventually, unused_port

KEYS = tuple(f"k{n}" for n in range(12))
ROW = (
    "INSERT INTO penstock.outbox(scope, destination, is_topic, shard, key, name, idempotency_key,"
    " due, made_at, message, txn, epoch)"
    " VALUES(%s, 'sums', true, %s, %s, '', '', 0, 1, %s, nextval('penstock.txns'), 1) RETURNING id"
)


class Way(NamedTuple):
    """A broker and a database that is reached through a proxy; ``direct`` goes past it."""

    servers: Servers
    proxy: Proxy
    direct: str


class Died(BaseException):
    """What a process does not survive."""


class Fall:
    """Does something once, at a cut point."""

    def __init__(self, do: Callable[[], object]) -> None:
        self._do, self.done = do, False

    def fall(self) -> None:
        """The point is passed."""
        if not self.done:
            self.done = True
            self._do()


def dies() -> None:
    """The process ends here."""
    raise Died


@pytest.fixture
def way(dsn: str, kafka: str, prefix: str) -> Iterator[Way]:
    """A migrated database behind a proxy, and the run's broker."""
    given = conninfo_to_dict(dsn)
    with Proxy(f"{given['host']}:{given['port']}") as proxy:
        through = make_conninfo(dsn, host="127.0.0.1", port=proxy.port)
        servers = Servers(through, kafka, prefix, [])
        migrate.apply(dsn, None)
        try:
            yield Way(servers, proxy, dsn)
        finally:
            cuts.uninstall()
            proxy.set(PASS)
            servers.close()


def at(point: str, do: Callable[[], object]) -> Fall:
    """Do this the first time that the point is passed."""
    fall = Fall(do)
    cuts.install({point: [fall]})
    return fall


def numbers(rig: Rig, key: str) -> list[int]:
    """The numbers that a key told, copies of one event once."""
    once = {r.message.id: r.message for r in rig.records("sums") if r.message.key == key}
    return [rig.book.open(m.type, m.version, m.value).n for m in once.values()]


def told(key: str, n: int) -> Message:
    """An event that a key tells."""
    id_ = f"{key}/{n}".encode().rjust(16)
    return Message(key, b'{"n":%d,"total":0}' % n, id_, "sum.told", 1, NOW)


def new_rig(servers: Servers, **how: object) -> Rig:
    """The service that writes down what it handled, on real servers and in real time."""
    return tally_rig(servers, clock=HastyClock(), **how)  # type: ignore[arg-type]


@pytest.mark.parametrize("end", ["commit", "abort"])
def test_r3_a_late_commit_or_abort_touches_no_later_transaction(way: Way, end: str) -> None:
    """What ends a transaction is held on its way while another owner claims the lane and commits.
    When it comes through it is refused, and neither ends nor changes anything else."""
    late = PostgresStore(way.servers.dsn, SERVICE)
    owner = Owner(late)
    owner.save(sheet("mine", b"before"))

    def ends_late() -> None:
        with suppress(StaleOwner, ZeroDivisionError), owner.turn(3) as tx:
            tx.load([Ref("sheet", "nobody's")])
            tx.save([sheet("a", b"late")])
            tx.mark(ids("late"))
            way.proxy.set(CLIENT_UNHEARD)
            if end == "abort":
                raise ZeroDivisionError

    thread, failures = in_thread(ends_late)
    eventually(lambda: way.proxy.fault == CLIENT_UNHEARD)
    other = PostgresStore(way.direct, SERVICE)
    winner = Owner(other)
    winner.save(sheet("a", b"in time"), offset=5)
    way.proxy.set(PASS)
    thread.join()
    assert failures == []
    expected = {"a": b"in time", "mine": b"before"}
    assert bodies(other, "a", "mine") == expected
    with winner.turn(6) as tx:
        assert tx.load([], ids("late")).seen == frozenset()
    again = Owner(late)
    assert again.claims[0].positions == {"letters": 6}
    again.save(sheet("b"), offset=7)
    assert bodies(other, "a", "mine", "b") == {**expected, "b": b"{}"}
    late.close()
    other.close()


def test_r4_an_append_that_is_repeated_has_one_effect(way: Way) -> None:
    """A courier dies between the append and closing its row; its successor appends again."""
    gateways = {"press": ({}, Scripted())}
    rig = new_rig(way.servers, gateways=gateways)
    rig.append("steps", ("k", Step(n=1, ask=("press",))))
    answers = lambda: [r.message.id for r in rig.records("tally.answers")]  # noqa: E731
    sent = Fall(dies)

    def falls() -> None:
        if answers():
            sent.fall()

    cuts.install({"courier.sent": [_Always(falls)]})
    with pytest.raises(Died):
        rig.run()
    rig.start("tally")
    rig.run()
    assert len(answers()) == 2
    assert len(set(answers())) == 1
    assert tally(rig, "k").answers == ("press-1:ok",)
    assert rig.workers["tally"].counts.duplicates == 1


class _Always:
    """Does something whenever a point is passed."""

    def __init__(self, do: Callable[[], None]) -> None:
        self.fall = do


@pytest.mark.parametrize("passed", [True, False], ids=["passed", "not passed"])
def test_r5_a_commit_that_told_an_error_is_handled_once(way: Way, passed: bool) -> None:
    """The connection is cut at the commit. Whether it passed the store tells at the next claim:
    then nothing is decided again; else all of it is, and one effect is left of it."""
    orders = Orders()
    rig = new_rig(way.servers, orders=orders)
    cut = at("worker.before_commit", lambda: way.proxy.set(cut_at(b"COMMIT", forwarded=passed)))
    rig.append("steps", *(("k", Step(n=n, tell=True)) for n in range(5)))
    # A worker whose store does not answer stands still for a moment, and then goes on by itself.
    eventually(lambda: steps(rig.run(), "k") == (0, 1, 2, 3, 4), 30)
    assert cut.done
    assert way.proxy.cuts == 1
    assert numbers(rig, "k") == [0, 1, 2, 3, 4]
    first = [n for _, n in orders.said]
    assert first == [0, 1, 2, 3, 4] if passed else len(first) > 5


def test_r7_a_lane_goes_on_where_the_store_says_and_not_where_a_client_has_read(
    way: Way,
) -> None:
    """A member reads far ahead and handles little; Kafka's own position is even at the end."""
    rig = new_rig(way.servers, batch=10)
    rig.append("steps", *((key, Step(n=n)) for n in range(10) for key in KEYS))
    member = rig.workers["tally"]
    eventually(lambda: member.step(rig.clock.now()).records >= 10, 30)
    member.leave()
    handled = member.counts.handled
    assert handled < 10 * len(KEYS)
    name, group = f"{way.servers.prefix}steps", f"{way.servers.prefix}tally"
    ends = [e.next for e in rig.log.extent("steps")]
    tool = Consumer({"bootstrap.servers": way.servers.kafka, "group.id": group})
    tool.commit(
        offsets=[TopicPartition(name, p, end) for p, end in enumerate(ends)], asynchronous=False
    )
    tool.close()
    rig.start("tally")
    rig.run()
    assert {key: steps(rig, key) for key in KEYS} == dict.fromkeys(KEYS, tuple(range(10)))
    assert rig.workers["tally"].counts.handled == 10 * len(KEYS) - handled
    assert rig.workers["tally"].counts.duplicates == 0


def test_r8_rows_of_a_slow_transaction_are_carried_after_those_of_a_fast_one(way: Way) -> None:
    """The slow one has the lower ids. Who remembered the last id that was carried would lose
    them all."""
    rig = new_rig(way.servers)
    store = rig.stores["tally"]
    store.session()
    with psycopg.connect(way.direct) as slow:
        lowest = [_insert(slow, store.scope, key, 1) for key in KEYS]
        send(store, *(told(key, 2) for key in KEYS))
        carry(rig)
        assert {key: numbers(rig, key) for key in KEYS} == {key: [2] for key in KEYS}
        assert max(lowest) < min(row[0] for row in open_or_closed(way.direct, "closed"))
        slow.commit()
    carry(rig)
    assert {key: sorted(numbers(rig, key)) for key in KEYS} == {key: [1, 2] for key in KEYS}
    assert open_or_closed(way.direct, "open") == []


def _insert(slow: psycopg.Connection[object], scope: int, key: str, n: int) -> int:
    """A row of a transaction that is not over."""
    values = [scope, slot_of(key) % SHARDS, key, message_bytes(told(key, n))]
    (id_,) = slow.execute(ROW, values).fetchone()  # type: ignore[misc]
    return int(id_)


def test_r9_rows_leave_in_order_are_closed_when_sent_and_none_is_lost_among_couriers(
    way: Way,
) -> None:
    """Two couriers share the shards. Nothing can be sent at first, and no row is closed; then one
    of them dies after an append, and another takes its shards over."""
    rig = new_rig(way.servers)
    store, expected = rig.stores["tally"], list(range(20))
    for n in expected:
        send(store, *(told(key, n) for key in KEYS))
    nobody = KafkaSettings(servers=f"127.0.0.1:{unused_port()}", prefix=way.servers.prefix)
    away = KafkaLog(nobody, assemble.specs(rig.catalog), seconds=0.5)
    even, odd = frozenset(range(0, SHARDS, 2)), frozenset(range(1, SHARDS, 2))
    for shards in (even, odd):
        idle = new_courier(rig, shards, log=away)
        assert idle.step(rig.clock.now()).blocked
    away.close()
    assert len(open_or_closed(way.direct, "open")) == len(KEYS) * len(expected)
    mortal, other = new_courier(rig, even), new_courier(rig, odd)
    at("courier.sent", dies)
    with pytest.raises(Died):
        mortal.step(rig.clock.now())
    assert len(open_or_closed(way.direct, "open")) == len(KEYS) * len(expected)
    heir = new_courier(rig, even)
    while heir.step(rig.clock.now()).settled + other.step(rig.clock.now()).settled:
        pass
    assert {key: numbers(rig, key) for key in KEYS} == dict.fromkeys(KEYS, expected)
    assert open_or_closed(way.direct, "open") == []
    sent = defaultdict(list)
    for record in rig.records("sums"):
        sent[record.message.id].append(record)
    assert {len(copies) for copies in sent.values()} == {1, 2}


def test_r12_partitions_that_somebody_adds_in_the_middle_stop_the_lane(way: Way) -> None:
    """Their records would be lost, or overtake those of their keys. Nothing is handled from then
    on, and the worker says so; what was handled stays."""
    rig = new_rig(way.servers)
    rig.append("steps", *((key, Step(n=1)) for key in KEYS))
    rig.run()
    name = f"{way.servers.prefix}steps"
    admin = AdminClient({"bootstrap.servers": way.servers.kafka})
    admin.create_partitions([NewPartitions(name, 8)])[name].result(20)
    member = rig.workers["tally"]

    def trouble() -> str:
        member.step(rig.clock.now())
        return member.trouble.get("log", "")

    said = eventually(trouble, 30, what="the worker says that it stands")
    assert "8 partitions, not 4" in said
    rig.append("steps", *((key, Step(n=2)) for key in KEYS))
    handled = member.counts.handled
    for _ in range(20):
        assert member.step(rig.clock.now()).records == 0
    assert member.counts.handled == handled == len(KEYS)
    assert {key: steps(rig, key) for key in KEYS} == dict.fromkeys(KEYS, (1,))


# Rows by hand ------------------------------------------------------------------------------------


def send(store: PostgresStore, *messages: Message) -> None:
    """One transaction that sends these to the topic of sums."""
    (claim,) = store.claim([0], NOW)
    with store.begin() as tx:
        tx.advance([Advance(0, claim.epoch, {})], NOW)
        tx.send([Outgoing("sums", True, message) for message in messages], NOW)


def new_courier(rig: Rig, shards: frozenset[int], log: KafkaLog | None = None) -> Courier:
    """A courier of some shards with a store of its own."""
    store = rig.new_store("tally")
    unit = rig.units["tally"]
    made = Courier(unit, log or rig.log, store, {}, HandPool(), ["sums"])
    made.shards = shards
    return made


def carry(rig: Rig) -> None:
    """Let the service's courier carry all that it sees."""
    while rig.couriers["tally"].step(rig.clock.now()).settled:
        pass


def open_or_closed(dsn: str, which: str) -> list[tuple[int]]:
    """The ids of rows for the topic of sums, in their order."""
    condition = "IS NULL" if which == "open" else "IS NOT NULL"
    with psycopg.connect(dsn) as connection:
        query = f"SELECT id FROM penstock.outbox WHERE settled_at {condition} ORDER BY id"
        return connection.execute(query.encode()).fetchall()
