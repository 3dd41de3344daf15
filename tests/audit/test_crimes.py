"""Every rule of the platform sees the crime it is there for, and no rule cries without a cause.

A crime changes clean books. ``seen`` must be among the broken rules; ``also`` may be, because the
same crime breaks their promise as well; any other rule would have cried wolf.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import pytest

from penstock.sim.audit.books import Books, Call, Deed, Fact, Ledger, Mark, Notes
from penstock.sim.audit.platform import RULES
from tests.audit.library_shop import (
    broken,
    each,
    facts,
    is_call,
    is_open_letter,
    record,
    rows,
)


class Crime(NamedTuple):
    """What is done, who must see it, and who may."""

    does: Callable[[Books], Books]
    seen: str
    also: str = ""


def swapped(found: Books) -> Books:
    """Two records of one key change places, offsets and times put right."""

    def change(known: list[Fact]) -> list[Fact]:
        first, second = [n for n, fact in enumerate(known) if fact.key == "l0"][:2]
        a, b = known[first], known[second]
        known[first] = Fact(*a[:4], *b[4:])
        known[second] = Fact(*b[:4], *a[4:])
        return known

    return facts(found, "loans", change)


def without(topic: str, type_: str) -> Callable[[Books], Books]:
    """The last record of a type vanishes from its log, the ones behind it move up."""

    def change(known: list[Fact]) -> list[Fact]:
        n = max(i for i, fact in enumerate(known) if fact.type == type_)
        gone = known.pop(n)
        return [
            f._replace(offset=f.offset - 1)
            if f.partition == gone.partition and f.offset > gone.offset else f
            for f in known
        ]  # fmt: skip

    return lambda found: facts(found, topic, change)


def again(topic: str, type_: str, **changes: object) -> Callable[[Books], Books]:
    """The last record of a type lies there a second time, at its partition's end."""

    def change(known: list[Fact]) -> list[Fact]:
        fact = [f for f in known if f.type == type_][-1]
        last = [f for f in known if f.partition == fact.partition][-1]
        copy = fact._replace(offset=last.offset + 1, appended_at=last.appended_at)
        known.insert(known.index(last) + 1, copy._replace(txn=last.txn, epoch=last.epoch))
        known[known.index(last) + 1] = known[known.index(last) + 1]._replace(**changes)
        return known

    return lambda found: facts(found, topic, change)


def said(topic: str, type_: str, **changes: object) -> Callable[[Books], Books]:
    """The last record of a type says something else."""

    def do(found: Books) -> Books:
        fact = [f for f in found.topics[topic] if f.type == type_][-1]
        value = msgspec.json.encode({**fact.said, **changes})
        return record(found, topic, type_, value=value)

    return do


def ledger(*deeds: Deed) -> Callable[[Books], Books]:
    """A gateway's ledger with these deeds."""
    call = Call(1, 1, "k", "take", "l1", "", 1, "repeated", "{}")
    return lambda found: found._replace(ledgers={"deposits": Ledger("deposits", deeds, (call,))})


DEED = Deed(1, 1, "deposit:l1", "take", "l1", "", "d1", "", 1, "EUR")
AGED = {"requests": 1.0, "scans": 1.0, "shelves": 1.0, "lending.answers": 1.0}


def forgotten(found: Books) -> Books:
    """A pruned store: its oldest checkpoint reached everything, and one mark too many went."""
    store = found.stores["lending"]
    lanes: dict[str, dict[str, int]] = {}
    for owner in store.owners:
        if owner.lane >= 0:
            lanes[str(owner.lane)] = dict(owner.positions)
    text = msgspec.json.encode(lanes).decode()
    last = max(owner.txn for owner in store.owners)
    changed = store._replace(checkpoints=[(last, 1, text)], marks=store.marks[1:])
    return found._replace(stores={**found.stores, "lending": changed}, retention=AGED, now=1 << 45)


def turned(found: Books, marks: list[Mark]) -> list[Mark]:
    """The first two records of a key were handled the other way round."""
    ids = [fact.id for fact in found.topics["loans"] if fact.key == "l0"][:2]
    first, second = (next(m for m in marks if m.id == id_) for id_ in ids)
    other = {first.id: second, second.id: first}
    return [m if m.id not in other else other[m.id]._replace(id=m.id) for m in marks]


def entries_swapped(found: Books) -> Books:
    """Two entries of one partition change places."""

    def change(known: list[Fact]) -> list[Fact]:
        lanes: dict[int, list[int]] = {}
        for n, fact in enumerate(known):
            lanes.setdefault(fact.partition, []).append(n)
        first, second = next(lane for lane in lanes.values() if len(lane) > 1)[:2]
        a, b = known[first], known[second]
        known[first], known[second] = Fact(*a[:6], *b[6:]), Fact(*b[:6], *a[6:])
        return known

    return facts(found, "journal", change)


def tail_cut(found: Books) -> Books:
    """The last entry is gone."""
    last = max(found.topics["journal"], key=lambda fact: fact.said.get("seq", 0))
    return facts(found, "journal", lambda known: [fact for fact in known if fact is not last])


def head_back(found: Books) -> Books:
    """The store's head is an earlier entry."""
    first = min(found.topics["journal"], key=lambda fact: fact.said.get("seq", 0)).said
    body = msgspec.json.encode({name: first[name] for name in ("seq", "hash", "at")})
    return each(found, "journal", "documents", lambda d: d.kind == "head", body=body)


def other_checkpoint(found: Books) -> Books:
    """A witness was told of an entry that the journal has not."""
    head = msgspec.json.encode({"seq": 1, "hash": "f" * 64, "at": 1})
    pattern = next(ask for ask in found.stores["lending"].asks if not ask.is_topic)
    told = pattern._replace(destination="checkpoint-file", value=head, due=0, event=b"c" * 16)
    return rows(found, "journal", "asks", lambda asks: [*asks, told])


def slipped_in(found: Books) -> Books:
    """A request lies behind linked entries, and has no link."""

    def change(known: list[Fact]) -> list[Fact]:
        fact = next(f for f in known if f.type == "deadletter.retry_requested")
        last = [f for f in known if f.partition == fact.partition][-1]
        bare = {k: v for k, v in fact.said.items() if k not in ("seq", "prev", "hash")}
        slipped = fact._replace(
            offset=last.offset + 1, appended_at=last.appended_at, txn=last.txn, id=b"s" * 16,
            value=msgspec.json.encode(bare),
        )
        known.insert(known.index(last) + 1, slipped)
        return known

    return facts(found, "journal", change)


CRIMES: dict[str, Crime] = {
    # Logs
    "two events of a key change places": Crime(swapped, "I16", "I20 I23 I24 I22"),
    "a transaction lies behind a later one": Crime(
        lambda b: record(b, "loans", "loan.began", txn=1), "I16", "I20 I23 I28 I25"),
    "a key in another's partition": Crime(
        lambda b: record(b, "letters", "letter.sent", key="ma"), "I17"),
    "a hole between two offsets": Crime(
        lambda b: facts(b, "shelves", lambda f: f[:3] + f[4:]), "I18", "I20 I22"),
    "records missing at the front": Crime(
        lambda b: facts(b, "letters", lambda f: f[1:]), "I18"),
    "an append time that falls": Crime(
        lambda b: record(b, "letters", "letter.sent", appended_at=5), "I18"),
    "a later record handled first": Crime(
        lambda b: rows(b, "notices", "marks", lambda m: turned(b, m)), "I16", "I23 I28"),
    # Causes
    "an event from nowhere": Crime(
        lambda b: record(b, "letters", "letter.sent", cause=b"?" * 16), "I20", "I23"),
    "an id that follows from nothing": Crime(
        lambda b: record(b, "letters", "letter.sent", id=b"!" * 16), "I20"),
    "an id of a clock of its own": Crime(
        lambda b: record(b, "requests", "loan.requested", at=12), "I20", "I16"),
    "a trace that was left": Crime(
        lambda b: record(b, "letters", "letter.sent", trace="00-f-f-00"), "I20"),
    "a time that is not the cause's": Crime(
        lambda b: record(b, "letters", "letter.sent", at=77), "I20"),
    "an ask that follows from nothing": Crime(
        lambda b: each(b, "lending", "asks", is_call, name="give"), "I20"),
    "an answer to what was never asked": Crime(
        lambda b: rows(b, "notices", "asks", lambda f: f[1:]), "I20"),
    "a letter whose id is minted": Crime(
        lambda b: record(b, "lending.dead", "dead.parked", id=b"#" * 16), "I20", "I30"),
    "one id, two contents": Crime(
        again("letters", "letter.sent", version=2, epoch=0), "I21", "I25 I26 I36"),
    "a held record of other bytes": Crime(
        lambda b: each(b, "notices", "held", is_open_letter, value=b"{}"), "I21"),
    # Stores
    "a mark that is missing": Crime(
        lambda b: rows(b, "lending", "marks", lambda m: m[:5] + m[6:]), "I22", "I23"),
    "a mark of what was never there": Crime(
        lambda b: rows(b, "lending", "marks", lambda m: [*m, Mark(b"?" * 16, 9, 99, 1)]), "I22"),
    "a position past the end": Crime(
        lambda b: rows(b, "notices", "owners", lambda os: [
            o._replace(positions={**o.positions, "loans": 99}) if o.lane == 2 else o for o in os
        ]), "I22"),
    "a position that fell back": Crime(
        lambda b: rows(b, "notices", "owners", lambda os: [
            o._replace(positions=dict.fromkeys(o.positions, 0)) if o.lane == 0 else o for o in os
        ]), "I22", "I45 I30"),
    "a held record that vanished": Crime(
        lambda b: rows(b, "lending", "held", lambda h: [x for x in h if x.state != "waiting"]),
        "I22"),
    "a state of a transaction without a mark": Crime(
        lambda b: rows(b, "lending", "documents", lambda d: [d[0]._replace(txn=1), *d[1:]]), "I23"),
    "a state of a transaction to come": Crime(
        lambda b: rows(b, "counter", "documents", lambda d: [d[0]._replace(txn=9999), *d[1:]]),
        "I23"),
    "an event of another transaction than its mark": Crime(
        lambda b: record(b, "letters", "letter.sent", txn=33), "I23", "I16 I20 I28"),
    "an ask of another transaction than its mark": Crime(
        lambda b: each(b, "lending", "asks", is_call, txn=3), "I23"),
    "an answer of another transaction than its row": Crime(
        lambda b: each(b, "lending", "asks", is_call, settled_txn=3), "I23"),
    "two epochs in one transaction": Crime(
        lambda b: rows(b, "lending", "documents", lambda d: [*d[:-1], d[-1]._replace(epoch=0)]),
        "I23", "I28"),
    "a mark of an owner past its time": Crime(
        lambda b: rows(b, "lending", "marks", lambda m: [*m[:-1], m[-1]._replace(epoch=0)]),
        "I28", "I23"),
    "a mark that was forgotten too early": Crime(forgotten, "I27", "I22"),
    "an epoch that nobody was given": Crime(
        lambda b: rows(b, "notices", "marks", lambda m: [m[0]._replace(epoch=7), *m[1:]]),
        "I28", "I23"),
    "a courier that was past its time": Crime(
        lambda b: record(b, "notices.answers", "answer", epoch=9), "I28", "I23"),
    # Outboxes
    "a call that was closed and never answered": Crime(
        without("notices.answers", "answer"), "I24", "I20 I22"),
    "a record of no transaction": Crime(
        lambda b: record(b, "letters", "letter.sent", txn=4444), "I24", "I25 I23"),
    "a record that nobody committed": Crime(
        lambda b: record(b, "letters", "letter.sent", epoch=0), "I25"),
    "an event handled twice": Crime(
        lambda b: rows(b, "lending", "marks", lambda m: [*m, m[-1]._replace(ordinal=99)]), "I26"),
    "an event committed twice": Crime(again("letters", "letter.sent"), "I26", "I23"),
    "an ask that was answered twice": Crime(
        again("notices.answers", "answer", id=b"~" * 16), "I26", "I20 I22 I23 I24 I45 I17 I28"),
    "two rows of one ask": Crime(
        lambda b: rows(b, "lending", "asks", lambda a: [*a, a[-1]._replace(id=999)]), "I26"),
    "a gateway that did it twice": Crime(ledger(DEED, DEED._replace(seq=2)), "I26"),
    "one key with two outcomes": Crime(
        lambda b: each(b, "lending", "asks", is_call, idempotency_key="one"), "I37"),
    "a call that is unknown for ever": Crime(
        lambda b: each(b, "lending", "asks", is_call, settled_at=None, made_at=1, outcome=""),
        "I37", "I24 I45 I23"),
    # Dead letters
    "a parked record that vanished": Crime(
        lambda b: rows(b, "lending", "held", lambda h: []), "I29", "I22 I31"),
    "a parked record without a letter": Crime(without("lending.dead", "dead.parked"), "I29",
                                              "I22 I31"),
    "a letter of other bytes": Crime(
        said("lending.dead", "dead.parked", value="eHh4"), "I29"),
    "a letter without an owner": Crime(said("lending.dead", "dead.parked", owner=""), "I29"),
    "a letter about another record": Crime(
        said("notices.dead", "dead.parked", offset=0), "I29", "I20 I22 I30 I31"),
    "a letter of another commit": Crime(
        lambda b: each(b, "notices", "held", is_open_letter, txn=3), "I30", "I23"),
    "a discarded record that was never let go": Crime(
        lambda b: rows(b, "notices", "marks", lambda m: [
            x for x in m if x.id.hex() not in discarded(b)
        ]), "I31", "I22"),
    # The journal
    "an entry that was edited": Crime(
        said("journal", "deadletter.retried", reason="bribed"), "I38"),
    "an entry that was deleted": Crime(
        without("journal", "deadletter.retried"), "I38", "I20 I22 I23 I39 I45"),
    "entries that change places": Crime(entries_swapped, "I38", "I16 I17 I20 I22 I23 I45 I39"),
    "a tail that was cut": Crime(tail_cut, "I38", "I20 I22 I23 I39 I45 I18"),
    "a head that was put back": Crime(head_back, "I38"),
    "a checkpoint of another chain": Crime(other_checkpoint, "I38", "I20 I23 I24 I37 I45"),
    "a record that came by another way": Crime(slipped_in, "I38", "I20 I28 I45"),
    "an act that nobody asked for": Crime(
        lambda b: record(b, "notices.dead", "dead.retried", cause=b"?" * 16), "I39", "I20 I23"),
    "an act that somebody else asked for": Crime(
        said("notices.dead", "dead.retried", actor="kim"), "I39"),
    "an act that was never noted": Crime(
        without("journal", "deadletter.discarded"), "I39", "I38 I20 I22 I23 I45"),
    # Values, bounds, rest
    "a value that is no JSON": Crime(
        lambda b: record(b, "letters", "letter.sent", value=b"{"), "I36"),
    "a value of another shape": Crime(said("letters", "letter.sent", member=7), "I36"),
    "a version that nobody approved": Crime(
        lambda b: record(b, "letters", "letter.sent", version=9), "I36"),
    "a value beyond all bounds": Crime(
        lambda b: record(b, "letters", "letter.sent", value=b" " * (9 << 20) + b"{}"),
        "I44", "I36"),
    "a story without an end": Crime(
        lambda b: each(b, "notices", "held", is_open_letter, errors=[(1, "no")] * 50), "I44"),
    "a call that is still wanted": Crime(
        lambda b: each(b, "notices", "asks", lambda a: True, settled_at=None, outcome="",
                       settled_txn=None), "I45", "I23 I24 I37"),
    "a lag at rest": Crime(
        lambda b: rows(b, "notices", "owners", lambda os: [
            o._replace(positions={**o.positions, "journal": 0}) for o in os]), "I45", "I22 I31"),
    "a record that was due long ago": Crime(
        lambda b: each(b, "lending", "held", lambda h: h.state == "parked", state="waiting",
                       due=5), "I45", "I29"),
}  # fmt: skip


def discarded(found: Books) -> set[str]:
    """The events whose discard was told."""
    letters = found.topics["notices.dead"]
    return {fact.said["event_id"] for fact in letters if fact.type == "dead.discarded"}


@pytest.mark.parametrize("name", CRIMES)
def test_a_crime_is_seen_and_nothing_else(clean: Books, name: str) -> None:
    crime = CRIMES[name]
    found = broken(crime.does(clean))
    assert crime.seen in found
    assert found <= {crime.seen, *crime.also.split()}


def test_every_rule_has_a_crime() -> None:
    by_files = {"I19"}  # seen by who reads the bytes: test_files
    assert {crime.seen for crime in CRIMES.values()} | by_files == {rule.id for rule in RULES}


def test_a_rule_that_breaks_is_no_end_of_the_audit(clean: Books) -> None:
    counts: dict[str, Any] = dict.fromkeys(clean.partitions, "many")
    assert "I46" in broken(clean._replace(partitions=counts))


def test_a_rule_counts_by_kind() -> None:
    notes = Notes("I0")
    notes.saw(2, "red")
    notes.saw()
    assert (notes.examined, notes.kinds) == (3, {"red": 2})
