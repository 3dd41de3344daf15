"""Reading the rows of every service over one connection, for people and for keepers."""

from __future__ import annotations

import threading

from penstock.flow import Row, Scan
from penstock.store import migrate
from penstock.store import postgres_sql as sql
from penstock.store.postgres_scans import scan
from penstock.store.postgres_session import Session
from penstock.store.postgres_values import number_of, text

LIVE = "live"  # the namespace of real work


class PostgresReader:
    """Scans of any service; any thread may use it. Raises ``Unreachable``."""

    def __init__(self, where: str) -> None:
        self._session, self._lock = Session(where, "penstock reader"), threading.Lock()
        self._scopes: dict[str, int] = {}

    def scan(self, what: Scan) -> list[Row]:
        """A scan, bodies undecoded; nothing where the service has never run."""
        with self._lock:
            if not self._session.connected:
                self._connect()
            scope = self._scopes.get(what.service) or self._find(what.service)
            return scan(self._session, scope, what) if scope else []

    def _connect(self) -> None:
        self._session.connect()
        try:
            migrate.check(self._session)
        except BaseException:
            self._session.drop()
            raise

    def _find(self, service: str) -> int:
        found = self._session.run(sql.SCOPE, service=text(service), namespace=text(LIVE))
        if not found.ntuples:
            return 0
        scope = self._scopes[service] = number_of(found.get_value(0, 0))
        return scope

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            self._session.drop()
