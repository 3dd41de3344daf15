"""A fence around a file: nobody writes into it any more, whoever has it open and since when.

It lies in the file itself, as triggers that refuse. A process that slept while its lanes were
claimed would learn of that at its commit, claim them again, and go on; here it learns that the
file's house has moved.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from penstock.embedded.file import File
from penstock.errors import Conflict

_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
_FENCES = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'fence_%'"


@contextmanager
def waited_for(path: Path) -> Iterator[None]:
    """Raises ``Conflict`` where a process stands still in a transaction on the file."""
    try:
        yield
    except apsw.BusyError:
        raise Conflict(
            "file_in_use", f"A process stands still in the middle of a write to {path}.",
            "Find it (`fuser` tells who has the file open), end it, and do this again.",
        ) from None


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def fence(file: File, why: str) -> None:
    """Raise every epoch, and refuse all writing from then on, saying ``why``; both at once. May
    repeat."""
    said = "'" + why.replace("'", "''") + "'"
    with file.write():
        if file.run(_FENCES):
            return
        file.run("UPDATE owners SET epoch = epoch + 1")
        for (table,) in file.run(_TABLES):
            for verb in ("INSERT", "UPDATE", "DELETE"):
                file.run(
                    f"CREATE TRIGGER {_quoted(f'fence_{verb}_{table}')} BEFORE {verb} ON"
                    f" {_quoted(table)} BEGIN SELECT RAISE(ABORT, {said}); END"
                )


def unfence(file: File) -> None:
    """Let the file be written again. May repeat."""
    with file.write():
        for (name,) in file.run(_FENCES):
            file.run(f"DROP TRIGGER {_quoted(name)}")


def is_fenced(file: File) -> bool:
    """Does the file refuse to be written?"""
    return bool(file.run(_FENCES))
