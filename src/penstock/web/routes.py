"""The platform's own routes in one table, and how a path finds its route."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal

from msgspec import Struct, field

from penstock.flow import Route
from penstock.web.deadletters import DeadLetters, DeadLetterStory, Wish, Wished
from penstock.web.status import ServiceState, Status, TopicState
from penstock.web.teams import Teams


class Alive(Struct, frozen=True):
    """The process answers."""

    status: str = "ok"


class Readiness(Struct, frozen=True):
    """Whether requests are served in full; ``reasons`` says why not."""

    ready: bool
    reasons: tuple[str, ...] = ()


class Topics(Struct, frozen=True):
    """Every topic of the catalog."""

    topics: tuple[TopicState, ...]


class Services(Struct, frozen=True):
    """Every service of the flow."""

    services: tuple[ServiceState, ...]


class OwnRoute(Struct, frozen=True, kw_only=True):
    """A route of the platform. ``plain`` lists failing statuses whose body is ``reply``."""

    method: Literal["GET", "POST"]
    path: str
    name: str
    summary: str
    reply: Any = None
    body: Any = None
    example: Any = None
    query: dict[str, str] = {}
    query_types: dict[str, Any] = {}
    leads_to: dict[str, dict[str, str]] = {}
    replies: dict[int, str] = field(default_factory=lambda: {200: "Done."})
    produces: str = "application/json"
    plain: tuple[int, ...] = ()
    permission: str = ""
    needs_idempotency_key: bool = False
    bulk: bool = False


_LETTER = "/deadletters/{service}/{topic}/{partition}/{offset}"
_WISHES = ("retry_deadletter", "discard_deadletter")
_WISHED = {202: "The wish is on the journal; the owning service obeys it."}

def _of_letter(*routes: str, at: str) -> dict[str, dict[str, str]]:
    """Routes of the parked record that stands at this pointer of a reply."""
    pointers = {name: f"{at}/{name}" for name in ("service", "topic", "partition", "offset")}
    return dict.fromkeys(routes, pointers)


OWN_ROUTES: tuple[OwnRoute, ...] = (
    OwnRoute(method="GET", path="/healthz", name="healthz", reply=Alive,
             summary="Is the process alive?", replies={200: "It is."}),
    OwnRoute(method="GET", path="/readyz", name="readyz", reply=Readiness, plain=(503,),
             summary="Is everything there that requests need?",
             replies={200: "It is.", 503: "It is not; the reasons say what is missing."}),
    OwnRoute(method="GET", path="/health/live", name="live", reply=Alive,
             summary="Is the process alive? The route that workers and couriers have, too.",
             replies={200: "It is."}),
    OwnRoute(method="GET", path="/health/ready", name="ready", reply=Readiness, plain=(503,),
             summary="Does this process take requests, whatever the services do?",
             replies={200: "It does.", 503: "It does not; the reasons say what is missing."}),
    OwnRoute(method="GET", path="/metrics", name="metrics", produces="text/plain",
             summary="Metrics in Prometheus' text format.", replies={200: "All metrics."}),
    OwnRoute(method="GET", path="/openapi.json", name="openapi", reply=dict[str, Any],
             summary="This document.", replies={200: "OpenAPI 3.1."}),
    OwnRoute(method="GET", path="/status", name="status", reply=Status,
             summary="What runs, how far each service is, what is wrong.",
             replies={200: "Everything at one time."}),
    OwnRoute(method="GET", path="/topics", name="list_topics", reply=Topics,
             summary="Every topic: owner, producer, readers and how much it holds.",
             replies={200: "Every topic."}),
    OwnRoute(method="GET", path="/services", name="list_services", reply=Services,
             summary="Every service: lag, counts, gateways and why it stands still, if it does.",
             leads_to={"list_deadletters": {"service": "/services/0/service"}},
             replies={200: "Every service."}),
    OwnRoute(method="GET", path="/teams", name="list_teams", reply=Teams,
             summary="Every team: what it owns, and who is on call for it now.",
             replies={200: "Every team."}),
    OwnRoute(method="GET", path="/deadletters", name="list_deadletters", reply=DeadLetters,
             query={"service": "Of this service only."},
             leads_to=_of_letter("get_deadletter", *_WISHES, at="/deadletters/0"),
             summary="Every parked record: whose it is, what went wrong, how often.",
             replies={200: "What is parked, the newest first."}),
    OwnRoute(method="GET", path=_LETTER, name="get_deadletter", reply=DeadLetterStory,
             summary="One parked record with every attempt and its bytes as text.",
             leads_to=_of_letter(*_WISHES, at="/deadletter"),
             replies={200: "The record."}),
    OwnRoute(method="POST", path=_LETTER + "/retry", name="retry_deadletter", reply=Wished,
             body=Wish, example=Wish(reason="the cause is fixed"), replies=_WISHED,
             summary="Ask that a parked record be tried again; its key's order is kept."),
    OwnRoute(method="POST", path=_LETTER + "/discard", name="discard_deadletter", reply=Wished,
             body=Wish, example=Wish(reason="it was entered by mistake"), replies=_WISHED,
             summary="Ask that a parked record be given up; the service is told."),
)  # fmt: skip

_PARAMETER = re.compile(r"{(\w+)}")


def pattern_of(path: str) -> re.Pattern[str]:
    """A route's path as a pattern over request paths; parameters take one segment each."""
    parts = _PARAMETER.split(path)
    whole = "".join(
        f"(?P<{part}>[^/]+)" if at % 2 else re.escape(part) for at, part in enumerate(parts)
    )
    return re.compile(whole)


class Paths:
    """Which methods a path takes, over all routes: the difference between 404 and 405."""

    def __init__(self, routes: Iterable[Route | OwnRoute]) -> None:
        self._known = [(route.method, pattern_of(route.path)) for route in routes]

    def methods(self, path: str) -> tuple[str, ...]:
        """The methods of the routes at ``path``; empty where there is none."""
        found = {method for method, pattern in self._known if pattern.fullmatch(path)}
        return tuple(sorted(found | {"HEAD"} if "GET" in found else found))
