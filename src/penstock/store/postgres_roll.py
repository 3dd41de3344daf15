"""The roll of a service's couriers: who carries, and so which shards are one's own.

Nobody is asked. Each writes the database's time into its row and reads who else did so lately;
the shards are shared out as lanes are, in the order of their names. Two that see different rolls
for a moment claim the same shard, and its epoch decides.
"""

from __future__ import annotations

from contextlib import suppress

from psycopg.pq.abc import PGresult

from penstock.errors import Contended, Unreachable
from penstock.ports import SHARDS
from penstock.store.postgres import PostgresStore
from penstock.store.postgres_session import Statement
from penstock.store.postgres_values import short, text, text_of

ALIVE_SECONDS = 3
_ATTEND = Statement(f"""
WITH me AS (
  INSERT INTO couriers(scope, name, seen_at) SELECT $scope, $name, clock_timestamp()
  WHERE set_config('synchronous_commit', 'off', true) IS NOT NULL
  ON CONFLICT (scope, name) DO UPDATE SET seen_at = excluded.seen_at RETURNING name),
gone AS (
  DELETE FROM couriers WHERE scope = $scope AND name <> $name
    AND seen_at < clock_timestamp() - interval '{ALIVE_SECONDS * 20} s')
SELECT name FROM me
UNION SELECT name FROM couriers
WHERE scope = $scope AND seen_at > clock_timestamp() - interval '{ALIVE_SECONDS} s'""")
_LEAVE = Statement("DELETE FROM couriers WHERE scope = $scope AND name = $name")


class PostgresRoll:
    """The ``Roll`` port. ``name`` tells a courier from all others of its service."""

    def __init__(self, where: str, service: str, name: str, namespace: str = "live") -> None:
        self._store, self._name = PostgresStore(where, service, namespace), name

    def attend(self, now: int) -> frozenset[int]:
        """Say that this courier is there; the shards that are its own. By the database's clock:
        those of the machines may differ."""
        try:
            found = self._attend()
        except Contended:  # two that clear away the same dead one
            found = self._attend()
        alive = sorted(text_of(found.get_value(n, 0)) for n in range(found.ntuples))
        return frozenset(range(alive.index(self._name), SHARDS, len(alive)))

    def _attend(self) -> PGresult:
        session = self._store.session()
        return session.run(_ATTEND, scope=short(self._store.scope), name=text(self._name))

    def leave(self) -> None:
        """Go off the roll; others take the shards at their next look. Where the database does not
        answer, silence says the same a little later."""
        with suppress(Unreachable):
            session = self._store.session()
            session.run(_LEAVE, scope=short(self._store.scope), name=text(self._name))
        self._store.close()
