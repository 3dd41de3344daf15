"""People and rotations in a catalog file: every error at once, each at its line with a hint."""

from __future__ import annotations

import pytest

from penstock.catalog.load import BadCatalog, parse
from penstock.catalog.model import LOCAL
from tests.unit.test_catalog_load import SOUND

ON_CALL = 'on_call = ["mate@ferry.example"]\n'
PEOPLE = """\

[people.mo]
address = "mo@ferry.example"
zone = "Europe/London"
roles = { deck = ["owner"], "*" = ["viewer"] }
holidays = [{ from = "2026-12-24", to = "2026-12-27" }]

[people.jo]
address = "jo@ferry.example"
holidays = [{ from = "2026-12-30" }]

[teams.deck.rotation]
members = ["mo", "jo"]
first_handover = "2026-01-05T09:00"
zone = "Europe/London"
overrides = [{ person = "jo", from = "2026-03-02T18:00", to = "2026-03-03T08:00" }]
"""
ROTATION = "teams.deck.rotation."
STAFFED = SOUND.replace(ON_CALL, "") + PEOPLE


def told(*changes: tuple[str, str]) -> dict[str, str]:
    """Key to line, message and hint of every error, after these changes."""
    text = STAFFED
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    with pytest.raises(BadCatalog) as caught:
        parse(text.encode(), "ferry.toml")
    lines = text.splitlines()
    for error in caught.value.errors:
        assert 1 <= error.line <= len(lines)
    return {e.key: f"{lines[e.line - 1]} | {e.message} {e.hint}" for e in caught.value.errors}


def test_a_staffed_catalog_is_sound_and_has_a_local_actor() -> None:
    found = parse(STAFFED.encode(), "ferry.toml")
    assert set(found.people) == {LOCAL, "mo", "jo"}
    assert found.people[LOCAL].roles == {"*": ("admin",)}


def test_the_local_actor_may_be_given_less() -> None:
    less = STAFFED + '[people.local]\nroles = { deck = ["viewer"] }\n'
    assert parse(less.encode(), "ferry.toml").people[LOCAL].roles == {"deck": ("viewer",)}


@pytest.mark.parametrize(
    ("change", "key", "said"),
    [
        (('members = ["mo", "jo"]', 'members = ["mo", "joe"]'),
         ROTATION + "members[1]", "no person 'joe'. Did you mean jo?"),
        (('members = ["mo", "jo"]', 'members = ["mo", "jo", "mo"]'),
         ROTATION + "members[2]", "there twice"),
        (('members = ["mo", "jo"]', "members = []"),
         ROTATION + "members", "is empty. Name at least one person."),
        (('zone = "Europe/London"\nroles', 'zone = "Europe/Londn"\nroles'),
         "people.mo.zone", "no time zone 'Europe/Londn'. Did you mean Europe/London?"),
        (('zone = "Europe/London"\nover', 'zone = "../etc"\nover'),
         ROTATION + "zone", "no time zone '../etc'. Write it as Europe/London, or UTC."),
        (('zone = "Europe/London"\nover', 'zone = "Europe"\nover'),
         ROTATION + "zone", "no time zone 'Europe'."),
        (('address = "jo@ferry.example"\n', ""),
         ROTATION + "members[1]", "jo has no address to be woken at. Add address to"),
        (("05T09:00", "05 at nine"), ROTATION + "first_handover", "as 2026-01-05T09:00"),
        (("01-05T09:00", "02-30T09:00"), ROTATION + "first_handover", "no local"),
        (("2026-01-05T09:00", "9999-01-05T09:00"), ROTATION + "first_handover", "between"),
        (('person = "jo", from', 'person = "jon", from'),
         ROTATION + "overrides[0].person", "no person 'jon'. Did you mean jo?"),
        (("03-03T08:00", "03-02T18:00"), ROTATION + "overrides[0].to", "is not after from"),
        (("2026-03-03T08", "2028-03-03T08"), ROTATION + "overrides[0].to", "days away"),
        (('from = "2026-12-30"', 'from = "2026-12-32"'), "people.jo.holidays[0].from", "is no day"),
        (('from = "2026-12-24", to = "2026-12-27"', 'from = "2026-12-24", to = "2026-12-23"'),
         "people.mo.holidays[0].to", "is before from"),
        (('from = "2026-12-30"', "from = 2026-12-30"),
         "people.jo.holidays[0].from", 'must be text, and is 2026-12-30. Write "2026-12-30".'),
        (('deck = ["owner"]', 'deck = ["onwer"]'), "people.mo.roles.deck[0]", "mean owner?"),
        (('deck = ["owner"]', 'dock = ["owner"]'), "people.mo.roles.dock", "Did you mean deck?"),
        (("[people.jo]", "[people.Jo]"), "people.Jo", "cannot be a name"),
        (("overrides =", "period_days = 0\noverrides ="),
         ROTATION + "period_days", "must be at least 1"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_where_it_stands(
    change: tuple[str, str], key: str, said: str
) -> None:
    found = told(change)
    assert key in found
    assert said in found[key]


def test_a_team_has_a_list_or_a_rotation() -> None:
    found = told(("[topics.tickets]", f"{ON_CALL}[topics.tickets]"))
    assert "Keep one" in found["teams.deck.on_call"]
    with pytest.raises(BadCatalog, match=r"teams\.deck\.rotation"):
        parse(SOUND.replace(ON_CALL, "").encode(), "ferry.toml")


def test_a_person_named_by_a_list_has_an_address() -> None:
    text = SOUND.replace("mate@ferry.example", "mate") + "[people.mate]\n"
    with pytest.raises(BadCatalog, match=r"teams\.deck\.on_call\[0\]: mate has no address"):
        parse(text.encode(), "ferry.toml")


def test_overrides_that_overlap() -> None:
    second = ', { person = "mo", from = "2026-03-03T07:00", to = "2026-03-04T07:00" }]'
    found = told(('to = "2026-03-03T08:00" }]', f'to = "2026-03-03T08:00" }}{second}'))
    said = found[ROTATION + "overrides[1]"]
    assert "overlaps overrides[0]: two people from 2026-03-03T07:00Z" in said


def test_an_override_by_somebody_who_is_away() -> None:
    found = told(("2026-03-02T18:00", "2026-12-29T18:00"), ("2026-03-03T08:00", "2026-12-30T08:00"))
    key = ROTATION + "overrides[0].person"
    assert "jo is away from 2026-12-30T00:00Z. Name another." in found[key]


def test_a_time_at_which_all_are_away() -> None:
    found = told(('from = "2026-12-30"', 'from = "2026-12-26"'))
    said = found[ROTATION + "members"]
    assert "all are away from 2026-12-26T00:00Z to 2026-12-27T00:00Z: nobody is on call" in said


def test_an_override_may_name_somebody_while_all_are_away() -> None:
    third = '[people.cy]\naddress = "cy@ferry.example"\n'
    text = (STAFFED + third).replace('from = "2026-12-30"', 'from = "2026-12-26"')
    text = text.replace('person = "jo", from = "2026-03-02T18:00", to = "2026-03-03T08:00"',
                        'person = "cy", from = "2026-12-25T18:00", to = "2026-12-27T08:00"')
    assert parse(text.encode(), "ferry.toml").teams["deck"].rotation is not None


def test_everything_is_told_at_once() -> None:
    found = told(
        ('members = ["mo", "jo"]', 'members = ["mo", "joe"]'), ("Europe/London", "Europe/Londn"),
        ('deck = ["owner"]', 'deck = ["onwer"]'), ("T09:00", "T9"),
    )  # fmt: skip
    assert len(found) >= 5
