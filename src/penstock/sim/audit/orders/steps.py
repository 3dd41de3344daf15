"""I5: only legal steps, replayed through tables of their own.

A table says, per state of a topic's story, which event leads where. What it does not name is
illegal. Each machine has the states that its own events show, not those its service keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from penstock.sim.audit.books import Books, Notes
from penstock.sim.audit.orders.stories import Entry, Orders, Story, index_of, text

Table = Mapping[str, Mapping[str, str]]  # state -> event -> state
NEW = ""


def _table(text: str) -> dict[str, dict[str, str]]:
    """``state: event > state, event > state`` a line; ``-`` is the beginning."""
    rows: dict[str, dict[str, str]] = {}
    for line in text.strip().splitlines():
        state, _, moves = line.strip().partition(":")
        pairs = (move.split(">") for move in moves.split(",") if move.strip())
        rows[state.replace("-", NEW)] = {event.strip(): to.strip() for event, to in pairs}
    return rows


WISHES = _table("""
    -: order.placed > placed
    placed: order.cancel_requested > placed
""")

# Every public state leads to the state its event names: written as the states that may follow.
_MAY_FOLLOW = {
    NEW: "received",
    "received": "processing on_hold cancelling",
    "processing": "confirmed on_hold cancelling rejected cancelled",
    "confirmed": "part_shipped shipped completed on_hold cancelling rejected cancelled",
    "part_shipped": "shipped completed on_hold cancelling",
    "shipped": "completed on_hold cancelling",
    "on_hold": "processing confirmed part_shipped shipped completed cancelling rejected cancelled",
    "cancelling": "processing confirmed part_shipped shipped completed on_hold rejected cancelled",
    "completed": "", "cancelled": "", "rejected": "",
}
STATES: dict[str, dict[str, str]] = {
    state: {f"order.{to}": to for to in after.split()} for state, after in _MAY_FOLLOW.items()
}

RESERVATION = _table("""
    -: inventory.reserved > reserved, inventory.rejected > rejected
    reserved: inventory.released > released, inventory.consumed > consumed
    rejected:
    released:
    consumed:
""")

# Of one group. kept: the money stays for now; taken: it goes straight back.
PAYMENT = _table("""
    -: authorised > authorised, declined > declined, closed > closed
    authorised: kept > kept, taken > taken, closed > given up
    declined: closed > closed
    kept: refunded > refunded
    taken: refunded > refunded
    refunded: closed > closed
    given up: taken > late
    late: refunded > closed
    closed:
""")
# A person who gives up a parked record closes the payment before the money is back.
PAYMENT_GIVEN_UP: Table = {
    **PAYMENT,
    "kept": {**PAYMENT["kept"], "closed": "late"},
    "taken": {**PAYMENT["taken"], "closed": "late"},
}

# Of one parcel, once it was asked for.
PARCEL = _table("""
    -: labelled > labelled, dispatched > dispatched, cancelled > cancelled, refused >, strange >
    labelled: dispatched > dispatched, cancelled > cancelled, refused > labelled, strange > labelled
    dispatched: delivered > delivered, refused > dispatched, strange > dispatched
    delivered: refused > delivered, strange > delivered
    cancelled: strange > cancelled
""")

FULFILLMENT = _table("""
    -: fulfillment.requested > requested
    requested: fulfillment.cancel_requested > requested
""")

_PARCEL_WORDS = {
    "shipment.labelled": "labelled", "shipment.dispatched": "dispatched",
    "shipment.delivered": "delivered", "shipment.exception": "strange",
    "fulfillment.cancelled": "cancelled", "fulfillment.cancel_refused": "refused",
}


def _money_word(entry: Entry) -> str:
    if entry.type == "payment.captured":
        return "kept" if entry.body.get("kept", True) else "taken"
    return entry.type.removeprefix("payment.")


def _parcel_word(entry: Entry) -> str:
    return _PARCEL_WORDS.get(entry.type, entry.type)


def _type(entry: Entry) -> str:
    return entry.type


def legal_steps(books: Books, notes: Notes) -> None:
    """Per order and topic, every event is legal after those before it, and has its reason."""
    index = index_of(books)
    for story in index.stories.values():
        if not index.whole(story):
            continue
        _walk(story, story.of("orders"), WISHES, _type, notes)
        _walk(story, story.of("inventory"), RESERVATION, _type, notes)
        _walk(story, story.of("fulfillment"), FULFILLMENT, _type, notes)
        table = PAYMENT_GIVEN_UP if index.discarded("payment", story.id) else PAYMENT
        for entries in _parts(story.of("payments"), "group"):
            _walk(story, entries, table, _money_word, notes)
        for entries in _parts(story.of("shipments"), "shipment"):
            _walk(story, entries, PARCEL, _parcel_word, notes)
        _public(index, story, notes)
        _brought_about(index, story, notes)
        _after_the_scan(index, story, notes)


def _parts(entries: Sequence[Entry], by: str) -> Iterable[Sequence[Entry]]:
    """The entries of each group or parcel; most orders have one."""
    if len({text(e.body.get(by)) for e in entries}) < 2:
        return (entries,)
    parts: dict[str, list[Entry]] = {}
    for entry in entries:
        parts.setdefault(text(entry.body.get(by)), []).append(entry)
    return parts.values()


def _walk(
    story: Story, entries: Iterable[Entry], table: Table, word: Callable[[Entry], str],
    notes: Notes,
) -> None:
    state, before = NEW, None
    for entry in entries:
        notes.examined += 1
        next_ = table[state].get(word(entry))
        if next_ is None:
            detail = f"{entry.type} after {before.type if before else 'nothing'}"
            places = [e.fact for e in (before, entry) if e]
            notes.wrong(story.id, detail, *places)
            return
        state, before = next_, entry


# ---- the public states


def _public(index: Orders, story: Story, notes: Notes) -> None:
    steps = [e for e in story.of("order_states") if e.type != "order.refunded"]
    _walk(story, steps, STATES, _type, notes)
    state, told = "received", {"received"}
    for step in steps[1:]:
        name = step.type.removeprefix("order.")
        if step.body.get("previous", "") != state:
            detail = f"{step.type} says it was {step.body.get('previous')!r}, and it was {state}"
            notes.wrong(story.id, detail, step.fact)
        resumed = bool(step.body.get("resumed"))
        if name not in ("on_hold", "cancelling") and resumed != (name in told):
            detail = f"{step.type} was told before, or says so wrongly"
            notes.wrong(story.id, detail, step.fact)
        if not index.young(step) and not _has_reason(story, name, step):
            notes.wrong(story.id, f"nothing that happened makes it {name}", step.fact)
        told.add(name)
        state = name


def _has_reason(story: Story, name: str, step: Entry) -> bool:
    reason = _REASONS.get(name)
    return reason is None or reason(story, step)


def _captured(story: Story, step: Entry) -> bool:
    return any(e.body.get("kept", True) for e in story.of("payments", "payment.captured"))


def _dispatched(story: Story, step: Entry) -> bool:
    return bool(story.of("shipments", "shipment.dispatched"))


def _complete(story: Story, step: Entry) -> bool:
    placed = story.placed
    if placed is not None and not placed.goods:
        return _captured(story, step)
    sent = {text(e.body.get("shipment")) for e in story.of("shipments", "shipment.dispatched")}
    came = {text(e.body.get("shipment")) for e in story.of("shipments", "shipment.delivered")}
    return bool(came) and sent == came


def _closed(story: Story, step: Entry) -> bool:
    said = text(step.body.get("reason", ""))
    closed = {text(e.body.get("reason")) for e in story.of("payments", "payment.closed")}
    return said in closed and not _dispatched(story, step)


def _cancelled(story: Story, step: Entry) -> bool:
    wished = bool(story.of("orders", "order.cancel_requested"))
    return wished and step.body.get("reason") == "cancelled" and _closed(story, step)


def _rejected(story: Story, step: Entry) -> bool:
    return step.body.get("reason") != "cancelled" and _closed(story, step)


_REASONS: dict[str, Callable[[Story, Entry], bool]] = {
    "confirmed": _captured, "part_shipped": _dispatched, "shipped": _dispatched,
    "completed": _complete, "cancelled": _cancelled, "rejected": _rejected,
    "cancelling": lambda story, step: bool(story.of("orders", "order.cancel_requested")),
}


# ---- what makes a fact


# The types that may have brought about an event; a record that is gone says nothing.
_CAUSES = {
    "payment.authorised": "answer provider.notified order.placed",
    "payment.declined": "answer provider.notified order.placed",
    "payment.captured": "answer provider.notified",
    "payment.refunded": "answer provider.notified",
    "payment.closed": "answer provider.notified order.placed dead.discarded",
    "fulfillment.requested": "answer provider.notified",
    "fulfillment.cancel_requested": "order.cancel_requested",
    "shipment.labelled": "answer",
    "shipment.dispatched": "carrier.scanned fulfillment.requested",
    "shipment.delivered": "carrier.scanned fulfillment.requested",
    "shipment.exception": "carrier.scanned",
    "fulfillment.cancelled": "answer",
    "fulfillment.cancel_refused": "answer carrier.scanned fulfillment.cancel_requested",
}
CAUSES = {type_: frozenset(causes.split()) for type_, causes in _CAUSES.items()}


def _brought_about(index: Orders, story: Story, notes: Notes) -> None:
    """Every fact about money and parcels comes of what may bring it about."""
    for topic in ("payments", "fulfillment", "shipments"):
        for entry in story.of(topic):
            cause = index.ids.get(entry.fact.cause)
            if cause is None:
                continue
            if entry.type in CAUSES and cause.type not in CAUSES[entry.type]:
                notes.wrong(story.id, f"{entry.type} because of {cause.type}", cause.fact,
                            entry.fact)  # fmt: skip
            elif entry.type in _SCANNED and not _was_scanned(index, story, entry, cause):
                notes.wrong(story.id, f"{entry.type}, and nobody scanned it", entry.fact)


_SCANNED = {"shipment.dispatched": ("handover", "delivered"), "shipment.delivered": ("delivered",)}


def _was_scanned(index: Orders, story: Story, entry: Entry, cause: Entry) -> bool:
    """A label is no dispatch: the carrier scanned the parcel, at the latest just then."""
    decided = index.handled("shipping", cause.fact.id)
    for scan in story.of("arrivals", "carrier.scanned"):
        seen = index.handled("shipping", scan.fact.id)
        in_time = decided is None or seen is None or seen <= decided
        same = scan.body.get("shipment") == entry.body.get("shipment")
        if same and in_time and scan.body.get("type") in _SCANNED[entry.type]:
            return True
    return index.young(entry)


# ---- the race between a cancellation and the scan


def _after_the_scan(index: Orders, story: Story, notes: Notes) -> None:
    """A parcel that was scanned is on its way: no later cancellation is granted."""
    for granted in story.of("shipments", "fulfillment.cancelled"):
        decided = index.handled("shipping", granted.fact.cause)
        for scan in story.of("arrivals", "carrier.scanned") if decided else ():
            seen = index.handled("shipping", scan.fact.id)
            same = scan.body.get("shipment") == granted.body.get("shipment")
            if seen is None or decided is None or seen > decided or not same:
                continue
            if not index.given_up("shipping", scan.fact):
                detail = "its parcel was cancelled after the carrier had scanned it"
                notes.wrong(story.id, detail, scan.fact, granted.fact)
