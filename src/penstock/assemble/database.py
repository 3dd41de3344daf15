"""The database of a cluster by itself: its schema and its views, without a broker."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from msgspec import Struct

from penstock.assemble.house import with_platform
from penstock.catalog.load import BadCatalog, load_catalog
from penstock.dotted import resolve
from penstock.errors import Usage
from penstock.flow import Flow
from penstock.store import migrate


class Database(Struct, frozen=True, kw_only=True):
    """Where it is (a connection string: it may hold a password, so it is never printed), and the
    flow whose documents it holds."""

    where: str
    flow: Flow

    def migrate(self) -> list[str]:
        """Bring schema and views up to date; the migrations that were applied."""
        return migrate.apply(self.where, self.flow)

    def status(self) -> list[dict[str, Any]]:
        """Every migration and where it stands."""
        return [
            {"migration": step.title, "state": step.state, "applied_at": step.applied_at}
            for step in migrate.status(self.where)
        ]

    def views(self) -> list[dict[str, Any]]:
        """Make the views of the flow's documents; their names with their columns."""
        return migrate.views(self.where, self.flow)


def open_database(given: str | None, catalog_path: Path | None) -> Database:
    """The database that was named, else the catalog's. Raises ``Usage`` where there is none."""
    try:
        catalog = load_catalog(catalog_path)
    except BadCatalog as bad:
        raise Usage(bad.code, bad.message, bad.fix) from None
    where = given or (catalog.postgres.dsn if catalog.postgres else "")
    if not where:
        raise Usage(
            "no_database", "No database is named.",
            "Give --postgres, set PENSTOCK_POSTGRES, or write the table [postgres] into the "
            "catalog.",
        )
    flow = with_platform(cast(Flow, resolve(catalog.flow)), catalog)
    return Database(where=where, flow=flow)
