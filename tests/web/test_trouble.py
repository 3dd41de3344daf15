"""A full disk, too much at once, a committer that dies, an instance that drains."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from penstock.engine import intake
from penstock.engine.intake import Wanted
from penstock.errors import StorageFull
from penstock.flow import Call, Intake, Reply
from penstock.web.threads import Committer
from tests.support import eventually
from tests.web.live import in_a_loop, live
from tests.web.small import Library, shelve

BOOK = {"title": "Faust"}
KEY = {"Idempotency-Key": "k"}
INTAKE = Intake(needs=lambda call: (), decide=shelve)


class FullStore:
    """A store whose disk can be filled and freed."""

    def __init__(self, store: Any) -> None:
        self._store, self.full = store, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    @contextmanager
    def begin(self, spans: Any = None) -> Iterator[Any]:
        """A transaction, while there is space."""
        if self.full:
            raise StorageFull("no space left")
        with self._store.begin() as tx:
            yield tx


def test_a_full_disk_stops_writing_only_and_needs_no_restart(library: Library) -> None:
    store = FullStore(library.store)
    library.gate._store = store
    with live(library.site) as door:
        assert door.post("/books", json=BOOK, headers=KEY).status_code == 202
        store.full = True
        reply = door.post("/books", json=BOOK, headers={"Idempotency-Key": "l"})
        assert (reply.status_code, reply.json()["code"]) == (503, "storage_full")
        assert reply.headers["retry-after"] == "2"
        assert len(door.get("/books").json()["books"]) == 1
        assert "penstock_storage_full 1.0" in door.get("/metrics").text
        assert "The disk is full" in door.get("/").text
        store.full = False
        again = door.post("/books", json=BOOK, headers={"Idempotency-Key": "l"})
        assert again.status_code == 202


class SilentLog:
    """A log whose broker does not answer until the test says so."""

    def __init__(self, log: Any) -> None:
        self._log, self.asked, self.over = log, threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def extent(self, topic: str, since: int | None = None) -> Any:
        """Waits, as for a broker that is away."""
        self.asked.set()
        self.over.wait(30)
        return self._log.extent(topic, since)


def test_a_door_stays_ready_while_a_page_waits_for_the_broker(library: Library) -> None:
    """It needs none to accept: who asks for the metrics must not make the balancer close it."""
    log = SilentLog(library.site.log)
    with live(replace(library.site, log=log)) as door:
        assert door.get("/health/ready").status_code == 200
        page = threading.Thread(target=lambda: door.get("/metrics", timeout=30))
        page.start()
        log.asked.wait(10)
        began = time.monotonic()
        replies = [door.get("/health/ready", timeout=30).status_code for _ in range(2)]
        assert (replies, time.monotonic() - began < 5) == ([200, 200], True)
        log.over.set()
        page.join()
        assert door.get("/health/ready").status_code == 200


def test_too_many_waiting_requests_are_refused(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "INTAKE_QUEUE_MAX", 0)
    with live(library.site) as door:
        reply = door.post("/books", json=BOOK, headers=KEY)
    assert (reply.status_code, reply.json()["code"]) == (503, "overloaded")
    assert reply.headers["retry-after"] == "1"


def test_what_was_begun_is_finished_when_it_stops(library: Library) -> None:
    held, replies = threading.Event(), list[httpx.Response]()
    entered = threading.Event()
    commit = library.gate.commit

    def slow(group: Sequence[Wanted]) -> Any:
        entered.set()
        held.wait(20)
        return commit(group)

    library.gate.commit = slow  # type: ignore[method-assign]
    with live(library.site) as door:
        url = str(door.base_url)
        client = threading.Thread(
            target=lambda: replies.append(httpx.post(f"{url}/books", json=BOOK, headers=KEY))
        )
        client.start()
        assert entered.wait(20)
        threading.Timer(0.1, held.set).start()
    client.join(20)
    assert replies[0].status_code == 202
    late = library.gate.submit(Wanted(INTAKE, Call(client="x", now=0), lambda reply: None))
    assert late is not None
    assert late.status == 503


def test_a_committer_that_dies_leaves_nobody_waiting(
    library: Library, capfd: pytest.CaptureFixture[str]
) -> None:
    died = list[bool]()

    def broken(group: Sequence[Wanted]) -> Any:
        raise OSError("fsync failed")

    library.gate.commit = broken  # type: ignore[method-assign]

    async def scene() -> tuple[Reply, Reply]:
        committer = Committer(library.gate, lambda: None, lambda: died.append(True))
        committer.start(asyncio.get_running_loop())
        first = await committer.submit(INTAKE, Call(client="x", now=0))
        second = await committer.submit(INTAKE, Call(client="x", now=0))
        eventually(lambda: not committer.alive)
        return first, second

    first, second = in_a_loop(scene)
    assert (first.status, first.body.code) == (503, "outcome_unknown")
    assert second == first
    assert died == [True]
    assert "fsync failed" in capfd.readouterr().err


def test_a_busy_door_still_keeps_its_house(library: Library) -> None:
    kept = list[int]()
    site = replace(library.site, idle=lambda: kept.append(1))
    with live(site) as door:
        door.post("/books", json=BOOK, headers=KEY)
        eventually(lambda: kept)


def test_a_full_disk_does_not_end_the_committer(library: Library) -> None:
    def tidy() -> None:
        raise StorageFull("no space left")

    with live(replace(library.site, idle=tidy)) as door:
        for key in ("a", "b"):
            reply = door.post("/books", json=BOOK, headers={"Idempotency-Key": key})
            assert reply.status_code == 202
        assert "the door does not commit" not in door.get("/readyz").text
