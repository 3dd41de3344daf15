"""The programs in Java and Node: what they need is fetched once, then they run.

Java comes with Kafka's own client, from Kafka's jars. ``tools/java`` and ``tools/node`` list the
rest. What is fetched lies in the user's cache, in a folder named after its list, so that a changed
list is fetched anew. Processes that come at the same time wait for the one that fetches.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from penstock.sim.servers.jars import classpath, java
from penstock.sim.servers.process import Absent

HERE = Path(__file__).resolve().parent
TOOLS = HERE.parents[1] / "tools"
COMPLETE = "complete"  # the file that says that all of a folder is there
FETCH_SECONDS = 300.0
RUN_SECONDS = 60.0
NODE_OLDEST = 18
JAVA_RELEASE = "17"
# The programs run for a second or two: a compiler that thinks longer than that is in the way.
QUICK = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-Dfile.encoding=UTF-8")

Line = dict[str, Any]


def once(folder: Path, make: Callable[[Path], None]) -> Path:
    """The folder, filled by ``make`` if it is not there whole."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / COMPLETE).exists():
            # Of one that was killed nothing stays: half a jar would be taken for a whole one.
            inside = folder / "all"
            shutil.rmtree(inside, ignore_errors=True)
            inside.mkdir()
            make(inside)
            (folder / COMPLETE).touch()
    return folder / "all"


def cached(name: str, *lists: Path) -> Path:
    """The folder in the user's cache for what the lists name."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    mark = sha256(b"\0".join(listed.read_bytes() for listed in lists)).hexdigest()[:12]
    return root / "penstock" / f"{name}-{mark}"


def _done(command: Sequence[str], what: str, folder: Path | None = None) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False,
            timeout=FETCH_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Absent(f"{what} did not come within {FETCH_SECONDS:g} s") from None
    if done.returncode:
        raise Absent(f"{what} could not be had: {(done.stdout + done.stderr)[-1500:]}")


# Java ------------------------------------------------------------------------------------------


def java_jars() -> Path:
    """The jars beside Kafka's: a compiler, Avro, CloudEvents."""
    pom = TOOLS / "java" / "pom.xml"

    def fetch(folder: Path) -> None:
        maven = shutil.which("mvn")
        if maven is None:
            raise Absent("no Maven here; apt-get install maven")
        fixed = [maven, "-q", "-B", "--strict-checksums", "-f", str(pom)]
        _done([*fixed, "dependency:copy-dependencies", f"-DoutputDirectory={folder}"], "jars")

    return once(cached("java", pom), fetch)


def _paths() -> str:
    return f"{classpath()}:{java_jars()}/*"


def _compiled() -> Path:
    """The folder of the compiled programs. The compiler is a jar: a Java that has none will do,
    and compiling once is quicker than starting each program from its source."""
    sources = sorted((HERE / "java").glob("*.java"))

    def compile_(folder: Path) -> None:
        (compiler,) = java_jars().glob("ecj-*.jar")
        jars = [
            str(jar) for path in _paths().split(":") if path.endswith("*")
            for jar in sorted(Path(path).parent.glob("*.jar"))
        ]  # fmt: skip
        argv = [java(), *QUICK, "-jar", str(compiler), "-source", JAVA_RELEASE, "-target"]
        argv += [JAVA_RELEASE, "-encoding", "UTF-8", "-proc:none", "-cp", ":".join(jars)]
        found = subprocess.run(
            [*argv, "-d", str(folder), *map(str, sources)],
            capture_output=True, text=True, check=False, timeout=FETCH_SECONDS,
        )  # fmt: skip
        assert found.returncode == 0, found.stdout + found.stderr

    return once(cached("programs", TOOLS / "java" / "pom.xml", *sources), compile_)


# Node ------------------------------------------------------------------------------------------


@cache
def node() -> str:
    """The Node to run, of version 18 or later."""
    found = shutil.which("node")
    if found is None:
        raise Absent("no Node here; apt-get install nodejs npm")
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    number = re.match(r"v(\d+)", said)
    if number is None or int(number[1]) < NODE_OLDEST:
        raise Absent(f"{found} is Node {said.strip()}, the clients need {NODE_OLDEST}")
    return found


def node_modules() -> Path:
    """The packages of ``tools/node``, each checked by its hash."""
    listed = [TOOLS / "node" / name for name in ("package.json", "package-lock.json")]

    def fetch(folder: Path) -> None:
        npm = shutil.which("npm")
        if npm is None:
            raise Absent("no npm here; apt-get install npm")
        for each in listed:
            shutil.copy(each, folder)
        quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
        _done([npm, "ci", *quiet], "Node's packages", folder)

    return once(cached("node", *listed), fetch) / "node_modules"


# Both ------------------------------------------------------------------------------------------


class Client:
    """The programs of one language, by name. What goes in and comes out is a JSON value a line."""

    def __init__(self, language: str) -> None:
        self.language = language

    def prepare(self) -> None:
        """Fetch and compile what is missing. Raises ``Absent`` where the language is."""
        self._start("reader")

    def run(self, name: str, *args: object, lines: Iterable[Line] = ()) -> list[Line]:
        """Run one to its end."""
        text = "".join(json.dumps(line) + "\n" for line in lines)
        argv, environment = self._start(name)
        done = subprocess.run(
            [*argv, *map(str, args)], input=text.encode(), capture_output=True, check=False,
            timeout=RUN_SECONDS, env={**os.environ, "LC_ALL": "C.UTF-8", **environment},
        )  # fmt: skip
        assert done.returncode == 0, (done.stdout + done.stderr).decode()[-3000:]
        return [json.loads(line) for line in done.stdout.decode().splitlines()]

    def _start(self, name: str) -> tuple[list[str], dict[str, str]]:
        if self.language == "java":
            paths = f"{_compiled()}:{_paths()}"
            return [java(), *QUICK, "-cp", paths, name.capitalize()], {}
        program = str(HERE / "node" / f"{name}.js")
        return [node(), program], {"NODE_PATH": str(node_modules())}
