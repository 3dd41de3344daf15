"""TLS and SASL are passed through: who may come in comes in, who may not is told what to do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from penstock.errors import Problem, Unreachable
from penstock.event import Message
from penstock.log.kafka import KafkaLog
from penstock.sim.servers.kafka import Cluster, User
from tests.kafka.rig import ALL, LETTERS, START, Desk, take_all
from tests.servers import absent_is_skipped
from tests.support import eventually

ANN = User("ann", "s3cret-of-ann")
WRONG = User("ann", "guessed")


@pytest.fixture(scope="module")
def safe() -> Iterator[Cluster]:
    """A broker that lets nobody in without a password or a token, over TLS."""
    tokens = {
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512,OAUTHBEARER",
        "listener.name.secure.oauthbearer.sasl.jaas.config":
            "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;",
    }  # fmt: skip
    with absent_is_skipped(), Cluster(users=[ANN], settings=tokens) as cluster:
        yield cluster


def desk_of(safe: Cluster, prefix: str, user: User, mechanism: str, **more: Any) -> Desk:
    client = safe.client_settings(user, mechanism) | more
    return Desk(client.pop("bootstrap.servers"), prefix, client=client)


def message(words: str) -> Message:
    return Message("k", words.encode())


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_a_user_writes_reads_and_joins(
    safe: Cluster, prefix: str, mechanism: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_KAFKA_PASSWORD", ANN.password)
    secret = {"sasl.password": "${SHOP_KAFKA_PASSWORD}"}
    desk = desk_of(safe, prefix, ANN, mechanism, **secret)
    log = desk.log()
    log.append("letters", [message("hello")], 0)
    lane = log.join("readers", ["letters"])
    assert take_all(lane, 1, START).records[0].message == message("hello")
    assert lane.take(1, {}).assigned == ALL
    assert log.plan() == []
    desk.close()


def refused(log: KafkaLog) -> list[Problem]:
    """What every call raises, quickly."""
    found = []
    for call in (
        lambda: log.ensure([LETTERS]), lambda: log.append("letters", [message("x")], 0),
        lambda: log.extent("letters"),
    ):  # fmt: skip
        began = time.monotonic()
        with pytest.raises(Problem) as told:
            call()
        assert time.monotonic() - began < 5
        found.append(told.value)
    return found


def test_a_wrong_password_is_the_callers_and_is_told_without_it(
    safe: Cluster, prefix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    desk = desk_of(safe, prefix, WRONG, "SCRAM-SHA-512")
    log = desk.quiet()
    for problem in refused(log):
        assert problem.code == "kafka_login"
        assert "sasl.*" in problem.fix
        assert WRONG.password not in str(problem)
    lane = log.join("readers", ["letters"])

    def told() -> bool:
        try:
            lane.take(1, START)
        except Problem as problem:
            return problem.code == "kafka_login"
        except Unreachable:
            return False
        return False

    eventually(told, 20)
    desk.close()
    assert capfd.readouterr() == ("", "")


def test_a_broker_that_nobody_vouches_for_is_not_spoken_to(safe: Cluster, prefix: str) -> None:
    client = safe.client_settings(ANN)
    servers = client.pop("bootstrap.servers")
    del client["ssl.ca.location"]
    desk = Desk(servers, prefix, client=client)
    with pytest.raises(Problem, match="certificate") as told:
        desk.quiet().ensure([LETTERS])
    assert told.value.code == "kafka_login"
    desk.close()


def test_a_token_lets_in_where_the_mechanism_is_oauthbearer(safe: Cluster, prefix: str) -> None:
    """The client library makes the token, or asks the issuer for it, as its settings say."""
    client = safe.client_settings(ANN, "OAUTHBEARER")
    servers = client.pop("bootstrap.servers")
    client = {k: v for k, v in client.items() if k not in ("sasl.username", "sasl.password")}
    client |= {
        "enable.sasl.oauthbearer.unsecure.jwt": "true",
        "sasl.oauthbearer.config": "principal=shop scope=orders",
    }
    desk = Desk(servers, prefix, client=client)
    log = desk.log()
    log.append("letters", [message("hello")], 0)
    assert len(take_all(log.join("readers", ["letters"]), 1).records) == 1
    desk.close()
