"""Kafka's jars and the Java that runs them: found, or fetched once from Maven Central."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from penstock.sim.servers.process import Absent

KAFKA = "4.1.1"
JAVA_OLDEST = 17
SETTING = "PENSTOCK_KAFKA_JARS"
COMPLETE = "complete"  # the file that says that all jars of a folder are there
FETCH_SECONDS = 300.0
INSTALL = "apt-get install openjdk-17-jre-headless maven"


def project() -> Path:
    """The folder of ``pom.xml``: in a checkout ``tools/kafka``, in a wheel beside this module."""
    packed = Path(__file__).parent / "maven"
    return packed if packed.is_dir() else Path(__file__).resolve().parents[4] / "tools" / "kafka"


def folder(env: Mapping[str, str] = os.environ) -> Path:
    """Where the jars are kept: what ``PENSTOCK_KAFKA_JARS`` names, else a cache of the user."""
    if env.get(SETTING):
        return Path(env[SETTING]).absolute()
    cached = env.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cached) / "penstock" / f"kafka-{KAFKA}"


def java() -> str:
    """The Java to run: ``JAVA_HOME``'s or the one on the path, of version 17 or later."""
    home = os.environ.get("JAVA_HOME")
    named = Path(home) / "bin" / "java" if home else None
    found = str(named) if named and named.is_file() else shutil.which("java")
    if found is None:
        raise Absent(f"no Java here; {INSTALL}, or name one by JAVA_HOME")
    version = _version(found)
    if version < JAVA_OLDEST:
        raise Absent(f"{found} is Java {version}, Kafka {KAFKA} needs {JAVA_OLDEST}; {INSTALL}")
    return found


@cache
def _version(found: str) -> int:
    said = subprocess.run([found, "-version"], capture_output=True, text=True, check=False)
    number = re.search(r'version "(\d+)', said.stderr)
    return int(number[1]) if number else 0


def jars(env: Mapping[str, str] = os.environ) -> Path:
    """The folder that holds all jars, fetched if they are not there (43 MB).

    Processes that come at the same time wait for the one that fetches.
    """
    kept = folder(env)
    if (kept / COMPLETE).exists():
        return kept
    try:
        kept.mkdir(parents=True, exist_ok=True)
    except OSError as refused:
        raise Absent(f"no place for Kafka's jars: {refused}; name one by {SETTING}") from refused
    with _alone(kept / "lock"):
        if not (kept / COMPLETE).exists():
            _fetch(kept)
            (kept / COMPLETE).touch()
    return kept


def _fetch(kept: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise Absent(
            f"Kafka's jars are not in {kept} and there is no Maven to fetch them; {INSTALL}, or "
            f"name a folder that holds them by {SETTING} (with a file named {COMPLETE} in it)"
        )
    # A fetch that was killed leaves half a jar, which Maven would take for a whole one.
    arriving = kept / "arriving"
    shutil.rmtree(arriving, ignore_errors=True)
    _maven(maven, f"-DoutputDirectory={arriving}")
    for jar in arriving.glob("*.jar"):
        os.replace(jar, kept / jar.name)
    arriving.rmdir()


def _maven(maven: str, where: str) -> None:
    pom = str(project() / "pom.xml")
    command = [maven, "-q", "-B", "-f", pom, "dependency:copy-dependencies", where]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise Absent(f"Maven did not fetch Kafka's jars in {FETCH_SECONDS:g} s") from None
    if done.returncode:
        raise Absent(f"Maven could not fetch Kafka's jars: {(done.stdout + done.stderr)[-1500:]}")


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with open(path, "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def classpath() -> str:
    """What Java gets: the log settings of our project, and all jars."""
    return f"{project()}:{jars()}/*"
