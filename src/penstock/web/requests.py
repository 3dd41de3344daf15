"""One request read and checked: headers, query, body, who calls. Refuses, never repairs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from hashlib import blake2b
from random import getrandbits
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from penstock.catalog.model import Catalog
from penstock.contracts.strict import strict_json
from penstock.flow import Call, Route
from penstock.limits import (
    BODY_BYTES_MAX,
    BULK_BYTES_MAX,
    IDEMPOTENCY_KEY_CHARS_MAX,
    KEY_CHARS_MAX,
)
from penstock.web.problems import refuse
from penstock.web.routes import OwnRoute

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Found = dict[bytes, bytes]

BODY_SECONDS_MAX = 10.0  # a body that takes longer is given up
BULK_SECONDS_MAX = 60.0
QUERY_FIELDS_MAX = 50
CLIENT_DEFAULT = "local"
KEY_HEADER = "Idempotency-Key"
CLIENT_HEADER = "Penstock-Client"

_ONCE = frozenset({b"idempotency-key", b"content-type", b"host", b"penstock-client"})
_PRINTABLE = re.compile(rb"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
_CLIENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TRACE = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_JSON = re.compile(rb"(?i)application/([a-z0-9.-]+\+)?json[ \t]*(;.*)?")


class Gone(Exception):
    """The client hung up before its request was whole; nobody waits for an answer."""


def headers_of(scope: Scope) -> Found:
    """The headers by lower-case name; one that must be single and is not is refused."""
    pairs = scope["headers"]
    found: Found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        for name in _ONCE:
            if names.count(name) > 1:
                field = name.decode()
                refuse(400, "header_twice", f"The header {field} is there twice.", field=field)
    return found


def idempotency_key(found: Found) -> str:
    """The caller's key: printable ASCII, bounded."""
    raw = found.get(b"idempotency-key", b"")
    how = "Send one that is your own name for this request: a repeat with it is safe."
    if not raw:
        refuse(400, "idempotency_key_missing", f"The header {KEY_HEADER} is required.",
               field=KEY_HEADER, fix=how)  # fmt: skip
    if len(raw) > IDEMPOTENCY_KEY_CHARS_MAX:
        refuse(400, "idempotency_key_too_long", f"{KEY_HEADER} has {len(raw)} characters; at most "
               f"{IDEMPOTENCY_KEY_CHARS_MAX} are taken.", field=KEY_HEADER, fix=how)  # fmt: skip
    if not _PRINTABLE.fullmatch(raw):
        refuse(400, "idempotency_key_invalid", f"{KEY_HEADER} takes printable ASCII only.",
               field=KEY_HEADER, fix=how)  # fmt: skip
    return raw.decode("ascii")


def trace_of(found: Found) -> str:
    """The caller's W3C traceparent, or a new one."""
    given = found.get(b"traceparent")
    if given:
        text = given.decode("latin-1")
        if _TRACE.fullmatch(text):
            return text
    return f"00-{getrandbits(128) | 1:032x}-{getrandbits(64) | 1:016x}-01"


def client_of(found: Found) -> str:
    """Who calls, by its own word until tokens come."""
    raw = found.get(b"penstock-client")
    if raw is None:
        return CLIENT_DEFAULT
    name = raw.decode("latin-1")
    if not _CLIENT.fullmatch(name):
        refuse(400, "client_invalid", f"{CLIENT_HEADER} takes up to 64 letters, digits and ._-",
               field=CLIENT_HEADER)  # fmt: skip
    return name


def query_of(scope: Scope, allowed: Mapping[str, str]) -> dict[str, str]:
    """The query parameters; an unknown or repeated one is refused by name."""
    raw: bytes = scope["query_string"]
    if not raw:
        return {}
    try:
        pairs = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, errors="strict",
            max_num_fields=QUERY_FIELDS_MAX,
        )
    except ValueError:
        refuse(400, "query_invalid", "The query is not percent-encoded UTF-8, or is too long.")
    found: dict[str, str] = {}
    for name, value in pairs:
        if not name:
            refuse(400, "query_invalid", "The query holds a value without a name.")
        if name not in allowed:
            known = ", ".join(allowed) or "none"
            refuse(400, "unknown_parameter", f"There is no query parameter {name[:100]!r}.",
                   field=name[:100], fix=f"Parameters here: {known}.")  # fmt: skip
        if name in found:
            refuse(400, "parameter_twice", f"The query parameter {name} is there twice.",
                   field=name)  # fmt: skip
        found[name] = value
    return found


def typed(query: dict[str, str], route: Route | OwnRoute) -> dict[str, str]:
    """The parameters as their types write them; one that is none of its type is refused."""
    for name, kind in route.query_types.items():
        if name in query:
            try:
                query[name] = str(msgspec.convert(query[name], kind, strict=False))
            except msgspec.ValidationError as error:
                refuse(422, "invalid_value", f"{error}.", field=name,
                       fix=f"{name} takes: {route.query[name]}.")  # fmt: skip
    return query


async def read_body(receive: Receive, found: Found, limit: int, seconds: float) -> bytes:
    """The body, bounded while it is read in size and time. Raises ``Gone``."""
    said = found.get(b"content-length", b"0")
    if not said.isdigit() or int(said[:20]) > limit:
        _too_large(limit)
    try:
        async with asyncio.timeout(seconds):
            return await _read(receive, limit)
    except TimeoutError:
        refuse(408, "body_too_slow", f"The body was not here within {seconds:g} seconds.",
               fix="Repeat with the same Idempotency-Key.",
               headers={"connection": "close"})  # fmt: skip


async def _read(receive: Receive, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            _too_large(limit)
        if not message.get("more_body"):
            return b"".join((*chunks, chunk)) if chunks else chunk
        chunks.append(chunk)


def _too_large(limit: int) -> None:
    refuse(413, "too_large", f"The body has more than {limit} bytes.",
           fix="Send it in several requests.")  # fmt: skip


class Reading:
    """How one route's requests are read; made once, used for every request."""

    def __init__(self, route: Route | OwnRoute, catalog: Catalog) -> None:
        self.route = route
        self._may = {name: client.may for name, client in catalog.clients.items()}
        self._limit = BULK_BYTES_MAX if route.bulk else BODY_BYTES_MAX
        self._seconds = BULK_SECONDS_MAX if route.bulk else BODY_SECONDS_MAX
        self._empty = b"{}" if route.body is None or _all_optional(route.body) else None

    async def call(
        self, scope: Scope, receive: Receive, params: Mapping[str, str], now: int
    ) -> Call:
        """The request as a Call. Raises ``Refused``, ``Unreadable``, ``Gone``."""
        found, route = headers_of(scope), self.route
        client = client_of(found)
        may = self._may.get(client, ())
        if route.permission and route.permission not in may:
            refuse(403, "permission_missing",
                   f"The client {client} lacks the permission {route.permission}.",
                   fix="Give it in the catalog, under clients.")  # fmt: skip
        query = typed(query_of(scope, route.query), route)
        _check_params(params)
        key = idempotency_key(found) if route.needs_idempotency_key else ""
        body, digest = None, ""
        if route.method != "GET":
            raw = await read_body(receive, found, self._limit, self._seconds)
            body = await self._opened(raw, found)
            digest = blake2b(raw, digest_size=16).hexdigest()
        return Call(
            client=client, now=now, idempotency_key=key, params=params, query=query, body=body,
            digest=digest, trace=trace_of(found), may=may,
        )

    async def _opened(self, raw: bytes, found: Found) -> Any:
        if len(raw) <= BODY_BYTES_MAX:
            return self._open(raw, found)
        # A bulk body takes tenths of a second to read: others are served meanwhile.
        return await asyncio.get_running_loop().run_in_executor(None, self._open, raw, found)

    def _open(self, raw: bytes, found: Found) -> Any:
        if found.get(b"content-encoding", b"identity").lower() != b"identity":
            refuse(415, "encoded_body", "The body must be sent as it is, not compressed.",
                   field="Content-Encoding", headers={"accept-encoding": "identity"})  # fmt: skip
        if not raw and self._empty is not None:
            raw = self._empty
        elif not _JSON.fullmatch(found.get(b"content-type", b"")):
            refuse(415, "not_json_type", "The Content-Type must be application/json.",
                   field="Content-Type", headers={"accept": "application/json"})  # fmt: skip
        if self.route.body is None:
            if raw.strip() != b"{}":
                refuse(400, "body_not_expected", "This request takes no body.")
            return None
        if not raw:
            refuse(400, "body_missing", "The body is empty; JSON is expected.")
        return strict_json(raw, self.route.body, limit_bytes=self._limit)


def _check_params(params: Mapping[str, str]) -> None:
    for name, value in params.items():
        if len(value) > KEY_CHARS_MAX or not value.isprintable():
            refuse(404, "not_found", f"There is no such {name}.", field=name)


def _all_optional(body: type) -> bool:
    try:
        msgspec.convert({}, body)
    except msgspec.ValidationError:
        return False
    return True
