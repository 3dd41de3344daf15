"""A careful client: notes every try, repeats under the same key until it is answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import msgspec
from msgspec import Struct

from penstock.flow import Errand, Route, Visit
from penstock.sim.crash.journal import Journal
from penstock.sim.crash.subject import Subject
from penstock.sim.crash.waiting import Late, NotYet, eventually

ANSWER_SECONDS = 60.0
TIMEOUT_SECONDS = 10.0
PERSON = "operator"
AT_ONCE = 4  # requests under way together
AGAIN = frozenset({429, 503})  # refused for now: nothing was accepted
IN_FLIGHT = "key_in_flight"  # the same key is being decided: ask again


class Placed(Struct, frozen=True):
    """An errand whose first visit was answered; ``id`` is what its reply calls it."""

    errand: Errand
    id: str
    status: int
    reply: Any


class Client:
    """Sends a flow's visits and keeps the journal of them; threads may share it."""

    def __init__(
        self, subject: Subject, journal: Journal, routes: Iterable[Route] = (), id_field: str = ""
    ) -> None:
        self.subject, self.journal, self._id_field = subject, journal, id_field
        self._routes: Mapping[str, Route] = {route.name: route for route in routes}
        self._http = httpx.Client(timeout=TIMEOUT_SECONDS, trust_env=False)
        self._hands = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="client")
        self.statuses: Counter[int] = Counter()
        self._closed = False

    def close(self) -> None:
        """Hang up; what was not sent yet never is, what was not answered stays so."""
        self._closed = True
        self._hands.shutdown(cancel_futures=True)
        self._http.close()

    # Sending -------------------------------------------------------------------------------------

    def begin(self, errands: Iterable[Errand]) -> Placing:
        """Start to run errands; several at a time, the visits of one in their order."""
        return Placing([self._hands.submit(self.run, errand) for errand in errands])

    def run(self, errand: Errand) -> Placed:
        """All visits of an errand, each until it is answered. Raises ``Late``."""
        ids: dict[str, str] = {}
        replies = [self.visit(visit, ids) for visit in errand.visits]
        first = replies[0]
        return Placed(
            errand, ids.get(errand.visits[0].key, ""), first.status_code, _json(first)
        )

    def visit(self, visit: Visit, ids: dict[str, str] | None = None) -> httpx.Response:
        """One visit until it is answered; ``ids`` by the keys of earlier ones. Raises ``Late``."""
        known = {} if ids is None else ids
        route = self._routes[visit.route]
        path = route.path.replace("{id}", known.get(visit.of, ""))
        reply = self.send(route.method, path, visit.key, msgspec.to_builtins(visit.body),
                          visit.client)  # fmt: skip
        said = _json(reply)
        if isinstance(said, dict) and self._id_field in said:
            known[visit.key] = str(said[self._id_field])
        return reply

    def send(
        self, method: str, path: str, key: str, body: Any, client: str = "local"
    ) -> httpx.Response:
        """One request until it is answered. Raises ``Late``."""
        reply = eventually(
            lambda: self.once(method, path, key, body, client), ANSWER_SECONDS,
            f"an answer to {method} {path} under the key {key}",
        )  # fmt: skip
        assert reply is not None
        return reply

    def once(
        self, method: str, path: str, key: str, body: Any, client: str = "local"
    ) -> httpx.Response | None:
        """One try; None where it has to be repeated."""
        if self._closed:
            raise Late(f"the client hung up before {key} was answered")
        url = f"{self.subject.url}{path}"
        headers = {"Penstock-Client": client, "Idempotency-Key": key}
        try_ = self.journal.sent(client, method, path, key, body)
        try:
            reply = self._http.request(method, url, json=body, headers=headers)
        except httpx.HTTPError as error:
            self.journal.lost(try_, f"{type(error).__name__}: {error}")
            return None
        self.journal.answered(try_, reply.status_code, _json(reply))
        self.statuses[reply.status_code] += 1
        return None if _is_put_off(reply) else reply

    # Looking -------------------------------------------------------------------------------------

    def get(self, path: str) -> httpx.Response:
        """Look at something, once."""
        return self._http.get(f"{self.subject.url}{path}")

    def wish(self, path: str, reason: str) -> bool:
        """Ask the platform for something as a person would, once; was it taken?"""
        headers = {"Penstock-Client": PERSON}
        try:
            reply = self._http.post(f"{self.subject.url}{path}", json={"reason": reason},
                                    headers=headers)  # fmt: skip
        except httpx.HTTPError:
            return False
        return reply.is_success

    def look(self, path: str) -> Any:
        """The JSON at a path, None where there is none. Raises ``NotYet`` where nobody answers."""
        try:
            reply = self.get(path)
        except httpx.HTTPError as error:
            raise NotYet(f"GET {path}: {error}") from None
        if reply.status_code == 404:
            return None
        if reply.status_code != 200:
            raise NotYet(f"GET {path}: {reply.status_code}")
        return reply.json()


class Placing:
    """Errands under way; ``result`` waits for all."""

    def __init__(self, under_way: list[Any]) -> None:
        self._under_way = under_way

    def more(self, other: Placing) -> None:
        """Wait for these as well."""
        self._under_way += other._under_way

    def result(self) -> list[Placed]:
        """All of them, answered. Raises ``Late``."""
        return [future.result() for future in self._under_way]


def _is_put_off(reply: httpx.Response) -> bool:
    said = _json(reply)
    code = said.get("code") if isinstance(said, dict) else None
    return reply.status_code in AGAIN or (reply.status_code == 409 and code == IN_FLIGHT)


def _json(reply: httpx.Response) -> Any:
    try:
        return reply.json()
    except ValueError:
        return reply.text
