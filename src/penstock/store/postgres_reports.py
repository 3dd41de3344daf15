"""What the processes of a cluster say of themselves, where every one of them can read it."""

from __future__ import annotations

import threading
from typing import Any

import msgspec

from penstock.store.postgres_session import Session, Statement
from penstock.store.postgres_values import number_of, raw, text

_PUT = Statement("""
WITH gone AS (DELETE FROM reports WHERE seen_at < now() - interval '1 day')
INSERT INTO reports(name, seen_at, body) VALUES ($name, now(), $body)
ON CONFLICT (name) DO UPDATE SET seen_at = excluded.seen_at, body = excluded.body""")
_ALL = Statement(
    "SELECT body, (extract(epoch FROM now() - seen_at) * 1000)::bigint FROM reports"
    " WHERE seen_at > now() - interval '1 hour' ORDER BY name"
)


class PostgresReports:
    """Reports by the name of their process; any thread may use it. Raises ``Unreachable``."""

    def __init__(self, where: str) -> None:
        self._session, self._lock = Session(where, "penstock reports"), threading.Lock()

    def put(self, name: str, said: dict[str, Any]) -> None:
        """Replace what the process said last."""
        with self._lock:
            self._session.run(_PUT, name=text(name), body=raw(msgspec.json.encode(said)))

    def all(self) -> list[bytes]:
        """What each said last, but for those that have been silent for an hour; ``silent_ms``
        says for how long, by the database's clock: those of the machines may differ."""
        with self._lock:
            found = self._session.run(_ALL)
        return [_aged(found.get_value(n, 0), found.get_value(n, 1)) for n in range(found.ntuples)]

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            self._session.drop()


def _aged(body: bytes | None, age: bytes | None) -> bytes:
    said = msgspec.json.decode(body or b"{}")
    return msgspec.json.encode({**said, "silent_ms": number_of(age)})
