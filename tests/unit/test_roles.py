"""Who may do what, for which team; the page of people says the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.catalog.load import load_catalog
from penstock.catalog.model import LOCAL
from penstock.catalog.roles import (
    ROLES,
    VERBS,
    Actor,
    actor_of,
    covers,
    may,
    may_anywhere,
    roles_with,
)

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "people.md"
CHRIS = Actor("chris", {"checkout": ("owner",), "*": ("viewer",)})

teams = st.sampled_from(["checkout", "stores", "*"])
role_names = st.sampled_from(sorted(ROLES))
held = st.dictionaries(teams, st.lists(role_names, max_size=2).map(tuple), max_size=3)
actors = st.builds(Actor, st.just("a"), held)


def test_a_role_counts_for_its_own_team() -> None:
    assert may(CHRIS, "discard", "checkout")
    assert not may(CHRIS, "discard", "stores")
    assert may(CHRIS, "see", "stores")
    assert may_anywhere(CHRIS, "discard")
    assert not may_anywhere(CHRIS, "grant")


def test_an_operator_retries_and_an_approver_approves() -> None:
    operator = Actor("o", {"checkout": ("operator",)})
    approver = Actor("a", {"checkout": ("approver",)})
    assert may(operator, "retry", "checkout")
    assert not may(operator, "discard", "checkout")
    assert not may(operator, "approve", "checkout")
    assert may(approver, "approve", "checkout")
    assert not may(approver, "run", "checkout")


def test_who_holds_nothing_may_nothing() -> None:
    assert not any(may(Actor("n"), verb, "checkout") for verb in VERBS)


def test_the_local_user_is_a_named_actor_who_may_everything() -> None:
    local = actor_of(load_catalog(), LOCAL)
    assert local is not None
    assert local.name == LOCAL
    assert all(may(local, verb, "care") for verb in VERBS)
    assert actor_of(load_catalog(), "nobody") is None


def test_a_refusal_can_name_the_roles_that_would_do() -> None:
    assert roles_with("discard") == ("owner", "admin")


def verb_of(row: list[str]) -> str:
    """The verb a row of the page is about."""
    (verb,) = re.findall(r"`(\w+)`", row[0])
    return str(verb)


@pytest.mark.parametrize("role", ROLES)
def test_the_page_has_the_table(role: str) -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith("|") and not line.startswith("|---")
    ]
    head, *body = rows
    column = head.index(role)
    said = {verb_of(row): row[column] == "yes" for row in body}
    assert said == {verb: verb in ROLES[role] for verb in VERBS}


@given(actors, st.lists(st.tuples(role_names, teams), max_size=4))
def test_a_narrowed_actor_may_never_more(
    actor: Actor, scopes: list[tuple[str, str]]
) -> None:
    narrow = actor.narrowed(scopes)
    for team in ("checkout", "stores", "other"):
        for verb in VERBS:
            assert not may(narrow, verb, team) or may(actor, verb, team)


def test_an_admin_can_act_as_a_viewer_of_one_team() -> None:
    narrow = Actor("pat", {"*": ("admin",)}).narrowed([("viewer", "checkout")])
    assert narrow.roles == {"checkout": ("viewer",)}
    everywhere = CHRIS.narrowed([("viewer", "*")])
    assert everywhere.roles == {"checkout": ("viewer",), "*": ("viewer",)}


def test_what_a_role_covers() -> None:
    assert covers(("owner",), "operator")
    assert not covers(("operator",), "approver")
    assert covers(("operator", "approver"), "approver")
    assert not covers((), "viewer")
