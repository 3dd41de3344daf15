"""The flow's own commands, made from its declaration: each is a call of a route."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import click
import httpx

from penstock.catalog.load import load_catalog
from penstock.cli.output import output_option, show_one, show_rows
from penstock.cli.remote import answer_of, client, not_running, server_url
from penstock.dotted import resolve
from penstock.errors import Usage
from penstock.flow import Command, Flow, Route


@cache
def nouns(catalog_path: Path | None) -> dict[str, click.Command]:
    """Noun to command group, from the catalog's flow."""
    catalog = load_catalog(catalog_path)
    flow = cast(Flow, resolve(catalog.flow))
    routes = {route.name: route for route in flow.routes}
    groups: dict[str, click.Command] = {}
    for command in flow.commands:
        group = groups.setdefault(
            command.noun, click.Group(command.noun, help=_about(command.noun, flow))
        )
        assert isinstance(group, click.Group)
        group.add_command(_command(command, routes[command.route]))
    return groups


def _about(noun: str, flow: Flow) -> str:
    verbs = [c.verb for c in flow.commands if c.noun == noun]
    return f"{noun.capitalize()}: {', '.join(verbs)}."


def _command(command: Command, route: Route) -> click.Command:
    params: list[click.Parameter] = [click.Argument([name]) for name in command.arguments]
    for name, about in command.options.items():
        text = f"{about[:1].upper()}{about[1:]}."
        params.append(click.Option([f"--{name.replace('_', '-')}", name], help=text))
    if command.body_file:
        params.append(click.Argument(["file"], type=click.File("rb"), default="-"))
    if route.needs_idempotency_key:
        about = "Makes a repeat safe (default: a new one, printed)."
        params.append(click.Option(["--idempotency-key"], help=about))
    made = click.Command(
        command.verb, params=params, help=command.summary,
        callback=click.pass_context(lambda ctx, **given: _run(ctx, command, route, given)),
    )
    return output_option(made)


def _run(ctx: click.Context, command: Command, route: Route, given: dict[str, Any]) -> None:
    output = given.pop("output")
    server = server_url(ctx.obj["home"], ctx.obj["url"])
    with client(server, name="local") as http:
        if command.rows:
            rows = _pages(http, command, route, given)
            narrowed = any(given[name] is not None for name in command.options)
            empty = "Nothing matches." if narrowed else f"No {command.noun} yet."
            show_rows(rows, command.columns, output, empty)
        else:
            show_one(_call(http, command, route, given), output)


def _pages(
    http: httpx.Client, command: Command, route: Route, given: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Every match, page by page, as it comes."""
    after = ""
    while True:
        page = _call(http, command, route, given, {"after": after} if after else {})
        yield from page[command.rows]
        after = page.get("next") or ""
        if not after:
            return


def _call(
    http: httpx.Client,
    command: Command,
    route: Route,
    given: dict[str, Any],
    more: dict[str, str] | None = None,
) -> dict[str, Any]:
    path = re.sub(r"{(\w+)}", lambda m: _segment(m[1], given[m[1]]), route.path)
    chosen = {k: v for k, v in given.items() if k in command.options and v is not None}
    query = {k: v for k, v in chosen.items() if k in route.query} | (more or {})
    fields = {k: v for k, v in chosen.items() if k not in route.query}
    try:
        reply = http.request(
            route.method, path, params=query, content=_content(command, route, given, fields),
            headers=_headers(route, given),
        )
    except httpx.TransportError:
        raise not_running(f"at {http.base_url}") from None
    return answer_of(reply)


def _segment(name: str, given: str) -> str:
    """An argument as one segment of a path, whatever is in it. Raises ``Usage``."""
    if given in ("", ".", ".."):
        raise Usage("bad_argument", f"{given!r} cannot be the {name}.")
    return quote(given, safe="")


def _content(
    command: Command, route: Route, given: dict[str, Any], fields: dict[str, Any]
) -> bytes | None:
    if command.body_file:
        return cast(bytes, given["file"].read())
    return json.dumps(fields).encode() if route.body is not None else None


def _headers(route: Route, given: dict[str, Any]) -> dict[str, str]:
    headers = {"content-type": "application/json"} if route.body is not None else {}
    if route.needs_idempotency_key:
        import uuid

        key = given.get("idempotency_key") or f"cli-{uuid.uuid4()}"
        print(f"Idempotency-Key: {key}", file=sys.stderr)
        headers["idempotency-key"] = key
    return headers
