"""A shop under the crash harness: the shipped ``penstock up``, and a client that places orders."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import httpx

from penstock.catalog.load import load_catalog
from penstock.flows.orders import FLOW
from penstock.sim.crash.client import Client as Sender
from penstock.sim.crash.journal import Journal
from penstock.sim.crash.judge import Judge
from penstock.sim.crash.subject import Subject as Shop
from penstock.sim.crash.subject import running
from tests.support import eventually

END_SECONDS = 25.0
ANSWER_SECONDS = 60.0
NAME = "importer"  # may bring its own prices and load stock
SERVICES = ("order", "inventory", "payment", "shipping", "notify")
MEMBERS = ("sandbox-payments", "sandbox-carrier", "sandbox-mail", *SERVICES, "door")


class Client:
    """Places orders with the harness's own client and knows how each has to end."""

    def __init__(self, shop: Shop, journal: Path) -> None:
        self.journal, self._noted = journal, Journal(journal)
        self._sender = Sender(shop, self._noted)
        self._lock, self._placed = threading.Lock(), 0
        self.ends: dict[str, tuple[str, ...]] = {}

    def close(self) -> None:
        """Hang up."""
        self._sender.close()
        self._noted.close()

    def send(self, path: str, key: str, body: dict[str, Any]) -> Any:
        """Send until answered; a refusal is a broken promise."""
        reply = self._sender.send("POST", path, key, body, NAME)
        assert reply.is_success, reply.text
        return reply.json()

    def get(self, path: str) -> httpx.Response:
        """Look at something."""
        return self._sender.get(path)

    def stock(self, sku: str, quantity: int) -> None:
        """Load stock of a SKU, and wait until orders can have it: topics race."""
        entries = [{"sku": sku, "quantity": quantity}]
        self.send("/stock", f"stock-{sku}", {"file": f"stock-{sku}", "entries": entries})
        eventually(
            lambda: self.get(f"/stock?sku={sku}").json()["stock"], ANSWER_SECONDS,
            what=f"{sku} is in stock",
        )  # fmt: skip

    def order(
        self, sku: str, *, card: str = "tok_ok", end: tuple[str, ...] = ("completed",),
        cancel: bool = False,
    ) -> str:  # fmt: skip
        """Place an order of one piece that shall end in one of ``end``; its id."""
        with self._lock:
            self._placed += 1
            number = self._placed
        key = f"order-{number}"
        body = {
            "order_ref": key, "customer": {"id": "c", "email": f"c{number}@example.com"},
            "address": {"country": "France"}, "currency": "EUR", "payment_method": card,
            "lines": [{"sku": sku, "quantity": 1, "unit_minor": 1000 + number}],
        }  # fmt: skip
        order: str = self.send("/orders", key, body)["order_id"]
        self.ends[order] = end
        if cancel:
            self.send(f"/orders/{order}/cancel", f"cancel-{number}", {"reason": "test"})
        return order

    def mixed(self, sku: str, count: int) -> list[str]:
        """Orders of every kind, ``count`` in all; their ids."""
        return [self._kind(sku, n % 10) for n in range(count)]

    def _kind(self, sku: str, n: int) -> str:
        if n == 3:
            return self.order(sku, card="tok_decline", end=("rejected",))
        if n == 5:
            return self.order(sku, card="tok_slow", end=("completed", "cancelled"), cancel=True)
        return self.order(sku, card="tok_503" if n == 7 else "tok_ok")

    @contextmanager
    def busy(self, sku: str, count: int) -> Iterator[None]:
        """Orders keep coming while the body runs; ``count`` of them at the end of it."""
        wrong: list[BaseException] = []

        def place() -> None:
            try:
                self.mixed(sku, count)
            except BaseException as error:
                wrong.append(error)

        thread = threading.Thread(target=place, daemon=True)
        thread.start()
        yield
        thread.join(ANSWER_SECONDS + count)
        assert not thread.is_alive(), "not all orders were answered"
        assert not wrong, wrong

    def states(self) -> dict[str, str]:
        """Where each order stands that is not where it shall end."""
        found = {id_: self.get(f"/orders/{id_}").json()["state"] for id_ in self.ends}
        return {id_: state for id_, state in found.items() if state not in self.ends[id_]}


@contextmanager
def open_shop(folder: Path, **how: Any) -> Iterator[tuple[Shop, Client]]:
    """A running shop with a client; nothing of it is left behind."""
    with running(folder / "home", **how) as shop:
        client = Client(shop, folder / "journal.jsonl")
        try:
            yield shop, client
        finally:
            client.close()


def wrongs(home: Path, journal: Path) -> list[str]:
    """What the auditor finds where everything must have ended, in lines."""
    _, found = Judge(FLOW, load_catalog()).judge(home, journal)
    return [f"{v.rule} {v.key}: {v.detail} {v.records}" for v in found]


def all_end_right(shop: Shop, client: Client, seconds: float = END_SECONDS) -> None:
    """Wait until every order stands where it shall, and the auditor finds nothing."""

    def none() -> bool:
        standing = client.states()
        assert not standing, standing
        found = wrongs(shop.home, client.journal)
        assert not found, "\n".join(found[:20])
        return True

    eventually(none, seconds, what="every order ends right")


def select(path: Path, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """Rows of a file that others may be writing."""
    with apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE) as db:
        db.execute("PRAGMA busy_timeout=10000")
        db.execute("PRAGMA query_only=1")
        found = db.execute(sql, values).fetchall()
    db.close()
    return found
