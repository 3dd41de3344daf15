"""The Kubernetes manifests as values, and the little of kustomize that reading them needs.

No kustomize is at hand where the tests run, so the files are complete as they are: bases only list
them, name their settings and their namespace. Only ``trial`` patches, by the merge below.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
Object = dict[str, Any]
CUSTOM = "ScaledObject"


def read(path: Path) -> list[Object]:
    """Every document of a file."""
    return [one for one in yaml.safe_load_all(path.read_text()) if one]


def kustomizations() -> dict[str, Object]:
    """Every kustomization by its folder, from ``deploy/kubernetes``."""
    found = sorted(FOLDER.rglob("kustomization.yaml"))
    return {str(path.parent.relative_to(FOLDER)): read(path)[0] for path in found}


def files() -> list[Path]:
    """Every file of objects."""
    return [p for p in sorted(FOLDER.rglob("*.yaml")) if p.name != "kustomization.yaml"]


def objects(folder: str) -> list[Object]:
    """What a kustomization lists, with all that it stands on."""
    found: list[Object] = []
    for name in kustomizations()[folder].get("resources", ()):
        path = (FOLDER / folder / name).resolve()
        below = path.is_dir()
        found += objects(str(path.relative_to(FOLDER))) if below else read(path)
    return found


def of(kind: str, folder: str = "run") -> dict[str, Object]:
    """The objects of one kind by name."""
    return {o["metadata"]["name"]: o for o in objects(folder) if o["kind"] == kind}


def pod(owner: Object) -> Object:
    """The pod of a Deployment or a Job."""
    spec: Object = owner["spec"]["template"]["spec"]
    return spec


def containers(owner: Object) -> Iterator[Object]:
    """Every container of its pod, in the order they start."""
    yield from pod(owner).get("initContainers", ())
    yield from pod(owner)["containers"]


def component(owner: Object) -> str:
    """What it is a part of penstock as."""
    label: str = owner["metadata"]["labels"]["app.kubernetes.io/component"]
    return label


def merged(one: Object, patch: Object) -> Object:
    """A strategic merge: tables by key, lists of named things by name, null takes away."""
    result = deepcopy(one)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        elif isinstance(value, list) and isinstance(result.get(key), list):
            result[key] = _by_name(result[key], value)
        else:
            result[key] = deepcopy(value)
    return result


def _by_name(ours: list[Object], theirs: list[Object]) -> list[Object]:
    new = {one["name"]: one for one in theirs}
    kept = [merged(one, new.pop(one["name"])) if one["name"] in new else one for one in ours]
    return [*kept, *new.values()]


def trial_courier() -> Object:
    """The courier with the sandboxes beside it."""
    (patch,) = read(FOLDER / "trial" / "courier.yaml")
    return merged(of("Deployment")["courier"], patch)
