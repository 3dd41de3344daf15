"""The pulse of a process without a page: alive, ready, and why not."""

from __future__ import annotations

import time
from types import SimpleNamespace

import httpx

from penstock.web.pulse import STILL_SECONDS, Pulse, still


def test_each_route_says_ok_or_why_not() -> None:
    live, ready = [""], ["the database does not answer"]
    pulse = Pulse("127.0.0.1", 0, lambda: live[0], lambda: ready[0])
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{pulse.port}") as http:
            said = http.get("/health/live")
            assert (said.status_code, said.text) == (200, "ok\n")
            said = http.get("/health/ready")
            assert (said.status_code, said.text) == (503, "the database does not answer\n")
            live[0], ready[0] = "no turn for 99 s", ""
            assert http.get("/health/live").status_code == 503
            assert http.get("/health/ready").status_code == 200
            assert http.get("/").status_code == 404
    finally:
        pulse.close()


def test_a_loop_that_turns_no_more_counts_as_dead() -> None:
    now = time.monotonic()
    assert still([]) == ""
    assert still([SimpleNamespace(turned_at=now)]) == ""
    stuck = SimpleNamespace(turned_at=now - STILL_SECONDS - 2)
    said = f"no turn for {STILL_SECONDS + 2:.0f} s"
    assert still([SimpleNamespace(turned_at=now), stuck]) == said
