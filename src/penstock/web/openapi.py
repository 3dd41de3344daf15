"""OpenAPI 3.1 from the routes and their Structs: every request with an example that works."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from penstock import __version__
from penstock.catalog.model import Catalog
from penstock.flow import Flow, Intake, Route
from penstock.limits import IDEMPOTENCY_KEY_CHARS_MAX, KEY_CHARS_MAX
from penstock.web.problems import ProblemDetails
from penstock.web.requests import CLIENT_DEFAULT, CLIENT_HEADER, KEY_HEADER
from penstock.web.routes import OWN_ROUTES, OwnRoute

Described = Route | OwnRoute
REF = "#/components/schemas/{name}"
PATH_PARAMETER = re.compile(r"{(\w+)}")
Components = Mapping[Any, Any]  # a type -> its schema, as it stands in the document
_ANYWHERE = (400, 404, 405, 421)
_WRITING = (403, 408, 413, 415, 422, 503)


def openapi(flow: Flow, catalog: Catalog) -> dict[str, Any]:
    """The whole document as plain JSON values."""
    described: list[tuple[Described, str]] = [(route, flow.name) for route in flow.routes]
    described += [(route, "platform") for route in OWN_ROUTES]
    types = _types(route for route, _ in described)
    schemas, components = msgspec.json.schema_components(types, ref_template=REF)
    schema_of = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    names = {route.name: route for route, _ in described}
    for route, tag in described:
        operation = _operation(route, tag, schema_of, catalog)
        _link(operation["responses"], route, names)
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"penstock: {flow.name}", "version": __version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "What is answered with a 2xx to a write is durable.",
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": flow.name, "description": "What the flow brings."},
            {"name": "platform", "description": "Health, metrics, status and dead letters."},
        ],
        "paths": paths,
        "components": {"schemas": components, "responses": _problem_response()},
    }


def _types(routes: Iterable[Described]) -> list[Any]:
    found: list[Any] = [ProblemDetails]
    for route in routes:
        found += [kind for kind in (route.body, route.reply) if kind is not None]
        found += route.query_types.values()
    return list(dict.fromkeys(found))


def _problem_response() -> dict[str, Any]:
    schema = {"$ref": REF.format(name=ProblemDetails.__name__)}
    content = {"application/problem+json": {"schema": schema}}
    return {"Problem": {"description": "What is wrong, and what to do.", "content": content}}


def _operation(
    route: Described, tag: str, schema_of: Components, catalog: Catalog
) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": route.name, "summary": route.summary, "tags": [tag],
        "parameters": _parameters(route, schema_of, catalog),
        "responses": _responses(route, schema_of),
    }
    if route.body is not None:
        required = not isinstance(route.example, dict) or bool(route.example)
        content = {"schema": schema_of[route.body], "example": msgspec.to_builtins(route.example)}
        made["requestBody"] = {
            "required": required, "content": {"application/json": content},
        }
    return made


def _parameters(
    route: Described, schema_of: Components, catalog: Catalog
) -> list[dict[str, Any]]:
    found = [_path_parameter(route, name) for name in PATH_PARAMETER.findall(route.path)]
    found += [
        {"name": name, "in": "query", "required": False, "description": about,
         "schema": schema_of.get(route.query_types.get(name), {"type": "string"})}
        for name, about in route.query.items()
    ]  # fmt: skip
    if isinstance(route, Route):
        found += _header_parameters(route, catalog)
    return found


def _path_parameter(route: Described, name: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": KEY_CHARS_MAX}
    if name == "offset":
        schema = {"type": "integer"}  # below nought: see ``own.place_of``
    elif name == "partition":
        schema = {"type": "integer", "minimum": 0}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _header_parameters(route: Route, catalog: Catalog) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if route.needs_idempotency_key:
        schema = {
            "type": "string", "minLength": 1, "maxLength": IDEMPOTENCY_KEY_CHARS_MAX,
            "pattern": r"^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$",
        }
        about = "Your own name for this request: a repeat with it is answered, never done again."
        found.append(
            {"name": KEY_HEADER, "in": "header", "required": True, "description": about,
             "schema": schema, "example": f"example-{route.name}"}
        )  # fmt: skip
    if isinstance(route.does, Intake):
        about = "Who calls; the catalog says what a client may do beyond a plain call."
        if route.permission:
            about += f" This needs the permission `{route.permission}`."
        found.append(
            {"name": CLIENT_HEADER, "in": "header",
             "required": CLIENT_DEFAULT not in _permitted(route, catalog),
             "description": about, "example": _permitted(route, catalog)[0],
             "schema": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"}}
        )  # fmt: skip
    return found


def _permitted(route: Route, catalog: Catalog) -> list[str]:
    """Clients that may do this; where no one may, the one that is taken for granted."""
    if not route.permission:
        return [CLIENT_DEFAULT]
    names = [c.name for c in catalog.clients.values() if route.permission in c.may]
    return names or [CLIENT_DEFAULT]


def _responses(route: Described, schema_of: Components) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for status, about in sorted(route.replies.items()):
        made[str(status)] = {"description": about, "content": _content(route, status, schema_of)}
    wrong = _ANYWHERE + (_WRITING if route.method != "GET" else ())
    wrong += (422,) if route.query_types else ()
    for status in wrong:
        made.setdefault(
            str(status), {"$ref": "#/components/responses/Problem"}
        )
    made["default"] = {"$ref": "#/components/responses/Problem"}
    return dict(sorted(made.items()))


def _link(responses: dict[str, Any], route: Described, names: Mapping[str, Described]) -> None:
    """Say in every reply of success which operations go on from it."""
    links = {name: _way(names[name], where) for name, where in route.leads_to.items()}
    for status in route.replies:
        if links and status < HTTPStatus.BAD_REQUEST:
            responses[str(status)]["links"] = links


def _way(target: Described, where: Mapping[str, str]) -> dict[str, Any]:
    pointers = {name: f"$response.body#{pointer}" for name, pointer in where.items()}
    return {"operationId": target.name, "description": target.summary, "parameters": pointers}


def _content(route: Described, status: int, schema_of: Components) -> dict[str, Any]:
    if status >= HTTPStatus.BAD_REQUEST and status not in getattr(route, "plain", ()):
        schema = {"$ref": REF.format(name=ProblemDetails.__name__)}
        return {"application/problem+json": {"schema": schema}}
    kind = getattr(route, "produces", "application/json")
    return {kind: {"schema": schema_of[route.reply]} if route.reply is not None else {}}
