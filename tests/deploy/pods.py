"""The containers of the manifests on this machine: each as its own process in the built image.

What Kubernetes would do is done here as far as processes notice it: the words and variables of the
manifest, the catalog and the secrets as read-only files, scratch in memory, probes by HTTP. All
share this machine's loopback, so every port is a free one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from penstock.assemble.cluster import KAFKA_VARIABLE, POSTGRES_VARIABLE
from penstock.sim.servers.process import give_back, take_ports
from tests.deploy.image import Image, Started, run, started
from tests.deploy.manifests import FOLDER, Object, containers, pod
from tests.support import eventually

READY_SECONDS = 60.0
DOOR = "http://web"  # what the sandboxes call it


class Place:
    """A broker, a database, and what a team would put into its ConfigMap and its Secret."""

    def __init__(self, folder: Path, kafka: str, dsn: str, prefix: str) -> None:
        self.kafka, self.dsn = kafka, dsn
        self.catalog, self.outside = folder / "catalog", folder / "outside"
        self.catalog.mkdir()
        self.outside.mkdir()
        text = (FOLDER / "common/catalog.toml").read_text()
        alone = f'replication = 1\nprefix = "{prefix}"'
        text = text.replace("replication = 3\nmin_insync = 2", alone)
        (self.catalog / "catalog.toml").write_text(text)
        self.ports = dict(zip((8401, 8402, 8403, 8080), take_ports(4), strict=True))
        said = json.loads((FOLDER.parent / "compose/outside.json").read_text())
        secret = {name: self.here(value) for name, value in said.items()}
        (self.outside / "outside.json").write_text(json.dumps(secret))

    def here(self, text: str) -> str:
        """A text of the manifests with this machine's ports and addresses."""
        text = text.replace(DOOR, f"http://127.0.0.1:{self.ports[8080]}")
        text = text.replace("0.0.0.0", "127.0.0.1")
        return re.sub(r"\b(8401|8402|8403|8080)\b", lambda m: str(self.ports[int(m[0])]), text)

    def environment(self, container: Object) -> dict[str, str]:
        """What its ``env`` and ``envFrom`` come to."""
        if "envFrom" not in container:
            return {}
        lines = (FOLDER / "common/settings.env").read_text().splitlines()
        given = dict(line.split("=", 1) for line in lines)
        given |= {e["name"]: e.get("value", "") for e in container["env"]}
        return given | {KAFKA_VARIABLE: self.kafka, POSTGRES_VARIABLE: self.dsn}

    def mounts(self, owner: Object, container: Object) -> dict[str, str]:
        """What its ``volumeMounts`` come to."""
        volumes = {v["name"]: v for v in pod(owner)["volumes"]}
        return {
            m["mountPath"]: self._source(volumes[m["name"]]) for m in container["volumeMounts"]
        }

    def _source(self, volume: Mapping[str, Any]) -> str:
        if "configMap" in volume:
            return str(self.catalog)
        return str(self.outside) if "secret" in volume else "tmpfs"


class Pods:
    """Runs containers of the manifests."""

    def __init__(self, image: Image, place: Place, logs: Path, stack: ExitStack) -> None:
        self._image, self.place, self._logs, self._stack = image, place, logs, stack
        self.running: dict[str, Started] = {}
        self._probes: dict[str, tuple[Object, int]] = {}

    def _argv(self, owner: Object, container: Object, words: list[str]) -> list[str]:
        mounts = self.place.mounts(owner, container)
        return self._image.argv(words, mounts, entry=container.get("command", ()))

    def finish(self, owner: Object) -> None:
        """Run the containers of a Job one after the other; each must end well."""
        for container in containers(owner):
            environment = self._image.environment(self.place.environment(container))
            run(self._argv(owner, container, container["args"]), environment)

    def start(self, owner: Object, number: int = 0) -> None:
        """Start the containers of a Deployment's pod."""
        for container in containers(owner):
            name = f"{owner['metadata']['name']}-{container['name']}-{number}"
            words = [self.place.here(word) for word in container["args"]]
            if "--health-port" in words:
                (port,) = take_ports(1)
                words[words.index("--health-port") + 1] = str(port)
                self._probes[name] = container, port
            elif container["name"] == "web":
                self._probes[name] = container, self.place.ports[8080]
            environment = self._image.environment(self.place.environment(container))
            argv = self._argv(owner, container, words)
            made = started(argv, environment, self._logs / f"{name}.log")
            self.running[name] = self._stack.enter_context(made)

    def wait(self) -> None:
        """Until every container runs and every probe of every kind is answered."""
        for name, (container, port) in self._probes.items():
            for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
                path = container[kind]["httpGet"]["path"]
                eventually(
                    lambda n=name, url=f"http://127.0.0.1:{port}{path}": self._answers(n, url),
                    READY_SECONDS, what=f"{kind} of {name}",
                )  # fmt: skip

    def _answers(self, name: str, url: str) -> bool:
        one = self.running[name]
        if not one.runs:
            raise RuntimeError(f"{name} ended: {one.said}")
        try:
            reply = httpx.get(url, timeout=5)
        except httpx.TransportError:
            return False
        assert reply.status_code == 200, reply.text
        return True


@contextmanager
def pods(image: Image, place: Place, logs: Path) -> Iterator[Pods]:
    """Containers for as long as the block runs."""
    with ExitStack() as stack:
        yield Pods(image, place, logs, stack)
    give_back(place.ports.values())
