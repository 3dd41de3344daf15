"""The rules about people and teams: roles that exist, and somebody to wake at any time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

from penstock.catalog.flaw import Flaw, Keys, near, shown
from penstock.catalog.model import EVERY_TEAM, Catalog, Holiday, Override, Person, Rotation
from penstock.catalog.predicates import Flaws, all_known, known, within
from penstock.catalog.roles import ROLES
from penstock.catalog.rotation import Span, day, days_off, moment, spans

YEARS = (1970, 2200)  # what a plan of people may speak of
PERIOD_DAYS_MAX = 366
HOLIDAYS_MAX = 400  # of one person; each is held against each override
OVERRIDES_MAX = 1000
AWAY_DAYS_MAX = 400  # longer is no holiday: take the person out of the rotation
ZONE_LETTERS = 3  # zones that begin alike are looked at for a near one

_TIME = "Write a local time, as 2026-01-05T09:00."
_DAY = "Write a day, as 2026-12-24."


@cache
def is_zone(name: str) -> bool:
    """Whether the time zone database has a zone of this name."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown; a path; a folder of the database
        return False
    return True


def _zone(path: Keys, name: str) -> Flaws:
    if not is_zone(name):
        alike = [z for z in available_timezones() if z[:ZONE_LETTERS] == name[:ZONE_LETTERS]]
        hint = near(name, alike) if alike else "Write it as Europe/London, or UTC."
        yield Flaw(path, f"there is no time zone {shown(name)}.", hint)


# People ----------------------------------------------------------------------------------------


def people_are_described(c: Catalog) -> Flaws:
    """A zone that exists, roles that exist for teams that exist, holidays with an end."""
    for name, person in c.people.items():
        path = ("people", name)
        yield from _zone((*path, "zone"), person.zone)
        for team, roles in person.roles.items():
            if team != EVERY_TEAM:
                yield from known((*path, "roles", team), team, c.teams, "team")
            yield from all_known((*path, "roles", team), roles, ROLES, "role")
        yield from _few((*path, "holidays"), len(person.holidays), HOLIDAYS_MAX)
        for number, holiday in enumerate(person.holidays[:HOLIDAYS_MAX]):
            yield from _holiday((*path, "holidays", str(number)), holiday)


def _few(path: Keys, count: int, most: int) -> Flaws:
    if count > most:
        yield Flaw(path, f"has {count}; at most {most} are taken.", "Remove those long over.")


def _holiday(path: Keys, holiday: Holiday) -> Flaws:
    first, last = day(holiday.from_), day(holiday.to or holiday.from_)
    for key, text, found in (("from", holiday.from_, first), ("to", holiday.to, last)):
        if found is None and (text or key == "from"):
            yield Flaw((*path, key), f"{shown(text)} is no day.", _DAY)
        elif found is not None and text:
            yield from _in_years((*path, key), found)
    if first and last:
        yield from _ordered(path, (last - first).days + 1, "is before from.")


def _ordered(path: Keys, days: float, backwards: str) -> Flaws:
    if days <= 0:
        yield Flaw((*path, "to"), backwards)
    elif days > AWAY_DAYS_MAX:
        yield Flaw((*path, "to"), f"is {days:g} days away; at most {AWAY_DAYS_MAX} are taken.")


def _in_years(path: Keys, when: date) -> Flaws:
    if not YEARS[0] < when.year < YEARS[1]:
        yield Flaw(path, f"must lie between {YEARS[0]} and {YEARS[1]}, and is in {when.year}.")


# Teams -----------------------------------------------------------------------------------------


def teams_can_be_reached(c: Catalog) -> Flaws:
    """A team has an address and somebody to wake."""
    for name, team in c.teams.items():
        path = ("teams", name)
        if not team.contacts:
            yield Flaw((*path, "contacts"), "is empty.", "Name at least one.")
        if not team.on_call and team.rotation is None:
            hint = f"Name at least one, or add [teams.{name}.rotation]."
            yield Flaw((*path, "on_call"), "is empty.", hint)
        elif team.on_call and team.rotation is not None:
            yield Flaw((*path, "on_call"), "the rotation says who is on call.", "Keep one.")
        for key, said in (("contacts", team.contacts), ("on_call", team.on_call)):
            for number, text in enumerate(said):
                here = (*path, key, str(number))
                if not text.strip():
                    yield Flaw(here, "is empty.")
                elif key == "on_call" and text in c.people:
                    yield from _reachable(here, c.people[text])


def _reachable(path: Keys, person: Person) -> Flaws:
    if not person.address.strip():
        hint = f"Add address to [people.{person.name}]."
        yield Flaw(path, f"{person.name} has no address to be woken at.", hint)


def rotations_turn(c: Catalog) -> Flaws:
    """Members that are people with an address, and times that exist."""
    for name, team in c.teams.items():
        if team.rotation is None:
            continue
        path, rotation = ("teams", name, "rotation"), team.rotation
        if not rotation.members:
            yield Flaw((*path, "members"), "is empty.", "Name at least one person.")
        yield from all_known((*path, "members"), rotation.members, c.people, "person")
        for number, member in enumerate(rotation.members):
            if member in c.people:
                yield from _reachable((*path, "members", str(number)), c.people[member])
        yield from _zone((*path, "zone"), rotation.zone)
        yield from within((*path, "period_days"), rotation.period_days, 1, PERIOD_DAYS_MAX)
        yield from _moment((*path, "first_handover"), rotation.first_handover)
        yield from _few((*path, "overrides"), len(rotation.overrides), OVERRIDES_MAX)
        for number, override in enumerate(rotation.overrides[:OVERRIDES_MAX]):
            yield from _override((*path, "overrides", str(number)), override, c.people)


def _moment(path: Keys, text: str) -> Flaws:
    found = moment(text)
    if found is None:
        yield Flaw(path, f"{shown(text)} is no local time.", _TIME)
    else:
        yield from _in_years(path, found)


def _override(path: Keys, override: Override, people: Mapping[str, Person]) -> Flaws:
    yield from known((*path, "person"), override.person, people, "person")
    if override.person in people:
        yield from _reachable((*path, "person"), people[override.person])
    yield from _moment((*path, "from"), override.from_)
    yield from _moment((*path, "to"), override.to)
    start, end = moment(override.from_), moment(override.to)
    if start and end:
        yield from _ordered(path, (end - start).total_seconds() / 86_400, "is not after from.")


def somebody_is_there(c: Catalog) -> Flaws:
    """Overrides do not contradict each other or a holiday, and not all members are away at once."""
    for name, team in c.teams.items():
        rotation = team.rotation
        if rotation is None or not is_zone(rotation.zone):
            continue
        path = ("teams", name, "rotation")
        taken = _overrides(rotation)
        yield from _overlaps((*path, "overrides"), taken)
        for number, span in taken:
            clash = next((a for a in _away(c, span.person) if _meet(a, span)), None)
            if clash is not None:
                text = f"{span.person} is away from {_said(max(clash.start_ms, span.start_ms))}."
                yield Flaw((*path, "overrides", str(number), "person"), text, "Name another.")
        yield from _nobody(c, path, rotation, [span for _, span in taken])


def _overrides(rotation: Rotation) -> list[tuple[int, Span]]:
    """Those that can be read, by their start, each with its number in the file."""
    zone = ZoneInfo(rotation.zone)
    some = enumerate(rotation.overrides[:OVERRIDES_MAX])
    found = [(n, span) for n, override in some for span in spans([override], zone)]
    return sorted((f for f in found if f[1].start_ms < f[1].end_ms), key=lambda f: f[1])


def _overlaps(path: Keys, taken: list[tuple[int, Span]]) -> Flaws:
    latest: tuple[int, Span] | None = None
    for number, span in taken:
        if latest is not None and span.start_ms < latest[1].end_ms:
            text = f"overlaps overrides[{latest[0]}]: two people from {_said(span.start_ms)}."
            yield Flaw((*path, str(number)), text, "End one where the other begins.")
        if latest is None or span.end_ms > latest[1].end_ms:
            latest = number, span


def _away(c: Catalog, name: str) -> tuple[Span, ...]:
    person = c.people.get(name)
    if person is None or not is_zone(person.zone):
        return ()
    found = days_off(name, person.holidays[:HOLIDAYS_MAX], ZoneInfo(person.zone))
    return tuple(span for span in found if span.start_ms < span.end_ms)


def _meet(one: Span, other: Span) -> bool:
    return one.start_ms < other.end_ms and other.start_ms < one.end_ms


def _nobody(c: Catalog, path: Keys, rotation: Rotation, overrides: list[Span]) -> Flaws:
    """The first time at which every member is away and no override names somebody."""
    if not rotation.members:
        return
    away = [span for name in rotation.members for span in _away(c, name)]
    edges = [(s.start_ms, 1, s.person) for s in away] + [(s.end_ms, -1, s.person) for s in away]
    edges += [(s.start_ms, 1, "") for s in overrides] + [(s.end_ms, -1, "") for s in overrides]
    holding: Counter[str] = Counter()  # spans that hold now, by who is away; "" is an override
    for (at, change, person), (until, _, _) in pairwise(sorted(edges)):
        holding[person] += change
        is_covered = holding[""] or not all(holding[name] for name in rotation.members)
        if at < until and not is_covered:
            text = f"all are away from {_said(at)} to {_said(until)}: nobody is on call."
            yield Flaw((*path, "members"), text, "Add an override, or a member.")
            return


def _said(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%MZ")


RULES: tuple[Callable[[Catalog], Flaws], ...] = (
    people_are_described,
    teams_can_be_reached,
    rotations_turn,
    somebody_is_there,
)
