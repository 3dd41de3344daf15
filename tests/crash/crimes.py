"""Gateways that break a promise, for catalogs of tests: the harness must see it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from penstock.flows.orders.gateways import payments
from penstock.ports import Gateway, Outcome, Request

MEMORY = "PENSTOCK_TESTS_MEMORY"  # a folder where the criminal notes what it asked before


class NewKeys:
    """Asks again under another key: whoever honours keys does it twice."""

    def __init__(self, honest: Gateway) -> None:
        self._honest, self._memory = honest, Path(os.environ[MEMORY])

    def call(self, request: Request) -> Outcome:
        """The first time as it should be."""
        note = self._memory / blake2b(request.idempotency_key.encode()).hexdigest()[:16]
        key = request.idempotency_key
        if note.exists():
            key = f"{key}:again"
        note.touch()
        return self._honest.call(replace(request, idempotency_key=key))


def new_keys(settings: Mapping[str, Any]) -> NewKeys:
    """The factory for a catalog."""
    return NewKeys(payments.gateway(settings))
