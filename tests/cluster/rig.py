"""A house on a cluster under orders: started as people start it, harmed, and then judged.

Orders come before, while and after something happens to it, from clients that repeat each under
its key until it is answered. Afterwards every one has come to where it may end, nobody was charged
twice, and the auditor finds nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import apsw
import httpx
import msgspec
import psycopg

from penstock.catalog.load import examine, load_catalog
from penstock.flows.orders import FLOW
from penstock.flows.orders.crashing import kind_of
from penstock.sim.crash.client import Client, Placed
from penstock.sim.crash.ends import Ends, rest
from penstock.sim.crash.judge import Judge
from penstock.sim.crash.plan import HomePlan
from penstock.sim.crash.servers import Servers
from penstock.sim.crash.stage import Declared, Stage, staged
from penstock.sim.crash.subject import Subject
from penstock.sim.crash.workload import workload_of
from tests.support import eventually, unused_port

END_SECONDS = 60.0  # two busy cores; a lock or a request that was given up on costs ten of them
JUDGE_SECONDS = 30.0
PACE_SECONDS = 0.4  # between two orders of one client
# A provider that is told to fail is held back by its breaker, for all: that is another test's.
CARDS = {"tok_ok", "tok_decline", "tok_slow", "tok_wrong_amount"}
CLIENTS = 2
FEW = 3  # orders that are answered before something happens, and after it


class Orders:
    """Clients that place one order after the other until they are told that it is enough."""

    def __init__(self, client: Client, first: int) -> None:
        self.placed: list[Placed] = []
        self._client, self._number = client, first
        self._lock, self._over = threading.Lock(), threading.Event()
        self._wrong: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._run, name=f"orders-{n}") for n in range(CLIENTS)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        workload = workload_of(FLOW)
        try:
            while not self._over.wait(PACE_SECONDS):
                self.placed.append(self._client.run(workload.errand(self._take())))
        except BaseException as wrong:
            self._wrong.append(wrong)

    def _take(self) -> int:
        with self._lock:
            while kind_of(self._number).card not in CARDS:
                self._number += 1
            self._number += 1
            return self._number - 1

    def more(self, count: int = FEW, seconds: float = END_SECONDS) -> None:
        """Wait until so many more are answered."""
        before = len(self.placed)
        eventually(
            lambda: self._wrong or len(self.placed) >= before + count, seconds,
            what="orders are answered",
        )  # fmt: skip
        assert not self._wrong, self._wrong

    def end(self) -> int:
        """No more; the number of the next order."""
        self._over.set()
        for thread in self._threads:
            thread.join(END_SECONDS)
            assert not thread.is_alive(), "an order was not answered"
        assert not self._wrong, self._wrong
        return self._number


class House:
    """A running house, its clients and its judge. Its processes are those of one ``up``."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self._next = stage, 0
        self._judge = Judge(FLOW, load_catalog())
        assert stage.where is not None
        self.dsn, self.prefix = stage.where.dsn, stage.where.prefix

    @property
    def subject(self) -> Subject:
        """What is harmed."""
        return self.stage.subject

    @contextmanager
    def under_orders(self, end_seconds: float = END_SECONDS) -> Iterator[Orders]:
        """Orders come before, while and after the body; then all have ended right."""
        orders = Orders(self.stage.client, self._next)
        try:
            orders.more()
            yield orders
            orders.more()
        finally:
            self._next = orders.end()
        self.all_end_right(orders.placed, end_seconds)

    def all_end_right(self, placed: list[Placed], end_seconds: float = END_SECONDS) -> None:
        """Every order was accepted and stands where it may, was charged once at most and where
        it is completed once, and the auditor finds nothing."""
        refused = [(p.errand.visits[0].key, p.status, p.reply) for p in placed if p.status >= 300]
        assert not refused, refused
        assert len({p.id for p in placed}) == len(placed), "two orders under one id"
        client = self.stage.client
        left = Ends(workload_of(FLOW), client, placed).within(end_seconds)
        assert not left, "\n".join([*left.values(), *self.troubles()])
        rest(client, end_seconds)
        eventually(self._is_clean, JUDGE_SECONDS, what="the auditor finds nothing")
        charged = self.charges()
        for each in placed:
            state = client.look(f"/orders/{each.id}")["state"]
            assert charged[each.id] <= 1, f"{each.id} was charged {charged[each.id]} times"
            assert charged[each.id] == 1 or state != "completed", f"{each.id} was never charged"

    def _is_clean(self) -> bool:
        _, found = self._judge.judge(self.stage.home, self.stage.journal, self.stage.where)
        assert not found, "\n".join(f"{v.rule} {v.key}: {v.detail} {v.records}" for v in found)
        return True

    def status(self) -> subprocess.CompletedProcess[str]:
        """What ``penstock status`` shows, as JSON."""
        argv = [sys.executable, "-m", "penstock", "--url", self.subject.url, "status", "-o", "json"]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)

    # Looking -------------------------------------------------------------------------------------

    def charges(self) -> Counter[str]:
        """How often the provider was made to charge a card, by order."""
        path = self.stage.home / "sandbox" / "payments" / "provider.sqlite"
        with apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE) as db:
            found = db.execute(
                "SELECT order_id FROM effects WHERE operation = 'authorise'"
            ).fetchall()
        db.close()
        return Counter(order for (order,) in found)

    def select(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of the database."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            return connection.execute(query.encode(), values or None).fetchall()

    def noted(self, kind: str) -> list[dict[str, Any]]:
        """The lines of a kind in the clients' journal: sent, answered, lost."""
        lines = map(json.loads, self.stage.journal.read_text().splitlines())
        return [line for line in lines if kind in line]

    def refusals(self) -> list[dict[str, Any]]:
        """Every answer that put a client off."""
        return [line for line in self.noted("answered") if line["status"] == 503]

    @contextmanager
    def worker(self, service: str, name: str = "extra") -> Iterator[Extra]:
        """One more worker for the body, told to drain at its end."""
        extra = Extra(self.subject, service, name)
        try:
            eventually(extra.answers, END_SECONDS, what=f"{name} runs")
            yield extra
            extra.process.terminate()
            assert extra.process.wait(END_SECONDS) == 0
        finally:
            extra.process.kill()
            extra.process.wait()

    def lanes(self, pid: int) -> list[int]:
        """The lanes that a process has, as it said last."""
        return next((r["lanes"] for r in self.reports() if r["pid"] == pid and "lanes" in r), [])

    def epochs(self, service: str, lanes: Sequence[int]) -> list[int]:
        """The epoch of each of a service's lanes: it rises with every claim."""
        found = dict(self.select(
            "SELECT lane, epoch FROM owners o JOIN scopes s ON s.id = o.scope"
            " WHERE s.service = %s AND s.namespace = 'live'", service
        ))  # fmt: skip
        return [found[lane] for lane in lanes]

    def reports(self) -> list[dict[str, Any]]:
        """What every process said last."""
        found = self.select("SELECT body FROM reports WHERE seen_at > now() - interval '1 hour'")
        return [msgspec.json.decode(body) for (body,) in found]

    def troubles(self) -> list[str]:
        """What the processes complain about."""
        with suppress(psycopg.Error):
            return [f"{r['service']}: {r['trouble']}" for r in self.reports() if r["trouble"]]
        return []

    def told_trouble(self, text: str, services: int = 1) -> bool:
        """Do so many services name this as their trouble, in what people see? (Of a database that
        is away nothing can be told to it: the workers' own probes tell.)"""
        named = {r["service"] for r in self.reports() if text in str(r["trouble"])}
        return len(named) >= services

    def handled(self) -> int:
        """How many records were handled, by the marks."""
        return int(self.select("SELECT count(*) FROM marks")[0][0])


class Extra:
    """One more worker of the house, started by hand, with a port for probes."""

    def __init__(self, subject: Subject, service: str, name: str) -> None:
        self.name, self._port = name, unused_port()
        words = ("worker", service, "--member", name, "--health-port", str(self._port))
        self.process = subject.run(*words, member=name)

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    def trouble(self) -> str:
        """What it says when it is asked whether it is ready; nothing where it is."""
        reply = httpx.get(f"http://127.0.0.1:{self._port}/health/ready", trust_env=False)
        return "" if reply.is_success else reply.text

    def answers(self) -> bool:
        """Does it run?"""
        assert self.process.poll() is None, f"{self.name} ended with {self.process.returncode}"
        try:
            self.trouble()
        except httpx.HTTPError:
            return False
        return True


@contextmanager
def house(
    folder: Path, kafka: str, postgres: str, doubled: str = "payment",
    kafka_settings: Mapping[str, str] = {},
) -> Iterator[House]:
    """A house on these servers with two workers of one service; nothing of it is left running.
    ``kafka_settings`` are of the catalog's ``[kafka]``."""
    path = folder / "declared.toml"
    told = "".join(f"{name} = {value}\n" for name, value in kafka_settings.items())
    text = Path(examine(None).file).read_text()
    path.write_text(f'{text}\n[kafka]\nservers = "{kafka}"\n{told}')
    declared = Declared(
        flow=FLOW, catalog=load_catalog(path), path=path, workload=workload_of(FLOW)
    )
    plan = HomePlan(number=0, doubled=doubled, carried=(), cycles=())
    with staged(declared, plan, folder, Servers(kafka, postgres)) as stage:
        yield House(stage)
