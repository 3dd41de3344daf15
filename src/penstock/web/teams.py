"""Every team and who is on call for it at the time of asking."""

from __future__ import annotations

from msgspec import Struct

from penstock.catalog.model import Catalog
from penstock.catalog.rotation import OnCall, Why, on_call
from penstock.web.site import Site
from penstock.web.text import moment


class OnCallState(Struct, frozen=True, kw_only=True):
    """Who is on call and why; ``until`` is empty where nobody ever takes over. ``backups`` are
    those to wake after them."""

    person: str
    address: str
    why: Why
    until: str = ""
    backups: tuple[str, ...] = ()


class TeamState(Struct, frozen=True, kw_only=True):
    """One team: how to reach it, whom to wake now, and what it owns."""

    team: str
    about: str
    contacts: tuple[str, ...]
    on_call: OnCallState
    topics: tuple[str, ...]
    services: tuple[str, ...]
    gateways: tuple[str, ...]


class Teams(Struct, frozen=True):
    """Every team of the catalog."""

    teams: tuple[TeamState, ...]


def team_states(site: Site) -> Teams:
    """Every team at this time."""
    now, catalog = site.clock.now(), site.catalog
    return Teams(tuple(_team(catalog, name, now) for name in catalog.teams))


def person_now(site: Site, team: str) -> str:
    """Who is on call for a team now; empty where there is no such team."""
    if team not in site.catalog.teams:
        return ""
    return on_call(team, site.clock.now(), site.catalog).person


def _team(catalog: Catalog, name: str, now: int) -> TeamState:
    team = catalog.teams[name]
    return TeamState(
        team=name, about=team.about, contacts=team.contacts,
        on_call=_on_call(on_call(name, now, catalog)),
        topics=tuple(t.name for t in catalog.topics.values() if t.owner == name),
        services=tuple(s.name for s in catalog.services.values() if s.owner == name),
        gateways=tuple(g.name for g in catalog.gateways.values() if g.owner == name),
    )


def _on_call(found: OnCall) -> OnCallState:
    return OnCallState(
        person=found.person, address=found.address, why=found.why, backups=found.backups,
        until=moment(found.until_ms) if found.until_ms is not None else "",
    )
