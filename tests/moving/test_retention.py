"""A home whose logs dropped what was old: every place is lower on the cluster, and the auditor, who
reads all of it by the documented formats, finds nothing missing, before and after the move."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from penstock.embedded.file import File
from penstock.errors import Conflict
from penstock.sim.audit.books import Books
from tests.audit import cluster_shop
from tests.audit.library_shop import (
    books,
    judged,
    keeping,
    leave,
    lend,
    live,
    parked,
    spoil,
    tidy_up,
)
from tests.flows.ground import NOW, HastyClock, Servers, real_now
from tests.flows.library.lending import LOAN_SECONDS
from tests.flows.rig import Rig
from tests.moving.library import Library

HOUR_MS = 3_600_000
LIFE_MS = 5001 + 3 * (LOAN_SECONDS * 1000 // 2) + 4 * HOUR_MS  # what ``aged`` lets go by


@pytest.fixture
def aged(tmp_path: Path, destination: Servers) -> Library:
    """Five weeks of a life with everything in it; of most topics the last hour is left. Its end is
    now, as a broker sees it."""
    library = Library(tmp_path, destination, keeping(3600.0), HastyClock(NOW - LIFE_MS))
    rig = library.at_home()
    live(rig)
    for turn in range(2):
        for n in range(8):
            lend(rig, f"r{turn}-{n}")
        rig.wait(2 * HOUR_MS)
        assert tidy_up(rig) > 20
    for n in range(4):
        lend(rig, f"young-{n}")
    spoil(rig, "fresh")
    lend(rig, "fresh", title="title 1")  # waits behind it
    leave(rig)
    assert abs(library.clock.now() - real_now()) < HOUR_MS // 4
    return library


def at_home(library: Library) -> Books:
    """What the auditor sees in the home."""
    return books(library.home, retention=ages(library), now=library.clock.now())


def there(library: Library) -> Books:
    """What it sees on the cluster."""
    return cluster_shop.books(
        library.servers, retention=ages(library), now=library.clock.now()
    )


def ages(library: Library) -> dict[str, float]:
    """How long each topic keeps records."""
    return {n: t.retention_seconds or 0.0 for n, t in library.catalog.topics.items()}


def states(rig: Rig) -> dict[str, str]:
    """Where each loan stands."""
    found = rig.states("lending")
    return {ref.key: loan.state for ref, loan in found.items() if ref.kind == "loan"}


def test_old_and_new_places_are_told_apart(aged: Library) -> None:
    before = at_home(aged)
    assert judged(before).violations == []
    assert sum(first > 0 for first in before.first.values()) > 5
    aged.migrate("copy", "fence", "switch")
    assert aged.differences() == []
    moved = there(aged)
    assert judged(moved).violations == []
    assert all(moved.first[at] >= first for at, first in before.first.items()), "gone is gone"
    assert {n: s.held for n, s in moved.stores.items()} == {
        n: s.held for n, s in before.stores.items()
    }

    rig = aged.on_cluster()
    older, young = parked(rig, "lending", "bad"), parked(rig, "lending", "fresh")
    assert older.offset < 0 <= young.offset, "one lies before all that came along"
    again = [r.message for r in rig.records("requests") if r.message.key.startswith("young")]
    assert len(again) == 4
    was = states(rig)
    assert was["bad"] == was["fresh"] == "stub"
    rig.log.append("requests", again, 0)
    rig.run()
    assert states(rig) == was, "duplicates are absorbed"
    for record in (older, young):
        rig.operate("deadletter.retry_requested", record, "lending")
    rig.run()
    assert was == states(rig), "they are parked again"
    assert parked(rig, "lending", "bad") == older
    for record in (older, young):
        rig.operate("deadletter.discard_requested", record, "lending")
    rig.operate("deadletter.retry_requested", parked(rig, "notices", "open"), "notices")
    rig.run()
    ended = [states(rig)[name] for name in ("bad", "fresh")]
    assert ended == ["refused", "lent"], "who waited goes on (of bad's title no copy is left)"
    lend(rig, "new")
    leave(rig)
    assert judged(there(aged)).violations == []


def test_a_lane_whose_records_are_lost_is_not_moved_past_them(library: Library) -> None:
    """In the home it stops. There nobody would know, and it would begin behind the gap."""
    library.busy().close()
    with closing(File(library.home / "lending.db")) as file, file.write():
        file.run("UPDATE owners SET positions = json_set(positions, '$.requests', 0)")
    assert library.forget_first_rows("requests")
    with pytest.raises(Conflict, match="lending stands at requests"):
        library.migrate("copy")
