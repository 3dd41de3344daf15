"""A TCP proxy that does to a connection what networks do: nothing, delay, silence, a cut."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from types import TracebackType
from typing import Any, Self

from msgspec import Struct

HOST = "127.0.0.1"
CHUNK_BYTES = 64 << 10
AT_ONCE_RST = struct.pack("ii", 1, 0)  # SO_LINGER of no seconds: closing sends a reset
THREAD_SECONDS = 10.0


class Direction(Enum):
    """Which way bytes go."""

    UP = "from the client to the server"
    DOWN = "from the server to the client"


BOTH = frozenset(Direction)
NEITHER: frozenset[Direction] = frozenset()


class Fault(Struct, frozen=True, kw_only=True):
    """What the proxy does until it is told otherwise. The named ones stand below."""

    refuse: bool = False  # nobody listens, and who was connected is reset
    reset: bool = False  # connections are taken and reset
    silent: frozenset[Direction] = NEITHER  # nothing passes; it is held, as TCP would send it again
    delay_seconds: float = 0.0  # each way
    cut_after: tuple[Direction, int] | None = None  # a connection that has carried so many bytes
    cut_at: bytes = b""  # once, when a client sends these bytes
    forwarded: bool = True  # whether the server gets them first; its answer reaches nobody


PASS = Fault()
REFUSE = Fault(refuse=True)
RESET = Fault(reset=True)
BLACKHOLE = Fault(silent=BOTH)
SERVER_UNHEARD = Fault(silent=frozenset({Direction.DOWN}))
CLIENT_UNHEARD = Fault(silent=frozenset({Direction.UP}))


def delay(seconds: float) -> Fault:
    """Bytes come so much later, in order."""
    return Fault(delay_seconds=seconds)


def cut_after(count: int, direction: Direction) -> Fault:
    """Reset a connection that carries ``count`` bytes from now on; exactly those are delivered."""
    return Fault(cut_after=(direction, count))


def cut_at(pattern: bytes, *, forwarded: bool) -> Fault:
    """Once, reset the connection whose client sends ``pattern``, then pass.

    ``forwarded``: the server gets it and answers, and the answer is thrown away, so what was asked
    has been done and the client cannot know. Otherwise the server never gets the pattern's end.
    """
    assert pattern, "name the bytes to look for"
    return Fault(cut_at=pattern, forwarded=forwarded)


class Proxy:
    """Listens on a loopback port and passes on to ``target`` (host:port), in a thread of its own.

    It does not need the target to be there before a client comes. ``cuts`` counts the connections
    that :func:`cut_after` and :func:`cut_at` have cut.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self.target, self.cuts, self.fault = (host, int(port)), 0, PASS
        self._links: set[_Link] = set()
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self.port = 0
        self._call(self._listen())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    @property
    def address(self) -> str:
        """``host:port`` for clients; it stays."""
        return f"{HOST}:{self.port}"

    @property
    def connections(self) -> int:
        """How many clients are connected now."""
        return len(self._links)

    def set(self, fault: Fault) -> None:
        """From now on do this; it is in force when the call returns."""
        self._call(self._set(fault))

    @contextmanager
    def under(self, fault: Fault) -> Iterator[None]:
        """Do this while the body runs."""
        self.set(fault)
        try:
            yield
        finally:
            self.set(PASS)

    def cut(self) -> None:
        """Reset who is connected now."""
        self._call(self._cut())

    def close(self) -> None:
        """Cut everybody and stop listening."""
        if self._loop.is_closed():
            return
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(THREAD_SECONDS)
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(THREAD_SECONDS)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, HOST, self.port, limit=CHUNK_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _set(self, fault: Fault) -> None:
        self.fault = fault
        for link in self._links:
            link.count_anew()
        if fault.refuse and self._server is not None:
            self._server.close()
            self._server = None
        if fault.refuse or fault.reset:
            await self._cut()
        elif self._server is None:
            await self._listen()
        self._changed.set()
        self._changed = asyncio.Event()

    async def _cut(self) -> None:
        for link in list(self._links):
            link.reset()

    async def _end(self) -> None:
        if self._server is not None:
            self._server.close()
        tasks = [link.task for link in self._links]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        link = _Link(self, task, reader, writer)
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)

    async def passing(self, direction: Direction) -> None:
        """Wait while this direction is silent."""
        while direction in self.fault.silent:
            await self._changed.wait()

    def cut_was_made(self) -> None:
        """Count it; a cut at a pattern is made once."""
        self.cuts += 1
        if self.fault.cut_at:
            self.fault = PASS


class _Cut(Exception):
    """This connection ends here, by a reset."""


class _Link:
    """One client's connection and the one to the server behind it."""

    def __init__(
        self, proxy: Proxy, task: asyncio.Task[Any], reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:  # fmt: skip
        self._proxy, self.task = proxy, task
        self._client, self._to_client = reader, writer
        self._to_server: asyncio.StreamWriter | None = None
        self._carried = dict.fromkeys(Direction, 0)
        self._muted = False  # the server's next answer is the last thing that happens
        self._seen = b""  # the last bytes of the client, in which a pattern may have begun

    def count_anew(self) -> None:
        """A new fault counts bytes from nought."""
        self._carried = dict.fromkeys(Direction, 0)

    def reset(self) -> None:
        """Both sides get a reset."""
        for writer in (self._to_client, self._to_server):
            if writer is not None:
                _reset(writer)
        self.task.cancel()

    async def run(self) -> None:
        """Carry bytes both ways until both sides have ended, or one is cut."""
        try:
            if self._proxy.fault.reset:
                raise _Cut
            await self._proxy.passing(Direction.UP)
            server, self._to_server = await asyncio.open_connection(
                *self._proxy.target, limit=CHUNK_BYTES
            )
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(self._client, self._to_server, Direction.UP))
                pumps.create_task(self._pump(server, self._to_client, Direction.DOWN))
        except (OSError, _Cut, ExceptionGroup):
            _reset(self._to_client)
        finally:
            for writer in (self._to_client, self._to_server):
                if writer is not None:
                    writer.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction
    ) -> None:
        due = Due()
        while chunk := await reader.read(CHUNK_BYTES):
            await self._proxy.passing(direction)
            if self._muted and direction is Direction.DOWN:
                raise _Cut
            await self._carry(chunk, writer, direction, due)
        await self._proxy.passing(direction)
        due.call(self._proxy.fault.delay_seconds, lambda: _end(writer))

    async def _carry(
        self, chunk: bytes, writer: asyncio.StreamWriter, direction: Direction, due: Due
    ) -> None:
        fault = self._proxy.fault
        allowed = self._allowed(fault, chunk, direction)
        due.call(fault.delay_seconds, lambda: writer.write(chunk[:allowed]))
        if not self._muted:
            self._carried[direction] += allowed
        if allowed < len(chunk) or self._full(fault, direction):
            await writer.drain()
            self._proxy.cut_was_made()
            raise _Cut
        with suppress(ConnectionError):  # the reader of the other side meets it and ends this one
            await writer.drain()

    def _allowed(self, fault: Fault, chunk: bytes, direction: Direction) -> int:
        """How many bytes of the chunk pass."""
        if fault.cut_after is not None and fault.cut_after[0] is direction:
            return min(len(chunk), fault.cut_after[1] - self._carried[direction])
        if not fault.cut_at or direction is Direction.DOWN or self._muted:
            return len(chunk)
        together = self._seen + chunk
        self._seen = together[-(len(fault.cut_at) - 1) :] if len(fault.cut_at) > 1 else b""
        at = together.find(fault.cut_at)
        if at < 0:
            return len(chunk)
        if fault.forwarded:
            self._muted = True
            self._proxy.cut_was_made()
            return len(chunk)
        return max(0, at - (len(together) - len(chunk)))

    def _full(self, fault: Fault, direction: Direction) -> bool:
        return (
            fault.cut_after is not None
            and fault.cut_after[0] is direction
            and self._carried[direction] >= fault.cut_after[1]
        )


class Due:
    """Calls made later, in the order they were asked for, whatever the delay is by then."""

    def __init__(self) -> None:
        self._last = 0.0

    def call(self, delay_seconds: float, what: Callable[[], None]) -> None:
        """Make this call ``delay_seconds`` from now; at once when none is pending."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if not delay_seconds and self._last <= now:
            what()
            return
        # Two calls at one instant may be made in any order: the later is due a moment later.
        self._last = max(now + delay_seconds, self._last + 1e-6)
        loop.call_at(self._last, what)


def _end(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, RuntimeError):
        writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    sock: socket.socket | None = writer.get_extra_info("socket")
    with suppress(OSError):
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE_RST)
    writer.transport.abort()
