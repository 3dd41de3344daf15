"""I4: every order comes to exactly one end."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.sim.audit.books import Books, Notes
from penstock.sim.audit.orders.stories import FINAL, Entry, Orders, Story, index_of

AFTERWARDS = "order.refunded"  # money may still go back after the end


def one_end(books: Books, notes: Notes) -> None:
    """Exactly one final state, nothing after it; an open dead letter is an accounted end."""
    index = index_of(books)
    for story in index.stories.values():
        steps = story.of("order_states")
        if not steps and story.root is None:
            continue
        notes.saw()
        _one_at_most(story, steps, notes)
        if index.settled(story) and not story.end:
            state = _latest(story)
            found = [e.fact for e in (*story.of("orders")[:1], *steps[-1:])]
            notes.wrong(story.id, f"it stands still and is {state}", *found)
        _held_is_shown(index, story, notes)
        _shown(index, story, notes)


def _one_at_most(story: Story, steps: Sequence[Entry], notes: Notes) -> None:
    ended: Entry | None = None
    for step in steps:
        if ended is not None and step.type != AFTERWARDS:
            detail = f"{step.type} after its end, {ended.type}"
            notes.wrong(story.id, detail, ended.fact, step.fact)
        elif step.type in FINAL:
            ended = step


def _latest(story: Story) -> str:
    told = [e.type for e in story.of("order_states") if e.type != AFTERWARDS]
    return told[-1].removeprefix("order.") if told else "not known to the order service"


def _held_is_shown(index: Orders, story: Story, notes: Notes) -> None:
    """Where its payment waits for a person, the order says so, unless a person took away what
    would have told the order service."""
    if not index.parked("payment", story.id) or story.end or not index.whole(story):
        return
    if index.discarded("order", story.id):
        return
    waits_elsewhere = any(index.held.get((s, story.id)) for s in ("order", "inventory", "shipping"))
    if index.books.until is None and not waits_elsewhere and _latest(story) != "on_hold":
        rows = [f"{r.topic}[{r.partition}]@{r.offset}" for r in index.held["payment", story.id]]
        notes.wrong(story.id, f"its payment is parked and it is {_latest(story)}", *rows)


def _shown(index: Orders, story: Story, notes: Notes) -> None:
    """The document says what the events say, once everything was handled."""
    shown = index.shown(story.id)
    if shown is None or not story.end or not index.settled(story):
        return
    if shown.state != story.end or not shown.final:
        told = [e.fact for e in story.of("order_states") if e.type in FINAL]
        notes.wrong(story.id, f"it is {story.end}, its document says {shown.state}", *told)
