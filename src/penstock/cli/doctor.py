"""``penstock doctor``: is this machine fit, and is the home folder sound?"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import apsw
import click

from penstock.assemble import Cluster, House, open_house, open_log
from penstock.cli.output import output_option, show_rows
from penstock.embedded.file import SQLITE_SAFE, File, wal_safe
from penstock.errors import CheckFailed, NotFound, Problem, World

FREE_BYTES_MIN = 1 << 30
FLUSHES = 20

Finding = dict[str, Any]


def _finding(check: str, ok: bool, found: str, fix: str = "") -> Finding:
    return {"check": check, "ok": ok, "found": found, "fix": "" if ok else fix}


def _machine(home: Path) -> Iterator[Finding]:
    version = platform.python_version()
    yield _finding("python", sys.version_info >= (3, 11), version, "Use Python 3.11 or newer.")
    yield sqlite_finding(apsw.sqlite_lib_version())
    folder = home if home.exists() else home.absolute().parent
    free = shutil.disk_usage(folder).free
    yield _finding(
        "free disk", free >= FREE_BYTES_MIN, f"{free / 1e9:.1f} GB at {folder}",
        "Intake stops when the disk is full; free some space.",
    )
    yield _finding("durable flush", True, f"{_flush_seconds(folder) * 1000:.2f} ms (median)")
    yield _finding("cores", True, str(os.cpu_count()))


def sqlite_finding(version: str) -> Finding:
    """The verdict on a SQLite version: WAL-safe or refused."""
    safe = ".".join(map(str, SQLITE_SAFE))
    return _finding(
        "sqlite", wal_safe(version), version,
        f"SQLite before {safe} can lose data in WAL mode; pip install -U apsw",
    )


def _flush_seconds(folder: Path) -> float:
    with tempfile.TemporaryFile(dir=folder) as file:
        times = []
        for _ in range(FLUSHES):
            began = time.perf_counter()
            os.write(file.fileno(), b"x" * 4096)
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    return median(times)


def _home(home: Path) -> Iterator[Finding]:
    if not home.exists():
        yield _finding("home", True, f"{home} does not exist yet")
        return
    mode = home.stat().st_mode & 0o077
    yield _finding("home", not mode, f"{home}", f"chmod 700 {home}: others can read it")
    for path in sorted(home.glob("*.db")):
        yield _sound(path)


def _sound(path: Path) -> Finding:
    try:
        file = File(path, readonly=True)
        found = str(file.run("PRAGMA quick_check")[0][0])
        file.close()
    except (apsw.Error, Problem, World) as error:
        found = str(error)
    fix = "Stop penstock and restore this file from a backup; nothing is skipped silently."
    return _finding(f"file {path.name}", found == "ok", found, fix)


def _cluster(house: House) -> Iterator[Finding]:
    """The broker and the database, where the house runs on them."""
    if house.cluster is None:
        return
    yield _asked(
        "kafka", partial(_topics, house), "Start it, or check [kafka] in the catalog.",
    )  # fmt: skip
    yield _asked(
        "postgres", partial(_tables, house.cluster), "Start it, or check its address."
    )


def _asked(check: str, ask: Callable[[], Finding], fix: str) -> Finding:
    try:
        return ask()
    except (Problem, World) as error:
        return _finding(check, False, str(error), fix)


def _topics(house: House) -> Finding:
    log = open_log(house)
    try:
        held = missing = 0
        for topic in house.catalog.topics:
            try:
                held += sum(e.next - e.first for e in log.extent(topic))
            except NotFound:
                missing += 1
    finally:
        log.close()
    said = f"{len(house.catalog.topics) - missing} topics, {held} records"
    return _finding(
        "kafka", not missing, f"{said}, {missing} topics missing" if missing else said,
        "penstock topics plan shows them, penstock topics apply makes them.",
    )  # fmt: skip


def _tables(cluster: Cluster) -> Finding:
    cluster.check()
    return _finding("postgres", True, "answers, and is of this version")


@click.command()
@output_option
@click.pass_obj
def doctor(obj: dict[str, Any], output: str) -> None:
    """Check this machine, the home folder, and on a cluster broker and database; exit code 6 when
    something is unfit."""
    home = Path(obj["home"])
    house = open_house(home, obj["catalog"])
    findings = [*_machine(home), *_home(home), *_cluster(house)]
    show_rows(findings, ("check", "ok", "found", "fix"), output)
    if not all(f["ok"] for f in findings):
        raise CheckFailed("unfit", "Something is unfit.", "See the column fix.")
