"""The sandboxes as the tests run them: real processes on any free port, and a door to call."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from penstock.ports import Request


class Sandbox:
    """One sandbox process over the ledger in ``home``."""

    def __init__(self, kind: str, home: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "penstock.flows.orders.sandbox", kind]
        self.home = home
        self.process = subprocess.Popen(
            [*command, "--home", str(home), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        self.port: int = json.loads(line)["listening"]["port"]
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = httpx.Client(base_url=self.url, verify=False, trust_env=False, timeout=10)

    def kill(self) -> None:
        """End it as a power cut would end the process."""
        self.process.kill()
        self.process.communicate()
        self.http.close()

    def end(self) -> int:
        """Ask it to end; returns its exit code."""
        self.process.terminate()
        self.process.communicate(timeout=20)
        self.http.close()
        return self.process.returncode

    def post(self, path: str, key: str, **body: Any) -> httpx.Response:
        """One keyed call."""
        headers = {"Idempotency-Key": key}
        return self.http.post(path, json=body, headers=headers)

    def script(self, operation: str, fault: str, **where: Any) -> None:
        """Script a fault."""
        body = {"operation": operation, "fault": fault, **where}
        assert self.http.post("/_faults", json=body).status_code == 201

    def ledger(self, order: str = "") -> Any:
        """The rows of an order, or of all."""
        return self.http.get("/ledger", params={"order": order}).json()

    def effects(self, order: str = "") -> list[str]:
        """What happened for an order, by operation."""
        return [effect["operation"] for effect in self.ledger(order)["effects"]]


@contextmanager
def running(kind: str, home: Path, *arguments: str) -> Iterator[Sandbox]:
    """A sandbox that is ended, whatever the test did to it."""
    sandbox = Sandbox(kind, home, *arguments)
    try:
        yield sandbox
    finally:
        if sandbox.process.returncode is None:
            sandbox.kill()


class Listener(ThreadingHTTPServer):
    """Holds more waiting connections than the library's five."""

    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a sandbox that is killed in the middle of a webhook is what a test wanted."""


class Door:
    """What webhooks are sent to: remembers each one, answers as ``status`` says."""

    def __init__(self, status: Callable[[int], int]) -> None:
        self.received: list[dict[str, Any]] = []
        self.arrived = threading.Condition()
        door = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["content-length"]))
                with door.arrived:
                    door.received.append({"path": self.path, **json.loads(raw)})
                    answer = status(len(door.received))
                    door.arrived.notify_all()
                self.send_response(answer)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing: the tests look at what was received."""

        self.server = Listener(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def wait_for(self, count: int, seconds: float = 10) -> list[dict[str, Any]]:
        """The webhooks received, at least ``count`` of them."""
        with self.arrived:
            enough = self.arrived.wait_for(lambda: len(self.received) >= count, seconds)
        assert enough, f"{len(self.received)} of {count} webhooks"
        return list(self.received)


@contextmanager
def open_door(status: Callable[[int], int] = lambda _count: 202) -> Iterator[Door]:
    """A door that answers the nth webhook with ``status(n)``."""
    door = Door(status)
    thread = threading.Thread(target=door.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield door
    finally:
        door.server.shutdown()
        door.server.server_close()
        thread.join()


def request(name: str, key: str, timeout_seconds: float = 10.0, /, **body: Any) -> Request:
    """A gateway call as the courier makes it."""
    return Request(
        name=name,
        key=str(body.get("order", "")),
        idempotency_key=key,
        body=json.dumps(body).encode(),
        attempt=1,
        timeout_seconds=timeout_seconds,
    )
