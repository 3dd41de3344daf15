"""A PostgreSQL server of this process: made in a folder of its own, killed and started again."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from psycopg import sql

from penstock.sim.servers import folder
from penstock.sim.servers.process import (
    HERE,
    Absent,
    NotStarted,
    Place,
    Process,
    dying_with_us,
    give_back,
    take_ports,
)
from penstock.sim.servers.proxy import Proxy

SUPERUSER = "postgres"
INSTALL = "apt-get install postgresql"
ANSWER_SECONDS = 30.0
SLOWEST_SECONDS = 0.1  # PostgreSQL's own bound of commit_delay
# In order of preference; initdb refuses root, and so does the server.
USERS = ("postgres", "nobody")

SETTINGS: Mapping[str, str] = {
    "max_connections": "200",
    "shared_buffers": "128MB",
    "log_min_messages": "warning",
    "log_line_prefix": "%m [%p] ",
    "max_prepared_transactions": "10",
    "autovacuum_naptime": "10s",
}
# For tests that judge no durability: a power cut may lose all, a kill of the server loses nothing.
CARELESS: Mapping[str, str] = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
}


def binaries() -> Path:
    """The folder that holds ``initdb`` and ``postgres``, the newest one of several."""
    for found in _candidates():
        if (found / "initdb").is_file() and (found / "postgres").is_file():
            return found
    raise Absent(f"no PostgreSQL here; {INSTALL}, or put its initdb and postgres on the path")


def _candidates() -> Iterator[Path]:
    on_path = shutil.which("initdb")
    if on_path:
        yield Path(on_path).resolve().parent
    config = shutil.which("pg_config")
    if config:
        said = subprocess.run([config, "--bindir"], capture_output=True, text=True, check=False)
        yield Path(said.stdout.strip())
    packaged = Path("/usr/lib/postgresql").glob("*/bin")
    yield from sorted(packaged, key=lambda found: _number(found.parent.name), reverse=True)


def _number(name: str) -> float:
    found = re.match(r"\d+(\.\d+)?", name)
    return float(found[0]) if found else 0.0


def runs_as() -> str:
    """The user that the server runs as; empty for us, if we are not root."""
    if os.getuid() != 0:
        return ""
    if shutil.which("setpriv") is None:
        raise Absent("PostgreSQL refuses to run as root, and setpriv of util-linux is not here")
    known = Path("/etc/passwd").read_text(encoding="utf-8")
    for name in USERS:
        if re.search(rf"^{name}:", known, re.MULTILINE):
            return name
    raise Absent(f"PostgreSQL refuses to run as root, and none of {USERS} is a user here")


class Postgres:
    """A server on a unix socket and a loopback port. The port stays over restarts.

    It forces every commit to disk as a real one does; ``durable=False`` is for tests that ask
    only what the database says. ``settings`` go over those of :data:`SETTINGS`.
    """

    def __init__(
        self,
        *,
        durable: bool = True,
        settings: Mapping[str, str] | None = None,
        place: Place = HERE,
    ) -> None:
        self._bin, self._user, self.place = binaries(), runs_as(), place
        listens = {"listen_addresses": place.address}
        careless = {} if durable else CARELESS
        self.settings = {**SETTINGS, **listens, **careless, **(settings or {})}
        # With a short path: that of a unix socket has a hundred characters.
        self.folder = folder.make("pg")
        self.port = take_ports(1)[0]
        self._process = Process(
            self._command(), self.folder / "log", user=self._user, fatal="QUIT", place=place
        )

    def _command(self) -> list[str]:
        given = {**self.settings, "port": str(self.port), "unix_socket_directories": self.folder}
        options = [word for name, value in given.items() for word in ("-c", f"{name}={value}")]
        return [str(self._bin / "postgres"), "-D", str(self.folder / "state"), *options]

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    @property
    def pid(self) -> int:
        """Of the postmaster; 0 when it does not run."""
        return self._process.pid

    def dsn(self, database: str = "postgres", *, socket: bool = False, port: int = 0) -> str:
        """Where the superuser finds a database: by TCP, through the unix socket, or by a proxy's
        ``port``."""
        if socket:
            return f"postgresql:///{database}?host={self.folder}&port={self.port}&user={SUPERUSER}"
        # A proxy is beside its clients, on the loopback.
        at = f"{HERE.address}:{port}" if port else f"{self.place.address}:{self.port}"
        return f"postgresql://{SUPERUSER}@{at}/{database}"

    def proxy(self) -> Proxy:
        """A new proxy before its loopback port; ``dsn(port=proxy.port)`` leads through it."""
        return Proxy(f"{self.place.address}:{self.port}")

    def start(self) -> Self:
        """Make the cluster if there is none, start the server, and wait until it answers."""
        if not (self.folder / "state").exists():
            self._make()
        self._process.start()
        self._process.until(self.answers, ANSWER_SECONDS)
        return self

    def _make(self) -> None:
        locale = ("--encoding=UTF8", "--locale=C")
        self._run("initdb", "-U", SUPERUSER, "--auth=trust", "--no-sync", *locale)
        with open(self.folder / "state" / "pg_hba.conf", "a", encoding="utf-8") as rules:
            rules.write("host all all samenet trust\n")  # of a place of its own; here, loopback

    def _run(self, program: str, *argv: str) -> None:
        """Let one of PostgreSQL's programs fill the folder of the state."""
        if self._user:
            shutil.chown(self.folder, self._user)
        command = [str(self._bin / program), "-D", str(self.folder / "state"), *argv]
        done = subprocess.run(
            dying_with_us(command, self._user), cwd=self.folder, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        if done.returncode:
            raise NotStarted(f"{program}: {done.stderr[-1500:]}")

    def standby(self, *, port: int = 0) -> Postgres:
        """A started server that follows this one, a moment behind it, and takes no writes.

        It is the caller's to close. It follows by a proxy's ``port`` if one is named, so that it
        can be held back; see :meth:`promote`.
        """
        follower = Postgres(settings=self.settings)
        try:
            follower._run(
                "pg_basebackup", "-U", SUPERUSER, "-h", HERE.address, "-p", str(port or self.port),
                "--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync",
            )  # fmt: skip
            return follower.start()
        except BaseException:
            follower.close()
            raise

    def promote(self) -> None:
        """Let a standby go on as a server of its own, without what has not reached it."""
        with psycopg.connect(self.dsn(socket=True), autocommit=True) as connection:
            connection.execute("SELECT pg_promote()")

    def slow_disk(self, seconds: float) -> None:
        """From now on every commit's flush takes so much longer, at most
        :data:`SLOWEST_SECONDS`; 0 ends it."""
        assert 0 <= seconds <= SLOWEST_SECONDS
        with psycopg.connect(self.dsn(socket=True), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET commit_siblings = 0")
            delay = sql.Literal(round(seconds * 1_000_000))
            connection.execute(sql.SQL("ALTER SYSTEM SET commit_delay = {}").format(delay))
            connection.execute("SELECT pg_reload_conf()")

    def answers(self) -> bool:
        """Whether it takes a statement now."""
        try:
            with psycopg.connect(self.dsn(socket=True), connect_timeout=2) as connection:
                connection.execute("SELECT 1")
        except psycopg.Error:
            return False
        return True

    def create(self, database: str) -> str:
        """Make a database and give its address."""
        create_database(self.dsn(socket=True), database)
        return self.dsn(database)

    def drop(self, database: str) -> None:
        """Drop a database with all who use it."""
        drop_database(self.dsn(socket=True), database)

    def kill(self) -> None:
        """SIGKILL to the postmaster and all its processes: what a crash of the machine leaves,
        but for what the disk had not got yet."""
        self._process.kill()

    def restart(self) -> Self:
        """Start it again on the same port and files, after a kill or a stop."""
        self._process.stop(signal.SIGINT)
        return self.start()

    def stop(self) -> None:
        """A fast shutdown: transactions are broken off, nothing committed is lost."""
        self._process.stop(signal.SIGINT)

    def stand_still(self, pid: int = 0) -> None:
        """SIGSTOP to a backend (``pg_backend_pid()`` tells which), or to the postmaster."""
        os.kill(pid or self.pid, signal.SIGSTOP)

    def go_on(self, pid: int = 0) -> None:
        """SIGCONT."""
        os.kill(pid or self.pid, signal.SIGCONT)

    def close(self) -> None:
        """Stop it and remove its files."""
        self.stop()
        give_back([self.port])
        folder.remove(self.folder)


def create_database(address: str, name: str) -> None:
    """Make a database on a running server; ``address`` is of a database that is there."""
    _administer(address, sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


def drop_database(address: str, name: str) -> None:
    """Drop a database of a running server with all who use it, if it is there."""
    statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
    _administer(address, statement)


def _administer(address: str, statement: sql.Composed) -> None:
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(statement)
