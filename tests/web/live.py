"""A site served by the real server: in a thread, or as the process that ``up`` starts."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx

from penstock.web.serve import Server, listening, url_of
from penstock.web.site import Site

Seen = TypeVar("Seen")

START_SECONDS_MAX = 20.0


@contextmanager
def live(site: Site) -> Iterator[httpx.Client]:
    """A client of the site while it is served; on leaving, the server has drained."""
    bound, ready = listening("127.0.0.1", 0), threading.Event()
    server = Server(site, ready.set)
    thread = threading.Thread(target=server.run, args=([bound],), daemon=True)
    thread.start()
    assert ready.wait(START_SECONDS_MAX), "the server did not start"
    with httpx.Client(base_url=url_of(bound), trust_env=False, timeout=20) as client:
        try:
            yield client
        finally:
            client.close()
            server.should_exit = True
            thread.join(START_SECONDS_MAX)
    assert not thread.is_alive(), "the server did not drain"


@contextmanager
def shop(home: Path) -> Iterator[httpx.Client]:
    """The flow that ships with penstock, served by ``penstock web`` in a process of its own."""
    argv = (sys.executable, "-m", "penstock", "--home", str(home), "web", "--port", "0")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = json.loads(process.stdout.readline())["url"]
            with httpx.Client(base_url=url, trust_env=False, timeout=20) as client:
                yield client
        finally:
            process.terminate()
        assert process.wait(START_SECONDS_MAX) == 0


def in_a_loop(scene: Callable[[], Coroutine[Any, Any, Seen]]) -> Seen:
    """The result of a coroutine in a thread of its own: a browser test keeps a loop in ours."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(lambda: asyncio.run(scene())).result()
