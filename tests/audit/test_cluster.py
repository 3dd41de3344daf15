"""The auditor on Kafka and PostgreSQL: a clean life is clean, and every crime that is done to the
real tables and topics is seen by its rule and by no rule that it does not concern."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from penstock.cli.main import run
from penstock.embedded.rows import message_bytes
from penstock.event import Message
from penstock.sim.audit.books import Books, Flaw
from penstock.sim.audit.cluster import Unfit, books_of_cluster, is_running
from penstock.sim.audit.index import Index
from penstock.sim.audit.platform import RULES
from penstock.sim.audit.tables import read_stores
from penstock.sim.audit.topics import Topics
from penstock.store import migrate
from tests.audit.cluster_shop import Raw, books, copied, did, live_on, raws, rewritten, where
from tests.audit.library_shop import (
    broken,
    buy,
    judged,
    keeping,
    leave,
    lend,
    open_library,
    tidy_up,
)
from tests.flows.ground import HastyClock, Servers
from tests.flows.library import CATALOG, SNAPSHOTS
from tests.servers import unique

HOUR_MS = 3_600_000
AGED = {"requests": 1.0, "scans": 1.0, "shelves": 1.0, "lending.answers": 1.0}


class Life(NamedTuple):
    """A library at rest on servers, its books and its records."""

    servers: Servers
    books: Books
    raws: list[Raw]


@pytest.fixture(scope="module")
def life(kafka: str, databases: Callable[[], str]) -> Life:
    """A life that all tests of a process share: they harm copies only."""
    servers = Servers(databases(), kafka, unique("audit", "-") + "-", [])
    migrate.apply(servers.dsn, None)
    live_on(servers)
    found = books(servers)
    return Life(servers, found, raws(servers, found.partitions))


def kinds(found: Books, rule: str) -> dict[str, int]:
    """What a rule examined, by kind."""
    return dict(next(r for r in judged(found).rules if r.id == rule).kinds)


def test_a_life_with_everything_in_it_is_clean(life: Life) -> None:
    report = judged(life.books)
    assert report.violations == []
    assert report.exit_code == 0
    assert report.asked_not == ()
    assert {rule.id for rule in report.rules} == {rule.id for rule in RULES} | {"I46"}
    assert kinds(life.books, "I26")["courier repeats"] == 1
    assert kinds(life.books, "I29")["letters"] >= 8


def test_nothing_runs_here(life: Life) -> None:
    assert not is_running(where(life.servers))


def test_what_was_pruned_away_is_missed_by_nobody(servers: Servers) -> None:
    """Marks, settled rows and doors that ended are gone; their records are still there."""
    clock = HastyClock()
    rig = open_library(servers, keeping(3600.0), clock)
    dropped = 0
    for turn in range(2):
        buy(rig, "emma")
        for n in range(3):
            lend(rig, f"r{turn}-{n}")
        for hours in (0.5, 2):
            rig.wait(int(hours * HOUR_MS))
            dropped += tidy_up(rig)
    assert dropped > 20
    leave(rig)
    found = books(servers, retention=dict.fromkeys(keeping(1).topics, 3600.0), now=clock.now())
    assert judged(found).violations == []
    assert min(Index(found).pruned.values()) > 30


# Crimes ------------------------------------------------------------------------------------------


class Crime(NamedTuple):
    """Statements, who must see what they did, and who may; ``how`` the audit is told more."""

    sql: str | tuple[str, ...]
    seen: str
    also: str = ""
    how: Mapping[str, Any] = MappingProxyType({})


def of(service: str) -> str:
    """The rows of a service."""
    return f"scope = (SELECT id FROM scopes WHERE service = '{service}')"


def latest(table: str, service: str, more: str = "true", by: str = "id") -> str:
    """The last row of a service that is so."""
    return (
        f"ctid = (SELECT ctid FROM {table} WHERE {of(service)} AND {more}"
        f" ORDER BY {by} DESC LIMIT 1)"
    )


NEVER_SENT = message_bytes(Message("mia", b"{}", b"\1" * 16, "letter.sent", 1, 7, b"\2" * 16))
CALL = "NOT is_topic AND destination = 'deposits'"
LETTER = "is_topic AND destination = 'letters'"
POSITIONS = (
    "INSERT INTO checkpoints SELECT scope, (SELECT max(txn) FROM owners), 1,"
    " jsonb_object_agg(lane::text, positions) FROM owners WHERE lane >= 0 AND "
)

CRIMES: dict[str, Crime] = {
    "a row is deleted": Crime(
        f"DELETE FROM outbox WHERE {latest('outbox', 'notices', LETTER)}", "I25"),
    "a row is settled and was never sent": Crime(
        "INSERT INTO outbox(scope, destination, is_topic, shard, key, name, idempotency_key, due,"
        " made_at, message, settled_at, outcome, txn, epoch, settled_txn)"
        " SELECT scope, destination, is_topic, shard, 'mia', '', '', 0, made_at,"
        f" '\\x{NEVER_SENT.hex()}', settled_at, 'sent', txn, epoch, settled_txn FROM outbox"
        f" WHERE {latest('outbox', 'notices', LETTER)}", "I24", "I23"),
    "a row is sent and still open": Crime(
        "UPDATE outbox SET settled_at = NULL, outcome = '', settled_txn = NULL"
        f" WHERE {latest('outbox', 'notices', LETTER)}", "I24", "I45"),
    "an answered call is open again": Crime(
        "UPDATE outbox SET settled_at = NULL, outcome = '', settled_txn = NULL, made_at = 1"
        f" WHERE {latest('outbox', 'lending', CALL)}", "I37", "I24 I45 I23"),
    "two calls under one key": Crime(
        f"UPDATE outbox SET idempotency_key = 'one' WHERE {of('lending')} AND {CALL}", "I37"),
    "a call has another name": Crime(
        f"UPDATE outbox SET name = 'give' WHERE {latest('outbox', 'lending', CALL)}", "I20"),
    "a call vanishes": Crime(
        f"DELETE FROM outbox WHERE {latest('outbox', 'lending', CALL)}", "I20"),
    "two rows of one thing": Crime(
        "INSERT INTO outbox(scope, destination, is_topic, shard, key, name, idempotency_key, due,"
        " made_at, message, settled_at, outcome, txn, epoch, settled_txn)"
        " SELECT scope, destination, is_topic, shard, key, name, idempotency_key, due, made_at,"
        " message, settled_at, outcome, txn, epoch, settled_txn FROM outbox"
        f" WHERE {latest('outbox', 'notices', LETTER)}", "I26"),
    "a row of another transaction": Crime(
        f"UPDATE outbox SET txn = 3 WHERE {latest('outbox', 'notices', LETTER)}", "I23"),
    "a row of another epoch": Crime(
        f"UPDATE outbox SET epoch = 7 WHERE {latest('outbox', 'notices', LETTER)}", "I28", "I23"),
    "a row says something else than its record": Crime(
        f"UPDATE outbox SET message = '\\x{NEVER_SENT.hex()}', key = 'mia'"
        f" WHERE {latest('outbox', 'notices', LETTER)}", "I24", "I25 I23"),
    "a mark is dropped": Crime(
        f"DELETE FROM marks WHERE {latest('marks', 'lending', by='txn')}", "I22", "I23"),
    "a mark of what never was": Crime(
        "INSERT INTO marks SELECT scope, '\\x3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f', txn, 99, epoch"
        f" FROM marks WHERE {latest('marks', 'lending', by='txn')}", "I22"),
    "a mark of an epoch to come": Crime(
        f"UPDATE marks SET epoch = 9 WHERE {latest('marks', 'notices', by='txn')}", "I28", "I23"),
    "a later record was handled first": Crime(
        "UPDATE marks m SET txn = o.txn, ordinal = o.ordinal FROM marks o"
        " WHERE m.scope = o.scope AND m.id <> o.id AND m.id = ANY(ARRAY[{l0}]::bytea[])"
        f" AND o.id = ANY(ARRAY[{{l0}}]::bytea[]) AND m.{of('notices')}", "I16", "I23 I28"),
    "the epoch of an owner is set back": Crime(
        f"UPDATE owners SET epoch = 0 WHERE {of('notices')}", "I28"),
    "a position past the end": Crime(
        "UPDATE owners SET positions = jsonb_set(positions, '{loans}', '99')"
        f" WHERE {of('notices')} AND lane = 2", "I22"),
    "a position falls back": Crime(
        "UPDATE owners SET positions = jsonb_set(positions, '{loans}', '0')"
        f" WHERE {of('notices')} AND lane >= 0", "I22", "I45 I30"),
    "a position lags at rest": Crime(
        "UPDATE owners SET positions = jsonb_set(positions, '{journal}', '0')"
        f" WHERE {of('notices')} AND lane >= 0", "I45", "I22 I31 I30"),
    "a document of a transaction to come": Crime(
        f"UPDATE documents SET txn = 99999 WHERE {latest('documents', 'lending', by='txn')}",
        "I23"),
    "a document of another epoch than its transaction": Crime(
        f"UPDATE documents SET epoch = 0 WHERE {latest('documents', 'lending', by='txn')}", "I23"),
    "a held record vanishes": Crime(
        f"DELETE FROM waiting WHERE {of('lending')} AND state = 'waiting'", "I22"),
    "a parked record vanishes": Crime(
        f"DELETE FROM waiting WHERE {of('lending')}", "I29", "I22 I31"),
    "a parked record of another commit": Crime(
        f"UPDATE waiting SET txn = 3 WHERE {of('notices')} AND key = 'open'", "I30", "I23"),
    "a discarded record is let go": Crime(
        f"DELETE FROM marks WHERE {of('notices')} AND id = ANY(ARRAY[{{discarded}}]::bytea[])",
        "I31", "I22"),
    "a held record has other bytes": Crime(
        f"UPDATE waiting SET message = '\\x{NEVER_SENT.hex()}', key = 'mia'"
        f" WHERE {of('notices')} AND key = 'open'", "I21", "I22 I29"),
    "a story without an end": Crime(
        "UPDATE waiting SET errors = (SELECT json_agg(json_build_array(1, 'no'))"
        " FROM generate_series(1, 50))"
        f" WHERE {of('notices')} AND key = 'open'", "I44"),
    "positions that are none": Crime(
        f"UPDATE owners SET positions = '{{\"loans\": \"x\"}}' WHERE {of('notices')} AND lane = 2",
        "I22", "I45 I30"),
    "a mark is forgotten too early": Crime(
        (POSITIONS + of("lending") + " GROUP BY scope",
         "DELETE FROM marks WHERE ctid = (SELECT ctid FROM marks WHERE "
         + of("lending") + " ORDER BY txn LIMIT 1)"), "I27", "I22",
        {"retention": AGED, "now": 1 << 45}),
}  # fmt: skip


def ids(life: Life, of_: str) -> str:
    """Ids as PostgreSQL writes them: of the first two loans facts of l0, or of what was
    discarded."""
    if of_ == "l0":
        found = [f.id for f in life.books.topics["loans"] if f.key == "l0"][:2]
    else:
        letters = life.books.topics["notices.dead"]
        found = [bytes.fromhex(f.said["event_id"]) for f in letters if f.type == "dead.discarded"]
    return ", ".join(f"'\\x{id_.hex()}'" for id_ in found)


@pytest.mark.parametrize("name", CRIMES)
def test_a_crime_in_the_tables_is_seen_and_nothing_else(life: Life, name: str) -> None:
    crime = CRIMES[name]
    statements = (crime.sql,) if isinstance(crime.sql, str) else crime.sql
    with copied(life.servers) as harmed:
        for of_ in ("l0", "discarded"):
            named = "{" + of_ + "}"
            statements = tuple(s.replace(named, ids(life, of_)) for s in statements)
        assert did(harmed, *statements)
        flaws: list[Flaw] = []
        stores = read_stores(harmed.dsn, "penstock", flaws)
    found = broken(life.books._replace(stores=stores, flaws=flaws, **crime.how))
    assert crime.seen in found
    assert found <= {crime.seen, *crime.also.split()}


def read_again(life: Life, harmed: Servers) -> Books:
    """The books with the topics of another prefix."""
    flaws: list[Flaw] = []
    topics = Topics(harmed.cluster.client_settings(), harmed.prefix, flaws, {})
    topics.read(life.books.partitions)
    return life.books._replace(topics=topics.facts, first=topics.first, flaws=flaws)


def last(records: list[Raw], type_: str) -> int:
    """Where the last record of a type is."""
    return max(n for n, r in enumerate(records) if r.header("ce_type") == type_.encode())


def changed(type_: str, change: Callable[[Raw], Raw]) -> Callable[[list[Raw]], list[Raw]]:
    """The last record of a type is another."""

    def do(records: list[Raw]) -> list[Raw]:
        n = last(records, type_)
        records[n] = change(records[n])
        return records

    return do


def vanished(records: list[Raw]) -> list[Raw]:
    """An acknowledged letter is not there."""
    del records[last(records, "letter.sent")]
    return records


def forged(records: list[Raw]) -> list[Raw]:
    """Somebody writes a letter of their own."""
    copy = records[last(records, "letter.sent")]
    return [*records, copy.saying(ce_id="77" * 16)]


def repeated(records: list[Raw]) -> list[Raw]:
    """A courier carries a letter a second time."""
    return [*records, records[last(records, "letter.sent")]]


def changed_places(records: list[Raw]) -> list[Raw]:
    """Two facts of one key change places; the times stay where they were."""
    a, b = [n for n, r in enumerate(records) if (r.topic, r.key) == ("loans", b"l0")][:2]
    first, then = records[a], records[b]
    records[a], records[b] = (
        then._replace(timestamp=first.timestamp), first._replace(timestamp=then.timestamp)
    )
    return records


def elsewhere(raw: Raw) -> Raw:
    """The record in another partition than its key's."""
    return raw._replace(partition=(raw.partition + 1) % 4)


def under(origin: Callable[[int, int], str]) -> Callable[[Raw], Raw]:
    """The record names another transaction or epoch."""

    def change(raw: Raw) -> Raw:
        cause, _, made = raw.header("penstock-origin").decode().partition("-")
        txn, _, epoch = made.partition(".")
        return raw.saying(penstock_origin=f"{cause}-{origin(int(txn), int(epoch))}")

    return change


def spelled_anew(raw: Raw) -> Raw:
    """The same value in other bytes."""
    return raw._replace(value=json.dumps(json.loads(raw.value), indent=1).encode())


HARM: dict[str, tuple[Callable[[list[Raw]], list[Raw]], str, str]] = {
    "a record vanishes": (vanished, "I24", "I22 I45"),
    "a forged record": (forged, "I25", "I20 I23"),
    "two facts of a key change places": (changed_places, "I16", "I20 I21 I22 I23 I24 I30"),
    "a record in another partition": (changed("letter.sent", elsewhere), "I17", "I24"),
    "a transaction that it was not": (
        changed("letter.sent", under(lambda txn, epoch: f"{txn - 1}.{epoch}")), "I23", "I16 I20"),
    "an epoch that nobody has": (
        changed("letter.sent", under(lambda txn, epoch: f"{txn}.{epoch + 9}")), "I28", "I23"),
    "other bytes than the row's": (changed("letter.sent", spelled_anew), "I21", ""),
    "a value that is no JSON": (
        changed("letter.sent", lambda r: r._replace(value=b"{")), "I36", "I21"),
    "another time than its cause's": (
        changed("letter.sent", lambda r: r.saying(ce_time="2026-01-01T00:00:00.000Z")), "I20", ""),
    "an id that is none": (
        changed("letter.sent", lambda r: r.saying(ce_id="no id")), "I24", "I25 I22"),
}  # fmt: skip


@pytest.mark.parametrize("name", HARM)
def test_a_crime_in_the_topics_is_seen_and_nothing_else(life: Life, name: str) -> None:
    does, seen, also = HARM[name]
    harmed = rewritten(life.servers, life.books.partitions, life.raws, does)
    found = broken(read_again(life, harmed))
    assert seen in found
    assert found <= {seen, *also.split()}


def test_a_copy_with_a_repeat_in_it_is_clean(life: Life) -> None:
    harmed = rewritten(life.servers, life.books.partitions, life.raws, repeated)
    found = read_again(life, harmed)
    assert judged(found).violations == []
    assert kinds(found, "I26")["courier repeats"] == 2


def test_every_rule_has_a_crime() -> None:
    by_broker = {"I18", "I19"}  # offsets and bytes are the broker's: tests/audit/test_topics.py
    seen = {crime.seen for crime in CRIMES.values()} | {seen for _, seen, _ in HARM.values()}
    assert seen | by_broker == {rule.id for rule in RULES}


# The command -------------------------------------------------------------------------------------


def audited(
    life: Life, folder: Path, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, dict[str, Any]]:
    """`penstock audit` by a catalog that names the servers; there is no home."""
    text = CATALOG.read_text().replace('"contracts"', json.dumps(str(SNAPSHOTS)), 1)
    servers = life.servers
    catalog = folder / "catalog.toml"
    catalog.write_text(
        f'{text}\n[kafka]\nservers = "{servers.kafka}"\nprefix = "{servers.prefix}"\n'
        f"[postgres]\ndsn = {json.dumps(servers.dsn)}\n"
    )
    where_ = ["--catalog", str(catalog), "--home", str(folder / "none")]
    code = run([*where_, "audit", "-o", "json", *words])
    out = capsys.readouterr().out
    return code, json.loads(out) if out else {}


def test_the_command_audits_the_cluster_that_the_catalog_names(
    life: Life, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, report = audited(life, tmp_path, capsys)
    assert [rule["id"] for rule in report["rules"] if rule["violations"]] == []
    assert code == 0
    assert report["until"] is None
    assert audited(life, tmp_path, capsys, "--against", str(tmp_path))[0] == 2


def test_a_cluster_in_use_is_noticed(
    life: Life, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with copied(life.servers) as used:
        did(used, "INSERT INTO reports VALUES ('worker', now(), '')")
        code, report = audited(life._replace(servers=used), tmp_path, capsys)
    assert code == 0
    assert report["until"]
    assert {"id": "I45", "why": "work may be under way"} in report["asked_not"]


# What is not there -------------------------------------------------------------------------------


def test_a_cluster_that_is_not_there_is_said(life: Life, tmp_path: Path) -> None:
    there = where(life.servers)
    with pytest.raises(Unfit, match="database does not answer"):
        books_of_cluster(there._replace(dsn=life.servers.dsn + " port=1"), tmp_path)
    with pytest.raises(Unfit, match="has no topic nowhere-"):
        books_of_cluster(there._replace(prefix="nowhere-"), tmp_path)
    with pytest.raises(Unfit, match="tables cannot be read"):
        books_of_cluster(there._replace(schema="nowhere"), tmp_path)
    with pytest.raises(Unfit, match="letters are Avro, and no contracts"):
        books_of_cluster(there._replace(avro=frozenset(["letters"])), tmp_path)
