"""The servers of the tests are real: they keep what they acknowledged, and die when told to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import psycopg
import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from penstock.sim.servers.jars import COMPLETE, JAVA_OLDEST, jars, java
from penstock.sim.servers.kafka import PLAIN, SCRAM, Cluster, User
from penstock.sim.servers.postgres import Postgres
from penstock.sim.servers.process import Absent, NotStarted, Process, alive, descendants
from penstock.sim.servers.proxy import BLACKHOLE
from penstock.sim.servers.shared import shared
from tests.cluster.records import QUIET, make_topic, put, values
from tests.servers import absent_is_skipped
from tests.support import eventually

ANN, BEN = User("ann", "ann-secret"), User("ben", "ben-secret")


def test_the_broker_of_the_run_answers(kafka: str, prefix: str) -> None:
    there = {"bootstrap.servers": kafka}
    make_topic(there, f"{prefix}topic")
    assert put(there, f"{prefix}topic", "hello") == ""
    assert values(there, f"{prefix}topic", 1) == ["hello"]


def test_names_of_a_test_are_its_own(prefix: str, databases: Callable[[], str]) -> None:
    assert prefix.startswith("test-names-of-a-test-are-its-own-")
    assert databases() != databases()


def test_a_database_is_empty_and_takes_statements(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        assert connection.execute(tables).fetchone() == (0,)
        connection.execute("CREATE TABLE seen (id bigint PRIMARY KEY)")


def test_kill_and_restart_keep_an_acknowledged_record(own_kafka: Cluster) -> None:
    there, address = own_kafka.client_settings(), own_kafka.bootstrap
    make_topic(there, "kept")
    assert put(there, "kept", "before") == ""
    own_kafka.kill()
    assert put(there, "kept", "meanwhile", seconds=1) == "_MSG_TIMED_OUT"
    own_kafka.restart()
    assert own_kafka.bootstrap == address
    assert put(there, "kept", "after") == ""
    assert values(there, "kept", 2) == ["before", "after"]


def test_a_broker_that_stands_still_answers_when_it_goes_on(own_kafka: Cluster) -> None:
    there = own_kafka.client_settings()
    make_topic(there, "still")
    own_kafka.stand_still()
    assert put(there, "still", "lost", seconds=1) == "_MSG_TIMED_OUT"
    own_kafka.go_on()
    assert put(there, "still", "kept") == ""


@pytest.mark.kafka
def test_three_nodes_go_on_without_one_and_not_without_two() -> None:
    with absent_is_skipped(), Cluster(3) as cluster:
        there = cluster.client_settings()
        partition = make_topic(there, "three")
        assert sorted(partition.replicas) == [1, 2, 3]
        assert put(there, "three", "all") == ""
        cluster.kill(partition.leader)
        assert put(there, "three", "two of three") == ""
        cluster.kill(partition.leader % 3 + 1)
        assert put(there, "three", "one of three", seconds=3) != ""
        cluster.restart(partition.leader)
        assert put(there, "three", "two again") == ""
        found = values(there, "three", 3)
        assert found[:2] == ["all", "two of three"]
        assert found[-1] in ("two again", "one of three")


@pytest.mark.kafka
def test_users_come_in_by_plain_and_by_scram_over_tls() -> None:
    with absent_is_skipped(), Cluster(users=[ANN, BEN]) as cluster:
        make_topic(cluster.client_settings(), "secret")
        for user, mechanism in ((ANN, PLAIN), (BEN, SCRAM)):
            there = cluster.client_settings(user, mechanism)
            assert put(there, "secret", f"{user.name} by {mechanism}") == ""
        there = cluster.client_settings(ANN, SCRAM)
        assert values(there, "secret", 2) == ["ann by PLAIN", "ben by SCRAM-SHA-512"]
        for mechanism in (PLAIN, SCRAM):
            wrong = cluster.client_settings(User("ann", "guessed"), mechanism)
            assert refusal(wrong) == "_AUTHENTICATION"
        untrusted = cluster.client_settings(ANN)
        del untrusted["ssl.ca.location"]
        assert refusal(untrusted) == "_SSL"


def refusal(settings: dict[str, str]) -> str:
    """The error that a client is told when it may not come in."""
    told: list[str] = []
    client = AdminClient({
        **settings, **QUIET, "error_cb": lambda error: told.append(error.name())
    })  # fmt: skip

    def refused() -> bool:
        client.poll(0.1)
        with pytest.raises(KafkaException):
            client.list_topics(timeout=0.5)
        return any(name in ("_AUTHENTICATION", "_SSL") for name in told)

    eventually(refused, what="no refusal")
    return next(name for name in told if name in ("_AUTHENTICATION", "_SSL"))


def test_a_killed_database_keeps_what_it_committed(own_postgres: Postgres) -> None:
    dsn = own_postgres.create("kept")
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE seen (id bigint PRIMARY KEY)")
        connection.execute("INSERT INTO seen VALUES (1)")
        connection.commit()
        connection.execute("INSERT INTO seen VALUES (2)")
        backends = descendants(own_postgres.pid)
        own_postgres.kill()
        assert len(backends) > 3
        assert not any(map(alive, backends))
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    assert own_postgres.restart().dsn("kept") == dsn
    for address in (dsn, own_postgres.dsn("kept", socket=True)):
        with psycopg.connect(address) as connection:
            assert connection.execute("SELECT id FROM seen").fetchall() == [(1,)]


def test_a_backend_stands_still_alone(own_postgres: Postgres) -> None:
    address = own_postgres.dsn()
    with psycopg.connect(address) as still, psycopg.connect(address) as other:
        own_postgres.stand_still(still.info.backend_pid)
        still.pgconn.send_query(b"SELECT 1")
        assert other.execute("SELECT 1").fetchone() == (1,)
        still.pgconn.consume_input()
        assert still.pgconn.is_busy()
        own_postgres.go_on(still.info.backend_pid)
        answer = still.pgconn.get_result()
        assert answer is not None
        assert answer.get_value(0, 0) == b"1"
        assert still.pgconn.get_result() is None


def test_a_standby_takes_no_writes_and_promoted_lacks_what_did_not_reach_it(
    own_postgres: Postgres,
) -> None:
    with (
        psycopg.connect(own_postgres.dsn(), autocommit=True) as primary,
        own_postgres.proxy() as link,
        closing(own_postgres.standby(port=link.port)) as standby,
    ):
        primary.execute("CREATE TABLE seen (id bigint)")
        primary.execute("INSERT INTO seen VALUES (1)")
        eventually(lambda: seen(standby) == [(1,)], what="the row did not come over")
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), \
                psycopg.connect(standby.dsn()) as connection:  # fmt: skip
            connection.execute("INSERT INTO seen VALUES (2)")
        link.set(BLACKHOLE)
        primary.execute("INSERT INTO seen VALUES (3)")
        own_postgres.kill()
        standby.promote()
        with psycopg.connect(standby.dsn()) as connection:
            connection.execute("INSERT INTO seen VALUES (4)")
        assert seen(standby) == [(1,), (4,)]


def seen(server: Postgres) -> list[tuple[int]]:
    """The rows there, or none while there is no table."""
    with psycopg.connect(server.dsn()) as connection, suppress(psycopg.errors.UndefinedTable):
        return connection.execute("SELECT id FROM seen ORDER BY id").fetchall()
    return []


def test_a_slow_disk_makes_commits_late(own_postgres: Postgres) -> None:
    with psycopg.connect(own_postgres.dsn(), autocommit=True) as connection:
        connection.execute("CREATE TABLE seen (id bigint)")
        own_postgres.slow_disk(0.1)
        began = time.monotonic()
        for number in range(3):
            connection.execute("INSERT INTO seen VALUES (%s)", (number,))
        assert time.monotonic() - began >= 0.2  # the first may come before the word of it


@pytest.mark.postgres
def test_a_database_that_judges_no_durability_says_so() -> None:
    with (
        absent_is_skipped(),
        Postgres(durable=False, settings={"work_mem": "5MB"}) as server,
        psycopg.connect(server.dsn()) as connection,
    ):
        assert connection.execute("SHOW fsync").fetchone() == ("off",)
        assert connection.execute("SHOW work_mem").fetchone() == ("5MB",)
    assert not server.folder.exists()


STARTED = """
import sys, signal
from pathlib import Path
from penstock.sim.servers.postgres import Postgres
from penstock.sim.servers.process import Process
one = Process(["sleep", "600"], Path(sys.argv[1]) / "log")
one.start()
print(one.pid, Postgres(durable=False).start().pid, flush=True)
signal.pause()
"""


@pytest.mark.postgres
def test_servers_die_with_the_process_that_started_them(tmp_path: Path) -> None:
    with absent_is_skipped(), Postgres(durable=False):
        pass
    parent = subprocess.Popen(
        [sys.executable, "-c", STARTED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert all(map(alive, pids))
        parent.kill()
    eventually(lambda: not any(map(alive, pids)), what=f"{pids} outlived the kill")


def test_a_server_that_ends_at_once_shows_the_end_of_its_log(tmp_path: Path) -> None:
    process = Process(["sh", "-c", "echo out of luck; exit 3"], tmp_path / "log")
    process.start()
    with pytest.raises(NotStarted, match="out of luck"):
        process.until(lambda: False, seconds=10)
    process.kill()
    assert process.pid == 0


@pytest.mark.postgres
def test_what_is_shared_starts_once_and_stops_after_the_last(tmp_path: Path) -> None:
    with absent_is_skipped(), shared("postgres", tmp_path) as first:
        with shared("postgres", tmp_path) as second:
            assert first == second
        with psycopg.connect(first) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    eventually(lambda: not (tmp_path / "postgres.json").exists(), what="it was not stopped")
    with pytest.raises(psycopg.OperationalError), psycopg.connect(first):
        pass
    with shared("postgres", tmp_path) as again, psycopg.connect(again) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.postgres
def test_what_is_shared_starts_again_when_its_keeper_was_killed(tmp_path: Path) -> None:
    with absent_is_skipped(), shared("postgres", tmp_path) as first:
        (keeper,) = [pid for pid in descendants(os.getpid()) if keeps(pid, tmp_path)]
        os.kill(keeper, signal.SIGKILL)
        os.waitid(os.P_PID, keeper, os.WEXITED | os.WNOWAIT)  # with all its threads, and its locks
        with shared("postgres", tmp_path) as second, psycopg.connect(second) as connection:
            assert first != second
            assert connection.execute("SELECT 1").fetchone() == (1,)


def keeps(pid: int, folder: Path) -> bool:
    """Whether this process keeps what is shared in the folder."""
    return os.fsencode(folder) in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def test_what_cannot_be_shared_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(Absent, match="no Java here; apt-get install"), \
            shared("kafka", tmp_path):  # fmt: skip
        pass


def test_jars_are_asked_of_maven_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {"PENSTOCK_KAFKA_JARS": str(tmp_path / "jars")}
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Absent, match="name a folder that holds them by PENSTOCK_KAFKA_JARS"):
        jars(kept)
    (tmp_path / "jars" / COMPLETE).touch()
    assert jars(kept) == tmp_path / "jars"


def test_an_old_java_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "bin" / "java"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
    old.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(Absent, match=f"is Java 11, Kafka .* needs {JAVA_OLDEST}"):
        java()


@pytest.mark.kafka
@pytest.mark.postgres
def test_the_command_starts_both_and_ends_on_a_signal() -> None:
    with absent_is_skipped(), Postgres(durable=False):
        pass
    argv = [sys.executable, "-m", "penstock.sim.servers"]
    command = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with command:
        assert command.stdout is not None
        said = dict(command.stdout.readline().strip().split("=", 1) for _ in range(2))
        assert AdminClient({"bootstrap.servers": said["PENSTOCK_KAFKA"]}).list_topics(timeout=10)
        with psycopg.connect(said["PENSTOCK_POSTGRES"]) as connection:
            assert connection.info.dbname == "penstock"
        below = descendants(command.pid)
        os.kill(command.pid, signal.SIGTERM)
    assert command.returncode == 143
    assert not any(map(alive, below))
