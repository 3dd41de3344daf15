"""Errors of the client library, sorted: ours, the world's, the caller's."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError

from penstock.catalog.model import KafkaSettings
from penstock.errors import Corrupt, NotFound, Problem, StorageFull, Unreachable, Usage
from penstock.log.kafka import KafkaLog
from penstock.log.kafka_clients import client_settings
from penstock.log.kafka_errors import CALLERS, FULL, OURS, Ear, sorted_out
from penstock.ports import TopicSpec

E = KafkaError


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (E._TRANSPORT, Unreachable), (E._ALL_BROKERS_DOWN, Unreachable),
        (E.NOT_ENOUGH_REPLICAS, Unreachable), (E.NOT_LEADER_FOR_PARTITION, Unreachable),
        (E._PURGE_QUEUE, Unreachable), (E._GAPLESS_GUARANTEE, Unreachable),
        (E.OUT_OF_ORDER_SEQUENCE_NUMBER, Unreachable), (E.UNKNOWN, Unreachable),
        (E.KAFKA_STORAGE_ERROR, StorageFull), (E.THROTTLING_QUOTA_EXCEEDED, StorageFull),
        (E._BAD_MSG, Corrupt), (E._STATE, AssertionError), (E._INVALID_ARG, AssertionError),
        (E.UNKNOWN_TOPIC_OR_PART, NotFound), (E._UNKNOWN_TOPIC, NotFound),
        (E.TOPIC_AUTHORIZATION_FAILED, Problem), (E.GROUP_AUTHORIZATION_FAILED, Problem),
        (E._AUTHENTICATION, Problem), (E.SASL_AUTHENTICATION_FAILED, Problem),
        (E.MSG_SIZE_TOO_LARGE, Problem), (E.POLICY_VIOLATION, Problem),
    ],
)  # fmt: skip
def test_each_error_has_its_kind(code: int, kind: type[Exception]) -> None:
    found = sorted_out(KafkaError(code, "the broker's words"), "an append to letters", "letters")
    assert type(found) is kind
    assert "an append to letters" in str(found) or isinstance(found, NotFound)


def test_the_callers_errors_say_what_to_do() -> None:
    for code, (ours, fix) in CALLERS.items():
        found = sorted_out(KafkaError(code), "a join", "letters")
        assert isinstance(found, Problem)
        assert (found.code, found.fix) == (ours, fix)
        assert fix.endswith((".", "it."))


def test_no_error_is_in_two_places() -> None:
    assert not CALLERS.keys() & FULL
    assert not CALLERS.keys() & OURS


def test_an_ear_prints_nothing_and_knows_why(capfd: pytest.CaptureFixture[str]) -> None:
    ear = Ear()
    ear.error(KafkaError(E._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    ear.log(30, "%s [%s] %s", "FAIL", "rdkafka#1", "connection refused")
    assert ear.silent
    assert "connection refused" in str(ear.unanswered("an append"))
    ear.error(KafkaError(E._AUTHENTICATION, "invalid credentials"))
    with pytest.raises(Problem, match="invalid credentials"):
        ear.check("an append")
    ear.heard()
    ear.check("an append")
    assert not ear.silent
    assert capfd.readouterr() == ("", "")


def settings(**client: Any) -> KafkaSettings:
    return KafkaSettings(servers="b:9092", client=client)


def test_settings_are_passed_through_whichever_way_they_are_written() -> None:
    nested = {"sasl": {"mechanism": "PLAIN"}, "ssl": {"ca": {"location": "/ca.pem"}}}
    found = client_settings(settings(**{"security.protocol": "SASL_SSL"}, **nested), {})
    assert found["security.protocol"] == "SASL_SSL"
    assert (found["sasl.mechanism"], found["ssl.ca.location"]) == ("PLAIN", "/ca.pem")
    assert found["bootstrap.servers"] == "b:9092"


def test_secrets_come_from_the_environment() -> None:
    wanted = settings(**{"sasl.password": "${SHOP_SECRET}", "client.id": "shop-${WHERE}"})
    found = client_settings(wanted, {"SHOP_SECRET": "s3cret", "WHERE": "eu"})
    assert (found["sasl.password"], found["client.id"]) == ("s3cret", "shop-eu")


def test_a_secret_that_is_not_set_is_named() -> None:
    with pytest.raises(Usage, match=r"SHOP_SECRET\}, which is not set") as told:
        client_settings(settings(**{"sasl.password": "a${OTHER}b${SHOP_SECRET}"}), {"OTHER": "no"})
    assert "no" not in str(told.value).split()


@pytest.mark.parametrize("name", ["enable.idempotence", "group.id", "bootstrap.servers"])
def test_what_penstock_relies_on_cannot_be_set(name: str) -> None:
    with pytest.raises(Usage, match=name):
        client_settings(settings(**{name: "x"}), {})


def test_a_setting_the_client_does_not_know_is_told_of() -> None:
    log = KafkaLog(settings(**{"no.such.setting": 1}))
    with pytest.raises(Usage, match=r"no\.such\.setting"):
        log.ensure([TopicSpec(name="letters", partitions=4)])
