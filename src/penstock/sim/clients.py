"""The clients of a simulated world: they try until they are answered, and keep a journal."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from penstock.engine.intake import Wanted
from penstock.flow import Call, Intake, Reply, Route, Visit
from penstock.sim.audit.books import Asked

if TYPE_CHECKING:
    from penstock.sim.world import World

PATIENCE_MS = 1000  # without a reply the client tries again
TRIES_MAX = 400


class Entry(Struct):
    """What one client knows of one request."""

    visit: Visit
    path: str = ""
    bodies: list[Any] = []
    state: str = "unknown"
    status: int = 0
    replies: list[Any] = []
    sent_at: int = 0
    tries: int = 0
    done: bool = False


class Clients:
    """Everybody who calls the door."""

    def __init__(self, world: World, id_field: str) -> None:
        self._world, self._id_field = world, id_field
        self._routes = {route.name: route for route in world.flow.routes}
        self._may = {name: c.may for name, c in world.catalog.clients.items()}
        self.entries: dict[tuple[str, str, str], Entry] = {}
        self._ids: dict[tuple[str, str], str] = {}
        self._others: dict[str, Any] = {}  # route -> a body that another key was sent with
        self.open = 0  # visits that are not answered yet

    def expect(self, visit: Visit) -> None:
        """A visit will come, and perhaps twice."""
        world = self._world
        self.open += 1
        entry = Entry(visit=visit, bodies=[], replies=[])
        known = self.entries.setdefault((visit.client, visit.route, visit.key), entry)
        world.at(world.now + visit.after, lambda: self._try(known))
        if world.faults.fires("twice:visit"):
            later = world.now + visit.after + int(world.roll() * 300)
            world.at(later, lambda: self._send(known, visit.body))

    def _try(self, entry: Entry) -> None:
        """Send until answered, as a careful client does."""
        world, visit = self._world, entry.visit
        if entry.done or entry.tries >= TRIES_MAX or world.played.cancelled(visit):
            self._close(entry)
            return
        entry.tries += 1
        self._send(entry, visit.body)
        world.at(world.now + PATIENCE_MS, lambda: self._try(entry))

    def _close(self, entry: Entry) -> None:
        if not entry.done:
            entry.done = True
        self.open -= 1

    def _send(self, entry: Entry, body: Any) -> None:
        world, visit, door = self._world, entry.visit, self._world.door
        route = self._routes[visit.route]
        params: dict[str, str] = {}
        if visit.of:
            id_ = self._ids.get((visit.client, visit.of))
            if id_ is None:
                return
            params = {"id": id_}
        if door is None or not door.alive:
            return
        said = msgspec.to_builtins(body)
        if said not in entry.bodies:
            entry.bodies.append(said)
        entry.sent_at = entry.sent_at or world.now
        entry.path = route.path.format_map(params)
        call = self._call(visit, route, params, body, door.clock.now())
        assert isinstance(route.does, Intake)
        is_own = body is visit.body
        refused = door.gate.submit(
            Wanted(route.does, call, lambda reply: self._answered(entry, reply, is_own))
        )
        door.wake_at = 0
        if refused is not None:
            self._answered(entry, refused, is_own)

    def _call(
        self, visit: Visit, route: Route, params: dict[str, str], body: Any, now: int
    ) -> Call:
        assert isinstance(route.does, Intake)
        raw = msgspec.json.encode(body)
        bare = Call(
            client=visit.client, now=now, idempotency_key=visit.key, params=params, body=body,
            digest=blake2b(raw, digest_size=16).hexdigest(), may=self._may.get(visit.client, ()),
        )
        wants = route.does.wants(bare)
        if not wants:
            return bare
        found = {name: self._world.scan(what) for name, what in wants.items()}
        return msgspec.structs.replace(bare, found=found)

    def _answered(self, entry: Entry, reply: Reply, is_own: bool) -> None:
        world = self._world
        world.note(f"reply {entry.visit.key} {reply.status}")
        if reply.status >= 500 or world.faults.fires("reply:visit"):
            return  # to the client this is no answer
        if reply.status < 300:
            said = msgspec.to_builtins(reply.body)
            if said not in entry.replies:
                entry.replies.append(said)
            entry.state, entry.status, entry.done = "acked", reply.status, True
            self._accepted(entry, said)
        elif is_own:
            entry.status, entry.done = reply.status, True
            entry.state = "acked" if entry.replies else "failed"

    def _accepted(self, entry: Entry, said: Any) -> None:
        """Remember the id; some use the key again for something else, which must be refused."""
        visit = entry.visit
        if isinstance(said, dict) and self._id_field in said:
            self._ids[visit.client, visit.key] = said[self._id_field]
        if not self._routes[visit.route].needs_idempotency_key:
            return
        other = self._others.get(visit.route)
        self._others[visit.route] = visit.body
        if other is not None and self._world.faults.fires("other_body:visit"):
            self._world.at(self._world.now + 1, lambda: self._send(entry, other))

    def journal(self) -> Sequence[Asked]:
        """What the clients were told."""
        routes = self._routes
        return [
            Asked(e.visit.client, e.visit.key, routes[e.visit.route].method,
                  e.path, e.bodies, e.state, e.status, e.replies, e.sent_at)
            for e in self.entries.values() if e.bodies
        ]  # fmt: skip
