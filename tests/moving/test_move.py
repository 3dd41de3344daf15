"""A home with real traffic in it moves to a cluster, and goes on there as if nothing had been."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.errors import Conflict
from penstock.moving.move import Move, after, mark, write
from penstock.moving.verify import digest
from tests.cluster.stage import Stage, catalog_at
from tests.crash.rig import Client, Shop
from tests.support import eventually, unused_port

ORDERS = 30


class Moved:
    """One home, started with or without the cluster's catalog, and a client of both."""

    def __init__(self, folder: Path, kafka: str, dsn: str, prefix: str) -> None:
        self.home, self.catalog = folder / "home", catalog_at(folder, kafka, dsn, prefix)
        port = unused_port()  # one for both: clients do not notice the move
        self.embedded = Shop(self.home, port=port)
        self.cluster = Shop(self.home, port=port, catalog=self.catalog)
        self.stage = Stage(self.home, self.catalog)
        self.alone = Stage(self.home)
        self.client = Client(self.embedded, folder / "journal.jsonl")

    def migrate(self, step: str, code: int = 0) -> str:
        """Run a step; what it said."""
        done = self.stage.run("migrate", step)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def close(self) -> None:
        """Leave nothing behind."""
        for shop in (self.embedded, self.cluster):
            shop.clean_up()
        self.client.close()


@pytest.fixture
def moved(tmp_path: Path, kafka: str, dsn: str, prefix: str) -> Iterator[Moved]:
    """A home where nothing has moved yet."""
    made = Moved(tmp_path, kafka, dsn, prefix)
    yield made
    made.close()


def test_a_running_pipeline_moves_and_goes_on(moved: Moved) -> None:
    """Copied while it works, fenced in the middle of it, switched, verified; then every order that
    was accepted in the home ends on the cluster, and a key that was answered is answered alike."""
    home, client = moved.embedded, moved.client
    home.start()
    client.stock("KETTLE", 10 * ORDERS)
    client.mixed("KETTLE", ORDERS)
    assert "orders" in moved.migrate("plan")
    assert "records copied" in moved.migrate("copy")
    client.mixed("KETTLE", ORDERS)
    moved.migrate("switch", 5)  # not before the fence
    moved.migrate("fence")
    assert home.process is not None
    assert home.process.wait(30) == 0
    refused = moved.alone.run("up", "--port", "0")
    assert refused.returncode == 5
    assert "moved to Kafka" in refused.stderr
    assert moved.alone.run("worker", "order").returncode == 5
    moved.migrate("switch")
    moved.migrate("switch")  # twice is once
    assert "Nothing differs" in moved.migrate("verify")
    shop = moved.cluster
    shop.start()
    eventually(lambda: not client.states(), 60, what="everything has ended on the cluster")
    before = len(client.ends)
    again = client.send("/orders", "order-1", {
        "order_ref": "order-1", "customer": {"id": "c", "email": "c1@example.com"},
        "address": {"country": "France"}, "currency": "EUR", "payment_method": "tok_ok",
        "lines": [{"sku": "KETTLE", "quantity": 1, "unit_minor": 1001}],
    })  # fmt: skip
    assert again["order_id"] in client.ends
    client.order("KETTLE")
    assert len(client.ends) == before + 1
    eventually(lambda: not client.states(), 60)
    assert "The cluster has worked" in moved.migrate("return", 5)
    shop.stop()
    audit = moved.stage.run("audit")
    assert audit.returncode == 0, audit.stdout + audit.stderr


def move(**firsts: list[int]) -> Move:
    return Move(id="m", kafka="k", prefix="p", database="d", firsts=firsts)


def test_places_are_translated_by_what_each_partition_dropped() -> None:
    """Where retention took the first records, every offset and position lies so much lower."""
    found = move(orders=[0, 7], stock=[3, 3])
    assert found.offset("orders", 0, 5) == 5
    assert found.offset("orders", 1, 9) == 2
    assert found.positions(1, {"orders": 9, "stock": 3, "gone": 4}) == {"orders": 2, "stock": 0}
    assert found.positions(0, {"stock": 2}) == {"stock": 0}, "behind what is kept: at its start"


def test_steps_come_in_their_order(tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="No move was begun"):
        after(tmp_path, "fenced")
    begun = move(orders=[0])
    write(tmp_path, begun)
    with pytest.raises(Conflict, match="after copied"):
        after(tmp_path, "fenced")
    begun = mark(tmp_path, begun, "copied")
    assert after(tmp_path, "fenced").done.keys() == {"copied"}
    with pytest.raises(Conflict, match="after fenced"):
        after(tmp_path, "switched")
    assert json.loads((tmp_path / "move.json").read_text())["firsts"] == {"orders": [0]}


def test_rows_are_the_same_in_any_order_and_by_every_cell() -> None:
    rows = [(0, 3, '{"b":1,"a":2}', b"x"), (1, 3, "{}", None)]
    other = [(1, 3, {}, None), (0, 3, {"a": 2, "b": 1}, b"x")]
    assert digest(rows) == digest(other)
    assert digest(rows) != digest([*other[:1], (0, 4, {"a": 2, "b": 1}, b"x")])
    assert digest(rows) != digest(rows[:1])
