"""``python -m penstock.sim.servers``: one Kafka broker and one PostgreSQL until Ctrl-C.

It prints two lines to put into an environment, ``PENSTOCK_KAFKA=...`` and
``PENSTOCK_POSTGRES=...``. What they hold goes with them.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from penstock.sim.servers.jars import jars, java
from penstock.sim.servers.kafka import Cluster
from penstock.sim.servers.netns import ip
from penstock.sim.servers.postgres import Postgres, binaries, runs_as
from penstock.sim.servers.process import Absent, NotStarted
from penstock.sim.servers.shared import keep

DATABASE = "penstock"


def kafka(stack: ExitStack, nodes: int = 1, quick: bool = True) -> str:
    """Start a cluster for as long as the stack is open."""
    return stack.enter_context(Cluster(nodes, quick=quick)).bootstrap


def postgres(stack: ExitStack) -> str:
    """Start a database server for as long as the stack is open; it is shared by those who kill
    none, so it does not wait for the disk."""
    return stack.enter_context(Postgres(durable=False)).dsn()


def main(argv: list[str] | None = None) -> int:
    """The command."""
    said = _arguments().parse_args(argv)
    # Ended by a signal, it stops its servers and removes their files first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))
    try:
        if said.check:
            _check()
        elif said.folder is not None:
            _keep(said)
        else:
            _run(said)
    except (Absent, NotStarted) as wrong:
        print(f"servers: {wrong}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m penstock.sim.servers", description=__doc__)
    parser.add_argument("--kafka", action="store_true", help="Kafka alone")
    parser.add_argument("--postgres", action="store_true", help="PostgreSQL alone")
    parser.add_argument("--nodes", type=int, choices=(1, 3), default=1, help="Kafka nodes")
    parser.add_argument(
        "--measure", action="store_true", help="let Kafka's Java compile fully (starts slower)"
    )
    parser.add_argument(
        "--check", action="store_true",
        help="start nothing; print a line for each server that cannot be had here, with the reason",
    )  # fmt: skip
    parser.add_argument(
        "--for", dest="folder", type=Path, help="run for those who hold this folder's lock"
    )
    return parser


def _check() -> None:
    """Kafka's jars are fetched on the way, so that no test waits for them."""
    needed: dict[str, tuple[Callable[[], object], ...]] = {
        "kafka": (java, jars), "postgres": (binaries, runs_as), "hosts": (ip,),
    }  # fmt: skip
    for name, parts in needed.items():
        try:
            for part in parts:
                part()
        except Absent as absent:
            print(f"{name}: {absent}")


def _keep(said: argparse.Namespace) -> None:
    if said.kafka:
        keep("kafka", said.folder, kafka)
    else:
        keep("postgres", said.folder, postgres)


def _run(said: argparse.Namespace) -> None:
    both = said.kafka == said.postgres
    with ExitStack() as stack:
        if both or said.kafka:
            print(f"PENSTOCK_KAFKA={kafka(stack, said.nodes, not said.measure)}", flush=True)
        if both or said.postgres:
            server = stack.enter_context(Postgres())
            print(f"PENSTOCK_POSTGRES={server.create(DATABASE)}", flush=True)
        print("servers: run until Ctrl-C", file=sys.stderr, flush=True)
        signal.pause()


if __name__ == "__main__":
    sys.exit(main())
