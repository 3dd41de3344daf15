"""What is right is left alone: every walk, every moment of a run, and retention."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.catalog.load import load_catalog
from penstock.contracts.wire import Book
from penstock.engine.unit import unit_of
from penstock.flows.orders import FLOW
from penstock.flows.orders.requests import order_id
from penstock.sim.audit.books import Books, Ledger
from penstock.sim.audit.orders import READS, RULES
from penstock.sim.audit.orders.placing import digest_of, parts_of
from tests.audit.orders_shop import (
    POST,
    Ended,
    Shop,
    ended_in,
    facts,
    judged,
    line,
    saying,
    with_facts,
)
from tests.audit.orders_walks import books_of_walk
from tests.flows.orders.walks import WALKS

SEEDS = 12
HEAVY = {"short": 1}  # 164 lines each


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A shop where everything has ended."""
    return ended_in(tmp_path_factory.mktemp("shop"))


def test_the_reads_are_those_of_the_services() -> None:
    catalog, book = load_catalog(), Book(FLOW.contracts)
    assert {s.name: dict(unit_of(s, catalog, book).reads) for s in FLOW.services} == READS


def test_an_order_id_tells_its_request_and_its_time() -> None:
    now = 1_767_600_000_123
    assert parts_of(order_id(now, "local", "web-1")) == (now, digest_of("local", "web-1"))
    assert parts_of("ord_0") is None
    assert parts_of("o-1") is None


def test_empty_books_are_clean_and_examine_nothing() -> None:
    ledgers = {name: Ledger(name) for name in ("payments", "carrier", "mail")}
    examined, found = judged(Books({}, {}, {}, {}, READS, {}, ledgers, journal=()))
    assert not found
    assert set(examined.values()) == {0}
    assert len(examined) == len(RULES)


def test_a_few_plain_orders_give_every_rule_something_to_examine(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.stock("first", POT=10)
    shop.rest()
    for name in ("a", "b", "c"):
        shop.place(name)
    examined, found = judged(shop.rest().books())
    assert not found
    assert all(examined.values()), examined


def test_every_end_is_clean(ended: Ended) -> None:
    examined, found = judged(ended.books)
    assert not found
    assert all(examined.values()), examined


@pytest.mark.parametrize("name", sorted(WALKS))
def test_the_walk_is_clean_in_every_interleaving(name: str) -> None:
    for seed in range(HEAVY.get(name, SEEDS)):
        _, found = judged(books_of_walk(WALKS[name](seed)))
        assert not found, f"{name} with seed {seed}"


def test_a_shop_at_work_is_clean_at_every_moment(tmp_path: Path) -> None:
    """What is younger than the watermark, or under way, is nobody's loss."""
    shop = Shop(tmp_path)
    shop.stock("first", POT=5, CUP=4)
    began = shop.rig.clock.now()
    for n in range(6):
        order = shop.place(f"order-{n}", line("POT", 1), line("CUP", 1), POST)
        if n % 3 == 2:
            shop.cancel(order)
    moments = 0
    while shop.rig.turn() or shop.coming:
        if shop.rig.clock.now() - began < 20:
            shop.rig.clock.pass_(1)
        elif shop.coming:
            shop.rest()
        for until in (began, shop.rig.clock.now(), shop.rig.clock.now() + 1):
            _, found = judged(shop.books(until))
            assert not found, f"moment {moments}, until {until - began}"
        moments += 1
    assert moments > 10
    _, found = judged(shop.rest().books())
    assert not found


def test_a_shop_at_work_is_clean_where_each_topic_is_read_at_a_moment_of_its_own(
    tmp_path: Path,
) -> None:
    """As on a cluster: the tables first, then one topic after the other, while work goes on."""
    shop = Shop(tmp_path)
    shop.stock("first", POT=9, CUP=9)
    shop.rest()
    for n in range(4):
        shop.place(f"order-{n}", line("POT", 1), line("CUP", 1), POST)
    moments: list[tuple[int, Books]] = []
    while shop.rig.turn() or shop.coming:
        if shop.coming:
            shop.rest()
        shop.rig.clock.pass_(1)
        moments.append((shop.rig.clock.now(), shop.books(shop.rig.clock.now())))
    last = moments[-1][1]
    for until, books in moments[:-1]:
        for late in books.topics:
            early = {**books.topics, late: last.topics[late]}
            for topics in (early, {**last.topics, late: books.topics[late]}):
                seen = last._replace(stores=books.stores, topics=topics, until=until)
                _, found = judged(seen)
                assert not found, f"{late}, {until - moments[0][0]} ms"


def test_an_order_that_stands_still_is_seen_on_a_live_system(ended: Ended) -> None:
    step = ended.one("order.completed")
    lost = [f for f in ended.books.topics["order_states"] if f is not step]
    books = with_facts(ended.books, "order_states", lost)
    later = max(f.appended_at for topic in books.topics.values() for f in topic) + 1
    for until, seen in ((None, True), (later, True), (step.appended_at, False)):
        _, found = judged(books._replace(until=until))
        assert any(v.rule == "I4" for v in found) is seen


def test_what_retention_took_is_not_missed(ended: Ended) -> None:
    """The oldest records of every topic are gone, and no order of theirs is judged."""
    books = ended.books
    placed = sorted(facts(books, "order.placed"), key=lambda f: f.appended_at)
    bound = placed[-1].appended_at
    newest = {f[:2]: f for held in books.topics.values() for f in held}  # never goes
    topics = {
        topic: [f for f in held if f.appended_at >= bound or newest[f[:2]] is f]
        for topic, held in books.topics.items()
    }
    first = {
        (topic, p): min([f.offset for f in held if f.partition == p], default=0)
        for topic, held in topics.items() for p in range(books.partitions[topic])
    }
    _, found = judged(books._replace(topics=topics, first=first))
    assert not found


@pytest.mark.parametrize("odd", [None, -1, 1.5, "?", [1, {"sku": []}], {"sku": 1}])
def test_no_rule_breaks_on_what_services_never_write(odd: object, ended: Ended) -> None:
    """A foreign record may look like one of ours and hold anything."""
    books = ended.books
    names = sorted({name for held in books.topics.values() for f in held for name in f.said})
    assert len(names) > 40
    for start in range(7):
        changed = dict.fromkeys(names[start::7], odd)
        topics = {
            topic: [saying(f, **{n: v for n, v in changed.items() if n in f.said}) for f in held]
            for topic, held in books.topics.items()
        }
        judged(books._replace(topics=topics))
    nothing = {t: [f._replace(value=b"\xff") for f in held] for t, held in books.topics.items()}
    judged(books._replace(topics=nothing))


def test_the_rules_are_named() -> None:
    assert [rule.id for rule in RULES] == [f"I{n}" for n in range(1, 16)]
    assert all(rule.about for rule in RULES)
