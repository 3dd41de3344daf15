"""The ASGI application: checks in front, intakes beside the framework, everything else on it."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from litestar import Litestar, Request, Response, route
from litestar.exceptions import HTTPException

from penstock.flow import Intake, Reply, Route
from penstock.web.doors import IntakeDoor, IntakeTable, LookDoor, refusal
from penstock.web.metrics import CONTENT_TYPE
from penstock.web.own import Own, Text
from penstock.web.page import Html, Page
from penstock.web.problems import details, fault_reply, rendered, respond
from penstock.web.requests import Gone, Receive, Scope
from penstock.web.routes import OWN_ROUTES, OwnRoute, Paths
from penstock.web.site import Site
from penstock.web.threads import Committer, Reader

ANYWHERE = ("0.0.0.0", "::", "")
HOSTS_KEPT_MAX = 1000

Answer = Callable[[Scope, Receive, Any], Awaitable[Reply | Html]]
Asked = Request[Any, Any, Any]

_PAGE_ROUTES = (
    OwnRoute(method="GET", path="/", name="home", summary="The page."),
    OwnRoute(method="GET", path="/static/{name}", name="static", summary="Its style."),
    OwnRoute(method="GET", path="/ui/deadletters", name="letters", summary="All dead letters."),
    OwnRoute(
        method="GET", path="/ui/deadletters/{service}/{topic}/{partition}/{offset}",
        name="letter", summary="One dead letter.",
    ),
    OwnRoute(
        method="POST", path="/ui/deadletters/{service}/{topic}/{partition}/{offset}/{verb}",
        name="act", summary="Retry or discard one.",
    ),
    OwnRoute(method="GET", path="/ui/{of}/{id}", name="detail", summary="A page of the flow."),
)  # fmt: skip


def make_app(site: Site) -> Front:
    """The door and the page over one site, as an ASGI application with a lifespan."""
    return Front(site)


class Hosts:
    """Which Host headers are answered: a rebound DNS name is not one of them."""

    def __init__(self, site: Site) -> None:
        bound = {site.host.strip("[]").lower(), (urlsplit(site.url).hostname or "").lower()}
        named = {name.lower() for name in site.names}
        self._names = {"localhost", "127.0.0.1", "::1", *bound, *named} - set(ANYWHERE)
        # Bound to every address, people come by any of this machine's: numbers cannot be rebound.
        self._anywhere = site.host in ANYWHERE
        if self._anywhere:
            self._names.add(socket.gethostname().lower())
        self._seen: dict[bytes, bool] = {}

    def answers(self, host: bytes) -> bool:
        """Whether this Host header names us."""
        known = self._seen.get(host)
        if known is None:
            if len(self._seen) >= HOSTS_KEPT_MAX:
                self._seen.clear()
            known = self._seen[host] = self._judge(host)
        return known

    def _judge(self, host: bytes) -> bool:
        try:
            name = urlsplit(f"//{host.decode('ascii')}").hostname or ""
        except ValueError:
            return False
        return name in self._names or (self._anywhere and _is_address(name))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Front:
    """The application: lifespan, host and origin checks, then the route."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.reader = Reader()
        self.committer = Committer(site.gate, site.idle) if site.gate is not None else None
        self._hosts = Hosts(site)
        flow = site.flow
        self._intakes = IntakeTable(
            [
                IntakeDoor(r, site, self.reader, self.committer)
                for r in flow.routes
                if isinstance(r.does, Intake)
            ]
        )
        self._paths = Paths((*flow.routes, *OWN_ROUTES, *_PAGE_ROUTES))
        self._page = Page(site, self.reader)
        self._rest = self._litestar()

    # The way of one request ----------------------------------------------------------------------

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One ASGI connection."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        method = scope["method"]
        refused = self._checked(scope, method)
        if refused is not None:
            await respond(send, refused, scope["path"])
            return
        found = self._intakes.find(method, scope["path"])
        if found is not None:
            door, params = found
            await door(scope, receive, send, params)
            return
        if method == "OPTIONS":  # the framework would answer, knowing half of the methods
            await respond(send, self._not_so(scope["path"]), scope["path"])
            return
        if method == "HEAD":
            scope = {**scope, "method": "GET"}  # the server leaves the body out
        await self._rest(scope, receive, send)

    def _checked(self, scope: Scope, method: str) -> Reply | None:
        host = origin = site = None
        for name, value in scope["headers"]:
            if name == b"host":
                host = value
            elif name == b"origin":
                origin = value
            elif name == b"sec-fetch-site":
                site = value
        if host is None or not self._hosts.answers(host):
            return fault_reply(
                421, "host_unknown", "This server does not answer to that Host.", field="Host",
                fix=f"Use {self.site.url or 'http://127.0.0.1'}, or start the server with --name.",
            )
        if method in ("GET", "HEAD") or (origin is None and site is None):
            return None
        same = origin is None or origin.partition(b"://")[2] == host
        if same and site in (None, b"same-origin", b"none"):
            return None
        return fault_reply(
            403, "other_origin", "A page of another origin may not write here.", field="Origin"
        )

    # Start and stop ------------------------------------------------------------------------------

    async def _lifespan(self, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self.start()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def start(self) -> None:
        """Commit from now on."""
        if self.committer is not None:
            self.committer.start(asyncio.get_running_loop())

    async def stop(self) -> None:
        """Refuse new writes, finish the groups at hand, end the threads."""
        if self.committer is not None:
            await asyncio.get_running_loop().run_in_executor(None, self.committer.stop)
        self.reader.stop()
        self.site.close()

    # What the framework carries ------------------------------------------------------------------

    def _litestar(self) -> Litestar:
        own, page = Own(self.site, self.reader, self.committer), self._page
        handlers = [_handler(r, _of_own(own, r)) for r in OWN_ROUTES]
        for r in self.site.flow.routes:
            if not isinstance(r.does, Intake):
                handlers.append(_handler(r, LookDoor(r, self.site, self.reader).reply))
        handlers += [
            _handler(r, getattr(page, r.name))
            for r in _PAGE_ROUTES
        ]
        return Litestar(
            route_handlers=handlers, openapi_config=None, logging_config=None,
            exception_handlers={Exception: self._failed},
        )

    def _failed(self, request: Asked, error: Exception) -> Response[bytes]:
        reply = self._framework_refusal(request, error)
        path = request.scope["path"]
        if reply.status >= 400 and path.startswith("/ui/"):
            made = self._page.problem(details(reply, path))
            return _html(made)
        return _response(reply, path)

    def _framework_refusal(self, request: Asked, error: Exception) -> Reply:
        if not isinstance(error, HTTPException):
            return refusal(error)
        if error.status_code in (404, 405):
            return self._not_so(request.scope["path"])
        return fault_reply(error.status_code, "refused", str(error.detail))

    def _not_so(self, path: str) -> Reply:
        """Nothing is at this path, or it does not take the method."""
        methods = self._paths.methods(path)
        if not methods:
            return fault_reply(404, "not_found", "There is nothing here.", fix="See /openapi.json.")
        allowed = ", ".join(methods)
        return fault_reply(
            405, "method_not_allowed", f"This path takes {allowed}.", headers={"allow": allowed}
        )


def _of_own(own: Own, r: OwnRoute) -> Answer:
    async def answer(scope: Scope, receive: Receive, params: Any) -> Reply:
        return await own.reply(r.name, scope, receive, params)

    return answer


def _handler(r: Route | OwnRoute, answer: Answer) -> Any:
    async def handle(request: Asked) -> Response[bytes]:
        try:
            said = await answer(request.scope, request.receive, request.path_params)
        except Gone:
            return Response(b"", status_code=400)
        if isinstance(said, Html):
            return _html(said)
        return _response(said, request.scope["path"])

    path = r.path.replace("}", ":str}")
    return route(path, http_method=[r.method], name=r.name, status_code=200)(handle)


def _response(reply: Reply, path: str) -> Response[bytes]:
    if isinstance(reply.body, Text):
        content = reply.body.encode()
        return Response(content, media_type=CONTENT_TYPE, headers={"cache-control": "no-store"})
    status, headers, content = rendered(reply, path)
    fields = {n.decode(): v.decode("latin-1") for n, v in headers if n != b"content-length"}
    kind = fields.pop("content-type")
    return Response(content, status_code=status, media_type=kind, headers=fields)


def _html(page: Html) -> Response[bytes]:
    headers = dict(page.headers)
    kind = headers.pop("content-type", "text/html")
    return Response(
        page.text.encode(), status_code=page.status, media_type=kind, headers=headers
    )  # the framework adds the charset to every text type
