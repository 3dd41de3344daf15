"""The library's flow on a disk that can fail, and the world outside it, which outlives its
processes: a client that repeats itself until it is answered, gateways, and time."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw

from penstock import assemble
from penstock.catalog.load import load_catalog
from penstock.embedded.file import File
from penstock.errors import StorageFull
from penstock.log.embedded import EmbeddedLog
from penstock.ports import Log
from penstock.sim.disk.tape import Fault, Recorder, Tape
from penstock.store.sqlite import SqliteStore
from tests.flows.library import CATALOG, FLOW
from tests.flows.library.door import Delivery, LoanWish, Scanned
from tests.flows.rig import HandClock, Rig, Scripted

DAY = 86_400_000
Visit = tuple[str, str, Any]
STORY: tuple[Visit | int, ...] = (
    ("buy", "b1", Delivery(title="emma", count=2)),
    ("lend", "l1", LoanWish(loan="l1", member="mia", title="emma")),
    ("scan", "s1", Scanned(loan="l1", barcode="7")),
    ("lend", "l2", LoanWish(loan="l2", member="max", title="emma")),
    ("scan", "s2", Scanned(loan="l2", barcode="8")),
    ("lend", "l3", LoanWish(loan="l3", member="ida", title="emma")),
    ("scan", "s3", Scanned(loan="l1", barcode="7", back=True)),
    20 * DAY,
    ("scan", "s4", Scanned(loan="l2", barcode="8", back=True)),
    DAY,
)
LIVES_MAX = 4


class DiskRig(Rig):
    """A rig whose files lie on a tape."""

    def __init__(
        self, home: Path, vfs: str, clock: HandClock, gateways: Mapping[str, Scripted]
    ) -> None:
        self._vfs = vfs
        self.workers, self.stores = {}, {}  # a start that fails has to be cleared away as well
        super().__init__(FLOW, load_catalog(CATALOG), home, gateways, clock)

    def new_log(self) -> Log:
        """A log over the tape."""
        assert self.home is not None
        return EmbeddedLog(
            self.home, assemble.specs(self.catalog), self._shared, vfs=self._vfs
        )

    def new_store(self, service: str) -> SqliteStore:
        """A store over the tape."""
        assert self.home is not None
        path = self.home / f"{service}.db"
        file = File(path, shared=service in self._shared, vfs=self._vfs)
        file.checkpoint_pages = 30
        return SqliteStore(file, service, direct=self.own_topics(service))


class Library:
    """The outside of the flow: a client that repeats itself until answered, gateways, time. It
    outlives every process inside."""

    def __init__(self, home: Path, fault: Fault | None = None) -> None:
        self.home, self.tape = home, Tape()
        home.mkdir()
        self.clock = HandClock()
        self.gateways = {name: Scripted(clock=self.clock) for name in ("deposits", "post")}
        self.recorder = Recorder(self.tape, fault)
        self.told = 0  # how far the story is
        self.refused = self.lives = 0
        self.met: dict[str, int] = {}  # operations by sort, the closing left out
        self.rig: DiskRig | None = None

    def live(self) -> dict[str, Any]:
        """Process after process, until the story is told; what everything came to."""
        while self.lives < LIVES_MAX:
            self.lives += 1
            try:
                self.rig = DiskRig.__new__(DiskRig)
                self.rig.__init__(  # type: ignore[misc]
                    self.home, self.recorder.name, self.clock, self.gateways
                )
                return self._tell(self.rig)
            except (apsw.Error, StorageFull) as error:
                if not self.recorder.struck:
                    raise
                self._bury(error)
        raise AssertionError("one process after the other dies")

    def _tell(self, rig: DiskRig) -> dict[str, Any]:
        self._rest(rig)
        while self.told < len(STORY):
            step = STORY[self.told]
            if isinstance(step, int):
                self.clock.pass_(step)
                self.told += 1
            elif not self._answered(rig, *step):
                continue
            self._rest(rig)
        found, self.met = self._end(rig), dict(self.recorder.met)
        self.close()
        return found

    def _rest(self, rig: DiskRig) -> None:
        """Until nothing moves, on a disk that was full a moment ago as well: the next visit finds
        all that came before it done, in every life."""
        for _ in range(4):
            rig.run()

    def _answered(self, rig: DiskRig, route: str, key: str, body: Any) -> bool:
        reply = rig.request(route, body, idempotency_key=key, digest=key)
        if reply.status == 503:
            self.refused += 1
            return False
        assert reply.status == 202, reply
        self.told += 1
        return True

    def _end(self, rig: DiskRig) -> dict[str, Any]:
        assert rig.gate is not None
        services = ("lending", "notices", "counter")
        return {
            "states": {s: rig.states(s) for s in services},
            "waiting": {s: rig.waiting(s) for s in services},
            "open": {s: [r.key for r in rig.rows(s, "asks")] for s in services},
            "deeds": {name: dict(g.deeds) for name, g in self.gateways.items()},
            "letters": {k: len(v) for k, v in rig.facts("letters").items()},
        }

    def _bury(self, error: Exception) -> None:
        """The process is dead; nothing of it reaches the files any more."""
        self.recorder.die()
        error.__traceback__ = None
        self.close()
        self.recorder = Recorder(self.tape)
        self.recorder.struck = 1

    def close(self) -> None:
        """End the process: whatever it has open is closed."""
        if self.rig is not None:
            self.rig.close()
            for file in [store.file for store in self.rig.stores.values()]:
                with suppress(apsw.Error):
                    file.close()
            with suppress(apsw.Error, AttributeError):
                self.rig.log.close()  # type: ignore[attr-defined]
            self.rig = None
