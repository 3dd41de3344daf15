"""On which line each key of a TOML text stands; the standard parser does not say.

A scanner, no parser: it is run on a text that ``tomllib`` has taken, so it never judges.
"""

from __future__ import annotations

import re
import tomllib

from penstock.catalog.flaw import Keys

_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_STRING = re.compile(
    r'"""(?:[^\\"]|\\.|"(?!""))*"{3,5}'
    r"|'''(?:[^']|'(?!''))*'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_OTHER = re.compile(r"[^,\]}#\n]*")


def spots(text: str) -> dict[Keys, int]:
    """Path to line (from 1) of every key, table header and list element. O(size)."""
    scanner = _Scanner(text.replace("\r\n", "\n"))
    scanner.document()
    return scanner.found


class _Scanner:
    """Walks the text once; ``found`` keeps the first line of each path."""

    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0
        self._line, self._counted = 1, 0
        self._lists: dict[Keys, int] = {}
        self.found: dict[Keys, int] = {}

    def document(self) -> None:
        """Every statement: a header, or a key with its value."""
        table: Keys = ()
        while self._more():
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _more(self) -> bool:
        """Pass over blanks and comments; False at the end."""
        blank = _BLANK.match(self._text, self._at)
        self._at = blank.end() if blank else self._at
        return self._at < len(self._text)

    def _note(self, path: Keys) -> None:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        for length in range(len(path), 0, -1):
            if path[:length] in self.found:
                break
            self.found[path[:length]] = self._line

    def _header(self) -> Keys:
        several = self._text.startswith("[[", self._at)
        start = self._at
        self._at += 2 if several else 1
        path = self._key()
        end, self._at = self._at + (2 if several else 1), start
        if several:
            self._note(path)
            number = self._lists[path] = self._lists.get(path, -1) + 1
            path = (*path, str(number))
        self._note(path)
        self._at = end
        return path

    def _key(self) -> Keys:
        """A dotted key; ends after the ``=`` or at the closing bracket."""
        parts: list[str] = []
        while self._more() and self._text[self._at] not in "=]":
            match = _BARE_KEY.match(self._text, self._at) or _STRING.match(self._text, self._at)
            if match is None:
                self._at += 1  # the dot
                continue
            parts.append(_plain(match[0]))
            self._at = match.end()
        return tuple(parts)

    def _pair(self, table: Keys) -> None:
        start = self._at
        path = table + self._key()
        end, self._at = self._at + 1, start
        self._note(path)
        self._at = end
        self._more()
        self._value(path)

    def _value(self, path: Keys) -> None:
        first = self._text[self._at : self._at + 1]
        if first == "[":
            self._many(path, "]")
        elif first == "{":
            self._many(path, "}")
        else:
            match = _STRING.match(self._text, self._at) or _OTHER.match(self._text, self._at)
            assert match is not None, "the last pattern matches nothing at all, too"
            self._at = match.end()

    def _many(self, path: Keys, closing: str) -> None:
        """A list or an inline table."""
        self._at += 1
        number = 0
        while self._more() and self._text[self._at] != closing:
            if self._text[self._at] == ",":
                self._at += 1
            elif closing == "}":
                self._pair(path)
            else:
                self._note((*path, str(number)))
                self._value((*path, str(number)))
                number += 1
        self._at += 1


def _plain(part: str) -> str:
    """One part of a key without its quotes."""
    if part[0] not in "\"'":
        return part
    value: str = tomllib.loads(f"k = {part}")["k"]
    return value
