"""Requests that go on from each other's answers, by the document's links, while services work."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import Any, ClassVar

from hypothesis import Phase
from schemathesis import Case, Response

from tests.fuzz.described import SCHEMA, is_positive, profile, sane
from tests.fuzz.judge import judge
from tests.fuzz.standing import BASE, standing

LETTER = "{} /deadletters/{{service}}/{{topic}}/{{partition}}/{{offset}}{}"
KEY = "Idempotency-Key"
REACHED = {
    ("GET /orders/{id}", 200), ("POST /orders/{id}/cancel", 202), ("POST /orders/{id}/cancel", 409),
    (LETTER.format("GET", ""), 200), (LETTER.format("POST", "/retry"), 202),
    (LETTER.format("POST", "/discard"), 202),
}  # fmt: skip


class Scenes(SCHEMA.as_state_machine()):  # type: ignore[misc]
    """One scene: requests by links; the services work between them."""

    seen: ClassVar[Counter[tuple[str, int]]] = Counter()

    def setup(self) -> None:
        """An application of its own, so that a scene can be played again; something is parked."""
        self._stack = ExitStack()
        self.stand = self._stack.enter_context(standing())
        self.stand.park()

    def teardown(self) -> None:
        """What was accepted comes to its end."""
        with self._stack:
            flaws = self.stand.flaws()
            assert not flaws, "\n".join(flaws)
        super().teardown()

    def before_call(self, case: Case) -> None:
        """Whole numbers; and mostly orders that have a price."""
        sane(case)
        if case.operation.label == "POST /orders" and is_positive(case):
            case.body = priced(case.body)
            case.headers.pop("Penstock-Client", None)

    def call(self, case: Case, **kwargs: Any) -> Response:
        """In process, without a start of the application for each call."""
        return case.call(session=self.stand.client, **kwargs)

    def validate_response(self, response: Response, case: Case, **kwargs: Any) -> None:
        """The rules of every answer, and those of an accepted order."""
        self.seen[case.operation.label, response.status_code] += 1
        judge(case, response, recorder=self.recorder)
        if case.operation.label == "POST /orders" and response.status_code == 202:
            self.is_there_at_once(response)
            self.is_done_once(case, response)
        self.stand.services.run()

    def is_there_at_once(self, response: Response) -> None:
        """An accepted order can be read before any service has seen it."""
        placed = response.json()
        (where,) = response.headers["location"]
        assert where == placed["href"] == f"/orders/{placed['order_id']}"
        found = self.stand.client.get(BASE + where)
        assert found.status_code == 200, found.text
        assert found.json()["amounts"]["total_minor"] == placed["total_minor"]

    def is_done_once(self, case: Case, response: Response) -> None:
        """The same key and body have the same answer; another body has none."""
        client = self.stand.client
        sent = response.request
        again = client.request("POST", str(sent.url), data=sent.body, headers=dict(sent.headers))
        assert again.json() == response.json()
        assert again.headers["idempotent-replayed"] == "true"
        other = client.request(
            "POST", str(sent.url), json={**case.body, "order_ref": "another"},
            headers={KEY: sent.headers[KEY]},
        )  # fmt: skip
        assert other.status_code == 422, other.text
        assert other.json()["code"] == "idempotency_key_reused"
        assert other.json()["field"] == KEY


def priced(body: dict[str, Any]) -> dict[str, Any]:
    """The order with a price on every line, and no total that may be another."""
    lines = [{**line, "unit_minor": line.get("unit_minor") or 250} for line in body["lines"]]
    return {**body, "lines": lines, "expected_total": None}


def test_scenes_by_links_keep_every_rule() -> None:
    Scenes.run(settings=profile(30, stateful_step_count=20, phases=[Phase.generate]))
    assert Scenes.seen.keys() >= REACHED, sorted(Scenes.seen.items())
