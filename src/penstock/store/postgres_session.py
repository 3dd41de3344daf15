"""One thread's connection to PostgreSQL: statements out, answers in, errors sorted.

Everything goes through the pipeline mode of libpq: a group of statements is sent with one
``sync`` behind it and costs one round trip. The connection is made when it is needed, and dropped
when it is of no more use.
"""

from __future__ import annotations

import re
import select
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg import errors as pg_errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult

from penstock.errors import Conflict, Contended, StaleOwner, StorageFull, Unreachable, Usage
from penstock.limits import TRANSACTION_SECONDS_MAX
from penstock.store.postgres_values import Value

SCHEMA = "penstock"
VERSION_MIN = 140000
LOCK_SECONDS_MAX = 10.0  # behind another transaction's row; then the batch is done again
STATEMENT_SECONDS_MAX = 25.0  # a statement is a batch's at most: what takes longer is in trouble
SILENCE_SECONDS_MAX = 28.0  # the server itself ends a statement sooner, if it still lives
CONNECT_SECONDS_MAX = 5
CLOSE_SECONDS_MAX = 1.0  # another thread's answer is waited for so long; then it closes itself

assert LOCK_SECONDS_MAX < STATEMENT_SECONDS_MAX < SILENCE_SECONDS_MAX < TRANSACTION_SECONDS_MAX

_STALE, _CHANGED, _MOVING = "PE001", "PE002", "PE003"  # raised by our own functions in the database
_CONTENDED = {_CHANGED, "40001", "40P01", "55P03"}
_UNREACHABLE = {
    "25006",  # read only: the server became a standby
    "25P03",  # it ended a transaction that stood still for too long
    "53300",  # too many connections
    "57014",  # statement timeout
    "57P01", "57P02", "57P03", "57P04", "57P05",  # shutting down, starting, gone
}  # fmt: skip
_NOT_MIGRATED = {"3F000", "42P01", "42703", "42883"}

_BOTH = select.POLLIN | select.POLLOUT


class _Sent(NamedTuple):
    """What an answer is the answer to: a preparation (``name``, ``sql``), a statement whose rows
    are wanted, or a verb."""

    name: bytes = b""
    sql: bytes = b""
    is_wanted: bool = False


# Where the connection string says nothing else.
_CONNECTION: Mapping[str, Any] = {
    "connect_timeout": CONNECT_SECONDS_MAX,
    "target_session_attrs": "read-write",  # a standby refuses writes
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,  # ms
    "client_encoding": "UTF8",
    "options": "",
}

# What a session sets where the options of the connection string do not. Of the plans: everything
# is looked up by index, whatever the statistics say of a table that was empty a minute ago.
_SETTINGS: Mapping[str, str] = {
    "statement_timeout": f"{STATEMENT_SECONDS_MAX:.0f}s",
    "lock_timeout": f"{LOCK_SECONDS_MAX:.0f}s",
    "idle_in_transaction_session_timeout": f"{TRANSACTION_SECONDS_MAX:.0f}s",
    "jit": "off",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "bytea_output": "hex",
    "DateStyle": "ISO",
    "TimeZone": "UTC",
}


class Statement:
    """SQL with named arguments, ``$name``; each is sent once, however often it is named.

    ``kept``: it is prepared, and its plan kept as long as the connection. That is for the few of
    every batch, which are written so that there is one way only to carry them out. All others
    are planned when they are sent, for the tables as they are then.
    """

    def __init__(self, text: str, kept: bool = False) -> None:
        self.kept = kept
        names: dict[str, int] = {}

        def numbered(found: re.Match[str]) -> str:
            return f"${names.setdefault(found[1], len(names) + 1)}"

        self.sql = re.sub(r"\$([a-z_]+)", numbered, text).encode()
        self.names = tuple(names)


class Command(NamedTuple):
    """A statement with its arguments. One without a statement's name is sent as it is."""

    statement: Statement
    values: Mapping[str, Value]


class Verb(NamedTuple):
    """``BEGIN``, ``COMMIT`` or ``ROLLBACK``: part of a round trip, and no statement of ours."""

    sql: bytes


BEGIN, COMMIT, ROLLBACK = Verb(b"BEGIN"), Verb(b"COMMIT"), Verb(b"ROLLBACK")


def address(where: str) -> dict[str, Any]:
    """The parts of a connection string. Raises ``Usage`` for what is none."""
    try:
        return dict(conninfo_to_dict(where))
    except psycopg.Error:  # its words quote the string, and with it a password
        raise Usage(
            "bad_dsn", "The address of the database cannot be read.",
            "Write postgresql://USER@HOST:PORT/DATABASE.",
        ) from None


def schema_of(where: str) -> str:
    """The schema that penstock lives in: what ``search_path`` in the options of the connection
    string names first, else ``penstock``."""
    options = str(address(where).get("options") or "")
    found = re.search(r'search_path=\\?"?([^",\s\\]+)', options)
    return found[1] if found else SCHEMA


def shown(where: str) -> str:
    """A connection string as an error may show it: host, port and database."""
    given = address(where)
    host, port = given.get("host") or given.get("hostaddr") or "", given.get("port") or 5432
    if not re.fullmatch(r"[\d,]+", str(port)):  # half of a password with a slash in it
        return "the database"
    return f"{host or 'the local socket'}:{port}/{given.get('dbname') or ''}"


def open_connection(where: str, application: str) -> psycopg.Connection[Any]:
    """A connection with our settings, outside any transaction. Raises ``Unreachable``, and
    ``Conflict`` where the server is too old."""
    given = {**_CONNECTION, "application_name": application[:63], **address(where)}
    try:
        connection = psycopg.connect(make_conninfo(**given), autocommit=True)
        _refuse_unfit(connection, where)
        own, options = {**_SETTINGS, "search_path": f'"{schema_of(where)}"'}, given["options"]
        settings = {name: value for name, value in own.items() if f"{name}=" not in options}
        calls = ", ".join("set_config(%s, %s, false)" for _ in settings)
        # A site may ask for more than `on` (remote_apply), never for less.
        connection.execute(
            f"SELECT {calls}, set_config('synchronous_commit', CASE WHEN"
            " current_setting('synchronous_commit') IN ('off', 'local') THEN 'on'"
            " ELSE current_setting('synchronous_commit') END, false)",
            [word for pair in settings.items() for word in pair],
        )
    except psycopg.Error as error:
        raise Unreachable(f"{shown(where)} does not answer: {_line(error)}") from error
    return connection


def _refuse_unfit(connection: psycopg.Connection[Any], where: str) -> None:
    version = connection.info.server_version
    encoding = connection.info.parameter_status("server_encoding")
    if version < VERSION_MIN:
        connection.close()
        raise Conflict(
            "old_postgres", f"{shown(where)} runs PostgreSQL {version // 10000}.",
            f"Use {VERSION_MIN // 10000} or newer.",
        )
    if encoding != "UTF8":
        connection.close()
        raise Conflict(
            "wrong_encoding", f"{shown(where)} keeps its texts in {encoding}.",
            "Make a database with ENCODING 'UTF8'.",
        )


class Session:
    """A connection in pipeline mode, used by one thread."""

    def __init__(self, where: str, application: str) -> None:
        self._where, self._application = where, application
        self._connection: psycopg.Connection[Any] | None = None
        self._prepared: dict[bytes, bytes] = {}
        self._poll, self._in_use = select.poll(), threading.Lock()
        self.thread = threading.current_thread()
        self.statements = 0  # sent, but for BEGIN, COMMIT and ROLLBACK

    def __del__(self) -> None:
        """Who lets go of a store lets go of its connections."""
        self.drop()

    @property
    def connected(self) -> bool:
        """Is there a connection, as far as is known?"""
        return self._connection is not None

    def connect(self) -> None:
        """Connect. Raises ``Unreachable``."""
        connection = open_connection(self._where, self._application)
        pg = connection.pgconn
        pg.nonblocking = 1
        pg.enter_pipeline_mode()
        self._connection, self._prepared, self._poll = connection, {}, select.poll()
        self._poll.register(pg.socket, select.POLLIN)

    def close(self) -> None:
        """Close the connection, called by another thread: not in the middle of an answer."""
        if self._in_use.acquire(timeout=CLOSE_SECONDS_MAX):
            try:
                self.drop()
            finally:
                self._in_use.release()

    def drop(self) -> None:
        """Close the connection; the server rolls back what was open."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.pgconn.finish()

    @property
    def in_transaction(self) -> bool:
        """Is a transaction open, or broken and not rolled back yet?"""
        if self._connection is None:
            return False
        return self._connection.pgconn.transaction_status != TransactionStatus.IDLE

    def run(self, statement: Statement, **values: Value) -> PGresult:
        """One statement, a transaction of its own where none is open."""
        return self.exchange([Command(statement, values)])[0]

    def exchange(self, commands: Sequence[Command | Verb]) -> list[PGresult]:
        """Send all, wait for all: one round trip. The results of the statements, in order.

        Raises what the first that failed means; what stood behind it was not carried out. When
        the connection is of no more use it is dropped.
        """
        with self._in_use:
            if self._connection is None:
                self.connect()
            try:
                return self._exchange(commands)
            except (StaleOwner, Contended, StorageFull, Conflict):
                raise
            except psycopg.Error as error:
                if error.sqlstate is not None:
                    raise  # the server's own word, and no trouble with the connection
                self.drop()
                said = f"{shown(self._where)} does not answer: {_line(error)}"
                raise Unreachable(said) from error
            except BaseException:
                self.drop()  # or broken off in the middle: the next answer would be any one's
                raise

    def _exchange(self, commands: Sequence[Command | Verb]) -> list[PGresult]:
        assert self._connection is not None
        pg = self._connection.pgconn
        sent: list[_Sent] = []  # of each answer that is to come
        for each in commands:
            if isinstance(each, Verb):
                pg.send_query_params(each.sql, None)
                sent.append(_Sent())
                continue
            self.statements += 1
            statement = each.statement
            values = [each.values[name] for name in statement.names]
            raws, formats = [v.raw for v in values], [1] * len(values)
            if statement.kept:
                name = self._prepared_name(pg, statement.sql, values, sent)
                pg.send_query_prepared(name, raws, formats, 1)
            else:
                types = [v.type for v in values]
                pg.send_query_params(statement.sql, raws, types, formats, 1)
            sent.append(_Sent(is_wanted=True))
        pg.pipeline_sync()
        return self._answers(pg, sent)

    def _prepared_name(
        self, pg: PGconn, sql: bytes, values: Sequence[Value], sent: list[_Sent]
    ) -> bytes:
        name = self._prepared.get(sql) or next((s.name for s in sent if s.sql == sql), b"")
        if not name:
            name = b"p%d" % (len(self._prepared) + sum(bool(s.name) for s in sent))
            pg.send_prepare(name, sql, [v.type for v in values])
            sent.append(_Sent(name, sql))
        return name

    def _answers(self, pg: PGconn, sent: Sequence[_Sent]) -> list[PGresult]:
        found: list[PGresult] = []
        failed: PGresult | None = None
        deadline, coming = time.monotonic() + SILENCE_SECONDS_MAX, iter(sent)
        while True:
            self._wait(pg, deadline)
            result = pg.get_result()
            if result is None:
                continue
            status = result.status
            if status == ExecStatus.PIPELINE_SYNC:
                break
            of = next(coming, _Sent())
            if status in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
                if of.name:
                    self._prepared[of.sql] = of.name
                elif of.is_wanted:
                    found.append(result)
            elif failed is None and status != ExecStatus.PIPELINE_ABORTED:
                failed = result
            if pg.status == ConnStatus.BAD:
                raise self._meaning(failed or result)
        if failed is not None:
            raise self._meaning(failed)
        return found

    def _wait(self, pg: PGconn, deadline: float) -> None:
        """Until an answer is there, sending meanwhile what the socket did not take at once."""
        while True:
            unsent = pg.flush()
            if not unsent and not pg.is_busy():
                return
            self._poll.modify(pg.socket, _BOTH if unsent else select.POLLIN)
            left = deadline - time.monotonic()
            if left <= 0:
                raise Unreachable(
                    f"{shown(self._where)} has been silent for {SILENCE_SECONDS_MAX:.0f} s"
                )
            if self._poll.poll(left * 1000):
                pg.consume_input()

    def _meaning(self, failed: PGresult) -> Exception:
        """What a refusal means to the engine."""
        state = (failed.error_field(DiagnosticField.SQLSTATE) or b"").decode()
        said = _line(failed.error_message.decode(errors="replace"))
        if state == _STALE:
            return StaleOwner(said)
        if state in _CONTENDED:
            return Contended(said)
        if state == _MOVING:
            return Conflict("moving", f"{shown(self._where)}: {said}.",
                            "Finish it: penstock migrate")  # fmt: skip
        if not state or state in _UNREACHABLE or state.startswith("08"):
            return Unreachable(f"{shown(self._where)} does not answer: {said}")
        if state.startswith("53"):
            return StorageFull(f"{shown(self._where)}: {said}")
        if state in _NOT_MIGRATED:
            return Conflict(
                "not_migrated", f"{shown(self._where)} lacks what this penstock needs: {said}.",
                "Run `penstock db migrate`.",
            )
        return _ours(state)(f"{state}: {said}")


class OurBug(psycopg.DatabaseError):
    """A refusal that nobody outside is to blame for, of a kind that has no name."""

    sqlstate = "XX000"


def _ours(state: str) -> type[psycopg.Error]:
    try:
        return pg_errors.lookup(state)
    except KeyError:
        return OurBug


def _line(error: object) -> str:
    """The first line of what was said, without the words that all of them begin with."""
    lines = str(error).strip().splitlines() or [""]
    return re.sub(r"^(ERROR|FATAL|PANIC):\s*", "", lines[0]).rstrip(".")
