"""The whole product as a user starts it, driven over HTTP, sandboxes in their own processes."""

from __future__ import annotations

import importlib
import itertools
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import msgspec

from penstock.catalog.load import load_catalog
from penstock.dotted import resolve
from penstock.flow import Flow

CLIENTS = 8
SECONDS_MAX = 300.0


def measure(home: Path, orders: int) -> float:
    """Orders a second, from the first request to the last end."""
    argv = (sys.executable, "-m", "penstock", "--home", str(home), "up", "--port", "0")
    process = subprocess.Popen(argv, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=_url(home, process), timeout=60, trust_env=False) as http:
            return _drive(http, orders)
    finally:
        process.terminate()
        process.wait()


def _url(home: Path, process: subprocess.Popen[bytes]) -> str:
    until = time.monotonic() + SECONDS_MAX
    while time.monotonic() < until and process.poll() is None:
        try:
            return str(json.loads((home / "run" / "up.json").read_text())["url"])
        except (OSError, ValueError):
            time.sleep(0.05)
    raise AssertionError("up did not start")


def _drive(http: httpx.Client, orders: int) -> float:
    flow = resolve(load_catalog(None).flow)
    assert isinstance(flow, Flow)
    load: Any = importlib.import_module(flow.load)
    path = {route.name: route.path for route in flow.routes}
    for body in load.stock():
        http.post(path[load.STOCK_ROUTE], content=msgspec.json.encode(body), headers=_JSON)
    bodies = [msgspec.json.encode(load.order(i)) for i in range(orders)]
    began = time.perf_counter()

    def place(numbered: tuple[int, bytes]) -> None:
        key = {"idempotency-key": f"bench-{numbered[0]}"}
        http.post(
            path[load.ORDER_ROUTE], content=numbered[1], headers=_JSON | key
        ).raise_for_status()

    with ThreadPoolExecutor(CLIENTS) as pool:
        for _ in pool.map(place, enumerate(bodies)):
            pass
    _await_ends(http, path[load.LIST_ROUTE], load.LIST_FIELD, orders, began)
    return orders / (time.perf_counter() - began)


def _await_ends(http: httpx.Client, path: str, field: str, orders: int, began: float) -> None:
    while time.perf_counter() - began < SECONDS_MAX:
        rows: list[Any] = []
        after = ""
        for _ in itertools.count():
            query = {"limit": "1000"} | ({"after": after} if after else {})
            page = http.get(path, params=query).raise_for_status().json()
            rows += page[field]
            after = page.get("next") or ""
            if not after:
                break
        if sum(row["final"] for row in rows) >= orders:
            return
        time.sleep(0.1)
    raise AssertionError("not all came to their end in time")


_JSON = {"content-type": "application/json"}
