"""Documents as values: their fenced blocks, headings and links."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, its text, the line it starts on, what stands before it."""

    language: str
    text: str
    line: int
    gap: str  # the text between the block before it and this one


@dataclass(frozen=True)
class Document:
    """One Markdown file."""

    path: Path

    @property
    def name(self) -> str:
        """The path from the root of the repository."""
        return str(self.path.relative_to(ROOT))

    @property
    def text(self) -> str:
        """The file as it is."""
        return self.path.read_text(encoding="utf-8")

    @property
    def blocks(self) -> list[Block]:
        """Every fenced block, in order."""
        text, end, found = self.text, 0, []
        for match in _FENCE.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(match[2], match[3], line, text[end : match.start()].strip()))
            end = match.end()
        return found

    @property
    def prose(self) -> str:
        """The text without its fenced blocks."""
        return _FENCE.sub("", self.text)

    @property
    def anchors(self) -> set[str]:
        """What ``#…`` may name, as GitHub makes it of headings."""
        return {_anchor(title) for title in _HEADING.findall(self.prose)}

    @property
    def links(self) -> list[str]:
        """Every link's target."""
        return _LINK.findall(self.prose)


def _anchor(title: str) -> str:
    plain = re.sub(r"[^\w\- ]", "", title.replace("`", "").lower())
    return plain.replace(" ", "-")


@cache
def documents() -> tuple[Document, ...]:
    """Every document for people: those at the root, and all below ``docs``."""
    paths = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
    return tuple(Document(path) for path in paths)
