"""Gateways that answer in process, at once, and always agree: for the bench and for trials."""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.ports import Gateway, Ok, Outcome, Request

_STATES = {"authorise": "authorised", "capture": "captured", "void": "voided"}
_DECODE = msgspec.json.Decoder(dict[str, Any]).decode
_ENCODE = msgspec.json.Encoder().encode


class Payments:
    """A provider that always agrees."""

    def call(self, request: Request) -> Outcome:
        """The money asked for, in the state asked for."""
        asked = _DECODE(request.body)
        said = {
            "id": f"pay_{request.key}", "state": _STATES.get(request.name, "refunded"),
            "amount": asked.get("amount", 0), "currency": asked.get("currency", ""),
        }
        return Ok(_ENCODE(said))


class Carrier:
    """A carrier that prints every label."""

    def call(self, request: Request) -> Outcome:
        """A label by the shipment's name."""
        if request.name != "label":
            return Ok(b'{"state":"voided"}')
        shipment = _DECODE(request.body)["shipment"]
        said = {"label": f"l_{shipment}", "tracking": f"t_{shipment}", "carrier": "bench"}
        return Ok(_ENCODE(said))


class Mail:
    """A mail server that takes everything."""

    def call(self, request: Request) -> Outcome:
        """Taken."""
        return Ok(b"{}")


def gateways() -> dict[str, Gateway]:
    """Every gateway of the catalog, in process."""
    return {"payments": Payments(), "carrier": Carrier(), "mail": Mail()}
