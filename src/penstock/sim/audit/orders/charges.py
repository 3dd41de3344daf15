"""I6 and I7: nobody pays twice, nobody pays for nothing, nothing goes back that was not taken.

The provider's ledger says what really happened; the log says what the shop believes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from penstock.sim.audit.books import Books, Call, Deed, Notes
from penstock.sim.audit.orders.placing import parts_of
from penstock.sim.audit.orders.stories import Entry, Orders, Story, index_of, number

PAYMENTS = "payments"
_KEYED = frozenset({"authorise", "capture", "void", "refund"})


def _deed(deed: Deed) -> str:
    return f"{PAYMENTS} effect {deed.seq}"


def _call(call: Call) -> str:
    return f"{PAYMENTS} call {call.seq}"


# ---- I6


def no_double_charge(books: Books, notes: Notes) -> None:
    """Per group one authorisation and one capture, within the order's total, under one key."""
    index = index_of(books)
    for story in index.stories.values():
        deeds = story.deeds.get(PAYMENTS, ())
        calls = story.calls.get(PAYMENTS, ())
        notes.saw(len(deeds) + len(calls))
        _once_per_group(story, deeds, notes)
        _within_the_total(story, deeds, notes)
        _under_one_key(story, calls, notes)
        _asked_within(story, deeds, calls, notes)


def _once_per_group(story: Story, deeds: Sequence[Deed], notes: Notes) -> None:
    found: dict[tuple[str, str], list[Deed]] = {}
    for deed in deeds:
        found.setdefault((deed.operation, deed.part), []).append(deed)
    for (operation, part), same in found.items():
        if operation in ("authorise", "capture") and len(same) > 1:
            detail = f"{len(same)} times {operation} for group {part}"
            notes.wrong(story.id, detail, *map(_deed, same))
        if operation == "capture":
            held = sum(number(d.amount) for d in found.get(("authorise", part), ()))
            taken = sum(number(d.amount) for d in same)
            if taken > held:
                detail = f"group {part}: {taken} captured of {held} authorised"
                notes.wrong(story.id, detail, *map(_deed, same))


def _within_the_total(story: Story, deeds: Sequence[Deed], notes: Notes) -> None:
    placed = story.placed
    if placed is None:
        return
    taken = [d for d in deeds if d.operation == "capture"]
    if sum(number(d.amount) for d in taken) > placed.total:
        amount = sum(number(d.amount) for d in taken)
        notes.wrong(story.id, f"{amount} captured, its total is {placed.total}", *map(_deed, taken))
    other = [d for d in deeds if d.currency and d.currency != placed.currency]
    if other:
        notes.wrong(story.id, f"charged in {other[0].currency}, not in {placed.currency}",
                    *map(_deed, other))  # fmt: skip


def _under_one_key(story: Story, calls: Sequence[Call], notes: Notes) -> None:
    for call in calls:
        if call.outcome == "malformed" or call.operation not in _KEYED:
            continue
        if call.key != f"{call.operation}:{story.id}:{call.part}":
            detail = f"{call.operation} of {call.part} was asked under the key {call.key}"
            notes.wrong(story.id, detail, _call(call))
        if call.outcome == "mismatched":
            notes.wrong(story.id, f"the key {call.key} stands for two calls", _call(call))


def _asked_within(
    story: Story, deeds: Sequence[Deed], calls: Sequence[Call], notes: Notes
) -> None:
    """No capture above what is set aside is even asked for."""
    held = sum(number(d.amount) for d in deeds if d.operation == "authorise")
    for call in calls:
        if call.operation == "capture" and number(call.amount) > held:
            detail = f"{call.amount} was to be captured, {held} is authorised"
            notes.wrong(story.id, detail, _call(call))


# ---- I7


def no_charge_for_nothing(books: Books, notes: Notes) -> None:
    """Every charge has its order, every event its deed and every deed its event; refunds are
    at most what was captured."""
    index = index_of(books)
    early = index.horizon("orders")
    for story in index.stories.values():
        deeds = story.deeds.get(PAYMENTS, ())
        notes.saw(len(deeds) + len(story.of("payments")))
        if deeds and story.root is None and _since(story, deeds) >= early:
            lost = [d for d in deeds if not books.young(d.at)]
            if lost:
                notes.wrong(story.id, "charged, and there is no such order", *map(_deed, lost))
        _refunds(story, deeds, notes)
        if index.whole(story):
            _told(story, notes)
            _events_have_deeds(index, story, notes)
            _deeds_have_events(index, story, notes)


def _since(story: Story, deeds: Sequence[Deed]) -> int:
    """When the order was accepted, by its id; where that does not say, when it was charged."""
    parts = parts_of(story.id)
    return parts[0] if parts else deeds[0].at


def _refunds(story: Story, deeds: Sequence[Deed], notes: Notes) -> None:
    left: Counter[str] = Counter()
    for deed in deeds:
        if deed.operation == "capture":
            left[deed.reference] += number(deed.amount)
        elif deed.operation == "refund":
            left[deed.reference] -= number(deed.amount)
    for payment, amount in left.items():
        if amount < 0:
            backs = [d for d in deeds if d.operation == "refund" and d.reference == payment]
            notes.wrong(story.id, f"{-amount} more went back than was taken", *map(_deed, backs))
    taken = sum(number(d.amount) for d in deeds if d.operation == "capture")
    for call in story.calls.get(PAYMENTS, ()):
        if call.operation == "refund" and number(call.amount) > taken:
            detail = f"{call.amount} was asked back, {taken} was taken"
            notes.wrong(story.id, detail, _call(call))


def _told(story: Story, notes: Notes) -> None:
    said = _sum(story, "payment.captured"), _sum(story, "payment.refunded")
    if said[1] > said[0]:
        facts = [e.fact for e in story.of("payments", "payment.refunded")]
        notes.wrong(story.id, f"{said[1]} told as refunded, {said[0]} as captured", *facts)


def _sum(story: Story, type_: str) -> int:
    return sum(number(e.body.get("amount_minor")) for e in story.of("payments", type_))


_DEEDS = {"payment.authorised": "authorise", "payment.captured": "capture",
          "payment.refunded": "refund"}  # fmt: skip


def _part(entry: Entry) -> str:
    return str(entry.body.get("refund" if entry.type == "payment.refunded" else "group"))


def _events_have_deeds(index: Orders, story: Story, notes: Notes) -> None:
    for entry in story.of("payments"):
        operation = _DEEDS.get(entry.type)
        if entry.type == "payment.declined":
            _was_declined(index, story, entry, notes)
        if operation is None or index.young(entry):
            continue
        same = [d for d in story.done(PAYMENTS, operation) if d.part == _part(entry)]
        said = entry.body.get("amount_minor"), entry.body.get("currency")
        if not same:
            notes.wrong(story.id, f"{entry.type}, and the provider knows nothing", entry.fact)
        elif said != (same[0].amount, same[0].currency):
            detail = f"{entry.type} of {said[0]} {said[1]}, and it was {same[0].amount}"
            notes.wrong(story.id, detail, entry.fact, _deed(same[0]))
        elif entry.body.get("payment", same[0].reference) != same[0].reference:
            notes.wrong(story.id, f"{entry.type} names another payment", entry.fact, _deed(same[0]))


def _was_declined(index: Orders, story: Story, entry: Entry, notes: Notes) -> None:
    if story.done(PAYMENTS, "authorise") and not index.young(entry):
        held = story.done(PAYMENTS, "authorise")
        notes.wrong(story.id, "told as declined, and it was authorised", entry.fact,
                    *map(_deed, held))  # fmt: skip


def _deeds_have_events(index: Orders, story: Story, notes: Notes) -> None:
    """An authorisation that came too late is voided without a word; all other money is told."""
    if not index.settled(story) or index.parked("payment", story.id):
        return
    closed = bool(story.of("payments", "payment.closed"))
    for type_, operation in _DEEDS.items():
        told = {_part(e) for e in story.of("payments", type_)}
        if operation == "authorise" and closed:
            continue
        for deed in story.done(PAYMENTS, operation):
            if deed.part not in told:
                notes.wrong(story.id, f"the provider did {operation}, nobody knows", _deed(deed))
