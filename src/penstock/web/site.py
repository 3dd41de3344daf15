"""What the web is given: the flow to render, and the functions that reach the running system."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from msgspec import Struct

from penstock.catalog.model import Catalog
from penstock.engine.intake import Gate
from penstock.entry import Entry
from penstock.flow import Flow, Row, Scan
from penstock.ports import Clock, Log


def no_idle() -> None:
    """The default of ``Site.idle`` and ``Site.close``: nothing to keep."""


class Site(Struct, frozen=True, kw_only=True):
    """Everything `make_app` needs. ``gate`` None is a read-only door.

    ``scan`` (document bodies decoded), ``log`` and ``journal`` are called from one reading
    thread only; ``idle`` from the committing thread, every few seconds. ``host`` is the address
    bound, ``url`` where people find the page, ``names`` the further names it answers to.
    """

    flow: Flow
    catalog: Catalog
    home: Path
    clock: Clock
    log: Log
    scan: Callable[[Scan], list[Row]]
    reports: Callable[[], Iterable[bytes]]  # what every process said of itself last
    journal: Callable[[Entry], Entry]  # raises NotWritten: then nothing may be done
    gate: Gate | None = None
    idle: Callable[[], object] = no_idle
    close: Callable[[], None] = no_idle  # called when it has drained
    alarms: Mapping[str, str] = {}  # of the door's own keeper: topic -> what keeps its records
    sandbox: bool = False
    host: str = "127.0.0.1"
    url: str = ""
    names: tuple[str, ...] = ()
