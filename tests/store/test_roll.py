"""The roll of couriers: shards shared out, taken over, given back."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from penstock.conformance.scenario import refused, together
from penstock.conformance.stores import SERVICE
from penstock.errors import Unreachable
from penstock.ports import SHARDS
from penstock.store.postgres_reports import PostgresReports
from penstock.store.postgres_roll import ALIVE_SECONDS, PostgresRoll
from tests.support import eventually, unused_port

Look = Callable[..., list[tuple[Any, ...]]]
ALL = frozenset(range(SHARDS))


def test_couriers_share_the_shards(where: str) -> None:
    """Alone one has all; of two each has half; a third makes it thirds; who leaves is missed at
    the next look."""
    a, b, c = (PostgresRoll(where, SERVICE, name) for name in "abc")
    assert a.attend(1) == ALL
    halves = b.attend(1), a.attend(1)
    assert halves[0] | halves[1] == ALL
    assert not halves[0] & halves[1]
    c.attend(1)
    thirds = [roll.attend(1) for roll in (a, b, c)]
    assert frozenset().union(*thirds) == ALL
    assert sorted(map(len, thirds)) == [21, 21, 22]
    c.leave()
    c.leave()
    assert (b.attend(1), a.attend(1)) == halves
    for roll in (a, b):
        roll.leave()


def test_reports_tell_for_how_long_their_process_is_silent(where: str, look: Look) -> None:
    """By the database's clock, whatever the process's own says."""
    reports = PostgresReports(where)
    reports.put("a", {"service": "tally", "at": 5})
    reports.put("b", {"service": "tally", "at": 6})
    look("UPDATE reports SET seen_at = seen_at - interval '7 s' WHERE name = 'b' RETURNING 1")
    a, b = (msgspec.json.decode(raw) for raw in reports.all())
    assert (a["at"], b["at"]) == (5, 6)
    assert 0 <= a["silent_ms"] < 5000 < 7000 <= b["silent_ms"] < 12_000
    reports.close()


def test_one_that_is_silent_is_dead(where: str, look: Look) -> None:
    """By the database's clock. Its row goes when it has long been so."""
    a, b = PostgresRoll(where, SERVICE, "a"), PostgresRoll(where, SERVICE, "b")
    b.attend(1)
    assert a.attend(1) != ALL
    eventually(lambda: a.attend(1) == ALL, ALIVE_SECONDS + 10, what="b is missed")
    look(
        "UPDATE couriers SET seen_at = seen_at - interval '1 hour' WHERE name = 'b' RETURNING 1"
    )
    a.attend(1)
    assert look("SELECT name FROM couriers_now") == [("a",)]
    for roll in (a, b):
        roll.leave()


def test_services_and_namespaces_have_rolls_of_their_own(where: str) -> None:
    rolls = [
        PostgresRoll(where, SERVICE, "a"), PostgresRoll(where, "pressing", "b"),
        PostgresRoll(where, SERVICE, "c", "rebuild"),
    ]  # fmt: skip
    assert [roll.attend(1) for roll in rolls] == [ALL] * 3
    for roll in rolls:
        roll.leave()


def test_many_come_at_once(where: str) -> None:
    """The first of a service meet in an empty table."""
    rolls = [PostgresRoll(where, SERVICE, f"c{n}") for n in range(6)]
    together(*(partial(_attend, roll, []) for roll in rolls))
    shares: list[frozenset[int]] = []
    together(*(partial(_attend, roll, shares) for roll in rolls))
    assert frozenset().union(*shares) == ALL
    assert sum(map(len, shares)) == SHARDS
    together(*(roll.leave for roll in rolls))


def _attend(roll: PostgresRoll, shares: list[frozenset[int]]) -> None:
    shares.append(roll.attend(1))


def test_nobody_answers() -> None:
    """To attend is to know; to leave is polite."""
    roll = PostgresRoll(f"postgresql://127.0.0.1:{unused_port()}/a", SERVICE, "a")
    refused(Unreachable, roll.attend, 1)
    roll.leave()
