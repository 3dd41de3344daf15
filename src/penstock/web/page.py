"""The page for people: server-rendered, no script, refreshing itself.

It renders the panels a flow declares beside what the platform knows of itself. Every text is
escaped by the templates; links leave this server nowhere.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qsl, quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from msgspec import Struct

from penstock.errors import NotFound
from penstock.flow import Call, Panel, Table
from penstock.limits import BODY_BYTES_MAX, TEXT_CHARS_MAX
from penstock.web.deadletters import Verb, parked, story, wish
from penstock.web.doors import scanned
from penstock.web.own import place_of
from penstock.web.problems import refuse
from penstock.web.requests import BODY_SECONDS_MAX, Receive, Scope, headers_of, query_of, read_body
from penstock.web.site import Site
from penstock.web.status import ServiceState, Status, gather
from penstock.web.teams import team_states
from penstock.web.text import moment, span
from penstock.web.threads import Reader

HOME = "home"
REFRESH_SECONDS = 2
LETTERS_SHOWN = 10
ACTOR = "page"
COOKIE = "penstock_form"
STATIC = {"penstock.css": "text/css", "penstock.svg": "image/svg+xml"}
SECURITY = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}

SMALL_WIDTH_MAX = 6  # a text column counts 2, a number 1
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_QUERY = {"refresh": "0 pauses the page."}
_DONE: dict[str, Verb] = {"retry": "retry", "discard": "discard"}


class Html(Struct, frozen=True, kw_only=True):
    """A page to send."""

    status: int
    text: str
    headers: dict[str, str]


class Cell(Struct, frozen=True):
    """One cell of a table: its text, where it leads, whether it is a number, the whole time."""

    text: str
    href: str = ""
    number: bool = False
    time: str = ""


class Shown(Struct, frozen=True, kw_only=True):
    """A panel ready for the template."""

    name: str
    title: str
    columns: tuple[Cell, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str
    small: bool


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("penstock.web"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )
    made.filters["span"] = span
    made.filters["thousands"] = lambda number: f"{number:,}".replace(",", "\u202f")
    made.filters["clock"] = lambda at: at[11:19]
    made.filters["when"] = lambda at: f"{at[:10]} {at[11:19]}"
    return made


class Page:
    """Renders every page; its methods are the handlers."""

    def __init__(self, site: Site, reader: Reader) -> None:
        self._site, self._reader = site, reader
        self._templates = _environment()
        self._panels: dict[str, list[Panel]] = {}
        for panel in site.flow.panels:
            self._panels.setdefault(panel.of, []).append(panel)

    async def home(self, scope: Scope, receive: Receive, params: Any) -> Html:
        """What runs, the flow's own panels, dead letters."""
        return await self._reader.run(self._home, self._refresh(scope))

    async def detail(self, scope: Scope, receive: Receive, params: Any) -> Html:
        """A detail page of the flow: all panels of that name over one id."""
        call = Call(client=ACTOR, now=self._site.clock.now(), params=dict(params))
        return await self._reader.run(self._detail, call, self._refresh(scope))

    async def letters(self, scope: Scope, receive: Receive, params: Any) -> Html:
        """All dead letters."""
        query = query_of(scope, {**_QUERY, "requested": "What was just asked for."})
        requested = _DONE.get(query.get("requested", ""), "")
        return await self._reader.run(self._letters, self._refresh(scope), requested)

    async def letter(self, scope: Scope, receive: Receive, params: Any) -> Html:
        """One dead letter, with the forms to retry or discard it."""
        token = _cookie(headers_of(scope)) or secrets.token_urlsafe(18)
        made = await self._reader.run(self._letter, params, token)
        cookie = f"{COOKIE}={token}; Path=/ui; HttpOnly; SameSite=Strict"
        return Html(
            status=made.status, text=made.text, headers={**made.headers, "set-cookie": cookie}
        )

    async def act(self, scope: Scope, receive: Receive, params: Any) -> Html:
        """A form was sent: retry or discard. Same origin is checked in front of all routes."""
        found = headers_of(scope)
        raw = await read_body(receive, found, BODY_BYTES_MAX, BODY_SECONDS_MAX)
        form = _form(raw, found.get(b"content-type", b""))
        token = _cookie(found)
        if not token or not secrets.compare_digest(token, form.get("token", "")):
            refuse(403, "form_expired", "The form is not from this page, or too old.",
                   fix="Load the page again and repeat.")  # fmt: skip
        reason, verb = form.get("reason", "").strip()[:TEXT_CHARS_MAX], _DONE.get(params["verb"])
        if verb is None:
            refuse(404, "not_found", "There is no such action.")
        if not reason:
            refuse(422, "missing_field", "The field reason is required.", field="reason")
        await self._reader.run(wish, self._site, verb, place_of(params), reason, ACTOR)
        return _redirect(f"/ui/deadletters?requested={verb}")

    async def static(self, scope: Scope, receive: Receive, params: Any) -> Html:
        """The style and the icon."""
        name = params["name"]
        if name not in STATIC:
            refuse(404, "not_found", "There is no such file.")
        text = (files("penstock.web") / "static" / name).read_text()
        headers = {**SECURITY, "cache-control": "max-age=300", "content-type": STATIC[name]}
        return Html(status=200, text=text, headers=headers)

    # In the reading thread ----------------------------------------------------------------------

    def _refresh(self, scope: Scope) -> int:
        query = query_of(scope, {**_QUERY, "requested": ""})
        return 0 if query.get("refresh") == "0" else REFRESH_SECONDS

    def _render(self, name: str, refresh: int, /, status: int = 200, **given: Any) -> Html:
        template = self._templates.get_template(name)
        known = {"flow": self._site.flow.name, "sandbox": self._site.sandbox, "refresh": refresh}
        return Html(status=status, text=template.render(known | given), headers=SECURITY)

    def _home(self, refresh: int) -> Html:
        status = gather(self._site, ages=True)
        letters = parked(self._site)
        call = Call(client=ACTOR, now=self._site.clock.now())
        return self._render(
            "home.html", refresh, status=200, now=status, letters=letters.deadletters,
            shown=LETTERS_SHOWN, panels=self._show(HOME, call), troubles=troubles(status),
            more_letters=letters.truncated, teams=team_states(self._site).teams,
        )

    def _detail(self, call: Call, refresh: int) -> Html:
        of, id_ = call.params["of"], call.params["id"]
        if of == HOME or of not in self._panels:
            raise NotFound("page_unknown", f"There is no page {of}.", "Start at /.")
        panels = self._show(of, call)
        known = any(panel.rows for panel in panels)
        return self._render(
            "detail.html", refresh, status=200 if known else 404, of=of, id=id_, panels=panels,
            known=known, now=None,
        )

    def _letters(self, refresh: int, requested: str) -> Html:
        found = parked(self._site)
        return self._render(
            "deadletters.html", refresh, letters=found.deadletters, requested=requested,
            more_letters=found.truncated, now=None,
        )

    def _letter(self, params: Mapping[str, str], token: str) -> Html:
        found = story(self._site, place_of(params))
        return self._render("deadletter.html", 0, one=found, token=token, now=None)

    def _show(self, of: str, call: Call) -> list[Shown]:
        return [self._panel(panel, call) for panel in self._panels.get(of, [])]

    def _panel(self, panel: Panel, call: Call) -> Shown:
        table = panel.table(call, scanned(self._site, panel.wants(call)))
        today = moment(call.now)[:10]
        heads = _heads(table)
        return Shown(
            name=panel.name, title=panel.title, columns=heads, note=table.note,
            small=sum(1 if head.number else 2 for head in heads) <= SMALL_WIDTH_MAX,
            rows=tuple(tuple(cell_of(value, today) for value in row) for row in table.rows),
        )

    def problem(self, details: Mapping[str, Any]) -> Html:
        """A refusal for a person's browser."""
        return self._render(
            "problem.html", 0, status=details["status"], problem=details, now=None
        )


def cell_of(value: Any, today: str = "") -> Cell:
    """A panel's value as a cell: a time loses today's date, a link that leaves this server
    becomes plain text."""
    if isinstance(value, str) and _MOMENT.fullmatch(value):
        day, clock = value[:10], value[11:-1]
        return Cell(clock if day == today else f"{day} {clock[:8]}", time=value)
    href = ""
    if isinstance(value, tuple) and len(value) == 2:
        value, href = value
        if not str(href).startswith("/") or str(href).startswith(("//", "/\\")):
            href = ""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    text = "" if value is None else f"{value:,}".replace(",", "\u202f") if number else str(value)
    return Cell(text, str(href), number)


def _heads(table: Table) -> tuple[Cell, ...]:
    """Column titles, aligned like the column's first row."""
    first = table.rows[0] if table.rows else ()
    numbers = [cell_of(value).number for value in first]
    numbers += [False] * (len(table.columns) - len(numbers))
    return tuple(Cell(c, "", n) for c, n in zip(table.columns, numbers, strict=False))


def troubles(status: Status) -> list[str]:
    """One sentence for each thing a person should look at now."""
    found = ["The disk is full: nothing is accepted, reading still works."]
    found = found if status.intake.full else []
    found += [f"{status.trouble} How far everybody is cannot be told."] if status.trouble else []
    found += [f"{topic}: {why}" for topic, why in status.intake.alarms.items()]
    for service in status.services:
        found += _troubles_of(service)
    return found


def _troubles_of(service: ServiceState) -> list[str]:
    if not service.running:
        return [f"{service.service} does not run."]
    found = [f"{service.service} stopped: {service.stopped}"] if service.stopped else []
    stuck = {**service.trouble, **service.alarms}
    found += [f"{service.service}, {place}: {why}" for place, why in stuck.items()]
    for name, gateway in service.gateways.items():
        if gateway.state != "closed":
            why = f" ({gateway.last_error})" if gateway.last_error else ""
            found.append(f"{service.service} holds back calls of {name}{why}")
    return found


def _redirect(where: str) -> Html:
    return Html(status=303, text="", headers={**SECURITY, "location": quote(where, safe="/?=")})


def _cookie(found: Mapping[bytes, bytes]) -> str:
    try:
        jar = SimpleCookie(found.get(b"cookie", b"").decode("latin-1"))
    except CookieError:
        return ""
    return jar[COOKIE].value if COOKIE in jar else ""


def _form(raw: bytes, kind: bytes) -> dict[str, str]:
    if kind.partition(b";")[0].strip().lower() != b"application/x-www-form-urlencoded":
        refuse(415, "not_a_form", "The Content-Type must be application/x-www-form-urlencoded.")
    try:
        return dict(parse_qsl(raw.decode("ascii"), max_num_fields=10, errors="strict"))
    except ValueError:
        refuse(400, "form_invalid", "The form cannot be read.")
