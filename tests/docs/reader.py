"""A reader who types what a document says, in a scratch checkout with a home of its own.

What the reader does by hand is arranged here: ``up`` runs in another terminal, endless commands
are ended, ids are copied from what was printed. Where a block of type ``text`` follows right
after a command, the command's output must show its lines, in that order; ``…`` in a line stands
for anything. A command that only looks is asked again until it shows them.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from tests.docs.written import ROOT, Block
from tests.support import eventually

PORT = "127.0.0.1:8080"  # what the documents call the server
BOUNDED = {  # what never ends by itself, or would run this very test
    r"^\./penstock demo\b(?!.*--exit)": "./penstock demo --exit",
    r"^\./penstock watch\b(?!.*--times)": "./penstock watch --times 2 --every 0.2",
    r"^(\./penstock topics tail \S+)(?!.*--no-follow)": r"\1 --no-follow",
    r"^\./penstock bench\b": "./penstock bench --help",
    r"^\./test\b": "test -x ./test",
    # it runs already, in another terminal
    r"^(\./)?penstock up\b(?:.*\\\n)*.*": "./penstock status",
    r"^penstock (web|worker|courier)\b(.*)": r"penstock \1\2 --help",  # refuses unknown options
    r"^export PENSTOCK_(KAFKA|POSTGRES)=.*": ":",  # the reader has a broker of its own
}
ELSEWHERE = re.compile(r"^\./penstock (demo|worker|web)\b")  # needs a home of its own
UP = re.compile(r"^\./penstock up\b")
LOOKS = re.compile(
    r"^\./penstock (\w+ )?(status|list|get|timeline|show|tail|doctor|check|--help)\b|^curl -s \S+$"
)
ID = re.compile(r"ord_[0-9a-v]{24}")
OWN_PART = 13  # of an id: made of the idempotency key, so the same in every run
MASKS = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "<time>"),
    (re.compile(r"…[0-9a-f]{8}\b|\b[0-9a-f]{32}\b"), "<id>"),
    (re.compile(r"\b(trk|cap|pay|lbl|auth)_[0-9a-f]{20}"), r"\1_<id>"),
    (re.compile(r"\bpid \d+"), "pid <n>"),
    (re.compile(r"127\.0\.0\.1:\d+"), "<address>"),
    (re.compile(r"^(order|inventory|payment|shipping|notify)(\s+)\d+\b", re.MULTILINE), r"\1\2<n>"),
    (re.compile(r"\b\d@\d+"), "<place>"),
    (re.compile(r"cli:\w+"), "cli:<user>"),
    (re.compile(r"\d+\.\d+ (s|ms|GB)\b"), r"<n> \1"),
)
_CURL = 'exec {python} -m tests.docs.curl "$@"\n'
_ENGINE = 'exec {python} -m tests.docs.engines {name} "$@"\n'  # it says why there is none
_SALES = """Beleg;Artikel;Text;Menge;Datum;Preis;Land
B1;KANNE;Teekanne;2;05.01.2026 10:30;12.50;Deutschland
B2;TASSE;Tasse;6;05.01.2026 11:00;4.95;Deutschland
"""


class Reader:
    """Runs blocks in ``desk``; ``up`` runs from ``start`` to ``stop``. ``at_home``: the cluster is
    there, and not yet in use."""

    def __init__(
        self, desk: Path, kafka: str = "", postgres: str = "", *, at_home: bool = False
    ) -> None:
        self.at_home = at_home
        self.desk, self._kafka, self._postgres = desk, kafka, postgres
        self._seen: set[str] = set()
        self._url = PORT
        self._up: subprocess.Popen[str] | None = None
        self._arrange()

    def _arrange(self) -> None:
        for name in ("src", "docs", "contracts", "tools", "tests", "README.md", "pyproject.toml",
                     "compose.yaml", "deploy"):  # fmt: skip
            (self.desk / name).symlink_to(ROOT / name)
        for name, text in (
            ("penstock", f'exec {sys.executable} -m penstock "$@"\n'),
            ("test", (ROOT / "test").read_text()),
            ("bin/python", f'exec {sys.executable} "$@"\n'),
            ("bin/penstock", f'exec {sys.executable} -m penstock "$@"\n'),
            ("bin/docker", _ENGINE.format(python=sys.executable, name="docker")),
            ("bin/kubectl", _ENGINE.format(python=sys.executable, name="kubectl")),
            *([] if shutil.which("curl") else [("bin/curl", _CURL.format(python=sys.executable))]),
        ):
            path = self.desk / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"#!/bin/sh\n{text}")
            path.chmod(0o755)
        sample = ROOT / "src/penstock/flows/orders/sample/sample.csv"
        for name in ("FILE.csv", "export.csv"):
            (self.desk / name).write_bytes(sample.read_bytes())
        (self.desk / "sales.csv").write_text(_SALES)

    @property
    def environment(self) -> dict[str, str]:
        """The reader's: no variable of ours, programs of the desk first."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
        ours = {"PENSTOCK_KAFKA": self._kafka, "PENSTOCK_POSTGRES": self._postgres}
        kept |= {name: value for name, value in ours.items() if value and not self.at_home}
        return {**kept, "PATH": f"{self.desk / 'bin'}:{kept['PATH']}", "NO_COLOR": "1"}

    def start(self) -> None:
        """``up`` in another terminal, on a free port, as the documents start it."""
        out = (self.desk / "up.out").open("w")
        on = self._kafka and not self.at_home
        where = ("--kafka", self._kafka, "--postgres", self._postgres) if on else ()
        self._up = subprocess.Popen(
            [sys.executable, "-m", "penstock", "up", "--port", "0", *where],
            cwd=self.desk, env=self.environment, stdout=out, stderr=out, text=True,
        )
        out.close()
        self._url = eventually(self._address, 30, what="up is ready") or ""

    def _address(self) -> str | None:
        assert self._up is not None
        if self._up.poll() is not None:
            raise RuntimeError(f"up ended: {self._said}")
        said = re.search(r"page and API\s+http://(\S+)", self._said)
        return said[1] if said and "Ctrl-C drains" in self._said else None

    @property
    def _said(self) -> str:
        return (self.desk / "up.out").read_text()

    def stop(self) -> str:
        """Ctrl-C there; returns all it said."""
        if self._up is not None:
            self._up.send_signal(signal.SIGINT)
            assert self._up.wait(30) == 0
            self._up = None
        return self._said

    def do(self, block: Block, shows: str | None, name: str) -> None:
        """Type a block of the document; what it shows must be what the document says."""
        text, where = block.text, f"{name}:{block.line}"
        if UP.match(text) and text.count("\n") == 1:
            assert self._up is not None
            if self._up.poll() == 0:
                self.start()  # a step before it ended the one that ran
            assert missing(shows or "", self._said) is None, f"{where}\n{self._said}"
            return
        if shows is not None and LOOKS.match(text):
            eventually(lambda: self._check(text, shows, where), 15, what=where)
        else:
            self._check(text, shows, where)

    def _check(self, text: str, shows: str | None, where: str) -> bool:
        code, said = self._type(text)
        wanted = re.search(r"^# exit code (\d+)$", text, re.MULTILINE)
        assert code == int(wanted[1] if wanted else 0), f"{where}: exit code {code}\n{said}"
        line = missing(shows or "", said)
        assert line is None, f"{where}: no line {line!r} (in this order) in\n{said}"
        return True

    def _type(self, text: str) -> tuple[int, str]:
        script = self._own(text).replace(PORT, self._url)
        home = self.desk / "elsewhere"
        if ELSEWHERE.match(text):
            script = script.replace("./penstock", f"./penstock --home {home}")
            script = script.replace("demo", "demo --port 0", 1)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], cwd=self.desk, env=self.environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
        )
        self._seen |= set(ID.findall(done.stdout))
        return done.returncode, done.stdout

    def _own(self, text: str) -> str:
        """The text with endless commands ended and the document's ids replaced by real ones."""
        for pattern, bounded in BOUNDED.items():
            text = re.sub(pattern, bounded, text, flags=re.MULTILINE)
        return ID.sub(lambda match: self._real(match[0]), text)

    def _real(self, written: str) -> str:
        own = {seen for seen in self._seen if seen[-OWN_PART:] == written[-OWN_PART:]}
        assert len(own) == 1, f"{written} stands for {own or 'no id that was shown'}"
        return own.pop()


def missing(shows: str, said: str) -> str | None:
    """The first line of ``shows`` that does not come in ``said`` where it should, if any."""
    lines = iter(_plain(said).splitlines())
    for wanted in _plain(shows).splitlines():
        pattern = ".*".join(re.escape(part.strip()) for part in wanted.split("…"))
        if not any(re.fullmatch(pattern, line) for line in lines):
            return wanted
    return None


def _plain(text: str) -> str:
    """Ids, times and numbers of a run masked, spaces squeezed, empty lines left out."""
    text = ID.sub(lambda match: "ord_" + match[0][-OWN_PART:], text)
    for pattern, mask in MASKS:
        text = pattern.sub(mask, text)
    lines = (" ".join(line.split()) for line in text.splitlines())
    return "\n".join(line for line in lines if line)
