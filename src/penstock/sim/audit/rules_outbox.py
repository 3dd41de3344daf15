"""Rules about what leaves a service: rows carried out in order, once, and only when committed."""

from __future__ import annotations

from penstock.sim.audit.books import Ask, Books, Fact, Notes, Rule, StoreBook
from penstock.sim.audit.index import ANSWERS, Index, index_of

CLOCK = "clock"
SENT, EXPIRED = "sent", "expired"
BUFFER_SECONDS = 86_400.0  # how long an outcome may stay unknown where nothing else is declared


def carried_in_order(books: Books, notes: Notes) -> None:
    """I24: a closed row was carried, in order; what was committed with its decision is counted."""
    index = index_of(books)
    for service, store in books.stores.items():
        latest: dict[tuple[str, str, bool], tuple[int, Fact]] = {}
        topics = sum(ask.is_topic for ask in store.asks)
        notes.saw(topics, "rows")
        notes.saw(len(store.asks) - topics, "asks")
        for ask in store.asks:
            if ask.is_topic:
                _carried(index, service, ask, latest, notes)
            else:
                _answered(index, service, ask, notes)
    for topic, facts in books.topics.items():
        last = index.last_txn.get(books.producers.get(topic, ""))
        if last is not None:
            committed = [f for f in facts if f.epoch and not books.young(f.appended_at)]
            notes.saw(len(committed), "committed")
            for fact in committed:
                if not 0 < fact.txn <= last:
                    notes.wrong(fact.key, f"transaction {fact.txn} never was; {last} is the last",
                                fact)  # fmt: skip


def _carried(
    index: Index, service: str, ask: Ask, latest: dict[tuple[str, str, bool], tuple[int, Fact]],
    notes: Notes,
) -> None:  # fmt: skip
    row, books = f"{service} outbox {ask.id}", index.books
    fact = index.by_id.get(ask.event)
    if fact is None:
        if ask.settled_at is None:
            if books.until is None:
                notes.wrong(ask.key, f"it never went to {ask.destination}", row)
        elif ask.destination not in index.trimmed:
            notes.wrong(ask.key, f"closed as carried, and {ask.destination} has it not", row)
        return
    if ask.settled_at is None:
        if books.until is None:
            notes.wrong(ask.key, "carried, and its row is still open", row, fact)
    elif ask.outcome != SENT:
        notes.wrong(ask.key, f"carried, and its row was closed as {ask.outcome!r}", row, fact)
    if ask.destination in index.trimmed or not index.in_line(fact):
        return  # the copy at hand may be a late one; or its order is another's
    line = ask.destination, ask.key, ask.type in ANSWERS
    known = latest.get(line)
    if known is not None and known[1].offset > fact.offset:
        notes.wrong(ask.key, f"row {known[0]} was made before and carried after", known[1], fact)
    latest[line] = ask.id, fact


def _answered(index: Index, service: str, ask: Ask, notes: Notes) -> None:
    """A call's closed row has its answer, an open one has none."""
    answers = f"{service}.answers"
    answer = index.answers.get((answers, ask.event))
    row = f"{service} outbox {ask.id}"
    if ask.settled_at is None:
        if answer is not None and not index.books.young(answer.appended_at):
            notes.wrong(ask.key, "answered, and its row is still open", row, answer)
    elif not (answer or answers in index.trimmed or ask.event in index.answer_rows[service]):
        notes.wrong(ask.key, f"closed as {ask.outcome!r}, and never answered", row)


def published_was_committed(books: Books, notes: Notes) -> None:
    """I25: a record of a service's topic came with its commit, or from its outbox."""
    index = index_of(books)
    for topic, facts in books.topics.items():
        service = books.producers.get(topic, "")
        if service not in books.stores:
            continue
        rows, last = index.asks[service], index.last_txn[service]
        notes.saw(len(facts))
        for fact in facts:
            if not fact.id or books.young(fact.appended_at):
                continue
            if fact.epoch:
                known = fact.txn <= last
            else:
                foreign = not fact.cause and fact.source != service
                row, gone = rows.get(fact.id), index.pruned[service]
                may_be_gone = gone >= (fact.origin[0] if fact.origin else 1)
                known = foreign or may_be_gone or (row is not None and row.is_topic)
            if not known:
                notes.wrong(fact.key, f"{service} never committed it", fact)


def effects_once(books: Books, notes: Notes) -> None:
    """I26: whatever is repeated (by a producer, a courier, a redelivery, a call) acts once."""
    index = index_of(books)
    for id_, more in index.copies.items():
        _copied(index, [index.by_id[id_], *more], notes)
    for service, store in books.stores.items():
        _once_in_store(index, service, store, notes)
    for gateway, ledger in books.ledgers.items():
        seen: dict[str, int] = {}
        notes.saw(len(ledger.deeds), "deeds")
        for deed in ledger.deeds:
            if seen.setdefault(deed.key, deed.seq) != deed.seq:
                notes.wrong(deed.order, f"{gateway} did {deed.key} twice",
                            f"{gateway} {seen[deed.key]}", f"{gateway} {deed.seq}")  # fmt: skip
        repeats = sum(1 for call in ledger.calls if call.outcome == "repeated")
        notes.saw(repeats, "calls repeated")


def _copied(index: Index, copies: list[Fact], notes: Notes) -> None:
    """A courier may append a row again, a client its own record; a commit never does."""
    committed = [fact for fact in copies if fact.epoch]
    service = index.books.producers.get(copies[0].topic, "")
    if service not in index.books.stores or (not copies[0].cause and not committed
                                             and copies[0].source != service):  # fmt: skip
        notes.saw(len(copies) - 1, "producer repeats")
    else:
        notes.saw(len(copies) - 1, "courier repeats")
    if len(committed) > 1:
        notes.wrong(copies[0].key, "one event was committed more than once", *committed)


def _once_in_store(index: Index, service: str, store: StoreBook, notes: Notes) -> None:
    seen: set[bytes] = set()
    redelivered = 0
    for mark in store.marks:
        if mark.id in seen:
            notes.wrong(service, "an event was handled twice", f"mark {mark.id.hex()}")
        seen.add(mark.id)
        redelivered += mark.id in index.copies
    notes.saw(len(store.marks), "handled")
    notes.saw(redelivered, "redelivered")
    rows: dict[bytes, int] = {}
    notes.saw(len(store.asks), "rows")
    for ask in store.asks:
        if rows.setdefault(ask.event, ask.id) != ask.id:
            notes.wrong(ask.key, "one decision made two rows of one thing",
                        f"{service} outbox {rows[ask.event]}",
                        f"{service} outbox {ask.id}")  # fmt: skip


def outcomes_known(books: Books, notes: Notes) -> None:
    """I37: a call without a definite outcome is asked again until it has one, or given up in
    time; one key never comes to two outcomes."""
    index = index_of(books)
    now = books.until if books.until is not None else index.latest
    outcomes: dict[tuple[str, str], tuple[str, str]] = {}
    for service, store in books.stores.items():
        for ask in store.asks:
            if ask.is_topic or ask.destination == CLOCK:
                continue
            row = f"{service} outbox {ask.id}"
            if ask.settled_at is None:
                notes.saw(kind="open")
                buffer = books.buffers.get(ask.destination, BUFFER_SECONDS)
                if ask.made_at + buffer * 1000 < now:
                    notes.wrong(ask.key, f"open since {ask.made_at}, past its buffer", row)
                continue
            notes.saw(kind="unknown first" if ask.attempts > 1 else "at once")
            if ask.outcome != EXPIRED:
                place = ask.destination, ask.idempotency_key
                before, where = outcomes.setdefault(place, (ask.outcome, row))
                if before != ask.outcome:
                    detail = f"{ask.idempotency_key} was {before} and {ask.outcome}"
                    notes.wrong(ask.key, detail, where, row)


RULES = (
    Rule("I24", "outboxes are carried out whole and in order; closed rows are answered",
         carried_in_order),
    Rule("I25", "what is in a log was committed by its producer", published_was_committed),
    Rule("I26", "repeats of any kind act once", effects_once),
    Rule("I37", "unknown outcomes are settled in time, one key to one outcome", outcomes_known),
)  # fmt: skip
