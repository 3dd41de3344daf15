"""I15: the customer is told everything once.

A mail's key is ``mail:ORDER:KIND``, with ``:PARCEL`` or ``:REFUND`` behind it where it is about
one. A mail may be caught twice under one key: mail servers know no keys.
"""

from __future__ import annotations

from collections.abc import Iterator

from penstock.sim.audit.books import Books, Mail, Notes
from penstock.sim.audit.orders.stories import Entry, Orders, Story, index_of, text

MAIL = "mail"
# The kind of mail a step makes, and the field that says what it is about.
KINDS = {
    "order.confirmed": ("confirmed", ""), "order.part_shipped": ("dispatched", "shipment"),
    "order.shipped": ("dispatched", "shipment"), "order.rejected": ("rejected", ""),
    "order.cancelled": ("cancelled", ""), "order.refunded": ("refunded", "refund"),
}


def told_once(books: Books, notes: Notes) -> None:
    """Once per order, kind and subject; what happened is told, and nothing else is."""
    index = index_of(books)
    for story in index.stories.values():
        notes.saw(len(story.mails))
        _one_content(story, notes)
        _noted_once(story, notes)
        _woken_once(story, notes)
        if index.whole(story):
            wanted = dict(_wanted(story))
            _nothing_untrue(index, story, wanted, notes)
            _nothing_untold(index, story, wanted, notes)


def _place(mail: Mail) -> str:
    return f"{MAIL} {mail.seq}"


def _one_content(story: Story, notes: Notes) -> None:
    first: dict[str, Mail] = {}
    for mail in story.mails:
        known = first.setdefault(mail.key, mail)
        said = mail.order, mail.kind, mail.subject, mail.text
        if said != (known.order, known.kind, known.subject, known.text):
            notes.wrong(story.id, f"the key {mail.key} stands for two mails", _place(known),
                        _place(mail))  # fmt: skip


def _noted_once(story: Story, notes: Notes) -> None:
    seen: dict[tuple[str, str], Entry] = {}
    for entry in story.of("notifications", "notification.sent"):
        place = text(entry.body.get("kind", "")), text(entry.body.get("subject", ""))
        before = seen.setdefault(place, entry)
        if before is not entry:
            notes.wrong(story.id, f"told twice: {place}", before.fact, entry.fact)


def _woken_once(story: Story, notes: Notes) -> None:
    """The deadline of an order comes once."""
    wakes = story.of("payment.answers", "wake")
    if len(wakes) > 1:
        notes.wrong(story.id, "its deadline came more than once", *(e.fact for e in wakes))


def _wanted(story: Story) -> Iterator[tuple[str, Entry]]:
    """The keys of the mails that the steps of an order bring about."""
    for step in story.of("order_states"):
        if step.type in KINDS and not step.body.get("resumed"):
            kind, field = KINDS[step.type]
            about = f":{step.body.get(field)}" if field else ""
            yield f"mail:{story.id}:{kind}{about}", step


def _nothing_untrue(
    index: Orders, story: Story, wanted: dict[str, Entry], notes: Notes
) -> None:
    for mail in story.mails:
        if index.books.young(mail.at):
            continue
        step = wanted.get(mail.key)
        if step is None:
            detail = f"{mail.kind} was mailed under {mail.key}, and nothing brought that about"
            notes.wrong(story.id, detail, _place(mail))
        elif KINDS[step.type][0] != mail.kind:
            notes.wrong(story.id, f"{mail.key} is a mail of kind {mail.kind}", _place(mail))


def _nothing_untold(
    index: Orders, story: Story, wanted: dict[str, Entry], notes: Notes
) -> None:
    placed = story.placed
    if placed is None or not placed.email or not index.settled(story) or _given_up(index, story):
        return
    sent = {mail.key for mail in story.mails} | _refused(story)
    for key, step in wanted.items():
        if key not in sent:
            notes.wrong(story.id, f"the customer was never told: {key}", step.fact)
    noted = {
        (text(e.body.get("kind", "")), text(e.body.get("subject", "")))
        for e in story.of("notifications", "notification.sent")
    }
    for mail in story.mails:
        about = mail.key.removeprefix(f"mail:{story.id}:{mail.kind}").removeprefix(":")
        if (mail.kind, about) not in noted and mail.key not in _refused(story):
            notes.wrong(story.id, f"nobody noted that {mail.key} was sent", _place(mail))


def _given_up(index: Orders, story: Story) -> bool:
    """A person has, or had, to see to its mails."""
    return index.parked("notify", story.id) or bool(index.discarded("notify", story.id))


def _refused(story: Story) -> set[str]:
    """Keys of mails that the server would not take."""
    return {
        str(e.body.get("idempotency_key")) for e in story.of("notify.answers", "answer")
        if e.body.get("outcome") == "refused"
    }
