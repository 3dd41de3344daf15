"""The shipped ``penstock up`` as a process, and a client that keeps a journal of what it was told.

The client writes every request down before it is sent and every answer after it came, and sends
the same request with the same key until it is answered: what a careful shop would do.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.crash.ends import ends
from tests.support import eventually

START_SECONDS = 60.0
END_SECONDS = 25.0
ANSWER_SECONDS = 60.0
MEMBERS = (
    "sandbox-payments", "sandbox-carrier", "sandbox-mail",
    "order", "inventory", "payment", "shipping", "notify", "door",
)  # fmt: skip
FULL_AT_BYTES = 512  # a file-size limit that leaves no room in any store, log or ledger


class Shop:
    """One home and the ``penstock up`` that runs in it."""

    def __init__(
        self, home: Path, *, port: int = 0, env: Mapping[str, str] | None = None,
        catalog: Path | None = None,
    ) -> None:  # fmt: skip
        self.home, self.port = home, port
        self._env, self._catalog = dict(env or {}), catalog
        self.log = home.parent / f"{home.name}-up.log"
        self.process: subprocess.Popen[bytes] | None = None

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start ``up`` and return at once."""
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command("up", "--port", str(self.port)), stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, env={**os.environ, **self._env}, start_new_session=True,
            )  # fmt: skip
        return self.process

    def command(self, *words: str) -> list[str]:
        """A penstock command over this home."""
        catalog = ["--catalog", str(self._catalog)] if self._catalog else []
        return [sys.executable, "-m", "penstock", "--home", str(self.home), *catalog, *words]

    def start(self) -> None:
        """Start ``up`` and wait until everybody is ready."""
        process = self.spawn()
        eventually(lambda: self._is_up(process), START_SECONDS, what="up is ready")

    def _is_up(self, process: subprocess.Popen[bytes]) -> bool:
        code = process.poll()
        if code is not None:
            raise RuntimeError(f"up ended with {code}: {self.said()}")
        try:
            said = json.loads((self.home / "run" / "up.json").read_text())
        except FileNotFoundError:
            return False
        if said["pid"] != process.pid:
            return False
        self.port = httpx.URL(said["url"]).port or 0
        return True

    @property
    def url(self) -> str:
        """Where its API is."""
        return f"http://127.0.0.1:{self.port}"

    def said(self) -> str:
        """What ``up`` printed so far, over all its starts."""
        return self.log.read_text(errors="replace")

    def pids(self) -> dict[str, int]:
        """The living members by name."""
        crew = json.loads((self.home / "run" / "crew.json").read_text())
        pids = {m["name"]: m["pid"] for m in crew if m["pid"]}
        return {name: pid for name, pid in pids.items() if str(self.home) in command_line(pid)}

    def pid(self, member: str) -> int:
        """A member's process, waiting for it to be there."""
        return eventually(lambda: self.pids().get(member), START_SECONDS, what=f"{member} runs")

    def kill(self, member: str) -> None:
        """End a member with -9 and wait until another process has its place."""
        pid = self.pid(member)
        os.kill(pid, signal.SIGKILL)
        eventually(
            lambda: self.pids().get(member, pid) != pid, START_SECONDS, what=f"{member} is back"
        )

    def kill_up(self) -> None:
        """End the parent with -9, whatever its children do."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Drain; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(END_SECONDS)

    def family(self) -> list[int]:
        """Every living process that was started over this home."""
        found = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()]
        return [pid for pid in found if f"{self.home}" in command_line(pid)]

    def limit_files(self, size: int) -> None:
        """No member may write a file beyond ``size`` bytes (RLIMIT_FSIZE), from now on."""
        for pid in self.family():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def clean_up(self) -> None:
        """Leave nothing running, whatever happened before."""
        if self.process is not None and self.process.poll() is None:
            self.kill_up()
        for pid in self.family():
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: not self.family(), END_SECONDS, what="everybody is gone")


def command_line(pid: int) -> str:
    """A process's words; empty for one that is gone or only waits to be."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


@contextmanager
def running(home: Path, **how: Any) -> Iterator[Shop]:
    """A shop that runs; nothing of it is left behind."""
    shop = Shop(home, **how)
    try:
        shop.start()
        yield shop
    finally:
        shop.clean_up()


class Client:
    """Places orders and keeps its journal; threads may share it."""

    def __init__(self, shop: Shop, journal: Path) -> None:
        self._shop, self.journal = shop, journal
        self._http = httpx.Client(
            headers={"Penstock-Client": "importer"}, timeout=10, trust_env=False
        )
        self._lock, self._placed = threading.Lock(), 0
        journal.touch()

    def close(self) -> None:
        """Hang up."""
        self._http.close()

    def _note(self, row: dict[str, Any]) -> None:
        with self._lock, open(self.journal, "a") as file:
            file.write(json.dumps(row) + "\n")

    def send(self, path: str, key: str, body: dict[str, Any], **notes: Any) -> Any:
        """Send until answered; 503 and no answer at all are none."""
        self._note({"key": key, "path": path, "body": body, **notes})
        reply = eventually(
            lambda: self.once(path, key, body), ANSWER_SECONDS, what=f"an answer to {key}"
        )
        self._note({"key": key, "status": reply.status_code, "reply": reply.json()})
        return reply.json()

    def once(self, path: str, key: str, body: dict[str, Any]) -> httpx.Response | None:
        """One try."""
        try:
            reply = self._http.post(
                f"{self._shop.url}{path}", json=body, headers={"Idempotency-Key": key}
            )
        except httpx.HTTPError:
            return None
        return None if reply.status_code == 503 else reply

    def get(self, path: str) -> httpx.Response:
        """Look at something."""
        return self._http.get(f"{self._shop.url}{path}")

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
        order: str = self.send("/orders", key, body, end=end)["order_id"]
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


def all_end_right(shop: Shop, client: Client, seconds: float = END_SECONDS) -> None:
    """Wait until nothing is wrong in the files of the home any more."""

    def none() -> bool:
        found = ends(shop.home, client.journal)
        assert not found, "\n".join(found[:20])
        return True

    eventually(none, seconds, what="every order ends right")
