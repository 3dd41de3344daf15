"""The members of one `up`."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from penstock.assemble.house import House
from penstock.assemble.processes import COURIERS
from penstock.engine.crew import Member


def sandboxes(house: House, ports: Mapping[str, int], door: str) -> list[Member]:
    """The processes that stand for the outside on one machine."""
    members = []
    for entry in house.catalog.gateways.values():
        if entry.sandbox is None:
            continue
        box = entry.sandbox
        argv = (
            sys.executable, "-m", box.module, *box.args, "--port", str(ports[entry.name]),
            "--home", str(house.home / "sandbox" / entry.name), "--door", door,
        )
        members.append(
            Member(name=f"sandbox-{entry.name}", argv=argv, stage=0, about=box.about or entry.about)
        )
    return members


def outside_settings(house: House, ports: Mapping[str, int]) -> dict[str, str]:
    """What the sandboxes set: placeholder to value."""
    found: dict[str, str] = {}
    for entry in house.catalog.gateways.values():
        if entry.sandbox is not None:
            here = {"host": "127.0.0.1", "port": str(ports[entry.name])}
            found |= {k: v.format_map(here) for k, v in entry.sandbox.sets.items()}
    return found


def workers(house: House) -> list[Member]:
    """One process per worker of every service of the flow, and on a cluster one that carries."""
    members = []
    for service in house.flow.services:
        entry = house.catalog.services[service.name]
        for n in range(entry.workers):
            name = service.name if n == 0 else f"{service.name}-{n + 1}"
            argv = command(house, "worker", service.name, "--member", name)
            beat = house.run / f"{name}.beat"
            members.append(Member(name=name, argv=argv, stage=1, about=entry.about, beat=beat))
    if house.cluster is not None:
        about = "carries what the services and the door wrote"
        argv = command(house, COURIERS)
        members.append(Member(name=COURIERS, argv=argv, stage=1, about=about))
    return members


def command(house: House, *words: str) -> tuple[str, ...]:
    """A penstock command over this house, as a process's argv."""
    catalog = ("--catalog", str(house.catalog_path)) if house.catalog_path else ()
    return (sys.executable, "-m", "penstock", "--home", str(house.home), *catalog, *words)
