"""What runs, how far it is and what is wrong, gathered at the time of asking.

Every process of a service leaves a small file in ``<home>/run/status``, on a cluster a row of the
database; positions and extents come from the stores and the log. All of it blocks: the reading
thread calls it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from penstock import __version__
from penstock.catalog.model import Topic
from penstock.errors import NotFound, OutsideLog, Unreachable, World
from penstock.flow import Row, Scan
from penstock.limits import PARTITIONS_MAX
from penstock.ports import Extent
from penstock.web.site import Site
from penstock.web.text import moment

SILENT_MS = 5_000  # a process that said nothing for so long is not there
_PARTITION_LIMIT = PARTITIONS_MAX + 1


class Gap(Struct, frozen=True, kw_only=True):
    """How far one service is behind in one partition."""

    service: str
    topic: str
    partition: int
    position: int
    messages: int
    oldest_age_seconds: float = 0.0


class GatewayState(Struct, frozen=True, kw_only=True):
    """A gateway as one service's courier sees it; ``state`` is closed, open (held) or
    probing (one call is out to try)."""

    state: str = "closed"
    open_rows: int = 0
    last_error: str = ""


class ServiceState(Struct, frozen=True, kw_only=True):
    """One service. ``stopped`` and ``trouble`` say why something does not move; ``lag`` None:
    nobody knows, for the log does not answer."""

    service: str
    owner: str = ""
    about: str = ""
    running: bool = False
    pid: int | None = None
    pids: tuple[int, ...] = ()
    version: str = ""
    at: str = ""
    lanes: tuple[int, ...] = ()
    lag: int | None = 0
    oldest_age_seconds: float = 0.0
    handled: int = 0
    duplicates: int = 0
    retried: int = 0
    parked_total: int = 0
    waiting: int = 0
    parked: int = 0
    stopped: str = ""
    trouble: dict[str, str] = {}
    alarms: dict[str, str] = {}
    gateways: dict[str, GatewayState] = {}


class TopicState(Struct, frozen=True, kw_only=True):
    """One topic and what it holds: first and next offset of every partition. ``records`` None:
    nobody knows, for the log does not answer."""

    topic: str
    owner: str
    producer: str
    about: str
    partitions: int
    records: int | None
    extents: tuple[Extent, ...]
    readers: tuple[str, ...]


class Member(Struct, frozen=True, kw_only=True):
    """One process of the crew and where it listens."""

    name: str
    about: str = ""
    pid: int | None = None
    restarts: int = 0
    where: str = ""


class IntakeState(Struct, frozen=True, kw_only=True):
    """The door's group commit; ``alarms`` say what keeps the records of the door's topics."""

    open: bool
    groups: int = 0
    requests: int = 0
    full: bool = False
    alarms: dict[str, str] = {}


class Status(Struct, frozen=True, kw_only=True):
    """Everything at one time (``as_of``). ``trouble``: why the log could not be asked; what it
    alone knows is left out then, and not told as nothing."""

    as_of: str
    version: str
    sandbox: bool
    url: str
    intake: IntakeState
    services: tuple[ServiceState, ...]
    topics: tuple[TopicState, ...]
    gaps: tuple[Gap, ...]
    crew: tuple[Member, ...]
    trouble: str = ""


def gather(site: Site, *, ages: bool = False) -> Status:
    """The whole status; with ``ages`` also how old the oldest unread records are."""
    now = site.clock.now()
    topics, gaps, trouble = _asked(site, now, ages)
    gate = site.gate
    intake = IntakeState(open=False)
    if gate is not None:
        intake = IntakeState(
            open=True, groups=gate.groups, requests=gate.requests, full=gate.full,
            alarms=dict(site.alarms),
        )
    return Status(
        as_of=moment(now), version=__version__, sandbox=site.sandbox, url=site.url, intake=intake,
        services=service_states(site, gaps, now), topics=topics, gaps=gaps or (), crew=crew(site),
        trouble=trouble,
    )


def _asked(
    site: Site, now: int, ages: bool
) -> tuple[tuple[TopicState, ...], tuple[Gap, ...] | None, str]:
    """Topics, gaps, and why they could not be told, if so. The log is asked first: where it does
    not answer nothing more is asked of it."""
    try:
        topics = topic_states(site)
        extents = {topic.topic: topic.extents for topic in topics}
        every = (_gaps(site, name, extents, now, ages) for name in _readers(site))
        return topics, tuple(gap for gaps in every for gap in gaps), ""
    except Unreachable as away:
        topics = tuple(_topic_state(site, topic, None) for topic in site.catalog.topics.values())
        return topics, None, str(away)


def _readers(site: Site) -> list[str]:
    return [s.name for s in site.flow.services if s.name in site.catalog.services]


# Topics and lag ----------------------------------------------------------------------------------


def topic_states(site: Site) -> tuple[TopicState, ...]:
    """Every topic of the catalog, those without a file yet as empty. Raises ``Unreachable``."""
    topics = site.catalog.topics.values()
    return tuple(_topic_state(site, topic, _extents(site, topic.name)) for topic in topics)


def _topic_state(site: Site, topic: Topic, extents: tuple[Extent, ...] | None) -> TopicState:
    records = None if extents is None else sum(e.next - e.first for e in extents)
    return TopicState(
        topic=topic.name, owner=topic.owner, producer=topic.producer, about=topic.about,
        partitions=topic.partitions, records=records, extents=extents or (),
        readers=site.catalog.readers(topic.name),
    )


def _extents(site: Site, topic: str) -> tuple[Extent, ...]:
    try:
        return tuple(site.log.extent(topic))
    except NotFound:
        return ()


def _gaps(
    site: Site, service: str, extents: Mapping[str, tuple[Extent, ...]], now: int, ages: bool
) -> list[Gap]:
    lanes = _scan(site, Scan(service=service, table="positions", limit=_PARTITION_LIMIT))
    positions = {int(row.key): row.body for row in lanes}
    found = []
    for topic in site.catalog.services[service].reads:
        for partition, extent in enumerate(extents.get(topic, ())):
            at = positions.get(partition, {}).get(topic, extent.first)
            behind = max(0, extent.next - at)
            age = _age(site, topic, partition, at, now) if ages and behind else 0.0
            found.append(
                Gap(
                    service=service, topic=topic, partition=partition, position=at,
                    messages=behind, oldest_age_seconds=age,
                )
            )
    return found


def _scan(site: Site, what: Scan) -> list[Row]:
    try:
        return site.scan(what)
    except NotFound:
        return []


def _age(site: Site, topic: str, partition: int, offset: int, now: int) -> float:
    try:
        records = site.log.read(topic, partition, offset, 1)
    except (OutsideLog, World):
        return 0.0  # the service itself says in its trouble why it stands still
    return max(0.0, (now - records[0].appended_at) / 1000) if records else 0.0


# Processes ---------------------------------------------------------------------------------------


def service_states(
    site: Site, gaps: tuple[Gap, ...] | None, now: int
) -> tuple[ServiceState, ...]:
    """One state per service, what its processes said added up; without ``gaps`` its lag is not
    known."""
    said = _said(site)

    def own(name: str) -> list[Gap] | None:
        return None if gaps is None else [g for g in gaps if g.service == name]

    return tuple(_service(site, n, said.get(n, []), own(n), now) for n in _readers(site))


class _Said(Struct, frozen=True, kw_only=True):
    """What one process said of itself."""

    def silence(self, now: int) -> int:
        """For how long it has said nothing (ms)."""
        return now - self.at if self.silent_ms is None else self.silent_ms

    service: str
    pid: int
    at: int
    silent_ms: int | None = None  # by one clock for all, where there is one
    role: str = "worker"
    version: str = ""
    lanes: tuple[int, ...] = ()
    handled: int = 0
    duplicates: int = 0
    retried: int = 0
    parked_total: int = 0
    waiting: int = 0
    parked: int = 0
    stopped: str = ""
    trouble: dict[str, str] = {}
    alarms: dict[str, str] = {}
    gateways: dict[str, GatewayState] = {}


def _said(site: Site) -> dict[str, list[_Said]]:
    found: dict[str, list[_Said]] = {}
    for raw in site.reports():
        try:
            said = msgspec.json.decode(raw, type=_Said)
        except msgspec.MsgspecError:
            continue  # left by another version: it counts as silent
        found.setdefault(said.service, []).append(said)
    return found


def _service(
    site: Site, name: str, said: list[_Said], gaps: list[Gap] | None, now: int
) -> ServiceState:
    entry = site.catalog.services[name]
    live = [s for s in said if s.silence(now) <= SILENT_MS]
    live.sort(key=lambda s: s.role != "worker")  # its pid is that of a worker, if there is one
    newest = max(said, key=lambda s: s.at, default=None)
    return ServiceState(
        service=name, owner=entry.owner, about=entry.about,
        running=any(s.role == "worker" for s in live),
        pid=live[0].pid if live else None, pids=tuple(s.pid for s in live),
        version=newest.version if newest else "", at=moment(newest.at) if newest else "",
        lanes=tuple(sorted({lane for s in live for lane in s.lanes})),
        lag=None if gaps is None else sum(g.messages for g in gaps),
        oldest_age_seconds=max((g.oldest_age_seconds for g in gaps or ()), default=0.0),
        **_totals(live or said),
    )


def _totals(said: list[_Said]) -> dict[str, Any]:
    counts = ("handled", "duplicates", "retried", "parked_total", "waiting", "parked")
    merged: dict[str, Any] = {name: sum(getattr(s, name) for s in said) for name in counts}
    merged["stopped"] = next((s.stopped for s in said if s.stopped), "")
    for name in ("trouble", "alarms"):
        merged[name] = {k: v for s in said for k, v in getattr(s, name).items()}
    merged["gateways"] = _gateways(said)
    return merged


def _gateways(said: list[_Said]) -> dict[str, GatewayState]:
    """Each gateway as all couriers of the service see it: the rows of all, and the one for which
    it is not well."""
    merged: dict[str, GatewayState] = {}
    for name, state in (each for s in said for each in s.gateways.items()):
        known = merged.get(name, GatewayState())
        worse = known if known.state != "closed" else state
        merged[name] = replace(worse, open_rows=known.open_rows + state.open_rows)
    return merged


class _Crewed(Struct, frozen=True, kw_only=True):
    name: str
    about: str = ""
    pid: int | None = None
    restarts: int = 0
    ready: dict[str, Any] | None = None


def crew(site: Site) -> tuple[Member, ...]:
    """Who runs where, as ``up`` left word; empty where none runs."""
    try:
        raw = (site.home / "run" / "crew.json").read_bytes()
        said = msgspec.json.decode(raw, type=list[_Crewed])
    except (OSError, msgspec.MsgspecError):
        return ()
    return tuple(
        Member(name=m.name, about=m.about, pid=m.pid, restarts=m.restarts, where=_where(m.ready))
        for m in said
    )


def _where(ready: dict[str, Any] | None) -> str:
    place = (ready or {}).get("url") or (ready or {}).get("listening") or ""
    if isinstance(place, dict):
        return f"{place.get('host', '')}:{place.get('port', '')}"
    return str(place)


# Readiness ---------------------------------------------------------------------------------------


def own_reasons(site: Site, committing: bool) -> list[str]:
    """Why this process takes no requests, whatever others do; empty when it does. A balancer asks
    for this: a service that stands still is no reason to close the door to new records."""
    found = []
    if site.gate is not None and not committing:
        found.append("the door does not commit: its committer is not running")
    if site.gate is not None and site.gate.full:
        found.append("the disk is full: nothing is accepted, reading still works")
    try:
        site.scan(Scan(service=site.flow.door, table="positions", limit=1))
    except Exception as error:
        found.append(f"the door's store cannot be read: {error}")
    return found


def reasons(site: Site, committing: bool) -> list[str]:
    """Why the whole is not ready; empty when it is."""
    found = own_reasons(site, committing)
    for state in service_states(site, (), site.clock.now()):
        if not state.running:
            found.append(f"{state.service} has not reported for {SILENT_MS // 1000} seconds")
        elif state.stopped:
            found.append(f"{state.service} stopped: {state.stopped}")
    return found
