"""All the manifests' containers together, on a real broker and a real database: an order gets
through, a pod may go, and everything drains in time."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.deploy.image import Image
from tests.deploy.manifests import of, trial_courier
from tests.deploy.pods import Place, Pods, pods
from tests.support import eventually

pytestmark = pytest.mark.hosts
ORDER = {
    "order_ref": "a-1", "customer": {"id": "c", "email": "c@example.com"},
    "address": {"country": "France"}, "currency": "EUR", "payment_method": "tok_ok",
    "lines": [{"sku": "TEAPOT", "quantity": 1, "unit_minor": 1250}],
}  # fmt: skip
END_SECONDS = 60.0


def place_order(door: httpx.Client, ref: str) -> str:
    """Place an order through the door; its id."""
    reply = door.post("/orders", json={**ORDER, "order_ref": ref}, headers={"Idempotency-Key": ref})
    assert reply.status_code == 202, reply.text
    order: str = reply.json()["order_id"]
    return order


def completes(door: httpx.Client, order: str) -> None:
    """The order comes to its end."""
    eventually(
        lambda: door.get(f"/orders/{order}").json()["state"] == "completed", END_SECONDS,
        what=f"{order} is completed",
    )  # fmt: skip


def in_stock(door: httpx.Client) -> None:
    """Load what the orders want, and wait until they can have it."""
    entries = [{"sku": "TEAPOT", "quantity": 10}]
    key = {"Idempotency-Key": "stock"}
    assert door.post("/stock", json={"file": "a", "entries": entries}, headers=key).is_success
    eventually(lambda: door.get("/stock?sku=TEAPOT").json()["stock"], END_SECONDS)


def started_all(running: Pods) -> None:
    """What `kubectl apply` of migrate and then of run would start, sandboxes besides."""
    running.finish(of("Job", "migrate")["migrate"])
    running.finish(of("Job", "migrate")["migrate"])  # safe to run twice
    for name, one in of("Deployment").items():
        running.start(trial_courier() if name == "courier" else one)
    running.wait()


def test_an_order_gets_through_and_everything_drains(
    image: Image, kafka: str, dsn: str, prefix: str, tmp_path: Path
) -> None:
    place = Place(tmp_path, kafka, dsn, prefix)
    door_at = f"http://127.0.0.1:{place.ports[8080]}"
    with pods(image, place, tmp_path) as running, httpx.Client(base_url=door_at) as door:
        started_all(running)
        # All are process 1 of one host's name here, as with `hostNetwork`; each is told apart.
        eventually(lambda: door.get("/readyz").status_code == 200, END_SECONDS, what="all report")
        in_stock(door)
        completes(door, place_order(door, "a-1"))
        # A second pod comes, the first one goes: the second has all the lanes.
        order = of("Deployment")["worker-order"]
        running.start(order, 1)
        running.wait()
        assert running.running.pop("worker-order-worker-0").stop() == 0
        completes(door, place_order(door, "a-2"))
        used = {name: one.memory_kilobytes() for name, one in running.running.items()}
        assert max(used.values()) < 128 << 10, used
        ends = {name: one.stop() for name, one in running.running.items()}
        assert set(ends.values()) == {0}, ends
