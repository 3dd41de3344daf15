"""The flow's own routes: an Intake as a bare ASGI handler, a Look over the reading thread.

Intakes are the hot path: they stand in front of the framework, and cost little more than reading
the body, one strict decode and one future.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Mapping

from penstock.errors import Problem, Unreachable
from penstock.flow import Call, Intake, Look, Reply, Route, Row, Scan, no_scans
from penstock.web.problems import Refused, Send, fault_reply, reply_of, respond
from penstock.web.requests import Gone, Reading, Receive, Scope
from penstock.web.routes import pattern_of
from penstock.web.site import Site
from penstock.web.threads import NO_GATE, Committer, Reader

Params = Mapping[str, str]


def scanned(site: Site, wanted: Mapping[str, Scan]) -> dict[str, list[Row]]:
    """The rows of every scan; blocks, for the reading thread."""
    return {name: site.scan(what) for name, what in wanted.items()}


def unexpected(error: Exception) -> Reply:
    """Our bug as a reply without its insides; the traceback goes to the process's log."""
    traceback.print_exception(error, file=sys.stderr)
    return fault_reply(
        500, "internal_error", "The request could not be answered.",
        fix="Report this with the request; the process's log has the cause.",
    )


def refusal(error: Exception) -> Reply:
    """Any exception as the reply its caller gets."""
    if isinstance(error, Refused):
        return error.reply
    if isinstance(error, Problem):
        return reply_of(error)
    if isinstance(error, Unreachable):
        return fault_reply(
            503, "unreachable", str(error), fix="Nothing can be read for now; try again.",
            headers={"retry-after": "2"},
        )
    return unexpected(error)


class IntakeDoor:
    """One route that writes."""

    def __init__(
        self, route: Route, site: Site, reader: Reader, committer: Committer | None
    ) -> None:
        assert isinstance(route.does, Intake)
        self.route, self._intake, self._site = route, route.does, site
        self._reading = Reading(route, site.catalog)
        self._reader, self._committer = reader, committer

    async def __call__(self, scope: Scope, receive: Receive, send: Send, params: Params) -> None:
        """Answer one request."""
        try:
            reply = await self._reply(scope, receive, params)
        except Gone:
            return
        except Exception as error:
            reply = refusal(error)
        await respond(send, reply, scope["path"])

    async def _reply(self, scope: Scope, receive: Receive, params: Params) -> Reply:
        call = await self._reading.call(scope, receive, params, self._site.clock.now())
        if self._committer is None:
            return NO_GATE
        if self._intake.wants is not no_scans:
            found = await self._reader.run(scanned, self._site, self._intake.wants(call))
            call = _with_found(call, found)
        return await self._committer.submit(self._intake, call)


def _with_found(call: Call, found: dict[str, list[Row]]) -> Call:
    return Call(
        client=call.client, now=call.now, idempotency_key=call.idempotency_key,
        params=call.params, query=call.query, body=call.body, digest=call.digest,
        trace=call.trace, may=call.may, found=found,
    )


class LookDoor:
    """One route that reads."""

    def __init__(self, route: Route, site: Site, reader: Reader) -> None:
        assert isinstance(route.does, Look)
        self.route, self._look, self._site, self._reader = route, route.does, site, reader
        self._reading = Reading(route, site.catalog)

    async def reply(self, scope: Scope, receive: Receive, params: Params) -> Reply:
        """The answer of one request. Raises ``Refused`` and ``Problem``."""
        call = await self._reading.call(scope, receive, params, self._site.clock.now())
        return await self._reader.run(self._show, call)

    def _show(self, call: Call) -> Reply:
        return self._look.show(call, scanned(self._site, self._look.wants(call)))


class IntakeTable:
    """Finds the intake of a method and path: one dictionary look-up for fixed paths."""

    def __init__(self, doors: list[IntakeDoor]) -> None:
        self._fixed: dict[tuple[str, str], IntakeDoor] = {}
        self._patterns: list[tuple[str, re.Pattern[str], IntakeDoor]] = []
        for door in doors:
            route = door.route
            if "{" in route.path:
                self._patterns.append((route.method, pattern_of(route.path), door))
            else:
                self._fixed[route.method, route.path] = door

    def find(self, method: str, path: str) -> tuple[IntakeDoor, Params] | None:
        """The door and its path parameters."""
        door = self._fixed.get((method, path))
        if door is not None:
            return door, {}
        for wanted, pattern, candidate in self._patterns:
            if method == wanted:
                found = pattern.fullmatch(path)
                if found is not None:
                    return candidate, found.groupdict()
        return None
