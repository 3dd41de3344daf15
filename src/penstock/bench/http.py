"""Durable ``POST`` at the door: the real application on uvicorn, 64 connections, and the same
stack with the store in memory."""

from __future__ import annotations

import asyncio
import json
import multiprocessing as mp
import time
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from penstock import assemble
from penstock.engine.intake import Gate
from penstock.flow import Route
from penstock.web.serve import serve

CONNECTIONS = 64
START_SECONDS = 30


def _in_memory(house: assemble.House) -> Gate:
    """The door's gate over a store that is never written to a disk."""
    flow = house.flow
    store = assemble.make_memory_store(house, flow.door)
    return Gate(
        flow.door, flow.door_states, flow.door_labels, house.book, store, assemble.WallClock()
    )


def _server(folder: Path, durable: bool, said: Any) -> None:
    house = assemble.open_house(folder)
    assemble.prepare(house)
    site = assemble.make_site(house, "127.0.0.1", 0)
    if not durable:
        site = msgspec.structs.replace(site, gate=_in_memory(house), idle=lambda: None)
    serve(site, "127.0.0.1", 0, said.put)


class _Client(asyncio.Protocol):
    """One connection: a request, its whole reply, the next request."""

    def __init__(self, load: _Load) -> None:
        self._load, self._left = load, b""
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        """Send the first request."""
        self._transport = transport
        self._next()

    def _next(self) -> None:
        request = self._load.next()
        if request is None:
            self._transport.close()
        else:
            self._transport.write(request)

    def data_received(self, part: bytes) -> None:
        """A reply is whole when its body is as long as its header says."""
        self._left += part
        head, found, rest = self._left.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(rest) >= length:
            self._left = rest[length:]
            self._load.count(head)
            self._next()

    def connection_lost(self, error: Exception | None) -> None:
        """The last one out ends the load."""
        self._load.gone()


class _Load:
    """So many requests over so many connections."""

    def __init__(self, route: Route, total: int, host: str, name: str) -> None:
        self._name = name
        self._body = json.dumps(route.example).encode()
        self._path, self._host, self._total = route.path, host, total
        self._sent = self.accepted = 0
        self._open = CONNECTIONS
        self.done = asyncio.Event()

    def next(self) -> bytes | None:
        """The next request, None when all are sent."""
        if self._sent >= self._total:
            return None
        self._sent += 1
        return (
            f"POST {self._path} HTTP/1.1\r\nhost: {self._host}\r\n"
            f"content-type: application/json\r\nidempotency-key: {self._name}-{self._sent}\r\n"
            f"content-length: {len(self._body)}\r\n\r\n"
        ).encode() + self._body

    def count(self, head: bytes) -> None:
        """Count a 202."""
        self.accepted += head.startswith(b"HTTP/1.1 202")

    def gone(self) -> None:
        """A connection ended."""
        self._open -= 1
        if not self._open:
            self.done.set()


async def _drive(url: str, route: Route, total: int, name: str) -> float:
    host, port = url.removeprefix("http://").split(":")
    load = _Load(route, total, f"{host}:{port}", name)
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    for _ in range(CONNECTIONS):
        await loop.create_connection(lambda: _Client(load), host, int(port))
    await load.done.wait()
    assert load.accepted == total, f"{load.accepted} of {total} were accepted"
    return total / (time.perf_counter() - began)


def measure(folder: Path, durable: bool, total: int) -> float:
    """Requests a second of the door's first keyed intake."""
    context = mp.get_context("fork")
    said = context.Queue()
    server = context.Process(target=_server, args=(folder, durable, said))
    server.start()
    try:
        url = said.get(timeout=START_SECONDS)
        flow = assemble.open_house(folder).flow
        route = next(r for r in flow.routes if r.needs_idempotency_key and r.method == "POST")
        uvloop.run(_drive(url, route, total // 10, "warm"))
        return uvloop.run(_drive(url, route, total, "bench"))
    finally:
        server.terminate()
        server.join()
