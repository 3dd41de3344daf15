"""The client of the carrier: label and void_label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.flows.orders.gateways.http import Caller, address_of
from penstock.ports import Gateway, Outcome, Refused, Request

PATHS = {
    "label": "/labels",
    "void_label": "/labels/void",
}


class Carrier:
    """One carrier; used from several threads at once."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def call(self, request: Request) -> Outcome:
        """Carry out one operation on a label; the same key gets the first outcome again."""
        path = PATHS.get(request.name)
        if path is None:
            return Refused(f"carrier has no operation {request.name}")
        return self._caller.post(path, request)

    def close(self) -> None:
        """Close the idle connections."""
        self._caller.close()


def gateway(settings: Mapping[str, Any]) -> Gateway:
    """The carrier at ``url``. Raises ``Problem`` for a wrong setting."""
    return Carrier(Caller(address_of(settings)))
