"""Read a catalog from its file: every error at once, each with file, line, key and a hint."""

from __future__ import annotations

import importlib.resources
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from penstock.catalog.check import check
from penstock.catalog.flaw import Flaw, Keys, shown, spelled
from penstock.catalog.implied import with_implied
from penstock.catalog.model import Catalog
from penstock.catalog.reading import Reading, read
from penstock.catalog.spots import spots
from penstock.dotted import resolve
from penstock.errors import CheckFailed, NotFound, Problem

CATALOG_FILE = "catalog.toml"
CATALOG_BYTES_MAX = 1 << 20
SHIPPED = "penstock.flows:SHIPPED"  # names the package whose catalog runs by default
_PLACE = re.compile(r" ?\(at (?:line (\d+), column (\d+)|end of document)\)$")


class CatalogError(Struct, frozen=True):
    """One error: where it stands (``line`` from 1), what is wrong and how to mend it."""

    file: str
    line: int
    key: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        said = (f"{self.file}:{self.line}:", f"{self.key}:" if self.key else "", self.message)
        return " ".join(part for part in (*said, self.hint) if part)


class BadCatalog(CheckFailed):
    """A catalog that cannot be used; ``errors`` holds every reason, in the order of the file."""

    def __init__(self, errors: tuple[CatalogError, ...]) -> None:
        self.errors = errors
        super().__init__("bad_catalog", "\n".join(map(str, errors)))


class Examined(Struct, frozen=True):
    """A catalog file read and checked; ``catalog`` may be used when there are no errors."""

    file: str
    errors: tuple[CatalogError, ...]
    catalog: Catalog
    lines: dict[Keys, int]


def load_catalog(path: Path | None = None) -> Catalog:
    """The catalog at ``path``, None for the shipped one. Raises ``BadCatalog``, ``Problem``."""
    return _sound(examine(path))


def parse(raw: bytes, file: str) -> Catalog:
    """A catalog from the bytes of a file. Raises ``BadCatalog`` with every error found."""
    return _sound(examine_bytes(raw, file))


def _sound(examined: Examined) -> Catalog:
    if examined.errors:
        raise BadCatalog(examined.errors)
    return examined.catalog


def examine(path: Path | None = None) -> Examined:
    """All that is wrong with a catalog file. Raises ``BadCatalog`` where it is no TOML, and
    ``Problem`` where it cannot be read."""
    if path is None:
        shipped = importlib.resources.files(str(resolve(SHIPPED))) / CATALOG_FILE
        return examine_bytes(shipped.read_bytes(), str(shipped))
    try:
        return examine_bytes(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise NotFound(
            "catalog_missing", f"There is no catalog {path}.",
            "Name another with --catalog or PENSTOCK_CATALOG.",
        ) from None  # fmt: skip
    except OSError as error:
        raise Problem(
            "catalog_unreadable", f"The catalog {path} cannot be read: {error.strerror}."
        ) from None


def examine_bytes(raw: bytes, file: str) -> Examined:
    """As ``examine``, of bytes; ``file`` is what errors call them. Raises ``BadCatalog``."""
    document, lines = _parsed(raw, file)
    reading = read(document)
    catalog = with_implied(reading.catalog)
    broken = [f for f in check(catalog) if _is_news(f, reading)]
    return Examined(file, place([*reading.flaws, *broken], file, lines), catalog, lines)


def _is_news(flaw: Flaw, reading: Reading) -> bool:
    """Not about what could not be read, nor about what is implied: that is right where what it
    follows from is right. (What all dead letters have in common is seen at their one reader.)"""
    table = getattr(reading.catalog, flaw.path[0], None)
    is_implied = (
        flaw.path[0] in ("topics", "services", "gateways")
        and isinstance(table, dict) and flaw.path[1] not in table
        and flaw.path[-1] != "reads"
    )
    return not is_implied and not reading.is_spoilt(flaw.path)


def place(flaws: list[Flaw], file: str, lines: Mapping[Keys, int]) -> tuple[CatalogError, ...]:
    """Flaws as errors of a file, in its order; one without a line has that of its table."""
    errors = [
        CatalogError(file, _line(flaw.path, lines), spelled(flaw.path), flaw.message, flaw.hint)
        for flaw in dict.fromkeys(flaws)
    ]
    return tuple(sorted(errors, key=lambda e: e.line))


def _line(path: Keys, lines: Mapping[Keys, int]) -> int:
    return next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), 1)


def _parsed(raw: bytes, file: str) -> tuple[dict[str, Any], dict[Keys, int]]:
    """The document and the line of every key. Raises ``BadCatalog`` with the one error."""
    if len(raw) > CATALOG_BYTES_MAX:
        raise _unreadable(file, 1, f"has {len(raw)} bytes, more than {CATALOG_BYTES_MAX}.")
    try:
        text = raw.decode()
        return tomllib.loads(text), spots(text)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _unreadable(file, line, f"byte {error.start} is no UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        raise _no_toml(file, text, str(error)) from None
    except RecursionError:
        raise _unreadable(file, 1, "lists or tables are nested too deep.") from None
    except ValueError as error:  # a number of more digits than Python takes
        raise _unreadable(file, 1, f"no valid TOML: {error}.") from None


def _no_toml(file: str, text: str, said: str) -> BadCatalog:
    """The parser's own words, with the place it names, and the line itself as the hint."""
    place = _PLACE.search(said)
    rows = text.rstrip("\n").split("\n")
    line = int(place[1]) if place and place[1] else len(rows)
    what = _PLACE.sub("", said)
    there = f"The line is {shown(rows[line - 1].strip())}." if line <= len(rows) else ""
    return _unreadable(file, line, f"no valid TOML: {what}.", there)


def _unreadable(file: str, line: int, message: str, hint: str = "") -> BadCatalog:
    return BadCatalog((CatalogError(file, line, "", message, hint),))
