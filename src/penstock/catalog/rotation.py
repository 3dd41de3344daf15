"""Who is on call for a team at a time, until when, and why; pure.

A handover is a time of day in a zone: it stays at nine o'clock there when the clocks change. A
time that the clocks leave out is taken by the offset before (02:30 becomes 03:30); of one that
comes twice, the first is meant. Turns go back before the first handover as they go on after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from msgspec import Struct

from penstock.catalog.model import Catalog, Holiday, Override, Rotation, Team

Why = Literal["rotation", "override", "holiday cover"]

DAY = timedelta(days=1)
AT_MS_MAX = 221_845_392_000_000  # year 9000: handovers must stay within what a calendar holds
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


class OnCall(Struct, frozen=True, kw_only=True):
    """``person`` (at ``address``) is on call for ``team`` until before ``until_ms``, None: for
    good. ``backups`` are those to wake after them, next in turn first."""

    team: str
    person: str
    address: str
    why: Why
    until_ms: int | None
    backups: tuple[str, ...] = ()


class Span(Struct, frozen=True, order=True):
    """From ``start_ms`` until before ``end_ms``: who stands in, or who is away."""

    start_ms: int
    end_ms: int
    person: str

    def holds(self, at_ms: int) -> bool:
        """Whether a time lies in it."""
        return self.start_ms <= at_ms < self.end_ms


class Schedule(Struct, frozen=True):
    """A rotation with its texts read: turn ``n`` belongs to member ``n`` modulo their number."""

    members: tuple[str, ...]
    first: datetime
    period: timedelta
    zone: ZoneInfo
    overrides: tuple[Span, ...] = ()
    away: tuple[Span, ...] = ()

    def handover_ms(self, turn: int) -> int:
        """When a turn begins."""
        return instant_ms(self.first + turn * self.period, self.zone)

    def turn(self, at_ms: int) -> int:
        """The turn a time lies in."""
        local = datetime.fromtimestamp(at_ms / 1000, self.zone).replace(tzinfo=None)
        turn = (local - self.first) // self.period
        # Where the clocks change, local time may be ahead of the handover or behind it.
        while self.handover_ms(turn + 1) <= at_ms:
            turn += 1
        while self.handover_ms(turn) > at_ms:
            turn -= 1
        return turn

    def order(self, at_ms: int) -> tuple[str, ...]:
        """The members, whose turn it is first, the next in turn after them."""
        start = self.turn(at_ms) % len(self.members)
        return self.members[start:] + self.members[:start]

    def there(self, at_ms: int) -> tuple[str, ...]:
        """As ``order``, without those who are away."""
        gone = {span.person for span in self.away if span.holds(at_ms)}
        return tuple(person for person in self.order(at_ms) if person not in gone)

    def who(self, at_ms: int) -> tuple[str, Why]:
        """The one person, and why. Where all are away (a sound catalog has none such), it stays
        with the one whose turn it is: somebody on holiday is better than nobody."""
        for span in self.overrides:
            if span.holds(at_ms):
                return span.person, "override"
        turn = self.order(at_ms)[0]
        first = next(iter(self.there(at_ms)), turn)
        return first, "rotation" if first == turn else "holiday cover"

    def edge(self, after_ms: int) -> int | None:
        """The next time at which the answer could be another."""
        spans = (*self.overrides, *self.away)
        edges = [t for s in spans for t in (s.start_ms, s.end_ms) if t > after_ms]
        if len(set(self.members)) > 1:
            edges.append(self.handover_ms(self.turn(after_ms) + 1))
        return min(edges, default=None)

    def until_ms(self, at_ms: int) -> int | None:
        """When somebody else is on call; None: never. It ends: once the last span is over, a
        handover changes the person, and where there is one member there is no handover."""
        person, _ = self.who(at_ms)
        edge = self.edge(at_ms)
        while edge is not None and self.who(edge)[0] == person:
            edge = self.edge(edge)
        return edge


def on_call(team: str, at_ms: int, catalog: Catalog) -> OnCall:
    """Who is on call for ``team`` (a sound catalog has exactly one person at any time)."""
    assert 0 <= at_ms <= AT_MS_MAX, "the edges refuse times that no calendar holds"
    held = catalog.teams[team]
    if held.rotation is None:
        return _for_good(held, catalog)
    schedule = schedule_of(held.rotation, catalog)
    person, why = schedule.who(at_ms)
    return OnCall(
        team=team, person=person, address=_address(person, catalog), why=why,
        until_ms=schedule.until_ms(at_ms),
        backups=tuple(p for p in schedule.there(at_ms) if p != person),
    )  # fmt: skip


def handovers(team: str, at_ms: int, catalog: Catalog, count: int) -> tuple[OnCall, ...]:
    """Who is on call after that, and after that; at most ``count``."""
    found: list[OnCall] = []
    until = on_call(team, at_ms, catalog).until_ms
    while until is not None and until <= AT_MS_MAX and len(found) < count:
        found.append(on_call(team, until, catalog))
        until = found[-1].until_ms
    return tuple(found)


def _for_good(team: Team, catalog: Catalog) -> OnCall:
    """A list of people or addresses is a rotation of one that never ends."""
    first, *others = team.on_call or team.contacts or (team.name,)
    return OnCall(
        team=team.name, person=first, address=_address(first, catalog), why="rotation",
        until_ms=None, backups=tuple(others),
    )  # fmt: skip


def _address(person: str, catalog: Catalog) -> str:
    """Where somebody is woken; who is no person of the catalog is an address."""
    known = catalog.people.get(person)
    return known.address if known is not None else person


def schedule_of(rotation: Rotation, catalog: Catalog) -> Schedule:
    """The rotation's texts as times. Its members and zones are known, by the catalog's rules."""
    zone = ZoneInfo(rotation.zone)
    people = [catalog.people[name] for name in rotation.members]
    first = moment(rotation.first_handover)
    assert first is not None, "the rules hold every time of a catalog"
    return Schedule(
        members=rotation.members, first=first, period=rotation.period_days * DAY, zone=zone,
        overrides=spans(rotation.overrides, zone),
        away=tuple(s for p in people for s in days_off(p.name, p.holidays, ZoneInfo(p.zone))),
    )  # fmt: skip


def spans(overrides: Iterable[Override], zone: ZoneInfo) -> tuple[Span, ...]:
    """Overrides as times; one whose texts are no times is left out (a rule tells of it)."""
    found = ((moment(o.from_), moment(o.to), o.person) for o in overrides)
    return tuple(
        Span(instant_ms(start, zone), instant_ms(end, zone), person)
        for start, end, person in found
        if start is not None and end is not None
    )


def days_off(name: str, holidays: Iterable[Holiday], zone: ZoneInfo) -> tuple[Span, ...]:
    """Holidays as times, the last day included; one whose texts are no dates is left out."""
    found = ((day(h.from_), day(h.to or h.from_)) for h in holidays)
    return tuple(
        Span(_midnight_ms(first, zone), _midnight_ms(last + DAY, zone), name)
        for first, last in found
        if first is not None and last is not None
    )


def moment(text: str) -> datetime | None:
    """A local time, as 2026-01-05T09:00; None where the text is none."""
    try:
        return datetime.fromisoformat(text) if _MOMENT.fullmatch(text) else None
    except ValueError:
        return None


def day(text: str) -> date | None:
    """A day, as 2026-01-05; None where the text is none."""
    try:
        return date.fromisoformat(text) if _DATE.fullmatch(text) else None
    except ValueError:
        return None


def instant_ms(local: datetime, zone: ZoneInfo) -> int:
    """A local time as milliseconds since 1970."""
    return round(local.replace(tzinfo=zone).timestamp()) * 1000


def _midnight_ms(of: date, zone: ZoneInfo) -> int:
    return instant_ms(datetime(of.year, of.month, of.day), zone)
