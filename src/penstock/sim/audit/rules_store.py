"""Rules about what a service wrote down: positions, marks, transactions, epochs."""

from __future__ import annotations

from penstock.sim.audit.books import Ask, Books, Fact, Notes, Rule, StoreBook
from penstock.sim.audit.index import (
    ANSWERS,
    COURIER,
    DOOR,
    PARKED,
    WORKER,
    Index,
    index_of,
)


def nothing_passed_over(books: Books, notes: Notes) -> None:
    """I22: below a position all is handled, held, discarded, or of a type that is not read."""
    index = index_of(books)
    for service in books.stores:
        reach = _checkpointed(index, service)
        for (topic, lane), position in index.positions[service].items():
            notes.saw()
            first, end = books.first.get((topic, lane), 0), index.ends.get((topic, lane))
            where = f"{service}: {topic}[{lane}]"
            if position > (end if end is not None else first):
                notes.wrong(where, f"position {position} is past the log's end, {end or first}")
            elif position < first:
                notes.wrong(where, f"position {position} is before the first record, {first}")
        if service in books.reads:
            walk = index.walk(service)
            notes.saw(walk.taken)
            for fact in walk.missing:
                if fact.offset >= reach.get((fact.topic, fact.partition), 0):
                    notes.wrong(fact.key, f"{service} passed it over", fact)
            _marks_have_records(index, service, notes)


def _checkpointed(index: Index, service: str) -> dict[tuple[str, int], int]:
    """The positions up to which marks may have been pruned: what is missing there is I27's."""
    if not index.pruned[service]:
        return {}
    return index.oldest_positions(service)


def _marks_have_records(index: Index, service: str, notes: Notes) -> None:
    positions, gaps = index.positions[service], index.gaps(service)
    marks, met = index.marks[service], index.walk(service).lanes
    notes.saw(len(marks))
    for id_ in marks.keys() - met.keys():
        copies = index.all_of(id_)
        if not copies:
            if not gaps:
                notes.wrong(service, "it handled an event that is in no log", f"mark {id_.hex()}")
            continue
        read = [c for c in copies if not c.type or c.type in index.reads(service, c.topic)]
        if not read:
            notes.wrong(copies[0].key, f"{service} handled what it does not read", *copies)
        elif all(c.offset >= positions.get(c[:2], 0) for c in read):
            notes.wrong(read[0].key, f"{service} handled it ahead of its position", *read)


def marks_reach_back(books: Books, notes: Notes) -> None:
    """I27: whatever a log still holds below a position is still recognised as handled."""
    index = index_of(books)
    for service in books.stores:
        if service not in books.reads:
            continue
        walk, reach = index.walk(service), _checkpointed(index, service)
        notes.saw(walk.taken)
        for fact in walk.missing:
            if fact.offset < reach.get((fact.topic, fact.partition), 0):
                notes.wrong(fact.key, f"{service} forgot it, and the log still holds it", fact)


# Transactions ------------------------------------------------------------------------------------


def one_transaction(books: Books, notes: Notes) -> None:
    """I23: mark, states, events and asks of one decision carry one transaction and epoch."""
    index = index_of(books)
    for service, store in books.stores.items():
        _documents(index, store, notes)
        _epoch_each(index, service, notes)
        notes.saw(len(store.asks))
        for ask in store.asks:
            _row_belongs(index, service, ask, notes)
        committed = index.committed[service]
        notes.saw(len(committed))
        for fact in committed:
            _record_belongs(index, service, fact, fact.txn, notes)
        carried = index.carried[service]
        notes.saw(len(carried))
        for fact in carried:
            _carried_belongs(index, service, fact, notes)


def _documents(index: Index, store: StoreBook, notes: Notes) -> None:
    """A state is written by a decision about an event, or at the door."""
    service = store.service
    marked = {mark.txn for mark in store.marks}
    at_door, gone = index.reached(service, DOOR) > 0, index.pruned[service]
    latest = index.last_txn[service]
    notes.saw(len(store.documents))
    for document in store.documents:
        txn = document.txn
        if txn > latest:
            detail = f"{service}'s {document.kind} is of transaction {txn}, the last is {latest}"
        elif txn in marked or at_door or txn <= gone:
            continue
        else:
            detail = f"{service}'s {document.kind} changed in transaction {txn}, without a mark"
        notes.wrong(document.key, detail, f"{service} {document.kind} {document.key}")


def _epoch_each(index: Index, service: str, notes: Notes) -> None:
    for what, txn, known, epoch in index.written[service].doubtful:
        detail = f"transaction {txn} has the epochs {known} and {epoch}"
        notes.wrong(service, detail, what if isinstance(what, Fact) else f"{service} {what}")
    epochs = index.written[service].epochs
    for mark in index.books.stores[service].marks:
        if mark.epoch > epochs.get(mark.txn, mark.epoch):
            detail = f"a mark of epoch {mark.epoch} in a transaction of {epochs[mark.txn]}"
            notes.wrong(service, detail, f"mark {mark.id.hex()}")


def _carried_belongs(index: Index, service: str, fact: Fact, notes: Notes) -> None:
    """It says what made it: its row says the same, or, where that is gone, the mark."""
    row = index.asks[service].get(fact.id)
    assert fact.origin is not None
    if row is None:
        _record_belongs(index, service, fact, fact.origin[0], notes)
    elif (row.txn, row.epoch) != fact.origin:
        txn, epoch = fact.origin
        detail = f"made in {txn} under {epoch}, its row in {row.txn} under {row.epoch}"
        notes.wrong(fact.key, detail, fact, f"{service} outbox {row.id}")


def _record_belongs(index: Index, service: str, fact: Fact, txn: int, notes: Notes) -> None:
    if not fact.cause or fact.type == PARKED or txn <= index.pruned[service]:
        return
    if fact.type in ANSWERS and fact.topic == f"{service}.answers":
        ask = index.asks[service].get(fact.cause)
        if ask is not None and ask.settled_txn != txn:
            detail = f"answered in transaction {txn}, its row closed in {ask.settled_txn}"
            notes.wrong(fact.key, detail, fact, f"{service} outbox {ask.id}")
        return
    mark = index.marks[service].get(fact.cause)
    if mark is None or mark.txn != txn:
        when = "never" if mark is None else f"in {mark.txn}"
        detail = f"written in transaction {txn}, its cause was handled {when}"
        notes.wrong(fact.key, detail, fact)


def _row_belongs(index: Index, service: str, ask: Ask, notes: Notes) -> None:
    if not ask.cause or ask.txn <= index.pruned[service]:
        return
    if ask.is_topic and ask.type == PARKED:
        return
    row = f"{service} outbox {ask.id}"
    if ask.is_topic and ask.type in ANSWERS and ask.destination == f"{service}.answers":
        asked = index.asks[service].get(ask.cause)
        if asked is not None and asked.settled_txn != ask.txn:
            detail = f"answered in transaction {ask.txn}, its row closed in {asked.settled_txn}"
            notes.wrong(ask.key, detail, row)
        return
    if _asked_at_gate(index, service, ask):
        return
    mark = index.marks[service].get(ask.cause)
    if mark is None or mark.txn != ask.txn:
        when = "never" if mark is None else f"in {mark.txn}"
        notes.wrong(ask.key, f"asked in transaction {ask.txn}, its cause was handled {when}", row)


def _asked_at_gate(index: Index, service: str, ask: Ask) -> bool:
    """Did a gate of the service ask it, together with the record it names as the cause?"""
    cause, row = index.by_id.get(ask.cause), index.asks[service].get(ask.cause)
    if cause is None or cause.cause or index.books.producers.get(cause.topic) != service:
        return False
    made = (row.txn, row.epoch) if row is not None else cause.made
    return made == (ask.txn, ask.epoch)


# Epochs ------------------------------------------------------------------------------------------


def epochs(books: Books, notes: Notes) -> None:
    """I28: an owner's epochs never fall with the transactions, and no row has a higher one."""
    index = index_of(books)
    for service in books.stores:
        lanes = _Lanes(index, service)
        notes.saw(len(index.marks[service]) + len(books.stores[service].documents))
        lanes.none_above(notes)
        for hand in (COURIER, DOOR):
            lanes.never_falls(hand, notes)
        lanes.worker_never_falls(notes)


class _Lanes:
    """The epochs of one service's transactions, by who made them. A mark carries that of its own
    lane; all else that of its whole transaction, the highest of the lanes it moved."""

    def __init__(self, index: Index, service: str) -> None:
        self._index, self._service = index, service
        self._books = index.books
        store = self._books.stores[service]
        self._reached = {hand: index.reached(service, hand) for hand in (WORKER, COURIER, DOOR)}
        self._anyone = max((owner.epoch for owner in store.owners), default=0)
        self._facts = index.committed[service]

    def none_above(self, notes: Notes) -> None:
        highest, anyone = self._reached[WORKER], self._anyone
        gone = self._index.pruned[self._service]
        for mark in self._books.stores[self._service].marks:
            if mark.epoch > highest:
                detail = f"a mark has epoch {mark.epoch}, its owners reached {highest}"
                notes.wrong(self._service, detail, f"mark {mark.id.hex()}")
        for epoch, (txn, what) in self._index.written[self._service].examples.items():
            if epoch > anyone and not (epoch and isinstance(what, Fact) and what.origin
                                       and txn <= gone):  # fmt: skip
                detail = f"epoch {epoch}, and no owner of {self._service} is past {anyone}"
                where = what if isinstance(what, Fact) else f"{self._service} {what}"
                notes.wrong(self._service, detail, where)
        carried = [f for f in self._index.carried[self._service] if f.origin and f.origin[0] > gone]
        notes.saw(len(self._facts) + len(carried))
        for fact in (*self._facts, *carried):
            by, (_, epoch) = self._index.by(fact, self._service), fact.made or (0, 0)
            if by != WORKER and epoch > self._reached[by]:
                detail = f"epoch {epoch}, and its owner is at {self._reached[by]}"
                notes.wrong(self._service, detail, fact)

    def never_falls(self, hand: str, notes: Notes) -> None:
        """Where courier and door have one lane each, theirs is plain to see."""
        latest: Fact | None = None
        by, service = self._index.by, self._service
        mine = [f for f in self._facts if by(f, service) == hand]
        for fact in sorted(mine, key=lambda f: f.txn):
            if latest is not None and fact.epoch < latest.epoch:
                notes.wrong(self._service, f"epoch {fact.epoch} after {latest.epoch}", latest, fact)
            latest = fact if latest is None or fact.epoch > latest.epoch else latest

    def worker_never_falls(self, notes: Notes) -> None:
        lanes = self._index.walk(self._service).lanes
        highest: dict[int, tuple[int, int]] = {}  # lane -> epoch and transaction of the highest
        for mark in self._books.stores[self._service].marks:
            lane = lanes.get(mark.id)
            if lane is None:
                continue
            epoch, txn = highest.get(lane, (0, 0))
            if mark.epoch >= epoch:
                highest[lane] = (mark.epoch, mark.txn)
            else:
                detail = (
                    f"lane {lane}: epoch {mark.epoch} in transaction {mark.txn}, after "
                    f"{epoch} in {txn}"
                )
                notes.wrong(self._service, detail, f"mark {mark.id.hex()}")


RULES = (
    Rule("I22", "below a position everything is handled, held, discarded or not read",
         nothing_passed_over),
    Rule("I23", "what one decision wrote carries one transaction", one_transaction),
    Rule("I27", "marks reach as far back as the logs", marks_reach_back),
    Rule("I28", "no write of a past owner: epochs never fall and none is invented", epochs),
)  # fmt: skip
