"""A house: a home folder with everything declared of it, and what a start needs there."""

from __future__ import annotations

import fcntl
import importlib.resources
import json
import os
import time
from pathlib import Path
from typing import cast

import apsw
from msgspec import Struct

from penstock.assemble.cluster import Cluster, cluster_of
from penstock.catalog.load import BadCatalog, load_catalog
from penstock.catalog.model import JOURNAL, Catalog
from penstock.contracts.own import OWN
from penstock.contracts.snapshot import OWN_FOLDER, verify
from penstock.contracts.wire import Book
from penstock.dotted import resolve
from penstock.embedded.file import wal_safe
from penstock.engine.runner import sync_folder
from penstock.errors import Conflict, Problem, Usage
from penstock.flow import Flow
from penstock.ports import TopicSpec

HOME_FORMAT = 1
CARRIED_VARIABLE = "PENSTOCK_CARRIED"  # topics that go by outbox and courier all the same


class WallClock:
    """The real time (the ``Clock`` port)."""

    def now(self) -> int:
        """Milliseconds since the epoch."""
        return time.time_ns() // 1_000_000


class House(Struct, frozen=True, kw_only=True):
    """A home folder with everything declared of it."""

    home: Path
    catalog: Catalog
    flow: Flow
    book: Book
    catalog_path: Path | None = None
    cluster: Cluster | None = None  # None: everything lies in the home folder
    vfs: str = ""  # the layer between SQLite and the disk (sim.disk); empty: the system's own

    @property
    def run(self) -> Path:
        """Where processes leave what others must know; worth nothing after a stop."""
        return self.home / "run"


def contracts_folder(catalog: Catalog, catalog_path: Path | None) -> Path:
    """The folder of schema snapshots: beside the catalog, or shipped with the flow."""
    beside = (catalog_path.parent if catalog_path else Path.cwd()) / catalog.contracts
    if catalog_path and beside.is_dir():
        return beside
    shipped = Path(str(importlib.resources.files(catalog.flow.partition(":")[0])))
    if (shipped / "contracts").is_dir():
        return shipped / "contracts"
    # A checkout: the package's contracts lie in the repository's folder of that name.
    return Path(__file__).resolve().parents[3] / catalog.contracts


def refuse_unsafe(version: str) -> None:
    """Refuse a SQLite that can lose acknowledged records. Raises ``Problem``."""
    if not wal_safe(version):
        raise Problem(
            "sqlite_unsafe", f"SQLite {version} can lose data in WAL mode (the WAL-reset race).",
            "Install apsw 3.51.3 or newer: pip install -U apsw",
        )


def open_house(home: Path, catalog_path: Path | None = None) -> House:
    """Load and check everything a start relies on. Raises ``Problem``."""
    refuse_unsafe(apsw.sqlite_lib_version())
    catalog = _declared(catalog_path)
    flow = cast(Flow, resolve(catalog.flow))
    verify(OWN, OWN_FOLDER)
    verify(flow.contracts, contracts_folder(catalog, catalog_path))
    book = Book(flow.contracts)
    cluster = cluster_of(catalog, contracts_folder(catalog, catalog_path))
    if cluster is None:
        _refuse_moved(home)
    return House(
        home=home, catalog=catalog, flow=flow, book=book, catalog_path=catalog_path,
        cluster=cluster,
    )


def _refuse_moved(home: Path) -> None:
    """A home that moved to a cluster works no more. Raises ``Conflict``."""
    try:
        moved = json.loads((home / "home.json").read_text()).get("moved")
    except (OSError, ValueError):
        return
    if moved:
        raise Conflict(
            "moved", f"{home} moved to Kafka at {moved['kafka']}.",
            "Name --kafka and --postgres; or, before anything was done there: "
            "penstock migrate return",
        )


def _declared(catalog_path: Path | None) -> Catalog:
    """The catalog; a broken one is wrong input to whoever wants to start with it."""
    try:
        return load_catalog(catalog_path)
    except BadCatalog as bad:
        raise Usage(bad.code, bad.message, bad.fix) from None


def make_home(house: House) -> None:
    """The folders of a home, private, and their names on the disk: a power cut shall not take
    them with everything that is promised in them."""
    home = house.home.absolute()
    new = [folder for folder in (home, *home.parents) if not folder.exists()]
    # One by one: mkdir makes missing parents with the umask's mode, readable by others.
    for folder in (home, house.run):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in new:
        sync_folder(folder.parent)


class HomeLock:
    """One ``up`` at a time per home; the lock dies with its process."""

    def __init__(self, house: House) -> None:
        make_home(house)
        self._fd = os.open(house.run / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise Conflict(
                "home_in_use", f"{house.home} is in use by another penstock ({who(house)}).",
                "Stop it (Ctrl-C where it runs), or choose another folder with --home.",
            ) from None

    def release(self) -> None:
        """Let others have the home."""
        os.close(self._fd)


def who(house: House) -> str:
    """Who runs in this home, as far as it left word."""
    try:
        said = json.loads((house.run / "up.json").read_text())
        return f"pid {said['pid']}, {said['url']}"
    except (OSError, ValueError, KeyError):
        return "just starting"


def owner_file(catalog: Catalog, topic: str) -> str:
    """The file a topic lies in: its producer's, or its own where several produce."""
    return JOURNAL if topic == JOURNAL else catalog.topics[topic].producer


def specs(catalog: Catalog) -> list[TopicSpec]:
    """Every topic as the log needs to know it."""
    return [
        TopicSpec(
            name=t.name, partitions=t.partitions, owner_file=owner_file(catalog, t.name),
            retention_seconds=t.retention_seconds, retention_bytes=t.retention_bytes,
            wire=t.wire, accepts=t.accepted, replication=t.replication,
        )
        for t in catalog.topics.values()
    ]


def shared_files(catalog: Catalog) -> frozenset[str]:
    """Files that several processes write: the journal, those of services with several workers,
    and the door's, for a second `penstock web` may serve the same home."""
    several = {s.name for s in catalog.services.values() if s.workers > 1 or not s.handler}
    return frozenset({JOURNAL} | several)


def own_topics(catalog: Catalog, service: str) -> list[str]:
    """Topics the service alone produces: appended in its own commit."""
    carried = os.environ.get(CARRIED_VARIABLE, "").split()
    own = [t.name for t in catalog.topics.values() if owner_file(catalog, t.name) == service]
    return [name for name in own if name not in carried]
