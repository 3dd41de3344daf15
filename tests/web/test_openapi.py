"""The description of the API is valid, complete, and its examples work as they are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openapi_spec_validator import validate

from penstock import assemble
from penstock.event import Message, Record, root_id
from penstock.ports import Advance, Store, Waiting
from penstock.web.routes import OWN_ROUTES
from tests.web import live
from tests.web.small import NOW, Library

Operation = dict[str, Any]
METHODS = ("get", "post", "put")


@pytest.fixture
def shop(home: Path) -> Iterator[httpx.Client]:
    """The flow that ships with penstock, served over a home with one parked record."""
    house = assemble.open_house(home)
    assemble.prepare(house)
    park(assemble.make_store(house, "payment"), "orders", "ord_parked")
    with live.shop(home) as client:
        yield client


def park(store: Store, topic: str, key: str) -> None:
    """A parked record at partition 0, offset 0."""
    message = Message(key, b"{}", root_id(NOW, key), "order.placed", 2, NOW)
    row = Waiting(
        record=Record(topic, 0, 0, NOW, message), state="parked", due=0, attempts=0, kind="torn"
    )
    (claim,) = store.claim([0], NOW)
    with store.begin() as tx:
        tx.advance([Advance(0, claim.epoch, {topic: 1})], NOW)
        tx.defer([row], [])


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, Operation]]:
    """Path, method and operation of everything described."""
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


def send(door: httpx.Client, path: str, method: str, operation: Operation) -> httpx.Response:
    """The operation's own example: its headers, and its body where it has one."""
    given = [p for p in operation["parameters"] if p["in"] == "header"]
    headers = {p["name"]: p["example"] for p in given}
    body = operation.get("requestBody")
    content = body["content"]["application/json"]["example"] if body else None
    return door.request(method, path, headers=headers, json=content)


def success(operation: Operation) -> set[int]:
    """The documented codes that are no problem."""
    return {int(code) for code in operation["responses"] if code.isdigit() and int(code) < 300}


def described(door: httpx.Client) -> dict[str, Any]:
    """The document the door serves."""
    found: dict[str, Any] = door.get("/openapi.json").json()
    return found


def test_both_documents_are_valid(shop: httpx.Client, door: httpx.Client) -> None:
    validate(described(shop))
    validate(described(door))


def test_every_route_is_described(door: httpx.Client, library: Library) -> None:
    wanted = {(r.path, r.method.lower()) for r in (*library.site.flow.routes, *OWN_ROUTES)}
    assert {(path, method) for path, method, _ in operations(described(door))} == wanted
    names = [operation["operationId"] for _, _, operation in operations(described(door))]
    assert len(names) == len(set(names))


def test_every_operation_says_how_it_fails(shop: httpx.Client) -> None:
    for path, _method, operation in operations(described(shop)):
        assert operation["summary"], path
        assert operation["tags"], path
        assert success(operation), path
        assert "default" in operation["responses"], path


def test_every_body_has_an_example(shop: httpx.Client) -> None:
    bodies = [o["requestBody"] for _, _, o in operations(described(shop)) if "requestBody" in o]
    assert len(bodies) >= 5
    assert all(b["content"]["application/json"]["example"] for b in bodies)


def test_every_example_works_as_it_is(shop: httpx.Client) -> None:
    document = described(shop)
    placed = send(shop, "/orders", "post", document["paths"]["/orders"]["post"]).json()
    known = {"id": placed["order_id"], "service": "payment", "topic": "orders", "partition": "0",
             "offset": "0"}  # fmt: skip
    failed = []
    for path, method, operation in operations(document):
        filled = re.sub(r"{(\w+)}", lambda found: known[found[1]], path)
        reply = send(shop, filled, method, operation)
        allowed = success(operation) | ({503} if path in ("/readyz", "/health/ready") else set())
        if reply.status_code not in allowed:
            failed.append((method, filled, reply.status_code, reply.text[:300]))
    assert failed == []


def test_links_lead_to_operations_that_take_what_they_carry(
    shop: httpx.Client, door: httpx.Client
) -> None:
    for document in (described(shop), described(door)):
        taken = {o["operationId"]: o["parameters"] for _, _, o in operations(document)}
        links = [
            (name, link)
            for _, _, operation in operations(document)
            for reply in operation["responses"].values()
            for name, link in reply.get("links", {}).items()
        ]
        assert links
        for name, link in links:
            assert link["operationId"] == name
            assert link["parameters"].keys() <= {p["name"] for p in taken[name]}
            wanted = {p["name"] for p in taken[name] if p["in"] == "path"}
            assert wanted <= link["parameters"].keys()


def test_what_a_link_carries_is_in_the_reply(shop: httpx.Client) -> None:
    document = described(shop)
    placed = send(shop, "/orders", "post", document["paths"]["/orders"]["post"]).json()
    known = {"id": placed["order_id"], "service": "payment", "topic": "orders", "partition": "0",
             "offset": "0"}  # fmt: skip
    for path, method, operation in operations(document):
        filled = re.sub(r"{(\w+)}", lambda found: known[found[1]], path)
        links = [link for r in operation["responses"].values() for link in r.get("links", {})]
        if not links or (path, method) == ("/orders", "get"):
            continue  # a list of orders is empty until the services run
        reply = send(shop, filled, method, operation).json()
        for status in success(operation):
            for link in operation["responses"][str(status)]["links"].values():
                for pointer in link["parameters"].values():
                    look_up(reply, pointer.removeprefix("$response.body#"))


def look_up(value: Any, pointer: str) -> Any:
    """What stands at a JSON pointer; raises ``KeyError`` and ``IndexError``."""
    for part in pointer.split("/")[1:]:
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


def test_no_pattern_lets_a_newline_through_at_its_end(shop: httpx.Client) -> None:
    """`$` also matches before a last newline, to Python; to JavaScript it does not."""
    found = list(patterns(described(shop)["components"]))
    assert len(found) > 10
    assert [p for p in found if "$" in p.replace(r"$(?!\n)", "")] == []


def patterns(schema: Any) -> Iterator[str]:
    """Every pattern somewhere in a document."""
    if isinstance(schema, dict):
        if isinstance(schema.get("pattern"), str):
            yield schema["pattern"]
        schema = list(schema.values())
    if isinstance(schema, list):
        for part in schema:
            yield from patterns(part)


def test_the_client_need_not_be_named_where_the_usual_one_may(shop: httpx.Client) -> None:
    post = described(shop)["paths"]["/stock"]["post"]
    (header,) = [p for p in post["parameters"] if p["name"] == "Penstock-Client"]
    assert not header["required"]
    body = post["requestBody"]["content"]["application/json"]["example"]
    assert shop.post("/stock", json=body).status_code == 202


def test_a_repeated_example_is_answered_and_done_once(shop: httpx.Client) -> None:
    operation = described(shop)["paths"]["/orders"]["post"]
    first, again = (send(shop, "/orders", "post", operation) for _ in range(2))
    assert first.json() == again.json()
    assert again.headers["idempotent-replayed"] == "true"
