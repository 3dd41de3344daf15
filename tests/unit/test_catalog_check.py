"""The rules of a catalog, one broken at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from penstock.catalog.check import check
from penstock.catalog.implied import with_implied
from penstock.catalog.load import load_catalog
from penstock.catalog.model import (
    Breaker,
    Catalog,
    Client,
    GatewayEntry,
    JournalSettings,
    KafkaSettings,
    Platform,
    PostgresSettings,
    RetryPolicy,
    Sandbox,
    ServiceEntry,
    Slo,
    Stage,
    Team,
    Topic,
)

TEAM = Team(name="deck", contacts=("deck@ferry.example",), on_call=("mate",))
TICKETS = Topic(name="tickets", owner="deck", producer="gate", key="ticket")
TRIPS = Topic(name="trips", owner="deck", producer="captain", key="ticket")
GATE = ServiceEntry(name="gate", owner="deck", writes=("tickets",))
CAPTAIN = ServiceEntry(
    name="captain", owner="deck", handler="ferry:SERVICE", reads=("tickets",), writes=("trips",),
    asks=("radio", "clock"),
)  # fmt: skip
RADIO = GatewayEntry(name="radio", owner="deck", handler="ferry.radio:gateway")
CROSSING = Stage(name="crossing", services=("gate",), rto_seconds=60, rpo_seconds=0)


def catalog(
    topics: tuple[Topic, ...] = (TICKETS, TRIPS),
    services: tuple[ServiceEntry, ...] = (GATE, CAPTAIN),
    **other: Any,
) -> Catalog:
    """A sound catalog, with its implied topics, with some parts replaced."""
    parts: dict[str, Any] = {
        "name": "ferry", "flow": "ferry:FLOW", "platform": Platform(owner="deck"),
        "teams": {"deck": TEAM}, "gateways": {"radio": RADIO}, "stages": {"crossing": CROSSING},
    }  # fmt: skip
    parts |= {"topics": {t.name: t for t in topics}, "services": {s.name: s for s in services}}
    return with_implied(Catalog(**(parts | other)))


def told(found: Catalog) -> dict[str, str]:
    """Key to message of everything that breaks a rule."""
    return {".".join(flaw.path): f"{flaw.message} {flaw.hint}" for flaw in check(found)}


def with_topic(**changes: Any) -> Catalog:
    return catalog(topics=(replace(TICKETS, **changes), TRIPS))


def with_captain(**changes: Any) -> Catalog:
    return catalog(services=(GATE, replace(CAPTAIN, **changes)))


def with_radio(**changes: Any) -> Catalog:
    return catalog(gateways={"radio": replace(RADIO, **changes)})


def test_a_sound_catalog_breaks_no_rule() -> None:
    assert told(catalog()) == {}


def test_the_shipped_catalog_breaks_no_rule() -> None:
    assert check(load_catalog()) == []


def one_key(found: Catalog, key: str, said: str) -> None:
    """Exactly this key is told of, with these words."""
    assert set(told(found)) == {key}
    assert said in told(found)[key]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"servers": ""}, "servers"), ({"servers": "kafka"}, "servers"),
        ({"servers": "a:9092, ,b:9092"}, "servers"), ({"prefix": "shop/"}, "prefix"),
        ({"replication": 0}, "replication"), ({"replication": 3, "min_insync": 4}, "min_insync"),
        ({"min_insync": 0}, "min_insync"), ({"registry": "registry:8081"}, "registry"),
    ],
)  # fmt: skip
def test_a_kafka_cluster_can_be_found(changes: dict[str, Any], key: str) -> None:
    sound = KafkaSettings(
        servers="a:9092, [::1]:9092", prefix="shop-", registry="https://r", client={"x": 1}
    )
    assert told(catalog(kafka=sound)) == {}
    assert set(told(catalog(kafka=replace(sound, **changes)))) == {f"kafka.{key}"}


def test_a_database_can_be_found() -> None:
    one_key(catalog(postgres=PostgresSettings(dsn=" ")), "postgres.dsn", "empty")


def test_what_others_write_is_a_type_and_a_version() -> None:
    assert told(with_topic(accepts="ticket.sold/12", wire="avro", replication=3)) == {}
    for accepts in ("ticket.sold", "ticket.sold/0", "Ticket/1", "/1"):
        one_key(with_topic(accepts=accepts), "topics.tickets.accepts", "order.placed/1")
    one_key(with_topic(replication=0), "topics.tickets.replication", "at least 1")


@pytest.mark.parametrize("partitions", [0, -4, 3, 2048])
def test_partitions_are_powers_of_two_within_the_limit(partitions: int) -> None:
    one_key(with_topic(partitions=partitions), "topics.tickets.partitions", "power of two")


def test_all_topics_one_service_reads_have_one_count() -> None:
    more = Topic(name="tides", owner="deck", producer="gate", key="port", partitions=8)
    services = (
        replace(GATE, writes=("tickets", "tides")),
        replace(CAPTAIN, reads=("tickets", "tides")),
    )
    one_key(catalog((TICKETS, TRIPS, more), services), "services.captain.reads", "tides 8")


def test_a_topic_that_nobody_reads_may_have_any_count() -> None:
    assert told(catalog((TICKETS, replace(TRIPS, partitions=16)))) == {}


@pytest.mark.parametrize(
    ("changes", "key", "said"),
    [
        ({"owner": "dekc"}, "owner", "Did you mean deck?"),
        ({"producer": "gaet"}, "producer", "Did you mean gate?"),
        ({"producer": "any"}, "producer", "there is no service"),
        ({"retention_seconds": 0.0}, "retention_seconds", "above 0"),
        ({"retention_bytes": -1}, "retention_bytes", "above 0"),
    ],
)
def test_a_topic(changes: Mapping[str, Any], key: str, said: str) -> None:
    one_key(with_topic(**changes), f"topics.tickets.{key}", said)


def test_a_topic_is_written_by_its_producer_and_by_nobody_else() -> None:
    greedy = replace(CAPTAIN, writes=("trips", "tickets"))
    one_key(catalog(services=(GATE, greedy)), "services.captain.writes.1", "produced by gate")
    silent = replace(CAPTAIN, writes=())
    one_key(catalog(services=(GATE, silent)), "topics.trips.producer", "does not list trips")


def test_dead_letters_are_written_by_their_own_service() -> None:
    dead = Topic(name="captain.dead", owner="deck", producer="gate", key="any")
    gate = replace(GATE, writes=("tickets", "captain.dead"))
    found = catalog((TICKETS, TRIPS, dead), (gate, CAPTAIN))
    one_key(found, "topics.captain.dead.producer", "must be captain")


def test_the_journal_is_written_by_the_platform_and_has_an_owner() -> None:
    journal = Topic(name="journal", owner="deck", producer="gate", key="it")
    one_key(
        catalog((TICKETS, TRIPS, journal), (replace(GATE, writes=("tickets", "journal")), CAPTAIN)),
        "topics.journal.producer", "must be journal",
    )  # fmt: skip
    assert "is missing" in told(catalog(platform=None))["platform.owner"]


@pytest.mark.parametrize(
    ("changes", "key", "said"),
    [
        ({"retention_seconds": 9.0}, "retention_seconds", "kept whole"),
        ({"retention_bytes": 9}, "retention_bytes", "kept whole"),
        ({"wire": "avro"}, "wire", "must be json"),
    ],
)
def test_the_journal_is_kept_whole(changes: Mapping[str, Any], key: str, said: str) -> None:
    journal = Topic(name="journal", owner="deck", producer="journal", key="it", **changes)
    one_key(catalog((TICKETS, TRIPS, journal)), f"topics.journal.{key}", said)


@pytest.mark.parametrize(
    ("changes", "key", "said"),
    [
        ({"checkpoint_url": "ftp://x"}, "checkpoint_url", "no address"),
        ({"checkpoint_file": "kept"}, "checkpoint_file", "no full path"),
        ({"checkpoint_every": 0}, "checkpoint_every", "at least 1"),
        ({"checkpoint_seconds": 0.0}, "checkpoint_seconds", "at least 1"),
    ],
)
def test_witnesses_can_be_reached(changes: Mapping[str, Any], key: str, said: str) -> None:
    one_key(catalog(journal=JournalSettings(**changes)), f"journal.{key}", said)


def test_witnesses_become_gateways_that_the_journal_asks() -> None:
    named = JournalSettings(checkpoint_file="/mnt/kept", checkpoint_url="https://w.example/seen")
    found = catalog(journal=named)
    assert found.services["journal"].asks == ("clock", "checkpoint-file", "checkpoint-url")
    assert found.gateways["checkpoint-file"].settings == {"path": "/mnt/kept"}
    assert found.gateways["checkpoint-url"].settings == {"url": "https://w.example/seen"}
    assert check(found) == []
    assert catalog().services["journal"].asks == ()


@pytest.mark.parametrize(
    ("changes", "key", "said"),
    [
        ({"reads": ("tikets",)}, "reads.0", "Did you mean tickets?"),
        ({"reads": ("tickets", "tickets")}, "reads.1", "twice"),
        ({"asks": ("raido",)}, "asks.0", "Did you mean radio?"),
        ({"owner": ""}, "owner", "Known: deck."),
        ({"handler": "ferry.SERVICE"}, "handler", "package.module:NAME"),
        ({"handler": "ferry:SER-VICE"}, "handler", "package.module:NAME"),
        ({"workers": 0}, "workers", "at least 1"),
        ({"batch": 1_000_000}, "batch", "at most 2000"),
        ({"retry": RetryPolicy(attempts=0)}, "retry.attempts", "at least 1"),
        ({"retry": RetryPolicy(first_delay_seconds=0)}, "retry.first_delay_seconds", "above 0"),
        ({"retry": RetryPolicy(factor=0.5)}, "retry.factor", "at least 1"),
        ({"retry": RetryPolicy(max_delay_seconds=0.5)}, "retry.max_delay_seconds", "at least 1"),
        ({"slo": Slo(latency_seconds=1, objective=1)}, "slo.objective", "between 0 and 1"),
        ({"slo": Slo(latency_seconds=0, objective=0.9)}, "slo.latency_seconds", "above 0"),
    ],
)
def test_a_service(changes: Mapping[str, Any], key: str, said: str) -> None:
    found = {k: v for k, v in told(with_captain(**changes)).items() if k.startswith("services")}
    assert set(found) == {f"services.captain.{key}"}
    assert said in found[f"services.captain.{key}"]


def test_a_service_without_a_handler_reads_nothing() -> None:
    gate = replace(GATE, reads=("trips",))
    one_key(catalog(services=(gate, CAPTAIN)), "services.gate.reads", "has no handler")


@pytest.mark.parametrize(
    ("changes", "key", "said"),
    [
        ({"handler": "radio"}, "handler", "package.module:NAME"),
        ({"rate": 0.0}, "rate", "above 0"),
        ({"max_in_flight": 0}, "max_in_flight", "at least 1"),
        ({"timeout_seconds": 0.0}, "timeout_seconds", "above 0"),
        ({"timeout_seconds": 9.0, "buffer_seconds": 9.0}, "buffer_seconds", "above timeout"),
        ({"breaker": Breaker(failures=0)}, "breaker.failures", "at least 1"),
        ({"breaker": Breaker(open_seconds=0)}, "breaker.open_seconds", "above 0"),
        ({"retry": RetryPolicy(attempts=3)}, "retry.attempts", "buffer_seconds is their bound"),
        ({"settings": {"url": "{radio_ulr}"}}, "settings.url", "Did you mean radio_url?"),
        ({"settings": {"url": "{"}}, "settings.url", "Write {{ and }}"),
        ({"sandbox": Sandbox(module="a-b")}, "sandbox.module", "package.module"),
        ({"sandbox": Sandbox(module="a", sets={"x": "{prot}"})}, "sandbox.sets.x", "mean port?"),
    ],
)
def test_a_gateway(changes: Mapping[str, Any], key: str, said: str) -> None:
    box = Sandbox(module="ferry.box", sets={"radio_url": "http://{host}:{port}"})
    found = with_radio(**({"sandbox": box} | dict(changes)))
    one_key(found, f"gateways.radio.{key}", said)


def test_the_clock_is_built_in() -> None:
    gateways = {"radio": RADIO, "clock": replace(RADIO, name="clock")}
    one_key(catalog(gateways=gateways), "gateways.clock", "built in")


def test_a_stage() -> None:
    bad = Stage(name="crossing", services=("gaet",), rto_seconds=0, rpo_seconds=-1)
    assert set(told(catalog(stages={"crossing": bad}))) == {
        "stages.crossing.services.0", "stages.crossing.rto_seconds", "stages.crossing.rpo_seconds",
    }  # fmt: skip


def test_a_client_may_hold_declared_permissions_only() -> None:
    clients = {"local": Client(name="local", may=("board", "bord"))}
    one_key(catalog(clients=clients, permissions=("board",)), "clients.local.may.1", "mean board?")


def test_a_team_can_be_reached() -> None:
    nobody = {"deck": replace(TEAM, contacts=(), on_call=(" ",))}
    assert set(told(catalog(teams=nobody))) == {"teams.deck.contacts", "teams.deck.on_call.0"}


@pytest.mark.parametrize("name", ["../up", "Gate", "g" * 65, "", "gate.dead", "journal"])
def test_a_service_name_is_plain_and_free(name: str) -> None:
    found = catalog((TICKETS, TRIPS), (GATE, CAPTAIN, ServiceEntry(name=name, owner="deck")))
    one_key(found, f"services.{name}", "")
    assert check(found)


def test_the_worst_case_of_a_retry_policy() -> None:
    policy = RetryPolicy(attempts=5, first_delay_seconds=1, factor=2, max_delay_seconds=4)
    assert policy.worst_case_seconds() == 1 + 2 + 4 + 4
    assert policy.attempts_within(11) == 5
    assert RetryPolicy(attempts=1).worst_case_seconds() == 0


def test_a_policy_of_very_many_attempts_never_overflows() -> None:
    policy = RetryPolicy(attempts=1_000_000, first_delay_seconds=0.5, max_delay_seconds=2)
    assert policy.delay_seconds(999_999) == 2
    assert policy.worst_case_seconds() == 0.5 + 1 + 999_997 * 2
    assert policy.attempts_within(11.5) == 1 + 2 + 5
