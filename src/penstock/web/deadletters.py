"""Parked records for people and programs: list, show, and the wish to retry or discard one.

Nothing here writes a service's rows: a wish goes to the journal and the owning service's worker
obeys it. All of it blocks: the reading thread calls it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from msgspec import Meta, Struct

from penstock.entry import DiscardRequested, RetryRequested
from penstock.errors import NotFound
from penstock.flow import Scan
from penstock.limits import PAGE_ROWS_MAX, TEXT_CHARS_MAX
from penstock.ports import Waiting
from penstock.web.site import Site
from penstock.web.teams import person_now
from penstock.web.text import moment

Verb = Literal["retry", "discard"]
VALUE_CHARS_MAX = 20_000  # of a parked record's bytes shown
VISIBLE = r"[^\s\x1c-\x1f\x85\ufeff]"  # no blank to Python nor to JavaScript


class DeadLetter(Struct, frozen=True, kw_only=True):
    """One parked record. ``id`` names it; ``on_call`` is who is on call for its owner now;
    ``holds_key``: later records of its key wait."""

    id: str
    service: str
    topic: str
    partition: int
    offset: int
    key: str
    type: str
    kind: str
    reason: str
    since: str
    attempts: int
    owner: str
    on_call: str
    holds_key: bool
    href: str


class DeadLetters(Struct, frozen=True, kw_only=True):
    """All that is parked; ``truncated`` where a service has more than are listed."""

    deadletters: tuple[DeadLetter, ...]
    truncated: bool = False


class Attempted(Struct, frozen=True, kw_only=True):
    """One attempt and what went wrong."""

    at: str
    error: str


class DeadLetterStory(Struct, frozen=True, kw_only=True):
    """One parked record with its attempts and its bytes as text."""

    deadletter: DeadLetter
    event_id: str
    schema_version: int
    trace: str
    cause: str
    appended_at: str
    story: tuple[Attempted, ...]
    value: str
    value_bytes: int


class Wish(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why a parked record is to be retried or discarded; kept in the journal."""

    reason: Annotated[str, Meta(min_length=1, max_length=TEXT_CHARS_MAX, pattern=VISIBLE)]


class Wished(Struct, frozen=True, kw_only=True):
    """The wish is on the journal; the service obeys it at its next turn."""

    id: str
    requested: Verb


class Place(Struct, frozen=True, kw_only=True):
    """Which parked record: coordinates in one service."""

    service: str
    topic: str
    partition: int
    offset: int

    @property
    def id(self) -> str:
        """The dead letter's name."""
        return f"{self.service}/{self.topic}/{self.partition}/{self.offset}"


def parked(site: Site, service: str = "") -> DeadLetters:
    """What is parked, of one service or of all. Raises ``NotFound`` for an unknown one."""
    names = [s.name for s in site.flow.services]
    if service and service not in names:
        raise NotFound(
            "service_unknown", f"There is no service {service}.",
            f"Services: {', '.join(names)}.", "service",
        )
    found: list[DeadLetter] = []
    truncated = False
    for name in [service] if service else names:
        who = _on_call(site, name)
        for state in ("parked", "aside"):
            what = Scan(service=name, table="waiting", label=state, limit=PAGE_ROWS_MAX)
            rows = [row.body for row in site.scan(what)]
            truncated |= len(rows) == PAGE_ROWS_MAX
            found += [_letter(site, name, row, who) for row in rows if _open(row)]
    found.sort(key=lambda letter: (letter.since, letter.id), reverse=True)
    return DeadLetters(deadletters=tuple(found), truncated=truncated)


def _open(row: Waiting) -> bool:
    return row.state == "parked" or (row.state == "aside" and not row.due)


def _on_call(site: Site, service: str) -> str:
    """Who is on call now for the team that owns the service."""
    entry = site.catalog.services.get(service)
    return person_now(site, entry.owner) if entry else ""


def _letter(site: Site, service: str, row: Waiting, who: str) -> DeadLetter:
    record, entry = row.record, site.catalog.services.get(service)
    place = Place(
        service=service, topic=record.topic, partition=record.partition, offset=record.offset
    )
    since = row.errors[-1][0] if row.errors else record.appended_at
    return DeadLetter(
        id=place.id, service=service, topic=record.topic, partition=record.partition,
        offset=record.offset, key=record.message.key, type=record.message.type, kind=row.kind,
        reason=row.errors[-1][1] if row.errors else row.kind, since=moment(since),
        attempts=len(row.errors), owner=entry.owner if entry else "", on_call=who,
        holds_key=row.state == "parked", href=f"/deadletters/{place.id}",
    )


def story(site: Site, place: Place) -> DeadLetterStory:
    """One parked record whole. Raises ``NotFound``."""
    row = _find(site, place)
    m = row.record.message
    return DeadLetterStory(
        deadletter=_letter(site, place.service, row, _on_call(site, place.service)),
        event_id=m.id.hex(),
        schema_version=m.version, trace=m.trace, cause=m.cause.hex(),
        appended_at=moment(row.record.appended_at), value_bytes=len(m.value),
        story=tuple(Attempted(at=moment(at), error=error) for at, error in row.errors),
        value=m.value[:VALUE_CHARS_MAX].decode(errors="backslashreplace"),
    )


def _find(site: Site, place: Place) -> Waiting:
    for row in _rows(site, place):
        record = row.record
        here = record.topic == place.topic and record.partition == place.partition
        if here and record.offset == place.offset and _open(row):
            return row
    raise NotFound(
        "no_dead_letter", f"Nothing is parked as {place.id}.",
        "It may have been retried or discarded. See: GET /deadletters",
    )


def _rows(site: Site, place: Place) -> Iterator[Waiting]:
    if place.service not in {s.name for s in site.flow.services}:
        return
    after = f"{place.topic}/{place.partition}/{place.offset - 1}"
    what = Scan(service=place.service, table="waiting", after=after, limit=1)
    yield from (row.body for row in site.scan(what))


def wish(site: Site, verb: Verb, place: Place, reason: str, actor: str) -> Wished:
    """Put the wish on the journal. Raises ``NotFound`` where nothing is parked."""
    row = _find(site, place)
    made = RetryRequested if verb == "retry" else DiscardRequested
    request = made(
        service=place.service, topic=place.topic, partition=place.partition,
        offset=place.offset, key=row.record.message.key, reason=reason, actor=actor,
    )
    site.journal(request)
    return Wished(id=place.id, requested=verb)
