"""The composition root: the only package that names adapters.

A *house* is a home folder with its catalog and flow. From it come the log, the stores, and the
processes: workers with their couriers, the web, and the sandboxes. Which pair of log and store
it runs on is decided here and nowhere else.
"""

from __future__ import annotations

from penstock.assemble.cluster import Cluster, cluster_of
from penstock.assemble.house import (
    CARRIED_VARIABLE,
    HomeLock,
    House,
    WallClock,
    contracts_folder,
    make_home,
    open_house,
    own_topics,
    owner_file,
    refuse_unsafe,
    shared_files,
    specs,
    who,
    with_platform,
)
from penstock.assemble.members import command, outside_settings, sandboxes, workers
from penstock.assemble.processes import (
    all_sandboxes,
    filled,
    make_gate,
    make_gateways,
    make_keeper,
    make_runner,
    make_shifts,
    make_site,
    make_wakes,
    operator_wakes,
    outside_of,
    reports_of,
    scribe_of,
)
from penstock.assemble.starting import HOME_FORMAT, prepare
from penstock.assemble.stores import (
    Readers,
    decoders,
    make_log,
    make_memory_log,
    make_memory_store,
    make_store,
    open_log,
    open_store,
    store_at,
    store_over,
)

__all__ = [
    "CARRIED_VARIABLE",
    "HOME_FORMAT",
    "Cluster",
    "HomeLock",
    "House",
    "Readers",
    "WallClock",
    "all_sandboxes", "cluster_of",
    "command",
    "contracts_folder",
    "decoders",
    "filled",
    "make_gate",
    "make_gateways",
    "make_home",
    "make_keeper",
    "make_log",
    "make_memory_log",
    "make_memory_store",
    "make_runner",
    "make_shifts",
    "make_site",
    "make_store",
    "make_wakes",
    "open_house",
    "open_log",
    "open_store",
    "operator_wakes",
    "outside_of",
    "outside_settings",
    "own_topics",
    "owner_file",
    "prepare",
    "refuse_unsafe",
    "reports_of",
    "sandboxes",
    "scribe_of",
    "shared_files",
    "specs",
    "store_at",
    "store_over",
    "who",
    "with_platform",
    "workers",
]  # fmt: skip
