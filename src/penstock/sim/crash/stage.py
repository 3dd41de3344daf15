"""The place of many cycles: a fresh home, a catalog of its own, its processes and its client."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from penstock.assemble import CARRIED_VARIABLE, cluster_of, contracts_folder
from penstock.assemble.cluster import KAFKA_VARIABLE, POSTGRES_VARIABLE
from penstock.catalog.load import Examined, examine, load_catalog
from penstock.catalog.model import Catalog
from penstock.engine.crew import RESTART_VARIABLE, TRANSACTION_VARIABLE
from penstock.engine.cuts import CUT_VARIABLE
from penstock.errors import Problem, Usage
from penstock.flow import Flow
from penstock.sim.audit.cluster import Where
from penstock.sim.crash.client import Client
from penstock.sim.crash.faults import TRANSACTION_SECONDS
from penstock.sim.crash.journal import Journal
from penstock.sim.crash.plan import HomePlan
from penstock.sim.crash.servers import Servers, Share, where_of
from penstock.sim.crash.subject import Ended, Subject
from penstock.sim.crash.waiting import Late, eventually
from penstock.sim.crash.workload import Workload

RESTART_SECONDS = 0.2  # a member that dies again and again is not made to wait ever longer
SUPPLY_SECONDS = 30.0
HOME, JOURNAL, ARMS, CATALOG = "home", "journal.jsonl", "arms", "catalog.toml"


class Declared(Struct, frozen=True, kw_only=True):
    """The flow that is harmed, as its catalog declares it."""

    flow: Flow
    catalog: Catalog
    path: Path | None
    workload: Workload


class Stage(Struct, frozen=True, kw_only=True):
    """One home with everything that plays in it; all of its files lie in ``folder``."""

    folder: Path
    subject: Subject
    client: Client
    servers: Servers | None = None

    @property
    def catalog(self) -> Path:
        """The catalog of its own."""
        return self.folder / CATALOG

    @property
    def where(self) -> Where | None:
        """Where the auditor looks, if not in the home."""
        return where_of(self.catalog) if self.servers is not None else None

    @property
    def home(self) -> Path:
        """The home folder."""
        return self.subject.home

    @property
    def journal(self) -> Path:
        """What the client was told."""
        return self.folder / JOURNAL

    @property
    def arms(self) -> Path:
        """Where members are ordered to fall."""
        return self.folder / ARMS


@contextlib.contextmanager
def staged(
    declared: Declared, plan: HomePlan, folder: Path, servers: Servers | None = None
) -> Iterator[Stage]:
    """A running home with its supplies in it, or one on a cluster. No process is left behind,
    whatever happens. Raises ``Problem`` where it cannot begin."""
    (folder / ARMS).mkdir(parents=True)
    env = {
        CUT_VARIABLE: f"@{folder / ARMS}",
        CARRIED_VARIABLE: " ".join(plan.carried),
        RESTART_VARIABLE: str(RESTART_SECONDS),
        TRANSACTION_VARIABLE: str(TRANSACTION_SECONDS),
        # The catalog alone says where: a cluster that somebody works on is not harmed by mistake.
        KAFKA_VARIABLE: "", POSTGRES_VARIABLE: "",
    }
    share = servers.share() if servers is not None else None
    catalog = own_catalog(declared, plan.doubled, folder, share)
    subject = Subject(folder / HOME, env=env, catalog=catalog)
    journal = Journal(folder / JOURNAL)
    client = Client(subject, journal, declared.flow.routes, declared.workload.ID_FIELD)
    try:
        _begin(declared.workload, subject, client)
        yield Stage(folder=folder, subject=subject, client=client, servers=servers)
    finally:
        subject.clean_up()
        client.close()
        journal.close()


def _begin(workload: Workload, subject: Subject, client: Client) -> None:
    """Start, and bring the supplies. Raises ``Problem``: nothing was harmed yet."""
    try:
        subject.start()
        for visit in workload.supplies():
            client.visit(visit)
        eventually(lambda: workload.supplied(client.look), SUPPLY_SECONDS, "the supplies are there")
    except (Ended, Late) as why:
        raise Problem(
            "crash_not_begun", f"Nothing could be harmed: {why}.",
            "See that `penstock up` runs with this catalog; --keep keeps the home and its logs.",
        ) from None  # fmt: skip


def lanes_on_cluster(catalog: Path) -> Callable[[int], list[int]]:
    """What tells the lanes of a process, by its last report in the database."""
    cluster = cluster_of(load_catalog(catalog))
    assert cluster is not None, "the catalog names one"
    reports = cluster.reports()

    def lanes(pid: int) -> list[int]:
        said = (msgspec.json.decode(body) for body in reports.all())
        return next((one["lanes"] for one in said if one["pid"] == pid and "lanes" in one), [])

    return lanes


def own_catalog(
    declared: Declared, doubled: str, folder: Path, share: Share | None = None
) -> Path:
    """A copy of the catalog in which a service has two workers, and all lies on a share of a
    cluster where there is one. Raises ``Usage``."""
    found = examine(declared.path)
    copy = folder / CATALOG
    copy.touch(0o600)  # a connection string may hold a password
    text = _with_two(found, doubled)
    copy.write_text(share.catalog(text) if share is not None else text)
    contracts = contracts_folder(declared.catalog, declared.path)
    if contracts.is_dir():
        (folder / declared.catalog.contracts).symlink_to(contracts.resolve())
    if load_catalog(copy).services[doubled].workers < 2:
        raise Usage(
            "crash_catalog", f"{found.file} does not let {doubled} have a second worker.",
            f"Declare it as a table of its own: [services.{doubled}]",
        )
    return copy


def _with_two(found: Examined, service: str) -> str:
    lines = Path(found.file).read_text().splitlines(keepends=True)
    if found.catalog.services[service].workers < 2:
        lines.insert(found.lines["services", service], "workers = 2\n")
    return "".join(lines)
