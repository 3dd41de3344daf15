"""What the documents' reader types ``docker`` and ``kubectl`` into, where the tests have neither.

A test may not count on a container engine or a cluster: most machines that run them have none, and
both would fetch images from elsewhere. So each command is held against the files that it is about:
an option, a service, a folder, a name or a key that there is not is an error. What a container runs
runs here, on the reader's desk; what would never end is asked for its help with the same options.
``tests/deploy`` says how far what is in those files was tried.
"""

from __future__ import annotations

import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import yaml

from penstock.limits import DRAIN_SECONDS_MAX
from tests.deploy.dockerfile import ROOT, instructions, ours
from tests.deploy.manifests import FOLDER, containers, kustomizations, objects, of, pod

IMAGE = "penstock"
ENDLESS = ("up", "web", "worker", "courier", "demo")


class Refused(Exception):
    """A command that would not do what the document says."""


def known(what: str, name: str, names: Iterable[str]) -> str:
    """The name, which has to be one of those that there are."""
    there = set(names)
    if name not in there:
        raise Refused(f"there is no {what} {name}; there are: {', '.join(sorted(there))}")
    return name


# Docker ------------------------------------------------------------------------------------------


def docker(words: Sequence[str]) -> int:
    """``docker compose``, ``docker build`` and ``docker run`` in the documents' words."""
    verbs = ArgumentParser("docker").add_subparsers(required=True)
    compose = verbs.add_parser("compose")
    compose.add_argument("--profile", action="append", default=[])
    steps = compose.add_subparsers(dest="verb", required=True)
    up = steps.add_parser("up")
    up.add_argument("-d", action="store_true", required=True)
    up.add_argument("--wait", action="store_true")
    up.add_argument("--scale", action="append", default=[])
    steps.add_parser("down").add_argument("--volumes", action="store_true")
    steps.add_parser("stop").add_argument("services", nargs="+")
    compose.set_defaults(do=_compose)
    build = verbs.add_parser("build")
    build.add_argument("--tag", required=True, choices=[IMAGE])
    build.add_argument("--build-arg", action="append", default=[])
    build.add_argument("context", choices=["."])
    build.set_defaults(do=_build)
    run = verbs.add_parser("run")
    for flag in ("--rm", "--read-only", "--detach"):
        run.add_argument(flag, action="store_true")
    for option in ("--cap-drop", "--security-opt", "--name", "--stop-timeout"):
        run.add_argument(option)
    for option in ("--tmpfs", "--volume", "--publish"):
        run.add_argument(option, action="append", default=[])
    run.add_argument("image", choices=[IMAGE])
    run.set_defaults(do=_run)
    return _done(verbs, words)


def _done(verbs: Any, words: Sequence[str]) -> int:
    """What the words ask for; whatever follows an image's name is the container's."""
    at = len(words)
    if words[0] == "run" and IMAGE in words:
        at = words.index(IMAGE) + 1
    said = verbs.choices[words[0]].parse_args(words[1:at])
    said.command = list(words[at:])
    return int(said.do(said) or 0)


def _compose(said: Namespace) -> None:
    services: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    for profile in said.profile:
        known("profile", profile, (p for one in services.values() for p in one.get("profiles", ())))
    for scaled in getattr(said, "scale", ()):
        name, _, count = scaled.partition("=")
        known("service", name, services)
        if int(count) > 1 and "ports" in services[name]:
            raise Refused(f"{name} publishes a port: there cannot be {count} of it")
    for name in getattr(said, "services", ()):
        known("service", name, services)


def _build(said: Namespace) -> None:
    head = (ROOT / "Dockerfile").read_text()
    arguments = [i.rest.partition("=")[0] for i in instructions(head) if i.word == "ARG"]
    for given in said.build_arg:
        known("build argument", given.partition("=")[0], arguments)


def _run(said: Namespace) -> int:
    image = ours()[-1]
    home, ports = image.environment["PENSTOCK_HOME"], image.of("EXPOSE")[0].words
    for mount in said.tmpfs:
        known("scratch folder", mount.split(":")[0], (home, "/tmp"))
    for volume in said.volume:
        known("folder to keep", volume.split(":")[1], (home,))
    for published in said.publish:
        known("port", published.rpartition(":")[2], ports)
    if said.read_only and "/tmp" not in (mount.split(":")[0] for mount in said.tmpfs):
        raise Refused("/tmp must be writable")
    if said.stop_timeout is not None and int(said.stop_timeout) <= DRAIN_SECONDS_MAX:
        raise Refused(f"draining takes up to {DRAIN_SECONDS_MAX:g} s")
    more = ["--help"] if said.command[:1] and said.command[0] in ENDLESS else []
    return subprocess.run(["penstock", *said.command, *more], check=False).returncode


# Kubernetes --------------------------------------------------------------------------------------


def kubectl(words: Sequence[str]) -> int:
    """The documents' words of ``kubectl``."""
    parser = ArgumentParser("kubectl")
    parser.add_argument("--namespace", choices=list(of("Namespace")))
    verbs = parser.add_subparsers(required=True)
    create = verbs.add_parser("create").add_subparsers(required=True)
    space = create.add_parser("namespace")
    space.add_argument("name", choices=list(of("Namespace")))
    space.set_defaults(do=lambda said: None)
    secret = create.add_parser("secret")
    secret.add_argument("kind", choices=["generic"])
    secret.add_argument("name")
    secret.add_argument("--from-literal", action="append", default=[])
    secret.add_argument("--from-file", action="append", default=[])
    secret.set_defaults(do=_secret)
    delete = verbs.add_parser("delete")
    delete.add_argument("kind", choices=["job"])
    delete.add_argument("name", choices=list(of("Job", "migrate")))
    delete.add_argument("--ignore-not-found", action="store_true")
    delete.set_defaults(do=lambda said: None)
    wait = verbs.add_parser("wait")
    wait.add_argument("--for", choices=["condition=complete"])
    wait.add_argument("--timeout")
    wait.add_argument("what", choices=[f"job/{name}" for name in of("Job", "migrate")])
    wait.set_defaults(do=lambda said: None)
    apply = verbs.add_parser("apply")
    apply.add_argument("-k", dest="folder", required=True, choices=list(kustomizations()))
    apply.set_defaults(do=lambda said: _applied(said.folder))
    rollout = verbs.add_parser("rollout")
    rollout.add_argument("verb", choices=["status", "restart"])
    rollout.add_argument("kind", choices=["deployment"])
    rollout.add_argument("--timeout")
    rollout.set_defaults(do=lambda said: None)
    forward = verbs.add_parser("port-forward")
    forward.add_argument("what", choices=[f"service/{name}" for name in of("Service")])
    forward.add_argument("ports")
    forward.set_defaults(do=_forwarded)
    said = parser.parse_args(words)
    said.do(said)
    return 0


def _applied(folder: str) -> None:
    if not list(objects(folder)):
        raise Refused(f"{folder} lists nothing")
    for name in kustomizations()[folder].get("components", ()):
        path = (FOLDER / folder / name).resolve()
        known("component", str(path.relative_to(FOLDER)), kustomizations())


def _secret(said: Namespace) -> None:
    wanted = dict(_secrets())
    given = {one.partition("=")[0] for one in (*said.from_literal, *said.from_file)}
    keys = wanted[known("secret", said.name, wanted)]
    if keys and keys != given:
        raise Refused(f"{said.name} is to hold {sorted(keys)}, and is given {sorted(given)}")


def _secrets() -> Iterator[tuple[str, set[str]]]:
    """Every secret that a pod wants, with the keys it reads; none where it takes all of them."""
    found: dict[str, set[str]] = {}
    for owner in (*of("Deployment").values(), *of("Job", "migrate").values()):
        for volume in pod(owner)["volumes"]:
            if "secret" in volume:
                keys = found.setdefault(volume["secret"]["secretName"], set())
                keys |= {item["key"] for item in volume["secret"]["items"]}
        for container in containers(owner):
            for given in container["env"]:
                ref = given.get("valueFrom", {}).get("secretKeyRef")
                if ref:
                    found.setdefault(ref["name"], set()).add(ref["key"])
            for source in container["envFrom"]:
                if "secretRef" in source:
                    found.setdefault(source["secretRef"]["name"], set())
    yield from found.items()


def _forwarded(said: Namespace) -> None:
    service = of("Service")[said.what.partition("/")[2]]
    ports = [str(port["port"]) for port in service["spec"]["ports"]]
    known("port", said.ports.partition(":")[2], ports)


def main(name: str, *words: str) -> int:
    """Do as the engine of that name would; 1 and the reason where it could not."""
    try:
        return {"docker": docker, "kubectl": kubectl}[name](words)
    except Refused as refused:
        sys.stderr.write(f"{name} {' '.join(words)}: {refused}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
