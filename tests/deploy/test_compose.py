"""compose.yaml: what a laptop gets. No Compose is at hand where the tests run, so its structure is
held here by hand; merge keys are resolved by the YAML reader as Compose does."""

from __future__ import annotations

import ipaddress
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from psycopg.conninfo import conninfo_to_dict

from penstock.assemble.cluster import KAFKA_VARIABLE, POSTGRES_VARIABLE
from penstock.assemble.processes import OUTSIDE_VARIABLE
from penstock.catalog.load import load_catalog
from penstock.limits import DRAIN_SECONDS_MAX
from tests.deploy.composed import composed
from tests.deploy.dockerfile import ROOT, ours
from tests.servers import absent_is_skipped
from tests.support import eventually

SERVICE_KEYS = {
    "build", "cap_drop", "command", "depends_on", "entrypoint", "environment", "healthcheck",
    "image", "network_mode", "ports", "profiles", "read_only", "restart", "security_opt",
    "stop_grace_period", "tmpfs", "volumes",
}  # fmt: skip
HEALTH_KEYS = {"test", "interval", "timeout", "start_period", "start_interval", "retries"}
CONDITIONS = {"service_started", "service_healthy", "service_completed_successfully"}
SECONDS = re.compile(r"\d+s")
Service = dict[str, Any]


@pytest.fixture(scope="module")
def services() -> dict[str, Service]:
    """Every service, by name."""
    document = yaml.safe_load((ROOT / "compose.yaml").read_text())
    assert {k for k in document if not k.startswith("x-")} == {"name", "services", "volumes"}
    found: dict[str, Service] = document["services"]
    for name, one in found.items():
        assert one.keys() <= SERVICE_KEYS, name
        mounted = {v.partition(":")[0] for v in one.get("volumes", ())}
        assert {m for m in mounted if not m.startswith("./")} <= document["volumes"].keys()
        assert all((ROOT / m).exists() for m in mounted if m.startswith("./"))
    return found


def ours_of(services: dict[str, Service]) -> dict[str, Service]:
    """The containers that run penstock."""
    return {name: one for name, one in services.items() if one["image"] == "penstock"}


def published(one: Service) -> dict[int, tuple[str, int]]:
    """Ports of this machine, by the container's."""
    parts = (port.split(":") for port in one.get("ports", ()))
    return {int(inside): (address, int(outside)) for address, outside, inside in parts}


def test_images_are_exact_or_built_here(services: dict[str, Service]) -> None:
    for one in services.values():
        if one["image"] == "penstock":
            assert one["build"] == "."
        else:
            assert re.search(r":\d+\.\d+(\.\d+)?(-\w+)?$", one["image"])


def test_ports_are_this_machines_alone(services: dict[str, Service]) -> None:
    places = [place for one in services.values() for place in published(one).values()]
    assert {port for _, port in places} == {9092, 5432, 8080}
    assert all(ipaddress.ip_address(address).is_loopback for address, _ in places)


def test_a_bare_up_starts_the_two_servers(services: dict[str, Service]) -> None:
    bare = {name for name, one in services.items() if not one.get("profiles")}
    assert bare == {"kafka", "postgres"}
    for name in bare:
        assert services[name]["healthcheck"]["test"][0] == "CMD"
        assert services[name]["volumes"]


def test_the_command_in_its_head_fits(services: dict[str, Service]) -> None:
    head = (ROOT / "compose.yaml").read_text().partition("\nname:")[0]
    dsn = re.search(r"--postgres (\S+)", head)
    assert dsn is not None
    _check_dsn(dsn[1], services, "localhost")
    assert "--kafka localhost:9092" in head
    assert "HOST://localhost:9092" in services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert published(services["kafka"]) == {9092: ("127.0.0.1", 9092)}


def _check_dsn(dsn: str, services: dict[str, Service], host: str) -> None:
    said, wanted = conninfo_to_dict(dsn), services["postgres"]["environment"]
    assert said == {
        "user": wanted["POSTGRES_USER"], "password": wanted["POSTGRES_PASSWORD"],
        "dbname": wanted["POSTGRES_DB"], "host": host, "port": "5432",
    }  # fmt: skip


def test_kafkas_listeners_agree(services: dict[str, Service]) -> None:
    said = services["kafka"]["environment"]
    listeners = dict(part.split("://") for part in said["KAFKA_LISTENERS"].split(","))
    told = dict(part.split("://") for part in said["KAFKA_ADVERTISED_LISTENERS"].split(","))
    secured = {p.split(":")[0] for p in said["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(",")}
    assert listeners.keys() == secured
    assert listeners.keys() - told.keys() == {said["KAFKA_CONTROLLER_LISTENER_NAMES"]}
    for name, address in told.items():
        assert f":{address.rpartition(':')[2]}" == listeners[name]
    assert said["KAFKA_CONTROLLER_QUORUM_VOTERS"] == f"1@kafka{listeners['CONTROLLER']}"
    assert said["KAFKA_INTER_BROKER_LISTENER_NAME"] in told
    assert len(said["CLUSTER_ID"]) == 22


@pytest.mark.kafka
def test_its_kafka_starts_and_keeps_a_groups_offsets(
    services: dict[str, Service], tmp_path: Path
) -> None:
    environment = services["kafka"]["environment"]
    with absent_is_skipped(), composed(environment, tmp_path / "node") as address:
        client = {"bootstrap.servers": address, "log_level": 0}
        admin = AdminClient(client)
        admin.create_topics([NewTopic("books", 4)])["books"].result(30)
        admin.list_topics("boks", timeout=30)
        made = admin.list_topics(timeout=30).topics.keys()
        assert made == {"books"}, "none is made by asking for it"
        reader = Consumer({**client, "group.id": "g"})
        eventually(lambda: committed(reader), 30, what="its group has a coordinator")
        (kept,) = reader.committed([TopicPartition("books", 0)], timeout=30)
        reader.close()
        assert kept.offset == 7


def committed(reader: Consumer) -> bool:
    """Whether an offset could be committed; a broker just started says for a while it could not."""
    try:
        reader.commit(offsets=[TopicPartition("books", 0, 7)], asynchronous=False)
    except KafkaException:
        return False
    return True


def test_all_of_penstock_runs_with_the_profile(services: dict[str, Service]) -> None:
    catalog = load_catalog()
    own = ours_of(services)
    assert all(one["profiles"] == ["all"] for one in own.values())
    commands = {name: one["command"] for name, one in own.items()}
    working = {c[1] for c in commands.values() if c[0] == "worker"}
    assert working == {s.name for s in catalog.services.values() if s.handler}
    for name, (word, *rest) in commands.items():
        if word == "worker":
            assert name == f"worker-{rest[0]}"
    assert [c[0] for c in commands.values()].count("courier") == 1
    boxes = {g.sandbox.args[0] for g in catalog.gateways.values() if g.sandbox}
    played = {one["command"][0] for one in own.values() if "entrypoint" in one}
    assert played == boxes


def test_containers_of_penstock_are_confined(services: dict[str, Service]) -> None:
    user, group = ours()[1].of("USER")[0].rest.split(":")
    for name, one in ours_of(services).items():
        assert one["read_only"] is True
        assert one["cap_drop"] == ["ALL"]
        assert one["security_opt"] == ["no-new-privileges:true"]
        scratch = dict(entry.partition(":")[::2] for entry in one["tmpfs"])
        assert "/tmp" in scratch
        home = ours()[1].environment["PENSTOCK_HOME"]
        mounted = {v.split(":")[1] for v in one.get("volumes", ())}
        assert home in mounted or f"uid={user},gid={group}" in scratch[home], name


def test_they_start_in_an_order_that_works(services: dict[str, Service]) -> None:
    before: dict[str, set[str]] = {}
    for name, one in services.items():
        wanted = one.get("depends_on", {})
        before[name] = set(wanted)
        conditions = wanted.values() if isinstance(wanted, dict) else ()
        assert {c["condition"] for c in conditions} <= CONDITIONS
    assert set().union(*before.values()) <= services.keys()
    assert before["migrate"] == {"kafka", "postgres"}
    assert before["topics"] == {"migrate"}
    for name, one in ours_of(services).items():
        if "healthcheck" in one:
            assert before[name] == {"topics"}, name


def test_they_find_the_servers_and_the_outside(services: dict[str, Service]) -> None:
    for one in ours_of(services).values():
        assert one["environment"][KAFKA_VARIABLE] == "kafka:19092"
        _check_dsn(one["environment"][POSTGRES_VARIABLE], services, "postgres")
    courier = services["courier"]
    source, target, mode = courier["volumes"][0].split(":")
    assert (target, mode) == (courier["environment"][OUTSIDE_VARIABLE], "ro")
    outside = json.loads((ROOT / source).read_text())
    wanted = {k for g in load_catalog().gateways.values() if g.sandbox for k in g.sandbox.sets}
    assert outside.keys() == wanted
    listening = {
        one["command"][2] for one in services.values() if one.get("network_mode") is not None
    }
    assert {value.rpartition(":")[2] for value in outside.values()} - {"127.0.0.1"} == listening


def test_health_is_asked_where_it_is_answered(services: dict[str, Service]) -> None:
    for name, one in services.items():
        if "healthcheck" not in one:
            continue
        assert one["healthcheck"].keys() <= HEALTH_KEYS
        assert all(SECONDS.fullmatch(v) for k, v in one["healthcheck"].items()
                   if k not in ("test", "retries"))  # fmt: skip
        if one["image"] == "penstock":
            port = "8080" if name == "web" else "9100"
            assert f"http://127.0.0.1:{port}/health/live" in one["healthcheck"]["test"][-1]
            assert name == "web" or one["command"][-2:] == ["--health-port", port]
            assert int(one["stop_grace_period"].rstrip("s")) >= DRAIN_SECONDS_MAX + 10
