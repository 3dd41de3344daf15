"""The handlers of the platform's own routes, by the names of ``OWN_ROUTES``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import Any, cast

from penstock.flow import Call, Reply
from penstock.web import metrics
from penstock.web.deadletters import Place, Verb, parked, story, wish
from penstock.web.openapi import openapi
from penstock.web.problems import refuse
from penstock.web.requests import Reading, Receive, Scope
from penstock.web.routes import OWN_ROUTES, Alive, Readiness, Services, Topics
from penstock.web.site import Site
from penstock.web.status import gather, own_reasons, reasons, topic_states
from penstock.web.teams import team_states
from penstock.web.threads import Committer, Reader

OFFSET_DIGITS_MAX = 15
READY_SECONDS_MAX = 2.0  # whoever probes does not wait much longer

Answer = Callable[[Call], Awaitable[Reply]]


class Text(str):
    """A body that is sent as it is, as the route's own content type."""


class Own:
    """Answers the platform's routes."""

    def __init__(self, site: Site, reader: Reader, committer: Committer | None) -> None:
        self._site, self._reader, self._committer = site, reader, committer
        self._readings = {r.name: Reading(r, site.catalog) for r in OWN_ROUTES}
        self._asking: asyncio.Future[list[str]] | None = None
        self._latest = ["nothing was read here yet"]

    async def reply(self, name: str, scope: Scope, receive: Receive, params: Any) -> Reply:
        """The answer of the route of that name. Raises ``Refused`` and ``Problem``."""
        call = await self._readings[name].call(scope, receive, params, self._site.clock.now())
        answer = cast(Answer, getattr(self, name))
        return await answer(call)

    async def healthz(self, call: Call) -> Reply:
        """Alive: no store is touched, so a slow disk does not get the process restarted."""
        return Reply(body=Alive())

    async def readyz(self, call: Call) -> Reply:
        """Ready, or why not."""
        committing = self._committer is not None and self._committer.alive
        return _readiness(await self._reader.run(reasons, self._site, committing))

    async def live(self, call: Call) -> Reply:
        """Alive, where workers and couriers say so, too."""
        return await self.healthz(call)

    async def ready(self, call: Call) -> Reply:
        """Ready by itself, or why not. The reading thread may be waiting for a broker that somebody
        else's page asked for: then what was found last is told, and asked for is it once."""
        committing = self._committer is not None and self._committer.alive
        asking = self._asking or asyncio.ensure_future(
            self._reader.run(own_reasons, self._site, committing)
        )
        self._asking = asking
        done, _ = await asyncio.wait({asking}, timeout=READY_SECONDS_MAX)
        if done:
            self._asking = None
            self._latest = asking.result()
        return _readiness(self._latest)

    async def metrics(self, call: Call) -> Reply:
        """Everything Prometheus scrapes."""
        return Reply(body=Text(await self._reader.run(self._exposition)))

    def _exposition(self) -> str:
        return metrics.exposition(gather(self._site, ages=True)).decode()

    @cached_property
    def _document(self) -> dict[str, Any]:
        return openapi(self._site.flow, self._site.catalog)

    async def openapi(self, call: Call) -> Reply:
        """The description of every route."""
        return Reply(body=self._document)

    async def status(self, call: Call) -> Reply:
        """Everything at one time."""
        return Reply(body=await self._reader.run(gather, self._site))

    async def list_topics(self, call: Call) -> Reply:
        """Every topic."""
        return Reply(body=Topics(await self._reader.run(topic_states, self._site)))

    async def list_services(self, call: Call) -> Reply:
        """Every service."""
        return Reply(body=Services((await self._reader.run(gather, self._site)).services))

    async def list_teams(self, call: Call) -> Reply:
        """Every team."""
        return Reply(body=await self._reader.run(team_states, self._site))

    async def list_deadletters(self, call: Call) -> Reply:
        """What is parked."""
        service = call.query.get("service", "")
        return Reply(body=await self._reader.run(parked, self._site, service))

    async def get_deadletter(self, call: Call) -> Reply:
        """One parked record."""
        return Reply(body=await self._reader.run(story, self._site, place_of(call.params)))

    async def retry_deadletter(self, call: Call) -> Reply:
        """Wish a retry."""
        return await self._wish("retry", call)

    async def discard_deadletter(self, call: Call) -> Reply:
        """Wish a discard."""
        return await self._wish("discard", call)

    async def _wish(self, verb: Verb, call: Call) -> Reply:
        place, reason = place_of(call.params), call.body.reason
        said = await self._reader.run(wish, self._site, verb, place, reason, call.client)
        return Reply(status=202, body=said)


def _readiness(found: list[str]) -> Reply:
    return Reply(status=503 if found else 200, body=Readiness(not found, tuple(found)))


def place_of(params: Any) -> Place:
    """The coordinates in a path. Raises ``Refused`` where they are no numbers. An offset may be
    negative: of what a house brought along and its log no longer held (decision 0021)."""
    for name in ("partition", "offset"):
        text = params[name]
        if name == "offset":
            text = text.removeprefix("-")
        if not (text.isascii() and text.isdigit() and len(text) <= OFFSET_DIGITS_MAX):
            refuse(404, "not_found", f"The {name} {text[:20]!r} is no number.", field=name)
    return Place(
        service=params["service"], topic=params["topic"], partition=int(params["partition"]),
        offset=int(params["offset"]),
    )
