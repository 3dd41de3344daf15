"""The proxy does to a connection exactly what it was told."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress

import psycopg
import pytest

from penstock.sim.servers.kafka import Cluster
from penstock.sim.servers.postgres import Postgres
from penstock.sim.servers.proxy import (
    BLACKHOLE,
    CLIENT_UNHEARD,
    PASS,
    REFUSE,
    RESET,
    SERVER_UNHEARD,
    Direction,
    Proxy,
    cut_after,
    cut_at,
    delay,
)
from tests.cluster.records import make_topic, put, values
from tests.servers import absent_is_skipped
from tests.support import eventually, unused_port

SECONDS = 10.0
NOT_SOON_SECONDS = 0.15


class Echo:
    """A server that sends back what it gets, in capitals, and keeps it."""

    def __init__(self) -> None:
        self.got = bytearray()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._echo, args=(client,)).start()

    def _echo(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            while chunk := client.recv(1 << 16):
                self.got += chunk
                client.sendall(chunk.upper())

    def close(self) -> None:
        """Stop listening."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._accepting.join(SECONDS)


@pytest.fixture
def echo() -> Iterator[Echo]:
    """A server behind the proxy."""
    with closing(Echo()) as server:
        yield server


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    """A proxy before it."""
    with Proxy(echo.address) as proxy:
        yield proxy


def client(proxy: Proxy) -> socket.socket:
    """A connection through the proxy."""
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=SECONDS)


def answer(of: socket.socket, count: int) -> bytes:
    """So many bytes, or fewer at the end of the connection."""
    found = b""
    while len(found) < count and (chunk := of.recv(count - len(found))):
        found += chunk
    return found


def until_reset(of: socket.socket) -> bytes:
    """What still came before the reset; an end of another kind is none."""
    found = b""
    try:
        while chunk := of.recv(100):
            found += chunk
    except ConnectionResetError:
        return found
    raise AssertionError(f"it ended without a reset, after {found!r}")


def silent(of: socket.socket) -> bool:
    """Whether nothing comes for a moment."""
    of.settimeout(NOT_SOON_SECONDS)
    try:
        of.recv(1)
        return False
    except TimeoutError:
        return True
    finally:
        of.settimeout(SECONDS)


def test_it_passes_both_ways_and_half_closed(proxy: Proxy) -> None:
    body = b"a" * 3_000_000
    with client(proxy) as one, client(proxy) as other:
        sending = threading.Thread(target=one.sendall, args=(body,))
        sending.start()
        assert answer(one, len(body)) == body.upper()
        sending.join()
        other.sendall(b"hello")
        other.shutdown(socket.SHUT_WR)
        assert answer(other, 100) == b"HELLO"
        eventually(lambda: proxy.connections == 1)
    eventually(lambda: proxy.connections == 0)


def test_refused_is_as_if_nobody_listened(proxy: Proxy) -> None:
    with client(proxy) as before:
        before.sendall(b"in")
        assert answer(before, 2) == b"IN"
        proxy.set(REFUSE)
        with pytest.raises(ConnectionResetError):
            before.recv(1)
    with pytest.raises(ConnectionRefusedError):
        client(proxy)
    proxy.set(PASS)
    with client(proxy) as after:
        after.sendall(b"again")
        assert answer(after, 5) == b"AGAIN"


def test_reset_takes_a_connection_and_drops_it(proxy: Proxy) -> None:
    proxy.set(RESET)
    # The reset may come before the client has seen that it is connected.
    with pytest.raises(ConnectionResetError), client(proxy) as one:
        one.recv(1)


def test_a_cut_resets_who_is_connected_and_nobody_later(proxy: Proxy) -> None:
    with client(proxy) as one:
        one.sendall(b"in")
        assert answer(one, 2) == b"IN"
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            one.recv(1)
    with client(proxy) as other:
        other.sendall(b"in")
        assert answer(other, 2) == b"IN"


def test_nothing_comes_out_of_a_blackhole_until_it_ends(proxy: Proxy, echo: Echo) -> None:
    with client(proxy) as one:
        one.sendall(b"a")
        assert answer(one, 1) == b"A"
        proxy.set(BLACKHOLE)
        one.sendall(b"held")
        with client(proxy) as late:
            late.sendall(b"late")
            assert silent(one)
            assert silent(late)
            assert echo.got == b"a"
            proxy.set(PASS)
            assert answer(one, 4) == b"HELD"
            assert answer(late, 4) == b"LATE"


def test_one_way_may_be_silent_alone(proxy: Proxy, echo: Echo) -> None:
    with client(proxy) as one:
        one.sendall(b"a")
        assert answer(one, 1) == b"A"
        proxy.set(SERVER_UNHEARD)
        one.sendall(b"b")
        eventually(lambda: echo.got == b"ab")
        assert silent(one)
        proxy.set(CLIENT_UNHEARD)
        assert answer(one, 1) == b"B"
        one.sendall(b"c")
        assert silent(one)
        assert echo.got == b"ab"
        proxy.set(PASS)
        assert answer(one, 1) == b"C"


def test_what_is_delayed_comes_late_whole_and_in_order(proxy: Proxy) -> None:
    with client(proxy) as one:
        proxy.set(delay(0.1))
        began = time.monotonic()
        one.sendall(b"a")
        assert answer(one, 1) == b"A"
        assert time.monotonic() - began >= 0.2
        for letter in b"bcdef":
            one.sendall(bytes([letter]))
        proxy.set(PASS)
        one.sendall(b"g")
        one.shutdown(socket.SHUT_WR)
        assert answer(one, 10) == b"BCDEFG"


@pytest.mark.parametrize("direction", list(Direction))
def test_it_cuts_after_so_many_bytes(proxy: Proxy, echo: Echo, direction: Direction) -> None:
    with client(proxy) as one:
        one.sendall(b"before")
        assert answer(one, 6) == b"BEFORE"
        proxy.set(cut_after(4, direction))
        one.sendall(b"abc")
        assert answer(one, 3) == b"ABC"
        one.sendall(b"defgh")
        assert until_reset(one) in (b"", b"D")  # a reset may overtake the last bytes
    assert proxy.cuts == 1
    sent = b"beforeabcd" if direction is Direction.UP else b"beforeabcdefgh"
    eventually(lambda: echo.got == sent)


@pytest.mark.parametrize("apart", [False, True])
def test_it_cuts_before_a_pattern_is_through(proxy: Proxy, echo: Echo, apart: bool) -> None:
    proxy.set(cut_at(b"COMMIT", forwarded=False))
    with client(proxy) as one:
        one.sendall(b"go; COM" if apart else b"go; ")
        assert answer(one, 4) == b"GO; "
        one.sendall(b"MIT; more" if apart else b"COMMIT; more")
        assert until_reset(one) in ((b"", b"COM") if apart else (b"",))
    assert proxy.cuts == 1
    assert bytes(echo.got) == (b"go; COM" if apart else b"go; ")
    with client(proxy) as other:
        other.sendall(b"COMMIT")
        assert answer(other, 6) == b"COMMIT"


def test_it_cuts_when_the_server_has_answered_a_pattern(proxy: Proxy, echo: Echo) -> None:
    proxy.set(cut_at(b"COMMIT", forwarded=True))
    with client(proxy) as one:
        one.sendall(b"go; CO")
        assert answer(one, 6) == b"GO; CO"
        one.sendall(b"MMIT; more")
        with pytest.raises(ConnectionResetError):
            one.recv(1)
    assert bytes(echo.got) == b"go; COMMIT; more"
    assert proxy.cuts == 1


def test_a_target_that_is_not_there_resets_the_client() -> None:
    with (
        Proxy(f"127.0.0.1:{unused_port()}") as proxy,
        pytest.raises(ConnectionResetError),
        client(proxy) as one,
    ):
        one.recv(1)
    proxy.close()


@pytest.mark.parametrize("forwarded", [True, False])
def test_a_commit_of_unknown_outcome(own_postgres: Postgres, forwarded: bool) -> None:
    with psycopg.connect(own_postgres.dsn(), autocommit=True) as connection:
        connection.execute("CREATE TABLE seen (id bigint)")
    with own_postgres.proxy() as proxy:
        with psycopg.connect(own_postgres.dsn(port=proxy.port)) as connection:
            connection.execute("INSERT INTO seen VALUES (1)")
            proxy.set(cut_at(b"COMMIT", forwarded=forwarded))
            with pytest.raises(psycopg.OperationalError):
                connection.commit()
        with psycopg.connect(own_postgres.dsn(port=proxy.port)) as connection:
            found = connection.execute("SELECT count(*) FROM seen").fetchone()
            assert found == (1 if forwarded else 0,)


@pytest.mark.kafka
def test_a_broker_is_reached_through_the_proxy_it_advertises() -> None:
    with absent_is_skipped(), Cluster(proxied=True) as cluster:
        (proxy,), there = cluster.proxies, cluster.client_settings()
        assert there["bootstrap.servers"] == proxy.address
        make_topic(there, "cut")
        assert put(there, "cut", "passed") == ""
        proxy.set(BLACKHOLE)
        assert put(there, "cut", "lost", seconds=1) == "_MSG_TIMED_OUT"
        proxy.set(REFUSE)
        assert put(there, "cut", "refused", seconds=1) == "_MSG_TIMED_OUT"
        proxy.set(PASS)
        assert put(there, "cut", "passed again") == ""
        assert values(there, "cut", 2) == ["passed", "passed again"]
