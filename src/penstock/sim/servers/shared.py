"""Servers that several processes use together: the first that asks starts them, the last one's
end stops them.

A keeper process owns the servers. Who uses them holds a shared lock on a file; the keeper waits
for that lock alone, so a user that is killed is counted out by the kernel.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from penstock.sim.servers.process import Absent, NotStarted, until

READY_SECONDS = 150.0
KINDS = ("kafka", "postgres")
_keepers: list[subprocess.Popen[bytes]] = []  # ours; they outlive the last use by a moment


class Addresses(msgspec.Struct, frozen=True):
    """Where the servers answer; ``wrong`` says why they do not."""

    kafka: str = ""
    postgres: str = ""
    wrong: str = ""


@contextmanager
def shared(kind: str, folder: Path) -> Iterator[str]:
    """The address of a running ``kafka`` or ``postgres`` that all who name ``folder`` share.

    Raises :class:`Absent` when it cannot be had here.
    """
    assert kind in KINDS, kind
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        with open(folder / f"{kind}.start", "ab") as starting:
            fcntl.flock(starting, fcntl.LOCK_EX)
            held.enter_context(_used(folder / f"{kind}.users"))
            found = _told(kind, folder) or _keep(kind, folder)
        if found.wrong:
            raise Absent(found.wrong)
        yield getattr(found, kind)


@contextmanager
def _used(users: Path) -> Iterator[None]:
    with open(users, "ab") as lock:
        # A keeper that has the lock alone is stopping its server: wait until it is done.
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


def _told(kind: str, folder: Path) -> Addresses | None:
    """What the keeper told, if it lives: a killed one leaves its word, and no server."""
    try:
        with open(folder / f"{kind}.keeper", "rb") as keeper:
            fcntl.flock(keeper, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return _read(folder / f"{kind}.json")
    (folder / f"{kind}.json").unlink(missing_ok=True)
    return None


def _read(told: Path) -> Addresses | None:
    try:
        return msgspec.json.decode(told.read_bytes(), type=Addresses)
    except FileNotFoundError:
        return None


def _keep(kind: str, folder: Path) -> Addresses:
    """Start a keeper and hear what it tells."""
    output, told = folder / f"{kind}.log", folder / f"{kind}.json"
    argv = [sys.executable, "-m", "penstock.sim.servers", f"--{kind}", "--for", str(folder)]
    with open(output, "ab") as log:
        keeper = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    _keepers.append(keeper)

    def heard() -> bool:
        if keeper.poll() is not None:
            raise NotStarted(f"the keeper of {kind} ended; see {output}")
        return told.exists()

    until(heard, READY_SECONDS, f"{kind} was not started; see {output}")
    found = _read(told)
    assert found is not None, "we use it, so the keeper does not go"
    return found


def keep(kind: str, folder: Path, start: Callable[[ExitStack], str]) -> None:
    """In the keeper: start the server, tell where it is, stop it when nobody uses it."""
    told = folder / f"{kind}.json"
    with (
        open(folder / f"{kind}.users", "ab") as users,
        open(folder / f"{kind}.keeper", "ab") as alive,
        ExitStack() as stack,
    ):
        fcntl.flock(alive, fcntl.LOCK_EX)
        try:
            found = Addresses(**{kind: start(stack)})
        except (Absent, NotStarted) as wrong:
            found = Addresses(wrong=str(wrong))
        unfinished = told.with_suffix(".new")
        unfinished.write_bytes(msgspec.json.encode(found))
        os.replace(unfinished, told)
        fcntl.flock(users, fcntl.LOCK_EX)
        stack.close()
        told.unlink()
