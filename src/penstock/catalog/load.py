"""Read a catalog from TOML: every error of the file at once, each with line, key and a hint.

The file's tables follow the structs of ``model``: ``[teams.NAME]``, ``[topics.NAME]``,
``[services.NAME]``, ``[gateways.NAME]``, ``[stages.NAME]``, ``[clients.NAME]``, ``[platform]``
and free ``[settings]``. Implied topics (answers, dead letters, journal) are added here.
"""

from __future__ import annotations

import importlib.resources
import re
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import msgspec
from msgspec import Struct

from penstock.catalog.check import check
from penstock.catalog.implied import with_implied
from penstock.catalog.model import (
    Catalog,
    Client,
    GatewayEntry,
    ServiceEntry,
    Stage,
    Team,
    Topic,
)
from penstock.errors import Usage

SHIPPED = ("penstock.flows.orders", "catalog.toml")
CATALOG_BYTES_MAX = 1 << 20
TABLES: dict[str, type[Struct]] = {
    "teams": Team, "topics": Topic, "services": ServiceEntry, "gateways": GatewayEntry,
    "stages": Stage, "clients": Client,
}
TOP = ("name", "flow", "contracts", "platform", "settings", *TABLES)
RENAMED = {"class": "class_"}  # a TOML key that is a Python word
Path_ = tuple[str, ...]
T = TypeVar("T")


class CatalogError(Struct, frozen=True):
    """One error: where it stands and how to mend it."""

    file: str
    line: int
    key: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        hint = f" {self.hint}" if self.hint else ""
        return f"{self.file}:{self.line}: {self.key}: {self.message}{hint}"


class BadCatalog(Usage):
    """A catalog that cannot be used; ``errors`` holds every reason."""

    def __init__(self, errors: tuple[CatalogError, ...]) -> None:
        self.errors = errors
        text = "\n  ".join(str(e) for e in errors)
        super().__init__("bad_catalog", f"{len(errors)} error(s) in the catalog:\n  {text}")


def load_catalog(path: Path | None = None) -> Catalog:
    """The catalog at ``path``, or the shipped one. Raises ``BadCatalog``."""
    if path is None:
        package, name = SHIPPED
        raw = importlib.resources.files(package).joinpath(name).read_bytes()
        return parse(raw, name)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BadCatalog((CatalogError(str(path), 0, "", str(error.strerror)),)) from None
    return parse(raw, str(path))


def parse(raw: bytes, file: str) -> Catalog:
    """A catalog from its TOML. Raises ``BadCatalog`` with every error found."""
    try:
        if len(raw) > CATALOG_BYTES_MAX:
            raise ValueError(f"more than {CATALOG_BYTES_MAX} bytes")
        text = raw.decode()
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        found = re.search(r"line (\d+)", str(error))
        line = int(found[1]) if found else 1
        raise BadCatalog((CatalogError(file, line, "", f"no valid TOML: {error}"),)) from None
    return _Reader(file, lines_of(text)).read(tables)


class _Reader:
    """Converts tables to structs, collecting errors instead of stopping at the first."""

    def __init__(self, file: str, lines: Mapping[Path_, int]) -> None:
        self._file, self._lines = file, lines
        self._errors: list[CatalogError] = []

    def read(self, tables: dict[str, Any]) -> Catalog:
        self._unknown((), tables, TOP)
        rows = {name: self._table(name, kind, tables) for name, kind in TABLES.items()}
        platform = self._typed(("platform",), tables.get("platform", {}), dict[str, str], {})
        settings = self._typed(("settings",), tables.get("settings", {}), dict[str, Any], {})
        texts = {
            key: self._typed((key,), tables.get(key, ""), str, "")
            for key in ("name", "flow", "contracts")
        }
        for key in ("name", "flow"):
            if not texts[key]:
                self._fault((key,), "is missing.", f'Add {key} = "…" at the top.')
        whole: dict[str, Any] = {**texts, **rows, "settings": settings}
        catalog = with_implied(Catalog(**whole), platform.get("owner"))
        for finding in check(catalog):
            # A row that is there but wrong was told of above: naming it is no second error.
            if not any(finding.names in tables.get(table, ()) for table in TABLES):
                self._fault(finding.path, finding.message, finding.hint)
        if self._errors:
            raise BadCatalog(tuple(sorted(self._errors, key=lambda e: e.line)))
        return catalog

    def _fault(self, path: Path_, message: str, hint: str = "") -> None:
        line = next((self._lines[p] for p in _upwards(path) if p in self._lines), 1)
        self._errors.append(CatalogError(self._file, line, ".".join(path), message, hint))

    def _unknown(self, path: Path_, found: Mapping[str, Any], known: tuple[str, ...]) -> None:
        for key in found:
            if key not in known:
                near = get_close_matches(key, known, 1)
                hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(known)}."
                self._fault((*path, key), "is no known key.", hint)

    def _typed(self, path: Path_, value: Any, kind: type[T], otherwise: T) -> T:
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            self._fault(path, str(error))
            return otherwise

    def _table(self, name: str, kind: type[Struct], tables: dict[str, Any]) -> dict[str, Any]:
        found = tables.get(name, {})
        if not isinstance(found, dict):
            self._fault((name,), "is no table.", f"Write [{name}.NAME].")
            return {}
        rows = {}
        for key, row in found.items():
            made = self._struct((name, key), kind, row, {"name": key})
            if made is not None:
                rows[key] = made
        return rows

    def _struct(
        self, path: Path_, kind: type[Struct], row: Any, given: dict[str, Any]
    ) -> Struct | None:
        """One struct, or None after saying everything that is wrong with it."""
        if not isinstance(row, dict):
            self._fault(path, "is no table.")
            return None
        before = len(self._errors)
        hints, fields = get_type_hints(kind), msgspec.structs.fields(kind)
        names: dict[str, Any] = {
            f.name.rstrip("_"): f for f in fields if f.name not in given
        }
        self._unknown(path, row, tuple(names))
        values = dict(given)
        for key, value in row.items():
            if key in names:
                field = RENAMED.get(key) or str(key)
                values[field] = self._value((*path, key), hints[field], value)
        for key, f in names.items():
            if key not in row and f.required:
                self._fault(path, f"has no {key}.", f"Add {key} = …")
        return kind(**values) if len(self._errors) == before else None

    def _value(self, path: Path_, kind: Any, value: Any) -> Any:
        inner = _struct_in(kind)
        if inner is not None and isinstance(value, dict):
            given = {"name": path[-1]} if "name" in inner.__struct_fields__ else {}
            return self._struct(path, inner, value, given)
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            self._fault(path, str(error))
            return None


def _struct_in(kind: Any) -> type[Struct] | None:
    """The Struct of ``X`` or ``X | None``."""
    for candidate in (kind, *getattr(kind, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, Struct):
            return candidate
    return None


def _upwards(path: Path_) -> Iterator[Path_]:
    """The path, then each table around it."""
    for n in range(len(path), 0, -1):
        yield path[:n]


_HEADER = re.compile(r"^\s*\[\[?\s*(.+?)\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(r"""^\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART = re.compile(r"""[\w-]+|"[^"]*"|'[^']*'""")


def lines_of(text: str) -> dict[Path_, int]:
    """The line of every key and table header; keys inside inline tables have their outer line."""
    found: dict[Path_, int] = {}
    table: Path_ = ()
    for number, line in enumerate(text.splitlines(), 1):
        header, key = _HEADER.match(line), _KEY.match(line)
        if header and not key:
            table = _parts(header[1])
            found.setdefault(table, number)
        elif key:
            path = table + _parts(key[1])
            found.setdefault(path, number)
    return found


def _parts(dotted: str) -> Path_:
    return tuple(part.strip("\"'") for part in _PART.findall(dotted))


