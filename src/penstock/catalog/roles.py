"""What each role may do, and who holds which role for what team."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

from msgspec import Struct

from penstock.catalog.model import EVERY_TEAM, Catalog

ADMIN = "admin"

Verb = Literal["see", "unmask", "retry", "discard", "plan", "run", "approve", "own", "grant"]

VERBS: dict[Verb, str] = {
    "see": "see what runs and what is wrong; personal and secret fields are masked",
    "unmask": "see masked fields; each look is journaled",
    "retry": "try a parked record again",
    "discard": "give a parked record up, for good",
    "plan": "ask for a plan and see what it would touch",
    "run": "start, slow, pause, resume and stop a plan that may run",
    "approve": "approve a plan of somebody else",
    "own": "take a case, hold it, close it",
    "grant": "make and revoke tokens of others",
}
ROLES: dict[str, frozenset[Verb]] = {
    "viewer": frozenset({"see"}),
    "operator": frozenset({"see", "retry", "plan", "run", "own"}),
    "approver": frozenset({"see", "approve"}),
    "owner": frozenset({"see", "unmask", "retry", "discard", "plan", "run", "approve", "own"}),
    ADMIN: frozenset(VERBS),
}

assert set(get_args(Verb)) == set(VERBS), "a verb without a sentence cannot be explained"


class Actor(Struct, frozen=True):
    """Who acts: a name, and roles by team (``*``: in every one). What is judged by it is judged
    by the roles held then: keep the value, not the name, where the question comes up later."""

    name: str
    roles: dict[str, tuple[str, ...]] = {}

    def held(self, team: str) -> tuple[str, ...]:
        """The roles held for this team, those held everywhere included; each once."""
        return tuple(dict.fromkeys((*self.roles.get(team, ()), *self.roles.get(EVERY_TEAM, ()))))

    def narrowed(self, scopes: Iterable[tuple[str, str]]) -> Actor:
        """The same person with no more than the given (role, team) pairs, and no more than they
        hold: who may do everything can act as one who may only look."""
        kept: dict[str, tuple[str, ...]] = {}
        for role, team in scopes:
            for at in self._teams(role, team):
                kept[at] = (*kept.get(at, ()), role)
        return Actor(self.name, {team: tuple(dict.fromkeys(r)) for team, r in kept.items()})

    def _teams(self, role: str, team: str) -> list[str]:
        """Where a (role, team) pair is covered by what is held."""
        if team == EVERY_TEAM:
            return [at for at, roles in self.roles.items() if covers(roles, role)]
        return [team] if covers(self.held(team), role) else []


def covers(held: Iterable[str], role: str) -> bool:
    """Whether the roles held allow all that ``role`` allows."""
    return ROLES[role] <= frozenset[Verb]().union(*(ROLES[one] for one in held))


def actor_of(catalog: Catalog, name: str) -> Actor | None:
    """The person of this name with the roles the catalog gives now; None where it has none."""
    person = catalog.people.get(name)
    return Actor(name, person.roles) if person is not None else None


def may(actor: Actor, verb: Verb, team: str) -> bool:
    """Whether the actor may do this to what belongs to ``team``."""
    return any(verb in ROLES[role] for role in actor.held(team))


def may_anywhere(actor: Actor, verb: Verb) -> bool:
    """Whether there is any team for which the actor may do this."""
    return any(may(actor, verb, team) for team in actor.roles)


def roles_with(verb: Verb) -> tuple[str, ...]:
    """The roles that may do this, for the sentence of a refusal."""
    return tuple(role for role, verbs in ROLES.items() if verb in verbs)
