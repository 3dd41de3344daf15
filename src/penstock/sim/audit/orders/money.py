"""I8 and I9: no amount gets lost, and who gets nothing pays nothing."""

from __future__ import annotations

from typing import Any

from penstock.sim.audit.books import Books, Notes
from penstock.sim.audit.orders.charges import PAYMENTS
from penstock.sim.audit.orders.stories import Entry, Orders, Story, index_of, number, rows, text

_AMOUNTS = ("unit_minor", "net_minor", "tax_minor", "gross_minor", "discount_minor")
_GIVES_BACK = frozenset({"void", "refund"})


# ---- I8


def money_is_conserved(books: Books, notes: Notes) -> None:
    """Lines add up to totals; log, ledger and documents agree about what was taken and kept."""
    index = index_of(books)
    for story in index.stories.values():
        root = story.root
        if root is not None:
            notes.saw()
            _lines_add_up(story, root, notes)
        for entry in story.of("payments"):
            _whole_units(story, entry, "amount_minor", notes)
        if index.whole(story):
            _documents_agree(index, story, notes)
            if index.settled(story):
                _ledger_agrees(index, story, notes)


def _whole_units(story: Story, entry: Entry, name: str, notes: Notes) -> None:
    amount = entry.body.get(name, 0)
    if type(amount) is not int or amount < 0:
        notes.wrong(story.id, f"{entry.type}: {name} is {amount!r}, no minor units", entry.fact)


def _lines_add_up(story: Story, root: Entry, notes: Notes) -> None:
    lines = rows(root.body.get("lines"))
    if root.fact.version == 1:
        return  # one flat total, with carriage and discount hidden in it
    _whole_units(story, root, "total_minor", notes)
    for line in lines:
        if not _is_frozen(line):
            detail = f"the money of line {line.get('line')} does not add up"
            notes.wrong(story.id, detail, root.fact)
    total = sum(number(line.get("gross_minor")) for line in lines)
    if total != root.body.get("total_minor"):
        detail = f"its lines cost {total}, its total is {root.body.get('total_minor')}"
        notes.wrong(story.id, detail, root.fact)


def _is_frozen(line: dict[str, Any]) -> bool:
    """gross = net + tax, net = quantity x unit - discount share, all in integers."""
    said = [line.get(name, 0) for name in (*_AMOUNTS, "quantity")]
    if any(type(amount) is not int for amount in said):
        return False
    unit, net, tax, gross, discount, quantity = said
    return bool(net == quantity * unit - discount and gross == net + tax)


def _told(story: Story, type_: str) -> list[Entry]:
    return [e for e in story.of("payments") if e.type == type_]


def _amount(entries: list[Entry]) -> int:
    return sum(number(e.body.get("amount_minor")) for e in entries)


def _documents_agree(index: Orders, story: Story, notes: Notes) -> None:
    """What the order shows is the sum of what its service has handled."""
    shown = index.shown(story.id)
    if shown is None:
        return
    for type_, amount in (
        ("payment.authorised", shown.authorised_minor), ("payment.captured", shown.captured_minor),
        ("payment.refunded", shown.refunded_minor),
    ):
        told = _told(story, type_)
        if _amount(told) == amount and all(index.handled("order", e.fact.id) for e in told):
            continue
        least, most = _bounds(index, told)
        if not least <= amount <= most and not index.moving(story):
            detail = f"{type_} tells {least}, the document shows {amount}"
            notes.wrong(story.id, detail, *(e.fact for e in told))


def _bounds(index: Orders, told: list[Entry]) -> tuple[int, int]:
    """What the order service must and may have counted: a discarded record is marked and not
    counted, and of a record that is gone the mark may be gone, too."""
    told = [e for e in told if not index.given_up("order", e.fact)]
    sure = [e for e in told if index.handled("order", e.fact.id)]
    gone = [e for e in told if e not in sure and index.is_gone(e.fact)]
    return _amount(sure), _amount(sure) + _amount(gone)


def _ledger_agrees(index: Orders, story: Story, notes: Notes) -> None:
    kept = _amount(_told(story, "payment.captured")) - _amount(_told(story, "payment.refunded"))
    facts = [e.fact for e in story.of("payments")]
    if PAYMENTS in index.books.ledgers:
        notes.saw()
        moved = net(story)
        if moved != kept:
            notes.wrong(story.id, f"{kept} was told as kept, the provider has {moved}", *facts)
    if story.end == "completed":
        due = [number(e.body.get("amount_minor")) for e in
               story.of("inventory", "inventory.reserved")]  # fmt: skip
        if kept != sum(due):
            notes.wrong(story.id, f"completed with {kept} kept, {sum(due)} was due", *facts)


def net(story: Story) -> int:
    """What the provider took for the order and has not given back."""
    taken = sum(number(d.amount) for d in story.done(PAYMENTS, "capture"))
    return taken - sum(number(d.amount) for d in story.done(PAYMENTS, "refund"))


# ---- I9


def nothing_is_kept_for_nothing(books: Books, notes: Notes) -> None:
    """Rejected and cancelled orders cost nothing in the end, and no ended order has a hold."""
    index = index_of(books)
    for story in index.stories.values():
        notes.saw()
        if not story.end or not index.settled(story) or _person_kept_it(index, story):
            continue
        deeds = [f"{PAYMENTS} effect {d.seq}" for d in story.deeds.get(PAYMENTS, ())]
        if story.end != "completed" and net(story) != 0:
            notes.wrong(story.id, f"{story.end}, and {net(story)} was kept", *deeds)
        ended = {d.part for o in ("capture", "void") for d in story.done(PAYMENTS, o)}
        held = [d for d in story.done(PAYMENTS, "authorise") if d.part not in ended]
        if held:
            notes.wrong(story.id, f"{story.end}, and money is still set aside", *deeds)


def _person_kept_it(index: Orders, story: Story) -> bool:
    """A person discarded that a void or a refund had failed: theirs to settle."""
    given_up = {text(e.body.get("event_id")) for e in index.discarded("payment", story.id)}
    return any(
        e.fact.id.hex() in given_up and text(e.body.get("name")) in _GIVES_BACK
        and e.body.get("outcome") != "ok"
        for e in story.of("payment.answers")
    )
