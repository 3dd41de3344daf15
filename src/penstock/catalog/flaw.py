"""What is wrong with a catalog, as values: where (a path of keys), what, and how to mend it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice

from msgspec import Struct

Keys = tuple[str, ...]  # the path of a key: tables, then the key, then an index in a list

SHOWN_CHARS_MAX = 60
CHOICES_SHOWN_MAX = 12
CHOICES_MAX = 200  # looked at for a near one: a huge file full of errors must not take forever
_BARE = re.compile(r"[A-Za-z0-9_-]+")


class Flaw(Struct, frozen=True):
    """One thing that is wrong: the key's path, a sentence, and what to do."""

    path: Keys
    message: str
    hint: str = ""


def meant(name: str, choices: Iterable[str]) -> str:
    """A hint: the choice that was probably meant; empty where none is near."""
    looked_at = sorted(set(islice(choices, CHOICES_MAX)))
    close = get_close_matches(name[:SHOWN_CHARS_MAX], looked_at, 1)
    return f"Did you mean {close[0]}?" if close else ""


def near(name: str, choices: Iterable[str], what: str = "Known") -> str:
    """A hint: the choice that was probably meant, else the choices there are."""
    known = sorted(set(islice(choices, CHOICES_MAX)))
    if hint := meant(name, known):
        return hint
    if not known:
        return f"{what}: none."
    more = ", …" if len(known) > CHOICES_SHOWN_MAX else ""
    return f"{what}: {', '.join(known[:CHOICES_SHOWN_MAX])}{more}."


def shown(value: object) -> str:
    """A value as a message quotes it: short, on one line, as TOML writes it where that is easy."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, float):
        return f"{value:g}"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= SHOWN_CHARS_MAX else text[: SHOWN_CHARS_MAX - 1] + "…"


def spelled(path: Keys) -> str:
    """A path as TOML writes it: dotted, parts quoted where they must be, indexes in brackets."""
    said = ""
    for part in path:
        if part.isdecimal() and said:
            said += f"[{part}]"
        else:
            said += f"{'.' if said else ''}{part if _BARE.fullmatch(part) else repr(part)}"
    return said
