"""Who is on call: by turns, overrides and holidays, through changes of the clocks."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from penstock.catalog.load import load_catalog
from penstock.catalog.model import Catalog, Holiday, Override, Person, Rotation, Team
from penstock.catalog.rotation import AT_MS_MAX, OnCall, handovers, on_call

PEOPLE = ("ada", "bo", "cy")


def at(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000


def world(
    rotation: Rotation | None, holidays: dict[str, Holiday] | None = None, zone: str = "UTC",
    on_call: tuple[str, ...] = (),
) -> Catalog:  # fmt: skip
    away = holidays or {}
    people = {
        name: Person(
            name=name, address=f"{name}@x", zone=zone,
            holidays=(away[name],) if name in away else (),
        )
        for name in PEOPLE
    }  # fmt: skip
    team = Team(name="deck", contacts=("deck@x",), on_call=on_call, rotation=rotation)
    return Catalog(
        name="f", flow="f:F", people=people, teams={"deck": team}, topics={}, services={}
    )


def london(**changes: object) -> Rotation:
    parts: dict[str, object] = {
        "members": PEOPLE, "first_handover": "2026-03-02T09:00", "zone": "Europe/London",
    }  # fmt: skip
    return Rotation(**(parts | changes))  # type: ignore[arg-type]


def said(found: OnCall) -> tuple[str, str, int | None]:
    return found.person, found.why, found.until_ms


@pytest.mark.parametrize(
    ("when", "person", "until"),
    [
        ("2026-03-02T09:00", "ada", "2026-03-09T09:00"),
        ("2026-03-09T08:59", "ada", "2026-03-09T09:00"),
        ("2026-03-09T09:00", "bo", "2026-03-16T09:00"),
        # The clocks go forward on the 29th: nine o'clock is an hour earlier in UTC.
        ("2026-03-29T12:00", "ada", "2026-03-30T08:00"),
        ("2026-03-30T08:00", "bo", "2026-04-06T08:00"),
        # And back on October 25th.
        ("2026-10-25T12:00", "ada", "2026-10-26T09:00"),
        # Before the first handover it is the turn of whoever comes before the first.
        ("2026-03-02T08:59", "cy", "2026-03-02T09:00"),
        ("2026-02-23T08:59", "bo", "2026-02-23T09:00"),
    ],
)
def test_turns_keep_their_time_of_day(when: str, person: str, until: str) -> None:
    found = on_call("deck", at(when), world(london()))
    assert said(found) == (person, "rotation", at(until))
    assert found.address == f"{person}@x"


def test_a_handover_in_the_hour_that_the_clocks_leave_out() -> None:
    daily = london(first_handover="2026-03-27T01:30", period_days=1)
    before = on_call("deck", at("2026-03-29T01:29"), world(daily))
    assert said(before) == ("bo", "rotation", at("2026-03-29T01:30"))  # 01:30 becomes 02:30 BST
    after = on_call("deck", at("2026-03-29T01:30"), world(daily))
    assert said(after) == ("cy", "rotation", at("2026-03-30T00:30"))


def test_a_handover_in_the_hour_that_comes_twice_is_the_first() -> None:
    daily = london(first_handover="2026-10-24T01:30", period_days=1)
    found = on_call("deck", at("2026-10-25T00:29"), world(daily))
    assert said(found) == ("ada", "rotation", at("2026-10-25T00:30"))  # 01:30 BST, not GMT
    assert said(on_call("deck", at("2026-10-25T01:00"), world(daily)))[0] == "bo"


def test_a_day_that_a_zone_left_out_has_no_turn() -> None:
    samoa = london(first_handover="2011-12-29T09:00", period_days=1, zone="Pacific/Apia")
    there = world(samoa)
    assert said(on_call("deck", at("2011-12-30T18:59"), there))[0] == "ada"
    assert said(on_call("deck", at("2011-12-30T19:00"), there))[0] == "cy"


def test_a_leap_day_is_a_day() -> None:
    daily = world(london(first_handover="2028-02-28T09:00", period_days=1))
    assert [t.person for t in handovers("deck", at("2028-02-28T10:00"), daily, 3)] == [
        "bo", "cy", "ada",
    ]  # fmt: skip
    assert on_call("deck", at("2028-02-29T10:00"), daily).until_ms == at("2028-03-01T09:00")


def test_an_override_wins_until_it_ends() -> None:
    stand_in = Override(person="cy", from_="2026-04-01T18:00", to="2026-04-02T08:00")
    there = world(london(overrides=(stand_in,)))
    assert said(on_call("deck", at("2026-04-01T16:59"), there)) == (
        "bo", "rotation", at("2026-04-01T17:00"),
    )  # fmt: skip
    assert said(on_call("deck", at("2026-04-01T17:00"), there)) == (
        "cy", "override", at("2026-04-02T07:00"),
    )  # fmt: skip


def test_an_override_by_the_one_whose_turn_it_is_changes_nobody() -> None:
    same = Override(person="bo", from_="2026-04-01T18:00", to="2026-04-02T08:00")
    found = on_call("deck", at("2026-04-01T12:00"), world(london(overrides=(same,))))
    assert said(found) == ("bo", "rotation", at("2026-04-06T08:00"))


def test_a_holiday_is_covered_by_the_next_in_turn_and_ends_at_their_own_midnight() -> None:
    away = {"bo": Holiday(from_="2026-04-01", to="2026-04-02")}
    there = world(london(), away, zone="America/New_York")
    assert said(on_call("deck", at("2026-04-01T03:59"), there)) == (
        "bo", "rotation", at("2026-04-01T04:00"),
    )  # fmt: skip
    found = on_call("deck", at("2026-04-01T04:00"), there)
    assert said(found) == ("cy", "holiday cover", at("2026-04-03T04:00"))
    assert found.backups == ("ada",)


def test_the_next_two_away_are_both_passed_over() -> None:
    day = Holiday(from_="2026-04-01")
    found = on_call("deck", at("2026-04-01T12:00"), world(london(), {"bo": day, "cy": day}))
    assert said(found) == ("ada", "holiday cover", at("2026-04-02T00:00"))


def test_somebody_on_holiday_is_better_than_nobody() -> None:
    day = Holiday(from_="2026-04-01")
    alone = world(london(members=("ada",)), {"ada": day})
    assert said(on_call("deck", at("2026-04-01T12:00"), alone)) == ("ada", "rotation", None)


def test_a_list_is_a_rotation_of_one_for_good() -> None:
    found = on_call("deck", 0, world(None, on_call=("bo", "night@desk.example")))
    assert said(found) == ("bo", "rotation", None)
    assert (found.address, found.backups) == ("bo@x", ("night@desk.example",))
    assert handovers("deck", 0, world(None, on_call=("bo",)), 3) == ()
    address = on_call("deck", 0, world(None, on_call=("night@desk.example",)))
    assert address.address == address.person == "night@desk.example"


def test_the_shipped_teams_always_have_somebody() -> None:
    shipped = load_catalog()
    for team in shipped.teams:
        for when in (0, at("2026-01-05T08:59"), at("2026-11-25T12:00"), AT_MS_MAX):
            assert on_call(team, when, shipped).address.endswith("@shop.example")
