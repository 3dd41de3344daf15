"""The manifests: valid for Kubernetes, confined, and about the services that there are."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from penstock.assemble.cluster import KAFKA_VARIABLE, POSTGRES_VARIABLE
from penstock.assemble.processes import OUTSIDE_VARIABLE
from penstock.catalog.load import load_catalog
from penstock.catalog.match import match
from penstock.limits import BATCH_RECORDS_MAX, DRAIN_SECONDS_MAX
from penstock.log.kafka_lane import NOTE_SECONDS
from penstock.web.routes import OWN_ROUTES
from penstock.web.serve import KEEP_ALIVE_SECONDS
from tests.deploy.dockerfile import ours
from tests.deploy.manifests import (
    FOLDER,
    Object,
    component,
    containers,
    files,
    kustomizations,
    objects,
    of,
    pod,
    read,
    trial_courier,
)

VERSIONS = ("1.30", kubernetes_validate.latest_version())  # the first with preStop's sleep
PLACEHOLDER = "penstock"
PULSE = ("/health/live", "/health/ready")
KEYS = {
    "apiVersion", "kind", "namespace", "resources", "components", "configMapGenerator", "images",
    "patches",
}  # fmt: skip


def owners() -> list[Object]:
    """Everything that makes pods."""
    return [*of("Deployment").values(), *of("Job", "migrate").values(), trial_courier()]


def deployments() -> list[Object]:
    return list(of("Deployment").values())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("folder", ["run", "migrate", "network"])
def test_objects_are_what_kubernetes_takes(folder: str, version: str) -> None:
    for one in [*objects(folder), *([trial_courier()] if folder == "run" else [])]:
        kubernetes_validate.validate(one, version, strict=True)


def test_a_wrong_field_is_seen() -> None:
    wrong = of("Deployment")["web"]
    pod(wrong)["terminationGracePeriod"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def test_kustomizations_list_all_that_is_there() -> None:
    listed = set()
    for folder, one in kustomizations().items():
        assert one.keys() <= KEYS, folder
        assert one["apiVersion"].startswith("kustomize.config.k8s.io/v1")
        assert ("alpha" in one["apiVersion"]) == (one["kind"] == "Component")
        named = [*one.get("resources", ()), *one.get("components", ())]
        named += [p["path"] for p in one.get("patches", ()) if "path" in p]
        for maker in one.get("configMapGenerator", ()):
            named += [*maker.get("files", ()), *maker.get("envs", ())]
        paths = [(FOLDER / folder / name).resolve() for name in named]
        assert [p for p in paths if not p.exists()] == []
        assert [p for p in paths if p.is_dir() and not (p / "kustomization.yaml").exists()] == []
        listed |= set(paths)
    assert [p for p in files() if p not in listed] == []


def test_there_are_workers_of_every_service_and_of_no_other() -> None:
    catalog = load_catalog()
    served = {
        container["args"][1]: owner
        for owner in deployments()
        for container in containers(owner)
        if container["args"][0] == "worker"
    }
    assert served.keys() == {s.name for s in catalog.services.values() if s.handler}
    for service, owner in served.items():
        assert 1 <= owner["spec"]["replicas"] <= catalog.lane_count(service)
    texts = {(FOLDER / f"run/workers/{s}.yaml").read_text().replace(s, "NAME") for s in served}
    assert len(texts) == 1, "workers differ in more than the service's name"


def test_names_selectors_and_budgets_belong_together() -> None:
    budgets = of("PodDisruptionBudget")
    assert budgets.keys() == of("Deployment").keys()
    for name, one in of("Deployment").items():
        labels = one["spec"]["template"]["metadata"]["labels"]
        assert component(one) == name
        assert one["metadata"]["labels"] == labels == one["spec"]["selector"]["matchLabels"]
        assert budgets[name]["spec"]["selector"]["matchLabels"] == labels
        assert one["spec"]["replicas"] > budgets[name]["spec"]["maxUnavailable"]
        for spread in pod(one)["topologySpreadConstraints"]:
            assert spread["labelSelector"]["matchLabels"] == labels
    (service,) = of("Service").values()
    assert service["spec"]["selector"] == of("Deployment")["web"]["metadata"]["labels"]


def test_every_container_is_confined() -> None:
    user, group = map(int, ours()[1].of("USER")[0].rest.split(":"))
    for owner in owners():
        one = pod(owner)
        assert one["securityContext"] == {
            "runAsNonRoot": True, "runAsUser": user, "runAsGroup": group, "fsGroup": group,
            "seccompProfile": {"type": "RuntimeDefault"},
        }  # fmt: skip
        assert one["automountServiceAccountToken"] is False
        assert one["serviceAccountName"] in of("ServiceAccount")
        for container in containers(owner):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }  # fmt: skip
            assert container["image"] == PLACEHOLDER
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert container["resources"]["limits"].keys() == {"memory"}
    (namespace,) = of("Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_home_and_tmp_can_be_written() -> None:
    home = ours()[1].environment["PENSTOCK_HOME"]
    for owner in owners():
        volumes = {v["name"]: v for v in pod(owner)["volumes"]}
        for container in containers(owner):
            mounts = {m["mountPath"]: m for m in container["volumeMounts"]}
            assert {home, "/tmp"} <= mounts.keys()
            for path in (home, "/tmp"):
                assert "sizeLimit" in volumes[mounts[path]["name"]]["emptyDir"]
            read_only = mounts.keys() - {home, "/tmp"}
            assert read_only <= {"/etc/penstock/catalog", "/etc/penstock/outside"}
            assert {m["name"] for m in mounts.values()} <= volumes.keys()


def test_settings_come_from_where_they_are_made() -> None:
    makers = {m["name"]: m for m in kustomizations()["common"]["configMapGenerator"]}
    settings = dict(
        line.split("=", 1) for line in (FOLDER / "common/settings.env").read_text().splitlines()
    )
    assert settings.keys() == {KAFKA_VARIABLE, "PENSTOCK_CATALOG", "PENSTOCK_NAMES"}
    for owner in owners():
        volumes = {v["name"]: v for v in pod(owner)["volumes"]}
        for container in containers(owner):
            if container["name"].startswith("sandbox-"):
                continue
            (first, further) = container["envFrom"]
            assert first["configMapRef"]["name"] in makers
            assert further["secretRef"]["optional"] is True
            mounts = {m["mountPath"]: volumes[m["name"]] for m in container["volumeMounts"]}
            folder, _, file = settings["PENSTOCK_CATALOG"].rpartition("/")
            assert makers[mounts[folder]["configMap"]["name"]]["files"] == [file]
            _check_environment(container, mounts)


def _check_environment(container: Object, mounts: dict[str, Any]) -> None:
    given = {e["name"]: e for e in container["env"]}
    assert given[POSTGRES_VARIABLE]["valueFrom"]["secretKeyRef"] == {
        "name": "penstock", "key": "postgres",
    }  # fmt: skip
    carries = container["args"][0] == "courier"
    assert (OUTSIDE_VARIABLE in given) == carries
    if carries:
        folder, _, file = given[OUTSIDE_VARIABLE]["value"].rpartition("/")
        assert mounts[folder]["secret"]["items"][0]["path"] == file


def test_the_catalog_is_the_shipped_one_on_a_cluster() -> None:
    path = FOLDER / "common/catalog.toml"
    catalog = load_catalog(path)
    assert match(catalog) == []
    shipped = load_catalog()
    assert catalog.kafka is not None
    assert (catalog.kafka.replication, catalog.kafka.min_insync) == (3, 2)
    table = tomllib.loads(path.read_text())
    table.pop("kafka")
    own = FOLDER.parents[1] / "src/penstock/flows/orders/catalog.toml"
    assert table == tomllib.loads(own.read_text())
    assert catalog.services == shipped.services


def test_probes_ask_for_what_is_answered() -> None:
    web = {route.path for route in OWN_ROUTES}
    for owner in deployments():
        (container,) = containers(owner)
        ports = {p["name"]: p["containerPort"] for p in container["ports"]}
        args = container["args"]
        option = "--port" if args[0] == "web" else "--health-port"
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            asked = container[probe]["httpGet"]
            assert asked["path"] in (web if args[0] == "web" else PULSE)
            assert str(ports[asked["port"]]) == args[args.index(option) + 1]
        assert container["livenessProbe"]["httpGet"]["path"] == "/health/live"
        assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"


def test_there_is_time_to_drain() -> None:
    for owner in deployments():
        (container,) = containers(owner)
        before = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {})
        left = pod(owner)["terminationGracePeriodSeconds"] - before.get("seconds", 0)
        assert left >= DRAIN_SECONDS_MAX + 10
    assert KEEP_ALIVE_SECONDS <= DRAIN_SECONDS_MAX


def test_every_service_is_scaled_within_its_lanes() -> None:
    schema = json.loads((FOLDER.parents[1] / "tests/deploy/keda.schema.json").read_text())
    catalog, scaled = load_catalog(), read(FOLDER / "keda/scaled.yaml")
    assert {o["metadata"]["name"] for o in scaled} == {
        name for name in of("Deployment") if name.startswith("worker-")
    }
    for one in scaled:
        jsonschema.validate(one, schema)
        (trigger,) = one["spec"]["triggers"]
        service = trigger["metadata"]["consumerGroup"]
        names = (one["spec"]["scaleTargetRef"]["name"], one["metadata"]["name"])
        assert names == (f"worker-{service}", f"worker-{service}")
        assert one["spec"]["maxReplicaCount"] == catalog.lane_count(service)
        assert one["spec"]["minReplicaCount"] >= 1
        assert trigger["metadata"]["bootstrapServersFromEnv"] == KAFKA_VARIABLE
        # Kafka's offsets are told late: what was handled meanwhile must not look like lag.
        threshold = int(trigger["metadata"]["lagThreshold"])
        assert threshold >= NOTE_SECONDS * BATCH_RECORDS_MAX


def test_the_policies_are_about_pods_that_there_are() -> None:
    for policy in objects("network"):
        wanted = policy["spec"]["podSelector"]["matchLabels"].items()
        assert any(wanted <= owner["metadata"]["labels"].items() for owner in owners())
