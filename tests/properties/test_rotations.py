"""Any rotation, any zone, any time: one person, until exactly when it says, without a gap."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.catalog.model import Catalog, Holiday, Override, Person, Rotation, Team
from penstock.catalog.rotation import day, days_off, handovers, instant_ms, moment, on_call, spans

ZONES = (
    "UTC", "Europe/London", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo",
    "Pacific/Apia", "Africa/Casablanca", "Asia/Kathmandu",
)  # fmt: skip
NAMES = ("ada", "bo", "cy")
FIRST, LAST = datetime(2008, 1, 1), datetime(2032, 12, 31)

moments = st.datetimes(FIRST, LAST).map(lambda t: t.strftime("%Y-%m-%dT%H:%M"))
zones = st.sampled_from(ZONES)
times = st.datetimes(FIRST, LAST).map(
    lambda t: round(t.replace(tzinfo=UTC).timestamp() * 1000) + t.microsecond % 1000
)


@st.composite
def holidays(draw: st.DrawFn) -> Holiday:
    first = draw(st.dates(date(2010, 1, 1), date(2030, 1, 1)))
    last = first + timedelta(days=draw(st.integers(0, 30)))
    return Holiday(from_=first.isoformat(), to=draw(st.sampled_from(["", last.isoformat()])))


@st.composite
def overrides(draw: st.DrawFn) -> tuple[Override, ...]:
    """Some that do not overlap."""
    edges = sorted(set(draw(st.lists(moments, max_size=6))))
    pairs = zip(edges[::2], edges[1::2], strict=False)
    return tuple(Override(person=draw(st.sampled_from(NAMES)), from_=a, to=b) for a, b in pairs)


@st.composite
def worlds(draw: st.DrawFn) -> Catalog:
    people = {
        name: Person(
            name=name, address=f"{name}@x", zone=draw(zones),
            holidays=tuple(draw(st.lists(holidays(), max_size=3))),
        )
        for name in NAMES
    }  # fmt: skip
    rotation = Rotation(
        members=tuple(draw(st.permutations(NAMES)))[: draw(st.integers(1, 3))],
        first_handover=draw(moments), zone=draw(zones), period_days=draw(st.integers(1, 20)),
        overrides=draw(overrides()),
    )  # fmt: skip
    teams = {"deck": Team(name="deck", contacts=("d@x",), rotation=rotation)}
    return Catalog(name="f", flow="f:F", people=people, teams=teams, topics={}, services={})


def expected(world: Catalog, at_ms: int) -> str:
    """The rules said once more, as simply as they can be: every turn laid out."""
    rotation = world.teams["deck"].rotation
    assert rotation is not None
    zone = ZoneInfo(rotation.zone)
    for span in spans(rotation.overrides, zone):
        if span.holds(at_ms):
            return span.person
    first = moment(rotation.first_handover)
    assert first is not None
    period = timedelta(days=rotation.period_days)
    near = (datetime.fromtimestamp(at_ms / 1000, UTC).replace(tzinfo=None) - first) // period
    begun = (n for n in range(near - 3, near + 4) if instant_ms(first + n * period, zone) <= at_ms)
    turn = max(begun)
    count = len(rotation.members)
    order = [rotation.members[(turn + n) % count] for n in range(count)]
    for name in order:
        person = world.people[name]
        off = days_off(name, person.holidays, ZoneInfo(person.zone))
        if not any(span.holds(at_ms) for span in off):
            return name
    return order[0]


@given(worlds(), times)
def test_it_is_the_one_the_rules_say(world: Catalog, at_ms: int) -> None:
    found = on_call("deck", at_ms, world)
    assert found.person == expected(world, at_ms)
    assert found.address == f"{found.person}@x"
    assert found.person not in found.backups


@given(worlds(), times, st.floats(0, 1))
def test_until_is_when_it_changes_and_not_before(world: Catalog, at_ms: int, part: float) -> None:
    found = on_call("deck", at_ms, world)
    if found.until_ms is None:
        assert expected(world, at_ms + 10**11) == found.person
        return
    assert found.until_ms > at_ms
    between = at_ms + int((found.until_ms - 1 - at_ms) * part)
    assert on_call("deck", between, world).person == found.person
    assert on_call("deck", found.until_ms - 1, world).person == found.person
    assert on_call("deck", found.until_ms, world).person != found.person


@settings(max_examples=50)
@given(worlds(), times)
def test_handovers_follow_each_other_without_a_gap(world: Catalog, at_ms: int) -> None:
    now = on_call("deck", at_ms, world)
    for following in handovers("deck", at_ms, world, 5):
        assert now.until_ms is not None
        assert following == on_call("deck", now.until_ms, world)
        now = following


@given(zones, st.datetimes(FIRST, LAST), st.integers(1, 400))
def test_later_days_never_begin_earlier(zone: str, first: datetime, days: int) -> None:
    there = ZoneInfo(zone)
    assert instant_ms(first, there) <= instant_ms(first + timedelta(days=days), there)


@given(st.text(max_size=20))
def test_a_text_is_a_time_or_none(text: str) -> None:
    assert moment(text) is None or "T" in text
    assert day(text) is None or len(text) == 10
