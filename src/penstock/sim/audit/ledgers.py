"""What the gateways wrote down themselves (docs/reference/sandboxes.md, "The ledger")."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import apsw

from penstock.sim.audit.books import Call, Deed, Flaw, Ledger, Mail

Entry = TypeVar("Entry")

_DEEDS = (
    "SELECT seq, at, key, operation, order_id, part, id, reference, amount, currency FROM effects"
    " ORDER BY seq"
)
_CALLS = (
    "SELECT seq, at, key, operation, order_id, part, amount, outcome, request FROM calls"
    " ORDER BY seq"
)
_MAILS = "SELECT seq, at, key, order_id, kind, subject, text FROM mails ORDER BY seq"
_DEED_KINDS = (int, int, str, str, str, str, str, str, (int, type(None)), str)
_CALL_KINDS = (int, int, str, str, str, str, (int, type(None)), str, str)
_MAIL_KINDS = (int, int, str, str, str, str, str)


def read_ledger(connection: apsw.Connection, gateway: str, flaws: list[Flaw]) -> Ledger:
    """One ledger; what does not decode is left out and told."""
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}

    def read(table: str, sql: str, kinds: Any, make: Callable[[Any], Entry]) -> list[Entry]:
        if table not in names:
            return []
        found = []
        for row in connection.execute(sql):
            if all(isinstance(cell, kind) for cell, kind in zip(row, kinds, strict=True)):
                found.append(make(row))
            else:
                flaws.append(Flaw("I19", gateway, f"a row of {table} is not as documented",
                                  (f"{gateway} {table} {row[0]!r:.40}",)))  # fmt: skip
        return found

    try:
        return Ledger(
            gateway,
            read("effects", _DEEDS, _DEED_KINDS, Deed._make),
            read("calls", _CALLS, _CALL_KINDS, Call._make),
            read("mails", _MAILS, _MAIL_KINDS, Mail._make),
        )
    except (apsw.Error, ValueError) as error:
        flaws.append(Flaw("I19", gateway, f"the ledger cannot be read: {error}"))
        return Ledger(gateway)
