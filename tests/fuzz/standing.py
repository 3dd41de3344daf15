"""The shipped application and the services behind it: whole, in one process, over one home.

``penstock up`` runs the same parts in processes of their own; here they take turns when asked, and
the gateways answer in process.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import requests
from msgspec.structs import replace
from schemathesis.python.asgi import get_client

from penstock import assemble
from penstock.engine.courier import Courier
from penstock.engine.runner import write_whole
from penstock.engine.slots import Slots
from penstock.engine.unit import unit_of
from penstock.engine.worker import Worker
from penstock.event import Message, root_id
from penstock.flow import Row, Scan
from penstock.flows.orders.gateways.instant import gateways
from penstock.flows.orders.routes import PRICES_EXAMPLE, STOCK_EXAMPLE
from penstock.limits import PAGE_ROWS_MAX
from penstock.web.app import Front, make_app

HOST = "testserver"  # whom the in-process client calls
BASE = f"http://{HOST}"
TURNS_MAX = 2000
MEMORY = Path("/dev/shm")  # nothing here is about disks, and a sync takes longer than a request
PAGES = ("/", "/ui/deadletters", "/stock", "/prices", "/status", "/metrics", "/deadletters")
DAYS_40_MS = 40 * 86_400_000  # longer than any deadline
UNREADABLE = "unreadable"
# What somebody outside says of an order that is none, or says too late: a person has to look.
FOR_PEOPLE = {"unknown_order", "not_asked", "amount_differs", "count_too_old"}


class Services:
    """Every service of the flow with its courier, taking turns in this thread."""

    def __init__(self, house: assemble.House) -> None:
        self._home, self._clock = house.home, assemble.WallClock()
        self.workers: dict[str, Worker] = {}
        self.couriers: dict[str, Courier] = {}
        answering = gateways()
        for service in house.flow.services:
            name = service.name
            unit = unit_of(service, house.catalog, house.book)
            log, store = assemble.make_log(house), assemble.make_store(house, name)
            asked = {
                n: (replace(house.catalog.gateways[n], inline=True), answering[n])
                for n in unit.entry.asks if n in answering
            }  # fmt: skip
            slots = Slots(house.run / f"{name}.slots", unit.lanes)
            self.workers[name] = Worker(unit, log, store, slots)
            self.couriers[name] = Courier(unit, log, store, asked, _NoThreads())

    def run(self, ahead_ms: int = 0) -> None:
        """Turn until nothing moves; ``ahead_ms`` puts their clock forward."""
        now, idle = self._clock.now() + ahead_ms, 0
        for _ in range(TURNS_MAX):
            idle = 0 if self._turn(now) else idle + 1
            if idle > 1:
                return
        raise AssertionError("the services do not come to rest")

    def _turn(self, now: int) -> int:
        moved = sum(worker.step(now).records for worker in self.workers.values())
        for courier in self.couriers.values():
            carried = courier.step(now)
            moved += carried.settled + carried.called
        return moved

    def report(self) -> None:
        """Leave word as their processes do, so that the application is ready."""
        for name in self.workers:
            said = {"service": name, "pid": os.getpid(), "at": self._clock.now()}
            write_whole(self._home / "run" / "status" / f"{name}.json", said)

    def workers_stopped(self) -> dict[str, str]:
        """Services that gave up, and why."""
        return {name: w.stopped for name, w in self.workers.items() if w.stopped}


class _NoThreads:
    """Inline gateways need no pool."""

    def submit(self, gateway: str, work: Callable[[], None]) -> None:
        """Never called."""
        raise AssertionError(f"{gateway} is not inline")


class Standing:
    """What a test gets: the application, the services, and a client in process."""

    def __init__(self, house: assemble.House, client: requests.Session) -> None:
        self.house, self.client = house, client
        self.services = Services(house)
        self._parked = 0
        self.read = assemble.Readers(house).scan

    def fill(self) -> None:
        """Prices, stock, and one parked record to look at."""
        self.client.put(f"{BASE}/prices", json=PRICES_EXAMPLE).raise_for_status()
        self.client.post(f"{BASE}/stock", json=STOCK_EXAMPLE).raise_for_status()
        self.services.run()
        self.services.report()

    def park(self) -> None:
        """One more record that no service can read, on a key that nothing else uses."""
        self._parked += 1
        key, now = f"{UNREADABLE}-{self._parked}", assemble.WallClock().now()
        id_ = root_id(now, "fuzz", key)
        log = assemble.make_log(self.house)
        log.append("orders", [Message(key, b"{", id_, "order.placed", 2, now)], now)
        log.close()
        self.services.run()

    def orders(self) -> Iterator[dict[str, Any]]:
        """Every order, page by page."""
        after: dict[str, str] | None = {}
        while after is not None:
            page = self.client.get(f"{BASE}/orders", params=after).json()
            yield from page["orders"]
            after = {"after": page["next"]} if page["next"] else None

    def deliver(self) -> None:
        """The carrier takes and delivers what lies ready."""
        for order in [o["order_id"] for o in self.orders() if not o["final"]]:
            for parcel in self.client.get(f"{BASE}/orders/{order}").json()["shipments"]:
                for scan in ("handover", "delivered"):
                    name = f"{order}/{parcel['shipment']}"
                    said = {"scan": f"{name}/{scan}", "reference": name, "type": scan}
                    self.client.post(f"{BASE}/webhooks/carrier", json=said).raise_for_status()
        self.services.run()

    def flaws(self) -> list[str]:
        """What is wrong once nothing moves any more: each accepted request was a good one."""
        self.services.run()
        self.deliver()
        self.services.run(DAYS_40_MS)
        found = [f"{name} stopped: {why}" for name, why in self.services.workers_stopped().items()]
        for service in self.house.flow.services:
            what = Scan(service=service.name, table="waiting", limit=PAGE_ROWS_MAX)
            rows = self.read(what)
            parked = {row.key for row in rows if row.label == "parked" and _is_expected(row)}
            found += [f"{service.name} holds {row}" for row in rows if row.key not in parked]
        found += [f"never ended: {one}" for one in self.orders() if not one["final"]]
        return found + [path for path in PAGES if self.client.get(BASE + path).status_code != 200]


def _is_expected(row: Row) -> bool:
    return row.key.startswith(UNREADABLE) or row.kind in FOR_PEOPLE


class Ground:
    """The application of whichever house stands: described once, served by many.

    It has no lifespan of its own: the client would end it after every test.
    """

    def __init__(self) -> None:
        self._front: Front | None = None
        self._started = False

    @contextmanager
    def under(self, front: Front) -> Iterator[None]:
        """Serve this one meanwhile, then drain it."""
        before = self._front, self._started
        self._front, self._started = front, False
        try:
            yield
        finally:
            self._front, self._started = before
            asyncio.run(front.stop())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request; the first one starts the application."""
        assert scope["type"] == "http", "the house is started here, by its first request"
        assert self._front is not None, "no house stands"
        if not self._started:
            self._started = True
            await self._front.start()
        await self._front(scope, receive, send)


GROUND = Ground()


@cache
def _declared() -> assemble.House:
    """What is declared is the same for every home."""
    return assemble.open_house(Path("unused"))


@contextmanager
def standing() -> Iterator[Standing]:
    """The application over a fresh home, started, with something in it."""
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        house = replace(_declared(), home=Path(folder) / "home")
        assemble.prepare(house)
        front = make_app(assemble.make_site(house, HOST, 80))
        with GROUND.under(front), get_client(GROUND) as client:
            made = Standing(house, client)
            made.fill()
            yield made
