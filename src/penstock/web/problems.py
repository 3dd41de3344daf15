"""Replies as bytes; what goes wrong as RFC 9457 problem details with a code and a next action."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, NoReturn

import msgspec
from msgspec import Struct

from penstock.contracts.strict import (
    INVALID_VALUE,
    MISSING_FIELD,
    TOO_LARGE,
    UNKNOWN_FIELD,
    Unreadable,
)
from penstock.errors import Conflict, Inconclusive, NotFound, Problem, Usage
from penstock.flow import Fault, Reply
from penstock.ops.scribe import NotWritten

Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

ENCODE = msgspec.json.Encoder().encode
_WRONG_VALUE = frozenset({MISSING_FIELD, UNKNOWN_FIELD, INVALID_VALUE})
_OF_PROBLEM: tuple[tuple[type[Problem], int], ...] = (
    (NotFound, 404), (Conflict, 409), (Usage, 400), (NotWritten, 503), (Inconclusive, 503),
)  # fmt: skip
_JSON = (b"content-type", b"application/json")
_PROBLEM = (b"content-type", b"application/problem+json")
_ALWAYS = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))


class FieldError(Struct, frozen=True):
    """What is wrong with one field; ``field`` is a JSON path, a header or a parameter."""

    field: str
    detail: str


class ProblemDetails(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """RFC 9457. ``code`` is stable, ``fix`` says what to do next."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    instance: str = ""
    field: str = ""
    fix: str = ""
    errors: tuple[FieldError, ...] = ()


class Refused(Exception):
    """A request that is not let in; carries its reply."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def fault_reply(
    status: int, code: str, detail: str, *, field: str = "", fix: str = "", title: str = "",
    headers: dict[str, str] | None = None,
) -> Reply:  # fmt: skip
    """A problem as a Reply; the title defaults to the status' own phrase."""
    title = title or HTTPStatus(status).phrase
    fault = Fault(code=code, title=title, detail=detail, field=field, fix=fix)
    return Reply(status=status, body=fault, headers=headers or {})


def refuse(
    status: int, code: str, detail: str, *, field: str = "", fix: str = "",
    headers: dict[str, str] | None = None,
) -> NoReturn:  # fmt: skip
    """Stop a request here. Raises ``Refused``."""
    raise Refused(fault_reply(status, code, detail, field=field, fix=fix, headers=headers))


def reply_of(problem: Problem) -> Reply:
    """The reply to a caller's mistake raised somewhere below."""
    status = next((s for kind, s in _OF_PROBLEM if isinstance(problem, kind)), 422)
    if isinstance(problem, Unreadable):
        status = 422 if problem.code in _WRONG_VALUE else 400
        status = 413 if problem.code == TOO_LARGE else status
    return fault_reply(
        status, problem.code, problem.message, field=problem.field, fix=problem.fix
    )


def details(reply: Reply, instance: str = "") -> dict[str, Any]:
    """The problem's JSON; a fault's ``extra`` stands beside the standard members."""
    fault: Fault = reply.body
    errors = (FieldError(fault.field, fault.detail),) if fault.field else ()
    whole = ProblemDetails(
        type=f"urn:penstock:problem:{fault.code}", title=fault.title, status=reply.status,
        detail=fault.detail, code=fault.code, instance=instance, field=fault.field,
        fix=fault.fix, errors=errors,
    )
    return {**fault.extra, **msgspec.to_builtins(whole)}


def rendered(reply: Reply, instance: str = "") -> tuple[int, Headers, bytes]:
    """Status, headers and body of a Reply."""
    if isinstance(reply.body, Fault):
        content, kind = ENCODE(details(reply, instance)), _PROBLEM
    else:
        content, kind = ENCODE(reply.body), _JSON
    headers = [kind, (b"content-length", b"%d" % len(content)), *_ALWAYS]
    for name, value in reply.headers.items():
        headers.append((name.lower().encode(), value.encode("latin-1", "replace")))
    return reply.status, headers, content


async def respond(send: Send, reply: Reply, instance: str = "") -> None:
    """Send a Reply."""
    status, headers, content = rendered(reply, instance)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
