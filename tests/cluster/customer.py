"""A customer on a machine of its own: ``python -m tests.cluster.customer COUNT DOOR...``.

Loads stock, places orders at one door after the other, tells a line for each that was accepted,
and last how all of them ended. A door that does not answer is left for the next one.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from typing import Any

import httpx

ENDS = {"completed", "cancelled", "rejected"}
PATIENCE_SECONDS = 90.0
_PAUSE = threading.Event()  # never set: a customer who waits a little


class Customer:
    """Asks until somebody answers, always under the same key."""

    def __init__(self, doors: list[str]) -> None:
        self._doors = doors
        self._http = httpx.Client(
            headers={"Penstock-Client": "importer"}, timeout=3.0, trust_env=False
        )

    def ask(self, method: str, path: str, key: str = "", body: Any = None) -> Any:
        """The answer of the first door that has one."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        headers = {"idempotency-key": key} if key else {}
        while time.monotonic() < deadline:
            try:
                url = self._doors[0] + path
                reply = self._http.request(method, url, json=body, headers=headers)
                if reply.is_success:
                    return reply.json()
                if reply.status_code not in (409, 503):
                    raise SystemExit(f"{path}: {reply.status_code} {reply.text}")
            except httpx.TransportError:
                pass
            self._doors.append(self._doors.pop(0))
            _PAUSE.wait(0.05)
        raise SystemExit(f"{path}: nobody answered in time")


def main(count: int, doors: list[str]) -> None:
    """Place, and wait for the ends."""
    customer = Customer(doors)
    stock = {"file": "f", "entries": [{"sku": "TEAPOT", "quantity": 10 * count}]}
    customer.ask("POST", "/stock", "stock", stock)
    while not customer.ask("GET", "/stock?sku=TEAPOT")["stock"]:
        _PAUSE.wait(0.05)
    orders = []
    for n in range(count):
        body = {
            "order_ref": f"o{n}", "customer": {"id": "c", "email": f"c{n}@example.com"},
            "address": {"country": "France"}, "currency": "EUR",
            "payment_method": "tok_decline" if n % 7 == 3 else "tok_ok",
            "lines": [{"sku": "TEAPOT", "quantity": 1, "unit_minor": 1000 + n}],
        }  # fmt: skip
        orders.append(customer.ask("POST", "/orders", f"order-{n}", body)["order_id"])
        print(json.dumps({"placed": orders[-1]}), flush=True)
    states: list[str] = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        states = [customer.ask("GET", f"/orders/{id_}")["state"] for id_ in orders]
        if set(states) <= ENDS:
            break
        _PAUSE.wait(0.2)
    print(json.dumps({"ended": Counter(states)}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
