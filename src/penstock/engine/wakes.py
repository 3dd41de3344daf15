"""Wake-ups between processes: a datagram that names topics. Losing one costs latency, no work.

Every process binds a socket named after its service in a short run folder (deep paths do not fit
a socket address). After a commit the writer sends to the sockets of the services that read what
was written; a slow poll of everything is the net below.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import tempfile
import time
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from pathlib import Path

from penstock.errors import Conflict

_LIST_SECONDS = 1.0
_DATAGRAM_BYTES = 4096


def run_folder(home: Path) -> Path:
    """A private short folder for the sockets of ``home``; made if missing."""
    name = blake2b(str(home.resolve()).encode(), digest_size=6).hexdigest()
    root = Path(tempfile.gettempdir()) / f"penstock-{os.getuid()}"
    folder = root / name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if root.stat().st_uid != os.getuid():
        raise Conflict("run_folder", f"{root} belongs to somebody else.", "Set TMPDIR elsewhere.")
    return folder


class Wakes:
    """One process's ear and mouth."""

    def __init__(self, folder: Path, name: str, readers: Mapping[str, Iterable[str]]) -> None:
        self._folder, self._name = folder, name
        self._readers = {topic: tuple(services) for topic, services in readers.items()}
        self._path = folder / f"{name}.{os.getpid()}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        self._socket.bind(str(self._path))
        self._heard = select.poll()  # select() knows no descriptors above 1023
        self._heard.register(self._socket, select.POLLIN)
        self._listed: dict[str, list[str]] = {}
        self._list_at = 0.0

    def tell(self, topics: Iterable[str]) -> None:
        """Wake the readers of ``topics``; never blocks, never fails."""
        by_service: dict[str, list[str]] = {}
        for topic in topics:
            for service in self._readers.get(topic, ()):
                by_service.setdefault(service, []).append(topic)
        for service, names in by_service.items():
            body = ",".join(names).encode()[:_DATAGRAM_BYTES]
            for address in self._addresses().get(service, ()):
                self._send(body, address)

    def _send(self, body: bytes, address: str) -> None:
        try:
            self._socket.sendto(body, address)
        except ConnectionRefusedError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(address)  # its process is dead
        except (BlockingIOError, FileNotFoundError):
            pass  # a full queue wakes anyway; a gone socket has nobody to wake
        except OSError:
            self._list_at = 0.0

    def _addresses(self) -> dict[str, list[str]]:
        if time.monotonic() - self._list_at > _LIST_SECONDS:
            self._list_at = time.monotonic()
            self._listed = {}
            for name in os.listdir(self._folder):
                service = name.rpartition(".")[0]
                self._listed.setdefault(service, []).append(str(self._folder / name))
        return self._listed

    def poke(self, topics: Iterable[str] = ()) -> None:
        """Wake this process itself, for ``topics``; any thread may call it."""
        with contextlib.suppress(OSError):
            self._socket.sendto(",".join(topics).encode()[:_DATAGRAM_BYTES], str(self._path))

    def wait(self, seconds: float) -> set[str]:
        """Sleep until woken or ``seconds`` passed; the topics that were named."""
        if seconds > 0:
            self._heard.poll(seconds * 1000)
        topics: set[str] = set()
        with contextlib.suppress(BlockingIOError):
            while True:
                body = self._socket.recv(_DATAGRAM_BYTES)
                topics.update(t for t in body.decode().split(",") if t)
        return topics

    def close(self) -> None:
        """Take the ear away."""
        self._socket.close()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
