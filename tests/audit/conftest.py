"""Homes to audit, made once for all tests of a process, which copy what they tamper with."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.assemble import CARRIED_VARIABLE
from penstock.sim.audit.books import Books
from tests.audit.library_shop import books, buy, keeping, leave, lend, live, open_library, tidy_up
from tests.flows.library.door import LoanWish

HOUR_MS = 3600 * 1000


@pytest.fixture(scope="session")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library's home at rest, every topic appended in its producer's commit."""
    home = tmp_path_factory.mktemp("lived")
    rig = open_library(home)
    live(rig)
    leave(rig)
    return home


@pytest.fixture(scope="session")
def carried(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same life where outbox and courier carry most topics, and a courier dies once after
    it appended and before it closed its rows."""
    home = tmp_path_factory.mktemp("carried")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CARRIED_VARIABLE, "loans letters notices.answers notices.dead requests")
        rig = open_library(home)
        live(rig)
        wish = LoanWish(loan="twice", member="mia", title="emma")
        rig.request("lend", wish, idempotency_key="twice", digest="twice")
        rows = rig.stores["counter"].due("requests", rig.clock.now(), (), 10, is_topic=True)
        rig.log.append("requests", [row.message for row in rows], rig.clock.now())
        rig.run()
        leave(rig)
    return home


@pytest.fixture(scope="session")
def aged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that forgets: retention and pruning went over it several times."""
    home = tmp_path_factory.mktemp("aged")
    rig = open_library(home, keeping(3600.0))
    dropped = 0
    for turn in range(3):
        buy(rig, "emma")
        for n in range(4):
            lend(rig, f"r{turn}-{n}")
        rig.wait(HOUR_MS // 2)
        dropped += tidy_up(rig)
        rig.wait(2 * HOUR_MS)
        dropped += tidy_up(rig)
    assert dropped > 50
    leave(rig)
    return home


@pytest.fixture(scope="session")
def clean(lived: Path) -> Books:
    """The books of the home at rest: values, so that every test may share them."""
    return books(lived)
