"""A lending library in a home folder, in the middle of everything, and its way to servers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from penstock import assemble
from penstock.catalog.load import load_catalog
from penstock.catalog.model import Catalog
from penstock.contracts.wire import Book
from penstock.embedded.file import File
from penstock.embedded.schema import log_table
from penstock.errors import Conflict
from penstock.event import Message, Record, partition_of
from penstock.limits import OFFSET_BITS, OFFSET_MAX
from penstock.moving import steps
from penstock.moving.verify import verify
from penstock.moving.way import Moving
from tests.flows.ground import HandClock, Servers
from tests.flows.library import CATALOG, FLOW, SNAPSHOTS
from tests.flows.library.door import Delivery, LoanWish, Scanned
from tests.flows.rig import Rig, Scripted

COMMAND_SECONDS = 60.0
ABSENT = ["unavailable"] * 3
LOANS = ("l1", "l2", "l3", "l4")
# In the partition of l1, so that it keeps its record when the first one is dropped there.
HELD = next(f"l{n}" for n in range(5, 99) if partition_of(f"l{n}", 4) == partition_of("l1", 4))
STEPS: dict[str, Callable[..., Any]] = {
    "copy": steps.copy, "fence": steps.fence, "switch": steps.switch,
}  # fmt: skip


class Library:
    """The gateways and the clock are the same before and after."""

    def __init__(
        self, folder: Path, servers: Servers, catalog: Catalog | None = None,
        clock: HandClock | None = None,
    ) -> None:  # fmt: skip
        self.folder, self.servers, self.home = folder, servers, folder / "home"
        self.clock, self.catalog = clock or HandClock(), catalog or load_catalog(CATALOG)
        self.deposits = Scripted({"l3": ABSENT, HELD: ABSENT}, self.clock)
        self.gateways = {"deposits": self.deposits, "post": Scripted(clock=self.clock)}

    def house(self, *, on_cluster: bool = True) -> assemble.House:
        """The house, at home or on its way."""
        return assemble.House(
            home=self.home, catalog=self.catalog, flow=FLOW, book=Book(FLOW.contracts),
            cluster=self.servers.cluster if on_cluster else None,
        )

    def at_home(self) -> Rig:
        """Everybody at work in the home."""
        assemble.prepare(self.house(on_cluster=False))
        return Rig(FLOW, self.catalog, self.home, self.gateways, self.clock)

    def on_cluster(self) -> Rig:
        """Everybody at work on the servers."""
        return Rig(FLOW, self.catalog, self.servers, self.gateways, self.clock)

    def refused_there(self) -> None:
        """Who starts on the servers is told that they are not ready, and so is who started before
        and claims its lanes."""
        for make in (False, True):
            with pytest.raises(Conflict, match="being moved to this cluster"):
                assemble.prepare(self.house(), make=make)
        rig = self.on_cluster()
        with pytest.raises(Conflict, match="being moved"):
            rig.run()
        rig.close()  # it is a member of groups: the next ones are to have all lanes
        self.servers.rigs.remove(rig)

    def busy(self) -> Rig:
        """Lent with a timer running (l1), returned (l2), a deposit that is not answered (l3), a
        letter aside for want of an address (l4), a parked record with others behind it (HELD)."""
        rig = self.at_home()
        rig.request("buy", Delivery(title="emma", count=9), idempotency_key="b")
        rig.run()
        for name in LOANS:
            ask(rig, name, member="nowhere man" if name == "l4" else "mia")
            scan(rig, name)
            rig.run()
        scan(rig, "l2", back=True)
        rig.run()
        rig.log.append("requests", [broken(rig, HELD)], self.clock.now())
        rig.run()
        ask(rig, HELD)
        scan(rig, HELD)
        return rig.run()

    @contextmanager
    def moving(self) -> Iterator[Moving]:
        """The house on its way."""
        with closing(Moving(self.house())) as found:
            yield found

    def migrate(self, *names: str) -> None:
        """Go these steps."""
        for name in names:
            with self.moving() as moving:
                STEPS[name](moving, said.append)

    def differences(self) -> list[dict[str, Any]]:
        """What ``verify`` finds unequal."""
        with self.moving() as moving:
            rows = verify(moving)
            assert len(rows) > len(moving.topics)
            return [row for row in rows if not row["equal"]]

    def return_(self) -> None:
        """Back home."""
        with self.moving() as moving:
            steps.return_(moving)

    def forget_first_rows(self, *topics: str) -> int:
        """As retention would, once all have read them: the first row of every partition with
        more than one; how many records."""
        dropped = 0
        for topic in topics:
            owner = assemble.owner_file(self.catalog, topic)
            table = log_table(topic)
            with closing(File(self.home / f"{owner}.db")) as file, file.write():
                for partition in range(self.catalog.topics[topic].partitions):
                    low = partition << OFFSET_BITS
                    rows = file.run(
                        f"SELECT at, count FROM {table} WHERE at BETWEEN ? AND ? ORDER BY at"
                        " LIMIT 2", (low, low + OFFSET_MAX),
                    )  # fmt: skip
                    if len(rows) == 2:
                        file.run(f"DELETE FROM {table} WHERE at = ?", (rows[0][0],))
                        dropped += rows[0][1]
        return dropped

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command of penstock over the library with its servers."""
        return subprocess.run(
            [sys.executable, "-m", "penstock", *self.words(*words)],
            capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False,
        )  # fmt: skip

    def words(self, *given: str) -> list[str]:
        """What a command is given to find the library."""
        return ["--home", str(self.home), "--catalog", str(self.catalog_file()), *given]

    def catalog_file(self) -> Path:
        """The catalog with the servers in it, for commands."""
        path = self.folder / "catalog.toml"
        if not path.exists():
            (self.folder / "contracts").symlink_to(SNAPSHOTS)
            path.write_text(
                f'{CATALOG.read_text()}\n[kafka]\nservers = "{self.servers.kafka}"\n'
                f'prefix = "{self.servers.prefix}"\n\n[postgres]\n'
                f"dsn = {json.dumps(self.servers.dsn)}\n"
            )
        return path


said: list[str] = []


def ask(rig: Rig, name: str, member: str = "mia") -> Any:
    """Somebody wants to borrow."""
    wish = LoanWish(loan=name, member=member, title="emma")
    return rig.request("lend", wish, idempotency_key=name, digest=name)


def scan(rig: Rig, name: str, *, back: bool = False) -> None:
    """A copy goes over the counter."""
    scanned = Scanned(loan=name, barcode=f"copy-{name}", back=back)
    rig.request("scan", scanned, idempotency_key=f"s-{name}-{back}")


def broken(rig: Rig, key: str) -> Message:
    """A record that nobody can open."""
    return Message(key, b"{", b"\7" * 16, "loan.requested", 1, rig.clock.now())


def parked(rig: Rig, service: str) -> list[tuple[str, Record]]:
    """State and record of what is parked."""
    rows = [row.body for row in rig.rows(service, "waiting")]
    return [(w.state, w.record) for w in rows if w.state != "waiting"]
