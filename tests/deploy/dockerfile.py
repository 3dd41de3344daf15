"""The Dockerfile as values: stages of instructions, as far as ours goes.

Not a whole parser: what it does not know (heredocs, flags but ``--from``, JSON forms of anything
but ENTRYPOINT and CMD) it refuses, so that nothing is passed over.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KNOWN = frozenset(
    ("ARG", "FROM", "LABEL", "COPY", "RUN", "ENV", "WORKDIR", "USER", "EXPOSE", "ENTRYPOINT", "CMD")
)
_VARIABLE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True)
class Instruction:
    """One instruction, its continued lines joined."""

    word: str
    rest: str

    @property
    def words(self) -> list[str]:
        """The rest as a shell would split it."""
        return shlex.split(self.rest)

    @property
    def argv(self) -> list[str]:
        """The rest as the JSON form of a command."""
        argv: list[str] = json.loads(self.rest)
        return argv

    @property
    def source_stage(self) -> str:
        """What ``COPY --from`` names; empty for the context."""
        first = self.words[0]
        return first.removeprefix("--from=") if first.startswith("--from=") else ""

    @property
    def sources(self) -> list[str]:
        """What a COPY takes."""
        return [word for word in self.words[:-1] if not word.startswith("--")]

    @property
    def target(self) -> str:
        """Where a COPY puts it."""
        return self.words[-1]


@dataclass
class Stage:
    """One FROM with what follows it."""

    base: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def of(self, word: str) -> list[Instruction]:
        """Its instructions of one kind."""
        return [i for i in self.instructions if i.word == word]

    @property
    def environment(self) -> dict[str, str]:
        """All that its ENV lines set."""
        pairs = (word.partition("=") for i in self.of("ENV") for word in i.words)
        return {name: value for name, _, value in pairs}


def instructions(text: str) -> list[Instruction]:
    """Every instruction of a Dockerfile. Raises ``ValueError`` for one that is not known."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    found = []
    for statement in "\n".join(lines).replace("\\\n", " ").splitlines():
        word, _, rest = statement.strip().partition(" ")
        if not word:
            continue
        if word not in KNOWN:
            raise ValueError(f"unknown instruction: {statement}")
        found.append(Instruction(word, " ".join(rest.split())))
    return found


def stages(text: str) -> list[Stage]:
    """Every stage, with the build arguments before the first filled in."""
    arguments: dict[str, str] = {}
    found: list[Stage] = []
    for one in instructions(text):
        if one.word == "FROM":
            base, _, name = one.rest.partition(" AS ")
            found.append(Stage(_VARIABLE.sub(lambda m: arguments[m[1]], base), name))
        elif found:
            found[-1].instructions.append(one)
        else:
            name, _, value = one.rest.partition("=")
            arguments[name] = value
    return found


def ours() -> list[Stage]:
    """The stages of penstock's own Dockerfile."""
    return stages((ROOT / "Dockerfile").read_text())


def kept_by_ignore(path: str) -> bool:
    """Whether ``.dockerignore`` lets a path of the checkout into the context. Later lines win."""
    kept = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        if _matches(pattern, path):
            kept = line.startswith("!")
    return kept


def _matches(pattern: str, path: str) -> bool:
    """As Docker reads patterns: a folder's pattern holds for all below it."""
    parts = re.escape(pattern).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
    return re.fullmatch(f"{parts}(/.*)?", path) is not None
