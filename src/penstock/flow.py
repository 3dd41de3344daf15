"""What a flow brings to the platform, as values: services, contracts, routes, panels, commands.

A flow is a guest: the web and the command line render these declarations and know no domain.
Handlers are pure. A *call* to the door is decided like an event: ``needs`` names the documents,
``decide`` answers with a Reply and, where something is accepted, the Done that commits with it.
A *look* is read-only: ``wants`` names what to read, ``show`` turns it into a Reply.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from msgspec import Struct, field

from penstock.decision import Done, Ref, Service, States
from penstock.event import Position


class Row(Struct, frozen=True, kw_only=True):
    """One row a scan found. Which fields are filled depends on the scan's table."""

    key: str
    kind: str = ""
    label: str | None = None
    body: Any = None  # documents: the decoded state; asks and waiting: their own Struct
    count: int = 0  # labels: documents that carry the label
    txn: int = 0


class Scan(Struct, frozen=True, kw_only=True):
    """A bounded read of one service's store.

    ``documents``: of ``kind``; one (``key``), or a page by key, after ``after``, filtered by
    ``label``. ``labels``: count per label of ``kind``. ``asks``: outbox rows of ``key``, settled
    ones included. ``waiting``: waiting and parked records (``label`` is the state).
    ``positions``: per lane (``key``) the next offset of each topic.
    """

    service: str
    table: Literal["documents", "labels", "asks", "waiting", "positions"] = "documents"
    kind: str = ""
    key: str | None = None
    label: str | None = None
    after: str = ""
    newest_first: bool = False
    limit: int = 100


class Call(Struct, frozen=True, kw_only=True):
    """One request at the door, already parsed: ``body`` is an instance of the route's type.

    ``may`` lists what the client is permitted beyond a plain call. ``found`` holds the rows of
    the scans an intake ``wants``, read just before it is decided.
    """

    client: str
    now: int
    idempotency_key: str = ""
    params: Mapping[str, str] = {}
    query: Mapping[str, str] = {}
    body: Any = None
    digest: str = ""  # of the body as sent, to tell another body under the same key
    trace: str = ""
    may: tuple[str, ...] = ()
    found: Mapping[str, list[Row]] = {}


class Reply(Struct, frozen=True, kw_only=True):
    """An HTTP answer as a value. ``problem`` bodies are rendered as RFC 9457."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = {}


class Fault(Struct, frozen=True, kw_only=True):
    """One RFC 9457 problem: ``code`` is stable, ``field`` is a JSON path where one is to blame."""

    code: str
    title: str
    detail: str
    field: str = ""
    fix: str = ""
    extra: dict[str, Any] = {}


class Accepted(Struct, frozen=True, kw_only=True):
    """An intake's verdict: the reply, and what commits before it may be sent.

    ``events`` in ``done`` get root ids derived from ``root`` (the outside origin: client and
    key, or provider and delivery), so a repeated request makes the same event.
    """

    reply: Reply
    done: Done = Done()
    root: tuple[str, ...] = ()
    key: str = ""


def no_scans(call: Call) -> dict[str, Scan]:
    """The default of ``Intake.wants``: the door's own documents are enough."""
    return {}


class Intake(Struct, frozen=True, kw_only=True):
    """A route that writes: decided in a group, one transaction a group, durable before reply.

    ``wants`` names scans of other services' stores that are read before, outside the
    transaction, into ``call.found``: an opinion, never a lock.
    """

    needs: Callable[[Call], tuple[Ref, ...]]
    decide: Callable[[States, Call], Accepted]
    wants: Callable[[Call], dict[str, Scan]] = no_scans


class Look(Struct, frozen=True, kw_only=True):
    """A route that reads: ``wants`` names the scans, ``show`` makes the reply of their rows."""

    wants: Callable[[Call], dict[str, Scan]]
    show: Callable[[Call, Mapping[str, list[Row]]], Reply]


class Route(Struct, frozen=True, kw_only=True):
    """One route: method, path with ``{params}``, what it takes, an example that works as it is.

    ``permission`` names what a client must hold beyond a plain call (by the catalog).
    ``query`` maps each accepted query parameter to its description; ``query_types`` says of those
    that are more than text what they must be. ``leads_to`` names routes that go on from this one's
    reply: their parameters, each as a JSON pointer into it.
    """

    method: Literal["GET", "POST", "PUT"]
    path: str
    name: str
    summary: str
    does: Intake | Look
    body: type | None = None
    example: Any = None
    query: dict[str, str] = {}
    query_types: dict[str, Any] = {}
    leads_to: dict[str, dict[str, str]] = {}
    needs_idempotency_key: bool = False
    permission: str = ""
    replies: dict[int, str] = field(default_factory=lambda: {200: "Done."})
    reply: type | None = None  # the body of the successful reply, for OpenAPI
    bulk: bool = False  # takes the larger body limit


class Table(Struct, frozen=True, kw_only=True):
    """A rendered panel: column titles and rows; a cell may be ``(text, href)``."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    note: str = ""


class Panel(Struct, frozen=True, kw_only=True):
    """A part of the page for people. ``of`` is ``home`` or the name of a detail page.

    A detail page is reached at ``/ui/<of>/<id>``; the id is ``call.params["id"]``.
    """

    name: str
    title: str
    wants: Callable[[Call], dict[str, Scan]]
    table: Callable[[Call, Mapping[str, list[Row]]], Table]
    of: str = "home"


class Command(Struct, frozen=True, kw_only=True):
    """A command over a route: ``penstock <noun> <verb> [ARGUMENTS]``.

    ``arguments`` are positional and fill path parameters; ``options`` maps an option to the
    query parameter or body field it fills, with its help. ``rows`` names the list in the reply
    that is shown as a table (and streamed as jsonl, page by page), ``columns`` its fields.
    """

    noun: str
    verb: str
    route: str
    summary: str
    arguments: tuple[str, ...] = ()
    options: dict[str, str] = {}
    body_file: bool = False
    rows: str = ""
    columns: tuple[str, ...] = ()


class Visit(Struct, frozen=True, kw_only=True):
    """One request that somebody outside makes in a simulation, tried until it is answered.

    ``after`` is in milliseconds: from the start, or from the call that brings it about. ``key`` is
    its Idempotency-Key, or what else makes it the only one of its kind. ``of`` names an earlier
    visit by its key: what that one's reply calls the id is this one's ``id`` parameter.
    """

    after: int
    route: str
    key: str
    body: Any
    client: str = "local"
    of: str = ""


class Errand(Struct, frozen=True, kw_only=True):
    """What one client wants in a crash test: its visits, one after the other, and how it may end.

    The first visit's reply names the id that is followed; ``ends`` are the flow's own words for
    where it may come to stand. ``after_park`` is what a person does with records of it that were
    parked.
    """

    visits: tuple[Visit, ...]
    ends: tuple[str, ...]
    after_park: Literal["leave", "retry", "discard"] = "leave"


class Flow(Struct, frozen=True, kw_only=True):
    """Everything a flow brings. ``contracts`` are ``penstock.contracts`` values."""

    name: str
    services: tuple[Service, ...]
    contracts: tuple[Any, ...]
    door: str = ""
    door_states: dict[str, type] = {}
    door_labels: dict[str, Callable[[Any], str | None]] = {}
    routes: tuple[Route, ...] = ()
    panels: tuple[Panel, ...] = ()
    commands: tuple[Command, ...] = ()
    importer: str = ""  # dotted path of the module that reads an export
    workload: str = ""  # dotted path of the demo's workload
    load: str = ""  # dotted path of the bench's load: gateways in process, requests by number
    crash: str = ""  # dotted path of what the crash harness sends: errands by number
    sim: str = ""  # dotted path of what the simulator plays: clients, outside world, what must end
    audit: str = ""  # dotted path of the auditor's rules about this domain


def place(position: Position) -> str:
    """A position as people read it: ``orders[2]@17``."""
    return f"{position.topic}[{position.partition}]@{position.offset}"
